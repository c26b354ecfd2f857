"""The configuration as its author writes it: one struct per YAML section.

These structs are the only description of the format. The JSON Schema for editors
and ``docs/configuration.md`` are generated from them, so a field's docstring (the
string under it) is what its user reads: one or two sentences, unit and default's
reason included.

A struct says what may be written, not what it means: nothing here is compiled,
looked up or opened, and no value depends on another. ``config/validate.py`` checks
across fields, ``config/snapshot.py`` compiles. It is long because the format is in one file.

Durations are Go's strings (``"30s"``, ``"2m"``, ``"1h30m"``) or numbers of seconds;
they arrive here as ``Duration`` (a float of seconds). Credentials arrive as
``Secret``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from mcpx.secret import Secret

__all__ = [
    "ApiClient",
    "ArgumentRule",
    "AuditConfig",
    "AuthConfig",
    "BreakerConfig",
    "CacheConfig",
    "CacheTool",
    "ClientOverride",
    "Config",
    "CorsConfig",
    "Duration",
    "HealthConfig",
    "InspectionConfig",
    "LimitsConfig",
    "LogConfig",
    "MetricsConfig",
    "OauthConfig",
    "PolicyConfig",
    "RateLimitConfig",
    "RedactConfig",
    "Scalar",
    "ScopeRule",
    "ServerAuth",
    "ServerCache",
    "ServerConfig",
    "ServerTimeouts",
    "ServerTls",
    "SessionsConfig",
    "TimeoutsConfig",
    "TlsConfig",
    "ToolRule",
    "TracingConfig",
]


class Duration(float):
    """Seconds, written as a Go duration string or a number."""

    __slots__ = ()


Scalar = str | bool | int | float
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every section shares: unknown keys are errors, and nothing changes after loading."""


class ArgumentRule(Section, frozen=True):
    """What one argument of a tool must look like. Every constraint given must hold."""

    equals: Scalar | None = None
    """The exact value. Numbers compare exactly, however large."""
    one_of: list[Scalar] | None = None
    """The values that are allowed."""
    prefix: str | None = None
    """The text must start so. For paths use `path_within`: a prefix sees no `..`."""
    suffix: str | None = None
    """The text must end so."""
    regex: str | None = None
    """An RE2 expression that must be found somewhere in the text; anchor it with `^` and `$`, or use `full_match`."""
    full_match: str | None = None
    """An RE2 expression that must match the whole text."""
    path_within: str | list[str] | None = None
    """Absolute folders. The text must be an absolute path that stays within one of them once `.`, `..`, `//` and percent-encoding are resolved."""
    required: bool | None = None
    """Whether a call without this argument is refused."""


class ToolRule(Section, frozen=True):
    """Rules about the arguments of one tool."""

    args: dict[str, ArgumentRule] = field(default_factory=dict)
    """Argument name to rule. A dotted name (`options.path`) reaches into objects, `*` stands for every element of an array or every member of an object."""


class PolicyConfig(Section, frozen=True):
    """What may be called, read and got. Deny wins over allow; an empty allow list allows all that is not denied."""

    read_only: bool = False
    """Refuse every `tools/call`, and show no tools."""
    allow_tools: list[str] = field(default_factory=list)
    """Tool names or globs (`*` any run, `?` one character). When given, every other tool is refused and hidden."""
    deny_tools: list[str] = field(default_factory=list)
    """Tool names or globs that are refused and hidden. Look-alikes (other case, full-width letters, added blanks) are refused too."""
    tool_rules: dict[str, ToolRule] = field(default_factory=dict)
    """Tool name or glob to rules about its arguments."""
    allow_resources: list[str] = field(default_factory=list)
    """Resource URIs or globs. When given, every other resource is refused and hidden."""
    deny_resources: list[str] = field(default_factory=list)
    """Resource URIs or globs that are refused and hidden."""
    allow_prompts: list[str] = field(default_factory=list)
    """Prompt names or globs. When given, every other prompt is refused and hidden."""
    deny_prompts: list[str] = field(default_factory=list)
    """Prompt names or globs that are refused and hidden."""
    allow_methods: list[str] = field(default_factory=list)
    """Methods outside the MCP specification that pass as well, by name or glob (`acme/*`). Without it they are refused."""
    deny_methods: list[str] = field(default_factory=list)
    """Methods that are refused, by name or glob (`logging/setLevel`, `completion/*`). `GET`, `DELETE` and `response` stand for opening an event stream, ending a session and answering a server's request; `*` is everything."""


class CacheTool(Section, frozen=True):
    """Caching of one tool's results."""

    ttl: Duration | None = None
    """How long a result is kept; the cache's `default_ttl` when absent. A server's own `ttlMs` can make it shorter, never longer."""
    shared: bool = False
    """Whether one client may be given what another client's call brought. Without it that happens where the server itself calls a result public (`cacheScope`), and nowhere else."""


class ServerCache(Section, frozen=True):
    """Which tools of a server are cached."""

    tools: dict[str, CacheTool] = field(default_factory=dict)
    """Tool name to its caching. A tool that is not named is not cached, unless `read_only_tools` covers it."""
    read_only_tools: bool = False
    """Whether tools whose definition says `readOnlyHint: true` are cached too. The server says so itself: turn it on for servers that you trust."""


class ServerTimeouts(Section, frozen=True):
    """How long one upstream may take. They override the gateway's own."""

    connect: Duration | None = None
    """Name lookup, TCP and TLS together."""
    head: Duration | None = None
    """From the request to the first byte of the answer's head."""
    idle: Duration | None = None
    """Silence within an answer's body. Event streams have `stream_idle`."""
    stream_idle: Duration | None = None
    """Silence on an event stream before it is closed; clients then resume it."""
    total: Duration | None = None
    """From the request to the answer's last byte, event streams excepted."""


class ServerTls(Section, frozen=True):
    """TLS towards one upstream. Certificates are always verified."""

    ca: str | None = None
    """A PEM file of authorities to trust instead of the system's."""
    cert: str | None = None
    """A PEM file with the gateway's client certificate, for servers that ask for one."""
    key: str | None = None
    """The PEM file with the client certificate's key."""
    server_name: str | None = None
    """The name to verify, where it differs from the URL's host."""


class ServerAuth(Section, frozen=True):
    """What the gateway shows to a server. Credentials of clients never go there."""

    type: Literal["none", "headers", "bearer", "api_key", "client_credentials"] = "none"
    """`headers` sends `headers`, `bearer` and `api_key` send one secret, `client_credentials` gets a token from `token_url` (OAuth 2.1)."""
    headers: dict[str, Secret] = field(default_factory=dict)
    """For headers: names and values. Like every secret here, a value may be `${NAME}`, or `file:/path` to be read from a file."""
    token: Secret | None = None
    """For bearer: the token."""
    header: str = "X-API-Key"
    """For api_key: the header that the key is sent in."""
    key: Secret | None = None
    """For api_key: the key."""
    token_url: str | None = None
    """For client_credentials: where tokens are got. Plain `http` is taken for loopback addresses alone."""
    client_id: str | None = None
    """For client_credentials: the gateway's own name there."""
    client_secret: Secret | None = None
    """For client_credentials: its secret there."""
    client_auth: Literal["basic", "post"] = "basic"
    """For client_credentials: whether id and secret are sent in the Authorization header or in the form."""
    scopes: list[str] = field(default_factory=list)
    """For client_credentials: the scopes to ask for."""
    resource: str | None = None
    """For client_credentials: the server that the token is for (RFC 8707)."""
    audience: str | None = None
    """For client_credentials: the same for authorization servers that read `audience` instead."""
    parameters: dict[str, str] = field(default_factory=dict)
    """For client_credentials: further fields of the form."""
    ca: str | None = None
    """For client_credentials: a PEM file of authorities to trust for `token_url` instead of the system's."""


class ServerConfig(Section, frozen=True):
    """One MCP server behind the gateway, reached at `/mcp/{name}`."""

    name: str
    """Letters, digits, `-`, `_` and `.`; unique. It is in the endpoint's path, the metrics and the audit."""
    url: str | None = None
    """The server's endpoint, used exactly as written: nothing is added, cleaned or followed."""
    transport: Literal["http", "sse", "stdio"] = "http"
    """`http` is Streamable HTTP; `sse` is read as `http`; `stdio` runs `command`."""
    command: str | None = None
    """For stdio: the program to run."""
    args: list[str] = field(default_factory=list)
    """For stdio: its arguments."""
    env: dict[str, str] = field(default_factory=dict)
    """For stdio: variables added to its environment."""
    workdir: str | None = None
    """For stdio: the folder it runs in."""
    request_timeout: Duration | None = None
    """How long one request may take, head and body; short for `timeouts.head` and `timeouts.total`."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What clients may do on this server."""
    auth: ServerAuth = field(default_factory=ServerAuth)
    """What the gateway shows to the server."""
    cache: ServerCache = field(default_factory=ServerCache)
    """Which results are cached."""
    timeouts: ServerTimeouts = field(default_factory=ServerTimeouts)
    """Time limits that differ from the gateway's."""
    tls: ServerTls = field(default_factory=ServerTls)
    """TLS towards the server, for `https` URLs."""
    forward_headers: list[str] = field(default_factory=list)
    """Request headers of the client's that also go upstream. Credentials, cookies and hop-by-hop headers can't be named."""
    paths: list[str] = field(default_factory=list)
    """Paths below `/mcp/{name}` that are forwarded as well, appended to the URL's path; exact or glob. None by default."""
    forward_query: bool = False
    """Whether a query string of the client's is sent upstream. Refused otherwise."""
    max_connections: Positive = 512
    """Connections to this server at one time; further requests wait for one until `timeouts.connect` has passed."""


class ApiClient(Section, frozen=True):
    """One client that authenticates with a token of its own."""

    name: str
    """Its name in policy, limits, audit and metrics; unique."""
    token: Secret
    """Its credential. Write `${NAME}` and keep the value in the environment."""


class ScopeRule(Section, frozen=True):
    """Scopes that some operations need. Every rule that matches adds its own."""

    scopes: list[str]
    """The scopes that a token must have, all of them."""
    servers: list[str] = field(default_factory=list)
    """Names or globs of servers; all when empty."""
    methods: list[str] = field(default_factory=list)
    """Methods or globs (`tools/*`); all when empty."""
    tools: list[str] = field(default_factory=list)
    """Tools that are called, by name or glob; with one given, the rule is about calls alone."""


class OauthConfig(Section, frozen=True):
    """The gateway as an OAuth 2.1 resource server."""

    resource: str | None = None
    """The gateway's own canonical URI, such as `https://mcp.example.com`. The endpoint of a server is the resource `{resource}/mcp/{name}`; tokens must name one of the two as their audience (RFC 8707)."""
    issuer: str | None = None
    """The `iss` that tokens must carry."""
    jwks_uri: str | None = None
    """Where the authorization server publishes its keys; found through the issuer's metadata when absent."""
    authorization_servers: list[str] = field(default_factory=list)
    """Issuers to name in the protected resource metadata (RFC 9728); `issuer` when empty."""
    accept_gateway_audience: bool = True
    """Whether a token for the gateway as a whole (`resource`) is good at every server. With `false` each server needs a token of its own."""
    scopes: list[str] = field(default_factory=list)
    """Scopes that everything needs."""
    scope_rules: list[ScopeRule] = field(default_factory=list)
    """Scopes that servers, methods and tools need besides."""
    implied_scopes: dict[str, list[str]] = field(default_factory=dict)
    """Scope to the scopes that it includes: `{admin: [read, write]}`."""
    leeway: Duration = Duration(30)
    """By how much clocks may differ when a token's times are looked at."""
    jwks_max_age: Duration = Duration(3600)
    """How long keys are used before they are fetched again."""
    jwks_max_stale: Duration = Duration(86_400)
    """How long they are used while fetching fails."""
    token_cache_age: Duration = Duration(300)
    """How long a token that was verified is not verified again; never past its own end."""
    allow_private_addresses: bool = False
    """Whether addresses that the issuer's metadata names may be on a private network. Without it they must be public, so that nobody makes the gateway ask its own network."""
    ca: str | None = None
    """A PEM file of authorities to trust for the authorization server instead of the system's."""


class AuthConfig(Section, frozen=True):
    """Who may use the gateway."""

    enabled: bool = False
    """Whether a credential is asked for. With `true`, `type` must name how."""
    type: Literal["", "none", "bearer", "api_key", "oauth"] = ""
    """`bearer` reads `Authorization: Bearer …` and knows the tokens given here, `api_key` reads `header`, `oauth` takes signed tokens of an authorization server."""
    types: list[Literal["bearer", "api_key", "oauth"]] = field(default_factory=list)
    """Several ways side by side instead of `type`: a request shows a credential of one of them."""
    token: Secret | None = None
    """One token for everybody; its principal is called `default`."""
    header: str = "X-API-Key"
    """The header that `api_key` reads."""
    clients: list[ApiClient] = field(default_factory=list)
    """Clients with a name and a token each."""
    identity_claim: str = "sub"
    """For oauth: the claim that names the principal."""
    oauth: OauthConfig | None = None
    """Settings of `type: oauth`."""
    operators: list[str] = field(default_factory=list)
    """Clients that may read `/servers`, `/metrics` and all of `/health`. When empty, every client may."""
    public: list[Literal["health", "metrics", "servers"]] = field(default_factory=list)
    """Pages that need no credential. `/health` never needs one: without it, it tells its status and nothing else, whether it is named here or not."""


class ClientOverride(Section, frozen=True):
    """What one client may do, on top of each server's own policy. It can only take away."""

    servers: dict[str, PolicyConfig] = field(default_factory=dict)
    """Server name to the policy that this client must satisfy as well."""


class RedactConfig(Section, frozen=True):
    """What the audit log must not contain."""

    keys: list[str] = field(default_factory=list)
    """Argument names whose values become `***`, at any depth, in any case; added to the built-in ones (password, token, secret, authorization, …)."""
    patterns: list[str] = field(default_factory=list)
    """RE2 expressions; what they match becomes `***`."""
    tools: list[str] = field(default_factory=list)
    """Tools, by name or glob, whose arguments are left out whole."""


class AuditConfig(Section, frozen=True):
    """One JSON line for every decision."""

    enabled: bool = False
    """Whether decisions are recorded."""
    output: Literal["stdout", "stderr", "file", "json", ""] = "stdout"
    """Where to; `json` is read as `stdout`."""
    path: str | None = None
    """For `file`: the file, relative to the folder that the gateway is started in. It is created for its owner alone, with its folders."""
    arguments: bool = False
    """Whether the arguments of tool calls are recorded, redacted."""
    redact: RedactConfig = field(default_factory=RedactConfig)
    """What is masked in them."""
    max_bytes: Count = 100 * 1024 * 1024
    """The size at which the file is rotated; 0 for never."""
    keep: Count = 5
    """How many rotated files are kept: exactly so many."""
    queue: Positive = 8192
    """Records that may wait to be written."""
    on_full: Literal["block", "shed"] = "block"
    """When the queue is full: `block` makes requests wait, then answers 503; `shed` drops records, counts them, and writes the count."""


class RateLimitConfig(Section, frozen=True):
    """Token buckets. A request must find a token in each that is on."""

    enabled: bool = False
    """Whether requests are limited."""
    rps: float = 0.0
    """Requests a second, all clients together."""
    burst: int = 0
    """The size of that bucket."""
    client_rps: float = 0.0
    """Requests a second of each client (by name, or by address without authentication); 0 for no such limit."""
    client_burst: int = 0
    """The size of a client's bucket; `burst` when 0."""
    per_tool: bool = False
    """Whether each tool of each server has a bucket of its own."""
    tool_rps: float = 0.0
    """Calls a second of one tool; `rps` when 0 or less."""
    tool_burst: int = 0
    """The size of a tool's bucket; `burst` when 0 or less."""
    max_keys: Positive = 10_000
    """Buckets kept at one time; the one idle longest goes first."""


class CorsConfig(Section, frozen=True):
    """Which web pages may call the gateway from a browser."""

    enabled: bool = False
    """Whether preflight requests are answered and CORS headers sent."""
    allowed_origins: list[str] = field(default_factory=list)
    """Origins such as `https://app.example.com`; `*` for all. Pages on this machine may always call a gateway on its loopback address."""
    allowed_methods: list[str] = field(default_factory=list)
    """Methods told to browsers; GET, POST, DELETE and OPTIONS when empty."""
    allowed_headers: list[str] = field(default_factory=list)
    """Request headers told to browsers; those that MCP clients send when empty."""
    max_age: str | int = "86400"
    """Seconds for which a browser may keep a preflight's answer."""


class InspectionConfig(Section, frozen=True):
    """What is looked for in answers."""

    tool_integrity: Literal["", "off", "warn", "enforce"] = ""
    """Whether a tool whose definition changed is reported (`warn`) or refused (`enforce`)."""
    filter_tools_list: bool = True
    """Whether what a client may not call is left out of its lists."""
    max_age: Duration = Duration(60)
    """How long a tool's definition counts as seen. A call after that lists the server's tools first, which finds what changed without a word; 0 lists before every call."""
    refuse_added: bool = False
    """With `enforce`: whether a tool that was added later is refused until it is approved."""
    refuse_shadowing: bool = False
    """With `enforce`: whether a new tool that has another server's tool name or description is refused until it is approved."""


class BreakerConfig(Section, frozen=True):
    """When a failing server is left alone for a while."""

    enabled: bool = False
    """Whether servers have a circuit breaker."""
    failure_threshold: Count = 5
    """Failures in a row that open it."""
    cooldown: Duration = Duration(30)
    """How long it stays open."""
    half_open_max: Count = 1
    """Requests that may try it afterwards at one time."""


class TracingConfig(Section, frozen=True):
    """OpenTelemetry spans."""

    enabled: bool = False
    """Whether spans are exported."""
    exporter: Literal["", "otlp", "stdout"] = "otlp"
    """Where to."""
    endpoint: str | None = None
    """The collector, `host:port`."""
    service_name: str = "mcpx"
    """The service's name in the traces."""
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """The share of traces that is recorded."""
    insecure: bool = True
    """Whether the collector is reached without TLS."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers for the collector."""


class CacheConfig(Section, frozen=True):
    """Results kept and given again."""

    enabled: bool = False
    """Whether there is a cache. Alone it caches nothing: servers name their tools."""
    max_entries: Count = 1000
    """Results kept at one time; 0 for none."""
    default_ttl: Duration = Duration(60)
    """How long, where a tool says nothing else."""
    max_body_bytes: Count = 262_144
    """The largest result that is kept."""
    max_bytes: Positive = 64 * 1024 * 1024
    """All results together."""
    purge_on_reload: bool = False
    """Whether a reload empties it."""


class TlsConfig(Section, frozen=True):
    """TLS on the gateway's own listener."""

    cert: str
    """A PEM file with the certificate and its chain, relative to the folder that the gateway is started in."""
    key: str
    """The PEM file with its key."""


class LimitsConfig(Section, frozen=True):
    """Bounds on what one peer can make the gateway hold."""

    max_header_bytes: Positive = 32_768
    """A request's or an answer's head."""
    max_header_count: Positive = 100
    """Headers in one head."""
    max_body_bytes: Positive = 4 * 1024 * 1024
    """A request's body."""
    max_unauthenticated_bytes: Count = 65_536
    """A request's body before its sender is known; larger ones are refused unread when authentication is on."""
    max_bodies_bytes: Positive = 256 * 1024 * 1024
    """Bodies that are on their way at one time, together; further ones get 503."""
    max_calls_per_client: Positive = 256
    """Requests of one client (by name, or by address without authentication) that servers work on at one time."""
    max_streams_per_client: Positive = 1024
    """Event streams of one client that are open at one time."""
    max_depth: Positive = 64
    """Nesting of a JSON-RPC message."""
    max_listing_bytes: Positive = 16 * 1024 * 1024
    """An answer, or one event of a stream, that must be held whole to be filtered."""
    max_connections: Positive = 16_384
    """Client connections at one time; further ones wait to be accepted."""


class TimeoutsConfig(Section, frozen=True):
    """Bounds on how long one peer can keep the gateway waiting."""

    read: Duration = Duration(30)
    """A request's head and body, from its first byte to its last. A body that keeps coming at 8 KiB a second or more has the time that it takes."""
    write: Duration = Duration(60)
    """A client that takes nothing of its answer."""
    keep_alive: Duration = Duration(120)
    """A connection without a request."""
    connect: Duration = Duration(5)
    """Reaching a server: name lookup, TCP and TLS."""
    head: Duration = Duration(300)
    """A server's first byte of an answer."""
    idle: Duration = Duration(60)
    """Silence within an answer's body."""
    stream_idle: Duration = Duration(3600)
    """Silence on an event stream."""
    total: Duration = Duration(600)
    """A whole exchange, event streams excepted."""
    drain: Duration = Duration(10)
    """What is in flight when the gateway is told to stop."""


class HealthConfig(Section, frozen=True):
    """How `/health` looks at the servers."""

    timeout: Duration = Duration(5)
    """One server's probe."""
    cache_ttl: Duration = Duration(5)
    """How long a finding is given again before servers are asked anew."""


class MetricsConfig(Section, frozen=True):
    """What `/metrics` shows."""

    milliseconds: bool = False
    """Also show `mcpx_request_duration_ms`, for dashboards that expect it. Linters object to its unit."""
    max_tools: Count = 512
    """Tool names that get a label of their own on each server; further ones are `other`."""


class LogConfig(Section, frozen=True):
    """The gateway's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe message that is shown."""
    format: Literal["auto", "text", "json"] = "auto"
    """`text` is key=value; `auto` colours it on a terminal."""


class SessionsConfig(Section, frozen=True):
    """How session ids are sealed."""

    key: Secret | None = None
    """A secret of 32 or more characters, the same on every replica. Without it a new one is made at each start, and clients begin new sessions after a restart."""


class Config(Section, frozen=True):
    """The whole file. Every section is optional."""

    listen: str = ":8080"
    """`host:port`, `:port` for every interface, or `unix:/path`."""
    servers: list[ServerConfig] = field(default_factory=list)
    """The MCP servers behind the gateway."""
    auth: AuthConfig = field(default_factory=AuthConfig)
    """Who may use it."""
    clients: dict[str, ClientOverride] = field(default_factory=dict)
    """What single clients may not do."""
    audit: AuditConfig = field(default_factory=AuditConfig)
    """The record of decisions."""
    rate_limit: RateLimitConfig = field(default_factory=RateLimitConfig)
    """How much may be asked."""
    cors: CorsConfig = field(default_factory=CorsConfig)
    """Browsers."""
    allowed_hosts: list[str] = field(default_factory=list)
    """Names in `Host` that are served, with or without port. A loopback listener serves loopback names in any case; another one serves every name when this is empty."""
    trusted_proxies: list[str] = field(default_factory=list)
    """Networks (`10.0.0.0/8`) whose `X-Forwarded-For` is believed. Whoever comes through a Unix socket is believed as well, once this names anything."""
    inspection: InspectionConfig = field(default_factory=InspectionConfig)
    """Looking into answers."""
    circuit_breaker: BreakerConfig = field(default_factory=BreakerConfig)
    """Failing servers."""
    tracing: TracingConfig = field(default_factory=TracingConfig)
    """Spans."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Kept results."""
    tls: TlsConfig | None = None
    """TLS on the listener."""
    http2: bool = False
    """Whether the TLS listener speaks HTTP/2 as well. It costs more CPU a request."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Bounds on size."""
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    """Bounds on time."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """Health probes."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Metrics."""
    log: LogConfig = field(default_factory=LogConfig)
    """The gateway's own log."""
    sessions: SessionsConfig = field(default_factory=SessionsConfig)
    """Session ids."""
    data_dir: str = "mcpx-data"
    """The folder for what must last, such as pinned tools, relative to the folder that the gateway is started in. It is made when something is kept."""
