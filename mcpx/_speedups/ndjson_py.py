"""Newline-delimited JSON: where a line ends (the specification).

What it is: ``LineParser`` cuts what a stdio server writes into lines, one JSON text each
(MCP, "Transports: stdio"). What it must never do: change a byte within a line, hold more
than one line's bound, or go on after a line that was too long, of which nobody can say
what its rest belongs to.

The algorithm: LF ends a line, and nothing else does: a JSON text may hold CR as white
space. A CR right before the LF belongs to the line end. A line's pieces are joined when
its LF has come, so every byte is copied a bounded number of times, however the lines are
cut.
"""

from __future__ import annotations

from mcpx.errors import RemoteProtocolError

__all__ = ["LineParser"]


class LineParser:
    """Cuts one stream into lines.

    ``limit_bytes`` bounds what stands before a line's LF, a CR included. A stream that
    exceeds it is at its end: lines that were whole before are still handed out, and then
    every call raises ``RemoteProtocolError`` (status 502).
    """

    __slots__ = ("_broken", "_limit", "_tail")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._tail = bytearray()
        self._broken = False

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take what has arrived; the lines that it makes whole, in order.

        They come without their line ends. Empty lines are passed over.
        """
        if self._broken:
            raise self._too_long()
        data = bytes(data)
        lines: list[bytes] = []
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            line = data[begin:end]
            begin = end + 1
            if self._tail:
                line = bytes(self._tail + line)
                self._tail = bytearray()
            if len(line) > self._limit:
                self._broken = True
                break
            if line.endswith(b"\r"):
                line = line[:-1]
            if line:
                lines.append(line)
        self._tail += data[begin:]
        if len(self._tail) > self._limit:
            self._broken = True
        if self._broken:
            self._tail = bytearray()
            if not lines:
                raise self._too_long()
        return lines

    @property
    def held(self) -> int:
        """How many bytes have come of the line that is not yet whole."""
        return len(self._tail)

    def end(self) -> bytes:
        """What stands after the last LF: at the stream's end, a line that was cut off.

        Raises:
            RemoteProtocolError: the stream held a line over the limit.
        """
        if self._broken:
            raise self._too_long()
        return bytes(self._tail)

    def _too_long(self) -> RemoteProtocolError:
        return RemoteProtocolError(f"a line is longer than {self._limit} bytes", 502)
