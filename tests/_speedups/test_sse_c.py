"""The compiled framing of event streams is the specification's twin: the same events, at every cut.

What an event is stands in ``test_sse_py.py``, which runs on both.
"""

import os
import resource
from functools import partial
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import sse_py
from mcpx.errors import RemoteProtocolError

if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
    sse_c = import_module("mcpx._speedups.sse_c")
else:
    sse_c = pytest.importorskip("mcpx._speedups.sse_c", exc_type=ImportError)

BOM = b"\xef\xbb\xbf"
TEXTS = [
    b"event: message\r\nid: 7\r\ndata: {\r\ndata:}\r\n\r\nid: 8\n\n",
    b"data: a\r\rdata\r\r\n\ndata:b\n\r\nid:\0\nid: 2\n\r",
    BOM + b": c\ndata:\ndata:  x\n\n" + BOM + b"data: b\n\n",
    b"event\nevent:  e\neventual: 1\ndat: 1\ndata\0: 1\nid\n\n\n\r\r\n",
    b"data\ndata\ndata: \ndata: x\nid:a:b\nretry: 1\n\n",
]
STREAMS = st.one_of(
    st.lists(
        st.sampled_from(
            [b"data: a", b"data", b"data:", b"id: 1", b"id", b"event: m", b": c", b"x", b"\n",
             b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", BOM, BOM[:1], BOM[1:], b"\0", b" ", b":"]
        ),
        max_size=24,
    ).map(b"".join),
    st.binary(max_size=40),
)  # fmt: skip


def shown(events):
    return [(each.raw, each.data, each.event, each.id, each.start, repr(each)) for each in events]


def told(call):
    try:
        return call()
    except RemoteProtocolError as exc:
        return RemoteProtocolError, str(exc), vars(exc)


def run(twin, pieces, limit_bytes):
    """Everything that can be seen of a parser after each piece, to the end and beyond."""
    parser = twin.EventParser(limit_bytes)
    seen = []
    for piece in pieces:
        given = told(partial(parser.feed, piece))
        seen.append(shown(given) if isinstance(given, list) else given)
        seen.append((parser.held, told(parser.rest)))
    return seen


def same(pieces, limit_bytes):
    found = run(sse_c, pieces, limit_bytes)
    assert found == run(sse_py, pieces, limit_bytes), (pieces, limit_bytes)
    return found


def test_the_names_are_the_same():
    assert sorted(sse_c.__all__) == sorted(sse_py.__all__)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("limit_bytes", [-1, 0, 1, 2, 9, 10, 11, 12, 1000])
def test_both_say_the_same_however_a_text_is_cut(text, limit_bytes):
    same([text], limit_bytes)
    same([text[at : at + 1] for at in range(len(text))], limit_bytes)
    for one in range(len(text) + 1):
        same([text[:one], text[one:]], limit_bytes)
        for other in range(one, len(text) + 1, 3):
            same([text[:one], text[one:other], text[other:]], limit_bytes)


@settings(max_examples=400, deadline=None)
@given(
    data=STREAMS,
    cuts=st.lists(st.integers(0, 120), max_size=6),
    limit_bytes=st.integers(0, 40) | st.just(10_000),
)
@example(data=b"data: a\r\n\r\n", cuts=[9, 10], limit_bytes=100)
def test_both_say_the_same_of_any_stream(data, cuts, limit_bytes):
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    same([data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)], limit_bytes)
    same([memoryview(data[at : at + 1]) for at in range(len(data))], limit_bytes)


def test_both_say_the_same_of_large_pieces():
    text = (
        b"data: a\n\ndata: "
        + b"x" * 150_000
        + b"\r\n\r\n"
        + b"data: b\n" * 30_000
        + b"\n"
        + b"id: 1\n\n" * 9
    )
    for size in (1000, 4095, 4096, 4097, 65_536, 200_000, len(text)):
        same([text[at : at + size] for at in range(0, len(text), size)], 200_000)
        same([text[at : at + size] for at in range(0, len(text), size)], 90_000)


def test_a_piece_is_let_go_when_it_has_been_read():
    for data in (bytearray(b"data: a\n\nb"), bytearray(b"x" * 1000)):
        parser = sse_c.EventParser(100)
        told(partial(parser.feed, data))
        # A buffer that is still looked at can't be resized.
        data.clear()


@pytest.mark.parametrize("data", [None, "a\n", 1.5, [1]])
def test_what_is_no_bytes_is_refused(data):
    with pytest.raises(TypeError):
        sse_c.EventParser(100).feed(data)


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_memory_is_left_behind_or_kept_for_nothing():
    def repeat(count):
        parsers = []
        for _ in range(count):
            parser = sse_c.EventParser(300_000)
            parser.feed(b"x" * 200_000)
            parser.feed(b"\n\n")
            parsers.append(parser)
            broken = sse_c.EventParser(300_000)
            broken.feed(b"x" * 200_000)
            with pytest.raises(RemoteProtocolError):
                broken.feed(b"x" * 200_000)
            sse_c.EventParser(300_000).feed(b"x" * 200_000)

    repeat(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    repeat(200)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8192 * (1 if os.uname().sysname == "Linux" else 1024)
