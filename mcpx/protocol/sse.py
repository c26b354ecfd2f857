"""Server-sent events: cut a stream into events and keep every byte.

What it is: a reader of ``text/event-stream`` (WHATWG HTML, "Server-sent events") that
hands out each event with the exact bytes it came in, so that what need not be changed is
passed on as it was, and ``replace_data`` for what must. What it must never do: lose,
reorder or invent a byte: all ``Event.raw`` joined, and then ``rest()``, are the input.

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

from mcpx._speedups.sse import Event, EventParser

__all__ = ["Event", "EventParser", "replace_data"]

_LINE_END: Final = re.compile(rb"\r\n?+|\n")


def replace_data(event: Event, data: bytes) -> bytes:
    """The bytes of ``event`` with other data.

    The other lines stay as they are and where they are: id, event, retry, comments and
    unknown fields. The new data stands where the first data line stood, or before the
    blank line if there was none, one data line for each of its lines: CR, LF and CR LF in
    it all come out as LF at the reader.
    """
    lines = event.raw[event.start :].splitlines(keepends=True)
    blank = lines.pop()
    out = bytearray(event.raw[: event.start])
    placed = False
    for line in lines:
        if line[:4] != b"data" or line[4:5] not in (b":", b"\r", b"\n"):
            out += line
        elif not placed:
            placed = True
            _put(out, data, b"\r\n" if line.endswith(b"\r\n") else b"\n")
    if not placed:
        _put(out, data, b"\r\n" if blank == b"\r\n" else b"\n")
    if out.endswith(b"\r") and blank[:1] == b"\n":
        # A data line stood between this CR and this LF; now they would be one line end.
        out += b"\n"
    return bytes(out + blank)


def _put(out: bytearray, data: bytes, line_end: bytes) -> None:
    for line in _LINE_END.split(data):
        out += b"data: " + line + line_end
