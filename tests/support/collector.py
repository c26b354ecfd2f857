"""A collector of spans: takes OTLP over HTTP, and answers as it is told.

It reads with the standard library's server and with the protocol's own protobuf classes,
neither of which the gateway has a part in.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Taken:
    """One export as it arrived."""

    def __init__(self, path, headers, body, connection):
        self.path = path
        self.headers = {name.lower(): value for name, value in headers}
        self.message = ExportTraceServiceRequest.FromString(body)
        self.connection = connection

    @property
    def resource(self):
        (found,) = self.message.resource_spans
        return attributes(found.resource.attributes)

    @property
    def spans(self):
        return [
            span
            for resource in self.message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector:
    """``answers`` are given in their order, the last one for ever: a status, or a function
    that writes the answer itself with the handler."""

    def __init__(self, *answers, tls=None):
        self.taken = []
        self.connections = 0
        self.arrived = threading.Event()
        self._answers = list(answers) or [200]
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def setup(self):
                super().setup()
                collector.connections += 1
                self.number = collector.connections

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                taken = Taken(self.path, self.headers.items(), body, self.number)
                collector.taken.append(taken)
                collector.arrived.set()
                answers = collector._answers
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if callable(answer):
                    answer(self)
                    return
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("location", f"http://{collector.address}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def address(self):
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self):
        return [span for taken in self.taken for span in taken.spans]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
