"""One client connection: HTTP/1.1 requests in, answers out, one at a time.

What it is: the loop of the task that serves a connection, and the ``Reply`` with which
the pipeline answers. What it must never do: look into a body, or decide about a request.

The states, and what bounds each (``timeouts`` and ``limits`` of the configuration):

    idle      no byte of a request yet            keep_alive
    reading   its first byte has come             read, and a second for every 8 KiB
    serving   the pipeline has it                 the pipeline's own deadlines
    writing   the client takes nothing            write

The task has one cancel scope for its life. When the ``Watch`` of the connection expires,
or the gateway can't wait any longer, it is cancelled; what remains to be said is then
said in no time (over TLS in a second), and the connection ends. A slow reader blocks its own task only:
the next bytes are taken from the upstream when the last ones have gone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from mcpx.errors import LocalProtocolError, RemoteProtocolError
from mcpx.protocol.http1 import LAST_CHUNK, RequestHead, RequestParser, chunk, response_head
from mcpx.transport.deadlines import Deadlines, Watch
from mcpx.transport.http import Admit, Budget, Handler, Headers, Request, Unread
from mcpx.transport.wire import Broken, Wire

__all__ = ["Bounds", "Connection"]

#: Bytes a second at which an upload may take longer than ``timeouts.read``.
LEAST_RATE: Final = 8192
#: How long a client may go on sending what was refused.
LINGER_S: Final = 1.0
#: How long what remains to be said may take, where it can't be said at once.
LAST_WORDS_S: Final = 1.0

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ALLOW: Headers = [(b"allow", b"GET, POST, DELETE")]
_SLOW = "the request took too long to arrive"
NO_ROOM: Final = "too many bodies are on their way; send it again in a second"


class Bounds:
    """The seconds and bytes that bound one connection."""

    __slots__ = ("body_bytes", "header_bytes", "header_count", "keep_alive_s", "read_s", "write_s")

    def __init__(
        self,
        *,
        header_bytes: int,
        header_count: int,
        body_bytes: int,
        keep_alive_s: float,
        read_s: float,
        write_s: float,
    ) -> None:
        self.header_bytes = header_bytes
        self.header_count = header_count
        self.body_bytes = body_bytes
        self.keep_alive_s = keep_alive_s
        self.read_s = read_s
        self.write_s = write_s


class Connection:
    """Serves the requests of one connection; it is also the ``Reply`` to each.

    ``busy`` says whether a request is being served. ``retire`` makes the connection end
    after it; one that is not busy ends at once.
    """

    __slots__ = (
        "_admit",
        "_bounds",
        "_budget",
        "_chunked",
        "_handler",
        "_head_only",
        "_http10",
        "_last_words",
        "_late",
        "_left",
        "_parser",
        "_peer",
        "_scheme",
        "_taken",
        "_unread",
        "_wire",
        "busy",
        "closing",
        "started",
        "watch",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        peer: str,
        scheme: str,
        bounds: Bounds,
        budget: Budget,
        handler: Handler,
        admit: Admit,
        unread: Unread,
    ) -> None:
        self._wire = wire
        self._peer = peer
        self._scheme = scheme
        self._bounds = bounds
        self._budget = budget
        self._taken = 0
        self._handler = handler
        self._admit = admit
        self._unread = unread
        self._parser = RequestParser(
            max_header_bytes=bounds.header_bytes,
            max_header_count=bounds.header_count,
            max_body_bytes=bounds.body_bytes,
        )
        self.watch = Watch(trio.CancelScope())
        self.busy = False
        self.closing = False
        self.started = False
        self._chunked = False
        self._head_only = False
        self._http10 = False
        self._left = -1
        self._last_words: bytes | None = None
        # Whether a request has begun to come, which is what there is to say if it goes no further.
        self._late = False

    async def run(self, deadlines: Deadlines) -> None:
        """Serve until the connection ends. Errors of the peer end it quietly."""
        deadlines.add(self.watch)
        try:
            with self.watch.scope:
                try:
                    await self._serve()
                except (Broken, LocalProtocolError):
                    # A LocalProtocolError here means that the pipeline's answer can't be
                    # written as HTTP: the client sees the end of the connection.
                    pass
                except trio.Cancelled:
                    # By the Watch, or from outside when the time to drain is over.
                    if self.watch.phase == "client":
                        self._wire.reset()
                    elif self._late:
                        await self._say(self._unreadable(408, _SLOW))
                    elif self._last_words and not self.started:
                        await self._say(self._last_words)
                    raise
        finally:
            deadlines.remove(self.watch)
            self._give_back()
            self._wire.close()

    async def _say(self, words: bytes) -> None:
        """Send ``words`` although the task is cancelled."""
        if not self._wire.send_now(words):
            with trio.move_on_after(LAST_WORDS_S, shield=True), suppress(Broken):
                await self._wire.send(words)

    def retire(self) -> None:
        """Take no further request.

        One whose bytes have come is not a further one, even if the task has not yet had
        its turn to read them: it wakes by itself, and ends after it.
        """
        self.closing = True
        if not self.busy and not self._wire.waiting():
            self.watch.scope.cancel(reason="the gateway stops")

    async def _serve(self) -> None:
        parser, watch = self._parser, self.watch
        while True:
            taken = parser.take()
            if taken is not None:
                # Sent ahead: an answer may wait for nothing, and others want their turn.
                await trio.lowlevel.checkpoint()
            else:
                taken = await self._read()
                if taken is None:
                    return
            head, body = taken
            request = Request(
                head.method, head.target, head.headers, body, self._peer, self._scheme
            )
            self._begin(head)
            await self._handler(request, self)
            self._give_back()
            watch.rest()
            watch.limit = float("inf")
            watch.gone = None
            self.busy = False
            self._last_words = None
            if self.closing or not self.started:
                return

    def _begin(self, head: RequestHead) -> None:
        # What is left of the time to read is not a bound on serving.
        self.watch.rest()
        self.busy = True
        self.started = False
        self._head_only = head.method == "HEAD"
        self._http10 = head.version < (1, 1)
        self._last_words = None
        if not head.keep_alive:
            self.closing = True

    async def _read(self) -> tuple[RequestHead, bytes] | None:
        """Read until a request is whole; ``None`` if the connection is to end."""
        parser, watch, bounds = self._parser, self.watch, self._bounds
        self.started = False
        asked = False
        received: memoryview[int] | bytes = b""
        try:
            if parser.idle:
                watch.within(bounds.keep_alive_s, "idle")
                # Nothing can have come yet: the client waited for the last answer.
                received = await self._wire.receive(wait_first=True)
                if not received or watch.expired:
                    # The deadline may pass just as a request comes: it is not served by halves.
                    return None
            # Else a part of this request, or what is wrong with it, came with the last one.
            read_by = trio.current_time() + bounds.read_s
            self.busy = True
            while True:
                # Whoever keeps sending at a fair rate is given the time that it takes.
                read_by += len(received) / LEAST_RATE
                watch.until(read_by, "request")
                parser.feed(received)
                taken = parser.take()
                if taken is not None:
                    return taken
                self._late = True
                if not asked and parser.head is not None:
                    asked = True
                    if not await self._may_continue(parser.head):
                        return None
                received = await self._wire.receive()
                if not received:
                    parser.eof()
                    return None
        except RemoteProtocolError as exc:
            await self._refuse(self._unreadable(exc.status, exc.message))
            return None
        finally:
            # Not when it is cancelled: then this is what is left to say.
            if not self.watch.scope.cancel_called:
                self._late = False

    async def _may_continue(self, head: RequestHead) -> bool:
        """The body is still to come: ask whether it may."""
        request = Request(head.method, head.target, head.headers, b"", self._peer, self._scheme)
        refusal = await self._admit(request, self, head.content_length)
        if refusal is not None:
            await self._refuse(self._render(*refusal))
            return False
        wanted = self._bounds.body_bytes if head.content_length is None else head.content_length
        if not self._budget.take(wanted):
            await self._refuse(self._unreadable(503, NO_ROOM))
            return False
        self._taken = wanted
        if head.expect_continue:
            await self._wire.send(_CONTINUE)
        return True

    def _give_back(self) -> None:
        if self._taken:
            self._budget.give(self._taken)
            self._taken = 0

    def _unreadable(self, status: int, message: str) -> bytes:
        """The refusal of what can't be read, recorded as every refusal is."""
        headers, body = self._unread(self._peer, self._scheme, self, status, message)
        return self._render(status, headers + _ALLOW if status == 405 else headers, body)

    async def _refuse(self, answer: bytes) -> None:
        """Answer what could not be read, and end: where the next request starts is unknown."""
        self.closing = True
        self.watch.within(self._bounds.write_s, "client")
        self._late = False
        await self._wire.send(answer)
        await self._linger()

    async def _linger(self) -> None:
        """Take what is still on its way, so that the client gets to read the refusal.

        Closing a socket with bytes unread resets the connection, and the client's kernel
        then drops the answer (RFC 9112 section 9.6).
        """
        self.watch.within(LINGER_S, "idle")
        self._wire.end()
        left = self._bounds.body_bytes + self._bounds.header_bytes
        while left > 0 and (received := await self._wire.receive()):
            left -= len(received)

    # -- Reply ------------------------------------------------------------------

    def _render(self, status: int, headers: Headers, body: bytes) -> bytes:
        head = response_head(status, headers, length=len(body), chunked=False, close=True)
        return head + body

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer, in one write."""
        self.started = True
        head = response_head(
            status,
            headers,
            length=None if status in (204, 304) else len(body),
            chunked=False,
            close=self.closing,
        )
        await self._send(head if self._head_only else head + body)

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows."""
        self.started = True
        self._chunked = length is None and not self._http10
        self._left = -1 if length is None else length
        if length is None and self._http10:
            self.closing = True
        await self._send(
            response_head(status, headers, length=length, chunked=self._chunked, close=self.closing)
        )

    async def write(self, data: bytes) -> None:
        """A part of the body."""
        if not data or self._head_only:
            return
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                raise LocalProtocolError("the body is longer than its declared length")
        await self._send(chunk(data) if self._chunked else data)

    async def finish(self) -> None:
        """The body is whole."""
        if self._head_only:
            return
        if self._left > 0:
            raise LocalProtocolError("the body is shorter than its declared length")
        if self._chunked:
            await self._send(LAST_CHUNK)

    def abort(self) -> None:
        """End the connection so that a cut body is seen to be cut."""
        self.closing = True

    def last_words(self, status: int, headers: Headers, body: bytes) -> None:
        """What to answer if the exchange is cancelled before an answer has started."""
        self._last_words = self._render(status, headers, body)

    async def until_gone(self) -> None:
        """Return when the client has left."""
        await self._wire.until_gone()

    def hung_up(self) -> bool:
        """Whether the client has left; waits for nothing."""
        return self._wire.hung_up()

    async def _send(self, data: bytes) -> None:
        self.watch.within(self._bounds.write_s, "client")
        await self._wire.send(data)
