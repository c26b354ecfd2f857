"""Host and Origin checks against DNS rebinding, and CORS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.core.origins import Origins
from mcpx.errors import OriginRefused

LOCAL = Origins(loopback=True)


def cors(**settings):
    settings = {"loopback": False, "cors_enabled": True, **settings}
    return Origins(**settings)


def lets_in(origins, host, origin=None):
    """Asked twice: what is remembered must say the same."""
    answers = []
    for _ in range(2):
        try:
            origins.check(host, origin)
        except OriginRefused as refusal:
            assert refusal.status == 403
            answers.append(False)
        else:
            answers.append(True)
    assert answers[0] == answers[1]
    return answers[0]


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LocalHost:8080",
        b"127.0.0.1",
        b"127.1.2.3:1",
        b"[::1]",
        b"[::1]:8080",
        b"[0:0:0:0:0:0:0:1]:80",
        b"localhost:",
    ],
)
def test_a_loopback_listener_serves_loopback_names_with_any_port(host):
    assert lets_in(LOCAL, host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example.com",
        b"localhost.evil.example.com",
        b"evil.localhost",
        b"127.0.0.1.evil.example.com",
        b"127.0.0.1@evil.example.com",
        b"127.0.0.256",
        b"127.1",
        b"0177.0.0.1",
        b"127.0.0.01",
        b"128.0.0.1",
        b"0.0.0.0",
        b"[::2]",
        b"[::1",
        b"[::1%eth0]",
        b"[::1]x",
        b"::1",
        b"localhost:80:80",
        b"localhost:http",
        b"localhost:65536",
        b"localhost:000000080",
        b"localhost:-1",
        b"localhost:\xb2",
        b"localhost/",
        b"local host",
        b"localhost\0",
        b"localh\xf6st",
        b"l" * 40_000,
    ],
)
def test_a_loopback_listener_refuses_every_other_or_malformed_name(host):
    assert not lets_in(LOCAL, host)


def test_another_listener_serves_every_name_until_some_are_named():
    assert lets_in(Origins(loopback=False), b"anything at all")
    assert lets_in(Origins(loopback=False), None)
    named = Origins(loopback=False, allowed_hosts=["mcp.example.com"])
    assert lets_in(named, b"MCP.example.com:8443")
    assert not lets_in(named, b"other.example.com")
    assert not lets_in(named, b"localhost")
    assert not lets_in(named, None)


def test_a_name_with_a_port_is_served_at_that_port_or_a_schemes_own():
    named = Origins(loopback=True, allowed_hosts=["a.example:8443", "b.example:443", "fd00::1"])
    assert lets_in(named, b"a.example:8443")
    assert not lets_in(named, b"a.example")
    assert not lets_in(named, b"a.example:80")
    assert lets_in(named, b"b.example")
    assert lets_in(named, b"[fd00:0::1]:9")
    assert lets_in(named, b"localhost:1")


@pytest.mark.parametrize(
    "origin",
    [
        b"http://localhost",
        b"https://localhost:3000",
        b"HTTP://127.0.0.1:6274",
        b"http://[::1]:1",
    ],
)
def test_pages_of_this_machine_may_call_a_loopback_listener(origin):
    assert lets_in(LOCAL, b"127.0.0.1:8080", origin)
    assert not lets_in(Origins(loopback=False), b"gateway.example", origin)


@pytest.mark.parametrize(
    "origin",
    [
        b"",
        b"null",
        b"http://evil.example.com",
        b"http://localhost.evil.example.com",
        b"http://localhost@evil.example.com",
        b"http://localhost/",
        b"http://localhost http://evil.example.com",
        b"http:localhost",
        b"//localhost",
        b"://localhost",
        b"1http://localhost",
        b"file://localhost",
        b"http://",
        b"http://localhost\r\nX: y",
        b"http://" + b"l" * 50_000,
        b"*",
    ],
)
def test_every_other_or_malformed_origin_is_refused(origin):
    assert not lets_in(LOCAL, b"localhost", origin)


def test_a_good_origin_does_not_excuse_a_rebound_host():
    assert not lets_in(LOCAL, b"evil.example.com", b"http://evil.example.com")
    assert not lets_in(LOCAL, b"evil.example.com", b"http://localhost")


def test_a_name_that_nobody_checked_proves_nothing_about_a_page():
    # Any site can have its own name point at a gateway in the local network.
    remote = Origins(loopback=False)
    assert lets_in(remote, b"evil.example:8080", None)
    assert not lets_in(remote, b"evil.example:8080", b"http://evil.example:8080")
    assert lets_in(remote, b"192.0.2.7:8080", b"http://192.0.2.7:8080")
    assert lets_in(remote, b"[2001:db8::1]:8080", b"http://[2001:db8::1]:8080")
    assert lets_in(remote, b"localhost:8080", b"http://localhost:8080")


def test_a_page_may_call_the_authority_that_it_came_from():
    remote = Origins(loopback=False, allowed_hosts=["gw.example"])
    assert lets_in(remote, b"gw.example", b"https://gw.example")
    assert lets_in(remote, b"gw.example:443", b"https://GW.example")
    assert lets_in(remote, b"gw.example:8080", b"http://gw.example:8080")
    assert not lets_in(remote, b"gw.example:8080", b"http://gw.example")
    assert not lets_in(remote, b"gw.example", b"http://gw.example:8080")
    assert not lets_in(remote, b"gw.example", b"app://gw.example")
    assert not lets_in(remote, None, b"https://gw.example")
    assert not lets_in(remote, b"bad host", b"https://gw.example")


def test_a_listed_origin_is_let_in_whatever_its_case_and_default_port():
    listed = Origins(
        loopback=False, allowed_origins=["https://App.example.com:443", "vscode-webview://abc"]
    )
    assert lets_in(listed, b"x", b"https://app.example.com")
    assert lets_in(listed, b"x", b"https://APP.example.com:443")
    assert lets_in(listed, b"x", b"vscode-webview://abc")
    assert not lets_in(listed, b"x", b"http://app.example.com")
    assert not lets_in(listed, b"x", b"https://app.example.com:8443")
    assert not lets_in(listed, b"x", b"vscode-webview://abcd")


def test_null_must_be_listed_by_its_name_and_a_star_is_not_enough():
    assert not lets_in(Origins(loopback=True, allowed_origins=["*"]), b"localhost", b"null")
    assert lets_in(Origins(loopback=True, allowed_origins=["null"]), b"localhost", b"null")


def test_a_star_lets_every_well_formed_origin_in():
    every = Origins(loopback=False, allowed_origins=["*"])
    assert lets_in(every, b"x", b"https://anything.example")
    assert not lets_in(every, b"x", b"https://any thing")


def test_a_refusal_echoes_nothing():
    with pytest.raises(OriginRefused) as caught:
        LOCAL.check(b"evil-host", b"http://evil-origin")
    assert "evil" not in caught.value.message


def test_what_is_remembered_stays_bounded():
    origins = cors(loopback=True)
    for port in range(1, 2000):
        origins.check(b"localhost:%d" % port, None)
        origins.check(b"localhost:%d" % port, b"http://localhost:%d" % port)
        origins.cors_headers(b"http://localhost:%d" % port)
    unchecked = Origins(loopback=False, allowed_origins=["*"])
    unchecked.check(b"x" * 100_000, b"http://a.example")
    sizes = [origins._hosts_known, origins._pairs_known, origins._cors_known]
    assert all(0 < len(kept) <= 256 for kept in sizes)
    assert not unchecked._pairs_known


def test_without_cors_no_header_is_sent_and_no_preflight_answered():
    off = Origins(loopback=True, allowed_origins=["*"])
    assert off.cors_headers(b"http://localhost") == ()
    assert off.preflight(b"http://localhost", b"POST", None) is None


def test_a_listed_page_gets_its_origin_echoed_and_may_read_the_headers_it_needs():
    origins = cors(allowed_origins=["https://app.example.com"])
    for _ in range(2):
        assert origins.cors_headers(b"https://app.example.com") == (
            (b"Access-Control-Allow-Origin", b"https://app.example.com"),
            (b"Vary", b"Origin"),
            (
                b"Access-Control-Expose-Headers",
                b"Mcp-Session-Id, X-Request-ID, Retry-After, MCP-Protocol-Version, WWW-Authenticate",
            ),
        )
        assert origins.cors_headers(b"https://other.example") == ((b"Vary", b"Origin"),)
        assert origins.cors_headers(None) == ((b"Vary", b"Origin"),)


def test_a_star_is_answered_as_a_star_and_never_with_credentials():
    headers = dict(cors(allowed_origins=["*"]).cors_headers(b"https://any.example"))
    assert headers[b"Access-Control-Allow-Origin"] == b"*"
    assert b"Access-Control-Allow-Credentials" not in headers
    assert b"Vary" not in headers


def test_cors_switched_on_without_origins_serves_the_pages_of_this_machine():
    page = b"http://localhost:5173"
    assert dict(cors(loopback=True).cors_headers(page))[b"Access-Control-Allow-Origin"] == page
    assert cors(loopback=False).cors_headers(page) == ((b"Vary", b"Origin"),)


def test_a_preflight_is_told_what_mcp_clients_send():
    told = cors(allowed_origins=["https://a.example"]).preflight(
        b"https://a.example", b"POST", b"content-type"
    )
    assert dict(told) == {
        b"Access-Control-Allow-Origin": b"https://a.example",
        b"Vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        b"Access-Control-Allow-Methods": b"GET, POST, DELETE, OPTIONS",
        b"Access-Control-Max-Age": b"86400",
        b"Access-Control-Allow-Headers": (
            b"Content-Type, Authorization, X-API-Key, X-Request-ID, Mcp-Session-Id,"
            b" MCP-Protocol-Version, Last-Event-ID, Mcp-Method, Mcp-Name"
        ),
    }


def test_a_preflight_is_told_what_is_configured():
    origins = cors(
        allowed_origins=["*"],
        allowed_methods=["POST"],
        allowed_headers=["X-Mine"],
        max_age="600",
    )
    told = dict(origins.preflight(b"https://a.example", b"POST", b"mcp-param-x"))
    assert told[b"Access-Control-Allow-Origin"] == b"*"
    assert told[b"Access-Control-Allow-Methods"] == b"POST"
    assert told[b"Access-Control-Allow-Headers"] == b"X-Mine"
    assert told[b"Access-Control-Max-Age"] == b"600"


def test_parameter_headers_that_are_asked_for_are_told_once_they_are_valid():
    asked = b"Mcp-Param-City,\tmcp-param-n , evil, mcp-param-, mcp-param-a b, mcp-param-\r\nX:y"
    told = dict(cors(allowed_origins=["*"]).preflight(b"https://a.example", b"POST", asked))
    assert told[b"Access-Control-Allow-Headers"].endswith(b"Mcp-Name, Mcp-Param-City, mcp-param-n")


def test_the_told_parameter_headers_are_bounded():
    asked = b",".join(b"mcp-param-%d" % n for n in range(5000)) + b",mcp-param-" + b"x" * 9999
    told = dict(cors(allowed_origins=["*"]).preflight(b"https://a.example", b"POST", asked))
    assert told[b"Access-Control-Allow-Headers"].count(b"mcp-param-") == 64


def test_what_is_no_preflight_is_a_request_like_others():
    origins = cors(allowed_origins=["*"])
    assert origins.preflight(None, b"POST", None) is None
    assert origins.preflight(b"https://a.example", None, None) is None


@pytest.mark.parametrize("origin", [b"https://b.example", b"null", b"nonsense"])
def test_a_preflight_of_another_page_is_refused(origin):
    with pytest.raises(OriginRefused):
        cors(allowed_origins=["https://a.example"]).preflight(origin, b"POST", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allowed_hosts": ["*.example.com"]}, "allowed host '\\*.example.com'"),
        ({"allowed_hosts": ["http://a.example"]}, "allowed host"),
        ({"allowed_hosts": ["ä.example"]}, "allowed host"),
        ({"allowed_hosts": [""]}, "allowed host"),
        ({"allowed_origins": ["https://a.example/"]}, "without a path"),
        ({"allowed_origins": ["a.example"]}, "allowed origin 'a.example'"),
        ({"allowed_origins": ["https://*.example"]}, "allowed origin"),
        ({"allowed_origins": ["https://ä.example"]}, "allowed origin"),
        ({"allowed_methods": ["GET, POST"]}, "allowed method 'GET, POST'"),
        ({"allowed_headers": ["X\r\nY"]}, "allowed header"),
        ({"allowed_headers": [""]}, "allowed header"),
        ({"max_age": "1h"}, "max_age '1h'"),
        ({"max_age": -1}, "max_age -1"),
        ({"max_age": "9" * 5000}, "max_age"),
    ],
)
def test_settings_that_can_not_be_used_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Origins(loopback=False, **settings)


@given(
    host=st.none() | st.binary(max_size=40),
    origin=st.none()
    | st.binary(max_size=40)
    | st.binary(max_size=20).map(lambda b: b"http://" + b),
)
def test_no_bytes_break_a_check_or_get_into_a_header(host, origin):
    origins = cors(loopback=True, allowed_origins=["https://app.example.com"])
    lets_in(origins, host, origin)
    for _, value in origins.cors_headers(origin):
        assert b"\r" not in value
        assert b"\n" not in value
