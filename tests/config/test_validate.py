"""What must hold across fields. The golden files of test_load.py have the words."""

from __future__ import annotations

import pytest

from mcpx.config.load import parse
from mcpx.config.validate import validate
from mcpx.errors import ConfigError

SERVER = "servers: [{name: a, url: 'http://h/'}]\n"


def paths(text, environ=None):
    """The paths of all problems."""
    try:
        parse(text, filename="f", environ=environ or {})
    except ConfigError as error:
        return [problem.split(": ")[1] for problem in error.problems]
    return []


def test_an_accepted_configuration_has_no_faults():
    assert validate(parse(SERVER, filename="f", environ={})) == []


def test_a_policy_for_a_client_or_server_that_cannot_exist_never_loads():
    on = "auth: {enabled: true, type: bearer, clients: [{name: ci, token: t}]}\n"
    assert paths(SERVER + on + "clients: {ci: {servers: {a: {read_only: true}}}}\n") == []
    assert paths(SERVER + on + "clients: {cj: {servers: {a: {}}}}\n") == ["clients.cj"]
    assert paths(SERVER + on + "clients: {ci: {servers: {b: {}}}}\n") == ["clients.ci.servers.b"]
    assert paths(SERVER + on + "clients: {default: {}}\n") == ["clients.default"]
    assert paths(SERVER + "clients: {ci: {}}\n") == ["clients.ci"]
    off = on.replace("enabled: true", "enabled: false")
    assert paths(SERVER + off + "clients: {ci: {}}\n") == ["clients.ci"]


def test_the_one_token_for_everybody_is_the_client_default():
    on = "auth: {enabled: true, type: bearer, token: t}\n"
    assert paths(SERVER + on + "clients: {default: {}}\n") == []


@pytest.mark.parametrize(
    "header",
    ["Authorization", "COOKIE", "Set-Cookie", "Proxy-Authorization", "Proxy-Connection", "X-API-Key",
     "Host", "Content-Length", "Content-Type", "Connection", "Transfer-Encoding", "Upgrade", "TE",
     "Trailer", "Keep-Alive", "Forwarded", "X-Forwarded-For", "X-Forwarded-Anything", "X-Request-Id",
     "Mcp-Session-Id", "MCP-Protocol-Version", "Accept", "Origin", "Expect", "a b", ""],
)  # fmt: skip
def test_a_header_that_is_not_the_clients_to_send_is_never_forwarded(header):
    text = f"servers: [{{name: a, url: 'http://h/', forward_headers: ['{header}']}}]\n"
    assert paths(text) == ["servers[0].forward_headers[0]"]


def test_the_header_of_the_credential_is_never_forwarded():
    text = "servers: [{name: a, url: 'http://h/', forward_headers: [x-team]}]\n"
    assert paths(text) == []
    on = "auth: {enabled: true, type: api_key, header: X-Team, token: t}\n"
    assert paths(text + on) == ["servers[0].forward_headers[0]"]


def test_every_duration_of_the_structs_is_checked():
    assert paths("timeouts: {drain: -1}\n") == ["timeouts.drain"]
    assert paths("health: {timeout: 0}\n") == ["health.timeout"]
    assert paths("health: {cache_ttl: 0}\n") == []
    assert paths("inspection: {max_age: 0}\n") == []
    assert paths("auth: {oauth: {leeway: 0, token_cache_age: 0, jwks_max_stale: 0}}\n") == []
    assert paths("auth: {oauth: {jwks_max_age: 0}}\n") == ["auth.oauth.jwks_max_age"]
    server = "servers: [{name: a, url: 'http://h/', %s}]\n"
    assert paths(server % "timeouts: {head: -1}") == ["servers[0].timeouts.head"]
    assert paths(server % "request_timeout: 0") == []
    assert paths(server % "cache: {tools: {t: {ttl: -1}}}") == ["servers[0].cache.tools.t.ttl"]


def test_limits_are_checked_when_they_are_on_and_may_be_anything_sensible_when_off():
    assert paths("rate_limit: {rps: 0, burst: 0, tool_rps: -1, tool_burst: -1}\n") == []
    assert paths("rate_limit: {enabled: true, rps: 1, burst: 1, tool_rps: -1}\n") == []
    assert paths("rate_limit: {enabled: true}\n") == ["rate_limit.rps", "rate_limit.burst"]
    assert paths("rate_limit: {rps: -1}\n") == ["rate_limit.rps"]


def test_what_a_child_process_could_not_be_given_is_refused():
    stdio = "servers: [{name: a, transport: stdio, command: x, %s}]\n"
    assert paths(stdio % 'args: ["a\\0b"]') == ["servers[0].args[0]"]
    assert paths(stdio % "env: {'A=B': x}") == ['servers[0].env["A=B"]']
    assert paths(stdio % 'env: {A: "x\\0"}') == ["servers[0].env.A"]


def test_tracing_needs_a_collector_that_can_be_reached():
    assert paths("tracing: {enabled: true}\n") == ["tracing.endpoint"]
    assert paths("tracing: {enabled: true, exporter: stdout}\n") == []
    assert paths("tracing: {endpoint: 'http://h:1'}\n") == ["tracing.endpoint"]
    assert paths("tracing: {headers: {'a b': x, ok: \"x\\ny\"}}\n") == [
        'tracing.headers["a b"]', "tracing.headers.ok",
    ]  # fmt: skip


def test_a_session_key_has_32_characters():
    assert paths("sessions: {key: %s}\n" % ("k" * 31)) == ["sessions.key"]
    assert paths("sessions: {key: %s}\n" % ("k" * 32)) == []


def test_the_header_of_one_of_several_ways_is_never_forwarded():
    text = "servers: [{name: a, url: 'http://h/', forward_headers: [x-team]}]\n"
    on = "auth: {enabled: true, types: [bearer, api_key], header: X-Team, token: t}\n"
    assert paths(text + on) == ["servers[0].forward_headers[0]"]


def test_a_header_that_the_gateway_shows_is_never_forwarded():
    text = "servers: [{name: a, url: 'https://h/', forward_headers: [X-Team], auth: {type: %s}}]\n"
    assert paths(text % "headers, headers: {x-team: s}") == ["servers[0].forward_headers[0]"]
    assert paths(text % "api_key, header: x-TEAM, key: s") == ["servers[0].forward_headers[0]"]
    assert paths(text % "bearer, token: s") == []


def test_the_folder_for_what_lasts_can_be_one():
    assert paths("data_dir: ''\n") == ["data_dir"]
    assert paths('data_dir: "a\\0b"\n') == ["data_dir"]
    assert paths("data_dir: /var/lib/mcpx\n") == []


@pytest.mark.parametrize("age", ["86400", "'86400'", "''", "0"])
def test_the_age_of_a_preflight_is_a_number_of_seconds(age):
    assert paths(f"cors: {{max_age: {age}}}\n") == []


@pytest.mark.parametrize("age", ["1d", "-1", "1.5", "'-1'", "99999999999", "'٣'"])
def test_another_age_is_refused(age):
    assert paths(f"cors: {{max_age: {age}}}\n") == ["cors.max_age"]
