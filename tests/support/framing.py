"""Two twins that cut a stream, held against each other piece by piece."""

import os
import resource
from functools import partial

import pytest

from mcpx.errors import RemoteProtocolError


def told(call):
    """What ``call`` gives, or all that its refusal says."""
    try:
        return call()
    except RemoteProtocolError as exc:
        return RemoteProtocolError, str(exc), vars(exc)


class Framing:
    """The parsers of both twins.

    ``end`` names the method that gives what is left, ``shown`` makes what a parser gave
    comparable.
    """

    def __init__(self, compiled, specified, *, end, shown):
        self.compiled = compiled
        self.specified = specified
        self._end = end
        self._shown = shown

    def _run(self, made, pieces, limit_bytes):
        """Everything that can be seen of a parser after each piece, to the end and beyond."""
        parser = made(limit_bytes)
        seen = []
        for piece in pieces:
            given = told(partial(parser.feed, piece))
            seen.append(self._shown(given) if isinstance(given, list) else given)
            seen.append((parser.held, told(getattr(parser, self._end))))
        return seen

    def same(self, pieces, limit_bytes):
        """Both say the same of ``pieces``."""
        found = self._run(self.compiled, pieces, limit_bytes)
        assert found == self._run(self.specified, pieces, limit_bytes), (pieces, limit_bytes)

    def same_however_cut(self, text, limit_bytes):
        """Byte by byte, and in two and three pieces."""
        self.same([text], limit_bytes)
        self.same([text[at : at + 1] for at in range(len(text))], limit_bytes)
        for one in range(len(text) + 1):
            self.same([text[:one], text[one:]], limit_bytes)
            for other in range(one, len(text) + 1, 3):
                self.same([text[:one], text[one:other], text[other:]], limit_bytes)

    def same_at(self, data, cuts, limit_bytes):
        """At ``cuts``, and byte by byte as views of memory."""
        bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        self.same([data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)], limit_bytes)
        self.same([memoryview(data[at : at + 1]) for at in range(len(data))], limit_bytes)

    def same_in_large_pieces(self, text):
        """In pieces about the sizes of buffers, within the limit and over it."""
        for size in (1000, 4095, 4096, 4097, 65_536, 200_000, len(text)):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            self.same(pieces, 200_000)
            self.same(pieces, 90_000)

    def lets_pieces_go(self):
        """A buffer that is still looked at can't be resized."""
        for data in (bytearray(b"data: a\n\nb"), bytearray(b"x" * 1000)):
            parser = self.compiled(100)
            told(partial(parser.feed, data))
            data.clear()

    def leaves_no_memory_behind(self):
        """Not by parsers that end, are broken, or are left with something held."""

        def repeat(count):
            parsers = []
            for _ in range(count):
                parser = self.compiled(300_000)
                parser.feed(b"x" * 200_000)
                parser.feed(b"\n\n")
                parsers.append(parser)
                broken = self.compiled(300_000)
                broken.feed(b"x" * 200_000)
                with pytest.raises(RemoteProtocolError):
                    broken.feed(b"x" * 200_000)
                self.compiled(300_000).feed(b"x" * 200_000)

        repeat(5)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        repeat(200)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 8192 * (1 if os.uname().sysname == "Linux" else 1024)
