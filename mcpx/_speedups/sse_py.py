"""Server-sent events: where one ends, and what its fields say (the specification).

What it is: ``EventParser`` cuts a ``text/event-stream`` (WHATWG HTML, "Server-sent
events") into events, each with the exact bytes that it came in. What it must never do:
lose, reorder or invent a byte, or hold more than one event's bound and one piece.

The algorithm: an event ends at the second of two line ends in a row. One compiled
expression looks for that pair; a search that found none goes on, when more has come, two
bytes before the new ones, which is all that a pair can reach back. So every byte is
looked at a bounded number of times, however the stream is cut.

A line ends in CR LF, LF or CR. A blank line whose CR is the last byte to have come is
taken for whole, as there is nothing to wait for in a stream that uses CR alone; if LF
follows after all, it belongs to the same line end and opens the next event's ``raw``,
where ``start`` skips it. A blank line that ends no event is an ``Event`` without fields.
"""

from __future__ import annotations

import re
from typing import Final

from mcpx.errors import RemoteProtocolError

__all__ = ["Event", "EventParser"]

_BOM: Final = b"\xef\xbb\xbf"
_CR: Final = 13
_LF: Final = 10
# A line end and a blank line. The look-ahead keeps one CR LF from being read as two.
_BLANK: Final = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n?+|\n)")


class Event:
    """One event, with its bytes.

    ``raw`` holds its lines and the blank line that ends it. ``data`` is the text of the
    data lines joined by LF, None if there is none: a client gets no message from such an
    event. ``event`` and ``id`` are the last value of the field, None if absent. ``start``
    is how many bytes at the head of ``raw`` are not part of its lines: the byte order
    mark of the stream, or the LF of a line end whose CR closed the event before.
    """

    __slots__ = ("data", "event", "id", "raw", "start")

    def __init__(
        self,
        raw: bytes,
        data: bytes | None,
        event: bytes | None,
        id: bytes | None,
        start: int = 0,
    ) -> None:
        self.raw = raw
        self.data = data
        self.event = event
        self.id = id
        self.start = start

    def __repr__(self) -> str:
        return f"Event({self.raw!r})"


class EventParser:
    """Cuts one stream into events.

    ``limit_bytes`` bounds the raw bytes of one event. A stream that exceeds it is at its
    end: events that were whole before are still handed out, and then every call raises
    ``RemoteProtocolError`` (status 502).
    """

    __slots__ = ("_after_cr", "_broken", "_first", "_limit", "_scanned", "_tail")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._tail = bytearray()
        self._scanned = 0
        self._first = True
        self._after_cr = False
        self._broken = False

    def feed(self, data: bytes | memoryview) -> list[Event]:
        """Take what has arrived; the events that it makes whole, in order."""
        if self._broken:
            raise self._too_long()
        tail = self._tail
        text: bytes | bytearray
        if tail:
            tail += data
            text = tail
        else:
            text = bytes(data)
        events: list[Event] = []
        begin = 0
        while begin < len(text):
            start = self._skipped(text, begin)
            if start < 0:
                break
            end = self._end(text, begin, start)
            if end < 0:
                break
            if end - begin > self._limit:
                self._broken = True
                break
            raw = bytes(text[begin:end])
            events.append(_event(raw, start - begin))
            self._first = False
            self._after_cr = raw[-1] == _CR
            self._scanned = 0
            begin = end
        if begin or text is not tail:
            self._tail = bytearray(text[begin:])
        if len(self._tail) > self._limit:
            self._broken = True
        if self._broken and not events:
            raise self._too_long()
        return events

    @property
    def held(self) -> int:
        """How many bytes have come of the event that is not yet whole."""
        return len(self._tail)

    def rest(self) -> bytes:
        """The bytes after the last whole event. A client drops them at the stream's end.

        Raises:
            RemoteProtocolError: the stream held an event over the limit.
        """
        if self._broken:
            raise self._too_long()
        return bytes(self._tail)

    def _skipped(self, text: bytes | bytearray, begin: int) -> int:
        """Where the event's lines start; -1 if that can't be told yet."""
        if self._after_cr:
            return begin + 1 if text[begin] == _LF else begin
        if self._first and text[begin] == _BOM[0]:
            mark = text[begin : begin + 3]
            if mark == _BOM:
                return begin + 3
            if _BOM.startswith(mark):
                return -1
        return begin

    def _end(self, text: bytes | bytearray, begin: int, start: int) -> int:
        """Where the event ends whose lines start at ``start``; -1 if it is not whole."""
        if start == len(text):
            return -1
        if text[start] == _LF or text[start] == _CR:
            return start + (2 if text[start : start + 2] == b"\r\n" else 1)
        blank = _BLANK.search(text, max(start, self._scanned))
        if blank is not None:
            return blank.end()
        # Only the tail that is kept is searched again, so count from its first byte.
        self._scanned = max(0, len(text) - begin - 2)
        return -1

    def _too_long(self) -> RemoteProtocolError:
        return RemoteProtocolError(f"an event is longer than {self._limit} bytes", 502)


def _event(raw: bytes, start: int) -> Event:
    """Read the fields of one event (WHATWG HTML, "Interpreting an event stream")."""
    data: bytes | None = None
    more: list[bytes] | None = None
    event: bytes | None = None
    identity: bytes | None = None
    lines = raw[start:] if start else raw
    for line in lines.splitlines():
        name, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            if data is None:
                data = value
            elif more is None:
                more = [data, value]
            else:
                more.append(value)
        elif name == b"event":
            event = value
        elif name == b"id" and b"\0" not in value:
            identity = value
    if more is not None:
        data = b"\n".join(more)
    return Event(raw, data, event, identity, start)
