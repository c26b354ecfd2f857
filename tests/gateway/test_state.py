"""A reload keeps what did not change, and what can fail fails before anything is replaced."""

import pytest
import trio
import yaml

from mcpx.config.load import load_snapshot
from mcpx.config.model import MetricsConfig
from mcpx.errors import ConfigError
from mcpx.gateway.state import State, prepare
from mcpx.services.errand import Errands
from mcpx.services.metrics import Metrics

SERVER = {"name": "demo", "url": "http://127.0.0.1:9/mcp"}


def snapshot(config=None, generation=1):
    text = yaml.safe_dump({"servers": [SERVER], **(config or {})})
    return load_snapshot(text, filename="mcpx.yaml", environ={}, generation=generation)


async def begun(config=None):
    return State(
        prepare(snapshot(config), None, None, Errands()), Metrics(MetricsConfig(), version="0")
    )


async def test_connections_are_kept_where_their_settings_are_the_same():
    state = await begun()
    pool = state.pools["demo"]
    assert state.apply(prepare(snapshot(generation=2), None, state, Errands())) == []
    assert state.pools["demo"] is pool
    assert state.snapshot.generation == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://127.0.0.1:9/other"},
        {"max_connections": 3},
        {"timeouts": {"head": "1s"}},
        {"url": "https://127.0.0.1:9/mcp"},
    ],
)
async def test_connections_are_replaced_where_their_settings_changed(changed):
    state = await begun()
    pool = state.pools["demo"]
    config = {"servers": [{**SERVER, **changed}]}
    assert state.apply(prepare(snapshot(config), None, state, Errands())) == [pool]
    assert state.pools["demo"] is not pool


async def test_a_server_that_is_gone_gives_up_its_connections():
    state = await begun({"servers": [SERVER, {**SERVER, "name": "other"}]})
    other = state.pools["other"]
    assert state.apply(prepare(snapshot(), None, state, Errands())) == [other]


async def test_sessions_hold_across_reloads_and_a_key_makes_them_hold_elsewhere():
    state = await begun()
    sealed = state.sealer.seal(b"s1", "a", "demo")
    state.apply(prepare(snapshot(), None, state, Errands()))
    assert state.sealer.open(sealed, "a", "demo") == b"s1"
    assert (await begun()).sealer.open(sealed, "a", "demo") is None
    key = {"sessions": {"key": "k" * 40}}
    sealed = (await begun(key)).sealer.seal(b"s1", "a", "demo")
    assert (await begun(key)).sealer.open(sealed, "a", "demo") == b"s1"


async def test_a_reload_gives_nobody_a_fresh_burst():
    limited = {"rate_limit": {"enabled": True, "rps": 0.001, "burst": 1}}
    state = await begun(limited)
    assert state.limiter.request("a", trio.current_time()) == 0
    assert state.limiter.request("a", trio.current_time()) > 0
    state.apply(prepare(snapshot(limited), None, state, Errands()))
    assert state.limiter.request("a", trio.current_time()) > 0


async def test_a_file_that_can_not_be_used_changes_nothing():
    state = await begun()
    before = (state.snapshot, state.pools)
    server = {"name": "demo", "url": "https://a/", "tls": {"ca": "/no/such/file"}}
    with pytest.raises(ConfigError, match="tls"):
        prepare(snapshot({"servers": [server]}), None, state, Errands())
    assert (state.snapshot, state.pools) == before
