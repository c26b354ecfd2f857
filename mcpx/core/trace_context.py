"""W3C Trace Context: where a request stands in a trace that others began.

What it is: reading and writing ``traceparent`` and ``tracestate`` by the letter of the
recommendation (W3C Trace Context, 23 November 2021), new ids, and the decision which
traces are recorded. What it must never do: take half of a value, repair one, or let
what it could not read go on to a server.

**traceparent** is ``version-traceid-parentid-flags`` in lower-case hex. Version ``ff``
and ids of zeros alone are refused. Version ``00`` has nothing behind its flags. Of a
later version the same four fields are read; behind them may be the end or a dash, and
what follows the dash is not looked at. What is written is always version ``00``. Of the
flags only the lowest bit has a meaning there, ``sampled``; the others are written as 0.

**tracestate** belongs to a ``traceparent`` that was understood, and counts for nothing
without. Several fields are one list, in their order. A list with a member that breaks
the grammar, with a key twice or with more than 32 members is dropped whole, which does
not touch the ``traceparent``. The gateway adds no member of its own.

**Which are recorded.** Who began a trace has decided for it: ``sampled`` is followed,
set or not (a caller can't be known to be honest here, so what records cost is bounded
elsewhere). For traces that begin here the lower 64 bits of the random id are compared
with a threshold. OpenTelemetry's ``TraceIdRatioBased`` does the same sum, so that
gateways and services with one ratio agree about a trace without asking each other.

**Header and message.** A message may name its parent too, in ``params._meta`` (MCP
2026-07-28, trace context). ``chosen`` says whose trace it is when both do:

* The message wins. It was written by who calls the tool, while a header may be that of
  a second attempt or of a proxy in between; OpenTelemetry's conventions for MCP say so;
  and the server behind the gateway gets the same message and will follow it. The
  header's context becomes a link.
* Where both name one trace, the header's parent is taken: it is the HTTP call inside the
  caller's, and so the nearer one.

To a server the gateway tells its own context by header alone. In the message it could
only stand where the client's stands, and a message is sent on as it was judged, byte for
byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

__all__ = [
    "FIELDS",
    "Parent",
    "chosen",
    "from_headers",
    "from_meta",
    "in_sample",
    "new_id",
    "new_trace",
    "parse_traceparent",
    "parse_tracestate",
    "threshold",
    "write_traceparent",
]

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
#: The header fields that carry a context.
FIELDS: Final = frozenset({TRACEPARENT, TRACESTATE})

MAX_MEMBERS: Final = 32
#: A traceparent longer than this comes from no version that can be imagined.
MAX_TRACEPARENT_BYTES: Final = 512
#: 32 members of the longest keys and values, with a comma and some white space each.
MAX_TRACESTATE_BYTES: Final = 32 * (256 + 1 + 256 + 4)

_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_LENGTH: Final = 55
_DASH: Final = 0x2D
_ODD: Final = frozenset(b"13579bdf")
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_KEY_REST: Final = rb"[a-z0-9_\-*/]"
# A plain key, or a tenant at a system (section 3.3.1.3.1).
_MEMBER: Final = re.compile(
    rb"([a-z]" + _KEY_REST + rb"{0,255}|[a-z0-9]" + _KEY_REST + rb"{0,240}@[a-z]" + _KEY_REST
    + rb"{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)  # fmt: skip


class Parent(NamedTuple):
    """Who called, in its trace. Ids are lower-case hex: 32 and 16 characters.

    ``state`` is a ``tracestate`` list that is well formed, or empty.
    """

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: bytes = b""


def parse_traceparent(value: bytes) -> Parent | None:
    """What a ``traceparent`` says, ``None`` if it says nothing that can be used.

    White space around the value is not taken away: an HTTP parser has done that.
    """
    if not _LENGTH <= len(value) <= MAX_TRACEPARENT_BYTES or _TRACEPARENT.match(value) is None:
        return None
    if len(value) > _LENGTH and (value[:2] == b"00" or value[_LENGTH] != _DASH):
        return None
    return Parent(value[3:35], value[36:52], value[54] in _ODD)


def parse_tracestate(value: bytes) -> bytes:
    """The list of a ``tracestate`` without its white space; empty if it is not a list."""
    if not value or len(value) > MAX_TRACESTATE_BYTES:
        return b""
    members = [member for part in value.split(b",") if (member := part.strip(b" \t"))]
    if len(members) > MAX_MEMBERS:
        return b""
    keys = set()
    for member in members:
        read = _MEMBER.fullmatch(member)
        if read is None:
            return b""
        keys.add(read[1])
    return b",".join(members) if len(keys) == len(members) else b""


def from_headers(
    fields: Mapping[bytes, bytes], headers: Sequence[tuple[bytes, bytes]]
) -> Parent | None:
    """The caller as a request's header fields tell it.

    ``headers`` are all fields in their order, ``fields`` one of each name; where there
    are as many of these, the list is not walked. Names are in lower case. Two
    ``traceparent`` are none, for nobody knows which one was meant.
    """
    value = fields.get(TRACEPARENT)
    if value is None:
        return None
    parent = parse_traceparent(value)
    if parent is None:
        return None
    if len(fields) == len(headers):
        state = fields.get(TRACESTATE)
    else:
        names = [name for name, _ in headers]
        if names.count(TRACEPARENT) > 1:
            return None
        state = b",".join(value for name, value in headers if name == TRACESTATE)
    return parent._replace(state=parse_tracestate(state)) if state else parent


def from_meta(
    traceparent: str | bytes | None, tracestate: str | bytes | None = None
) -> Parent | None:
    """The caller as ``params._meta`` tells it: the decoded strings, without quotes."""
    if traceparent is None:
        return None
    parent = parse_traceparent(_octets(traceparent))
    if parent is None or tracestate is None:
        return parent
    return parent._replace(state=parse_tracestate(_octets(tracestate)))


def _octets(value: str | bytes) -> bytes:
    """The bytes of a text; none where it is not ASCII, which neither field can be."""
    if isinstance(value, bytes):
        return value
    return value.encode("ascii") if value.isascii() else b""


def chosen(header: Parent | None, meta: Parent | None) -> tuple[Parent | None, Parent | None]:
    """The parent of a request, and a context of another trace that it is linked to."""
    if meta is None or header is None:
        return meta or header, None
    if meta.trace_id == header.trace_id:
        return header, None
    return meta, header


def write_traceparent(trace_id: bytes, span_id: bytes, *, sampled: bool) -> bytes:
    """A ``traceparent`` of version 00. The ids are as ``Parent`` has them."""
    return b"00-%b-%b-0%d" % (trace_id, span_id, sampled)


def new_trace(getrandbits: Callable[[int], int]) -> tuple[bytes, bytes]:
    """The ids of a trace that begins here, and of its first span."""
    both = b"%048x" % getrandbits(192)
    trace_id, span_id = both[:32], both[32:]
    while trace_id == _NO_TRACE:
        trace_id = b"%032x" % getrandbits(128)
    return trace_id, span_id if span_id != _NO_SPAN else new_id(getrandbits)


def new_id(getrandbits: Callable[[int], int]) -> bytes:
    """The id of one more span."""
    while (span_id := b"%016x" % getrandbits(64)) == _NO_SPAN:
        pass
    return span_id


def threshold(ratio: float) -> int:
    """What ``in_sample`` compares with, for a share of 0 to 1 of all traces."""
    return round(ratio * (1 << 64))


def in_sample(trace_id: bytes, threshold: int) -> bool:
    """Whether a trace that begins here is recorded."""
    return int(trace_id[16:], 16) < threshold
