"""What is allowed and may still surprise: warnings, in words for the operator.

A notice never stops anything. What would be unsafe without anybody's knowing is a
fault (``validate.py``); what the operator may well want, but should have been told,
is here. Settings that are read and have no effect yet stand in one table: when a
version gives a setting its effect, its row goes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from mcpx.config import forms
from mcpx.config.durations import format_duration
from mcpx.config.faults import Path, nearest, path_text, quote
from mcpx.config.model import Config, OauthConfig, PolicyConfig
from mcpx.config.validate_auth import credential_kinds
from mcpx.core.globs import GlobSet, is_literal, parse_glob

__all__ = ["NOT_ACTIVE", "Inactive", "notices"]

_SHORT_TOKEN: Final = 16  # characters
_LONG_LEEWAY_S: Final = 300
#: Folders that everyone may write to, and that a restart or a timer empties.
_PASSING_FOLDERS: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  named to warn of them


class Inactive(NamedTuple):
    """A setting without effect: where it is in a configuration, and what happens instead."""

    places: Callable[[Config], list[Path]]
    meanwhile: str


NOT_ACTIVE: Final = (
    Inactive(
        lambda config: [
            ("servers", index, "transport")
            for index, server in enumerate(config.servers)
            if server.transport == "stdio"
        ],
        "the server is not started, and requests for it are answered with an error",
    ),
)
"""Settings that load and have no effect in this version."""


def notices(config: Config) -> tuple[str, ...]:
    """Warnings about a configuration that passed ``validate``."""
    return (
        *_inactive(config),
        *_access(config),
        *_oauth(config),
        *_browsers(config),
        *_upstreams(config),
        *_policies(config),
        *_inspection(config),
        *_cache(config),
    )


def _inactive(config: Config) -> Iterator[str]:
    for row in NOT_ACTIVE:
        for path in row.places(config):
            value: Any = config
            for step in path:
                value = value[step] if isinstance(step, int) else getattr(value, step)
            shown = str(value).lower() if isinstance(value, bool) else value
            yield f"{path_text(path)}: {shown} is not active in this version: {row.meanwhile}"


def _access(config: Config) -> Iterator[str]:
    auth = config.auth
    listen = forms.parse_listen(config.listen)
    if not auth.enabled:
        if not listen.loopback:
            yield (
                f"listen: {listen} can be reached from other machines and auth.enabled is false: "
                "whoever reaches it may use every server"
            )
        if auth.token is not None or auth.clients:
            yield "auth: credentials are given, but enabled is false: nobody is asked for one"
    elif credential_kinds(auth) == {"oauth"} and (auth.token is not None or auth.clients):
        yield (
            "auth: credentials are given, but oauth alone takes tokens of the authorization server; "
            "write types: [oauth, bearer] to take both"
        )
    credentials = [(("auth", "token"), auth.token)] if auth.token is not None else []
    listed = [
        (("auth", "clients", index, "token"), client.token)
        for index, client in enumerate(auth.clients)
    ]
    for path, token in (*credentials, *listed):
        if len(token.reveal()) < _SHORT_TOKEN:
            yield (
                f"{path_text(path)}: shorter than {_SHORT_TOKEN} characters, and can be guessed; "
                "make one with: openssl rand -hex 32"
            )


def _oauth(config: Config) -> Iterator[str]:
    oauth = config.auth.oauth
    if "oauth" not in credential_kinds(config.auth):
        if oauth is not None:
            yield "auth.oauth: has no effect, for oauth is not among the types of authentication"
        if config.auth.identity_claim != "sub":
            yield "auth.identity_claim: has no effect without oauth"
        return
    if oauth is not None:
        yield from _oauth_names(oauth, config)
        yield from _oauth_times(oauth)


def _oauth_names(oauth: OauthConfig, config: Config) -> Iterator[str]:
    here = "auth.oauth"
    if oauth.resource is not None:
        if oauth.resource[:5].lower() == "http:":
            yield f"{here}.resource: is plain http: clients on this machine alone can use it"
        path = urlsplit(oauth.resource).path.rstrip("/")
        if path.endswith(("/mcp", *(f"/mcp/{server.name}" for server in config.servers))):
            yield (
                f"{here}.resource: the endpoints of servers are below it, so they would be at "
                f"{path}/mcp/…; leave /mcp and what follows it out"
            )
    if oauth.issuer is None:
        yield f"{here}: without an issuer, tokens of whatever issuer are taken that jwks_uri has keys of"
        if not oauth.authorization_servers:
            yield (
                f"{here}.authorization_servers: is empty, and there is no issuer: clients are not "
                "told where to get a token"
            )
    elif oauth.authorization_servers and oauth.issuer not in oauth.authorization_servers:
        yield (
            f"{here}.authorization_servers: does not name the issuer as it is written there: the "
            "tokens of those that clients are told of may be refused"
        )
    for index, rule in enumerate(oauth.scope_rules):
        globs = GlobSet(map(parse_glob, rule.servers))
        if rule.servers and not any(globs.matches(server.name) for server in config.servers):
            yield f"{here}.scope_rules[{index}].servers: matches no server, so the rule has no effect"


def _oauth_times(oauth: OauthConfig) -> Iterator[str]:
    if oauth.leeway > _LONG_LEEWAY_S:
        yield (
            f"auth.oauth.leeway: a token is taken for {format_duration(oauth.leeway)} after its end; "
            "clocks differ by seconds"
        )
    if 0 < oauth.jwks_max_stale < oauth.jwks_max_age:
        yield "auth.oauth.jwks_max_stale: is less than jwks_max_age, and has no effect"


def _browsers(config: Config) -> Iterator[str]:
    cors = config.cors
    if not cors.enabled:
        return
    if not cors.allowed_origins:
        yield "cors.enabled: true without allowed_origins: no page of another origin may call"
    elif "*" in cors.allowed_origins:
        yield "cors.allowed_origins: with * every web page may call the gateway from a visitor's browser"
    elif "null" in cors.allowed_origins:
        yield "cors.allowed_origins: null is the origin of sandboxed frames, which any web page can make"


def _upstreams(config: Config) -> Iterator[str]:
    for index, server in enumerate(config.servers):
        if server.transport == "stdio" or server.url is None:
            continue
        url = forms.parse_upstream_url(server.url)
        if url.scheme == "http" and forms.is_public_host(url.host):
            yield (
                f"servers[{index}].url: {quote(server.name)} is reached without TLS and is not on "
                "this network by its name: calls and results can be read and changed on the way"
            )
        elif (
            url.scheme == "http" and server.auth.type != "none" and not forms.is_loopback(url.host)
        ):
            yield (
                f"servers[{index}].auth: {quote(server.name)} is reached without TLS: whoever can "
                "listen on this network reads the credential"
            )


def _policies(config: Config) -> Iterator[str]:
    """Rules that can never matter: most likely a name is misspelt."""
    for index, server in enumerate(config.servers):
        yield from _idle_rules(server.policy, ("servers", index, "policy"))
    for client, override in config.clients.items():
        for server_name, policy in override.servers.items():
            yield from _idle_rules(policy, ("clients", client, "servers", server_name))


def _inspection(config: Config) -> Iterator[str]:
    inspection = config.inspection
    for name in ("refuse_added", "refuse_shadowing"):
        if getattr(inspection, name) and inspection.tool_integrity != "enforce":
            yield f"inspection.{name}: has no effect without tool_integrity: enforce"
    if inspection.tool_integrity in ("warn", "enforce"):
        folder = posixpath.normpath(config.data_dir)
        if any(folder == each or folder.startswith(f"{each}/") for each in _PASSING_FOLDERS):
            yield (
                "data_dir: the pinned tools are kept where everyone may write and where files are "
                "cleared away; name a folder of the gateway's own"
            )


def _cache(config: Config) -> Iterator[str]:
    cache = config.cache
    caching = [
        index
        for index, server in enumerate(config.servers)
        if server.cache.tools or server.cache.read_only_tools
    ]
    if not cache.enabled:
        for index in caching:
            yield f"servers[{index}].cache: has no effect, for cache.enabled is false"
        return
    if not caching:
        yield "cache.enabled: true without a tool to cache: name some in cache.tools of a server"
    for name in ("max_entries", "max_body_bytes"):
        if getattr(cache, name) == 0:
            yield f"cache.{name}: 0 means that no result is kept"


def _idle_rules(policy: PolicyConfig, path: Path) -> Iterator[str]:
    if not policy.allow_tools:
        return
    allowed = GlobSet(map(parse_glob, policy.allow_tools))
    for name in policy.tool_rules:
        if is_literal(parse_glob(name)) and not allowed.matches(name):
            near = nearest(name, policy.allow_tools)
            hint = f"; did you mean {near}?" if near else ""
            yield (
                f"{path_text((*path, 'tool_rules', name))}: has no effect, "
                f"for allow_tools does not allow this tool{hint}"
            )
    for name in policy.deny_tools:
        if name in policy.allow_tools:
            yield (
                f"{path_text((*path, 'deny_tools'))}: {quote(name)} is allowed as well; "
                "deny wins, so it is refused"
            )
