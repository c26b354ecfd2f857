import os
import subprocess
import sys

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.errors import LocalProtocolError
from mcpx.protocol import http1, http1_h11, http1_llhttp


def test_the_parser_is_chosen_by_the_environment():
    assert http1.backend({}) == "llhttp"
    assert http1.backend({"MCPX_NO_EXTENSIONS": "0"}) == "llhttp"
    assert http1.backend({"MCPX_NO_EXTENSIONS": "1"}) == "h11"


def test_without_httptools_the_parser_is_h11(monkeypatch):
    monkeypatch.setattr(http1, "find_spec", lambda name: None)
    assert http1.backend({}) == "h11"


def test_the_parsers_are_those_of_the_backend():
    twin = {"llhttp": http1_llhttp, "h11": http1_h11}[http1.BACKEND]
    assert http1.backend(os.environ) == http1.BACKEND
    assert http1.RequestParser is twin.RequestParser
    assert http1.ResponseParser is twin.ResponseParser


def test_a_process_told_to_use_no_extension_never_loads_httptools():
    program = (
        "import sys; from mcpx.protocol import http1;"
        "print(http1.BACKEND, http1.RequestParser.__module__, 'httptools' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MCPX_NO_EXTENSIONS": "1", "MCPX_REQUIRE_EXTENSIONS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["h11", "mcpx.protocol.http1_h11", "False"]


def test_an_answers_head_says_how_its_body_is_framed():
    fields = [(b"content-type", b"a/b"), (b"x", b"")]
    line = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\nx: \r\n"
    head = http1.response_head
    assert head(200, fields, length=5, chunked=False, close=False) == (
        line + b"content-length: 5\r\n\r\n"
    )
    assert head(200, fields, length=None, chunked=True, close=True) == (
        line + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert head(200, fields, length=None, chunked=False, close=True) == (
        line + b"connection: close\r\n\r\n"
    )
    assert head(200, (), length=None, chunked=False, close=False) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert head(299, (), length=0, chunked=False, close=False) == (
        b"HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n"
    )


def test_an_answer_that_has_no_body_says_no_length():
    head = http1.response_head(204, (), length=0, chunked=False, close=False)
    assert head == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert http1.response_head(100, (), length=None, chunked=False, close=False) == (
        b"HTTP/1.1 100 Continue\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("status", "length", "chunked"),
    [
        (200, 5, True),
        (204, 5, False),
        (204, None, True),
        (103, None, True),
        (200, -1, False),
        (99, None, False),
        (600, None, False),
    ],
)
def test_an_answer_that_can_not_be_framed_so_is_not_written(status, length, chunked):
    with pytest.raises(LocalProtocolError):
        http1.response_head(status, (), length=length, chunked=chunked, close=False)


BAD_FIELDS = [
    (b"x", b"a\r\nset-cookie: b"),
    (b"x", b"a\r\n"),
    (b"x", b"\r\n\r\nbody"),
    (b"x", b"a\nb: c"),
    (b"x", b"a\rb"),
    (b"x", b"a\0b"),
    (b"x", b"a\x7fb"),
    (b"x", b"a\x1bb"),
    (b"x\r\ny", b"a"),
    (b"x: a\r\ny", b"b"),
    (b"x y", b"a"),
    # To a reader it would be a shorter name.
    (b"x: y", b"a"),
    (b"", b"a"),
    (b"x\xe9", b"a"),
    (b"content-length", b"5"),
    (b"Content-Length", b"5"),
    (b"transfer-encoding", b"chunked"),
    (b"connection", b"close"),
]


@pytest.mark.parametrize("field", BAD_FIELDS)
@pytest.mark.parametrize("before", [[], [(b"host", b"a")]])
def test_a_field_that_would_leave_its_line_is_not_written(field, before):
    with pytest.raises(LocalProtocolError):
        http1.response_head(200, [*before, field], length=0, chunked=False, close=False)
    with pytest.raises(LocalProtocolError):
        http1.request_head("POST", b"/", [*before, field, (b"y", b"z")], length=0)


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_a_head_that_is_written_holds_the_fields_it_was_given_and_no_others(name, value):
    try:
        head = http1.response_head(200, [(name, value)], length=0, chunked=False, close=False)
    except LocalProtocolError:
        return
    parser = http1_h11.ResponseParser(max_header_bytes=999, max_header_count=9)
    parser.expect("GET")
    parser.feed(head)
    expected = [(name.lower(), value.strip(b" \t")), (b"content-length", b"0")]
    assert parser.head.headers == expected


def test_a_requests_head_is_written_and_read_back(impl):
    fields = [(b"host", b"a:1"), (b"accept", b"text/event-stream, application/json")]
    head = http1.request_head("POST", b"/mcp?x={y}", fields, length=2)
    assert head == (
        b"POST /mcp?x={y} HTTP/1.1\r\nhost: a:1\r\n"
        b"accept: text/event-stream, application/json\r\ncontent-length: 2\r\n\r\n"
    )
    parser = impl.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    parser.feed(http1.request_head("POST", b"/mcp?x=y", fields, length=2) + b"ab")
    read, body = parser.take()
    assert (read.method, read.target, body) == ("POST", b"/mcp?x=y", b"ab")
    assert read.headers == [*fields, (b"content-length", b"2")]
    assert http1.request_head("GET", b"/", fields[:1], length=None) == (
        b"GET / HTTP/1.1\r\nhost: a:1\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GE T", b"/"),
        ("", b"/"),
        ("GET\r\nX: y", b"/"),
        ("GÉT", b"/"),
        ("GET", b""),
        ("GET", b"mcp"),
        ("GET", b"http://a/"),
        ("GET", b"/a b"),
        ("GET", b"/ HTTP/1.1\r\nx: y\r\nz:"),
        ("GET", b"/\xff"),
        ("GET", b"/\0"),
    ],
)
def test_a_request_line_that_can_not_be_read_back_is_not_written(method, target):
    with pytest.raises(LocalProtocolError):
        http1.request_head(method, target, [(b"host", b"a")], length=None)


def test_a_negative_length_is_not_written():
    with pytest.raises(LocalProtocolError):
        http1.request_head("GET", b"/", [(b"host", b"a")], length=-1)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_chunks_are_read_back_by_both_libraries(parts):
    text = b"".join(http1.chunk(part) for part in parts) + http1.LAST_CHUNK
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + text)
    connection.next_event()
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        body += event.data
    assert body == b"".join(parts)

    class Protocol:
        body = b""

        def on_body(self, data):
            self.body += data

    protocol = Protocol()
    httptools.HttpRequestParser(protocol).feed_data(head + text)
    assert protocol.body == b"".join(parts)


def test_an_empty_chunk_is_not_written():
    with pytest.raises(LocalProtocolError):
        http1.chunk(b"")
