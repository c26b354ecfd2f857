"""The same pipeline over HTTP/2: hypercorn serves it as an ASGI application over TLS.

What it is: the one module that imports hypercorn, and the ``Reply`` that answers through
ASGI. It is there for clients that need HTTP/2; a request costs many times what it costs
on our own listener. What it must never do: treat a request otherwise than the other
listener does. The limits on headers and bodies, the refusals and the deadlines are the
same.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from mcpx.errors import INVALID_REQUEST, ConfigError, LocalProtocolError
from mcpx.protocol.headers import SINGLE_IN_REQUESTS, repeated
from mcpx.protocol.mcp import error_body
from mcpx.transport.connection import Bounds
from mcpx.transport.deadlines import Deadlines, Watch
from mcpx.transport.http import Admit, Handler, Headers, Request
from mcpx.transport.wire import Broken

__all__ = ["Http2Listener"]

log = logging.getLogger("mcpx.http2")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON: Final[Headers] = [(b"content-type", b"application/json")]


class Http2Listener:
    """Serves ``handler`` on ``sock`` with hypercorn until told to ``stop``.

    The shape is that of ``transport.listener.Listener``.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        handler: Handler,
        admit: Admit,
        bounds: Bounds,
        deadlines: Deadlines,
        max_connections: int,
        cert: str,
        key: str,
    ) -> None:
        self._socket = sock
        self._handler = handler
        self._admit = admit
        self.bounds = bounds
        self.max_connections = max_connections
        self._deadlines = deadlines
        self._cert, self._key = cert, key
        self._stop = trio.Event()
        self._exchanges = 0
        self.ended = trio.Event()

    @property
    def connections(self) -> int:
        """Requests that are being served now: hypercorn keeps the connections to itself."""
        return self._exchanges

    @property
    def address(self) -> str:
        """Where it listens, as clients would write it."""
        name = self._socket.getsockname()
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"

    def stop(self) -> None:
        """Accept no more, and end when what is in flight has ended."""
        self._stop.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve.

        Raises:
            ConfigError: hypercorn is not installed.
        """
        try:
            from hypercorn.config import Config
            from hypercorn.trio import serve
        except ImportError as exc:
            raise ConfigError(
                ["http2: it needs an extra; pip install 'mcpx-gateway[http2]'"]
            ) from exc
        config = Config()
        self._socket.setblocking(False)
        config.bind = [f"fd://{self._socket.fileno()}"]
        config.certfile, config.keyfile = self._cert, self._key
        config.alpn_protocols = ["h2", "http/1.1"]
        config.include_server_header = False
        config.include_date_header = False
        config.accesslog = None
        config.errorlog = None
        config.keep_alive_timeout = self.bounds.keep_alive_s
        config.read_timeout = None
        config.graceful_timeout = 1e9  # our own drain ends it
        config.h11_max_incomplete_size = self.bounds.header_bytes
        config.h2_max_header_list_size = self.bounds.header_bytes
        config.websocket_max_message_size = 1
        try:
            await serve(
                self._application,  # type: ignore[arg-type]
                config,
                shutdown_trigger=self._stop.wait,
                task_status=_Started(task_status),
                mode="asgi",
            )
        finally:
            self._socket.close()
            self.ended.set()

    async def _application(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            # A WebSocket: closed before it is accepted, which is a 403 on the wire.
            await send({"type": "websocket.close", "code": 1008})
            return
        self._exchanges += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._exchanges -= 1

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        reply = AsgiReply(receive, send, self.bounds)
        self._deadlines.add(reply.watch)
        try:
            with reply.watch.scope:
                try:
                    request = await self._request(scope, reply)
                    if request is not None:
                        await self._handler(request, reply)
                except (Broken, LocalProtocolError):
                    pass
            if reply.watch.scope.cancelled_caught and reply.said is not None and not reply.started:
                with trio.move_on_after(1):
                    await reply.answer(*reply.said)
        finally:
            self._deadlines.remove(reply.watch)
        if reply.aborted:
            # hypercorn resets the stream of an application that fails after its start.
            raise Broken("the answer was cut short")

    async def _request(self, scope: dict[str, Any], reply: AsgiReply) -> Request | None:
        """The whole request, or ``None`` after it was refused."""
        headers: Headers = [
            (bytes(name).lower(), bytes(value).strip(b" \t")) for name, value in scope["headers"]
        ]
        target = bytes(scope["raw_path"])
        if scope["query_string"]:
            target += b"?" + bytes(scope["query_string"])
        client = scope.get("client")
        peer = str(client[0]) if client else "unknown"
        request = Request(str(scope["method"]), target, headers, b"", peer, str(scope["scheme"]))
        problem = self._problem(headers, target)
        if problem is not None:
            status, words = problem
            await reply.answer(status, _JSON, error_body(None, INVALID_REQUEST, words, None))
            return None
        length = request.header(b"content-length")
        declared = int(length) if length is not None and length.isdigit() else None
        refusal = self._admit(request, reply, declared)
        if refusal is not None:
            status, answer_headers, body = refusal
            await reply.answer(status, answer_headers, body)
            return None
        reply.watch.until(trio.current_time() + self.bounds.read_s, "request")
        reply.said = (
            408, _JSON, error_body(None, INVALID_REQUEST, "the request took too long", None)
        )  # fmt: skip
        parts: list[bytes] = []
        size = 0
        while True:
            message = await reply.next_message()
            data = bytes(message.get("body", b""))
            size += len(data)
            if size > self.bounds.body_bytes:
                too_large = error_body(None, INVALID_REQUEST, "the body is too large", None)
                await reply.answer(413, _JSON, too_large)
                return None
            parts.append(data)
            if not message.get("more_body"):
                break
        request.body = b"".join(parts)
        reply.said = None
        reply.watch.rest()
        return request

    def _problem(self, headers: Headers, target: bytes) -> tuple[int, str] | None:
        if len(headers) > self.bounds.header_count:
            return 431, "too many headers"
        twice = repeated(headers, SINGLE_IN_REQUESTS)
        if twice is not None:
            return 400, f"the header {twice.decode()} stands twice"
        if not target.startswith(b"/") or not target.isascii():
            return 400, "the request's target must be a path"
        return None


class _Started:
    """hypercorn tells its addresses; ours tells nothing."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, _value: object = None) -> None:
        self._task_status.started()


class AsgiReply:
    """Answers one request through ASGI."""

    def __init__(self, receive: Receive, send: Send, bounds: Bounds) -> None:
        self._receive = receive
        self._send = send
        self._bounds = bounds
        self.watch = Watch(trio.CancelScope())
        self.started = False
        self.aborted = False
        self.said: tuple[int, Headers, bytes] | None = None
        self._gone = False

    async def next_message(self) -> dict[str, Any]:
        """The next part of the request. Raises ``Broken`` when the client leaves."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            raise Broken("the client left")
        return message

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self.start(status, headers, None if status in (204, 304) else len(body))
        await self._body(body, more=False)

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows."""
        self.started = True
        head = list(headers)
        if length is not None:
            head.append((b"content-length", str(length).encode()))
        await self._put({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, data: bytes) -> None:
        """A part of the body."""
        await self._body(data, more=True)

    async def finish(self) -> None:
        """The body is whole."""
        await self._body(b"", more=False)

    def abort(self) -> None:
        """End the stream so that a cut body is seen to be cut."""
        self.aborted = True

    def last_words(self, status: int, headers: Headers, body: bytes) -> None:
        """What to answer if the exchange is cancelled before an answer has started."""
        self.said = (status, headers, body)

    async def until_gone(self) -> None:
        """Return when the client has left."""
        while not self._gone:
            message = await self._receive()
            self._gone = message["type"] == "http.disconnect"

    def hung_up(self) -> bool:
        """Whether the client has been seen to leave."""
        return self._gone

    async def _body(self, data: bytes, *, more: bool) -> None:
        await self._put({"type": "http.response.body", "body": data, "more_body": more})

    async def _put(self, message: dict[str, Any]) -> None:
        self.watch.until(trio.current_time() + self._bounds.write_s, "client")
        await self._send(message)
