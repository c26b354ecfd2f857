"""The compiled line framing is the specification's twin: the same lines, at every cut.

What a line is stands in ``test_ndjson_py.py``, which runs on both.
"""

import os
import resource
from functools import partial
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import ndjson_py
from mcpx.errors import RemoteProtocolError

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


def told(call):
    try:
        return call()
    except RemoteProtocolError as exc:
        return RemoteProtocolError, str(exc), vars(exc)


def run(twin, pieces, limit_bytes):
    """Everything that can be seen of a parser after each piece, to the end and beyond."""
    parser = twin.LineParser(limit_bytes)
    seen = []
    for piece in pieces:
        given = told(partial(parser.feed, piece))
        seen.append(shown(given) if isinstance(given, list) else given)
        seen.append((parser.held, told(parser.end)))
    return seen


def same(pieces, limit_bytes):
    found = run(ndjson_c, pieces, limit_bytes)
    assert found == run(ndjson_py, pieces, limit_bytes), (pieces, limit_bytes)
    return found


def test_the_names_are_the_same():
    assert sorted(ndjson_c.__all__) == sorted(ndjson_py.__all__)


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
@example(data=b"a\r\n", cuts=[2], limit_bytes=1)
def test_both_say_the_same_of_any_stream(data, cuts, limit_bytes):
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    same([data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)], limit_bytes)
    same([memoryview(data[at : at + 1]) for at in range(len(data))], limit_bytes)


def test_both_say_the_same_of_large_pieces():
    text = b"a\n" + b"x" * 150_000 + b"\r\n" + b"line\n" * 30_000 + b"y" * 80_000
    for size in (1000, 4095, 4096, 4097, 65_536, 200_000, len(text)):
        same([text[at : at + size] for at in range(0, len(text), size)], 200_000)
        same([text[at : at + size] for at in range(0, len(text), size)], 90_000)


def test_a_piece_is_let_go_when_it_has_been_read():
    for data in (bytearray(b"data: a\n\nb"), bytearray(b"x" * 1000)):
        parser = ndjson_c.LineParser(100)
        told(partial(parser.feed, data))
        # A buffer that is still looked at can't be resized.
        data.clear()


@pytest.mark.parametrize("data", [None, "a\n", 1.5, [1]])
def test_what_is_no_bytes_is_refused(data):
    with pytest.raises(TypeError):
        ndjson_c.LineParser(100).feed(data)


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_memory_is_left_behind_or_kept_for_nothing():
    def repeat(count):
        parsers = []
        for _ in range(count):
            parser = ndjson_c.LineParser(300_000)
            parser.feed(b"x" * 200_000)
            parser.feed(b"\n\n")
            parsers.append(parser)
            broken = ndjson_c.LineParser(300_000)
            broken.feed(b"x" * 200_000)
            with pytest.raises(RemoteProtocolError):
                broken.feed(b"x" * 200_000)
            ndjson_c.LineParser(300_000).feed(b"x" * 200_000)

    repeat(5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    repeat(200)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8192 * (1 if os.uname().sysname == "Linux" else 1024)
