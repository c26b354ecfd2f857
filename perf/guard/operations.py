"""The speedups under callgrind: ``python operations.py COUNT``, each operation in turn.

What it is: every operation that has a budget, with its input, and the loop that repeats
it. A call of ``os.getppid`` stands before and after each loop, at which callgrind writes
what it has counted since the last one (``--dump-before=getppid``).

What it must never do: leave out a pair of twins without saying so. ``unmeasured`` names
those of ``mcpx/_speedups`` that nothing here measures, and the guard fails on them.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["OPERATIONS", "backend", "unmeasured"]

CALL_150 = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":'
    b'{"path":"/srv/shared/notes.txt","text":"' + b"x" * 25 + b'"}}}'
)
CALL_560 = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": "c1c6f0de-83b3-4f2b-8f0e-0d6b7f6a9a55",
        "method": "tools/call",
        "params": {
            "_meta": {"progressToken": 17},
            "name": "search_documents",
            "arguments": {
                "query": 'the "quarterly" report \u2013 final',
                "limit": 25,
                "offset": 0,
                "filters": {"author": ["ann", "bob"], "after": "2026-01-01", "tags": []},
                "options": {"fuzzy": True, "weights": [0.25, 0.5, 1e-3], "cursor": None},
                "text": "y" * 146,
            },
        },
    }
).encode()
TOOL_2K = json.dumps(
    {
        "name": "search_documents",
        "title": "Search",
        "description": "Find documents. " * 40,
        "inputSchema": {
            "type": "object",
            "required": ["query", "limit"],
            "additionalProperties": False,
            "properties": {
                f"field_{number}": {
                    "type": "string",
                    "description": f"What field {number} must hold \u2014 in any case.",
                    "maxLength": number * 100,
                }
                for number in (9, 3, 7, 1, 5, 8, 2, 6, 4, 0)
            },
        },
        "annotations": {"readOnlyHint": True, "destructiveHint": False},
    }
).encode()
EVENTS = b"".join(
    b'event: message\nid: %d\ndata: {"jsonrpc":"2.0","method":"notifications/progress",'
    b'"params":{"progressToken":1,"progress":%d}}\n\n' % (number, number)
    for number in range(10)
)
LINES = b"".join(CALL_150 + b"\n" for _ in range(10))
FIELDS = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (b"authorization", b"Bearer 0123456789abcdef"),
    (b"mcp-protocol-version", b"2025-11-25"),
    (b"user-agent", b"a client"),
]
LIMIT_BYTES = 1 << 20


def _scan(body: bytes) -> Callable[[], object]:
    scan = importlib.import_module("mcpx._speedups.frames").scan
    return lambda: scan(body)


def _digest() -> Callable[[], object]:
    digest = importlib.import_module("mcpx._speedups.canon").digest
    return lambda: digest(TOOL_2K)


def _events() -> Callable[[], object]:
    parser = importlib.import_module("mcpx._speedups.sse").EventParser(LIMIT_BYTES)
    return lambda: parser.feed(EVENTS)


def _lines() -> Callable[[], object]:
    parser = importlib.import_module("mcpx._speedups.ndjson").LineParser(LIMIT_BYTES)
    return lambda: parser.feed(LINES)


def _heads() -> Callable[[], object]:
    heads = importlib.import_module("mcpx._speedups.heads")

    def filtered_and_written() -> object:
        kept = heads.forwarded_request_headers(FIELDS)
        return heads.request_head("POST", b"/mcp", kept, length=len(CALL_150))

    return filtered_and_written


#: Name to (the pair that it measures, what makes the operation).
OPERATIONS: dict[str, tuple[str, Callable[[], Callable[[], object]]]] = {
    "frames.scan 150 B": ("frames", lambda: _scan(CALL_150)),
    "frames.scan 560 B": ("frames", lambda: _scan(CALL_560)),
    "canon.digest 2 KB": ("canon", _digest),
    "sse.feed 10 events": ("sse", _events),
    "ndjson.feed 10 lines": ("ndjson", _lines),
    "heads of a request": ("heads", _heads),
}


def pairs() -> list[str]:
    """The pairs of twins that there are, by their specifications."""
    folder = Path(importlib.import_module("mcpx._speedups").__file__ or "").parent
    return sorted(path.name.removesuffix("_py.py") for path in folder.glob("*_py.py"))


def backend(pair: str) -> str:
    """``c`` or ``py``: which twin the face of ``pair`` gives."""
    return str(getattr(importlib.import_module("mcpx._speedups"), "BACKENDS", {}).get(pair, "py"))


def unmeasured() -> list[str]:
    """Pairs that no operation here measures."""
    measured = {pair for pair, _ in OPERATIONS.values()}
    return [pair for pair in pairs() if pair not in measured]


def main() -> None:
    count = int(sys.argv[1])
    there = pairs()
    chosen = {name: make for name, (pair, make) in OPERATIONS.items() if pair in there}
    made = {name: make() for name, make in chosen.items()}
    told = {
        "operations": list(made),
        "backends": {pair: backend(pair) for pair in there},
        "unmeasured": unmeasured(),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    for operation in made.values():
        # The interpreter specialises what runs often; a parser gets its buffers.
        for _ in range(20):
            operation()
    gc.collect()
    gc.disable()
    for operation in made.values():
        os.getppid()
        for _ in range(count):
            operation()
        os.getppid()


if __name__ == "__main__":
    main()
