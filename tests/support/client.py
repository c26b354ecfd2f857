"""A client that says exactly what a test tells it to, byte for byte."""

import json

import h11
import trio


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name):
        values = self.all(name)
        return values[0] if values else None

    def all(self, name):
        return [value.decode() for key, value in self.headers if key == name.lower().encode()]

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


def message(method, params=None, id=1):
    value = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        value["id"] = id
    if params is not None:
        value["params"] = params
    return value


def call(tool, arguments=None, id=1):
    return message("tools/call", {"name": tool, "arguments": arguments or {}}, id)


class Client:
    """One connection to the gateway."""

    def __init__(self, stream, host):
        self.stream = stream
        self.host = host
        self._parser = h11.Connection(h11.CLIENT)

    async def aclose(self):
        await trio.aclose_forcefully(self.stream)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.aclose()

    async def raw(self, data):
        await self.stream.send_all(data)

    async def post(self, body, path="/mcp/demo", headers=(), **kwargs):
        return await self.request("POST", path, body, headers, **kwargs)

    async def get(self, path, headers=()):
        return await self.request("GET", path, None, headers)

    def render(self, method, path, body=None, headers=()):
        """The request's bytes. A header given here replaces the usual one."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        given = {name.lower() for name, _ in headers}
        usual = [("Host", self.host)]
        if body is not None:
            usual += [
                ("Content-Type", "application/json"),
                ("Accept", "application/json, text/event-stream"),
                ("Content-Length", str(len(body))),
            ]
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in usual if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in headers if value is not None]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")

    async def request(self, method, path, body=None, headers=()):
        await self.raw(self.render(method, path, body, headers))
        return await self.response(method)

    def _expect(self, method):
        # h11 wants to have sent the request whose answer it reads.
        self._parser = h11.Connection(h11.CLIENT)
        self._parser.send(
            h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")])
        )
        self._parser.send(h11.EndOfMessage())

    async def head(self, method="POST"):
        """The head of an answer; its body is read with ``chunk``."""
        rest = self._parser.trailing_data[0]
        self._expect(method)
        if rest:
            self._parser.receive_data(rest)
        event = await self._event()
        assert isinstance(event, h11.Response), event
        return Response(event.status_code, list(event.headers), b"")

    async def chunk(self):
        """The next bytes of the body; none at its end. Raises when it is cut."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def response(self, method="POST"):
        response = await self.head(method)
        while data := await self.chunk():
            response.body += data
        return response

    async def _event(self):
        while True:
            event = self._parser.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._parser.receive_data(await self.stream.receive_some(65536))

    async def ends(self):
        """Read until the gateway closes; what came."""
        data = b""
        try:
            while more := await self.stream.receive_some(65536):
                data += more
        except trio.BrokenResourceError:
            pass
        return data
