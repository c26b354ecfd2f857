"""What must hold across fields, and the forms of single texts.

Every check adds a ``Fault`` with the path of the setting to mend, and goes on: the
author sees all of them at once. The rule behind the checks is that nothing may be
silently without effect where its author counts on it. A policy for a client that
can't exist, authentication without a way to authenticate and a pattern that does not
compile are errors, not remarks.

What is about credentials has modules of its own: ``validate_auth`` about those that
clients show, ``validate_server_auth`` about those that the gateway shows.

Nothing is looked up or opened here, and no message has a credential in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from mcpx.config import forms
from mcpx.config.faults import Fault, Path, quote
from mcpx.config.form_faults import form_faults, list_faults, meant, of_server
from mcpx.config.model import AuthConfig, Config, Duration, PolicyConfig, ServerConfig
from mcpx.config.validate_auth import (
    auth_faults,
    could_be_signed,
    credential_kinds,
    credential_names,
)
from mcpx.config.validate_server_auth import CONTENT_HEADERS, server_auth_faults, shown_headers
from mcpx.core.origins import Origins
from mcpx.core.redaction import Redactor

__all__ = ["validate"]

_LONGEST_AGE: Final = 9  # digits
_SEALING_KEY: Final = 32  # characters

# Never sent upstream: who the client is to the gateway is no business of the server's.
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "set-cookie", "x-api-key"})

# Durations for which no time at all makes sense: the cache of /health may be off, clocks
# may be held to agree, a tool's definition may be looked at before every call.
_MAY_BE_ZERO: Final = frozenset(
    {
        "cache_ttl", "ttl", "default_ttl", "cooldown", "request_timeout", "max_age", "leeway",
        "token_cache_age", "jwks_max_stale",
    }
)  # fmt: skip


def validate(config: Config) -> list[Fault]:
    """Everything that is wrong with ``config``, policies excepted that ``snapshot`` compiles."""
    faults: list[Fault] = []
    for check in _CHECKS:
        faults.extend(check(config))
    return faults


def _listen(config: Config) -> Iterator[Fault]:
    yield from form_faults(("listen",), forms.parse_listen, config.listen)
    if config.http2 and config.tls is None:
        yield Fault(
            ("http2",), "needs tls: browsers and clients speak HTTP/2 over TLS alone", "add tls"
        )
    if config.tls is not None:
        yield from form_faults(("tls", "cert"), forms.check_file, config.tls.cert)
        yield from form_faults(("tls", "key"), forms.check_file, config.tls.key)
    yield from list_faults(
        ("allowed_hosts",),
        config.allowed_hosts,
        forms.check_allowed_host,
        lambda host: Origins(loopback=True, allowed_hosts=[host]),
    )
    for index, network in enumerate(config.trusted_proxies):
        yield from form_faults(("trusted_proxies", index), forms.parse_network, network)


# -- Servers


def _servers(config: Config) -> Iterator[Fault]:
    first: dict[str, ServerConfig] = {}
    for index, server in enumerate(config.servers):
        path: Path = ("servers", index)
        yield from form_faults((*path, "name"), forms.check_server_name, server.name)
        other = first.setdefault(server.name.casefold(), server)
        if other is not server:
            same = (
                "is given to two servers"
                if other.name == server.name
                else f"differs from {quote(other.name)} in case alone"
            )
            yield Fault((*path, "name"), f"the name {quote(server.name)} {same}", "choose another")
        yield from _transport(server, path)
        yield from _server_tls(server, path)
        yield from server_auth_faults(server, path)
        yield from _forwarding(server, path, config.auth)
        yield from _policy(server.policy, (*path, "policy"))
        for tool in server.cache.tools:
            if not tool:
                yield Fault(
                    (*path, "cache", "tools", tool),
                    of_server(server, "a tool without a name"),
                    at_key=True,
                )


def _transport(server: ServerConfig, path: Path) -> Iterator[Fault]:
    if server.transport == "stdio":
        if server.url is not None:
            yield Fault(
                (*path, "url"),
                of_server(server, "url has no place with transport: stdio"),
                "remove it",
            )
        if not server.command:
            yield Fault((*path, "command"), of_server(server, "transport: stdio needs a command"))
        else:
            yield from form_faults((*path, "command"), forms.check_file, server.command)
        yield from _process(server, path)
        return
    if server.command is not None:
        yield Fault(
            (*path, "command"),
            of_server(server, "command needs transport: stdio"),
            "add it, or remove command",
        )
    if server.url is None:
        yield Fault((*path, "url"), of_server(server, f"transport: {server.transport} needs a url"))
    else:
        yield from form_faults((*path, "url"), forms.parse_upstream_url, server.url, server)


def _process(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """What a system call could only refuse later."""
    for index, argument in enumerate(server.args):
        if "\0" in argument:
            yield Fault(
                (*path, "args", index), of_server(server, "an argument has a NUL character")
            )
    for name, value in server.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            yield Fault(
                (*path, "env", name),
                of_server(server, "no environment can hold this variable"),
                at_key=True,
            )
    if server.workdir is not None:
        yield from form_faults((*path, "workdir"), forms.check_file, server.workdir, server)


def _server_tls(server: ServerConfig, path: Path) -> Iterator[Fault]:
    tls = server.tls
    given = [
        name for name in ("ca", "cert", "key", "server_name") if getattr(tls, name) is not None
    ]
    for name in given:
        yield from form_faults((*path, "tls", name), forms.check_file, getattr(tls, name), server)
    if given and server.url is not None and not server.url.lower().startswith("https:"):
        yield Fault(
            (*path, "tls"), of_server(server, "tls has no effect on a url that is not https")
        )
    if (tls.cert is None) != (tls.key is None):
        missing = "cert" if tls.cert is None else "key"
        yield Fault(
            (*path, "tls", missing), of_server(server, "cert and key go together, one is missing")
        )


def _forwarding(server: ServerConfig, path: Path, auth: AuthConfig) -> Iterator[Fault]:
    read = {auth.header.lower()} if "api_key" in credential_kinds(auth) else set()
    shown = shown_headers(server.auth)
    for index, header in enumerate(server.forward_headers):
        here: Path = (*path, "forward_headers", index)
        try:
            name = forms.check_header(header)
        except forms.FormError as error:
            yield Fault(here, of_server(server, error.message), error.hint)
            continue
        if name in _CREDENTIALS or name in read:
            yield Fault(
                here,
                of_server(server, f"{name} carries a client's credential and is never forwarded"),
            )
        elif name in shown:
            yield Fault(
                here,
                of_server(server, f"{name} is what auth shows to the server, never a client's"),
                "remove it here or in auth",
            )
        elif forms.is_ours(name) or name in CONTENT_HEADERS:
            yield Fault(
                here, of_server(server, f"{name} is written by the gateway itself"), "remove it"
            )
    for index, below in enumerate(server.paths):
        yield from form_faults((*path, "paths", index), forms.check_glob_path, below, server)


# -- Policies


def _policy(policy: PolicyConfig, path: Path) -> Iterator[Fault]:
    """What compiling a policy does not see: rules that say nothing."""
    for tool, rules in policy.tool_rules.items():
        if not rules.args:
            yield Fault(
                (*path, "tool_rules", tool),
                "a rule without args does nothing",
                "name the arguments that it is about",
            )


def _clients(config: Config) -> Iterator[Fault]:
    servers = [server.name for server in config.servers]
    kinds = credential_kinds(config.auth) if config.auth.enabled else frozenset()
    known = credential_names(config.auth)
    for client, override in config.clients.items():
        path: Path = ("clients", client)
        if not client:
            yield Fault(path, "a client without a name", at_key=True)
        elif not kinds:
            yield Fault(
                path,
                "nobody is ever this client, because auth is off; its policy would never apply",
                "turn auth on, or put the policy on the server",
                at_key=True,
            )
        elif client not in known and not ("oauth" in kinds and could_be_signed(client)):
            yield Fault(
                path,
                f"no credential belongs to a client {quote(client)}",
                meant(client, known),
                at_key=True,
            )
        for server, policy in override.servers.items():
            here: Path = (*path, "servers", server)
            if server not in servers:
                yield Fault(
                    here,
                    f"there is no server {quote(server)}",
                    meant(server, servers),
                    at_key=True,
                )
            yield from _policy(policy, here)


# -- The other sections


def _sessions(config: Config) -> Iterator[Fault]:
    key = config.sessions.key
    if key is not None and len(key.reveal()) < _SEALING_KEY:
        yield Fault(
            ("sessions", "key"),
            f"is shorter than {_SEALING_KEY} characters",
            "make one with: openssl rand -hex 32",
        )


def _data_dir(config: Config) -> Iterator[Fault]:
    yield from form_faults(("data_dir",), forms.check_file, config.data_dir)


def _rate_limit(config: Config) -> Iterator[Fault]:
    limit = config.rate_limit
    if limit.enabled:
        for name in ("rps", "burst"):
            if getattr(limit, name) <= 0:
                yield Fault(("rate_limit", name), "must be more than 0 with enabled: true")
    for name in ("rps", "burst", "client_rps", "client_burst"):
        if getattr(limit, name) < 0 and not (limit.enabled and name in ("rps", "burst")):
            yield Fault(("rate_limit", name), "can't be negative")


def _audit(config: Config) -> Iterator[Fault]:
    audit = config.audit
    if audit.path is not None:
        yield from form_faults(("audit", "path"), forms.check_file, audit.path)
    elif audit.enabled and audit.output == "file":
        yield Fault(("audit", "path"), "is missing; output: file needs it")
    redact = audit.redact
    here: Path = ("audit", "redact")
    yield from list_faults((*here, "keys"), redact.keys, _not_empty, _redacts("keys"))
    yield from list_faults((*here, "patterns"), redact.patterns, _not_empty, _redacts("patterns"))
    yield from list_faults((*here, "tools"), redact.tools, _not_empty, _redacts("tools"))


def _not_empty(text: str) -> None:
    if not text:
        raise forms.FormError("is empty")


def _redacts(name: str) -> Callable[[str], object]:
    return lambda text: Redactor(**{name: [text]})


def _cors(config: Config) -> Iterator[Fault]:
    cors = config.cors
    yield from list_faults(
        ("cors", "allowed_origins"),
        cors.allowed_origins,
        forms.check_origin,
        lambda origin: Origins(loopback=True, allowed_origins=[origin]),
    )
    for index, method in enumerate(cors.allowed_methods):
        yield from form_faults(("cors", "allowed_methods", index), forms.check_method, method)
    for index, header in enumerate(cors.allowed_headers):
        yield from form_faults(("cors", "allowed_headers", index), forms.check_header, header)
    age = cors.max_age
    if (
        isinstance(age, str)
        and age
        and not (age.isascii() and age.isdigit() and len(age) <= _LONGEST_AGE)
    ):
        yield Fault(("cors", "max_age"), f"{quote(age)} is no number of seconds", 'write "86400"')
    elif isinstance(age, int) and not 0 <= age < 10**_LONGEST_AGE:
        yield Fault(("cors", "max_age"), "is no sensible number of seconds", "write 86400")


def _tracing(config: Config) -> Iterator[Fault]:
    tracing = config.tracing
    if tracing.endpoint:
        yield from form_faults(("tracing", "endpoint"), forms.check_host_port, tracing.endpoint)
    elif tracing.enabled and tracing.exporter != "stdout":
        yield Fault(
            ("tracing", "endpoint"), "is missing; exporter: otlp needs the collector's host:port"
        )
    for name, value in tracing.headers.items():
        yield from form_faults(("tracing", "headers", name), forms.check_header, name)
        if not value.isprintable():
            yield Fault(("tracing", "headers", name), "has a control character")


def _durations(config: Config) -> Iterator[Fault]:
    """Every duration, wherever the structs have one."""
    for path, seconds in _all_durations(config, ()):
        if seconds < 0:
            yield Fault(path, "a duration can't be negative")
        elif not seconds and path[-1] not in _MAY_BE_ZERO:
            yield Fault(path, "must be more than 0; no time at all would fail every request")


def _all_durations(value: object, path: Path) -> Iterator[tuple[Path, Duration]]:
    if isinstance(value, Duration):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _all_durations(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _all_durations(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _all_durations(item, (*path, index))


_CHECKS: Final[tuple[Callable[[Config], Iterable[Fault]], ...]] = (
    _listen,
    _servers,
    _clients,
    auth_faults,
    _sessions,
    _rate_limit,
    _audit,
    _cors,
    _tracing,
    _data_dir,
    _durations,
)
