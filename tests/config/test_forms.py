"""The forms of single texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.config import forms
from mcpx.config.forms import FormError, parse_listen, parse_upstream_url


def refusal(check, text):
    with pytest.raises(FormError) as refused:
        check(text)
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "loopback"),
    [
        (":8080", "", 8080, None, False),
        ("0.0.0.0:80", "0.0.0.0", 80, None, False),
        ("[::]:80", "::", 80, None, False),
        ("127.0.0.1:0", "127.0.0.1", 0, None, True),
        ("127.9.9.9:1", "127.9.9.9", 1, None, True),
        ("[::1]:65535", "::1", 65535, None, True),
        ("[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1", 1, None, True),
        ("LocalHost:1", "LocalHost", 1, None, True),
        ("gateway.localhost.:1", "gateway.localhost.", 1, None, True),
        ("localhost.example:1", "localhost.example", 1, None, False),
        ("10.0.0.1:1", "10.0.0.1", 1, None, False),
        ("my_host-1.example:1", "my_host-1.example", 1, None, False),
        ("unix:/run/mcpx.sock", "", 0, "/run/mcpx.sock", True),
    ],
)
def test_where_to_listen_is_read(text, host, port, path, loopback):
    listen = parse_listen(text)
    assert (listen.host, listen.port, listen.path, listen.loopback) == (host, port, path, loopback)
    assert str(listen) == text


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":", "localhost", "localhost:", "localhost:x", ":65536", ":-1", ":0x10", ":８０",
     "::1:80", "[::1]", "[::1", "[::1]80", "[::g]:1", "[fe80::1%eth0]:1", "a b:1", "http://a:1",
     "*:80", "-a:1", "a..b:1", "1.2.3:1", "127.1:1", "0x7f.1:1", "256.1.1.1:1", "ü:1", ":1\n",
     "unix:", "unix:relative", "unix:/a\nb", "unix:/" + "x" * 200, "a" * 300 + ":1"],
)  # fmt: skip
def test_where_one_cannot_listen_is_refused(text):
    assert refusal(parse_listen, text)


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "target", "authority"),
    [
        ("http://h/mcp", "http", "h", 80, b"/mcp", b"h"),
        ("https://h", "https", "h", 443, b"/", b"h"),
        ("http://h/mcp/", "http", "h", 80, b"/mcp/", b"h"),
        ("http://h?k=1", "http", "h", 80, b"/?k=1", b"h"),
        ("http://h/a?k=1&l=%20?", "http", "h", 80, b"/a?k=1&l=%20?", b"h"),
        ("HTTP://H:80/A/../B//C", "http", "H", 80, b"/A/../B//C", b"H:80"),
        ("http://[::1]:3001/mcp", "http", "::1", 3001, b"/mcp", b"[::1]:3001"),
        ("https://a_b.example./x;y=1", "https", "a_b.example.", 443, b"/x;y=1", b"a_b.example."),
    ],
)
def test_a_url_is_split_and_its_target_is_as_written(text, scheme, host, port, target, authority):
    url = parse_upstream_url(text)
    assert (url.scheme, url.host, url.port) == (scheme, host, port)
    assert (url.target, url.authority) == (target, authority)


@pytest.mark.parametrize(
    "text",
    ["", "h", "/mcp", "//h/mcp", "h:80/mcp", "ftp://h/", "file:///etc/passwd", "http:/h", "http:h",
     "http://", "http:///mcp", "http://:80/", "http://@h/", "http://u@h/", "http://u:hidden@h/",
     "http://h/#", "http://h/#x", "http://h:/", "http://h:0/", "http://h:65536/", "http://h:8a/",
     "http://h h/", "http://h/ ", " http://h/", "http://h/\r\nX:y", "http://h/\0", "http://h/\t",
     "http://h\\@x/", "http://ü/", "http://h/ü", "http://[::1/", "http://[1.2.3.4]/",
     "http://[::1]x/", "http://127.1/", "http://0177.0.0.1/", "http://2130706433/", "http://a..b/",
     "http://h%2e/", "http://*/", "http://h,i/"],
)  # fmt: skip
def test_a_url_that_could_be_read_in_two_ways_is_refused_and_not_shown(text):
    message = refusal(parse_upstream_url, text)
    assert "hidden" not in message


def test_a_url_for_people_has_no_query():
    url = parse_upstream_url("https://h:8443/mcp?key=hidden")
    assert str(url) == "https://h:8443/mcp?…"
    assert "hidden" not in repr(url)


def test_urls_are_equal_when_they_are_the_same_request():
    assert parse_upstream_url("http://h/a") == parse_upstream_url("http://h/a")
    assert hash(parse_upstream_url("http://h/a")) == hash(parse_upstream_url("http://h/a"))
    assert parse_upstream_url("http://h/a") != parse_upstream_url("http://h/b")
    assert parse_upstream_url("http://h/a") != "http://h/a"


@given(st.text(max_size=60) | st.from_regex(r"https?://[^ ]{0,30}", fullmatch=True))
def test_any_text_is_a_url_that_cannot_split_a_request_or_is_refused(text):
    try:
        url = parse_upstream_url(text)
    except FormError:
        return
    wire = url.target + url.authority
    assert wire.isascii()
    assert not any(c <= 0x20 or c == 0x7F for c in wire)
    assert url.target.startswith(b"/")
    assert 1 <= url.port <= 65535


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            forms.check_host_port,
            ["localhost:4318", "10.0.0.1:1", "[::1]:4317"],
            ["localhost", ":4318", "localhost:", "http://localhost:4318", "localhost:0", "[::1]", ""],
        ),
        (
            forms.check_allowed_host,
            ["example.com", "example.com:8080", "[::1]", "[::1]:80", "10.0.0.1", "localhost"],
            ["", "*.example.com", "http://a", "a/b", "a:b", "a b", "ü", ":80"],
        ),
        (
            forms.check_origin,
            ["*", "null", "http://localhost:3000", "https://a.example", "chrome-extension://abc"],
            ["", "https://a/", "https://a/b", "a.example", "https://*.a", "https://u@a", "http://",
             "https://a:x", "https://a?b", "https://a b"],
        ),
        (
            forms.check_server_name,
            ["a", "A-b_c.d", "_x", "9", "x" * 64],
            ["", ".", "..", "a/b", "a b", "-a", ".a", "gateway", "GateWay", "x" * 65, "ü", "a\n"],
        ),
        (
            forms.check_header,
            ["X-API-Key", "a", "x_y", "!#$%&'*+-.^_`|~"],
            ["", "a b", "a:", "ü", "a\n", "(a)"],
        ),
        (forms.check_method, ["GET", "x"], ["", "G ET", "GET\r\n"]),
        (
            forms.check_glob_path,
            ["/", "/a", "/a/*", "/*.json", "/a?b", "/...", "/.well-known/x"],
            ["", "a", "/..", "/./a", "/a/..", "/a/%2e%2E/b", "/a%2Fb", "/a%5cb", "/a\\b", "/a#b",
             "/a b", "/ü", "/.%2e/"],
        ),
        (
            forms.parse_network,
            ["10.0.0.0/8", "192.0.2.7", "::1", "fd00::/8", "10.0.0.0/255.0.0.0"],
            ["", "10.0.0.1/8", "10/8", "localhost", "10.0.0.0/33", " 10.0.0.0/8"],
        ),
        (
            forms.parse_secure_url,
            ["https://h", "https://h/a?b", "http://localhost/", "http://a.localhost:1/", "http://127.0.0.2",
             "http://[::1]:9000/x", "http://[::ffff:127.0.0.1]/"],
            ["", "h", "/x", "http://h/", "http://10.0.0.1/", "http://127.0.0.1.example/", "http://0.0.0.0/",
             "http://localhost@h/", "https://a:b@h/", "https://h/#a", "ftp://h/", "https://", "https://h:0",
             "https://h /", "https://ü/", "https://h\\", "https://h/" + "x" * 2048],
        ),
        (
            forms.check_issuer,
            ["https://h", "https://h/", "https://h:8443/a/b/", "http://127.0.0.1:1"],
            ["", "https://h?", "https://h/?a", "https://h/#", "http://h", "urn:a"],
        ),
        (
            forms.check_target,
            ["https://h/mcp", "http://h", "urn:a:b", "api://x"],
            ["", "h", "/a", "https://h/#a", "a b:c", "ü:x", "a:", ":a"],
        ),
        (
            forms.check_claim,
            ["sub", "client_id", "https://h/email", "x" * 128],
            ["", "a b", "ü", "a\n", "x" * 129, "iss", "exp", "nbf", "iat", "aud", "jti", "scope", "scp"],
        ),
        (forms.check_file, ["/a b/c", "x", "ü"], ["", "a\0b", "a\nb"]),
    ],
)  # fmt: skip
def test_each_form_takes_what_is_right_and_refuses_what_is_not(check, good, bad):
    for text in good:
        check(text)
    for text in bad:
        refusal(check, text)


def test_headers_come_in_lower_case_and_the_gateways_own_are_known():
    assert forms.check_header("X-Forwarded-For") == "x-forwarded-for"
    for name in ("host", "te", "mcp-session-id", "x-forwarded-proto", "proxy-connection",
                 "x-request-id", "forwarded", "transfer-encoding"):  # fmt: skip
        assert forms.is_ours(name)
    assert not forms.is_ours("accept-language")


def test_a_network_with_host_bits_is_told_the_network_that_was_meant():
    with pytest.raises(FormError) as refused:
        forms.parse_network("10.1.2.3/8")
    assert "10.0.0.0/8" in refused.value.hint


def test_what_credentials_travel_to_can_be_asked():
    from mcpx.services.outbound import _parsed

    for text in (
        "https://h/a?b",
        "http://[::1]:9000/x",
        "https://h_1.example./",
        "https://1.2.3.4:1",
    ):
        forms.parse_secure_url(text)
        assert _parsed(text, text).raw_host


@pytest.mark.parametrize(
    ("host", "public"),
    [("mcp.example.com", True), ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False),
     ("::1", False), ("mock", False), ("a.svc", False), ("a.internal.", False), ("A.LOCAL", False)],
)  # fmt: skip
def test_a_host_beyond_this_network_is_told_from_its_text(host, public):
    assert forms.is_public_host(host) is public
