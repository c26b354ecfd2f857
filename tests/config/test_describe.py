"""What would run, in plain lines."""

from __future__ import annotations

from mcpx.config.describe import describe, masked_url
from mcpx.config.example import EXAMPLE
from mcpx.config.load import load_snapshot
from mcpx.config.model import ServerConfig

FULL = """
listen: "[::1]:8443"
tls: {cert: /etc/cert.pem, key: /etc/key.pem}
http2: true
servers:
  - name: a
    url: https://localhost:3001/mcp?key=hidden
    policy:
      read_only: true
      allow_tools: [read]
      deny_tools: [one, two, three, four, five, six, seven, eight, nine, ten]
      deny_methods: [logging/setLevel]
      tool_rules: {query: {args: {sql: {regex: hidden-rule, required: true}}}}
    forward_headers: [Accept-Language]
    paths: [/status]
  - {name: c, transport: stdio, command: npx, args: [--key, hidden]}
auth:
  enabled: true
  type: api_key
  token: hidden-token-of-16-characters
  clients: [{name: ci, token: hidden-token-of-another}]
  public: [health]
clients:
  ci: {servers: {a: {deny_resources: ["*"]}}}
rate_limit: {enabled: true, rps: 10, burst: 20, client_rps: 1, per_tool: true}
audit: {enabled: true, output: file, path: /var/log/audit.jsonl, arguments: true}
"""


def told(text):
    return describe(load_snapshot(text, filename="f", environ={}, generation=1))


def test_everything_that_matters_is_told_and_no_credential():
    text = told(FULL)
    assert text == (
        "listen      [::1]:8443, TLS with /etc/cert.pem, HTTP/2\n"
        "auth        api_key in X-API-Key, 2 clients: default, ci; public: health\n"
        "rate limit  10/s burst 20 in all, 1/s burst 20 a client, 10/s burst 20 a tool\n"
        "audit       /var/log/audit.jsonl, rotated at 104857600 bytes, 5 kept, "
        "with redacted arguments, waits when full\n"
        "cors        off\n"
        "on          list filtering\n"
        "off         tool integrity, circuit breaker, cache, tracing, lasting sessions\n"
        "servers     2\n"
        "  /mcp/a -> https://localhost:3001/mcp?…\n"
        "    policy      read-only: no tool may be called; no tools one, two, three, four, five, "
        "six, seven, eight and 2 more; only tools read; no methods logging/setLevel; "
        "query with sql (required and regex)\n"
        "    ci also     no resources *\n"
        "    timeouts    connect 5s, head 5m, idle 1m, total 10m\n"
        "    paths       /status\n"
        "    headers     forwards Accept-Language\n"
        "  /mcp/c -> stdio:npx\n"
        "    policy      everything the protocol has\n"
        "    timeouts    connect 5s, head 5m, idle 1m, total 10m\n"
        "warning: servers[1].transport: stdio is not active in this version: the server is not "
        "started, and requests for it are answered with an error\n"
        "warning: servers[0].policy.tool_rules.query: has no effect, for allow_tools does not "
        "allow this tool"
    )


def test_an_empty_configuration_is_told_as_what_it_is():
    text = told("")
    assert "off: everybody who reaches the listener is let in" in text
    assert "servers     none" in text
    assert "warning: listen: :8080 can be reached" in text


def test_names_cannot_steer_a_terminal():
    text = told(
        "listen: ':1'\naudit: {enabled: true, output: file, path: /x}\n"
        'servers: [{name: a, url: "http://h/", policy: {deny_tools: ["\\e[2J", "a\\nb"]}}]\n'
    )
    assert all(line.isprintable() for line in text.splitlines())
    assert "\\u001b[2J" in text


def test_nothing_in_the_example_needs_a_warning():
    environ = {
        "MCPX_EDITOR_TOKEN": "e" * 32,
        "MCPX_CI_TOKEN": "c" * 32,
        "MCPX_SESSION_KEY": "s" * 64,
    }
    text = describe(load_snapshot(EXAMPLE, filename="f", environ=environ, generation=1))
    assert "warning" not in text
    for secret in environ.values():
        assert secret not in text


def test_a_url_is_shown_without_its_query_and_a_child_without_its_arguments():
    assert masked_url(ServerConfig(name="a", url="http://h/x?k=hidden")) == "http://h/x?…"
    child = ServerConfig(name="a", transport="stdio", command="npx", args=["hidden"])
    assert masked_url(child) == "stdio:npx"
