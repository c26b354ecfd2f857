import pytest

from mcpx.errors import RemoteProtocolError
from mcpx.protocol import http1_h11


def test_h11_refuses_by_itself_what_the_grammar_would():
    parser = http1_h11.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    for raw in (
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            parser._fields(raw)
        assert caught.value.status == 400


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\nX\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_h11_refuses_an_answer_with_502(raw):
    parser = http1_h11.ResponseParser(max_header_bytes=999, max_header_count=9)
    with pytest.raises(RemoteProtocolError) as caught:
        parser._fields(raw)
    assert caught.value.status == 502


def test_a_length_that_h11_would_repair_never_reaches_it():
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"
    parser = http1_h11.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    assert (b"content-length", b"5") in parser._fields(raw)
    with pytest.raises(RemoteProtocolError):
        parser.feed(raw)
