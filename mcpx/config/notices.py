"""What is allowed and may still surprise: warnings, in words for the operator.

A notice never stops anything. What would be unsafe without anybody's knowing is a
fault (``validate.py``); what the operator may well want, but should have been told,
is here. Settings that are read and have no effect yet stand in one table: when a
version gives a setting its effect, its row goes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from mcpx.config import forms
from mcpx.config.faults import Path, nearest, path_text, quote
from mcpx.config.model import Config, PolicyConfig
from mcpx.core.globs import GlobSet, is_literal, parse_glob

__all__ = ["NOT_ACTIVE", "Inactive", "notices"]

_SHORT_TOKEN: Final = 16  # characters
_PRIVATE_SUFFIXES: Final = (
    ".internal", ".intranet", ".lan", ".local", ".localhost", ".home.arpa", ".svc", ".test",
)  # fmt: skip


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
    Inactive(
        lambda config: [("cache", "enabled")] if config.cache.enabled else [],
        "every call goes to its server",
    ),
    Inactive(
        lambda config: [("tracing", "enabled")] if config.tracing.enabled else [],
        "no spans are exported",
    ),
    Inactive(
        lambda config: (
            [("inspection", "tool_integrity")]
            if config.inspection.tool_integrity in ("warn", "enforce")
            else []
        ),
        "a tool whose definition changed is neither reported nor refused",
    ),
)
"""Settings that load and have no effect in this version."""


def notices(config: Config) -> tuple[str, ...]:
    """Warnings about a configuration that passed ``validate``."""
    return (
        *_inactive(config),
        *_access(config),
        *_browsers(config),
        *_upstreams(config),
        *_policies(config),
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
        if url.scheme == "http" and _is_public(url.host):
            yield (
                f"servers[{index}].url: {quote(server.name)} is reached without TLS and is not on "
                "this network by its name: calls and results can be read and changed on the way"
            )


def _policies(config: Config) -> Iterator[str]:
    """Rules that can never matter: most likely a name is misspelt."""
    for index, server in enumerate(config.servers):
        yield from _idle_rules(server.policy, ("servers", index, "policy"))
    for client, override in config.clients.items():
        for server_name, policy in override.servers.items():
            yield from _idle_rules(policy, ("clients", client, "servers", server_name))


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


def _is_public(host: str) -> bool:
    """Whether ``host`` is beyond this machine and its network, as far as its text tells."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.lower().rstrip(".")
        return "." in name and not name.endswith(_PRIVATE_SUFFIXES)
