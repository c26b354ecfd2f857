"""What must hold of the credentials that clients show to the gateway.

What it is: the checks of ``auth``: how clients authenticate, which credentials belong to
whom, and the gateway as an OAuth resource server. What it must never do: let a
configuration pass that lets nobody or everybody in without its author's knowing, or
quote a credential.

Authentication may be of several types at one time. A credential given here belongs to
every type that reads given ones (``bearer`` and ``api_key``), so it must suit them all.
With ``oauth`` anybody may come of whom an authorization server says so: names of clients
can't be checked then.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from mcpx.config import forms
from mcpx.config.faults import Fault, Path, nearest, quote
from mcpx.config.form_faults import form_faults, meant
from mcpx.config.model import AuthConfig, Config, OauthConfig, ScopeRule
from mcpx.config.validate_server_auth import CONTENT_HEADERS, PASSED_ON_HEADERS
from mcpx.core.globs import GlobSet, is_literal, parse_glob
from mcpx.core.identity import Kind
from mcpx.core.oauth import ScopeRules, canonical_uri, is_scope
from mcpx.protocol.mcp import CLIENT_METHODS
from mcpx.secret import Secret

__all__ = ["auth_faults", "could_be_signed", "credential_kinds", "credential_names"]

_LONGEST_TOKEN: Final = 4096  # bytes, what the authenticator looks at
_LONGEST_NAME: Final = 128
_BEARER: Final = frozenset(string.ascii_letters + string.digits + "-._~+/")
# Whoever asks for it gets a token that outlives the user's presence; no resource needs it.
_OFFLINE: Final = "offline_access"
#: What stands for a method where a request has none.
_METHODS: Final = CLIENT_METHODS | {"GET", "DELETE", "response"}


def credential_kinds(auth: AuthConfig) -> frozenset[Kind]:
    """The ways to authenticate that are written, whether they are on or not."""
    if auth.types or auth.type == "":
        return frozenset(auth.types)
    return frozenset() if auth.type == "none" else frozenset((auth.type,))


def credential_names(auth: AuthConfig) -> list[str]:
    """The clients that have a credential of their own."""
    names = [client.name for client in auth.clients]
    return ["default", *names] if auth.token is not None else names


def could_be_signed(name: str) -> bool:
    """Whether a signed token may name its client so: ``core/jwt.py`` refuses other names.

    ``default`` is the client of ``auth.token``, whoever else says so.
    """
    return name != "default" and name.isprintable() and name == name.strip() and len(name) <= 256


def auth_faults(config: Config) -> Iterator[Fault]:
    """What is wrong with ``auth``."""
    auth = config.auth
    yield from _types(auth)
    if auth.enabled:
        yield from _ways_in(auth)
    yield from _header(auth)
    yield from _credentials(auth)
    yield from form_faults(("auth", "identity_claim"), forms.check_claim, auth.identity_claim)
    yield from _operators(auth)
    if auth.oauth is not None:
        yield from _oauth(auth.oauth, config)


# -- Ways to authenticate


def _types(auth: AuthConfig) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, kind in enumerate(auth.types):
        if kind in seen:
            yield Fault(("auth", "types", index), f"{kind} is there twice", "remove it")
        seen.add(kind)
    if auth.types and auth.type and auth.type not in auth.types:
        yield Fault(
            ("auth", "type"),
            f"{auth.type} is not among types, which it contradicts",
            "remove type, or add it to types",
        )


def _ways_in(auth: AuthConfig) -> Iterator[Fault]:
    kinds = credential_kinds(auth)
    if not kinds:
        yield Fault(
            ("auth", "type"),
            "authentication is enabled without saying how, which would let everybody in",
            "write type: bearer, type: api_key or type: oauth, or enabled: false",
        )
    static = [kind for kind in ("bearer", "api_key") if kind in kinds]
    if static and auth.token is None and not auth.clients:
        said = f"types with {static[0]}" if auth.types else f"type: {static[0]}"
        needs = "need" if auth.types else "needs"
        yield Fault(("auth",), f"{said} {needs} a credential", "give token or clients")
    if "oauth" in kinds:
        yield from _oauth_is_whole(auth.oauth or OauthConfig())
    beside = [kind for kind in ("bearer", "oauth") if kind in kinds]
    if beside and "api_key" in kinds and auth.header.lower() == "authorization":
        yield Fault(
            ("auth", "header"),
            f"{beside[0]} reads Authorization: api_key beside it needs another header",
            "X-API-Key is the usual one",
        )


def _oauth_is_whole(oauth: OauthConfig) -> Iterator[Fault]:
    """What a resource server can't do without."""
    if oauth.resource is None:
        yield Fault(
            ("auth", "oauth", "resource"),
            "is missing; oauth needs it",
            "write the gateway's own URI, such as https://mcp.example.com",
        )
    if oauth.issuer is None and oauth.jwks_uri is None:
        yield Fault(
            ("auth", "oauth", "issuer"),
            "is missing; without it and without jwks_uri no token can be checked",
            "write the authorization server's issuer",
        )


def _header(auth: AuthConfig) -> Iterator[Fault]:
    try:
        name = forms.check_header(auth.header)
    except forms.FormError as error:
        yield Fault(("auth", "header"), error.message, error.hint)
        return
    if name == "cookie" or name in CONTENT_HEADERS | PASSED_ON_HEADERS or forms.is_ours(name):
        yield Fault(
            ("auth", "header"), f"{name} has another meaning in HTTP", "X-API-Key is the usual one"
        )


# -- Clients and their credentials


def _operators(auth: AuthConfig) -> Iterator[Fault]:
    known = credential_names(auth)
    anybody = "oauth" in credential_kinds(auth)
    for index, operator in enumerate(auth.operators):
        path: Path = ("auth", "operators", index)
        if not operator:
            yield Fault(path, "is empty", "write the name of a client")
        elif operator not in known and not anybody:
            yield Fault(path, f"no client is called {quote(operator)}", meant(operator, known))


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
    elif "bearer" in credential_kinds(auth) and not _BEARER.issuperset(text.rstrip("=") or "="):
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


# -- OAuth


def _oauth(oauth: OauthConfig, config: Config) -> Iterator[Fault]:
    here: Path = ("auth", "oauth")
    if oauth.resource is not None:
        yield from form_faults((*here, "resource"), _check_resource, oauth.resource)
    if oauth.issuer is not None:
        yield from form_faults((*here, "issuer"), forms.check_issuer, oauth.issuer)
    if oauth.jwks_uri is not None:
        yield from form_faults((*here, "jwks_uri"), forms.parse_secure_url, oauth.jwks_uri)
    for index, server in enumerate(oauth.authorization_servers):
        yield from form_faults((*here, "authorization_servers", index), forms.check_issuer, server)
    if oauth.ca is not None:
        yield from form_faults((*here, "ca"), forms.check_file, oauth.ca)
    faults = list(_scopes(oauth, config))
    yield from faults
    if not faults:
        try:
            ScopeRules(oauth.scopes, oauth.scope_rules, oauth.implied_scopes)
        except ValueError as error:
            yield Fault(here, str(error))


def _check_resource(text: str) -> None:
    """The gateway's identifier, which clients compare with where they are (RFC 9728)."""
    try:
        canonical_uri(text)
    except ValueError as error:
        raise forms.FormError(str(error), "write something like https://mcp.example.com") from None
    forms.parse_secure_url(text)


def _scopes(oauth: OauthConfig, config: Config) -> Iterator[Fault]:
    here: Path = ("auth", "oauth")
    yield from _needed_scopes(oauth.scopes, (*here, "scopes"))
    for index, rule in enumerate(oauth.scope_rules):
        yield from _scope_rule(rule, (*here, "scope_rules", index), config)
    for scope, included in oauth.implied_scopes.items():
        path: Path = (*here, "implied_scopes", scope)
        yield from form_faults(path, _check_scope, scope)
        for index, each in enumerate(included):
            yield from form_faults((*path, index), _check_scope, each)


def _check_scope(text: str) -> None:
    if not is_scope(text):
        raise forms.FormError(
            f"{quote(text)} is no scope",
            "write each one on its own, without blanks, quotes and backslashes",
        )


def _check_needed(text: str) -> None:
    _check_scope(text)
    if text == _OFFLINE:
        raise forms.FormError(
            f"{_OFFLINE} is between a client and its authorization server", "leave it out"
        )


def _needed_scopes(scopes: list[str], path: Path) -> Iterator[Fault]:
    for index, scope in enumerate(scopes):
        yield from form_faults((*path, index), _check_needed, scope)


def _scope_rule(rule: ScopeRule, path: Path, config: Config) -> Iterator[Fault]:
    """A rule that can matter. One that never does would ask for nothing, unnoticed."""
    if not rule.scopes:
        yield Fault((*path, "scopes"), "is empty, so the rule asks for nothing", "name a scope")
    yield from _needed_scopes(rule.scopes, (*path, "scopes"))
    faults = [
        *_globs(rule.servers, (*path, "servers"), lambda text: _check_server(text, config)),
        *_globs(rule.methods, (*path, "methods"), lambda text: _check_method(text, config)),
        *_globs(rule.tools, (*path, "tools"), lambda _: None),
    ]
    yield from faults
    if not faults and rule.tools and rule.methods and not _matches(rule.methods, ["tools/call"]):
        yield Fault(
            (*path, "methods"),
            "with tools the rule is about calls, and tools/call is not among the methods",
            "remove methods, or make a rule of each",
        )


def _globs(texts: list[str], path: Path, check: Callable[[str], None]) -> Iterator[Fault]:
    for index, text in enumerate(texts):
        try:
            parse_glob(text)
        except ValueError as error:
            yield Fault((*path, index), str(error))
        else:
            yield from form_faults((*path, index), check, text)


def _check_server(text: str, config: Config) -> None:
    names = [server.name for server in config.servers]
    if is_literal(parse_glob(text)) and text not in names:
        raise forms.FormError(f"there is no server {quote(text)}", meant(text, names))


def _check_method(text: str, config: Config) -> None:
    if _matches([text], _METHODS):
        return
    # What a server allows besides has names that only its author knows.
    allowed = [glob for server in config.servers for glob in server.policy.allow_methods]
    if not is_literal(parse_glob(text)):
        if not allowed:
            raise forms.FormError(f"{quote(text)} matches no method", "tools/* is such a glob")
    elif not any(_is_glob(glob) and _matches([glob], [text]) for glob in allowed):
        near = nearest(text, sorted(_METHODS))
        raise forms.FormError(
            f"there is no method {quote(text)}", f"did you mean {near}?" if near else ""
        )


def _is_glob(text: str) -> bool:
    try:
        parse_glob(text)
    except ValueError:
        return False  # told where the policy is compiled
    return True


def _matches(patterns: Sequence[str], names: Iterable[str]) -> bool:
    globs = GlobSet(map(parse_glob, patterns))
    return any(map(globs.matches, names))
