"""Connections to one upstream, kept and used again.

What it is: a bounded pool of HTTP/1.1 connections to one server, last in first out, and
one exchange on one of them. A request's head and body leave in one ``send``.

What it must never do: decide about a message, change it, follow a redirect, or send a
request twice when the first may have been executed.

A connection that idles can be closed by the server at any moment. Before it is used
again the kernel is asked whether that has happened; if it happens just after, the
request is sent once more only if the caller says that it may be (``repeatable``).

Every wait has a deadline: the caller's ``Watch`` is moved before each.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Final, Self

import trio

from mcpx.config.snapshot import Timeouts, UpstreamUrl
from mcpx.errors import Overloaded, RemoteProtocolError, UpstreamBroken
from mcpx.protocol.http1 import ResponseHead, ResponseParser
from mcpx.transport.deadlines import NEVER, Watch
from mcpx.transport.readiness import Readiness
from mcpx.transport.wire import Broken, PlainWire, TlsWire, Wire

__all__ = ["UpstreamAnswer", "UpstreamPool"]

#: Requests that may wait for a connection, for each connection that there may be.
WAITING_PER_CONNECTION: Final = 16
IDLE_S: Final = 60.0


class _Connection:
    """One connection and its parser."""

    __slots__ = ("apart", "idle_since", "kept", "parser", "wire")

    def __init__(self, wire: Wire, parser: ResponseParser) -> None:
        self.wire = wire
        self.parser = parser
        #: It served an exchange before, and nothing has come in answer to this one yet:
        #: if it breaks now, the server had most likely closed it before it saw anything.
        self.kept = False
        self.idle_since = 0.0
        #: It carries a stream and holds no place in the pool.
        self.apart = False


class UpstreamAnswer:
    """An answer whose head has arrived; its body is read as it comes.

    Use it as a context manager: leaving the block gives the connection back if the
    answer was read to its end, and closes it otherwise, which tells the server.
    """

    __slots__ = ("_connection", "_idle_s", "_pool", "_watch", "head")

    def __init__(
        self, pool: UpstreamPool, connection: _Connection, head: ResponseHead, watch: Watch
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._watch = watch
        self._idle_s = pool.timeouts.idle_s
        self.head = head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.give_back(self._connection)

    @property
    def complete(self) -> bool:
        """Whether the whole body has arrived (it may not all have been taken)."""
        return self._connection.parser.complete

    def arrived(self) -> bytes:
        """What has arrived of the body and was not yet taken; may be empty."""
        return self._connection.parser.take_body()

    def streams(self) -> None:
        """This is an event stream: silence may last longer, and no total applies.

        It gives up its place among the pool's connections, for others could wait long
        for it. Streams are bounded by their clients' connections.
        """
        self._idle_s = self._pool.timeouts.stream_idle_s
        self._watch.limit = NEVER
        self._pool.set_apart(self._connection)

    async def chunk(self) -> bytes:
        """The next bytes of the body, none at its end.

        Raises:
            UpstreamBroken: the answer was cut short or is not HTTP.
        """
        connection = self._connection
        parser = connection.parser
        while True:
            data = parser.take_body()
            if data or parser.complete:
                return data
            self._watch.within(self._idle_s, "upstream body")
            try:
                received = await connection.wire.receive()
                if received:
                    parser.feed(received)
                else:
                    parser.eof()
            except (Broken, RemoteProtocolError) as exc:
                raise UpstreamBroken(
                    "the server's answer was cut short", reason=f"answer cut short: {_said(exc)}"
                ) from exc


class UpstreamPool:
    """The connections to one URL.

    Args:
        url: where to connect, and what ``Host`` says.
        timeouts: seconds; see ``config.snapshot.Timeouts``.
        max_connections: at one time; further requests wait, up to 16 for each.
        tls: how to speak TLS, for ``https``.
        server_name: the name to verify.
        parser: makes a response parser.
        files: what the files named in the settings were like when they were read.
        readiness: how its plain connections wait for bytes; ``None`` for trio's own way.
    """

    def __init__(
        self,
        url: UpstreamUrl,
        timeouts: Timeouts,
        *,
        max_connections: int,
        tls: ssl.SSLContext | None,
        server_name: str,
        parser: Callable[[], ResponseParser],
        files: tuple[object, ...] = (),
        readiness: Readiness | None = None,
    ) -> None:
        self.url = url
        self.timeouts = timeouts
        self.files = files
        self._limit = max_connections
        self._tls = tls
        self._server_name = server_name
        self._parser = parser
        self._readiness = readiness
        self._idle: list[_Connection] = []
        self._in_use = 0
        self._apart = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._closed = False

    @property
    def in_use(self) -> int:
        """Connections that carry an exchange now, streams among them."""
        return self._in_use + self._apart

    async def exchange(
        self, method: str, message: bytes, watch: Watch, *, repeatable: bool
    ) -> UpstreamAnswer:
        """Send ``message`` (head and body) and wait for the answer's head.

        Args:
            method: the HTTP method, which decides whether the answer has a body.
            message: the whole request.
            watch: its deadline is moved here.
            repeatable: whether the request may be sent again when a kept connection
                turns out to be closed before a byte of the answer has come.

        Raises:
            Overloaded: too many requests wait for a connection.
            UpstreamBroken: not reached, or its answer is not HTTP. ``data["sent"]`` says
                whether the request may have been executed.
        """
        watch.within(self.timeouts.connect_s, "a free connection")
        await self._slot()
        # Together they take no longer than the setting says.
        watch.phase = "upstream connection"
        try:
            while True:
                connection = self._kept() or await self._connect()
                try:
                    return await self._send(connection, method, message, watch)
                except (Broken, RemoteProtocolError) as exc:
                    connection.wire.close()
                    if isinstance(exc, Broken) and connection.kept and repeatable:
                        continue
                    raise UpstreamBroken(
                        "the server closed the connection without an answer"
                        if isinstance(exc, Broken)
                        else "the server's answer is not valid HTTP",
                        reason=f"no answer: {_said(exc)}",
                    ) from exc
                except BaseException:
                    connection.wire.close()
                    raise
        except BaseException:
            self._release()
            raise

    async def _send(
        self, connection: _Connection, method: str, message: bytes, watch: Watch
    ) -> UpstreamAnswer:
        wire, parser = connection.wire, connection.parser
        parser.expect(method)
        watch.within(self.timeouts.head_s, "upstream answer")
        unsent: Broken | None = None
        try:
            await wire.send(message)
        except Broken as exc:
            # A server may refuse a request before it has read all of it, and close. Its
            # answer may still be there to read.
            unsent = exc
        received = await wire.receive(wait_first=unsent is None)
        while True:
            if not received:
                if unsent is not None:
                    raise unsent
                parser.eof()
                if parser.head is None:
                    raise Broken
            else:
                connection.kept = False
                parser.feed(received)
            head = parser.head
            if head is not None:
                return UpstreamAnswer(self, connection, head, watch)
            received = await wire.receive(wait_first=True)

    # -- connections ------------------------------------------------------------

    async def _slot(self) -> None:
        """Take one of the places, or wait for one. The Watch bounds the wait."""
        if self._in_use < self._limit:
            self._in_use += 1
            return
        if len(self._waiting) >= self._limit * WAITING_PER_CONNECTION:
            raise Overloaded("too many requests wait for this server")
        # Whoever leaves hands its place to the one woken here.
        await self._waiting.park()

    def _release(self) -> None:
        if self._waiting:
            self._waiting.unpark()
        else:
            self._in_use -= 1

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.wire.stale():
                return connection
            connection.wire.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            stream = await trio.open_tcp_stream(self.url.host, self.url.port)
        except OSError as exc:
            # The text of the error names addresses: it is for the log, not for clients.
            raise UpstreamBroken(
                "the server can't be reached", reason=f"connect: {_refused(exc)}"
            ) from exc
        sock = stream.socket
        raw = socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        raw.setblocking(False)
        if self._tls is None:
            return _Connection(PlainWire(raw, self._readiness), self._parser())
        return _Connection(await self._secure(raw, self._tls), self._parser())

    async def _secure(self, raw: socket.socket, context: ssl.SSLContext) -> TlsWire:
        try:
            stream = trio.SSLStream(
                trio.SocketStream(trio.socket.from_stdlib_socket(raw)),
                context,
                server_hostname=self._server_name,
                https_compatible=True,
            )
            await stream.do_handshake()
        except BaseException as exc:
            raw.close()
            if isinstance(exc, trio.BrokenResourceError | ValueError):
                raise UpstreamBroken(
                    "no TLS connection to the server", reason=f"tls: {exc.__cause__ or exc}"
                ) from exc
            raise
        return TlsWire(stream, raw)

    def give_back(self, connection: _Connection) -> None:
        """The exchange on ``connection`` is over: keep it if it can be used again."""
        if connection.parser.reusable and not self._closed:
            connection.idle_since = trio.current_time()
            connection.kept = True
            self._idle.append(connection)
        else:
            connection.wire.close()
        if connection.apart:
            connection.apart = False
            self._apart -= 1
        else:
            self._release()

    def set_apart(self, connection: _Connection) -> None:
        """Give the place of ``connection`` to whoever waits for one."""
        if not connection.apart:
            connection.apart = True
            self._apart += 1
            self._release()

    def reap(self, now: float) -> None:
        """Close what has idled too long (the oldest are first)."""
        keep = 0
        for connection in self._idle:
            if now - connection.idle_since < IDLE_S:
                break
            connection.wire.close()
            keep += 1
        if keep:
            del self._idle[:keep]

    def close(self) -> None:
        """Close what idles; what is in use closes when its exchange ends."""
        self._closed = True
        for connection in self._idle:
            connection.wire.close()
        self._idle.clear()


def _refused(exc: OSError) -> str:
    """Why no address could be reached: the first attempt's own words, with all addresses."""
    cause = exc.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return f"{exc} ({cause.strerror})" if isinstance(cause, OSError) else str(exc)


def _said(exc: BaseException) -> str:
    """What happened, for the audit's reason: a cause's words, or the event's name."""
    cause = exc.__cause__ or exc
    return str(cause) or type(cause).__name__
