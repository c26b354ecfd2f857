"""Event streams: where an event ends, what its fields say, and what is refused.

Every test here runs on the specification and on its compiled twin, where that was built.
"""

import os
import time
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import sse_py
from mcpx.errors import RemoteProtocolError

BOM = b"\xef\xbb\xbf"


def twins():
    found = [pytest.param(sse_py, id="python")]
    try:
        found.append(pytest.param(import_module("mcpx._speedups.sse_c"), id="cython"))
    except ImportError:
        if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
            raise
    return found


@pytest.fixture(scope="module", params=twins())
def sse(request):
    return request.param


def parse(sse, pieces, limit_bytes=10_000):
    parser = sse.EventParser(limit_bytes)
    events = [event for piece in pieces for event in parser.feed(memoryview(bytearray(piece)))]
    return events, parser.rest()


def fields(events):
    return [(event.data, event.event, event.id) for event in events]


def singles(data):
    return [data[index : index + 1] for index in range(len(data))]


def by_the_book(data):
    """The stream as the standard's text reads it: fields of each event, plainly."""
    text = data.removeprefix(BOM)
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    found, current = [], []
    for line in lines:
        if line:
            current.append(line)
            continue
        values = {}
        for field in current:
            name, colon, value = field.partition(b":")
            value = value.removeprefix(b" ") if colon else b""
            values.setdefault(name, []).append(value)
        ids = [value for value in values.get(b"id", []) if b"\0" not in value]
        found.append(
            (
                b"\n".join(values[b"data"]) if b"data" in values else None,
                values[b"event"][-1] if b"event" in values else None,
                ids[-1] if ids else None,
            )
        )
        current = []
    return found


def test_an_event_has_its_fields_and_its_bytes(sse):
    data = b"event: message\r\nid: 7\r\ndata: {\r\ndata:}\r\n\r\n"
    events, rest = parse(sse, [data])
    assert fields(events) == [(b"{\n}", b"message", b"7")]
    assert (events[0].raw, rest) == (data, b"")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data\n\n", (b"", None, None)),
        (b"data:\n\n", (b"", None, None)),
        (b"data: \n\n", (b"", None, None)),
        (b"data:  a \n\n", (b" a ", None, None)),
        (b"data:\ndata:\n\n", (b"\n", None, None)),
        (b"id\ndata: a\n\n", (b"a", None, b"")),
        (b"id: a\0b\ndata: a\n\n", (b"a", None, None)),
        (b"event: a\nevent: b\ndata: c\n\n", (b"c", b"b", None)),
        (b": a comment\n\n", (None, None, None)),
        (b"retry: 10\nid: 3\n\n", (None, None, b"3")),
        (b"id: 1\ndata:\n\n", (b"", None, b"1")),
        (b"Data: a\ndatas: b\n data: c\n\n", (None, None, None)),
        (b"data: a:b\n\n", (b"a:b", None, None)),
        (b"\n", (None, None, None)),
    ],
)
def test_a_field_is_read_as_the_standard_says(sse, text, expected):
    events, rest = parse(sse, [text])
    assert fields(events) == [expected]
    assert fields(events) == by_the_book(text)
    assert rest == b""


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_lines_however_it_is_cut(sse, end):
    text = end.join([b"data: a", b"", b"", b": c", b"", b"id: 2", b"data: b", b"", b""])
    for pieces in ([text], singles(text), *([text[:cut], text[cut:]] for cut in range(len(text)))):
        events, rest = parse(sse, pieces)
        assert b"".join(event.raw for event in events) + rest == text
        assert fields(events) == by_the_book(text)


def test_an_event_is_given_out_with_its_last_byte_at_hand(sse):
    parser = sse.EventParser(100)
    for end in (b"\n\n", b"\r\r", b"\n\r", b"\r\n\n", b"\n\r\n", b"\r\n\r\n"):
        parser.feed(b"data: x")
        (event,) = parser.feed(end)
        assert event.data == b"x"


def test_a_line_feed_that_comes_late_is_of_the_line_end_before(sse):
    parser = sse.EventParser(100)
    (first,) = parser.feed(b"data: a\r\n\r")
    (second,) = parser.feed(b"\ndata: b\r\n\r\n")
    assert (first.data, second.data) == (b"a", b"b")
    assert (second.raw, second.start) == (b"\ndata: b\r\n\r\n", 1)


def test_a_byte_order_mark_is_passed_over_once_at_the_start(sse):
    text = BOM + b"data: a\n\n" + BOM + b"data: b\n\n"
    for pieces in ([text], singles(text)):
        events, rest = parse(sse, pieces)
        assert fields(events) == [(b"a", None, None), (None, None, None)]
        assert b"".join(event.raw for event in events) + rest == text


def test_half_a_byte_order_mark_is_part_of_a_line(sse):
    assert fields(parse(sse, [BOM[:2] + b"data: a\n\n"])[0]) == [(None, None, None)]
    assert parse(sse, [BOM[:2]]) == ([], BOM[:2])


def test_what_no_blank_line_ends_is_the_rest(sse):
    events, rest = parse(sse, [b"data: a\n\ndata: b\n"])
    assert len(events) == 1
    assert rest == b"data: b\n"


def test_one_event_is_bounded_whole_or_not(sse):
    limit = len(b"data: abc\n\n")
    assert len(parse(sse, [b"data: abc\n\n" * 3], limit)[0]) == 3
    assert len(parse(sse, singles(b"data: abc\n\n" * 3), limit)[0]) == 3
    for text in (b"data: abcd\n\n", b"data: abcdefgh"):
        for pieces in ([text], singles(text)):
            with pytest.raises(RemoteProtocolError) as caught:
                parse(sse, pieces, limit)
            assert caught.value.status == 502


def test_events_before_one_that_is_too_long_are_given_out_first(sse):
    parser = sse.EventParser(10)
    assert fields(parser.feed(b"data: a\n\ndata: 0123456789\n\n")) == [(b"a", None, None)]
    for call in (lambda: parser.feed(b"x"), parser.rest):
        with pytest.raises(RemoteProtocolError):
            call()


def test_an_event_in_single_bytes_is_searched_once(sse):
    # Searching from the start each time would be 10^11 steps.
    parser = sse.EventParser(1_000_000)
    for _ in range(300_000):
        assert parser.feed(b"x") == []
    (event,) = parser.feed(b"\n\n")
    assert len(event.raw) == 300_002


parts = st.sampled_from(
    [b"data: a", b"data", b"data:{}", b"id: 1", b"event: m", b"retry: 5", b": c", b"x", b"\n",
     b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", BOM, b"\0", b" ", b":"]
)  # fmt: skip
streams = st.one_of(
    st.lists(parts, max_size=24).map(b"".join), st.binary(max_size=40), st.just(BOM)
)


@given(streams, st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=400)
@example(b"data: a\r\n\r\n", [9, 10])
def test_no_byte_is_lost_and_no_cut_changes_an_event(sse, data, cuts):
    bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    for cut in (pieces, [data], singles(data)):
        events, rest = parse(sse, cut)
        assert b"".join(event.raw for event in events) + rest == data
        assert fields(events) == by_the_book(data)


def test_an_event_can_be_made_by_hand(sse):
    event = sse.Event(b"data: a\n\n", b"a", None, None)
    assert (event.raw, event.data, event.event, event.id) == (b"data: a\n\n", b"a", None, None)
    assert event.start == 0
    event = sse.Event(raw=b"\n", data=b"", event=b"e", id=b"i", start=1)
    assert (event.data, event.event, event.id, event.start) == (b"", b"e", b"i", 1)
    event.data = None
    assert event.data is None
    assert repr(event) == "Event(b'\\n')"


def test_what_is_held_is_told(sse):
    parser = sse.EventParser(100)
    told = []
    for piece in (b"", b"data: a", b"\n", b"\ndat", b"a: b\n\n", BOM):
        parser.feed(piece)
        told.append(parser.held)
    assert told == [0, 7, 8, 3, 0, 3]


def test_time_is_in_proportion_to_a_hostile_stream(sse):
    """Line ends of one kind alone, of one kind far ahead, and nothing but blank lines."""
    size = 400_000
    for text, count in (
        (b"\r" * size, size),
        (b"\n" * size, size),
        (b"a\n" * size + b"\r\n", 1),
        (b"a\r" * size + b"\r", 1),
        (b"data\n" * size + b"\n", 1),
    ):
        began = time.process_time()
        assert len(sse.EventParser(10_000_000).feed(text)) == count
        assert time.process_time() - began < 10
