"""Credentials that clients show. The golden files of test_load.py have the words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.load import load_snapshot, parse
from mcpx.config.model import AuthConfig, Config, OauthConfig, ScopeRule, ServerConfig
from mcpx.config.snapshot import compile_snapshot
from mcpx.config.validate import validate
from mcpx.config.validate_auth import (
    auth_faults,
    could_be_signed,
    credential_kinds,
    credential_names,
)
from mcpx.errors import ConfigError
from mcpx.secret import Secret

FILES = ServerConfig(name="files", url="http://h/")
OAUTH = {"resource": "https://mcp.example.com", "issuer": "https://auth.example.com"}
ON = "auth: {enabled: true, oauth: {resource: 'https://r.example', issuer: 'https://i.example'}, "


def paths(text):
    """The paths of all problems."""
    try:
        parse(text, filename="f", environ={})
    except ConfigError as error:
        return [problem.split(": ")[1] for problem in error.problems]
    return []


def oauth_paths(**settings):
    auth = AuthConfig(enabled=True, type="oauth", oauth=OauthConfig(**{**OAUTH, **settings}))
    found = auth_faults(Config(auth=auth, servers=[FILES]))
    return [fault.path[2:] for fault in found]


def rule_paths(**rule):
    rule = ScopeRule(**{"scopes": ["a"], **rule})
    return [path[2:] for path in oauth_paths(scope_rules=[rule])]


def test_authentication_without_a_way_to_authenticate_never_loads():
    for kind in ("", "type: ''", "type: none", "type: bearer", "type: api_key", "type: oauth"):
        assert paths(f"auth: {{enabled: true, {kind}}}\n")


@pytest.mark.parametrize(
    "header", ["Host", "content-length", "Connection", "Cookie", "a b", "", "mcp-x"]
)
def test_a_credential_is_not_read_from_a_header_with_another_meaning(header):
    assert paths(f"auth: {{header: '{header}'}}\n") == ["auth.header"]


def test_a_token_that_no_client_could_send_never_loads():
    for token in ("a b", " a", "a\\n", "ü", "a\\u0000", "x" * 5000):
        for kind in ("bearer", "api_key"):
            assert paths(f'auth: {{enabled: true, type: {kind}, token: "{token}"}}\n') == [
                "auth.token"
            ]
    assert paths("auth: {enabled: true, type: bearer, token: 'a!b'}\n") == ["auth.token"]
    assert paths("auth: {enabled: true, type: api_key, token: 'a!b'}\n") == []
    assert paths("auth: {enabled: true, type: bearer, token: 'YWJj=='}\n") == []


def test_the_authenticator_takes_every_token_that_is_accepted_here():
    from mcpx.core.identity import Authenticator
    from mcpx.secret import Secret

    for token in ("a", "=", "==", "YWJj==", "-._~+/", "a=b", "x" * 4096):
        try:
            Authenticator("bearer", clients=[("a", Secret(token))])
            accepted = True
        except ValueError:
            accepted = False
        found = paths(f"auth: {{enabled: true, type: bearer, token: '{token}'}}\n")
        assert (found == []) is accepted


def test_names_and_tokens_are_unique():
    head = "auth: {enabled: true, type: bearer, token: t0, clients: "
    assert paths(head + "[{name: a, token: t1}, {name: b, token: t2}]}\n") == []
    assert paths(head + "[{name: a, token: t1}, {name: a, token: t2}]}\n") == [
        "auth.clients[1].name"
    ]
    assert paths(head + "[{name: a, token: t1}, {name: b, token: t1}]}\n") == [
        "auth.clients[1].token"
    ]
    assert paths(head + "[{name: a, token: t0}]}\n") == ["auth.clients[0].token"]
    assert paths(head + "[{name: default, token: t1}]}\n") == ["auth.clients[0].name"]


# -- Several ways


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", set()),
        ("type: none", set()),
        ("type: oauth", {"oauth"}),
        ("types: [bearer, oauth]", {"bearer", "oauth"}),
        ("types: [bearer], type: bearer", {"bearer"}),
    ],
)
def test_type_and_types_say_the_same(text, kinds):
    token = "token: t" if "bearer" in kinds else ""
    config = parse(
        f"auth: {{{', '.join(filter(None, [text, token]))}}}\n", filename="f", environ={}
    )
    assert credential_kinds(config.auth) == kinds


def test_type_is_one_of_types_or_is_left_out():
    for on in ("true", "false"):
        head = f"auth: {{enabled: {on}, token: t, types: [bearer, api_key], "
        assert paths(head + "type: api_key}\n") == []
        assert paths(head + "type: ''}\n") == []
        assert paths(head + "type: none}\n") == ["auth.type"]
        assert paths(head + "type: oauth}\n") == ["auth.type"]


def test_a_way_is_named_once():
    assert paths("auth: {types: [bearer, oauth, bearer, bearer]}\n") == [
        "auth.types[2]",
        "auth.types[3]",
    ]


def test_ways_that_read_given_credentials_need_some():
    assert paths(ON + "types: [bearer, oauth]}\n") == ["auth"]
    assert paths(ON + "types: [api_key]}\n") == ["auth"]
    assert paths(ON + "types: [oauth]}\n") == []
    assert paths(ON + "types: [api_key, oauth], token: t}\n") == []


def test_a_credential_suits_every_way_that_reads_it():
    assert paths(ON + "types: [api_key, oauth], token: 'a!b'}\n") == []
    assert paths(ON + "types: [api_key, bearer], token: 'a!b'}\n") == ["auth.token"]
    assert paths(ON + "types: [oauth], token: 'a b'}\n") == ["auth.token"]
    jwt = "eyJhbGciOiJub25lIn0.e30.c2ln"
    assert paths(ON + f"types: [bearer, oauth], token: {jwt}}}\n") == []


def test_an_api_key_has_a_header_of_its_own():
    head = "header: AUTHORIZATION, token: t, types: "
    assert paths(ON + head + "[api_key]}\n") == []
    assert paths(ON + head + "[api_key, bearer]}\n") == ["auth.header"]
    assert paths(ON + head + "[oauth, api_key]}\n") == ["auth.header"]
    assert paths(ON + head + "[oauth, bearer]}\n") == []


def test_with_oauth_anybody_may_be_a_client_or_an_operator():
    server = "servers: [{name: a, url: 'http://h/'}]\n"
    more = "clients: {whoever: {servers: {a: {read_only: true}}}}\n"
    for types in ("type: oauth", "types: [bearer, oauth], token: t"):
        assert paths(server + ON + types + ", operators: [whoever]}\n" + more) == []
    assert paths(server + ON + "type: bearer, token: t, operators: [whoever]}\n" + more) == [
        "auth.operators[0]",
        "clients.whoever",
    ]
    assert paths(ON + "type: oauth, operators: ['']}\n") == ["auth.operators[0]"]
    assert paths(ON + "type: oauth}\nclients: {' ci': {}, default: {}, ci: {}}\n") == [
        'clients[" ci"]',
        "clients.default",
    ]


@pytest.mark.parametrize(
    ("name", "possible"),
    [("ci", True), ("Ann Smith", True), ("ä", True), ("default", False), (" ci", False),
     ("ci\u00a0", False), ("a\nb", False), ("a\u200bb", False), ("x" * 256, True), ("x" * 257, False)],
)  # fmt: skip
def test_a_policy_is_for_a_name_that_a_token_can_have(name, possible):
    assert could_be_signed(name) is possible
    from mcpx.core.jwt import TokenRules, _name
    from mcpx.core.oauth import TokenRefused

    rules = TokenRules(issuer=None, reserved=frozenset(("default",)))
    try:
        accepted = _name({"sub": name}, rules) == name
    except TokenRefused:
        accepted = False
    assert accepted is possible


def test_the_names_are_those_of_the_credentials():
    config = parse("auth: {token: t, clients: [{name: a, token: b}]}\n", filename="f", environ={})
    assert credential_names(config.auth) == ["default", "a"]


# -- OAuth


def test_a_resource_server_knows_its_name_and_whom_to_trust():
    assert paths("auth: {enabled: true, type: oauth}\n") == [
        "auth.oauth.resource",
        "auth.oauth.issuer",
    ]
    assert oauth_paths() == []
    assert oauth_paths(issuer=None) == [("issuer",)]
    assert oauth_paths(issuer=None, jwks_uri="https://auth.example.com/keys") == []
    assert oauth_paths(issuer=None, authorization_servers=["https://a.example"]) == [("issuer",)]


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("https://mcp.example.com", True),
        ("https://mcp.example.com/", True),
        ("HTTPS://MCP.example.com:8443/base", True),
        ("http://localhost:8080", True),
        ("http://127.0.0.1:8080/", True),
        ("http://mcp.example.com", False),
        ("http://10.0.0.1", False),
        ("https://mcp.example.com/?a", False),
        ("https://mcp.example.com/#a", False),
        ("https://a:b@mcp.example.com/", False),
        ("https://mcp.example.com:0", False),
        ("https://mcp.example.com:99999", False),
        ("https://mcp example.com", False),
        ("https://mcp.exämple.com", False),
        ("https://", False),
        ("mcp.example.com", False),
        ("urn:a:b", False),
        ("", False),
    ],
)
def test_the_resource_is_an_address_at_which_clients_find_the_gateway(text, accepted):
    assert (oauth_paths(resource=text) == []) is accepted


@pytest.mark.parametrize(
    ("text", "issuer", "keys"),
    [
        ("https://auth.example.com", True, True),
        ("https://auth.example.com/tenant/", True, True),
        ("http://127.0.0.1:9000", True, True),
        ("https://auth.example.com/keys?tenant=a", False, True),
        ("https://auth.example.com/keys?", False, True),
        ("https://auth.example.com/#", False, False),
        ("http://auth.example.com", False, False),
        ("http://169.254.169.254/", False, False),
        ("https://a:b@auth.example.com", False, False),
        ("file:///etc/passwd", False, False),
        ("", False, False),
    ],
)
def test_keys_come_in_tls_or_from_this_machine(text, issuer, keys):
    assert (oauth_paths(issuer=text) == []) is issuer
    assert (oauth_paths(authorization_servers=[text]) == []) is issuer
    assert (oauth_paths(jwks_uri=text) == []) is keys


@pytest.mark.parametrize("claim", ["sub", "client_id", "https://example.com/claims/email", "a.b"])
def test_a_claim_that_names_somebody_is_accepted(claim):
    assert paths(f"auth: {{identity_claim: '{claim}'}}\n") == []


@pytest.mark.parametrize("claim", ["", "a b", "ä", "x" * 129, "iss", "aud", "exp", "jti", "scope"])
def test_a_claim_that_names_nobody_is_refused(claim):
    assert paths(f"auth: {{identity_claim: '{claim}'}}\n") == ["auth.identity_claim"]


@pytest.mark.parametrize("scope", ["a b", "", 'a"b', "a\\b", "ä", "x" * 257, "offline_access"])
def test_a_scope_that_no_token_can_have_is_never_asked_for(scope):
    assert oauth_paths(scopes=[scope]) == [("scopes", 0)]
    assert rule_paths(scopes=[scope]) == [("scopes", 0)]


def test_what_a_scope_includes_are_scopes():
    assert oauth_paths(implied_scopes={"a": ["b", "c"], "b": ["a"]}) == []
    assert oauth_paths(implied_scopes={"a b": ["c", "d e"]}) == [
        ("implied_scopes", "a b"),
        ("implied_scopes", "a b", 1),
    ]


def test_a_rule_that_could_never_matter_is_refused():
    assert rule_paths() == []
    assert rule_paths(scopes=[]) == [("scopes",)]
    assert rule_paths(servers=["files", "f*", "new-*"]) == []
    assert rule_paths(servers=["fils"]) == [("servers", 0)]
    assert rule_paths(methods=["tools/*", "GET", "DELETE", "response", "initialize"]) == []
    assert rule_paths(methods=["tools/cal"]) == [("methods", 0)]
    assert rule_paths(methods=["tool/*"]) == [("methods", 0)]
    assert rule_paths(tools=["write_*"]) == []
    assert rule_paths(tools=["write_*"], methods=["tools/*"]) == []
    assert rule_paths(tools=["write_*"], methods=["resources/read"]) == [("methods",)]


def test_a_pattern_that_can_not_be_used_is_refused():
    for name in ("servers", "methods", "tools"):
        for text in ("", "\ufdd0", "\ud800"):
            assert rule_paths(**{name: [text]}) == [(name, 0)]


def test_methods_that_a_server_allows_besides_may_have_rules():
    text = (
        "servers: [{name: a, url: 'http://h/', policy: {allow_methods: ['acme/*']}}]\n"
        + ON.replace("}, ", ", scope_rules: [{scopes: [x], methods: [%s]}]}, ")
        + "type: oauth}\n"
    )
    assert paths(text % "acme/do") == []
    assert paths(text % "'*/do'") == []
    assert paths(text % "other/do") == ["auth.oauth.scope_rules[0].methods[0]"]


def test_settings_of_oauth_are_checked_while_it_is_off():
    assert paths("auth: {oauth: {issuer: nonsense, scopes: ['']}}\n") == [
        "auth.oauth.issuer",
        "auth.oauth.scopes[0]",
    ]


def mostly(good, bad):
    """One of ``good``, and sometimes one of ``bad``."""
    return st.sampled_from([*good * (8 * len(bad) // len(good) + 1), *bad])


SCOPES = mostly(["a", "b:c"], ["a b", "", "offline_access", "ü"])
RULES = st.builds(
    ScopeRule,
    scopes=st.lists(SCOPES, min_size=1, max_size=2),
    servers=st.lists(mostly(["*", "files", "f?les"], ["", "nobody", "\ufdd1"]), max_size=1),
    methods=st.lists(mostly(["tools/call", "tools/*", "GET"], ["", "tool", "x*"]), max_size=1),
    tools=st.lists(mostly(["*", "write"], ["", "\ufdd0"]), max_size=1),
)
SETTINGS = st.builds(
    OauthConfig,
    resource=mostly(["https://r.example/x/", "http://[::1]:1"], [None, "https://r/?a", "r"]),
    issuer=mostly(["https://i.example", "https://i.example/a/"], [None, "i"]),
    jwks_uri=mostly([None, "https://i.example/k"], ["http://i.example"]),
    scopes=st.lists(SCOPES, max_size=1),
    scope_rules=st.lists(RULES, max_size=1),
    implied_scopes=st.dictionaries(SCOPES, st.lists(SCOPES, max_size=1), max_size=1),
)
AUTHS = st.builds(
    AuthConfig,
    enabled=mostly([True], [False]),
    type=mostly(["", "oauth"], ["none", "bearer", "api_key"]),
    types=mostly(
        [[], ["oauth"], ["oauth", "bearer"], ["api_key", "oauth"], ["bearer", "oauth", "api_key"]],
        [["oauth", "oauth"], ["bearer"], ["api_key"]],
    ),
    header=mostly(["X-API-Key"], ["Authorization"]),
    token=mostly(["t", "eyJ.a.b"], ["a!b", "a b"]).map(Secret) | st.none(),
    oauth=SETTINGS,
)


@settings(max_examples=600, deadline=None)
@given(AUTHS)
def test_what_is_accepted_here_compiles(auth):
    config = Config(auth=auth, servers=[FILES])
    if not validate(config):
        snapshot = compile_snapshot(config, generation=1)
        assert (snapshot.authenticator is not None) is auth.enabled
        assert (snapshot.oauth is not None) is (auth.enabled and "oauth" in credential_kinds(auth))


def test_an_accepted_configuration_is_served():
    snapshot = load_snapshot(
        "servers: [{name: a, url: 'http://h/'}]\n" + ON + "type: oauth}\n",
        filename="f",
        environ={},
        generation=1,
    )
    assert snapshot.oauth is not None
    assert snapshot.oauth.servers["a"].identifier == "https://r.example/mcp/a"
