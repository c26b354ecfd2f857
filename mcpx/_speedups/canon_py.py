"""One text for every JSON value, whatever way it was written (the specification).

What it is: ``canonical`` gives the canonical text of a JSON value, ``digest`` the
SHA-256 and ``key`` the xxh3-128 of it. Two texts get the same canonical text exactly
when they are the same value: the same members in any order, the same characters however
they are escaped, the same number however it is written.

What it must never do: give two different values one text, round a number, or take a
text that is no JSON. ``key`` is fast and easily forged; it names cache entries, whose
owner compares the canonical texts where that matters. Pins use ``digest``.

The form is RFC 8785's: no white space; members ordered by the UTF-16 code units of their
keys; in strings only ``"``, ``\\`` and what lies below U+0020 is escaped, the shortest way.

The departure from it is in numbers. RFC 8785 takes every number for an IEEE 754 double,
so that 9007199254740993 and 9007199254740992 come out alike, and 1e400 can't be written.
Here a number is the decimal number that its text says, exactly. It is laid out as
ECMAScript lays out a double (Number::toString, ECMA-262 section 6.1.6.1.20), with all of
its digits in place of the fewest that tell doubles apart:

* without an exponent, where the first digit's place is one from 10**-6 to 10**20:
  ``1``, ``0.1``, ``100000000000000000000``;
* with one otherwise, ``d.ddde+x`` or ``d.ddde-x``: ``1e+21``, ``1.5e-7``;
* zero is ``0``, whatever its sign: it is one number.

For a text that is a double's own shortest form, both rules give the same. No power of ten
is ever multiplied out past 10**20: 1e999999999 is ``1e+999999999``. An exponent of more
digits than a machine word holds is changed as text, digit by digit.

The algorithm: one loop over tokens with a stack of open containers, each a list of pieces;
an object's pieces are sorted when it closes. The pieces are joined once, at the end, by a
loop with a stack of its own, so that deep nesting costs no recursion and no copy a level.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

import xxhash

from mcpx.errors import PARSE_ERROR, FrameError

__all__ = ["MAX_DEPTH", "canonical", "digest", "key"]

#: Deeper than anything that the scan lets through.
MAX_DEPTH: Final = 512

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_WS = rb"[ \t\n\r]*+"
_KEY = re.compile(_WS + rb"(" + _STRING + rb")" + _WS + rb":")
_VALUE = re.compile(
    _WS
    + rb"(?:(" + _STRING + rb")"
    + rb"|(-?)(0|[1-9][0-9]*+)(?:\.([0-9]++))?+(?:[eE]([+-]?)([0-9]++))?+"
    + rb"|(true|false|null)"
    + rb"|([{\[]))"
)  # fmt: skip
_NEXT = re.compile(_WS + rb"([,}\]])")
_CLOSED = re.compile(_WS + rb"([}\]])")
_BLANK = re.compile(_WS)

_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}
_ESCAPED = str.maketrans({chr(code): f"\\u{code:04x}" for code in range(0x20)} | _ESCAPES)

#: An exponent of at most so many digits is counted with; a longer one is edited as text.
_COUNTED_DIGITS: Final = 18
_COUNTED: Final = 10**_COUNTED_DIGITS
#: The places of a first digit that are laid out without an exponent.
_LEAST_PLACE, _LARGEST_PLACE = -6, 20

#: A text, or a container's pieces.
_Piece = bytes | list["_Piece"]
#: An object's member: its key's UTF-16 code units, its key's text and its value.
_Member = tuple[bytes, bytes, _Piece]


def canonical(
    text: bytes, start: int = 0, end: int | None = None, max_depth: int = MAX_DEPTH
) -> bytes:
    """The canonical text of the JSON value at (start, end) of ``text``.

    Raises:
        FrameError: what stands there is not one JSON value (RFC 8259), has a key twice or
            half a surrogate pair, or nests deeper than ``max_depth``.
    """
    return b"".join(_flat(_value(text, start, len(text) if end is None else end, max_depth)))


def digest(text: bytes, start: int = 0, end: int | None = None) -> bytes:
    """The SHA-256 (32 bytes) of the canonical text. Raises as ``canonical`` does."""
    return hashlib.sha256(canonical(text, start, end)).digest()


def key(text: bytes, start: int = 0, end: int | None = None) -> bytes:
    """The xxh3-128 (16 bytes, big-endian) of the canonical text.

    Collisions can be made on purpose: it finds an entry, it proves nothing. Raises as
    ``canonical`` does.
    """
    return xxhash.xxh3_128_digest(canonical(text, start, end))


class _Open:
    """A container that is being read. ``members`` is ``None`` for an array."""

    __slots__ = ("key", "keys", "members", "pieces", "units")

    def __init__(self, *, is_object: bool) -> None:
        self.pieces: list[_Piece] = [b"{" if is_object else b"["]
        self.members: list[_Member] | None = [] if is_object else None
        self.keys: set[bytes] = set()
        self.units = self.key = b""

    def take(self, piece: _Piece) -> None:
        """A value is complete."""
        if self.members is None:
            if len(self.pieces) > 1:
                self.pieces.append(b",")
            self.pieces.append(piece)
        else:
            self.members.append((self.units, self.key, piece))

    def close(self) -> list[_Piece]:
        """The container is complete."""
        if self.members is None:
            self.pieces.append(b"]")
            return self.pieces
        # No two keys are equal, so that no two values are ever compared.
        self.members.sort(key=_units)
        for _, name, piece in self.members:
            if len(self.pieces) > 1:
                self.pieces.append(b",")
            self.pieces += (name, b":", piece)
        self.pieces.append(b"}")
        return self.pieces


def _units(member: _Member) -> bytes:
    return member[0]


def _value(text: bytes, start: int, end: int, max_depth: int) -> _Piece:
    stack: list[_Open] = []
    pos = start
    while True:
        # A value begins at pos.
        found = _VALUE.match(text, pos, end)
        if found is None:
            _refuse(text, pos, end, "a value")
        pos = found.end()
        opened = found[8]
        if opened is not None:
            if len(stack) >= max_depth:
                raise FrameError(f"nesting is deeper than {max_depth}", PARSE_ERROR, pos - 1)
            is_object = opened == b"{"
            stack.append(_Open(is_object=is_object))
            closed = _CLOSED.match(text, pos, end)
            if closed is None:
                if is_object:
                    pos = _next_key(text, pos, end, stack[-1])
                continue
            if (closed[1] == b"}") != is_object:
                _refuse(text, pos, end, "a value")
            pos = closed.end()
            piece: _Piece = stack.pop().close()
        elif found[1] is not None:
            piece = _string(_decoded(found[1], found.start(1)))
        elif found[3] is not None:
            piece = _number(found[2], found[3], found[4] or b"", found[5], found[6])
        else:
            piece = found[7]
        # A value ended at pos: give it to its container, then close what closes here.
        while True:
            if not stack:
                blank = _BLANK.match(text, pos, end)
                if blank is not None and blank.end() != end:
                    raise FrameError("text follows the value", PARSE_ERROR, pos)
                return piece
            container = stack[-1]
            container.take(piece)
            follows = _NEXT.match(text, pos, end)
            if follows is None:
                _refuse(text, pos, end, "`,` or the container's end")
            pos = follows.end()
            if follows[1] == b",":
                if container.members is not None:
                    pos = _next_key(text, pos, end, container)
                break
            if (follows[1] == b"}") != (container.members is not None):
                _refuse(text, pos - 1, end, "the other bracket")
            piece = stack.pop().close()


def _next_key(text: bytes, pos: int, end: int, container: _Open) -> int:
    """Read the key at ``pos`` into ``container``; gives where its value begins."""
    found = _KEY.match(text, pos, end)
    if found is None:
        _refuse(text, pos, end, "a key and `:`")
    name = _decoded(found[1], found.start(1))
    units = name.encode("utf-16-be")
    if units in container.keys:
        raise FrameError("a key stands twice in one object", PARSE_ERROR, found.start(1))
    container.keys.add(units)
    container.units, container.key = units, _string(name)
    return found.end()


def _decoded(quoted: bytes, offset: int) -> str:
    try:
        if b"\\" not in quoted:
            return quoted[1:-1].decode()
        # Half a surrogate pair decodes here, and has no UTF-8 form.
        name: str = json.loads(quoted)
        name.encode()
        return name
    except UnicodeDecodeError:
        raise FrameError("a string is not UTF-8", PARSE_ERROR, offset) from None
    except UnicodeEncodeError:
        raise FrameError("a string holds half a surrogate pair", PARSE_ERROR, offset) from None


def _string(text: str) -> bytes:
    return b'"' + text.translate(_ESCAPED).encode() + b'"'


def _number(
    sign: bytes, whole: bytes, fraction: bytes, power_sign: bytes | None, exponent: bytes | None
) -> bytes:
    """The number ``sign whole.fraction e power_sign exponent``."""
    digits = whole + fraction
    significant = digits.lstrip(b"0")
    if not significant:
        return b"0"
    # The place of the first digit (0 for units, -1 for tenths), before the exponent.
    place = len(whole) - 1 - (len(digits) - len(significant))
    significant = significant.rstrip(b"0")
    exponent = (exponent or b"").lstrip(b"0")
    below = power_sign == b"-"
    if len(exponent) > _COUNTED_DIGITS:
        # What is added is an offset within a text, far smaller than the exponent is.
        size = _moved(exponent, -place if below else place)
        return sign + _scientific(significant, b"-" if below else b"+", size)
    power = int(exponent or b"0")
    place += -power if below else power
    if not _LEAST_PLACE <= place <= _LARGEST_PLACE:
        size = str(abs(place)).encode()
        return sign + _scientific(significant, b"-" if place < 0 else b"+", size)
    if place < 0:
        return sign + b"0." + b"0" * (-place - 1) + significant
    if len(significant) <= place + 1:
        return sign + significant.ljust(place + 1, b"0")
    return sign + significant[: place + 1] + b"." + significant[place + 1 :]


def _scientific(significant: bytes, sign: bytes, size: bytes) -> bytes:
    point = b"." if len(significant) > 1 else b""
    return significant[:1] + point + significant[1:] + b"e" + sign + size


def _moved(size: bytes, by: int) -> bytes:
    """The decimal number ``size`` plus ``by``; |by| is below 10**18 and below ``size``."""
    head, tail = size[:-_COUNTED_DIGITS], int(size[-_COUNTED_DIGITS:]) + by
    if tail >= _COUNTED:
        tail -= _COUNTED
        kept = head.rstrip(b"9")
        raised = kept[:-1] + b"%d" % (kept[-1] - 0x30 + 1) if kept else b"1"
        head = raised + b"0" * (len(head) - len(kept))
    elif tail < 0:
        tail += _COUNTED
        kept = head.rstrip(b"0")
        head = kept[:-1] + b"%d" % (kept[-1] - 0x30 - 1) + b"9" * (len(head) - len(kept))
    return (head + b"%018d" % tail).lstrip(b"0")


def _flat(piece: _Piece) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        yield piece
        return
    stack = [iter(piece)]
    while stack:
        for inner in stack[-1]:
            if isinstance(inner, bytes):
                yield inner
            else:
                stack.append(iter(inner))
                break
        else:
            stack.pop()


def _refuse(text: bytes, pos: int, end: int, wanted: str) -> NoReturn:
    blank = _BLANK.match(text, pos, end)
    if blank is not None:
        pos = blank.end()
    if pos >= end:
        raise FrameError("the value ends too early", PARSE_ERROR, pos)
    raise FrameError(f"not JSON: {wanted} expected at byte {pos}", PARSE_ERROR, pos)
