"""What the mock server answers: one JSON-RPC message in, at most one out.

It speaks the 2025-06-18 revision of MCP, and the two before it to clients that ask
for them. It must never touch anything real: ``read_file`` returns a fixed text and
``dangerous_delete`` deletes nothing.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["PROTOCOL_VERSION", "TOOLS", "InvalidMessageError", "answer", "error"]

PROTOCOL_VERSION = "2025-06-18"
KNOWN_VERSIONS = frozenset({"2024-11-05", "2025-03-26", PROTOCOL_VERSION})

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602


def _tool(name: str, description: str, argument: str, meaning: str) -> dict[str, Any]:
    """A tool that takes one required text."""
    return {
        "name": name,
        "description": description,
        "inputSchema": {
            "type": "object",
            "properties": {argument: {"type": "string", "description": meaning}},
            "required": [argument],
        },
    }


TOOLS: list[dict[str, Any]] = [
    _tool("echo", "Say the same thing back.", "message", "What to say."),
    _tool("read_file", "Return a made-up file for any path.", "path", "The file's path."),
    _tool("dangerous_delete", "Claim to delete a path.", "path", "What to claim."),
]
# The one argument of each tool, by the tool's name.
_ARGUMENT = {tool["name"]: tool["inputSchema"]["required"][0] for tool in TOOLS}
_SAID = {
    "echo": "{}",
    "read_file": "Demo contents of {}\nNo file was read.\n",
    "dangerous_delete": "Deleted {} (not really: this server deletes nothing)",
}


class InvalidMessageError(Exception):
    """A body that is no JSON-RPC message; ``reply`` is the error to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.reply = error(None, code, message)


class _Refused(Exception):
    """A request that gets a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def error(id: str | float | None, code: int, message: str) -> dict[str, Any]:
    """A JSON-RPC error response (JSON-RPC 2.0, section 5.1)."""
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


def answer(body: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return what the message was, for the log, and its reply; None where none is due.

    Raises InvalidMessageError for a body that holds no single JSON-RPC message.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidMessageError(PARSE_ERROR, "the body is not JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise InvalidMessageError(INVALID_REQUEST, "the body is not one JSON-RPC 2.0 message")
    if "method" not in message and ("result" in message or "error" in message):
        return "response", None
    method = message.get("method")
    if not isinstance(method, str):
        raise InvalidMessageError(INVALID_REQUEST, "method is missing or not a text")
    if "id" not in message:
        return method, None
    id = message["id"]
    if isinstance(id, bool) or not isinstance(id, (str, int, float)):
        raise InvalidMessageError(INVALID_REQUEST, "id is neither a text nor a number")
    try:
        result = _result(method, message.get("params", {}))
    except _Refused as refused:
        return method, error(id, refused.code, str(refused))
    return method, {"jsonrpc": "2.0", "id": id, "result": result}


def _result(method: str, params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise _Refused(INVALID_PARAMS, "params is not an object")
    match method:
        case "initialize":
            asked = params.get("protocolVersion")
            known = isinstance(asked, str) and asked in KNOWN_VERSIONS
            return {
                "protocolVersion": asked if known else PROTOCOL_VERSION,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "mock-mcp", "version": "1.0.0"},
            }
        case "ping":
            return {}
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            return _call(params.get("name"), params.get("arguments", {}))
    raise _Refused(METHOD_NOT_FOUND, f"unknown method: {method}")


def _call(name: Any, arguments: Any) -> dict[str, Any]:
    if not isinstance(name, str) or name not in _ARGUMENT:
        raise _Refused(INVALID_PARAMS, f"unknown tool: {name}")
    if not isinstance(arguments, dict):
        raise _Refused(INVALID_PARAMS, "arguments is not an object")
    argument = _ARGUMENT[name]
    value = arguments.get(argument)
    # A bad argument is told to the model, not to its client, so that it may try again.
    failed = not isinstance(value, str)
    said = f"{argument} must be given, as a text" if failed else _SAID[name].format(value)
    return {"content": [{"type": "text", "text": said}], "isError": failed}
