"""What would run, in plain lines for a terminal, a log or a pipe.

``mcpx check`` prints it, and the gateway at its start. It has no colours and no
credential: tokens are counted, not shown, and of a URL its query is left out.

Column widths follow the longest entry; nothing is cut, so that a line can be searched
for what the file says.
"""

from __future__ import annotations

from typing import Final

from mcpx.config.durations import format_duration
from mcpx.config.faults import quote
from mcpx.config.forms import parse_upstream_url
from mcpx.config.model import (
    ArgumentRule,
    AuthConfig,
    CacheConfig,
    Config,
    PolicyConfig,
    RateLimitConfig,
    ServerAuth,
    ServerCache,
    ServerConfig,
)
from mcpx.config.snapshot import Route, Snapshot
from mcpx.config.validate_auth import credential_kinds, credential_names

__all__ = ["describe", "masked_url"]

_SHOWN: Final = 8  # names of a list before "and n more"


def describe(snapshot: Snapshot, *, warnings: bool = True) -> str:
    """The configuration in aligned lines, without a newline at the end."""
    config = snapshot.config
    rows = [
        ("listen", _listen(snapshot)),
        ("auth", _auth(config)),
        ("rate limit", _rate_limit(config.rate_limit)),
        ("audit", _audit(config)),
        ("cors", _cors(config)),
        *([("integrity", _integrity(config))] if _keeps_pins(config) else []),
        *([("cache", _cache(config.cache))] if config.cache.enabled else []),
        ("on", ", ".join(_switches(config, on=True)) or "nothing else"),
        ("off", ", ".join(_switches(config, on=False)) or "nothing"),
    ]
    lines = _aligned(rows, "")
    lines.append(f"servers     {len(snapshot.routes) or 'none'}")
    for route in snapshot.routes.values():
        lines.extend(_server(route, config))
    if warnings:
        lines.extend(f"warning: {warning}" for warning in snapshot.warnings)
    return "\n".join(lines)


def masked_url(server: ServerConfig) -> str:
    """Where a server is, without what may be a key: the query of its URL, a child's arguments."""
    if server.transport == "stdio" or server.url is None:
        return f"stdio:{_one_line(server.command or '')}"
    return str(parse_upstream_url(server.url))


def _aligned(rows: list[tuple[str, str]], indent: str) -> list[str]:
    width = max([10, *(len(name) for name, _ in rows)])
    return [f"{indent}{name:<{width}}  {text}" for name, text in rows]


def _listen(snapshot: Snapshot) -> str:
    config = snapshot.config
    if config.tls is None:
        secured = "without TLS"
    else:
        secured = f"TLS with {_one_line(config.tls.cert)}" + (", HTTP/2" if config.http2 else "")
    parts = [str(snapshot.listen), secured]
    if config.allowed_hosts:
        parts.append(f"for {_names(config.allowed_hosts)}")
    if config.trusted_proxies:
        parts.append(f"behind {_names(config.trusted_proxies)}")
    return ", ".join(parts)


def _auth(config: Config) -> str:
    auth = config.auth
    if not auth.enabled:
        return "off: everybody who reaches the listener is let in"
    public = f"; public: {', '.join(sorted(auth.public))}" if auth.public else ""
    return "; ".join(_ways_in(auth)) + public


def _ways_in(auth: AuthConfig) -> list[str]:
    """Given credentials, in the order of the kinds, and then signed tokens."""
    kinds, names = credential_kinds(auth), credential_names(auth)
    told = {"bearer": "bearer", "api_key": f"api_key in {auth.header}"}
    static = [text for kind, text in told.items() if kind in kinds]
    ways = (
        [f"{' or '.join(static)}, {_count(len(names), 'client')}: {_names(names)}"]
        if static
        else []
    )
    oauth = auth.oauth
    if "oauth" in kinds and oauth is not None:
        if oauth.issuer is not None:
            source = f"of {oauth.issuer}"
        else:
            source = f"signed with the keys at {parse_upstream_url(oauth.jwks_uri or '')}"
        scopes = f", scopes {_names(oauth.scopes)}" if oauth.scopes else ""
        ways.append(f"oauth for {oauth.resource}, tokens {source}{scopes}")
    return ways


def _rate_limit(limit: RateLimitConfig) -> str:
    if not limit.enabled:
        return "off"
    parts = [f"{limit.rps:g}/s burst {limit.burst} in all"]
    if limit.client_rps > 0:
        parts.append(f"{limit.client_rps:g}/s burst {limit.client_burst or limit.burst} a client")
    if limit.per_tool:
        rps = limit.tool_rps if limit.tool_rps > 0 else limit.rps
        burst = limit.tool_burst if limit.tool_burst > 0 else limit.burst
        parts.append(f"{rps:g}/s burst {burst} a tool")
    return ", ".join(parts)


def _audit(config: Config) -> str:
    audit = config.audit
    if not audit.enabled:
        return "off"
    if audit.output == "file":
        where = _one_line(audit.path or "")
        if audit.max_bytes:
            where += f", rotated at {audit.max_bytes} bytes, {audit.keep} kept"
    else:
        where = "stderr" if audit.output == "stderr" else "stdout"
    arguments = "with redacted arguments" if audit.arguments else "without arguments"
    full = "waits when full" if audit.on_full == "block" else "drops and counts when full"
    return f"{where}, {arguments}, {full}"


def _cors(config: Config) -> str:
    if not config.cors.enabled:
        return "off"
    return (
        _names(config.cors.allowed_origins) if config.cors.allowed_origins else "no other origins"
    )


def _keeps_pins(config: Config) -> bool:
    return config.inspection.tool_integrity in ("warn", "enforce")


def _integrity(config: Config) -> str:
    inspection = config.inspection
    where = f"pins in {_one_line(config.data_dir)}"
    if inspection.tool_integrity == "warn":
        return f"warn: reports changed tools, {where}"
    refused = ["changed"]
    if inspection.refuse_added:
        refused.append("added")
    if inspection.refuse_shadowing:
        refused.append("shadowing")
    return f"enforce: refuses {', '.join(refused)} tools, {where}"


def _cache(cache: CacheConfig) -> str:
    kept = format_duration(cache.default_ttl)
    return f"at most {_count(cache.max_entries, 'result')}, {cache.max_bytes} bytes in all, {kept} each"


def _switches(config: Config, *, on: bool) -> list[str]:
    """Features with a switch and nothing else to say about them here; others when off."""
    switches = {
        "list filtering": config.inspection.filter_tools_list,
        **({} if _keeps_pins(config) else {"tool integrity": False}),
        "circuit breaker": config.circuit_breaker.enabled,
        **({} if config.cache.enabled else {"cache": False}),
        "tracing": config.tracing.enabled,
        "lasting sessions": config.sessions.key is not None,
    }
    return [name for name, is_on in switches.items() if is_on is on]


# -- Servers


def _server(route: Route, config: Config) -> list[str]:
    server = route.server
    times = route.timeouts
    rows = [("policy", _policy(server.policy))]
    rows.extend(
        (f"{_one_line(client)} also", _policy(override.servers[route.name]))
        for client, override in config.clients.items()
        if route.name in override.servers
    )
    rows.append(
        (
            "timeouts",
            (
                f"connect {format_duration(times.connect_s)}, head {format_duration(times.head_s)}, "
                f"idle {format_duration(times.idle_s)}, total {format_duration(times.total_s)}"
            ),
        )
    )
    if server.paths:
        rows.append(
            ("paths", _names(server.paths) + (" and queries" if server.forward_query else ""))
        )
    elif server.forward_query:
        rows.append(("query", "forwarded"))
    if server.forward_headers:
        rows.append(("headers", f"forwards {_names(server.forward_headers)}"))
    if server.auth.type != "none":
        rows.append(("shows", _shown(server.auth)))
    if config.cache.enabled and (server.cache.tools or server.cache.read_only_tools):
        rows.append(("caches", _cached(server.cache)))
    return [f"  /mcp/{route.name} -> {masked_url(server)}", *_aligned(rows, "    ")]


def _shown(auth: ServerAuth) -> str:
    """What the server is shown, without a value of it."""
    match auth.type:
        case "none":
            return "nothing"
        case "headers":
            return f"headers {_names(list(auth.headers))}"
        case "bearer":
            return "a bearer token"
        case "api_key":
            return f"a key in {auth.header}"
        case "client_credentials":
            scopes = f", scopes {_names(auth.scopes)}" if auth.scopes else ""
            return f"a token got at {parse_upstream_url(auth.token_url or '')}{scopes}"


def _cached(cache: ServerCache) -> str:
    tools = [
        name
        + (f" {format_duration(tool.ttl)}" if tool.ttl is not None else "")
        + (" for all clients together" if tool.shared else "")
        for name, tool in cache.tools.items()
    ]
    if cache.read_only_tools:
        tools.insert(0, "what the server calls read-only")
    return _names(tools)


def _policy(policy: PolicyConfig) -> str:
    """The rules in words, in the order in which they are asked."""
    parts = ["read-only: no tool may be called"] if policy.read_only else []
    for noun in ("tools", "resources", "prompts"):
        allowed: list[str] = getattr(policy, f"allow_{noun}")
        denied: list[str] = getattr(policy, f"deny_{noun}")
        if denied:
            parts.append(f"no {noun} {_names(denied)}")
        if allowed:
            parts.append(f"only {noun} {_names(allowed)}")
    if policy.deny_methods:
        parts.append(f"no methods {_names(policy.deny_methods)}")
    if policy.allow_methods:
        parts.append(f"also methods {_names(policy.allow_methods)}")
    for tool, rules in policy.tool_rules.items():
        asked = ", ".join(f"{_one_line(name)} {_rule(rule)}" for name, rule in rules.args.items())
        parts.append(f"{_one_line(tool)} with {asked}")
    return "; ".join(parts) or "everything the protocol has"


def _rule(rule: ArgumentRule) -> str:
    """The names of the constraints; their values can be long, and stand in the file."""
    names = [
        name
        for name in rule.__struct_fields__
        if name != "required" and getattr(rule, name) is not None
    ]
    if rule.required:
        names.insert(0, "required")
    return f"({' and '.join(names)})"


def _names(names: list[str]) -> str:
    shown = ", ".join(_one_line(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _one_line(text: str) -> str:
    """``text`` as it is if it can be seen, else quoted: a terminal must not be steered by it."""
    return text if text.isprintable() and text else quote(text)
