"""A recorded server whose tools a test sets, and what a gateway made of them."""

import gzip
import json
import time
from collections import Counter

import trio

TOOL = {
    "name": "echo",
    "title": "Echo",
    "description": "Says again what it is told, word for word.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    "outputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": True, "destructiveHint": False},
    "icons": [{"src": "https://example.org/i.png"}],
    "_meta": {"example.org/shade": 1},
}


def tool(name="echo", **changes):
    return {**TOOL, "name": name, **changes}


class Clock:
    """The watcher's clock, which a test moves."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        return time.time() + self.ahead_s


class Server:
    """What a recorder answers. ``listing`` answers lists in another way than ``form`` does.

    ``form`` is ``json``, ``sse``, ``noisy`` (other messages come before), ``junk`` (and what
    is none) or ``primed`` (an event without data comes before).
    """

    def __init__(self, *tools):
        self.tools = list(tools)
        self.form = "json"
        self.listing = None
        self.calling = None
        self.asked = []
        self.count = Counter()
        #: Messages for whoever has a GET stream open, and how many have.
        self.streams = []

    async def answer(self, seen, reply):
        if seen.method == "GET":
            await self._stream(reply)
            return
        message = seen.message
        method = message.get("method")
        self.count[method] += 1
        self.asked.append(seen)
        if "id" not in message:
            await reply.send(202, [])
        elif method == "tools/list":
            await (self.listing or self.list)(seen, reply)
        elif self.calling is not None:
            await self.calling(seen, reply)
        else:
            text = f"{method} {self.count[method]}"
            await reply.json(answer(seen, {"content": [{"type": "text", "text": text}]}))

    async def list(self, seen, reply, **result):
        await self.give(answer(seen, {"tools": self.tools, **result}), reply)

    async def give(self, value, reply):
        if self.form == "json":
            await reply.json(value)
            return
        await reply.start_events()
        if self.form == "primed":
            await reply.event(b"id: 0\nretry: 500\ndata:\n\n", raw=True)
        elif self.form in ("noisy", "junk"):
            await reply.event(b": hello\n\n", raw=True)
            await reply.event({"jsonrpc": "2.0", "method": "notifications/message",
                               "params": {"level": "info", "data": "tools/list"}})  # fmt: skip
            await reply.event({"jsonrpc": "2.0", "id": "1", "method": "ping"})
        if self.form == "junk":
            await reply.event({"jsonrpc": "2.0", "id": "else", "result": {"tools": []}})
            await reply.event(b"data: no JSON\n\n", raw=True)
        await reply.event(value)
        await reply.end()

    async def _stream(self, reply):
        send, receive = trio.open_memory_channel(100)
        self.streams.append(send)
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        async for message in receive:
            await reply.event(message, raw=isinstance(message, bytes))

    @property
    def lists(self):
        return self.count["tools/list"]

    @property
    def calls(self):
        return self.count["tools/call"]


def answer(seen, result):
    return {"jsonrpc": "2.0", "id": seen.message["id"], "result": result}


def pages(*each, server=None):
    """A listing of several pages, by the cursors ``p1``, ``p2`` …"""

    async def listing(seen, reply):
        cursor = seen.message.get("params", {}).get("cursor")
        at = int(cursor[1:]) if cursor else 0
        result = {"tools": each[at]}
        if at + 1 < len(each):
            result["nextCursor"] = f"p{at + 1}"
        if server is None:
            await reply.json(answer(seen, result))
        else:
            await server.give(answer(seen, result), reply)

    return listing


def refusing(status, body=b"", headers=()):
    """A listing that is answered with ``status``."""

    async def listing(_seen, reply):
        await reply.send(status, [("content-type", "application/json"), *headers], body)

    return listing


async def squeezed(seen, reply):
    """A listing that is compressed though nobody asked for that."""
    body = gzip.compress(json.dumps(answer(seen, {"tools": [TOOL]})).encode())
    await reply.send(200, [("content-type", "application/json"), ("content-encoding", "gzip")],
                     body)  # fmt: skip


def config(tmp_path, mode="enforce", **more):
    inspection = more.pop("inspection", {})
    return {
        "inspection": {"tool_integrity": mode, **inspection},
        "data_dir": str(tmp_path / "data"),
        **more,
    }


async def findings(gateway, at_least=0):
    """The audit's lines of tools that are not as they were pinned."""
    with trio.fail_after(5):
        while True:
            found = [line for line in await gateway.audit() if line["msg"] == "mcp.integrity"]
            if len(found) >= at_least:
                return found
            await trio.sleep(0.01)


def names(response):
    return [each["name"] for each in response.json["result"]["tools"]]
