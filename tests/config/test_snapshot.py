"""The configuration compiled."""

from __future__ import annotations

import dataclasses

import pytest

from mcpx.config.faults import Faulty
from mcpx.config.load import load_snapshot, parse
from mcpx.config.model import Config, ServerConfig
from mcpx.config.snapshot import compile_snapshot
from mcpx.core.policy import Kind
from mcpx.errors import ConfigError, OriginRefused, Unauthorized

FULL = """
listen: 127.0.0.1:8080
servers:
  - name: a
    url: http://localhost:3001/mcp
    request_timeout: 10s
    policy: {deny_tools: [drop]}
    timeouts: {connect: 1s, total: 20s}
  - {name: b, url: "https://b.internal/mcp?k=v"}
  - {name: c, transport: stdio, command: x}
auth:
  enabled: true
  type: bearer
  token: ${TOKEN}
  clients: [{name: ci, token: second-hidden-token}]
  public: [health]
clients:
  ci:
    servers:
      a: {deny_tools: [write]}
trusted_proxies: [10.0.0.0/8]
allowed_hosts: [mcp.example.com]
timeouts: {head: 7s}
"""


def snapshot(text=FULL, generation=3):
    return load_snapshot(
        text, filename="f", environ={"TOKEN": "first-hidden-token"}, generation=generation
    )


def allowed(route, client, tool):
    return route.policy_for(client).decide("tools/call", Kind.TOOL, tool, b"{}").allowed


def test_a_route_is_made_for_every_server_in_the_order_of_the_file():
    assert list(snapshot().routes) == ["a", "b", "c"]


def test_urls_are_split_and_children_have_none():
    routes = snapshot().routes
    assert (routes["a"].url.host, routes["a"].url.port) == ("localhost", 3001)
    assert routes["a"].url.target == b"/mcp"
    assert routes["b"].url.target == b"/mcp?k=v"
    assert routes["c"].url is None


def test_a_servers_own_limits_go_before_its_request_timeout_before_the_gateways():
    times = snapshot().routes["a"].timeouts
    assert (times.connect_s, times.head_s, times.total_s) == (1.0, 10.0, 20.0)
    assert times.idle_s == Config().timeouts.idle
    other = snapshot().routes["b"].timeouts
    assert (other.head_s, other.total_s) == (7.0, 600.0)


def test_a_request_timeout_of_nothing_is_the_default():
    made = snapshot(
        "listen: 127.0.0.1:0\nservers: [{name: a, url: 'http://h/', request_timeout: 0}]\n"
    )
    assert made.routes["a"].timeouts.head_s == 300.0


def test_a_clients_policy_only_takes_away():
    route = snapshot().routes["a"]
    assert allowed(route, "default", "write")
    assert not allowed(route, "default", "drop")
    assert not allowed(route, "ci", "write")
    assert not allowed(route, "ci", "drop")
    assert allowed(route, "ci", "read")


def test_a_client_without_a_policy_of_its_own_gets_the_servers():
    route = snapshot().routes["b"]
    assert route.policy_for("ci") is route.policy


def test_credentials_are_compiled_and_named():
    made = snapshot()
    assert made.client_names == ("default", "ci")
    header = [(b"authorization", b"Bearer second-hidden-token")]
    assert made.authenticator.identify(header).name == "ci"
    with pytest.raises(Unauthorized):
        made.authenticator.identify([(b"authorization", b"Bearer ${TOKEN}")])


def test_nobody_is_asked_for_a_credential_when_auth_is_off():
    made = snapshot("listen: 127.0.0.1:0\nauth: {token: abc}\n")
    assert made.authenticator is None
    assert made.client_names == ()


def test_the_key_of_an_api_is_read_from_the_header_that_is_named():
    made = snapshot("auth: {enabled: true, type: api_key, header: X-Team, token: abc}\n")
    assert made.authenticator.identify([(b"x-team", b"abc")]).name == "default"


def test_a_loopback_listener_serves_loopback_names_and_those_that_are_named():
    origins = snapshot().origins
    origins.check(b"localhost:8080", None)
    origins.check(b"mcp.example.com", None)
    with pytest.raises(OriginRefused):
        origins.check(b"evil.example", None)


def test_what_is_public_and_trusted_is_kept():
    made = snapshot()
    assert made.public == {"health"}
    assert [str(network) for network in made.trusted_networks] == ["10.0.0.0/8"]
    assert made.generation == 3
    assert str(made.listen) == "127.0.0.1:8080"


def test_a_snapshot_and_its_routes_do_not_change():
    made = snapshot()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.generation = 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.routes["a"].name = "b"


def test_a_snapshot_shows_no_credential():
    assert "hidden" not in repr(snapshot())
    assert "hidden" not in str(snapshot().config)


def test_a_fault_in_a_policy_has_its_place_in_the_file():
    with pytest.raises(ConfigError) as refused:
        snapshot(
            "servers:\n"
            "  - name: a\n"
            "    url: http://h/\n"
            "    policy:\n"
            "      tool_rules:\n"
            "        t:\n"
            "          args:\n"
            "            sql: {regex: '('}\n"
        )
    (problem,) = refused.value.problems
    assert problem.startswith("f:8:")
    assert "servers[0].policy.tool_rules.t.args.sql" in problem


def test_faults_of_policies_and_of_everything_else_are_told_together():
    with pytest.raises(ConfigError) as refused:
        snapshot(
            "listen: nowhere\n"
            "servers:\n"
            "  - {name: a, url: 'http://h/', policy: {tool_rules: {t: {args: {x: {regex: '('}}}}}}\n"
            "  - {name: b, url: 'http://h/', policy: {tool_rules: {t: {args: {x: {regex: ')'}}}}}}\n"
        )
    assert [problem.split(":")[1] for problem in refused.value.problems] == ["1", "3", "4"]


def test_a_fault_that_two_checks_see_is_told_once():
    with pytest.raises(ConfigError) as refused:
        snapshot(
            "servers: [{name: a, url: 'http://h/', policy: {tool_rules: {t: {args: {x: {}}}}}}]\n"
        )
    assert len(refused.value.problems) == 1


def test_what_was_never_checked_is_not_compiled():
    config = Config(servers=[ServerConfig(name="a", url="http://u:p@h/")])
    with pytest.raises(Faulty) as refused:
        compile_snapshot(config, generation=1)
    assert refused.value.faults[0].path == ("servers", 0, "url")


def test_what_parses_compiles():
    config = parse(FULL, filename="f", environ={"TOKEN": "x"})
    assert compile_snapshot(config, generation=1).config is config
