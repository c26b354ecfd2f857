import pytest

from mcpx.errors import RemoteProtocolError
from mcpx.protocol import http1_llhttp


def test_llhttp_refuses_by_itself_what_the_grammar_would():
    parser = http1_llhttp.RequestParser(max_header_bytes=999, max_header_count=9, max_body_bytes=9)
    for raw in (
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5,5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            parser._fields(raw)
        assert caught.value.status == 400


def test_llhttp_refuses_an_answer_with_502():
    parser = http1_llhttp.ResponseParser(max_header_bytes=999, max_header_count=9)
    with pytest.raises(RemoteProtocolError) as caught:
        parser._fields(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
    assert caught.value.status == 502


def test_an_answer_that_offers_an_upgrade_is_read():
    parser = http1_llhttp.ResponseParser(max_header_bytes=999, max_header_count=9)
    raw = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"
    assert parser._fields(raw) == [(b"connection", b"upgrade"), (b"upgrade", b"a")]
