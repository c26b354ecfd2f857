"""A whole configuration with comments: the example in ``docs/configuration.md``.

It must load as it stands once the variables in it are set, which a test does.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EXAMPLE"]

EXAMPLE: Final = """\
# yaml-language-server: $schema=mcpx.schema.json

listen: "127.0.0.1:8080"           # ":8080" for every interface, "unix:/run/mcpx.sock" for a socket

servers:
  - name: files                    # reached at http://127.0.0.1:8080/mcp/files
    url: http://localhost:3001/mcp # used as written: no slash is added
    request_timeout: 2m
    forward_headers: [Accept-Language]
    cache:
      tools:
        read_file: {ttl: 10s}      # kept for each client apart
    policy:
      allow_tools: [read_file, "list_*"]
      tool_rules:
        read_file:
          args:
            path:
              required: true
              path_within: /srv/shared   # "..", "//" and percent-encoding are resolved first
  - name: database
    url: https://db.internal.example/mcp
    tls:
      ca: /etc/mcpx/internal-ca.pem
    auth:                          # what the gateway shows; what clients show never goes there
      type: client_credentials     # or headers, bearer, api_key
      token_url: https://auth.internal.example/token
      client_id: mcpx
      client_secret: file:/run/secrets/mcpx-client   # or ${NAME}
      scopes: [database]
    timeouts:
      head: 30s
      total: 1m
    policy:
      deny_tools: ["drop_*", truncate_table]
      deny_resources: ["db://secrets/*"]
      tool_rules:
        query:
          args:
            sql:
              full_match: '(?i)select [^;]*'
            options.timeout:           # a dotted name reaches into objects
              one_of: [5, 10, 30]

auth:
  enabled: true
  types: [bearer, oauth]           # or one of bearer, api_key and oauth as `type`
  oauth:
    resource: https://mcp.example.com            # this gateway; tokens must be made for it
    issuer: https://auth.internal.example
    scopes: [mcp]                  # what everything needs
    scope_rules:
      - {servers: [files], tools: ["write_*"], scopes: ["files:write"]}
  clients:
    - name: editor
      token: ${MCPX_EDITOR_TOKEN}  # from the environment; not set is an error
    - name: ci
      token: ${MCPX_CI_TOKEN}
  public: [health]                 # /health without a credential tells its status alone

clients:                           # on top of each server's own policy
  ci:
    servers:
      database:
        read_only: true

rate_limit:
  enabled: true
  rps: 200
  burst: 400
  client_rps: 20
  client_burst: 40

audit:
  enabled: true
  output: file
  path: ${MCPX_AUDIT_FILE:-/var/log/mcpx/audit.jsonl}
  arguments: true
  redact:
    keys: [customer_name]
    patterns: ['sk-[A-Za-z0-9]{20,}']
    tools: ["vault_*"]

cors:
  enabled: true
  allowed_origins: [https://app.example.com]

inspection:
  filter_tools_list: true          # what a client may not call is not in its lists
  tool_integrity: enforce          # a tool that is not what it was is refused until approved

data_dir: /var/lib/mcpx            # pinned tools

cache:
  enabled: true

limits:
  max_body_bytes: 4194304

timeouts:
  read: 30s
  keep_alive: 2m
  drain: 10s

log:
  level: info
  format: auto

sessions:
  key: ${MCPX_SESSION_KEY}         # openssl rand -hex 32; the same on every replica
"""
