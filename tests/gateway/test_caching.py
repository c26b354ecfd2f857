"""Which calls the cache is asked about; what it does with them is told on the wire."""

import json
from types import SimpleNamespace

import msgspec
import pytest

from mcpx._speedups.frames import scan
from mcpx.config.model import Config, Duration, ServerCache
from mcpx.core.identity import ANONYMOUS
from mcpx.core.response_cache import ResponseCache
from mcpx.gateway.caching import caching_of
from mcpx.gateway.state import LARGE_BYTES

CACHE = {"tools": {"echo": {}}}


def exchange(cache=CACHE, tool="echo", headers=(), arguments=None, **params):
    body = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": arguments or {}, **params},
        }
    ).encode()
    server = SimpleNamespace(cache=msgspec.convert(cache, ServerCache))
    return SimpleNamespace(
        route=SimpleNamespace(name="demo", server=server, forward_headers=frozenset()),
        frame=scan(body),
        tool=tool,
        method="tools/call",
        request=SimpleNamespace(body=body, headers=list(headers)),
        headers=dict(headers),
        principal=ANONYMOUS,
        session=None,
        upstream_path=None,
        query=None,
        snapshot=SimpleNamespace(config=Config()),
    )


def state(read_only=()):
    tools = SimpleNamespace(read_only=set(read_only))
    return SimpleNamespace(
        cache=ResponseCache(10, 10**6, 10**5), watcher=SimpleNamespace(servers={"demo": tools})
    )


def test_a_named_tool_is_looked_up_and_another_is_not():
    assert caching_of(exchange(), state()) is not None
    assert caching_of(exchange(tool="other"), state()) is None
    without = state()
    without.cache = None
    assert caching_of(exchange(), without) is None


def test_tools_that_only_read_are_looked_up_where_that_is_on():
    on = {"read_only_tools": True}
    assert caching_of(exchange(on), state({"echo"})) is not None
    assert caching_of(exchange(on), state({"other"})) is None
    assert caching_of(exchange({}), state({"echo"})) is None


@pytest.mark.parametrize(
    ("accept", "looked_up"),
    [
        (None, True),
        (b"application/json, text/event-stream", True),
        (b"*/*", True),
        (b"Application/JSON;q=0.5", True),
        (b"text/event-stream", False),
        (b"", False),
    ],
)
def test_only_who_takes_json_is_given_it(accept, looked_up):
    headers = [] if accept is None else [(b"accept", accept)]
    assert (caching_of(exchange(headers=headers), state()) is not None) is looked_up


def test_large_calls_and_calls_with_more_to_say_go_by_the_cache():
    assert caching_of(exchange(arguments={"a": "x" * LARGE_BYTES}), state()) is None
    assert caching_of(exchange(task={"ttl": 1}), state()) is None
    assert caching_of(exchange(inputResponses={}), state()) is None


def test_a_time_of_nothing_keeps_nothing():
    assert caching_of(exchange({"tools": {"echo": {"ttl": Duration(0)}}}), state()) is None


def test_trace_headers_and_the_like_make_no_difference():
    def own(*headers):
        found = caching_of(exchange(headers=headers), state())
        assert found is not None
        return found.keys.own

    plain = own()
    assert own((b"traceparent", b"00-1"), (b"user-agent", b"x"), (b"mcp-name", b"echo")) == plain
    assert own((b"accept-language", b"de")) != plain
    assert own((b"mcp-protocol-version", b"2025-06-18")) != plain
    assert own((b"mcp-param-region", b"eu")) != plain
