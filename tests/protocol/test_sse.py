from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import sse as framing
from mcpx.protocol import sse
from mcpx.protocol.sse import Event, EventParser, replace_data

BOM = b"\xef\xbb\xbf"


def parse(pieces, limit_bytes=10_000):
    parser = EventParser(limit_bytes)
    events = [event for piece in pieces for event in parser.feed(memoryview(bytearray(piece)))]
    return events, parser.rest()


def test_events_are_cut_by_the_twin_that_this_process_runs():
    assert sse.EventParser is framing.EventParser
    assert sse.Event is framing.Event


parts = st.sampled_from(
    [b"data: a", b"data", b"data:{}", b"id: 1", b"event: m", b"retry: 5", b": c", b"x", b"\n",
     b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\r", BOM, b"\0", b" ", b":"]
)  # fmt: skip
streams = st.one_of(
    st.lists(parts, max_size=24).map(b"".join), st.binary(max_size=40), st.just(BOM)
)


def other_lines(raw):
    lines = raw.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [line for line in lines if line and line.partition(b":")[0] != b"data"]


@given(streams, st.one_of(st.binary(max_size=12), st.sampled_from([b"", b"\n", b"a\r\nb\rc\n"])))
@settings(max_examples=400)
@example(b"data: a\nid: 1\rdata: b\n\n", b"x")
@example(b"data: a\rdata: b\n\n", b"x")
def test_new_data_stands_in_an_event_that_is_otherwise_the_same(data, new):
    for event in parse([data])[0]:
        raw = replace_data(event, new)
        # Read it where it stood: at the stream's start, behind a CR or behind a blank line.
        before = {0: b"\n", 1: b"\r", 3: b""}[event.start]
        events, rest = parse([before, raw])
        read = events[-1]
        assert (len(events), rest) == (2 if before else 1, b"")
        assert read.data == new.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert (read.event, read.id) == (event.event, event.id)
        assert other_lines(raw[event.start :]) == other_lines(event.raw[event.start :])


def test_new_data_leaves_a_line_feed_that_came_late_where_it_was():
    parser = EventParser(100)
    (first,) = parser.feed(b"data: a\r\n\r")
    (second,) = parser.feed(b"\ndata: b\r\n\r\n")
    assert (first.data, second.start) == (b"a", 1)
    assert replace_data(second, b"c") == b"\ndata: c\r\n\r\n"


def test_new_data_leaves_a_byte_order_mark_where_it_was():
    (event,), _ = parse([BOM + b"data: a\n\n"])
    assert replace_data(event, b"x") == BOM + b"data: x\n\n"


def test_new_data_stands_where_the_first_data_line_stood():
    (event,), _ = parse([b"id: 1\r\ndata: a\r\n: c\r\ndata: b\r\nretry: 3\r\n\r\n"])
    assert replace_data(event, b"{}") == b"id: 1\r\ndata: {}\r\n: c\r\nretry: 3\r\n\r\n"


def test_new_data_stands_before_the_blank_line_if_there_was_none():
    (event,), _ = parse([b"id: 1\n\n"])
    assert replace_data(event, b"a\nb") == b"id: 1\ndata: a\ndata: b\n\n"


def test_an_event_can_be_made_by_hand():
    event = Event(b"data: a\n\n", b"a", None, None)
    assert replace_data(event, b"b") == b"data: b\n\n"
    assert repr(event) == "Event(b'data: a\\n\\n')"
