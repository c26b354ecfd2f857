import pytest

from mcpx.errors import RemoteProtocolError
from mcpx.protocol import http1_h11, http1_llhttp

TWINS = {"llhttp": http1_llhttp, "h11": http1_h11}


@pytest.fixture(params=list(TWINS))
def impl(request):
    """Each parser in turn: what holds must hold of both."""
    return TWINS[request.param]


class Reader:
    """Runs parsers over pieces and tells what came out, in values that compare."""

    twins = tuple(TWINS.values())

    @staticmethod
    def requests(impl, pieces, *, head=4096, count=50, body=10_000):
        parser = impl.RequestParser(
            max_header_bytes=head, max_header_count=count, max_body_bytes=body
        )
        found, status = [], None
        try:
            for piece in pieces:
                try:
                    parser.feed(memoryview(bytearray(piece)))
                finally:
                    while (taken := parser.take()) is not None:
                        found.append(_request(*taken))
            parser.eof()
        except RemoteProtocolError as exc:
            status = exc.status
        return found, status

    @staticmethod
    def answer(impl, pieces, *, method="POST", head=4096, count=50):
        parser = impl.ResponseParser(max_header_bytes=head, max_header_count=count)
        parser.expect(method)
        body = b""
        try:
            for piece in pieces:
                parser.feed(memoryview(bytearray(piece)))
                body += parser.take_body()
            reusable = parser.reusable
            parser.eof()
        except RemoteProtocolError as exc:
            assert exc.status == 502
            return None
        found = parser.head
        if found is None:
            return ()
        return (
            found.status,
            found.reason,
            found.headers,
            found.content_length,
            body,
            parser.complete,
            reusable,
        )


def _request(head, body):
    return (
        head.method,
        head.target,
        head.headers,
        head.version,
        head.keep_alive,
        head.content_length,
        head.chunked,
        head.expect_continue,
        body,
    )


@pytest.fixture
def reader():
    return Reader
