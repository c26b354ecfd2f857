"""Exchanges for single steps of the pipeline."""

import json

import pytest
import trio
import yaml

from mcpx.config.load import load_snapshot
from mcpx.gateway.exchange import Exchange
from mcpx.transport.deadlines import Watch
from mcpx.transport.http import Request

SERVER = {"name": "demo", "url": "http://127.0.0.1:9/mcp"}


def snapshot(config=None, generation=1):
    config = {"listen": "127.0.0.1:0", "servers": [SERVER], **(config or {})}
    return load_snapshot(
        yaml.safe_dump(config), filename="mcpx.yaml", environ={}, generation=generation
    )


class Said:
    """A reply that keeps what it was told to say."""

    def __init__(self):
        self.watch = Watch(trio.CancelScope())
        self.started = False
        self.said = []
        self.left = False

    async def answer(self, status, headers, body):
        self.started = True
        self.said.append((status, headers, body))

    def hung_up(self):
        return self.left


@pytest.fixture
def exchange():
    """``exchange(body, …)`` is a request that has just come."""

    def make(body=None, path="/mcp/demo", *, method="POST", headers=(), config=None):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        given = dict(headers)
        usual = {b"host": b"127.0.0.1:1", b"content-type": b"application/json"}
        request = Request(
            method, path.encode(), list({**usual, **given}.items()), body or b"", "192.0.2.1",
            "http",
        )  # fmt: skip
        return Exchange(request, Said(), snapshot(config), 0.0)

    return make
