"""The parsers of both libraries, run over the same bytes.

It is long for its tables: what is refused stands beside what is taken.
"""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mcpx.errors import LocalProtocolError, RemoteProtocolError

OK = b"POST /mcp HTTP/1.1\r\nHost: a\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"


def pieces_of(data, cuts):
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


# -- requests that are taken --------------------------------------------------


def test_a_request_comes_out_as_it_was_sent(impl, reader):
    data = (
        b"POST /mcp/a?b=c%20d HTTP/1.1\r\nHost: h:1\r\nACCEPT:text/event-stream \t\r\n"
        b"X-Empty:\r\nX-Text: caf\xc3\xa9\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert reader.requests(impl, [data]) == (
        [
            (
                "POST",
                b"/mcp/a?b=c%20d",
                [
                    (b"host", b"h:1"),
                    (b"accept", b"text/event-stream"),
                    (b"x-empty", b""),
                    (b"x-text", b"caf\xc3\xa9"),
                    (b"content-length", b"4"),
                ],
                (1, 1),
                True,
                4,
                False,
                False,
                b"body",
            )
        ],
        None,
    )


def test_a_chunked_body_comes_out_whole_and_its_trailers_are_dropped(impl, reader):
    data = OK + (
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
    )
    found, status = reader.requests(impl, [data])
    assert status is None
    assert found[0][2:] == (
        [(b"host", b"a"), (b"transfer-encoding", b"chunked")],
        (1, 1),
        True,
        None,
        True,
        False,
        b"abc0123456789",
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_request_without_framing_has_no_body(impl, reader, method):
    found, status = reader.requests(impl, [b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode()])
    assert status is None
    assert (found[0][0], found[0][-1]) == (method, b"")


def test_pipelined_requests_queue_up_in_order(impl, reader):
    one = OK + b"Content-Length: 2\r\n\r\n"
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
    data = one + b"aa" + b"\r\n" + chunked + one + b"bb" + b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    found, status = reader.requests(impl, [data])
    assert status is None
    assert [request[-1] for request in found] == [b"aa", b"c", b"bb", b""]


def test_a_whole_request_before_a_malformed_one_is_still_given_out(impl, reader):
    good = OK + b"Content-Length: 2\r\n\r\nok"
    found, status = reader.requests(impl, [good + b"nonsense\r\n\r\n"])
    assert ([request[-1] for request in found], status) == ([b"ok"], 400)


def test_a_fault_behind_a_whole_request_is_told_and_then_raised(impl):
    parser = impl.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET  / HTTP/1.1\r\n\r\n")
    assert parser.fault == ("the request line is malformed", 400)
    assert not parser.idle
    assert parser.take() is not None
    assert parser.take() is None
    for call in (lambda: parser.feed(b"GET / HTTP/1.1\r\n"), parser.eof):
        with pytest.raises(RemoteProtocolError) as caught:
            call()
        assert caught.value.status == 400


def test_the_head_is_known_before_the_body_and_gone_after_it(impl):
    parser = impl.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    assert parser.idle
    parser.feed(b"P")
    assert not parser.idle
    assert parser.head is None
    parser.feed(OK[1:] + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
    assert parser.head.content_length == 3
    assert parser.head.expect_continue
    assert parser.take() is None
    parser.feed(b"ab")
    parser.feed(b"c")
    assert parser.head is None
    assert parser.idle
    assert parser.take()[1] == b"abc"
    parser.eof()


def test_what_was_fed_may_be_overwritten_afterwards(impl):
    parser = impl.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    data = bytearray(OK + b"Content-Length: 3\r\n\r\nabc")
    for index in range(len(data)):
        parser.feed(memoryview(data)[index : index + 1])
        data[index] = 0
    head, body = parser.take()
    assert (head.target, body) == (b"/mcp", b"abc")


@pytest.mark.parametrize(
    ("fields", "version", "keep_alive"),
    [
        (b"", b"1.1", True),
        (b"Connection: keep-alive\r\n", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", False),
        (b"Connection: Close\r\n", b"1.1", False),
        (b"Connection: x, CLOSE ,y\r\n", b"1.1", False),
        (b"Connection: close\r\nConnection: keep-alive\r\n", b"1.1", False),
        (b"Connection: keep-alive\r\nConnection: close\r\n", b"1.1", False),
        (b"Connection: closed\r\n", b"1.1", True),
        (b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"1.1", True),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", False),
    ],
)
def test_the_connection_is_kept_only_as_http_1_1_says(impl, reader, fields, version, keep_alive):
    data = b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, fields)
    found, status = reader.requests(impl, [data])
    assert status is None
    assert found[0][4] is keep_alive


def test_bytes_after_a_request_that_closes_are_dropped(impl, reader):
    data = OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx"
    found, status = reader.requests(impl, [data + b"nonsense", b"GET / HTTP/1.1\r\n\r\n"])
    assert (len(found), status) == (1, None)


def test_an_offer_to_upgrade_is_passed_over_and_the_body_is_the_bodys(impl, reader):
    data = OK + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc"
    found, status = reader.requests(impl, [data + data])
    assert status is None
    assert [request[-1] for request in found] == [b"abc", b"abc"]


def test_http_1_0_needs_no_host_and_its_expectation_is_ignored(impl, reader):
    data = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
    found, status = reader.requests(impl, [data])
    assert status is None
    assert (found[0][3], found[0][7], found[0][8]) == ((1, 0), False, b"x")


def test_a_few_empty_lines_before_a_request_are_dropped(impl, reader):
    data = b"\r\n" * 4 + OK + b"\r\n"
    assert reader.requests(impl, [data])[1] is None
    assert reader.requests(impl, [b"\r\n" + data])[1] == 400
    assert reader.requests(impl, [bytes([byte]) for byte in b"\r\n" + data])[1] == 400


def test_empty_lines_alone_are_no_request(impl, reader):
    assert reader.requests(impl, [b"\r\n"]) == ([], None)
    assert reader.requests(impl, [b"\r"]) == ([], 400)


# -- requests that are refused ------------------------------------------------

TE = b"Transfer-Encoding: chunked\r\n"
HOSTILE = {
    "length and coding": (OK + b"Content-Length: 1\r\n" + TE + b"\r\n0\r\n\r\n", 400),
    "coding and length": (OK + TE + b"Content-Length: 1\r\n\r\n0\r\n\r\n", 400),
    "two equal lengths": (OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
    "length +5": (OK + b"Content-Length: +5\r\n\r\nxxxxx", 400),
    "length -5": (OK + b"Content-Length: -5\r\n\r\nxxxxx", 400),
    "length 5,5": (OK + b"Content-Length: 5,5\r\n\r\nxxxxx", 400),
    "length 5, 5": (OK + b"Content-Length: 5, 5\r\n\r\nxxxxx", 400),
    "length with two spaces": (OK + b"Content-Length:  5\r\n\r\nxxxxx", 400),
    "length with a tab": (OK + b"Content-Length:\t5\r\n\r\nxxxxx", 400),
    "length with a space after": (OK + b"Content-Length: 5 \r\n\r\nxxxxx", 400),
    "length 0x5": (OK + b"Content-Length: 0x5\r\n\r\nxxxxx", 400),
    "length 5_0": (OK + b"Content-Length: 1_0\r\n\r\nxxxxx", 400),
    "length in other digits": (OK + b"Content-Length: \xd9\xa5\r\n\r\nxxxxx", 400),
    "length without a value": (OK + b"Content-Length:\r\n\r\n", 400),
    "length past 64 bits": (OK + b"Content-Length: 18446744073709551617\r\n\r\nx", 400),
    "length of 18 digits": (OK + b"Content-Length: 999999999999999999\r\n\r\nx", 413),
    "coding gzip": (OK + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "coding gzip, chunked": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding chunked, identity": (OK + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    "coding chunked twice": (OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (OK + TE + TE + b"\r\n0\r\n\r\n", 400),
    "coding identity": (OK + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "coding Chunked": (OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 400),
    "coding xchunked": (OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "coding behind a vertical tab": (OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
    "coding behind a tab": (OK + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 400),
    "coding without a value": (OK + b"Transfer-Encoding:\r\n\r\n", 400),
    "coding in quotes": (OK + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "coding in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: a\r\n" + TE + b"\r\n0\r\n\r\n", 400),
    "folded line": (OK + b"X: a\r\n b\r\n\r\n", 400),
    "folded line, tab": (OK + b"X: a\r\n\tb\r\n\r\n", 400),
    "folded length": (OK + b"Content-Length:\r\n 5\r\n\r\nxxxxx", 400),
    "fold before the first field": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare LF after a field": (OK + b"X: a\nY: b\r\n\r\n", 400),
    "bare LFs at the end": (b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
    "LF CR LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n\r\n", 400),
    "bare CR in a value": (OK + b"X: a\rY: b\r\n\r\n", 400),
    "bare CR after the request line": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    "bare CR before CR LF": (OK + b"X: a\r\r\n\r\n", 400),
    "space before the colon": (OK + b"X : a\r\n\r\n", 400),
    "tab before the colon": (OK + b"X\t: a\r\n\r\n", 400),
    "space before the length's colon": (OK + b"Content-Length : 5\r\n\r\nxxxxx", 400),
    "space before a name": (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n  Z: a\r\n\r\n", 400),
    "no colon": (OK + b"X\r\n\r\n", 400),
    "no name": (OK + b": a\r\n\r\n", 400),
    "NUL in a value": (OK + b"X: a\0b\r\n\r\n", 400),
    "control in a value": (OK + b"X: a\x1fb\r\n\r\n", 400),
    "DEL in a value": (OK + b"X: a\x7fb\r\n\r\n", 400),
    "NUL in a name": (OK + b"X\0: a\r\n\r\n", 400),
    "non-ASCII in a name": (OK + b"X\xc3\xa9: a\r\n\r\n", 400),
    "brackets in a name": (OK + b"X[]: a\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "control in the target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "DEL in the target": (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "non-ASCII in the target": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "fragment in the target": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "backslash in the target": (b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "quote in the target": (b'GET /a"b HTTP/1.1\r\nHost: a\r\n\r\n', 400),
    "absolute target": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "authority as target": (b"GET b:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk as target": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "relative target": (b"GET mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "empty target": (b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel": (b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", 405),
    "trace": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "method in small letters": (b"post / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "method that is no token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "empty method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces in the request line": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space after the version": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "http/1.1": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "another protocol": (b"GET / RTSP/1.1\r\nHost: a\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
    "expectation": (OK + b"Expect: tea\r\n\r\n", 417),
    "chunk extension": (OK + TE + b"\r\n1;a=b\r\nx\r\n0\r\n\r\n", 400),
    "extension of the last chunk": (OK + TE + b"\r\n1\r\nx\r\n0;a\r\n\r\n", 400),
    "space after a chunk's size": (OK + TE + b"\r\n1 \r\nx\r\n0\r\n\r\n", 400),
    "space before a chunk's size": (OK + TE + b"\r\n 1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size 0x1": (OK + TE + b"\r\n0x1\r\nx\r\n0\r\n\r\n", 400),
    "chunk size +1": (OK + TE + b"\r\n+1\r\nx\r\n0\r\n\r\n", 400),
    "no chunk size": (OK + TE + b"\r\n\r\nx\r\n0\r\n\r\n", 400),
    "chunk size past 64 bits": (OK + TE + b"\r\n10000000000000001\r\nx\r\n0\r\n\r\n", 400),
    "chunk size of many zeros": (OK + TE + b"\r\n" + b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n", 400),
    "huge chunk size": (OK + TE + b"\r\nfffffffffffffff\r\nx", 413),
    "bare LF after a chunk's size": (OK + TE + b"\r\n1\nx\r\n0\r\n\r\n", 400),
    "bare CR after a chunk's size": (OK + TE + b"\r\n1\rx\r\n0\r\n\r\n", 400),
    "bare LF after a chunk": (OK + TE + b"\r\n1\r\nx\n0\r\n\r\n", 400),
    "chunk longer than its size": (OK + TE + b"\r\n1\r\nxy\r\n0\r\n\r\n", 400),
    "malformed trailer": (OK + TE + b"\r\n0\r\nX y\r\n\r\n", 400),
    "folded trailer": (OK + TE + b"\r\n0\r\nX: y\r\n z\r\n\r\n", 400),
    "trailer with a bare LF": (OK + TE + b"\r\n0\r\nX: y\nZ: a\r\n\r\n", 400),
    "body cut short": (OK + b"Content-Length: 5\r\n\r\nxxxx", 400),
    "chunks cut short": (OK + TE + b"\r\n1\r\nx\r\n", 400),
    "head cut short": (OK, 400),
    "declared body over the limit": (OK + b"Content-Length: 10001\r\n\r\n", 413),
    "chunks over the limit": (OK + TE + b"\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 101, 413),
    "head over the limit": (OK + b"X: " + b"x" * 4096 + b"\r\n\r\n", 431),
    "head without an end": (OK + b"X: " + b"x" * 9000, 431),
    "too many fields": (OK + b"X: y\r\n" * 50 + b"\r\n", 431),
    "trailers over the limit": (OK + TE + b"\r\n0\r\n" + b"X: y\r\n" * 700 + b"\r\n", 431),
    "trailers without an end": (OK + TE + b"\r\n0\r\n" + b"X: y\r\n" * 2000, 431),
}
SINGLE = [
    b"Content-Type: application/json",
    b"Content-Encoding: identity",
    b"Authorization: Bearer x",
    b"X-API-Key: x",
    b"Mcp-Session-Id: x",
    b"MCP-Protocol-Version: 2026-07-28",
    b"Mcp-Method: ping",
    b"Mcp-Name: x",
    b"Mcp-Param-Region: x",
    b"Last-Event-ID: x",
    b"Origin: http://a",
    b"X-Request-ID: x",
    b"Expect: 100-continue",
]
for line in SINGLE:
    HOSTILE[f"twice {line.decode()}"] = (
        OK + line + b"\r\nAccept: */*\r\n" + line.swapcase() + b"\r\n\r\n",
        400,
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_however_it_is_cut(impl, reader, name):
    data, status = HOSTILE[name]
    assert reader.requests(impl, [data]) == ([], status)
    step = max(1, len(data) // 200)
    for cut in range(0, len(data), step):
        assert reader.requests(impl, [data[:cut], data[cut:]]) == ([], status)
    if len(data) < 1000:
        assert reader.requests(impl, [bytes([byte]) for byte in data]) == ([], status)


@pytest.mark.parametrize("name", ["Accept", "Cookie", "X-Forwarded-For", "Via"])
def test_a_field_that_is_a_list_may_stand_twice(impl, reader, name):
    line = name.encode() + b": a\r\n"
    found, status = reader.requests(impl, [OK + line + line + b"\r\n"])
    assert status is None
    assert len(found[0][2]) == 3


def test_the_bounds_are_exact(impl, reader):
    data = OK + b"X: 1\r\nContent-Length: 3\r\n\r\nabc"
    head = len(data) - 3
    assert reader.requests(impl, [data], head=head, count=3, body=3)[1] is None
    assert reader.requests(impl, [bytes([b]) for b in data], head=head, count=3, body=3)[1] is None
    assert reader.requests(impl, [data], head=head - 1)[1] == 431
    assert reader.requests(impl, [data], count=2)[1] == 431
    assert reader.requests(impl, [data], body=2)[1] == 413


def test_a_request_that_comes_again_is_read_as_at_first_however_it_is_cut(impl, reader):
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    closing = head.replace(b"Host", b"Connection: close\r\nHost")
    bare = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    empty = head.replace(b": 3", b": 0")
    for stream in (
        [head + b"abc", head + b"def", b"\r\n" + head + b"ghi", head + b"jkl"],
        [bare, bare, head + b"abc", bare, bare],
        [empty, empty, empty, head + b"abc", empty],
        [head + b"abc", closing + b"def", head + b"ghi"],
        [head + b"abc", head + b"ab"],
        [head + b"abc", head.replace(b"/a", b"/b") + b"def", head + b"ghi"],
    ):
        data = b"".join(stream)
        alone = []
        for each in stream:
            found, status = reader.requests(impl, [each])
            alone += found
            if b"close" in each:
                break
        assert reader.requests(impl, stream) == (alone, status)
        assert reader.requests(impl, [data]) == (alone, status)
        assert reader.requests(impl, [data[at : at + 1] for at in range(len(data))]) == (
            alone,
            status,
        )
        for at in range(1, len(data)):
            assert reader.requests(impl, [data[:at], data[at:]]) == (alone, status)


def test_nothing_of_one_request_is_seen_in_the_next_of_the_same_head(impl):
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    parser = impl.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    data = bytearray(head + b"abc")
    parser.feed(memoryview(data))
    data[-3:] = b"def"
    parser.feed(memoryview(data))
    data[:] = b"x" * len(data)
    bodies = [parser.take()[1], parser.take()[1]]
    assert bodies == [b"abc", b"def"]
    assert [type(body) for body in bodies] == [bytes, bytes]
    assert parser.idle
    parser.eof()


def test_an_answer_that_comes_again_is_read_as_at_first_however_it_is_cut(impl):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    for at in range(1, len(head) + 3):
        parser = impl.ResponseParser(max_header_bytes=999, max_header_count=9)
        for body in (b"abc", b"def", b"ghi"):
            data = bytearray(head + body)
            parser.expect("POST")
            parser.feed(memoryview(data)[:at])
            assert not parser.complete
            parser.feed(memoryview(data)[at:])
            data[:] = b"x" * len(data)
            assert (parser.head.status, parser.take_body()) == (200, body)
            assert parser.complete and parser.reusable
        parser.expect("POST")
        parser.feed(head + b"abcd")
        assert (parser.take_body(), parser.complete, parser.reusable) == (b"abc", True, False)


def test_a_head_in_single_bytes_is_searched_once(impl):
    # 2 MB byte by byte: work that grew with the square would not come to an end here.
    size = 200_000
    parser = impl.RequestParser(
        max_header_bytes=2 * size, max_header_count=9, max_body_bytes=2 * size
    )
    for byte in (OK + b"X: " + b"x" * size, b"\r\nTransfer-Encoding: chunked\r\n\r\n"):
        for index in range(len(byte)):
            parser.feed(byte[index : index + 1])
    assert parser.head.chunked
    for piece in (b"1\r\ny\r\n" * 20_000, b"0\r\nT: " + b"t" * size, b"\r\n\r\n"):
        for index in range(len(piece)):
            parser.feed(piece[index : index + 1])
    assert parser.take()[1] == b"y" * 20_000


# -- answers ------------------------------------------------------------------


def test_an_answer_comes_out_as_it_was_sent(impl, reader):
    data = ANSWER + b"Content-Type: a/b \r\nX:\r\nContent-Length: 4\r\n\r\nbody"
    fields = [(b"content-type", b"a/b"), (b"x", b""), (b"content-length", b"4")]
    assert reader.answer(impl, [data]) == (200, b"OK", fields, 4, b"body", True, True)


@pytest.mark.parametrize(
    ("data", "method", "body", "reusable"),
    [
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "GET", b"ab", True),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nT: x\r\n\r\n", "GET", b"", True),
        (ANSWER + b"\r\nuntil the end", "GET", b"until the end", False),
        (ANSWER + b"\r\n", "GET", b"", False),
        (ANSWER + b"Content-Length: 0\r\n\r\n", "POST", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET", b"", True),
        (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", "POST", b"", True),
        (b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST", b"", True),
        (b"HTTP/1.1 202 Accepted\r\n\r\n", "POST", b"", False),
        (ANSWER + b"Content-Length: 9\r\n\r\n", "HEAD", b"", True),
        (ANSWER + b"Transfer-Encoding: chunked\r\n\r\n", "HEAD", b"", True),
        (ANSWER + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", "GET", b"x", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "GET", b"x", False),
        (b"HTTP/1.0 200 OK\r\n\r\nx", "GET", b"x", False),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", "GET", b"x", True),
        (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx", "GET", b"x", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER + b"Content-Length: 1\r\n\r\nx", "GET", b"x", True),
        (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * 16 + ANSWER + b"\r\nx", "GET", b"x", False),
        (ANSWER + b"Content-Length: 1\r\n\r\nxsurplus", "GET", b"x", False),
        (ANSWER + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx", "GET", b"x", True),
    ],
)  # fmt: skip
def test_the_end_of_an_answer_is_found_however_it_is_cut(
    impl, reader, data, method, body, reusable
):
    whole = reader.answer(impl, [data], method=method)
    assert whole is not None
    assert whole[4:] == (body, True, reusable)
    for cut in range(len(data)):
        assert reader.answer(impl, [data[:cut], data[cut:]], method=method) == whole
    assert reader.answer(impl, [bytes([byte]) for byte in data], method=method) == whole


HOSTILE_ANSWERS = {
    "length and coding": ANSWER + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": ANSWER + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "length +1": ANSWER + b"Content-Length: +1\r\n\r\nx",
    "length 1,1": ANSWER + b"Content-Length: 1,1\r\n\r\nx",
    "coding gzip": ANSWER + b"Transfer-Encoding: gzip\r\n\r\nx",
    "coding gzip, chunked": ANSWER + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded line": ANSWER + b"X: a\r\n b\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nX: a\r\n\r\n",
    "bare LFs": b"HTTP/1.1 200 OK\n\n",
    "bare CR": ANSWER + b"X: a\rb\r\n\r\n",
    "NUL": ANSWER + b"X: a\0b\r\n\r\n",
    "control in the reason": b"HTTP/1.1 200 O\x01K\r\n\r\n",
    "no name": ANSWER + b": a\r\n\r\n",
    "two types": ANSWER + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n",
    "two sessions": ANSWER + b"Mcp-Session-Id: a\r\nMCP-Session-ID: b\r\n\r\n",
    "status 099": b"HTTP/1.1 099 X\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\n\r\n",
    "status 20": b"HTTP/1.1 20 X\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 X\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\n\r\n",
    "empty line before": b"\r\n" + ANSWER + b"\r\n",
    "switched protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "endless informational answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
    "nothing after 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "chunk extension": ANSWER + b"Transfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
    "chunk size past 64 bits": ANSWER + b"Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx",
    "body cut short": ANSWER + b"Content-Length: 5\r\n\r\nx",
    "chunks cut short": ANSWER + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    "head cut short": ANSWER,
    "head over the limit": ANSWER + b"X: " + b"x" * 4096 + b"\r\n\r\n",
    "too many fields": ANSWER + b"X: y\r\n" * 51 + b"\r\n",
    "endless trailers": ANSWER + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ANSWERS)
def test_a_hostile_answer_is_refused_however_it_is_cut(impl, reader, name):
    data = HOSTILE_ANSWERS[name]
    assert reader.answer(impl, [data]) is None
    for cut in range(0, len(data), max(1, len(data) // 200)):
        assert reader.answer(impl, [data[:cut], data[cut:]]) is None


def response_parser(impl):
    return impl.ResponseParser(max_header_bytes=4096, max_header_count=50)


def test_a_body_is_given_out_as_it_comes_and_only_once(impl):
    parser = response_parser(impl)
    parser.expect("POST")
    assert parser.head is None
    parser.feed(ANSWER + b"Content-Length: 6\r\n\r\nab")
    assert (parser.head.status, parser.head.content_length) == (200, 6)
    assert parser.take_body() == b"ab"
    assert parser.take_body() == b""
    parser.feed(b"cd")
    parser.feed(b"ef")
    assert parser.complete
    assert parser.take_body() == b"cdef"
    assert parser.take_body() == b""


def test_one_connection_carries_many_exchanges(impl):
    parser = response_parser(impl)
    for method, data, body in (
        ("POST", ANSWER + b"Content-Length: 1\r\n\r\nx", b"x"),
        ("HEAD", ANSWER + b"Content-Length: 9\r\n\r\n", b""),
        ("POST", b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n", b"y"),
        ("GET", b"HTTP/1.1 100 C\r\n\r\n" + ANSWER + b"Content-Length: 1\r\n\r\nz", b"z"),
    ):
        parser.expect(method)
        assert (parser.head, parser.complete, parser.reusable) == (None, False, False)
        parser.feed(data)
        assert parser.take_body() == body
        assert parser.reusable


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ANSWER + b"Content-Length: 2\r\n\r\nx",
        ANSWER + b"Content-Length: 1\r\nConnection: close\r\n\r\nx",
        ANSWER + b"Content-Length: 1\r\n\r\nxy",
        ANSWER + b"\r\nx",
    ],
)
def test_a_connection_that_can_not_go_on_takes_no_further_exchange(impl, data):
    parser = response_parser(impl)
    parser.expect("GET")
    parser.feed(data)
    assert not parser.reusable
    with pytest.raises(LocalProtocolError):
        parser.expect("GET")


def test_bytes_that_nobody_asked_for_spoil_the_connection(impl):
    parser = response_parser(impl)
    parser.feed(b"HTTP/1.1 408 Timeout\r\n\r\n")
    with pytest.raises(LocalProtocolError):
        parser.expect("GET")


def test_a_malformed_answer_stays_malformed(impl):
    parser = response_parser(impl)
    parser.expect("GET")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            parser.feed(b"nonsense\r\n\r\n")
    with pytest.raises(RemoteProtocolError):
        parser.eof()
    with pytest.raises(LocalProtocolError):
        parser.expect("GET")


def test_an_end_before_any_byte_of_an_answer_is_left_to_the_caller(impl):
    parser = response_parser(impl)
    parser.expect("GET")
    parser.eof()
    assert parser.head is None
    assert not parser.complete


# -- both parsers, any bytes --------------------------------------------------

names = st.sampled_from(
    [b"X", b"Accept", b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Upgrade",
     b"Expect", b"Mcp-Name", b"Content-Type", b"Proxy-Connection"]
)  # fmt: skip
values = st.one_of(
    st.sampled_from(
        [b"", b"a", b"chunked", b"Chunked", b"5", b"0", b"close", b"keep-alive", b"upgrade, close",
         b"100-continue", b"a, b", b"\xff", b"h2c", b"5, 5"]
    ),
    st.binary(max_size=6),
)  # fmt: skip
field = st.builds(
    lambda name, colon, value, after, end: name + colon + value + after + end,
    names,
    st.sampled_from([b": "] * 6 + [b":", b" :", b":\t"]),
    values,
    st.sampled_from([b""] * 6 + [b" "]),
    st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\n "]),
)
body = st.one_of(
    st.just(b""),
    st.just(b"hello"),
    st.just(b"5\r\nhello\r\n0\r\n\r\n"),
    st.just(b"2\r\nab\r\n3\r\ncde\r\n0\r\nX: y\r\n\r\n"),
    st.binary(max_size=20),
)
request = st.builds(
    lambda line, fields, end, body: line + b"\r\nHost: a\r\n" + b"".join(fields) + end + body,
    st.builds(
        lambda method, target, version: method + b" " + target + b" " + version,
        st.sampled_from([b"GET", b"POST", b"DELETE", b"OPTIONS", b"CONNECT", b"M-SEARCH", b"X"]),
        st.one_of(
            st.sampled_from([b"/", b"/a?b", b"*", b"http://x/", b"//a", b"/%zz"]),
            st.binary(min_size=1, max_size=4).map(lambda raw: b"/" + raw),
        ),
        st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.3"]),
    ),
    st.lists(field, max_size=4),
    st.just(b"\r\n"),
    body,
)
answer = st.builds(
    lambda line, fields, body: line + b"\r\n" + b"".join(fields) + b"\r\n" + body,
    st.builds(
        lambda version, status, reason: version + b" " + status + reason,
        st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0"]),
        st.sampled_from([b"200"] * 4 + [b"100", b"101", b"202", b"204", b"304", b"404", b"599", b"700"]),
        st.one_of(st.sampled_from([b"", b" ", b" OK"]), st.binary(max_size=3).map(lambda raw: b" " + raw)),
    ),
    st.lists(field, max_size=4),
    body,
)  # fmt: skip


plain_fields = st.lists(
    st.sampled_from(
        [b"Accept: a/b\r\n", b"Connection: keep-alive\r\n", b"X:\t y z \r\n", b"Mcp-Name: a\r\n",
         b"Upgrade: h2c\r\n", b"Connection: Upgrade\r\n", b"Proxy-Connection: close\r\n",
         b"Expect: 100-continue\r\n", b"Keep-Alive: 5\r\n", b"X-Text: \xff\r\n"]
    ),
    max_size=3,
    unique=True,
).map(b"".join)  # fmt: skip
framed = st.one_of(
    st.just(b"\r\n"),
    st.binary(max_size=12).map(lambda raw: b"Content-Length: %d\r\n\r\n%b" % (len(raw), raw)),
    st.lists(st.binary(min_size=1, max_size=12), max_size=3).map(
        lambda chunks: (
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
            + b"0\r\n\r\n"
        )
    ),
)
sound_request = st.builds(
    lambda line, fields, framed: line + b" HTTP/1.1\r\nHost: a\r\n" + fields + framed,
    st.sampled_from([b"GET /", b"POST /mcp/a?b=c", b"DELETE /%41", b"OPTIONS //x", b"PUT /;a:@"]),
    plain_fields,
    framed,
)
sound_answer = st.builds(
    lambda line, fields, framed: line + b"\r\n" + fields + framed,
    st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.1 202", b"HTTP/1.0 404 ", b"HTTP/1.1 100 C", b"HTTP/1.1 304 \xff"]
    ),
    plain_fields,
    framed,
)  # fmt: skip
requests = st.one_of(sound_request, sound_request, request)
answers = st.one_of(sound_answer, sound_answer, answer)


@st.composite
def mutated(draw, source):
    """A message, or several, with a few bytes changed, dropped or doubled."""
    data = bytearray(b"".join(draw(st.lists(source, min_size=1, max_size=2))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            data[at] = draw(st.sampled_from(b"\0\t\n\r :;,/0159aX\x7f\x80\xff"))
        elif kind == 1:
            del data[at]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


calm = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(data=mutated(requests), cuts=st.lists(st.integers(0, 10_000), max_size=6))
@example(data=OK + b"Content-Length: 5, 5\r\n\r\nhello", cuts=[])
@calm
def test_both_parsers_say_the_same_of_any_requests_at_any_cuts(reader, data, cuts):
    pieces = pieces_of(data, cuts)
    results = [reader.requests(twin, pieces, body=64) for twin in reader.twins]
    results += [reader.requests(reader.twins[0], [data], body=64)]
    assert results[0] == results[1] == results[2]


@given(data=requests)
@settings(calm, max_examples=30)
def test_no_cut_of_requests_changes_what_comes_out(reader, data):
    for twin in reader.twins:
        whole = reader.requests(twin, [data], body=64)
        for cut in range(1, len(data)):
            assert reader.requests(twin, [data[:cut], data[cut:]], body=64) == whole


@given(
    data=mutated(answers),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
)
@calm
def test_both_parsers_say_the_same_of_any_answers_at_any_cuts(reader, data, method, cuts):
    pieces = pieces_of(data, cuts)
    results = [reader.answer(twin, pieces, method=method) for twin in reader.twins]
    results += [reader.answer(reader.twins[0], [data], method=method)]
    assert results[0] == results[1] == results[2]


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=3))
@calm
def test_random_bytes_raise_nothing_but_a_refusal(reader, data, cuts):
    # Bytes that were tried elsewhere are drawn too, and some of those are messages.
    pieces = pieces_of(data, cuts)
    for read in (reader.requests, reader.answer):
        one, other = (read(twin, pieces) for twin in reader.twins)
        assert one == other
