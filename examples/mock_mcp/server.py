"""The mock server's HTTP side: POST a message to any path, GET says that it lives.

Made for a desk, not for the open: it binds the loopback address unless told
otherwise, and asks nobody who they are.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from examples.mock_mcp.messages import InvalidMessageError, answer

__all__ = ["MockServer", "parse_address"]

BODY_LIMIT_BYTES = 1024 * 1024
DEFAULT_HOST = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Read ``host:port`` or ``:port``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port or :port")
    return host or DEFAULT_HOST, int(port)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mock-mcp"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        self._send(HTTPStatus.OK, {"status": "ok"})

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            method, reply = answer(body)
        except InvalidMessageError as fault:
            self._send(HTTPStatus.BAD_REQUEST, fault.reply)
            return
        self.log_message("%s", ascii(method[:80])[1:-1])
        if reply is None:
            self._send(HTTPStatus.ACCEPTED, None)
        else:
            self._send(HTTPStatus.OK, reply)

    def do_DELETE(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, None)

    def _body(self) -> bytes | None:
        """The request's body; None where it was refused, with the answer sent."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            refusal = HTTPStatus.LENGTH_REQUIRED
        elif len(length) > 9 or int(length) > BODY_LIMIT_BYTES:
            refusal = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        else:
            return self.rfile.read(int(length))
        self.close_connection = True  # the body stays unread
        self._send(refusal, None)
        return None

    def _send(self, status: HTTPStatus, message: dict[str, Any] | None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """One line a message is enough; see do_POST."""

    def log_message(self, format: str, *args: Any) -> None:
        if not self.server.quiet:  # type: ignore[attr-defined]
            print("mock server:", format % args, file=sys.stderr, flush=True)


class MockServer(ThreadingHTTPServer):
    """Listens as soon as it is made; ``serve_forever()`` answers, a thread a connection.

    ``port`` is the one that it got, where 0 was asked for.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, *, quiet: bool = False) -> None:
        self.quiet = quiet
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without the name lookup that HTTPServer does, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; anything else is told with its traceback."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)
