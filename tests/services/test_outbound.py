import ipaddress
import socket
import ssl

import pytest
import trio
import trustme
from support.authorization_server import AuthorizationServer

from mcpx.services.outbound import EgressRefused, Outbound, OutboundError, is_public, place


@pytest.fixture
async def server():
    async with AuthorizationServer().serving() as running:
        yield running


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_context(authority, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class Resolver(trio.abc.HostnameResolver):
    """Answers with ``addresses``, in turns where they are lists; counts the questions."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.asked = []

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        found = self.addresses[min(len(self.asked), len(self.addresses) - 1)]
        self.asked.append(host.decode() if isinstance(host, bytes) else host)
        return [
            (
                socket.AF_INET6 if ":" in text else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (text, port, 0, 0) if ":" in text else (text, port),
            )
            for text in found
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
def resolve():
    """Puts a resolver in place for the current run of trio."""

    def put(*addresses):
        resolver = Resolver(*addresses)
        trio.socket.set_custom_hostname_resolver(resolver)
        return resolver

    return put


async def test_a_document_is_fetched(server):
    server.answers["/x"] = (200, [], b'{"a":1}')
    assert await Outbound().fetch(server.url + "/x") == b'{"a":1}'
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/x")
    assert headers[b"host"] == f"127.0.0.1:{server.port}".encode()
    assert headers[b"accept-encoding"] == b"identity"
    assert b"cookie" not in headers


async def test_a_form_is_posted_and_any_status_is_an_answer(server):
    server.answers["/form"] = (400, [], b"no")
    answer = await Outbound().post(
        server.url + "/form", {"a": "b c", "d": "&="}, headers=[("authorization", "Basic x")]
    )
    assert answer == (400, b"no")
    method, _, headers, form = server.asked[0]
    assert method == "POST"
    assert form == {"a": "b c", "d": "&="}
    assert headers[b"content-type"] == b"application/x-www-form-urlencoded"
    assert headers[b"authorization"] == b"Basic x"


async def test_a_redirect_is_not_followed(server):
    server.answers["/a"] = (302, [("location", server.url + "/b")], b"")
    assert (await Outbound().get(server.url + "/a")).status == 302
    with pytest.raises(OutboundError, match="answered with status 302"):
        await Outbound().fetch(server.url + "/a")
    assert [path for _, path, _, _ in server.asked] == ["/a", "/a"]


async def test_an_answer_that_is_too_long_is_refused(server):
    server.answers["/long"] = (200, [], b"x" * 5000)
    with pytest.raises(OutboundError, match="more than 4999 bytes"):
        await Outbound(limit_bytes=4999).fetch(server.url + "/long")
    assert len(await Outbound(limit_bytes=5000).fetch(server.url + "/long")) == 5000


async def test_an_answer_without_an_end_is_not_waited_for(nursery):
    async def pour(stream):
        try:
            async with stream:
                await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    await stream.send_all(b"x" * 10_000)
        except trio.BrokenResourceError:
            left.set()

    left = trio.Event()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, pour, listeners)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(OutboundError, match="more than 50000 bytes"):
        await Outbound(limit_bytes=50_000).fetch(f"http://127.0.0.1:{port}/")
    await left.wait()


async def test_an_answer_that_would_have_to_be_unpacked_is_refused(server):
    server.answers["/gz"] = (200, [("content-encoding", "gzip")], b"\x1f\x8b")
    with pytest.raises(OutboundError, match="encoding"):
        await Outbound().fetch(server.url + "/gz")


async def test_the_time_for_everything_is_bounded(server):
    server.gate = trio.Event()
    with pytest.raises(OutboundError, match="within 0.05 s"):
        await Outbound(timeout_s=0.05).fetch(server.url + "/x")


async def test_whoever_is_cancelled_does_not_wait(server):
    server.gate = trio.Event()
    with trio.move_on_after(0.05) as scope:
        await Outbound().fetch(server.url + "/x")
    assert scope.cancelled_caught


async def test_a_proxy_in_the_environment_is_not_used(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answers["/x"] = (200, [], b"ok")
    assert await Outbound().fetch(server.url + "/x") == b"ok"


async def test_a_server_that_is_not_there_is_an_error_without_the_query():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(OutboundError) as caught:
        await Outbound().fetch(f"http://127.0.0.1:{port}/x?key=secret")
    assert "secret" not in str(caught.value)
    assert f"127.0.0.1:{port}/x" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "//h/x",
        "file:///etc/passwd",
        "ftp://h/",
        "https://",
        "https://u:secret@h/",
        "https://h/#f",
        "https://h:99999/",
        "https://h/\n",
        "https://[::1/",
        "https://h/" + "x" * 2048,
    ],
)
@pytest.mark.parametrize("guarded", [True, False])
async def test_what_is_no_plain_address_is_refused(url, guarded):
    with pytest.raises(OutboundError) as caught:
        await Outbound().fetch(url, guarded=guarded)
    assert "secret" not in str(caught.value)


# TLS.


async def test_a_certificate_is_verified(authority, resolve):
    resolve(["127.0.0.1"])
    tls = server_context(authority, "as.example")
    async with AuthorizationServer().serving(tls) as server:
        server.answers["/x"] = (200, [], b"ok")
        url = f"https://as.example:{server.port}/x"
        assert await Outbound(tls=trusting(authority)).fetch(url) == b"ok"
        with pytest.raises(OutboundError, match="certificate is not trusted"):
            await Outbound().fetch(url)
        resolve(["127.0.0.1"])
        with pytest.raises(OutboundError, match="certificate is not trusted"):
            await Outbound(tls=trusting(authority)).fetch(url.replace("as.", "other."))
        assert len(server.asked) == 1


# Guarded addresses.

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::5"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "192.88.99.1",
    "2001:1ff::1",
    "3fff::1",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::10.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:a00:1::",
    "2002:808:808::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "4000::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_one(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_of_any_other_kind_is_none(text):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
async def test_a_name_at_such_an_address_is_not_asked(resolve, text):
    resolver = resolve([text])
    with pytest.raises(EgressRefused):
        await Outbound().fetch("https://name.example/", guarded=True)
    assert resolver.asked == ["name.example"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0"],
)
async def test_no_way_to_write_a_private_address_gets_past(host):
    with pytest.raises(OutboundError):
        await Outbound().fetch(f"https://{host}/", guarded=True)


async def test_one_private_address_among_public_ones_is_enough_to_refuse(resolve):
    resolve(["8.8.8.8", "10.0.0.1"])
    with pytest.raises(EgressRefused):
        await Outbound().fetch("https://name.example/", guarded=True)


async def test_plain_http_is_not_guarded_but_refused(resolve):
    resolver = resolve(["8.8.8.8"])
    with pytest.raises(EgressRefused, match="not https"):
        await Outbound().fetch("http://name.example/", guarded=True)
    assert not resolver.asked


async def test_a_name_that_can_not_be_resolved_is_an_error(resolve):
    resolve([])
    with pytest.raises(OutboundError, match="no address"):
        await Outbound().fetch("https://name.example/", guarded=True)


async def test_the_connection_goes_to_the_address_that_was_checked(authority, monkeypatch, resolve):
    """A name that has another address when it is asked for again changes nothing."""
    resolver = resolve(["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr("mcpx.services.outbound.is_public", lambda a: str(a) == "127.0.0.1")
    tls = server_context(authority, "as.example")
    async with AuthorizationServer().serving(tls) as server:
        server.answers["/x"] = (200, [], b"ok")
        url = f"https://as.example:{server.port}/x"
        outbound = Outbound(tls=trusting(authority))
        assert await outbound.fetch(url, guarded=True) == b"ok"
        # The name is asked for once; what follows is about the address alone.
        assert [name for name in resolver.asked if name == "as.example"] == ["as.example"]
        # TLS and Host are about the name.
        assert server.asked[0][2][b"host"] == f"as.example:{server.port}".encode()
        resolve(["127.0.0.1"])
        with pytest.raises(OutboundError, match="certificate"):
            await outbound.fetch(url.replace("as.", "evil."), guarded=True)
        resolve(["127.0.0.2"])
        with pytest.raises(EgressRefused):
            await outbound.fetch(url, guarded=True)


async def test_the_next_address_is_tried_when_one_can_not_be_reached(
    authority, monkeypatch, resolve
):
    resolve(["127.0.0.9", "127.0.0.1"])
    monkeypatch.setattr("mcpx.services.outbound.is_public", lambda _: True)
    tls = server_context(authority, "as.example")
    async with AuthorizationServer().serving(tls) as server:
        server.answers["/x"] = (200, [], b"ok")
        url = f"https://as.example:{server.port}/x"
        outbound = Outbound(tls=trusting(authority))
        assert await outbound.fetch(url, guarded=True) == b"ok"


async def test_private_addresses_are_asked_where_that_is_permitted(authority, server, resolve):
    resolve(["127.0.0.1"])
    tls = server_context(authority, "as.example")
    async with AuthorizationServer().serving(tls) as secure:
        secure.answers["/x"] = (200, [], b"ok")
        outbound = Outbound(tls=trusting(authority), allow_private=True)
        assert await outbound.fetch(f"https://as.example:{secure.port}/x", guarded=True) == b"ok"
        server.answers["/x"] = (200, [], b"plain")
        assert await outbound.fetch(server.url + "/x", guarded=True) == b"plain"


async def test_plain_http_goes_no_further_than_this_machine(resolve):
    resolve(["10.0.0.1"])
    with pytest.raises(EgressRefused):
        await Outbound(allow_private=True).fetch("http://name.example/", guarded=True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:secret@h:1/p?secret#secret", "https://h:1/p"),
        ("https://h?secret/@x", "https://h"),
        ("https://[bad", "the address"),
    ],
)
def test_a_place_shows_no_user_and_no_query(url, shown):
    assert place(url) == shown
