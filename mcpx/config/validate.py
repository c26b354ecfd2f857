"""What must hold across fields, and the forms of single texts.

Every check adds a ``Fault`` with the path of the setting to mend, and goes on: the
author sees all of them at once. The rule behind the checks is that nothing may be
silently without effect where its author counts on it. A policy for a client that
can't exist, authentication without a way to authenticate and a pattern that does not
compile are errors, not remarks.

Nothing is looked up or opened here, and no message has a credential in it.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from mcpx.config import forms
from mcpx.config.faults import Fault, Path, nearest, quote
from mcpx.config.model import (
    AuthConfig,
    Config,
    Duration,
    PolicyConfig,
    ServerConfig,
)
from mcpx.core.origins import Origins
from mcpx.core.redaction import Redactor
from mcpx.secret import Secret

__all__ = ["validate"]

_LONGEST_TOKEN: Final = 4096  # bytes, what the authenticator looks at
_LONGEST_NAME: Final = 128
_LONGEST_AGE: Final = 9  # digits
_SEALING_KEY: Final = 32  # characters
_BEARER: Final = frozenset(string.ascii_letters + string.digits + "-._~+/")

# Never sent upstream: who the client is to the gateway is no business of the server's.
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "set-cookie", "x-api-key"})
# Written anew for each hop, from what was judged.
_CONTENT: Final = frozenset({"accept", "content-type", "origin"})
#: What travels upstream, and so can't hold a credential for the gateway.
_PASSED_ON: Final = frozenset(
    {"accept-language", "baggage", "last-event-id", "traceparent", "tracestate", "user-agent"}
)

# Durations for which no time at all makes sense: the cache of /health may be off.
_MAY_BE_ZERO: Final = frozenset({"cache_ttl", "ttl", "default_ttl", "cooldown", "request_timeout"})


def validate(config: Config) -> list[Fault]:
    """Everything that is wrong with ``config``, policies excepted that ``snapshot`` compiles."""
    faults: list[Fault] = []
    for check in _CHECKS:
        faults.extend(check(config))
    return faults


def _listen(config: Config) -> Iterator[Fault]:
    yield from _form(("listen",), forms.parse_listen, config.listen)
    if config.http2 and config.tls is None:
        yield Fault(
            ("http2",), "needs tls: browsers and clients speak HTTP/2 over TLS alone", "add tls"
        )
    if config.tls is not None:
        yield from _form(("tls", "cert"), forms.check_file, config.tls.cert)
        yield from _form(("tls", "key"), forms.check_file, config.tls.key)
    yield from _each(
        ("allowed_hosts",),
        config.allowed_hosts,
        forms.check_allowed_host,
        lambda host: Origins(loopback=True, allowed_hosts=[host]),
    )
    for index, network in enumerate(config.trusted_proxies):
        yield from _form(("trusted_proxies", index), forms.parse_network, network)


# -- Servers


def _servers(config: Config) -> Iterator[Fault]:
    first: dict[str, ServerConfig] = {}
    for index, server in enumerate(config.servers):
        path: Path = ("servers", index)
        yield from _form((*path, "name"), forms.check_server_name, server.name)
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
        yield from _forwarding(server, path, config.auth)
        yield from _policy(server.policy, (*path, "policy"))
        for tool in server.cache.tools:
            if not tool:
                yield Fault(
                    (*path, "cache", "tools", tool),
                    _of(server, "a tool without a name"),
                    at_key=True,
                )


def _transport(server: ServerConfig, path: Path) -> Iterator[Fault]:
    if server.transport == "stdio":
        if server.url is not None:
            yield Fault(
                (*path, "url"), _of(server, "url has no place with transport: stdio"), "remove it"
            )
        if not server.command:
            yield Fault((*path, "command"), _of(server, "transport: stdio needs a command"))
        else:
            yield from _form((*path, "command"), forms.check_file, server.command)
        yield from _process(server, path)
        return
    if server.command is not None:
        yield Fault(
            (*path, "command"),
            _of(server, "command needs transport: stdio"),
            "add it, or remove command",
        )
    if server.url is None:
        yield Fault((*path, "url"), _of(server, f"transport: {server.transport} needs a url"))
    else:
        yield from _form((*path, "url"), forms.parse_upstream_url, server.url, server)


def _process(server: ServerConfig, path: Path) -> Iterator[Fault]:
    """What a system call could only refuse later."""
    for index, argument in enumerate(server.args):
        if "\0" in argument:
            yield Fault((*path, "args", index), _of(server, "an argument has a NUL character"))
    for name, value in server.env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            yield Fault(
                (*path, "env", name),
                _of(server, "no environment can hold this variable"),
                at_key=True,
            )
    if server.workdir is not None:
        yield from _form((*path, "workdir"), forms.check_file, server.workdir, server)


def _server_tls(server: ServerConfig, path: Path) -> Iterator[Fault]:
    tls = server.tls
    given = [
        name for name in ("ca", "cert", "key", "server_name") if getattr(tls, name) is not None
    ]
    for name in given:
        yield from _form((*path, "tls", name), forms.check_file, getattr(tls, name), server)
    if given and server.url is not None and not server.url.lower().startswith("https:"):
        yield Fault((*path, "tls"), _of(server, "tls has no effect on a url that is not https"))
    if (tls.cert is None) != (tls.key is None):
        missing = "cert" if tls.cert is None else "key"
        yield Fault(
            (*path, "tls", missing), _of(server, "cert and key go together, one is missing")
        )


def _forwarding(server: ServerConfig, path: Path, auth: AuthConfig) -> Iterator[Fault]:
    for index, header in enumerate(server.forward_headers):
        here: Path = (*path, "forward_headers", index)
        try:
            name = forms.check_header(header)
        except forms.FormError as error:
            yield Fault(here, _of(server, error.message), error.hint)
            continue
        if name in _CREDENTIALS or (auth.type == "api_key" and name == auth.header.lower()):
            yield Fault(
                here, _of(server, f"{name} carries a client's credential and is never forwarded")
            )
        elif forms.is_ours(name) or name in _CONTENT:
            yield Fault(here, _of(server, f"{name} is written by the gateway itself"), "remove it")
    for index, below in enumerate(server.paths):
        yield from _form((*path, "paths", index), forms.check_glob_path, below, server)


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
    known = _credential_names(config.auth)
    for client, override in config.clients.items():
        path: Path = ("clients", client)
        if not client:
            yield Fault(path, "a client without a name", at_key=True)
        elif not config.auth.enabled or config.auth.type in ("", "none"):
            yield Fault(
                path,
                "nobody is ever this client, because auth is off; its policy would never apply",
                "turn auth on, or put the policy on the server",
                at_key=True,
            )
        elif config.auth.type != "oauth" and client not in known:
            yield Fault(
                path,
                f"no credential belongs to a client {quote(client)}",
                _meant(client, known),
                at_key=True,
            )
        for server, policy in override.servers.items():
            here: Path = (*path, "servers", server)
            if server not in servers:
                yield Fault(
                    here,
                    f"there is no server {quote(server)}",
                    _meant(server, servers),
                    at_key=True,
                )
            yield from _policy(policy, here)


# -- Who may use it


def _auth(config: Config) -> Iterator[Fault]:
    auth = config.auth
    if auth.enabled:
        yield from _auth_type(auth)
    yield from _auth_header(auth)
    yield from _credentials(auth)
    known = _credential_names(auth)
    for index, operator in enumerate(auth.operators):
        if operator not in known:
            yield Fault(
                ("auth", "operators", index), f"no client is called {quote(operator)}",
                _meant(operator, known),
            )  # fmt: skip
    key = config.sessions.key
    if key is not None and len(key.reveal()) < _SEALING_KEY:
        yield Fault(
            ("sessions", "key"),
            f"is shorter than {_SEALING_KEY} characters",
            "make one with: openssl rand -hex 32",
        )


def _auth_type(auth: AuthConfig) -> Iterator[Fault]:
    if auth.type in ("", "none"):
        yield Fault(
            ("auth", "type"),
            "authentication is enabled without saying how, which would let everybody in",
            "write type: bearer or type: api_key, or enabled: false",
        )
    elif auth.type == "oauth":
        oauth = auth.oauth
        for name in ("resource", "jwks_uri"):
            if oauth is None or not getattr(oauth, name):
                yield Fault(("auth", "oauth", name), "is missing; type: oauth needs it")
        yield Fault(
            ("auth", "type"),
            "oauth is not served by this version: no token could be checked, and nobody is let in unchecked",
            "write type: bearer or type: api_key",
        )
    elif auth.token is None and not auth.clients:
        yield Fault(("auth",), f"type: {auth.type} needs a credential", "give token or clients")


def _auth_header(auth: AuthConfig) -> Iterator[Fault]:
    try:
        name = forms.check_header(auth.header)
    except forms.FormError as error:
        yield Fault(("auth", "header"), error.message, error.hint)
        return
    if name == "cookie" or name in _CONTENT | _PASSED_ON or forms.is_ours(name):
        yield Fault(
            ("auth", "header"), f"{name} has another meaning in HTTP", "X-API-Key is the usual one"
        )


def _credentials(auth: AuthConfig) -> Iterator[Fault]:
    """Names and tokens: there, unique, and such that a header can carry them."""
    names: set[str] = set()
    tokens: dict[Secret, str] = {}
    if auth.token is not None:
        names.add("default")
        tokens[auth.token] = "default"
        yield from _token(auth, auth.token, ("auth", "token"))
    for index, client in enumerate(auth.clients):
        path: Path = ("auth", "clients", index)
        if not client.name:
            yield Fault((*path, "name"), "is empty; policy and audit need one")
        elif len(client.name) > _LONGEST_NAME or not client.name.isprintable():
            yield Fault(
                (*path, "name"), f"has control characters or more than {_LONGEST_NAME} characters"
            )
        elif client.name in names:
            why = (
                " (auth.token's principal is called so)"
                if client.name == "default" and auth.token
                else ""
            )
            yield Fault(
                (*path, "name"),
                f"the name {quote(client.name)} is given twice{why}",
                "choose another",
            )
        names.add(client.name)
        yield from _token(auth, client.token, (*path, "token"))
        if client.token in tokens:
            other = tokens[client.token]
            yield Fault(
                (*path, "token"),
                f"is the token of {quote(other)} as well",
                "give each client one of its own",
            )
        else:
            tokens[client.token] = client.name


def _token(auth: AuthConfig, token: Secret, path: Path) -> Iterator[Fault]:
    text = token.reveal()
    if not auth.enabled:
        return
    if len(text) > _LONGEST_TOKEN:
        yield Fault(path, f"is longer than {_LONGEST_TOKEN} characters")
    elif auth.type == "bearer" and not _BEARER.issuperset(text.rstrip("=") or "="):
        yield Fault(
            path,
            "no client could send it: a Bearer token has letters, digits and -._~+/ alone, and = at its end",
            "look for blanks, line ends and quotes around it",
        )
    elif not text.isascii() or not text.isprintable() or " " in text:
        yield Fault(
            path,
            "no header can carry it: only visible ASCII characters without blanks can be sent",
            "look for blanks and line ends around it",
        )


# -- The other sections


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
        yield from _form(("audit", "path"), forms.check_file, audit.path)
    elif audit.enabled and audit.output == "file":
        yield Fault(("audit", "path"), "is missing; output: file needs it")
    redact = audit.redact
    here: Path = ("audit", "redact")
    yield from _each((*here, "keys"), redact.keys, _not_empty, _redacts("keys"))
    yield from _each((*here, "patterns"), redact.patterns, _not_empty, _redacts("patterns"))
    yield from _each((*here, "tools"), redact.tools, _not_empty, _redacts("tools"))


def _not_empty(text: str) -> None:
    if not text:
        raise forms.FormError("is empty")


def _redacts(name: str) -> Callable[[str], object]:
    return lambda text: Redactor(**{name: [text]})


def _cors(config: Config) -> Iterator[Fault]:
    cors = config.cors
    yield from _each(
        ("cors", "allowed_origins"),
        cors.allowed_origins,
        forms.check_origin,
        lambda origin: Origins(loopback=True, allowed_origins=[origin]),
    )
    for index, method in enumerate(cors.allowed_methods):
        yield from _form(("cors", "allowed_methods", index), forms.check_method, method)
    for index, header in enumerate(cors.allowed_headers):
        yield from _form(("cors", "allowed_headers", index), forms.check_header, header)
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
        yield from _form(("tracing", "endpoint"), forms.check_host_port, tracing.endpoint)
    elif tracing.enabled and tracing.exporter != "stdout":
        yield Fault(
            ("tracing", "endpoint"), "is missing; exporter: otlp needs the collector's host:port"
        )
    for name, value in tracing.headers.items():
        yield from _form(("tracing", "headers", name), forms.check_header, name)
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
    _auth,
    _rate_limit,
    _audit,
    _cors,
    _tracing,
    _durations,
)


def _form(
    path: Path, check: Callable[[str], object], text: str, server: ServerConfig | None = None
) -> Iterator[Fault]:
    try:
        check(text)
    except forms.FormError as error:
        message = error.message if server is None else _of(server, error.message)
        yield Fault(path, message, error.hint)


def _each(
    path: Path,
    texts: list[str],
    check: Callable[[str], object],
    use: Callable[[str], object],
) -> Iterator[Fault]:
    """The form of each text; where it is right, what the code that will use it says."""
    for index, text in enumerate(texts):
        faults = list(_form((*path, index), check, text))
        if not faults:
            try:
                use(text)
            except ValueError as error:
                faults = [Fault((*path, index), str(error))]
        yield from faults


def _of(server: ServerConfig, message: str) -> str:
    """``message`` with the server's name, since list positions say little."""
    return f"server {quote(server.name)}: {message}"


def _credential_names(auth: AuthConfig) -> list[str]:
    names = [client.name for client in auth.clients]
    return ["default", *names] if auth.token is not None else names


def _meant(name: str, known: list[str]) -> str:
    found = nearest(name, known)
    if found is not None:
        return f"did you mean {found}?"
    return f"known here: {', '.join(known[:10])}" if known else ""
