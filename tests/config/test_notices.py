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


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("servers: [{name: a, transport: stdio, command: x}]", "servers[0].transport: stdio"),
        ("cache: {enabled: true}", "cache.enabled: true"),
        ("tracing: {enabled: true, exporter: stdout}", "tracing.enabled: true"),
        ("inspection: {tool_integrity: warn}", "inspection.tool_integrity: warn"),
        ("inspection: {tool_integrity: enforce}", "inspection.tool_integrity: enforce"),
    ],
)
def test_a_setting_without_effect_is_told_with_what_happens_instead(text, setting):
    (notice,) = told(LOOPBACK + text + "\n")
    assert notice.startswith(f"{setting} is not active in this version: ")
    assert any(notice.endswith(row.meanwhile) for row in NOT_ACTIVE)


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
