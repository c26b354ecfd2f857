"""Warnings about what is allowed."""

from __future__ import annotations

import pytest

from mcpx.config.load import load_snapshot, parse
from mcpx.config.notices import NOT_ACTIVE, notices

LOOPBACK = "listen: 'localhost:8080'\n"


def told(text):
    return notices(parse(text, filename="f", environ={}))


def test_nothing_is_said_about_a_plain_configuration():
    assert told(LOOPBACK + "servers: [{name: a, url: 'http://localhost/'}]\n") == ()


def test_a_setting_without_effect_is_told_with_what_happens_instead():
    (notice,) = told(LOOPBACK + "servers: [{name: a, transport: stdio, command: x}]\n")
    assert notice.startswith("servers[0].transport: stdio is not active in this version: ")
    assert any(notice.endswith(row.meanwhile) for row in NOT_ACTIVE)


@pytest.mark.parametrize(
    "text",
    [
        "tracing: {enabled: true, exporter: stdout}",
        "inspection: {tool_integrity: warn}",
        "inspection: {tool_integrity: enforce, refuse_added: true, refuse_shadowing: true}",
        "cache: {enabled: true}\nservers: [{name: a, url: 'http://h/', cache: {tools: {t: {}}}}]",
        "cache: {enabled: true}\nservers: [{name: a, url: 'http://h/', cache: {read_only_tools: true}}]",
        "data_dir: /tmp/mcpx",
    ],
)
def test_nothing_is_said_about_a_feature_that_does_what_it_says(text):
    assert told(LOOPBACK + text + "\n") == ()


def test_an_open_listener_is_told():
    assert "other machines" in told("")[0]
    assert told("auth: {enabled: true, type: bearer, token: sixteen-characters}\n") == ()
    assert told("listen: 'unix:/run/x.sock'\n") == ()


def test_credentials_that_nobody_is_asked_for_are_told():
    assert "enabled is false" in told(LOOPBACK + "auth: {token: sixteen-characters}\n")[0]


def test_a_short_token_is_told_and_not_shown():
    on = "auth: {enabled: true, type: bearer, clients: [{name: a, token: hidden}]}\n"
    (notice,) = told(on)
    assert notice.startswith("auth.clients[0].token: shorter than 16")
    assert "hidden" not in notice


@pytest.mark.parametrize(
    ("origins", "words"),
    [("[]", "without allowed_origins"), ("['*']", "every web page"), ("['null']", "sandboxed")],
)
def test_a_surprising_choice_of_origins_is_told(origins, words):
    (notice,) = told(LOOPBACK + f"cors: {{enabled: true, allowed_origins: {origins}}}\n")
    assert words in notice


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("http://mcp.example.com/", True),
        ("https://mcp.example.com/", False),
        ("http://8.8.8.8/", True),
        ("http://192.168.0.1/", False),
        ("http://[::1]/", False),
        ("http://mock:3001/", False),
        ("http://a.svc/", False),
        ("http://a.default.svc.cluster.local/", False),
        ("http://a.internal./", False),
    ],
)
def test_a_public_server_without_tls_is_told(url, is_told):
    assert bool(told(LOOPBACK + f"servers: [{{name: a, url: '{url}'}}]\n")) is is_told


def test_a_rule_for_a_tool_that_is_not_allowed_is_told_with_the_name_that_was_meant():
    text = """
servers:
  - name: files
    url: http://127.0.0.1:1/mcp
    policy:
      allow_tools: [echo, read_file]
      deny_tools: [echo]
      tool_rules: {raed_file: {args: {path: {path_within: /data}}}, "*": {args: {x: {equals: 1}}}}
"""
    found = load_snapshot(text, filename="f.yaml", environ={}, generation=1).warnings
    assert any("raed_file: has no effect" in one and "read_file?" in one for one in found)
    assert any("deny wins" in one for one in found)
    assert not any("tool_rules.*" in one for one in found)


# -- OAuth

OAUTH = (
    "auth: {enabled: true, type: oauth, oauth: {resource: '%s', issuer: 'https://i.example'%s}}\n"
)


def oauth(resource="https://r.example", more=""):
    server = "servers: [{name: files, url: 'http://h/'}]\n"
    return told(LOOPBACK + server + OAUTH % (resource, more))


def test_nothing_is_said_about_a_plain_resource_server():
    assert oauth() == ()
    assert (
        oauth("https://r.example/gateway/", ", authorization_servers: ['https://i.example']") == ()
    )


def test_a_resource_that_only_this_machine_can_use_is_told():
    (notice,) = oauth("http://localhost:8080")
    assert "on this machine alone" in notice


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/files", "/base/mcp/files/"])
def test_a_resource_that_is_an_endpoint_already_is_told(path):
    (notice,) = oauth(f"https://r.example{path}")
    assert notice.startswith("auth.oauth.resource: ")
    assert f"{path.rstrip('/')}/mcp/" in notice


def test_tokens_of_any_issuer_are_told():
    text = OAUTH.replace("issuer: 'https://i.example'", "jwks_uri: 'https://i.example/k'")
    found = told(LOOPBACK + text % ("https://r.example", ""))
    assert any("whatever issuer" in notice for notice in found)
    assert any("where to get a token" in notice for notice in found)
    named = ", authorization_servers: ['https://i.example']"
    (notice,) = told(LOOPBACK + text % ("https://r.example", named))
    assert "whatever issuer" in notice


def test_an_issuer_that_differs_by_a_slash_is_told():
    (notice,) = oauth(more=", authorization_servers: ['https://i.example/']")
    assert notice.startswith("auth.oauth.authorization_servers: ")


def test_times_that_mean_something_else_are_told():
    assert oauth(more=", leeway: 5m") == ()
    assert "1h" in oauth(more=", leeway: 1h")[0]
    assert oauth(more=", jwks_max_stale: 0") == ()
    assert "no effect" in oauth(more=", jwks_max_stale: 1m")[0]


def test_a_rule_for_servers_that_are_not_there_is_told():
    rule = ", scope_rules: [{scopes: [a], servers: ['%s']}]"
    assert oauth(more=rule % "fil*") == ()
    assert "matches no server" in oauth(more=rule % "mail*")[0]


def test_settings_of_oauth_without_oauth_are_told():
    on = "auth: {enabled: true, type: bearer, token: sixteen-characters, %s}\n"
    assert "no effect" in told(LOOPBACK + on % "oauth: {}")[0]
    assert "no effect" in told(LOOPBACK + on % "identity_claim: client_id")[0]


def test_credentials_that_nobody_can_show_are_told():
    text = OAUTH % ("https://r.example", "") + "%s"
    one = text.replace("type: oauth", "type: oauth, token: sixteen-characters")
    assert "types: [oauth, bearer]" in told(LOOPBACK + one % "")[0]
    both = text.replace("type: oauth", "types: [oauth, api_key], token: sixteen-characters")
    assert told(LOOPBACK + both % "") == ()


# -- Servers, cache, inspection


@pytest.mark.parametrize(
    ("url", "is_told"),
    [
        ("http://a.internal/", True),
        ("http://10.0.0.1/", True),
        ("http://mock:3001/", True),
        ("http://localhost/", False),
        ("http://[::1]/", False),
        ("https://a.internal/", False),
    ],
)
def test_a_credential_in_the_clear_on_this_network_is_told(url, is_told):
    auth = "auth: {type: bearer, token: hidden}"
    found = told(LOOPBACK + f"servers: [{{name: a, url: '{url}', {auth}}}]\n")
    assert bool(found) is is_told
    assert "hidden" not in str(found)


def test_a_cache_that_keeps_nothing_is_told():
    server = "servers: [{name: a, url: 'http://h/', cache: {tools: {t: {}}}}]\n"
    assert "without a tool" in told(LOOPBACK + "cache: {enabled: true}\n")[0]
    assert "cache.enabled is false" in told(LOOPBACK + server)[0]
    for name in ("max_entries", "max_body_bytes"):
        (notice,) = told(LOOPBACK + server + f"cache: {{enabled: true, {name}: 0}}\n")
        assert notice.startswith(f"cache.{name}: ")


def test_refusals_without_enforcing_are_told():
    for name in ("refuse_added", "refuse_shadowing"):
        for mode in ("warn", "'off'"):
            text = f"inspection: {{tool_integrity: {mode}, {name}: true}}\n"
            (notice,) = told(LOOPBACK + text)
            assert notice.startswith(f"inspection.{name}: has no effect")


@pytest.mark.parametrize(
    ("folder", "is_told"),
    [
        ("/tmp", True),
        ("/tmp/mcpx", True),
        ("/var/tmp/mcpx", True),
        ("/var/../tmp/x", True),
        ("/dev/shm/x", True),
        ("/tmpfiles", False),
        ("/var/lib/mcpx", False),
        ("mcpx-data", False),
    ],
)
def test_pins_where_everyone_may_write_are_told(folder, is_told):
    for mode in ("warn", "enforce"):
        found = told(LOOPBACK + f"inspection: {{tool_integrity: {mode}}}\ndata_dir: {folder}\n")
        assert bool(found) is is_told
