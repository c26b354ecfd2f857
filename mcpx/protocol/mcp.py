"""The Model Context Protocol's names: methods, versions, and the shape of an error.

What it is: literal tables of what the revisions 2024-11-05 to 2026-07-28 and the tasks
extension define, read off their schemas, and two functions over them. What it must
never do: decide. A method in a table is known, not allowed.

Two eras share the wire. A *legacy* peer opens with ``initialize`` and speaks one of
``LEGACY_VERSIONS``; a *modern* one (2026-07-28 and later) says its version with every
request, in ``params._meta`` and in the header ``MCP-Protocol-Version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = [
    "CLIENT_METHODS",
    "CLIENT_NOTIFICATIONS",
    "CLIENT_REQUESTS",
    "LATEST_LEGACY_VERSION",
    "LEGACY_VERSIONS",
    "LISTS",
    "MIRRORED_MEMBERS",
    "MODERN_VERSIONS",
    "SERVER_METHODS",
    "TARGETS",
    "VERSIONS",
    "error_body",
    "is_modern",
]

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_LEGACY_VERSION: Final = "2025-11-25"
MODERN_VERSIONS: Final = ("2026-07-28",)
VERSIONS: Final = LEGACY_VERSIONS + MODERN_VERSIONS

CLIENT_REQUESTS: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        # Tasks: get and cancel in both forms, list and result in 2025-11-25 alone,
        # update in the extension alone.
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tools/call",
        "tools/list",
    }
)
CLIENT_NOTIFICATIONS: Final = frozenset(
    {
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        # A client that runs a sampling or an elicitation as a task (2025-11-25) tells how it goes.
        "notifications/tasks/status",
    }
)
CLIENT_METHODS: Final = CLIENT_REQUESTS | CLIENT_NOTIFICATIONS

SERVER_METHODS: Final = frozenset(
    {
        "elicitation/create",
        "notifications/cancelled",
        "notifications/elicitation/complete",
        "notifications/message",
        "notifications/progress",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/tasks",
        "notifications/tasks/status",
        "notifications/tools/list_changed",
        "ping",
        "roots/list",
        "sampling/createMessage",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
    }
)

# What a method acts on. completion/complete is not here: what it acts on is in params.ref.
TARGETS: Final = {
    "prompts/get": "prompt",
    "resources/read": "resource",
    "resources/subscribe": "resource",
    "resources/unsubscribe": "resource",
    "tools/call": "tool",
}

# What a method lists: the member of the result that holds the items, and their kind.
LISTS: Final = {
    "prompts/list": ("prompts", "prompt"),
    "resources/list": ("resources", "resource"),
    "resources/templates/list": ("resourceTemplates", "template"),
    "tools/list": ("tools", "tool"),
}

# The member of params that the header Mcp-Name repeats (2026-07-28, "Request Metadata
# Headers"; the tasks extension for tasks/*).
MIRRORED_MEMBERS: Final = {
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/cancel": "taskId",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tools/call": "name",
}

_LEGACY_HEADERS: Final = frozenset(version.encode() for version in LEGACY_VERSIONS)


def is_modern(header_version: bytes | None, meta_version: str | None) -> bool:
    """Whether a request is to be judged by the rules of 2026-07-28 and later.

    ``header_version`` is the value of ``MCP-Protocol-Version`` and ``meta_version`` the
    ``io.modelcontextprotocol/protocolVersion`` of the body's ``_meta``; None is absent.
    A version in ``_meta`` is modern whatever it says, and so is a header that names no
    legacy version: those rules are the ones that say how an unknown version is refused.
    The method plays no part: ``initialize`` in a modern envelope is a modern request.
    """
    if meta_version is not None:
        return True
    return header_version is not None and header_version not in _LEGACY_HEADERS


def error_body(
    id_raw: bytes | None,
    code: int,
    message: str,
    data: Mapping[str, object] | None = None,
) -> bytes:
    """A JSON-RPC error response (JSON-RPC 2.0 section 5.1) as compact JSON.

    ``id_raw`` is the request's id as it stood in its text, spliced in unread, so a number
    that no double can hold comes back digit for digit; None gives null. A lone surrogate
    in ``message`` becomes ``?``: it has no UTF-8 form.
    """
    try:
        text = msgspec.json.encode(message)
    except UnicodeEncodeError:
        text = msgspec.json.encode(message.encode("utf-8", "replace").decode())
    tail = b"}}" if data is None else b',"data":%b}}' % msgspec.json.encode(data)
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":%b%b' % (
        b"null" if id_raw is None else id_raw,
        code,
        text,
        tail,
    )
