"""Credentials that the gateway shows. The golden files of test_load.py have the words."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx.config.model import ServerAuth, ServerConfig
from mcpx.config.validate_server_auth import (
    PASSED_ON_HEADERS,
    server_auth_faults,
    shown_headers,
)
from mcpx.errors import ConfigError
from mcpx.protocol.headers import NEVER_FORWARDED
from mcpx.secret import Secret
from mcpx.services.credentials import Grant, api_key, bearer, read_secret, static_headers

GRANT = {
    "type": "client_credentials",
    "token_url": "https://auth.example/token",
    "client_id": "gateway",
    "client_secret": Secret("s"),
}


def paths(auth, url="https://h/", **more):
    server = ServerConfig(name="a", url=url, auth=auth, **more)
    return [fault.path[2:] for fault in server_auth_faults(server, ("servers", 0))]


def words(auth):
    server = ServerConfig(name="a", url="https://h/", auth=auth)
    return " ".join(fault.message + fault.hint for fault in server_auth_faults(server, ()))


@pytest.mark.parametrize(
    "auth",
    [
        ServerAuth(),
        ServerAuth(type="headers", headers={"Authorization": Secret("Basic a b")}),
        ServerAuth(type="headers", headers={"Cookie": Secret("a=b; c=d"), "X-Team": Secret("x")}),
        ServerAuth(type="bearer", token=Secret("a!b")),
        ServerAuth(type="api_key", key=Secret("k")),
        ServerAuth(type="api_key", header="X-Team", key=Secret("k")),
        ServerAuth(**GRANT),
        ServerAuth(**GRANT, client_auth="post", scopes=["a"], resource="urn:a:b", audience="a"),
    ],
    ids=lambda auth: auth.type,
)
def test_each_type_has_all_that_it_needs_and_no_more(auth):
    assert paths(auth) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("headers", {"a": Secret("hidden")}),
        ("token", Secret("hidden")),
        ("header", "X-Team"),
        ("key", Secret("hidden")),
        ("token_url", "https://hidden/"),
        ("client_id", "hidden"),
        ("client_secret", Secret("hidden")),
        ("client_auth", "post"),
        ("scopes", ["hidden"]),
        ("resource", "https://hidden/"),
        ("audience", "hidden"),
        ("parameters", {"a": "hidden"}),
    ],
)
def test_a_setting_that_only_another_type_reads_is_refused(name, value):
    read_by = {"headers": "headers", "token": "bearer", "header": "api_key", "key": "api_key"}
    reader = read_by.get(name, "client_credentials")
    for kind in ("none", "headers", "bearer", "api_key", "client_credentials"):
        auth = ServerAuth(type=kind, **{name: value})
        assert (f"{name} has no effect" in words(auth)) is (kind != reader)
        assert "hidden" not in words(auth)


def test_a_setting_that_the_type_can_not_do_without_is_asked_for():
    assert paths(ServerAuth(type="headers")) == [("auth", "headers")]
    assert paths(ServerAuth(type="bearer")) == [("auth", "token")]
    assert paths(ServerAuth(type="api_key")) == [("auth", "key")]
    for name in ("token_url", "client_id", "client_secret"):
        assert paths(ServerAuth(**{**GRANT, name: None})) == [("auth", name)]


def test_the_scopes_that_are_asked_for_are_scopes():
    assert paths(ServerAuth(**GRANT, scopes=["a", "b c", ""])) == [
        ("auth", "scopes", 1),
        ("auth", "scopes", 2),
    ]


def test_every_setting_is_known_to_be_of_some_type():
    names = set(ServerAuth.__struct_fields__) - {"type"}
    from mcpx.config.validate_server_auth import _READ_BY

    assert names == set(_READ_BY)


NAMES = st.sampled_from(
    ["Authorization", "cookie", "X-API-Key", "X-Team", "x-team", "", "a b", "ä", "Mcp-Name", "MCP-x",
     "Accept", "Content-Type", "X-Forwarded-For", "Proxy-Authorization",
     *(name.decode() for name in NEVER_FORWARDED)]
)  # fmt: skip
VALUES = st.text(max_size=5).filter(bool) | st.sampled_from(
    ["a", "a b", " a", "a\n", "ü", "x" * 16_384, "x" * 16_385, "\x7f"]
)
SECRETS = VALUES.filter(lambda text: not text.startswith("file:"))


def refused(make):
    try:
        make()
    except ConfigError:
        return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, SECRETS, min_size=1, max_size=3))
@example({"X-Team": "a", "x-team": "b"})
def test_what_is_accepted_here_can_be_shown_and_what_can_not_is_refused(headers):
    secrets = {name: Secret(value) for name, value in headers.items()}
    found = bool(paths(ServerAuth(type="headers", headers=secrets)))
    if refused(lambda: static_headers(secrets)):
        assert found
    elif found:
        # Stricter than that: what the gateway writes itself.
        assert any(name.lower().startswith(("x-forwarded-", "proxy-")) for name in headers) or any(
            name.encode().lower() in NEVER_FORWARDED | {b"http2-settings"} for name in headers
        )


@settings(max_examples=200, deadline=None)
@given(SECRETS)
def test_a_token_or_key_is_accepted_exactly_if_it_can_be_shown(text):
    token = ServerAuth(type="bearer", token=Secret(text))
    assert bool(paths(token)) is refused(lambda: bearer(Secret(text)))
    key = ServerAuth(type="api_key", key=Secret(text))
    assert bool(paths(key)) is refused(lambda: api_key("X-API-Key", Secret(text)))


@pytest.mark.parametrize("header", sorted(PASSED_ON_HEADERS))
def test_a_header_that_comes_from_the_client_holds_no_credential(header):
    assert paths(ServerAuth(type="api_key", header=header, key=Secret("k"))) == [("auth", "header")]


def test_what_is_passed_on_from_clients_is_known_here():
    from mcpx.protocol.headers import forwarded_request_headers

    for name in PASSED_ON_HEADERS:
        assert forwarded_request_headers([(name.encode(), b"x")])


@pytest.mark.parametrize("text", ["file:", "file:relative", "file:../up", "file:~/x"])
def test_a_secret_in_a_file_has_an_absolute_path_and_is_not_shown(text):
    assert refused(lambda: read_secret(Secret(text)))
    auth = ServerAuth(type="bearer", token=Secret(text))
    assert paths(auth) == [("auth", "token")]
    assert text == "file:" or text not in words(auth)


def test_a_file_with_a_secret_is_not_opened_here(tmp_path):
    auth = ServerAuth(type="bearer", token=Secret(f"file:{tmp_path}/absent"))
    assert paths(auth) == []


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://auth.example/token", True),
        ("https://auth.example/token?a=b", True),
        ("http://127.0.0.1:9000/token", True),
        ("http://[::1]/token", True),
        ("http://localhost/token", True),
        ("http://auth.internal/token", False),
        ("http://10.0.0.1/token", False),
        ("http://127.0.0.1.example.com/token", False),
        ("http://localhost@auth.example/token", False),
        ("https://auth.example/token#a", False),
        ("ftp://auth.example/token", False),
        ("auth.example", False),
        ("https://auth.example/" + "x" * 2048, False),
        ("", False),
    ],
)
def test_a_secret_is_sent_to_a_token_url_in_tls_or_within_this_machine(url, accepted):
    assert (paths(ServerAuth(**{**GRANT, "token_url": url})) == []) is accepted


def test_no_parameter_replaces_what_the_grant_sets():
    form = Grant("https://a/", "b", Secret("c"), "post", ("d",), "e", "f").form()
    for name in form:
        for written in (name, name.upper()):
            auth = ServerAuth(**GRANT, parameters={written: "x"})
            assert paths(auth) == [("auth", "parameters", written)]
    assert paths(ServerAuth(**GRANT, parameters={"tenant": "x", "a.b": ""})) == []


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("http://mcp.example.com/", False),
        ("http://8.8.8.8/", False),
        ("http://[2606:4700::1111]/", False),
        ("http://10.0.0.1/", True),
        ("http://mock:3001/", True),
        ("http://localhost/", True),
        ("https://mcp.example.com/", True),
    ],
)
def test_no_credential_travels_over_the_internet_in_the_clear(url, accepted):
    auth = ServerAuth(type="bearer", token=Secret("t"))
    assert (paths(auth, url) == []) is accepted
    assert paths(ServerAuth(), url) == []


def test_a_child_gets_its_credentials_in_its_environment():
    auth = ServerAuth(type="bearer", token=Secret("t"))
    assert paths(auth, None, transport="stdio", command="x") == [("auth",)]


def test_the_headers_that_are_shown_are_told_in_lower_case():
    assert shown_headers(ServerAuth()) == frozenset()
    assert shown_headers(ServerAuth(type="bearer")) == {"authorization"}
    assert shown_headers(ServerAuth(type="client_credentials")) == {"authorization"}
    assert shown_headers(ServerAuth(type="api_key")) == {"x-api-key"}
    headers = {"X-A": Secret("a"), "B": Secret("b")}
    assert shown_headers(ServerAuth(type="headers", headers=headers)) == {"x-a", "b"}
