import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.errors import RemoteProtocolError
from mcpx.protocol.http1_messages import (
    REQUEST,
    ChunkReader,
    HeadReader,
    RequestHead,
    ResponseHead,
    judge_response,
    why_no_request,
)


def chunk_reader(max_body_bytes=1000, max_trailer_bytes=100):
    return ChunkReader(
        max_body_bytes=max_body_bytes,
        max_trailer_bytes=max_trailer_bytes,
        malformed=400,
        too_long=431,
    )


def read_chunks(reader, pieces):
    """The body and the bytes after it; None while more is needed; a status for a refusal."""
    body = []
    try:
        for index, piece in enumerate(pieces):
            after = reader.feed(memoryview(piece), body)
            if after is not None:
                return b"".join(body), bytes(after) + b"".join(pieces[index + 1 :])
    except RemoteProtocolError as exc:
        return exc.status
    return None


def read_by_httptools(data):
    class Protocol:
        body = b""
        whole = False

        def on_body(self, data):
            self.body += data

        def on_message_complete(self):
            self.whole = True

    protocol = Protocol()
    parser = httptools.HttpRequestParser(protocol)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert protocol.whole
    return protocol.body


def read_by_h11(data):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    )
    assert isinstance(connection.next_event(), h11.Request)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        body += event.data
    return body, connection.trailing_data[0]


good_chunks = st.builds(
    lambda chunks, zeros, trailers: (
        b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        + b"0" * zeros
        + b"\r\n"
        + b"".join(b"%b: x\r\n" % name for name in trailers)
        + b"\r\n"
    ),
    st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    st.integers(1, 15),
    st.lists(st.sampled_from([b"X", b"Expires"]), max_size=2),
)


@st.composite
def chunk_texts(draw):
    data = bytearray(draw(good_chunks))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        if draw(st.booleans()):
            data[at] = draw(st.sampled_from(b"\r\n 0123abcF;:x\0"))
        else:
            data[at:at] = draw(st.sampled_from([b"\r", b"\n", b"0", b" ", b";"]))
    return bytes(data)


@given(chunk_texts(), st.binary(max_size=5), st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_taken_as_chunks_is_read_alike_by_both_libraries(data, after, draw):
    data += after
    whole = read_chunks(chunk_reader(), [data])
    cut = draw.draw(st.integers(0, len(data)))
    assert read_chunks(chunk_reader(), [data[:cut], data[cut:]]) == whole
    assert read_chunks(chunk_reader(), [data[i : i + 1] for i in range(len(data))]) == whole
    if isinstance(whole, tuple):
        body, rest = whole
        assert read_by_h11(data) == (body, rest)
        assert read_by_httptools(data[: len(data) - len(rest)]) == body


@given(good_chunks)
def test_chunks_that_follow_the_grammar_are_taken(data):
    assert isinstance(read_chunks(chunk_reader(), [data]), tuple)


def test_the_bounds_of_chunks_and_trailers_are_exact():
    data = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
    assert read_chunks(chunk_reader(5, 8), [data]) == (b"abcde", b"")
    assert read_chunks(chunk_reader(5, 8), [data[i : i + 1] for i in range(len(data))]) == (
        b"abcde",
        b"",
    )
    assert read_chunks(chunk_reader(4, 8), [data]) == 413
    assert read_chunks(chunk_reader(5, 7), [data]) == 431
    assert read_chunks(chunk_reader(5, 7), [data[i : i + 1] for i in range(len(data))]) == 431


def test_a_chunk_over_the_bound_is_refused_before_its_bytes_have_come():
    assert read_chunks(chunk_reader(10), [b"b\r\n"]) == 413
    assert read_chunks(chunk_reader(None), [b"fffffffffffffff\r\n"]) is None


def head_reader(limit_bytes=40, max_blanks=2):
    return HeadReader(limit_bytes=limit_bytes, max_blanks=max_blanks, malformed=400, too_long=431)


def push_all(reader, pieces):
    try:
        for index, piece in enumerate(pieces):
            found = reader.push(piece)
            if found is not None:
                return found[0], found[1] + b"".join(pieces[index + 1 :])
    except RemoteProtocolError as exc:
        return exc.status
    return None


@given(
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"bcd", b"\r\n\r\n"]), max_size=20),
    st.lists(st.integers(0, 60), max_size=4),
)
@settings(max_examples=300)
def test_the_end_of_a_head_is_found_alike_at_any_cuts(parts, cuts):
    data = b"".join(parts)
    bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
    if not pieces:
        return
    whole = push_all(head_reader(), [data])
    if isinstance(whole, tuple) and b"\n" in whole[0].replace(b"\r\n", b""):
        # In one piece the grammar is what refuses it, right afterwards.
        whole = 400
    parted = push_all(head_reader(), pieces)
    if isinstance(parted, tuple) and b"\n" in parted[0].replace(b"\r\n", b""):
        parted = 400
    assert parted == whole


KNOWN = b"GET /a HTTP/1.1\r\na: b\r\n\r\n"


def heads_of(pieces, known):
    """Every head and how it was found, with what the reader says of itself after each piece."""
    reader, told = head_reader(), []
    try:
        for piece in pieces:
            while piece:
                found = reader.push(memoryview(piece), *known)
                told.append((found and found[0], reader.empty))
                piece = found[1] if found else b""
    except RemoteProtocolError as exc:
        told.append((exc.status, exc.message))
    return told


@given(
    st.lists(
        st.sampled_from([KNOWN, KNOWN, KNOWN[:-2], KNOWN[:9], b"\r\n", b"\r", b"\n", b"x"]),
        max_size=8,
    ),
    st.lists(st.integers(0, 160), max_size=4),
)
@settings(max_examples=500)
def test_a_head_that_is_known_is_found_as_any_other_is(parts, cuts):
    data = b"".join(parts)
    bounds = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
    assert heads_of(pieces, [KNOWN]) == heads_of(pieces, [])
    assert heads_of(parts, [KNOWN]) == heads_of(parts, [])


@pytest.mark.parametrize("begun", [b"x", b"\r", b"GET /a?", KNOWN[:9], KNOWN[:-2], KNOWN[:-1]])
def test_a_known_head_in_the_middle_of_another_is_none(begun):
    found = heads_of([begun, KNOWN], [KNOWN])
    assert found == heads_of([begun, KNOWN], [])
    assert (KNOWN, True) not in found


def test_a_known_head_counts_empty_lines_anew():
    for known in ([], [KNOWN]):
        assert heads_of([b"\r\n", b"\r\n", KNOWN, b"\r\n\r\n", KNOWN], known)[-1] == (KNOWN, True)
        assert heads_of([b"\r\n\r\n", b"\r\n", KNOWN], known)[-1][0] == 400


def test_a_head_reader_is_empty_before_between_and_after_blank_lines():
    reader = head_reader()
    assert reader.empty
    assert reader.push(b"\r\n") is None
    assert reader.empty
    assert reader.push(b"\r") is None
    assert not reader.empty
    assert reader.push(b"\na\r\n\r\nb") == (b"a\r\n\r\n", b"b")
    assert reader.empty


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/3.0", 505),
        (b"GET /\xff HTTP/2.0", 505),
        (b"CONNECT a:1 HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"LOCK / HTTP/1.1", 501),
        (b"GET a HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"", 400),
    ],
)
def test_a_refused_request_line_gets_the_status_that_says_why(line, status):
    raw = line + b"\r\nHost: a\r\n\r\n"
    assert REQUEST.match(raw) is None or status in (405, 501)
    assert why_no_request(raw).status == status


def test_the_grammar_is_linear_in_hostile_heads():
    # Doubling expressions would not come back from any of these.
    for raw in (
        b"GET /" + b"a" * 100_000,
        b"G" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 50_000,
        b"GET / HTTP/1.1\r\n" + b"Content-Length" * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nA:" + b" " * 100_000 + b"\0\r\n\r\n",
    ):
        assert REQUEST.match(raw) is None


def test_representations_hold_neither_values_nor_queries():
    fields = [(b"authorization", b"Bearer secret")]
    request = RequestHead("GET", b"/a?key=secret", fields, (1, 1), True, None, False, False)
    assert repr(request) == "RequestHead(GET b'/a')"
    assert repr(ResponseHead(200, b"secret", fields, None, False, True)) == "ResponseHead(200)"


def test_an_answer_of_two_locations_is_refused():
    twice = [(b"location", b"/a"), (b"location", b"/b")]
    with pytest.raises(RemoteProtocolError) as caught:
        judge_response(b"1", b"302", b"Found", twice)
    assert caught.value.status == 502
