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


def test_authentication_without_a_way_to_authenticate_never_loads():
    for kind in ("", "type: ''", "type: none", "type: bearer", "type: api_key", "type: oauth"):
        assert paths(f"auth: {{enabled: true, {kind}}}\n")


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


@pytest.mark.parametrize(
    "header", ["Host", "content-length", "Connection", "Cookie", "a b", "", "mcp-x"]
)
def test_a_credential_is_not_read_from_a_header_with_another_meaning(header):
    assert paths(f"auth: {{header: '{header}'}}\n") == ["auth.header"]


def test_a_token_that_no_client_could_send_never_loads():
    for token in ("a b", " a", "a\\n", "ü", "a\\u0000", "x" * 5000):
        for kind in ("bearer", "api_key"):
            assert paths(f'auth: {{enabled: true, type: {kind}, token: "{token}"}}\n') == [
                "auth.token"
            ]
    assert paths("auth: {enabled: true, type: bearer, token: 'a!b'}\n") == ["auth.token"]
    assert paths("auth: {enabled: true, type: api_key, token: 'a!b'}\n") == []
    assert paths("auth: {enabled: true, type: bearer, token: 'YWJj=='}\n") == []


def test_the_authenticator_takes_every_token_that_is_accepted_here():
    from mcpx.core.identity import Authenticator
    from mcpx.secret import Secret

    for token in ("a", "=", "==", "YWJj==", "-._~+/", "a=b", "x" * 4096):
        try:
            Authenticator("bearer", clients=[("a", Secret(token))])
            accepted = True
        except ValueError:
            accepted = False
        found = paths(f"auth: {{enabled: true, type: bearer, token: '{token}'}}\n")
        assert (found == []) is accepted


def test_names_and_tokens_are_unique():
    head = "auth: {enabled: true, type: bearer, token: t0, clients: "
    assert paths(head + "[{name: a, token: t1}, {name: b, token: t2}]}\n") == []
    assert paths(head + "[{name: a, token: t1}, {name: a, token: t2}]}\n") == [
        "auth.clients[1].name"
    ]
    assert paths(head + "[{name: a, token: t1}, {name: b, token: t1}]}\n") == [
        "auth.clients[1].token"
    ]
    assert paths(head + "[{name: a, token: t0}]}\n") == ["auth.clients[0].token"]
    assert paths(head + "[{name: default, token: t1}]}\n") == ["auth.clients[0].name"]


def test_every_duration_of_the_structs_is_checked():
    assert paths("timeouts: {drain: -1}\n") == ["timeouts.drain"]
    assert paths("health: {timeout: 0}\n") == ["health.timeout"]
    assert paths("health: {cache_ttl: 0}\n") == []
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


@pytest.mark.parametrize("age", ["86400", "'86400'", "''", "0"])
def test_the_age_of_a_preflight_is_a_number_of_seconds(age):
    assert paths(f"cors: {{max_age: {age}}}\n") == []


@pytest.mark.parametrize("age", ["1d", "-1", "1.5", "'-1'", "99999999999", "'٣'"])
def test_another_age_is_refused(age):
    assert paths(f"cors: {{max_age: {age}}}\n") == ["cors.max_age"]
