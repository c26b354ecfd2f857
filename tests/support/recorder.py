"""An upstream that writes down what reaches it, and answers as it is told.

It reads with h11, which is not what the gateway writes with: what it recorded is what an
independent parser understood.
"""

import json
from collections.abc import Awaitable, Callable

import h11
import trio


class Seen:
    """One request as it arrived."""

    def __init__(self, request, body):
        self.method = request.method.decode()
        self.target = request.target
        self.headers = [(name.lower(), value) for name, value in request.headers]
        self.body = body

    def header(self, name):
        values = [value for key, value in self.headers if key == name.encode()]
        return values[0].decode() if values else None

    @property
    def message(self):
        return json.loads(self.body)


class Answering:
    """What an answer function writes with."""

    def __init__(self, stream, connection):
        self._stream = stream
        self._connection = connection

    async def raw(self, data):
        await self._stream.send_all(data)

    async def send(self, status, headers, body=b""):
        headers = [*headers, ("content-length", str(len(body)))]
        await self._write(h11.Response(status_code=status, headers=headers))
        if body:
            await self._write(h11.Data(data=body))
        await self._write(h11.EndOfMessage())

    async def json(self, value, status=200, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        await self.send(status, [("content-type", "application/json"), *headers], body)

    async def start_events(self, headers=()):
        await self._write(
            h11.Response(
                status_code=200,
                headers=[
                    ("content-type", "text/event-stream"),
                    ("transfer-encoding", "chunked"),
                    *headers,
                ],
            )
        )

    async def event(self, data, raw=False):
        text = data if raw else b"event: message\ndata: " + json.dumps(data).encode() + b"\n\n"
        await self._write(h11.Data(data=text))

    async def end(self):
        await self._write(h11.EndOfMessage())

    async def hang_up(self):
        await self._stream.aclose()

    async def _write(self, event):
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)


Answer = Callable[[Seen, Answering], Awaitable[None]]


def result(seen, value):
    return {"jsonrpc": "2.0", "id": seen.message["id"], "result": value}


TOOLS = [
    {"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object"}},
    {"name": "read_file", "inputSchema": {"type": "object"}, "x-unknown": {"kept": [1, 2]}},
    {"name": "dangerous_delete", "inputSchema": {"type": "object"}},
]


async def plain_mcp(seen, answer):
    """A small server: lists three tools, answers calls with their arguments."""
    if seen.method != "POST":
        await answer.json({"status": "ok"})
        return
    message = seen.message
    method = message.get("method")
    if "id" not in message or method is None:
        await answer.send(202, [])
    elif method == "tools/list":
        await answer.json(result(seen, {"tools": TOOLS}))
    elif method == "tools/call":
        text = json.dumps(message["params"].get("arguments"))
        await answer.json(result(seen, {"content": [{"type": "text", "text": text}]}))
    else:
        await answer.json(result(seen, {}))


class Recorder:
    """The upstream. ``seen`` holds the requests, in order of arrival."""

    def __init__(self):
        self.seen: list[Seen] = []
        self.answer: Answer = plain_mcp
        self.connections = 0
        self.open = 0
        self.arrived = trio.Event()
        self.url = ""

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/mcp"
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: trio.serve_listeners(
                    self._serve, listeners, task_status=task_status
                )
            )
            task_status.started(self)
            await trio.sleep_forever()

    async def _serve(self, stream):
        self.connections += 1
        self.open += 1
        connection = h11.Connection(h11.SERVER)
        try:
            await self._exchanges(stream, connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        except h11.LocalProtocolError:
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _exchanges(self, stream, connection):
        while True:
            request = await self._event(stream, connection)
            if isinstance(request, h11.ConnectionClosed):
                return
            body = b""
            while isinstance(event := await self._event(stream, connection), h11.Data):
                body += bytes(event.data)
            if isinstance(event, h11.ConnectionClosed):
                return
            seen = Seen(request, body)
            self.seen.append(seen)
            self.arrived.set()
            self.arrived = trio.Event()
            await self.answer(seen, Answering(stream, connection))
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _event(self, stream, connection):
        while True:
            event = connection.next_event()
            if event is not h11.NEED_DATA:
                return event
            connection.receive_data(await stream.receive_some(65536))
