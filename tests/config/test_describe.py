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


TRUST = """
listen: "127.0.0.1:8080"
servers:
  - name: a
    url: https://a.example/mcp
    auth: {type: bearer, token: hidden-token}
    cache: {tools: {search: {ttl: 5m}, look: {shared: true}}, read_only_tools: true}
  - name: b
    url: https://b.example/mcp
    auth: {type: headers, headers: {X-A: hidden, X-B: hidden}}
  - {name: c, url: "https://c.example/mcp", auth: {type: api_key, header: X-Team, key: hidden}}
  - name: d
    url: https://d.example/mcp
    auth:
      type: client_credentials
      token_url: https://auth.example/token?hidden
      client_id: gateway
      client_secret: hidden
      scopes: [a, b]
      parameters: {x: hidden}
auth:
  enabled: true
  types: [oauth, api_key, bearer]
  token: hidden-token-of-16-characters
  oauth:
    resource: https://mcp.example.com
    issuer: https://auth.example.com/tenant
    scopes: [mcp]
inspection: {tool_integrity: enforce, refuse_added: true, refuse_shadowing: true}
data_dir: /var/lib/mcpx
cache: {enabled: true, max_bytes: 1000000}
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


def test_what_is_trusted_kept_and_shown_is_told_without_a_value():
    text = told(TRUST)
    times = "connect 5s, head 5m, idle 1m, total 10m\n"
    assert text == (
        "listen      127.0.0.1:8080, without TLS\n"
        "auth        bearer or api_key in X-API-Key, 1 client: default; oauth for "
        "https://mcp.example.com, tokens of https://auth.example.com/tenant, scopes mcp\n"
        "rate limit  off\n"
        "audit       off\n"
        "cors        off\n"
        "integrity   enforce: refuses changed, added, shadowing tools, pins in /var/lib/mcpx\n"
        "cache       at most 1000 results, 1000000 bytes in all, 1m each\n"
        "on          list filtering\n"
        "off         circuit breaker, tracing, lasting sessions\n"
        "servers     4\n"
        "  /mcp/a -> https://a.example/mcp\n"
        "    policy      everything the protocol has\n"
        f"    timeouts    {times}"
        "    shows       a bearer token\n"
        "    caches      what the server calls read-only, search 5m, "
        "look for all clients together\n"
        "  /mcp/b -> https://b.example/mcp\n"
        "    policy      everything the protocol has\n"
        f"    timeouts    {times}"
        "    shows       headers X-A, X-B\n"
        "  /mcp/c -> https://c.example/mcp\n"
        "    policy      everything the protocol has\n"
        f"    timeouts    {times}"
        "    shows       a key in X-Team\n"
        "  /mcp/d -> https://d.example/mcp\n"
        "    policy      everything the protocol has\n"
        f"    timeouts    {times}"
        "    shows       a token got at https://auth.example/token?…, scopes a, b"
    )
    assert "hidden" not in text


def test_keys_without_an_issuer_are_told_without_their_query():
    text = told(
        "auth: {enabled: true, type: oauth, oauth: {resource: 'https://r.example', "
        "jwks_uri: 'https://i.example/keys?hidden'}}\n"
    )
    line = "oauth for https://r.example, tokens signed with the keys at https://i.example/keys?…\n"
    assert line in text
    assert "hidden" not in text


def test_tools_that_are_only_reported_are_told_so():
    text = told("inspection: {tool_integrity: warn}\n")
    assert "integrity   warn: reports changed tools, pins in mcpx-data\n" in text


def test_caching_is_not_told_of_a_server_while_the_cache_is_off():
    text = told("servers: [{name: a, url: 'http://h/', cache: {read_only_tools: true}}]\n")
    assert "    caches" not in text


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
