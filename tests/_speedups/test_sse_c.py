"""The compiled framing of event streams is the specification's twin: the same events, at every cut.

What an event is stands in ``test_sse_py.py``, which runs on both.
"""

import os
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.framing import Framing

from mcpx._speedups import sse_py

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


FRAMING = Framing(sse_c.EventParser, sse_py.EventParser, end="rest", shown=shown)


def test_the_names_are_the_same():
    assert sorted(sse_c.__all__) == sorted(sse_py.__all__)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("limit_bytes", [-1, 0, 1, 2, 9, 10, 11, 12, 1000])
def test_both_say_the_same_however_a_text_is_cut(text, limit_bytes):
    FRAMING.same_however_cut(text, limit_bytes)


@settings(max_examples=400, deadline=None)
@given(
    data=STREAMS,
    cuts=st.lists(st.integers(0, 120), max_size=6),
    limit_bytes=st.integers(0, 40) | st.just(10_000),
)
@example(data=b"data: a\r\n\r\n", cuts=[9, 10], limit_bytes=100)
def test_both_say_the_same_of_any_stream(data, cuts, limit_bytes):
    FRAMING.same_at(data, cuts, limit_bytes)


def test_both_say_the_same_of_large_pieces():
    text = (
        b"data: a\n\ndata: "
        + b"x" * 150_000
        + b"\r\n\r\n"
        + b"data: b\n" * 30_000
        + b"\n"
        + b"id: 1\n\n" * 9
    )
    FRAMING.same_in_large_pieces(text)


def test_a_piece_is_let_go_when_it_has_been_read():
    FRAMING.lets_pieces_go()


@pytest.mark.parametrize("data", [None, "a\n", 1.5, [1]])
def test_what_is_no_bytes_is_refused(data):
    with pytest.raises(TypeError):
        sse_c.EventParser(100).feed(data)


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_memory_is_left_behind_or_kept_for_nothing():
    FRAMING.leaves_no_memory_behind()
