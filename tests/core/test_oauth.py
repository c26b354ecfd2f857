import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.oauth import (
    LONGEST_TOKEN_BYTES,
    Claims,
    ProtectedResource,
    ScopeRules,
    TokenRefused,
    UnknownKey,
    VerifiedTokens,
    canonical_uri,
    challenge,
    check_audience,
    could_be_jwt,
    is_scope,
    metadata_url,
    resource_for,
)

FILES = "https://gw.example/mcp/files"
ACCEPTED = frozenset({FILES})


def claims(expires_at=1000.0, audiences=ACCEPTED, thumbprint="t1"):
    return Claims("alice", frozenset({"a"}), audiences, expires_at, "k1", thumbprint)


# Remembered tokens.


def test_a_token_that_was_found_good_is_known_until_it_expires():
    seen = VerifiedTokens(max_age_s=10_000)
    assert seen.get(b"token", ACCEPTED, 0) is None
    seen.put(b"token", claims(), 0)
    assert seen.get(b"token", ACCEPTED, 999.9) == claims()
    assert seen.get(b"token", ACCEPTED, 1000) is None
    assert len(seen) == 0


def test_a_token_is_verified_again_after_the_longest_age():
    seen = VerifiedTokens(max_age_s=300)
    seen.put(b"token", claims(), 100)
    assert seen.get(b"token", ACCEPTED, 399.9)
    assert seen.get(b"token", ACCEPTED, 400) is None


def test_a_clock_that_is_set_back_makes_tokens_unknown():
    seen = VerifiedTokens()
    seen.put(b"token", claims(), 100)
    assert seen.get(b"token", ACCEPTED, 99) is None


def test_a_remembered_token_is_still_for_its_own_resource_alone():
    seen = VerifiedTokens()
    seen.put(b"token", claims(), 0)
    with pytest.raises(TokenRefused) as caught:
        seen.get(b"token", frozenset({"https://gw.example/mcp/other"}), 1)
    assert caught.value.reason_code == "audience"
    assert seen.get(b"token", ACCEPTED, 1)


def test_the_token_used_least_recently_is_forgotten_first():
    seen = VerifiedTokens(max_entries=2)
    for token in (b"1", b"2"):
        seen.put(token, claims(), 0)
    seen.get(b"1", ACCEPTED, 0)
    seen.put(b"3", claims(), 0)
    assert [bool(seen.get(t, ACCEPTED, 0)) for t in (b"1", b"2", b"3")] == [True, False, True]


def test_tokens_of_withdrawn_keys_are_forgotten():
    seen = VerifiedTokens()
    seen.put(b"1", claims(thumbprint="t1"), 0)
    seen.put(b"2", claims(thumbprint="t2"), 0)
    seen.keep_only({"t2", "t3"})
    assert seen.get(b"1", ACCEPTED, 0) is None
    assert seen.get(b"2", ACCEPTED, 0)


def test_neither_a_token_nor_a_plain_digest_of_it_is_kept():
    one, other = VerifiedTokens(), VerifiedTokens()
    for seen in (one, other):
        seen.put(b"token-text", claims(), 0)
    assert b"token-text" not in b"".join(one._by_digest)
    assert one._by_digest.keys() != other._by_digest.keys()


def test_what_is_too_long_or_over_is_not_remembered():
    seen = VerifiedTokens()
    seen.put(b"token", claims(expires_at=5), 5)
    assert len(seen) == 0
    assert seen.get(b"x" * (LONGEST_TOKEN_BYTES + 1), ACCEPTED, 0) is None


def test_a_token_without_an_audience_is_for_nothing():
    with pytest.raises(TokenRefused, match="names no audience"):
        check_audience(claims(audiences=frozenset()), ACCEPTED)


@pytest.mark.parametrize(
    ("token", "could"), [(b"eyJ.e.s", True), (b"key", False), (b"ey", False), (b"a.b.c", False)]
)
def test_a_static_token_is_seldom_taken_for_a_signed_one(token, could):
    assert could_be_jwt(token) is could


# Scopes.


def rule(scopes, servers=(), methods=(), tools=()):
    return SimpleNamespace(servers=servers, methods=methods, tools=tools, scopes=scopes)


RULES = ScopeRules(
    ["mcp"],
    [
        rule(["files"], servers=["files"]),
        rule(["write"], servers=["files"], tools=["write_*", "delete"]),
        rule(["list"], methods=["tools/list", "prompts/*"]),
    ],
    {"admin": ["files", "write"], "root": ["admin", "mcp"], "files": ["files:read"]},
)


@pytest.mark.parametrize(
    ("operation", "scopes"),
    [
        (("files", "tools/call", "read"), {"mcp", "files"}),
        (("files", "tools/call", "write_x"), {"mcp", "files", "write"}),
        (("other", "tools/call", "write_x"), {"mcp"}),
        (("other", "prompts/get", None), {"mcp", "list"}),
        (("files", "tools/list", None), {"mcp", "files", "list"}),
        (("files", "initialize", None), {"mcp", "files"}),
    ],
)
def test_an_operation_needs_the_scopes_of_every_rule_that_matches(operation, scopes):
    assert RULES.required(*operation) == scopes


@pytest.mark.parametrize("tool", ["DELETE", "ｄｅｌｅｔｅ", "de\u200blete", "Write_all"])
def test_a_look_alike_of_a_tool_needs_its_scopes_too(tool):
    assert "write" in RULES.required("files", "tools/call", tool)


@pytest.mark.parametrize(
    ("granted", "enough"),
    [
        ({"mcp", "files", "write"}, True),
        ({"mcp", "files", "write", "more"}, True),
        ({"mcp", "admin"}, True),
        ({"root"}, True),
        ({"admin"}, False),
        ({"mcp", "files"}, False),
        (set(), False),
    ],
)
def test_a_scope_includes_what_it_is_said_to_by_any_number_of_steps(granted, enough):
    required = RULES.required("files", "tools/call", "delete")
    assert RULES.satisfied(frozenset(granted), required) is enough


def test_scopes_that_include_each_other_come_to_an_end():
    rules = ScopeRules(["a"], (), {"b": ["c"], "c": ["b", "a"]})
    assert rules.satisfied(frozenset({"b"}), frozenset({"a"}))


def test_a_first_challenge_names_what_the_whole_endpoint_needs_and_the_metadata_all():
    assert RULES.initial("files") == {"mcp", "files"}
    assert RULES.supported("files") == {"mcp", "files", "write", "list"}
    assert RULES.supported("other") == {"mcp", "list"}


def test_without_rules_nothing_is_needed():
    rules = ScopeRules()
    assert rules.required("s", "tools/call", "t") == frozenset()
    assert rules.satisfied(frozenset(), frozenset())


@pytest.mark.parametrize("scope", ["", "a b", 'a"', "a\\", "é", "a\n", "x" * 257, "offline_access"])
def test_what_no_challenge_could_ask_for_is_refused_when_it_is_configured(scope):
    with pytest.raises(ValueError):
        ScopeRules([scope])
    with pytest.raises(ValueError):
        ScopeRules((), [rule([scope])])


def test_a_pattern_that_means_nothing_is_refused_when_it_is_configured():
    with pytest.raises(ValueError):
        ScopeRules((), [rule(["a"], tools=[""])])
    with pytest.raises(ValueError):
        ScopeRules((), (), {"a": ["b c"]})


# Identifiers and metadata.


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("https://gw.example", "https://gw.example"),
        ("https://gw.example/", "https://gw.example"),
        ("HTTPS://GW.Example/Mcp/", "https://gw.example/Mcp"),
        ("https://gw.example:443/a", "https://gw.example/a"),
        ("http://gw.example:80", "http://gw.example"),
        ("https://gw.example:8443/a//", "https://gw.example:8443/a"),
        ("http://[::1]:8080/mcp", "http://[::1]:8080/mcp"),
        ("https://gw.example/a%2Fb", "https://gw.example/a%2Fb"),
    ],
)
def test_an_identifier_has_one_form(written, canonical):
    assert canonical_uri(written) == canonical
    assert canonical_uri(canonical) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "",
        "gw.example",
        "/mcp",
        "ftp://gw.example",
        "https://",
        "https:///mcp",
        "https://u:p@gw.example",
        "https://gw.example/?a=b",
        "https://gw.example/#",
        "https://gw.example/?",
        "https://gw.example/a b",
        'https://gw.example/"',
        "https://gw.example/\n",
        "https://gw.example:99999/",
        "https://gw.example:x/",
        "https://[::1/",
        "https://gw.éxample/",
    ],
)
def test_what_can_not_identify_a_resource_is_refused(written):
    with pytest.raises(ValueError):
        canonical_uri(written)


@pytest.mark.parametrize(
    ("base", "resource", "metadata"),
    [
        (
            "https://gw.example",
            "https://gw.example/mcp/files",
            "https://gw.example/.well-known/oauth-protected-resource/mcp/files",
        ),
        (
            "https://GW.example:8443/edge/",
            "https://gw.example:8443/edge/mcp/files",
            "https://gw.example:8443/.well-known/oauth-protected-resource/edge/mcp/files",
        ),
    ],
)
def test_the_metadata_is_at_the_well_known_path_before_the_resource_s_own(base, resource, metadata):
    assert resource_for(base, "files") == resource
    assert metadata_url(resource) == metadata


def test_the_metadata_of_a_resource_without_a_path_is_at_the_root():
    assert (
        metadata_url("https://gw.example/")
        == "https://gw.example/.well-known/oauth-protected-resource"
    )


def resource(**more):
    return ProtectedResource(
        FILES, authorization_servers=["https://as.example"], **{"initial": ["mcp"], **more}
    )


def test_the_metadata_says_who_gives_tokens_and_how_they_are_shown():
    endpoint = resource(supported=["write", "mcp", "offline_access"])
    assert json.loads(endpoint.metadata) == {
        "resource": FILES,
        "authorization_servers": ["https://as.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mcp", "write"],
    }
    assert endpoint.metadata_path == b"/.well-known/oauth-protected-resource/mcp/files"


def test_the_metadata_of_a_resource_without_scopes_names_none():
    assert "scopes_supported" not in json.loads(resource().metadata)


def test_an_endpoint_accepts_itself_and_what_it_is_told_to_with_or_without_a_slash():
    assert resource().accepted == {FILES, FILES + "/"}
    assert "https://gw.example" in resource(also_accepted=["https://GW.example/"]).accepted
    assert "https://gw.example" not in resource().accepted


# Challenges.


def header(error):
    ((name, value),) = error.headers
    assert name == b"WWW-Authenticate"
    return value.decode()


METADATA = 'resource_metadata="https://gw.example/.well-known/oauth-protected-resource/mcp/files"'


def test_a_request_without_a_token_is_told_where_to_get_one():
    error = resource().missing()
    assert error.status == 401
    assert error.message == "missing Authorization header"
    assert header(error) == f'Bearer {METADATA}, scope="mcp"'


def test_a_token_that_is_refused_is_told_why_in_the_challenge_alone():
    error = resource().refused(TokenRefused("expired", "it has expired"))
    assert error.status == 401
    assert error.message == "invalid token"
    assert error.reason == "invalid token (expired): it has expired"
    assert header(error) == (
        f'Bearer {METADATA}, scope="mcp", error="invalid_token",'
        ' error_description="the token is not accepted: it has expired"'
    )


def test_an_unknown_key_s_name_is_told_to_nobody():
    error = resource().refused(UnknownKey("kid-of-an-attacker"))
    assert "kid-of-an-attacker" not in header(error) + error.reason + error.message


def test_a_missing_scope_is_answered_with_all_that_the_operation_needs():
    error = resource().insufficient(frozenset({"write", "mcp"}))
    assert (error.status, error.code) == (403, "insufficient_scope")
    assert header(error) == f'Bearer {METADATA}, scope="mcp write", error="insufficient_scope"'
    assert error.data == {"required_scopes": ["mcp", "write"]}


def test_no_challenge_asks_for_offline_access():
    assert b"offline" not in challenge("https://h", scopes=["offline_access"])
    assert b"scope" not in challenge("https://h", scopes=["offline_access"])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_leaves_its_quotes(description, error):
    value = challenge("https://h/x", scopes=["a"], error=error, description=description)
    assert value.isascii()
    assert not {b"\r", b"\n", b"\0"} & {value[i : i + 1] for i in range(len(value))}
    names, rest = [], value.decode().removeprefix("Bearer ")
    while rest:
        name, _, rest = rest.partition('="')
        names.append(name)
        while True:  # to the quote that is not escaped
            before, _, rest = rest.partition('"')
            if (len(before) - len(before.rstrip("\\"))) % 2 == 0:
                break
        assert rest == "" or rest.startswith(", ")
        rest = rest.removeprefix(", ")
    wanted = ["resource_metadata", "scope", *["error"] * bool(error)]
    assert names == [*wanted, *["error_description"] * bool(description)]


@given(st.text(max_size=20))
@settings(max_examples=100)
def test_a_scope_needs_no_quoting(text):
    if is_scope(text):
        assert f'scope="{text}"'.encode() in challenge("https://h", scopes=[text]) or (
            text == "offline_access"
        )
