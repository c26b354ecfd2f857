"""A gateway in this process, on a real socket, in front of recorded upstreams."""

import contextlib
import json
from pathlib import Path

import trio
import yaml

from mcpx.app import App
from support.client import Client
from support.recorder import Recorder


class Gateway:
    """A running gateway; ``upstream`` is the first server behind it, called ``demo``."""

    def __init__(self, app, address, upstream, upstreams, path, audit_path):
        self.app = app
        self.address = address
        host, _, port = address.rpartition(":")
        self.host, self.port = host, int(port)
        self.upstream = upstream
        self.upstreams = upstreams
        self.path = path
        self._audit_path = audit_path

    async def connect(self):
        stream = await trio.open_tcp_stream(self.host, self.port)
        return Client(stream, self.address)

    async def post(self, body, path="/mcp/demo", headers=()):
        async with await self.connect() as client:
            return await client.post(body, path, headers)

    async def get(self, path, headers=()):
        async with await self.connect() as client:
            return await client.get(path, headers)

    async def request(self, method, path, body=None, headers=()):
        async with await self.connect() as client:
            return await client.request(method, path, body, headers)

    async def reload(self, config):
        write(self.path, config, self.upstreams, self._audit_path)
        return await self.app.reload("a test")

    async def audit(self, at_least=0):
        """Every audit line so far; a line is made just after its answer has left."""
        with trio.fail_after(5):
            while True:
                await self.app.state.audit.flush()
                path = Path(self._audit_path)
                lines = path.read_text().splitlines() if path.exists() else []
                if len(lines) >= at_least:
                    return [json.loads(line) for line in lines]
                await trio.sleep(0.01)

    async def metrics(self, headers=()):
        response = await self.get("/metrics", headers)
        return response.body.decode()


def write(path, config, upstreams, audit_path):
    config = dict(config or {})
    config.setdefault("listen", "127.0.0.1:0")
    config.setdefault("audit", {"enabled": True, "output": "file", "path": str(audit_path)})
    servers = []
    for server in config.get("servers", [{}]):
        server = dict(server)
        server.setdefault("name", "demo")
        if "url" not in server and server.get("transport") != "stdio":
            server["url"] = upstreams[server["name"]].url
        servers.append(server)
    config["servers"] = servers
    Path(path).write_text(yaml.safe_dump(config, sort_keys=False))


@contextlib.asynccontextmanager
async def running(tmp_path, config=None, environ=None, names=("demo",)):
    """A gateway with ``config`` (servers without a URL get a recorder's)."""
    path, audit_path = tmp_path / "mcpx.yaml", tmp_path / "audit.jsonl"
    async with trio.open_nursery() as nursery:
        upstreams = {}
        wanted = {server.get("name", "demo") for server in (config or {}).get("servers", [{}])}
        for name in [*names, *sorted(wanted - set(names))]:
            upstreams[name] = await nursery.start(Recorder().run)
        write(path, config, upstreams, audit_path)
        app = App(str(path), environ or {})
        address = await nursery.start(app.run)
        first = upstreams[names[0]]
        yield Gateway(app, address, first, upstreams, path, audit_path)
        app.stop()
        app.stop()
        nursery.cancel_scope.cancel()
