import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx.errors import RemoteProtocolError
from mcpx.protocol.sse import Event, EventParser, replace_data

BOM = b"\xef\xbb\xbf"


def parse(pieces, limit_bytes=10_000):
    parser = EventParser(limit_bytes)
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


def test_an_event_has_its_fields_and_its_bytes():
    data = b"event: message\r\nid: 7\r\ndata: {\r\ndata:}\r\n\r\n"
    events, rest = parse([data])
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
def test_a_field_is_read_as_the_standard_says(text, expected):
    events, rest = parse([text])
    assert fields(events) == [expected]
    assert fields(events) == by_the_book(text)
    assert rest == b""


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_lines_however_it_is_cut(end):
    text = end.join([b"data: a", b"", b"", b": c", b"", b"id: 2", b"data: b", b"", b""])
    for pieces in ([text], singles(text), *([text[:cut], text[cut:]] for cut in range(len(text)))):
        events, rest = parse(pieces)
        assert b"".join(event.raw for event in events) + rest == text
        assert fields(events) == by_the_book(text)


def test_an_event_is_given_out_with_its_last_byte_at_hand():
    parser = EventParser(100)
    for end in (b"\n\n", b"\r\r", b"\n\r", b"\r\n\n", b"\n\r\n", b"\r\n\r\n"):
        parser.feed(b"data: x")
        (event,) = parser.feed(end)
        assert event.data == b"x"


def test_a_line_feed_that_comes_late_is_of_the_line_end_before():
    parser = EventParser(100)
    (first,) = parser.feed(b"data: a\r\n\r")
    (second,) = parser.feed(b"\ndata: b\r\n\r\n")
    assert (first.data, second.data) == (b"a", b"b")
    assert (second.raw, second.start) == (b"\ndata: b\r\n\r\n", 1)
    assert replace_data(second, b"c") == b"\ndata: c\r\n\r\n"


def test_a_byte_order_mark_is_passed_over_once_at_the_start():
    text = BOM + b"data: a\n\n" + BOM + b"data: b\n\n"
    for pieces in ([text], singles(text)):
        events, rest = parse(pieces)
        assert fields(events) == [(b"a", None, None), (None, None, None)]
        assert b"".join(event.raw for event in events) + rest == text
    assert replace_data(parse([text])[0][0], b"x") == BOM + b"data: x\n\n"


def test_half_a_byte_order_mark_is_part_of_a_line():
    assert fields(parse([BOM[:2] + b"data: a\n\n"])[0]) == [(None, None, None)]
    assert parse([BOM[:2]]) == ([], BOM[:2])


def test_what_no_blank_line_ends_is_the_rest():
    events, rest = parse([b"data: a\n\ndata: b\n"])
    assert len(events) == 1
    assert rest == b"data: b\n"


def test_one_event_is_bounded_whole_or_not():
    limit = len(b"data: abc\n\n")
    assert len(parse([b"data: abc\n\n" * 3], limit)[0]) == 3
    assert len(parse(singles(b"data: abc\n\n" * 3), limit)[0]) == 3
    for text in (b"data: abcd\n\n", b"data: abcdefgh"):
        for pieces in ([text], singles(text)):
            with pytest.raises(RemoteProtocolError) as caught:
                parse(pieces, limit)
            assert caught.value.status == 502


def test_events_before_one_that_is_too_long_are_given_out_first():
    parser = EventParser(10)
    assert fields(parser.feed(b"data: a\n\ndata: 0123456789\n\n")) == [(b"a", None, None)]
    for call in (lambda: parser.feed(b"x"), parser.rest):
        with pytest.raises(RemoteProtocolError):
            call()


def test_an_event_in_single_bytes_is_searched_once():
    # Searching from the start each time would be 10^11 steps.
    parser = EventParser(1_000_000)
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
def test_no_byte_is_lost_and_no_cut_changes_an_event(data, cuts):
    bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    for cut in (pieces, [data], singles(data)):
        events, rest = parse(cut)
        assert b"".join(event.raw for event in events) + rest == data
        assert fields(events) == by_the_book(data)


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
