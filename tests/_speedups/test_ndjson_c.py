"""The compiled line framing is the specification's twin: the same lines, at every cut.

What a line is stands in ``test_ndjson_py.py``, which runs on both.
"""

import os
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.framing import Framing

from mcpx._speedups import ndjson_py

if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
    ndjson_c = import_module("mcpx._speedups.ndjson_c")
else:
    ndjson_c = pytest.importorskip("mcpx._speedups.ndjson_c", exc_type=ImportError)

TEXTS = [
    b'{"jsonrpc":"2.0"}\n{"id":1}\r\n\r\n\n[]\r\r\n1\r2\n3',
    b"\n\r\n123456789\r\n1234567890\n12345678901\n",
    b"123456789012\n1\n",
]
STREAMS = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"{}", b"a", b"\n\n"]) | st.binary(max_size=6),
    max_size=16,
).map(b"".join)


def shown(lines):
    return [(type(line), line) for line in lines]


FRAMING = Framing(ndjson_c.LineParser, ndjson_py.LineParser, end="end", shown=shown)


def test_the_names_are_the_same():
    assert sorted(ndjson_c.__all__) == sorted(ndjson_py.__all__)


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
@example(data=b"a\r\n", cuts=[2], limit_bytes=1)
def test_both_say_the_same_of_any_stream(data, cuts, limit_bytes):
    FRAMING.same_at(data, cuts, limit_bytes)


def test_both_say_the_same_of_large_pieces():
    text = b"a\n" + b"x" * 150_000 + b"\r\n" + b"line\n" * 30_000 + b"y" * 80_000
    FRAMING.same_in_large_pieces(text)


def test_a_piece_is_let_go_when_it_has_been_read():
    FRAMING.lets_pieces_go()


@pytest.mark.parametrize("data", [None, "a\n", 1.5, [1]])
def test_what_is_no_bytes_is_refused(data):
    with pytest.raises(TypeError):
        ndjson_c.LineParser(100).feed(data)


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_memory_is_left_behind_or_kept_for_nothing():
    FRAMING.leaves_no_memory_behind()
