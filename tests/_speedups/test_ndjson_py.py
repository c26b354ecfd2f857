"""Newline-delimited JSON: where a line ends, and what is refused.

Every test here runs on the specification and on its compiled twin, where that was built.
"""

import os
import time
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx._speedups import ndjson_py
from mcpx.errors import RemoteProtocolError


def twins():
    found = [pytest.param(ndjson_py, id="python")]
    try:
        found.append(pytest.param(import_module("mcpx._speedups.ndjson_c"), id="cython"))
    except ImportError:
        if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
            raise
    return found


@pytest.fixture(scope="module", params=twins())
def ndjson(request):
    return request.param


def parse(ndjson, pieces, limit_bytes=10_000):
    parser = ndjson.LineParser(limit_bytes)
    lines = [line for piece in pieces for line in parser.feed(memoryview(bytearray(piece)))]
    return lines, parser.end()


def singles(data):
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    ("text", "lines", "end"),
    [
        (b"", [], b""),
        (b"a", [], b"a"),
        (b"a\n", [b"a"], b""),
        (b"a\r\n", [b"a"], b""),
        (b"a\r\r\n", [b"a\r"], b""),
        (b"a\rb\n", [b"a\rb"], b""),
        (b"a\r", [], b"a\r"),
        (b"\n\r\n\n", [], b""),
        (b"\r\r\n", [b"\r"], b""),
        (b" \n", [b" "], b""),
        (b"a\n\nb\r\n\r\nc", [b"a", b"b"], b"c"),
        (b"\na\n", [b"a"], b""),
        (b"a\0b\xff\x0b\x0c\x1c\xc2\x85\n", [b"a\0b\xff\x0b\x0c\x1c\xc2\x85"], b""),
    ],
)
def test_a_line_feed_and_nothing_else_ends_a_line_however_it_is_cut(ndjson, text, lines, end):
    for pieces in ([text], singles(text), *([text[:at], text[at:]] for at in range(len(text)))):
        assert parse(ndjson, pieces) == (lines, end)


def test_a_line_is_bounded_whole_or_not(ndjson):
    for text in (b"12345\n", b"1234\r\n"):
        assert parse(ndjson, [text * 3], 5)[0] == [text.rstrip()] * 3
        assert parse(ndjson, singles(text * 3), 5)[0] == [text.rstrip()] * 3
    for text in (b"123456\n", b"123456", b"12345\r\n", b"12345\r", b"123456789012\n"):
        for pieces in ([text], singles(text), [text[:3], text[3:]]):
            with pytest.raises(RemoteProtocolError, match="longer than 5 bytes") as caught:
                parse(ndjson, pieces, 5)
            assert caught.value.status == 502


def test_lines_before_one_that_is_too_long_are_given_out_first(ndjson):
    for text in (b"a\nb\n123456\nc\n", b"a\nb\n123456"):
        parser = ndjson.LineParser(5)
        assert parser.feed(text) == [b"a", b"b"]
        assert parser.held == 0
        for piece in (b"c\n", b""):
            with pytest.raises(RemoteProtocolError):
                parser.feed(piece)
            with pytest.raises(RemoteProtocolError):
                parser.end()


def test_nothing_is_held_of_a_line_that_is_too_long(ndjson):
    parser = ndjson.LineParser(5)
    parser.feed(b"1234")
    with pytest.raises(RemoteProtocolError):
        parser.feed(b"x" * 1000)
    assert parser.held == 0


def test_an_empty_line_is_allowed_whatever_the_bound(ndjson):
    assert parse(ndjson, [b"\n\n"], 0) == ([], b"")
    with pytest.raises(RemoteProtocolError):
        parse(ndjson, [b"\r\n"], 0)


def test_what_is_held_is_told(ndjson):
    parser = ndjson.LineParser(100)
    told = []
    for piece in (b"", b"ab", b"c\r", b"\nde", b"\n\n", b"f\ng"):
        parser.feed(piece)
        told.append(parser.held)
    assert told == [0, 2, 4, 2, 0, 1]


def test_lines_are_bytes_of_their_own(ndjson):
    data = bytearray(b"first\nsecond\nthi")
    parser = ndjson.LineParser(100)
    lines = parser.feed(memoryview(data))
    data[:] = b"x" * len(data)
    assert lines == [b"first", b"second"]
    assert {type(line) for line in lines} == {bytes}
    assert (parser.end(), type(parser.end())) == (b"thi", bytes)


def test_time_is_in_proportion_however_a_line_comes(ndjson):
    for text, size, count in ((b"x" * 300_000 + b"\n", 1, 1), (b"x\n" * 500_000, 10**6, 500_000)):
        parser = ndjson.LineParser(1_000_000)
        began = time.process_time()
        lines = [
            line for at in range(0, len(text), size) for line in parser.feed(text[at : at + size])
        ]
        assert len(lines) == count
        assert time.process_time() - began < 10


STREAMS = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"{}", b"a", b"\n\n"]) | st.binary(max_size=6),
    max_size=16,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 100), max_size=5))
def test_the_lines_are_those_of_a_plain_split_at_every_cut(ndjson, data, cuts):
    bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    *whole, end = data.split(b"\n")
    lines = [line.removesuffix(b"\r") for line in whole]
    for cut in (pieces, [data], singles(data)):
        assert parse(ndjson, cut) == ([line for line in lines if line], end)
