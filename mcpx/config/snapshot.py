"""The configuration as the gateway runs it: compiled, frozen, and numbered.

An exchange reads the current ``Snapshot`` once and uses it to its end, so a reload can
swap one reference and never shows anybody half of two configurations. Everything that
can be worked out before the first request is: URLs are split, policies compiled and
combined, tokens hashed, networks parsed, time limits resolved.

A snapshot is only ever made from a configuration that ``validate`` accepts; faults of
both kinds come together, so that their author sees them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from mcpx.config.faults import MOST_PROBLEMS, Fault, Faulty, Path
from mcpx.config.forms import Listen, UpstreamUrl, parse_listen, parse_upstream_url
from mcpx.config.model import (
    AuthConfig,
    Config,
    OauthConfig,
    PolicyConfig,
    ServerConfig,
    TimeoutsConfig,
)
from mcpx.config.notices import notices
from mcpx.config.validate import validate
from mcpx.config.validate_auth import credential_kinds
from mcpx.core.addresses import Networks, parse_networks
from mcpx.core.globs import GlobSet, parse_glob
from mcpx.core.identity import Authenticator
from mcpx.core.oauth import WELL_KNOWN, ProtectedResource, ScopeRules, resource_for
from mcpx.core.origins import Origins
from mcpx.core.policy import Policy, PolicyFault, both, compile_policy
from mcpx.core.redaction import Redactor
from mcpx.secret import Secret

__all__ = ["Listen", "Oauth", "Route", "Snapshot", "Timeouts", "UpstreamUrl", "compile_snapshot"]

_DEFAULT_MAX_AGE: Final = "86400"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one upstream may take, in seconds: the server's own limits over the gateway's."""

    connect_s: float
    head_s: float
    idle_s: float
    stream_idle_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Route:
    """One server and all that is decided about it before a request comes.

    ``forward_headers`` are in lower case. ``url`` is None for a server that runs as a child process. ``client_policies`` are
    combined with the server's own already: deny from either is deny.
    """

    name: str
    server: ServerConfig
    url: UpstreamUrl | None
    policy: Policy
    client_policies: dict[str, Policy]
    forward_headers: frozenset[bytes]
    paths: GlobSet
    timeouts: Timeouts

    def policy_for(self, principal_name: str) -> Policy:
        """What holds for this principal here."""
        return self.client_policies.get(principal_name, self.policy)


@dataclass(frozen=True, slots=True)
class Oauth:
    """The gateway as a resource server: what it asks of tokens, and what it says of itself.

    ``gateway`` is the resource of the gateway's own pages, ``servers`` has one for each
    server, and ``documents`` tells by path whose metadata is asked for. ``reserved`` are
    the names of clients that have a credential of their own.
    """

    settings: OauthConfig
    gateway: ProtectedResource
    servers: dict[str, ProtectedResource]
    documents: dict[bytes, ProtectedResource]
    scopes: ScopeRules
    reserved: frozenset[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a request needs to know about the configuration.

    ``generation`` counts the configurations of a running gateway. ``authenticator`` is
    None when nobody is asked for a credential, ``oauth`` where no signed tokens are
    taken. ``public`` names the endpoints that need
    none, ``client_names`` whoever can be authenticated. ``warnings`` are for the operator, at start and in ``mcpx check``.
    """

    generation: int
    config: Config
    listen: Listen
    routes: dict[str, Route]
    authenticator: Authenticator | None
    oauth: Oauth | None
    origins: Origins
    redactor: Redactor
    trusted_networks: Networks
    public: frozenset[str]
    client_names: tuple[str, ...]
    warnings: tuple[str, ...]


def compile_snapshot(config: Config, *, generation: int) -> Snapshot:
    """``config`` checked and compiled. Raises ``Faulty`` with every fault in it."""
    faults = validate(config)
    told = [fault.path for fault in faults]
    policies = _Policies(config)
    faults += [fault for fault in policies.faults if not _is_told(fault.path, told)]
    if faults:
        raise Faulty(faults)
    try:
        return _compiled(config, policies, generation)
    except ValueError as error:
        # Core looks at its values once more. What it refuses and validate accepted is a
        # gap there; its messages name settings and show no credential.
        raise Faulty([Fault((), str(error))]) from None


class _Policies:
    """Every policy of a configuration, compiled, with the faults of those that can't be."""

    __slots__ = ("_clients", "_servers", "faults")

    def __init__(self, config: Config) -> None:
        self.faults: list[Fault] = []
        self._servers: dict[str, Policy] = {}
        self._clients: dict[str, dict[str, Policy]] = {}
        for index, server in enumerate(config.servers):
            policy = self._compiled(server.name, server.policy, ("servers", index, "policy"))
            if policy is not None:
                self._servers[server.name] = policy
        for client, override in config.clients.items():
            for name, source in override.servers.items():
                path: Path = ("clients", client, "servers", name)
                policy = self._compiled(name, source, path, client=client)
                if policy is not None and name in self._servers:
                    combined = both(self._servers[name], policy)
                    self._clients.setdefault(name, {})[client] = combined

    def _compiled(
        self, server: str, source: PolicyConfig, path: Path, client: str | None = None
    ) -> Policy | None:
        """``source`` compiled. A fault's part is left out, to find the ones behind it."""
        for _ in range(MOST_PROBLEMS):
            try:
                return compile_policy(server, source, client=client)
            except PolicyFault as fault:
                self.faults.append(Fault((*path, *fault.path), fault.message, fault.hint))
                rest = _without(source, fault.path)
                if rest is None:
                    break
                source = rest
        return None

    def of(self, server: str) -> tuple[Policy, dict[str, Policy]]:
        """A server's own policy, and the combined one of each client that has one."""
        return self._servers[server], self._clients.get(server, {})


def _without(policy: PolicyConfig, path: Path) -> PolicyConfig | None:
    """``policy`` without the part at ``path``, other paths staying as they are."""
    match path:
        case ("tool_rules", str(tool), "args", str(argument), *_):
            rule = policy.tool_rules[tool]
            args = {name: each for name, each in rule.args.items() if name != argument}
            rules = {**policy.tool_rules, tool: replace(rule, args=args)}
            return replace(policy, tool_rules=rules)
        case ("tool_rules", str(tool), *_):
            rules = {name: each for name, each in policy.tool_rules.items() if name != tool}
            return replace(policy, tool_rules=rules)
        case (str(name), int(index)):
            texts = list(getattr(policy, name))
            texts[index] = "left-out"
            return replace(policy, **{name: texts})
    return None


def _compiled(config: Config, policies: _Policies, generation: int) -> Snapshot:
    listen = parse_listen(config.listen)
    redact = config.audit.redact
    return Snapshot(
        generation=generation,
        config=config,
        listen=listen,
        routes={server.name: _route(server, policies, config) for server in config.servers},
        authenticator=_authenticator(config.auth),
        oauth=_oauth(config),
        origins=_origins(config, listen),
        redactor=Redactor(keys=redact.keys, patterns=redact.patterns, tools=redact.tools),
        trusted_networks=parse_networks(config.trusted_proxies),
        public=frozenset(config.auth.public),
        client_names=tuple(name for name, _ in _credentials(config.auth)),
        warnings=notices(config),
    )


def _route(server: ServerConfig, policies: _Policies, config: Config) -> Route:
    policy, client_policies = policies.of(server.name)
    return Route(
        name=server.name,
        server=server,
        url=parse_upstream_url(server.url) if server.url is not None else None,
        policy=policy,
        client_policies=client_policies,
        paths=GlobSet(parse_glob(path) for path in server.paths),
        forward_headers=frozenset(name.lower().encode() for name in server.forward_headers),
        timeouts=_timeouts(server, config.timeouts),
    )


def _timeouts(server: ServerConfig, gateway: TimeoutsConfig) -> Timeouts:
    own = server.timeouts
    request = server.request_timeout or None  # 0 has always meant the default
    return Timeouts(
        connect_s=_first(own.connect, gateway.connect),
        head_s=_first(own.head, request, gateway.head),
        idle_s=_first(own.idle, gateway.idle),
        stream_idle_s=_first(own.stream_idle, gateway.stream_idle),
        total_s=_first(own.total, request, gateway.total),
    )


def _first(*given: float | None) -> float:
    """The first limit that is set; the last one always is."""
    return float(next(limit for limit in given if limit is not None))


def _authenticator(auth: AuthConfig) -> Authenticator | None:
    if not auth.enabled:
        return None
    return Authenticator(credential_kinds(auth), auth.header, _credentials(auth))


def _oauth(config: Config) -> Oauth | None:
    auth = config.auth
    if not auth.enabled or "oauth" not in credential_kinds(auth):
        return None
    settings = auth.oauth
    assert settings is not None, "validate asks for it"
    assert settings.resource is not None, "validate asks for it"
    own = settings.resource
    issuers = settings.authorization_servers or ([settings.issuer] if settings.issuer else [])
    scopes = ScopeRules(settings.scopes, settings.scope_rules, settings.implied_scopes)
    gateway = ProtectedResource(
        own,
        authorization_servers=issuers,
        supported=scopes.initial(""),
        initial=scopes.initial(""),
    )
    servers = {
        server.name: ProtectedResource(
            resource_for(own, server.name),
            authorization_servers=issuers,
            supported=scopes.supported(server.name),
            initial=scopes.initial(server.name),
            also_accepted=[own] if settings.accept_gateway_audience else (),
        )
        for server in config.servers
    }
    return Oauth(
        settings=settings,
        gateway=gateway,
        servers=servers,
        # The gateway's own is also at the root, where older clients look.
        documents={
            WELL_KNOWN.encode(): gateway,
            **{each.metadata_path: each for each in (gateway, *servers.values())},
        },
        scopes=scopes,
        reserved=frozenset(("default", *(name for name, _ in _credentials(auth)))),
    )


def _credentials(auth: AuthConfig) -> list[tuple[str, Secret]]:
    """Who can be authenticated, and by what; nobody when authentication is off."""
    if not auth.enabled:
        return []
    own = [("default", auth.token)] if auth.token is not None else []
    return own + [(client.name, client.token) for client in auth.clients]


def _origins(config: Config, listen: Listen) -> Origins:
    cors = config.cors
    return Origins(
        loopback=listen.loopback,
        allowed_hosts=config.allowed_hosts,
        cors_enabled=cors.enabled,
        allowed_origins=cors.allowed_origins,
        allowed_methods=cors.allowed_methods,
        allowed_headers=cors.allowed_headers,
        max_age=cors.max_age if cors.max_age != "" else _DEFAULT_MAX_AGE,
    )


def _is_told(path: Path, told: list[Path]) -> bool:
    """Whether a fault at, above or below ``path`` is known already."""
    return any(path[: len(other)] == other or other[: len(path)] == path for other in told)
