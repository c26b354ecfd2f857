"""HTTP/2 on the TLS listener: many requests on one connection, the same pipeline.

What it is: ``Http2Listener``, which hands a connection that chose ``h2`` in its TLS
handshake to ``Http2Connection`` and every other one to ``Connection``; and the ``Reply``
that answers one stream. It is the one module that imports h2, which does the framing
(RFC 9113), header compression and flow control. What it must never do: treat a request
otherwise than HTTP/1.1 is treated. A request's head is written as HTTP/1.1 would have it
and judged by the same grammar and rules; bodies, deadlines and refusals are the same.

The tasks of one connection:

    run            reads, and hands frames to their streams
    ├─ _write      the one task that writes: cancelling a stream never cuts a frame
    └─ a task per stream, from its head to its answer

What bounds it: streams that are being served, also those that the client has given up
(``MAX_STREAMS``; further ones are refused, which tells the client that nothing was done);
streams given up before their answer (``MAX_GIVEN_UP`` more than were answered end the
connection: opening and resetting is cheap for a client and dear for a server); the bytes
that are ready to be written (``BUFFER_BYTES``; past them streams wait, and nothing more is
read, so that a client that makes us answer and reads nothing is held up itself); a
client that takes nothing (``timeouts.write``); a connection without a stream
(``timeouts.keep_alive``).

It is one long file because a connection and its streams share one state: they wake, count
and end each other.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import trio
from hyperframe.frame import GoAwayFrame

from mcpx.errors import LocalProtocolError, RemoteProtocolError
from mcpx.protocol.http1_messages import (
    METHODS,
    REQUEST,
    RequestHead,
    judge_request,
    why_no_request,
)
from mcpx.transport.connection import LEAST_RATE, LINGER_S, NO_ROOM, Bounds
from mcpx.transport.deadlines import Deadlines, Watch
from mcpx.transport.http import Admit, Budget, Handler, Headers, Request, Unread
from mcpx.transport.listener import Listener, Served
from mcpx.transport.wire import Broken, TlsWire, Wire

__all__ = ["Http2Connection", "Http2Listener"]

MAX_STREAMS: Final = 100
MAX_GIVEN_UP: Final = 200
BUFFER_BYTES: Final = 128 * 1024
#: What may come before a frame is whole, beside a head.
FRAME_BYTES: Final = 32 * 1024
#: For what is left to say when a connection is cut.
LAST_WORDS_S: Final = 1.0

_ALLOW: Final[Headers] = [(b"allow", b"GET, POST, DELETE")]
_SLOW: Final = "the request took too long to arrive"
_CONTINUE: Final = [(b":status", b"100")]


class Http2Listener(Listener):
    """A ``Listener`` whose clients may choose HTTP/2. Its ``tls`` must offer it."""

    def _connection(self, wire: Wire, peer: str) -> Served:
        if isinstance(wire, TlsWire) and wire.stream.selected_alpn_protocol() == "h2":
            return Http2Connection(
                wire,
                peer=peer,
                bounds=self.bounds,
                budget=self.budget,
                handler=self._handler,
                admit=self._admit,
                unread=self._unread,
            )
        return super()._connection(wire, peer)


class Http2Connection:
    """Serves the streams of one connection."""

    __slots__ = (
        "_admit",
        "_deadlines",
        "_extra",
        "_given_up",
        "_handler",
        "_idle_at",
        "_left",
        "_more",
        "_no_streams",
        "_nursery",
        "_peer",
        "_pending",
        "_sending",
        "_streams",
        "_turn",
        "_unread",
        "_wire",
        "bounds",
        "budget",
        "closing",
        "h2",
        "watch",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        peer: str,
        bounds: Bounds,
        budget: Budget,
        handler: Handler,
        admit: Admit,
        unread: Unread,
    ) -> None:
        self._wire = wire
        self._peer = peer
        self.bounds = bounds
        self.budget = budget
        self._handler = handler
        self._admit = admit
        self._unread = unread
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                codes.MAX_HEADER_LIST_SIZE: bounds.header_bytes,
            },
        )
        # What is said of it in the settings binds nobody; this does.
        self.h2.decoder.max_header_list_size = bounds.header_bytes
        self.watch = Watch(trio.CancelScope())
        self.watch.gone = self._tick
        #: The writer's deadline ends the connection too.
        self._sending = Watch(self.watch.scope)
        self._deadlines: Deadlines | None = None
        self._nursery: trio.Nursery | None = None
        self._streams: dict[int, _Stream] = {}
        self._no_streams = trio.Event()
        self._idle_at = trio.current_time() + bounds.keep_alive_s
        self._given_up = 0
        self.closing = False
        self._left = False
        # The writer: what is ready, whom to wake when there is more, or room again.
        self._extra = b""
        self._pending = 0
        self._more = trio.Event()
        self._turn = trio.lowlevel.ParkingLot()

    async def run(self, deadlines: Deadlines) -> None:
        """Serve until the connection ends."""
        self._deadlines = deadlines
        deadlines.add(self.watch)
        deadlines.add(self._sending)
        try:
            with self.watch.scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self.h2.initiate_connection()
                    nursery.start_soon(self._write)
                    told = await self._read()
                    self.wake()
                    await self._client_left()
                    if told:
                        await self._linger()
                    nursery.cancel_scope.cancel(reason="the client has left")
        finally:
            deadlines.remove(self.watch)
            deadlines.remove(self._sending)
            if self._sending.expired:
                self._wire.reset()
            else:
                await self._last_words()
                self._wire.close()

    @property
    def busy(self) -> bool:
        """Whether a stream is being served."""
        return bool(self._streams)

    def retire(self) -> None:
        """Take no further stream, and end when the last one has."""
        if self.closing:
            return
        self.closing = True
        # By hand: h2's own way to say it forbids to answer the streams that are open.
        last = self.h2.highest_inbound_stream_id
        self._extra += GoAwayFrame(0, last_stream_id=last, error_code=0).serialize()
        self.wake()

    def _tick(self) -> bool:
        if not self._streams and trio.current_time() >= self._idle_at:
            self.retire()
        return False

    # -- reading ----------------------------------------------------------------

    async def _read(self) -> bool:
        """Hand on what comes, until the client leaves or breaks the protocol.

        Gives whether the client is to be told why it ends.
        """
        silent = 0
        while True:
            try:
                data = await self._wire.receive()
            except Broken:
                return False
            if not data:
                return False
            try:
                events = self.h2.receive_data(bytes(data))
                for event in events:
                    if not self._took(event):
                        return True
            except h2.exceptions.ProtocolError:
                # What h2 has to say about it is ready to be written.
                return True
            silent = 0 if events else silent + len(data)
            if silent > self.bounds.header_bytes + FRAME_BYTES:
                # h2 keeps as much of a frame as its head announces, up to 16 MiB.
                self.h2.close_connection(h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
                return True
            if self._given_up > MAX_GIVEN_UP:
                self.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                return True
            self.wake()
            while self._pending > BUFFER_BYTES or self._backlog():
                await self._turn.park()

    def _took(self, event: h2.events.Event) -> bool:
        """Take note of one event; whether to go on."""
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event)
        elif isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            stream = self._streams.get(event.stream_id)
            if stream is not None and event.data:
                stream.take(event.data)
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.whole.set()
        elif isinstance(event, h2.events.StreamReset):
            assert event.stream_id is not None
            if (stream := self._streams.get(event.stream_id)) is not None and not stream.left:
                stream.leave()
                self._turn.unpark_all()
                self._given_up += 1
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._turn.unpark_all()
        elif isinstance(event, h2.events.ConnectionTerminated):
            return False
        return True

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        assert event.headers is not None
        assert self._nursery is not None
        if self.closing or len(self._streams) >= MAX_STREAMS:
            # RFC 9113 section 8.7: this says that nothing of it was done.
            self._given_up += 1
            with suppress(h2.exceptions.ProtocolError):  # the client may have ended it already
                self.h2.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        stream = _Stream(self, stream_id, head_only=(b":method", b"HEAD") in event.headers)
        self._streams[stream_id] = stream
        if event.stream_ended is not None:
            stream.whole.set()
        self._nursery.start_soon(self._serve, stream, list(event.headers))

    async def _client_left(self) -> None:
        """Nothing more will come: let what is under way end as its own rules say."""
        self._left = True
        for stream in self._streams.values():
            stream.leave()
        self._turn.unpark_all()
        if self._streams:
            await self._no_streams.wait()

    async def _linger(self) -> None:
        """Take what is on its way: closing before it has come would drop what we said."""
        left = self.bounds.body_bytes + self.bounds.header_bytes
        with trio.move_on_after(LINGER_S), suppress(Broken):
            while left > 0 and (received := await self._wire.receive()):
                left -= len(received)

    # -- one stream -------------------------------------------------------------

    async def _serve(self, stream: _Stream, headers: Headers) -> None:
        assert self._deadlines is not None
        self._deadlines.add(stream.watch)
        try:
            with stream.watch.scope:
                try:
                    request = await self._request(stream, headers)
                    if request is not None:
                        await self._handler(request, stream)
                except (Broken, LocalProtocolError):
                    pass
                except trio.Cancelled:
                    if stream.late:
                        stream.last_words(408, *self._refusal(stream, 408, _SLOW))
                    stream.say_now()
                    raise
        finally:
            self._deadlines.remove(stream.watch)
            self._ended(stream)

    async def _request(self, stream: _Stream, headers: Headers) -> Request | None:
        """The whole request, or ``None`` after it was refused."""
        try:
            head = read_head(headers, self.bounds)
        except RemoteProtocolError as exc:
            await stream.answer(exc.status, *self._refusal(stream, exc.status, exc.message))
            return None
        request = Request(head.method, head.target, head.headers, b"", self._peer, "https")
        if not stream.whole.is_set():
            refusal = await self._admit(request, stream, head.content_length)
            if refusal is not None:
                await stream.answer(*refusal)
                return None
            wanted = self.bounds.body_bytes if head.content_length is None else head.content_length
            if not self.budget.take(wanted):
                await stream.answer(503, *self._refusal(stream, 503, NO_ROOM))
                return None
            stream.taken = wanted
            if head.expect_continue:
                with suppress(h2.exceptions.ProtocolError):
                    self.h2.send_headers(stream.id, _CONTINUE)
                self.wake()
            stream.watch.within(self.bounds.read_s, "request")
            stream.late = True
            await stream.whole.wait()
            stream.late = False
            stream.watch.rest()
        if stream.left:
            return None
        if stream.too_long:
            words = f"the body is longer than {self.bounds.body_bytes} bytes"
            await stream.answer(413, *self._refusal(stream, 413, words))
            return None
        request.body = bytes(stream.body)
        stream.body = bytearray()
        return request

    def _refusal(self, stream: _Stream, status: int, message: str) -> tuple[Headers, bytes]:
        """The answer to what can't be read, recorded as every refusal is."""
        headers, body = self._unread(self._peer, "https", stream, status, message)
        return (headers + _ALLOW if status == 405 else headers), body

    def _ended(self, stream: _Stream) -> None:
        self.budget.give(stream.taken)
        del self._streams[stream.id]
        errors = h2.errors.ErrorCodes
        try:
            if not stream.ended:
                self.h2.reset_stream(stream.id, errors.INTERNAL_ERROR)
            elif not stream.received:
                # Answered before all of it had come: the rest is not wanted.
                self.h2.reset_stream(stream.id, errors.NO_ERROR)
        except h2.exceptions.ProtocolError:
            pass  # the client had ended it
        if stream.ended and self._given_up:
            self._given_up -= 1
        if not self._streams:
            self._idle_at = trio.current_time() + self.bounds.keep_alive_s
            if self._left:
                self._no_streams.set()
        self.wake()

    # -- writing ----------------------------------------------------------------

    def room(self, stream_id: int) -> int:
        """How many bytes of a body can be given to h2 now. Raises ``Broken``."""
        if self._left:
            raise Broken("the client left")
        try:
            window = self.h2.local_flow_control_window(stream_id)
        except h2.exceptions.ProtocolError as exc:
            raise Broken("the client gave the stream up") from exc
        return min(window, self.h2.max_outbound_frame_size, BUFFER_BYTES - self._pending)

    async def turn(self) -> None:
        """Wait until there may be room again."""
        await self._turn.park()

    def wake(self, size: int = 0) -> None:
        """There is something to write: ``size`` bytes of a body, or a frame."""
        self._pending += size
        self._more.set()

    def _backlog(self) -> bool:
        """Whether the writer is held up while more is to be written."""
        return self._sending.deadline != math.inf and self._more.is_set()

    async def _write(self) -> None:
        sending = self._sending
        while True:
            self._more = trio.Event()
            data = self._extra + self.h2.data_to_send()
            self._extra = b""
            self._pending = 0
            if data:
                sending.within(self.bounds.write_s, "client")
                self._turn.unpark_all()
                try:
                    await self._wire.send(data)
                except Broken:
                    # The reader sees it as well, and ends the connection.
                    self._wire.close()
                    return
                sending.rest()
                self._turn.unpark_all()
            elif self.closing and not self._streams:
                self.watch.scope.cancel(reason="nothing more is to be said")
                return
            else:
                await self._more.wait()

    async def _last_words(self) -> None:
        """Write what is ready, unless a write was cut: what follows half a frame is noise."""
        data = self._extra + self.h2.data_to_send()
        if data and self._sending.deadline == math.inf:
            with trio.move_on_after(LAST_WORDS_S, shield=True):
                with suppress(Broken):
                    await self._wire.send(data)


class _Stream:
    """One request of a connection, and the ``Reply`` to it."""

    __slots__ = (
        "_connection",
        "_head_only",
        "_length",
        "body",
        "ended",
        "gone",
        "id",
        "late",
        "said",
        "started",
        "taken",
        "too_long",
        "watch",
        "whole",
    )

    def __init__(self, connection: Http2Connection, id: int, *, head_only: bool) -> None:
        self._connection = connection
        self._head_only = head_only
        self._length = -1
        self.id = id
        self.watch = Watch(trio.CancelScope())
        self.body = bytearray()
        #: Set when nothing more of the request is waited for.
        self.whole = trio.Event()
        self.too_long = False
        #: Bytes of the budget that are set aside for its body.
        self.taken = 0
        #: Whether its body is waited for.
        self.late = False
        self.gone = trio.Event()
        self.started = False
        #: Whether the answer is out, to its end.
        self.ended = False
        self.said: tuple[int, Headers, bytes] | None = None

    @property
    def left(self) -> bool:
        """Whether the client has given it up."""
        return self.gone.is_set()

    @property
    def received(self) -> bool:
        """Whether the client has sent all that it wants to send."""
        return self.whole.is_set() and not self.too_long

    def take(self, data: bytes) -> None:
        """A part of the request's body."""
        if self.too_long or self.started:
            return
        self.body += data
        self.watch.deadline += len(data) / LEAST_RATE
        if len(self.body) > self._connection.bounds.body_bytes:
            self.too_long = True
            self.body = bytearray()
            self.whole.set()

    def leave(self) -> None:
        """The client has given it up."""
        self.gone.set()
        self.whole.set()

    def say_now(self) -> None:
        """Give the last words to the writer, waiting for nothing."""
        if self.said is None or self.started or self.left:
            return
        status, headers, body = self.said
        try:
            self._start(status, headers, len(body), end=self._head_only)
            if not self._head_only and self._connection.room(self.id) >= len(body):
                self._put(body, end=True)
        except (Broken, LocalProtocolError):
            pass

    # -- Reply ------------------------------------------------------------------

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        bare = status in (204, 304)
        end = self._head_only or bare or not body
        self._start(status, headers, None if bare else len(body), end=end)
        if not end:
            await self._send(body, end=True)

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows."""
        self._length = -1 if length is None else length
        self._start(status, headers, length, end=self._head_only)

    async def write(self, data: bytes) -> None:
        """A part of the body."""
        if self._head_only or not data:
            return
        if self._length >= 0:
            self._length -= len(data)
            if self._length < 0:
                raise LocalProtocolError("the body is longer than its declared length")
        await self._send(data, end=False)

    async def finish(self) -> None:
        """The body is whole."""
        if self.ended:
            return
        if self._length > 0:
            raise LocalProtocolError("the body is shorter than its declared length")
        self._put(b"", end=True)

    def abort(self) -> None:
        """A body that is not finished is cut when its task ends: nothing to do before."""

    def last_words(self, status: int, headers: Headers, body: bytes) -> None:
        """What to answer if the exchange is cancelled before an answer has started."""
        self.said = (status, headers, body)

    async def until_gone(self) -> None:
        """Return when the client has left."""
        await self.gone.wait()

    def hung_up(self) -> bool:
        """Whether the client has left."""
        return self.left

    def _start(self, status: int, headers: Headers, length: int | None, *, end: bool) -> None:
        if self.left:
            raise Broken("the client gave the stream up")
        self.started = True
        head = [(b":status", b"%d" % status), *headers]
        if length is not None:
            head.append((b"content-length", b"%d" % length))
        try:
            self._connection.h2.send_headers(self.id, head, end_stream=end)
        except h2.exceptions.StreamClosedError as exc:
            raise Broken("the client gave the stream up") from exc
        except h2.exceptions.ProtocolError as exc:
            raise LocalProtocolError(f"the answer is not valid HTTP/2: {exc}") from exc
        self.ended = end
        self._connection.wake()

    async def _send(self, data: bytes, *, end: bool) -> None:
        connection, write_s = self._connection, self._connection.bounds.write_s
        view = memoryview(data)
        self.watch.within(write_s, "client")
        while view:
            room = connection.room(self.id)
            if room <= 0:
                await connection.turn()
                continue
            self._put(bytes(view[:room]), end=end and room >= len(view))
            view = view[room:]
            self.watch.within(write_s, "client")

    def _put(self, data: bytes, *, end: bool) -> None:
        try:
            self._connection.h2.send_data(self.id, data, end_stream=end)
        except h2.exceptions.ProtocolError as exc:
            raise Broken("the client gave the stream up") from exc
        self.ended = end
        self._connection.wake(len(data))


def read_head(headers: Headers, bounds: Bounds) -> RequestHead:
    """What the head of a stream asks, by the rules of HTTP/1.1.

    Raises:
        RemoteProtocolError: it is refused; ``status`` says how.
    """
    method = target = b""
    fields: Headers = []
    for name, value in headers:
        if name == b":method":
            method = value
        elif name == b":path":
            target = value
        elif name == b":authority":
            fields.insert(0, (b"host", value))
        elif not name.startswith(b":") and (name != b"host" or fields[:1] != [(b"host", value)]):
            # An authority and a host that say the same are one; h2 refuses others.
            fields.append((bytes(name), bytes(value)))
    if len(fields) > bounds.header_count:
        raise RemoteProtocolError("the head has too many fields", 431)
    lines = [b"%s %s HTTP/1.1" % (method, target)]
    lines += [b"%s: %s" % field for field in fields]
    raw = b"\r\n".join([*lines, b"", b""])
    if len(raw) > bounds.header_bytes:
        raise RemoteProtocolError("the head is too long", 431)
    if raw.count(b"\n") != len(lines) + 1 or REQUEST.match(raw) is None or method not in METHODS:
        raise why_no_request(raw)
    return judge_request(METHODS[method], target, b"1", fields, bounds.body_bytes)
