"""Who may ask, what travels upstream, and what comes back."""

import pytest
from support.client import call, message
from support.inprocess import running
from support.recorder import plain_mcp

TOKEN = "correct-horse-battery"
BEARER = {"auth": {"enabled": True, "type": "bearer", "token": TOKEN}}
API_KEY = {
    "auth": {
        "enabled": True,
        "type": "api_key",
        "header": "X-Team-Key",
        "clients": [{"name": "ci", "token": TOKEN}],
    }
}


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "missing Authorization header"),
        ([("Authorization", "")], "missing"),
        ([("Authorization", "Bearer")], "missing bearer token"),
        ([("Authorization", "Bearer ")], "missing bearer token"),
        ([("Authorization", f"Basic {TOKEN}")], "missing bearer token"),
        ([("Authorization", "Bearer wrong")], "invalid token"),
        ([("Authorization", f"Bearer {TOKEN}x")], "invalid token"),
        ([("Authorization", f"Bearer {TOKEN.upper()}")], "invalid token"),
        ([("X-API-Key", TOKEN)], "missing Authorization header"),
    ],
)
async def test_without_the_bearer_token_nothing_is_served(tmp_path, headers, words):
    async with running(tmp_path, BEARER) as gateway:
        response = await gateway.post(call("echo"), headers=headers)
        assert response.status == 401
        assert words in response.error["message"]
        assert response.header("www-authenticate").startswith("Bearer")
        assert response.json["id"] == 1
        assert gateway.upstream.seen == []
        (line,) = await gateway.audit(1)
        assert (line["status"], line["outcome"], line["allowed"]) == (401, "unauthorized", False)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_scheme_is_read_in_any_case(tmp_path, scheme):
    async with running(tmp_path, BEARER) as gateway:
        headers = [("Authorization", f"{scheme} {TOKEN}")]
        assert (await gateway.post(call("echo"), headers=headers)).status == 200


async def test_two_authorization_headers_are_refused(tmp_path):
    async with running(tmp_path, BEARER) as gateway:
        headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")]
        assert (await gateway.post(call("echo"), headers=headers)).status in (400, 401)
        assert gateway.upstream.seen == []


async def test_an_api_key_names_its_client(tmp_path):
    async with running(tmp_path, API_KEY) as gateway:
        assert (await gateway.post(call("echo"))).status == 401
        assert (await gateway.post(call("echo"), headers=[("X-Team-Key", "no")])).status == 401
        assert (await gateway.post(call("echo"), headers=[("X-Team-Key", TOKEN)])).status == 200
        lines = await gateway.audit(3)
        assert [line.get("client") for line in lines] == [None, None, "ci"]


async def test_credentials_and_cookies_never_travel_upstream(tmp_path):
    async with running(tmp_path, API_KEY) as gateway:
        headers = [
            ("X-Team-Key", TOKEN),
            ("Authorization", "Bearer other-secret"),
            ("Cookie", "session=other-secret"),
            ("X-API-Key", "other-secret"),
            ("Proxy-Authorization", "Basic other-secret"),
            ("X-Custom", "other-secret"),
            ("Connection", "keep-alive, Mcp-Hop"),
            ("Mcp-Hop", "other-secret"),
            ("TE", "trailers"),
            ("Forwarded", "for=other-secret"),
        ]
        assert (await gateway.post(call("echo"), headers=headers)).status == 200
        text = repr(gateway.upstream.seen[0].headers)
        assert TOKEN not in text
        assert "other-secret" not in text


async def test_the_server_sees_its_own_host_and_who_asked(tmp_path):
    async with running(tmp_path) as gateway:
        headers = [("X-Forwarded-For", "6.6.6.6"), ("X-Request-ID", "abc-123")]
        response = await gateway.post(call("echo"), headers=headers)
        seen = gateway.upstream.seen[0]
        assert seen.header("host") == gateway.upstream.url.split("/")[2]
        assert seen.header("x-forwarded-for") == "127.0.0.1"
        assert seen.header("x-forwarded-proto") == "http"
        assert seen.header("x-forwarded-host") == gateway.address
        assert seen.header("x-request-id") == "abc-123"
        assert response.header("x-request-id") == "abc-123"
        (line,) = await gateway.audit(1)
        assert (line["request_id"], line["client_ip"]) == ("abc-123", "127.0.0.1")


async def test_a_trusted_proxy_may_say_who_asked(tmp_path):
    async with running(tmp_path, {"trusted_proxies": ["127.0.0.0/8"]}) as gateway:
        headers = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9")]
        await gateway.post(call("echo"), headers=headers)
        (line,) = await gateway.audit(1)
        assert line["client_ip"] == "203.0.113.9"


@pytest.mark.parametrize("given", ["x" * 129, 'a"b', "a b", "a\tb", "<script>", "ä"])
async def test_a_request_id_that_could_do_harm_is_replaced(tmp_path, given):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), headers=[("X-Request-ID", given)])
        if response.status == 200:
            assert len(response.header("x-request-id")) == 16
            int(response.header("x-request-id"), 16)


async def test_every_answer_carries_a_request_id(tmp_path):
    async with running(tmp_path, BEARER) as gateway:
        for response in (
            await gateway.post(call("echo")),
            await gateway.post(b"[]"),
            await gateway.get("/health"),
            await gateway.get("/metrics"),
            await gateway.get("/mcp/none"),
        ):
            assert len(response.header("x-request-id")) == 16


async def test_what_the_server_says_of_itself_stays_there(tmp_path):
    async def answer(seen, reply):
        extra = [
            ("set-cookie", "a=b"),
            ("server", "internal/1.0"),
            ("access-control-allow-origin", "*"),
            ("x-internal-host", "10.0.0.7"),
            ("mcp-protocol-version", "2025-11-25"),
            ("retry-after", "3"),
        ]
        await reply.json({"jsonrpc": "2.0", "id": 1, "result": {}}, headers=extra)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(message("ping"))
        assert response.header("mcp-protocol-version") == "2025-11-25"
        assert response.header("retry-after") == "3"
        for name in ("set-cookie", "server", "access-control-allow-origin", "x-internal-host"):
            assert response.header(name) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_not_passed_on(tmp_path, status):
    async def answer(seen, reply):
        await reply.send(status, [("location", "http://10.0.0.7/internal")])

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert b"10.0.0.7" not in response.body
        assert response.header("location") is None
        assert len(gateway.upstream.seen) == 1


@pytest.mark.parametrize("status", [401, 407])
async def test_a_refusal_of_the_gateway_itself_is_not_the_clients(tmp_path, status):
    async def answer(seen, reply):
        await reply.send(status, [("www-authenticate", 'Bearer realm="internal"')], b"{}")

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert response.header("www-authenticate") is None


async def test_an_unreachable_server_is_a_502_that_names_no_address(tmp_path):
    config = {"servers": [{"name": "demo", "url": "http://127.0.0.1:9/secret-path"}]}
    async with running(tmp_path, config) as gateway:
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert response.error["code"] == -32000
        for leak in (b"127.0.0.1", b":9", b"secret-path", b"refused"):
            assert leak not in response.body
        (line,) = await gateway.audit(1)
        assert (line["status"], line["outcome"]) == (502, "upstream_error")


async def test_a_session_belongs_to_the_client_and_server_that_it_was_made_for(tmp_path):
    async def answer(seen, reply):
        given = seen.header("mcp-session-id")
        if given is None:
            await reply.json(
                {"jsonrpc": "2.0", "id": 1, "result": {}}, headers=[("mcp-session-id", "s-1")]
            )
        else:
            await plain_mcp(seen, reply)

    config = {
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [{"name": "a", "token": "a" * 20}, {"name": "b", "token": "b" * 20}],
        },
        "servers": [{"name": "demo"}, {"name": "other"}],
    }
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = answer
        a, b = [[("Authorization", "Bearer " + letter * 20)] for letter in "ab"]
        opened = await gateway.post(message("initialize", {}), headers=a)
        session = opened.header("mcp-session-id")
        assert session != "s-1"
        mine = [("Mcp-Session-Id", session)]
        assert (await gateway.post(call("echo"), headers=a + mine)).status == 200
        assert gateway.upstream.seen[-1].header("mcp-session-id") == "s-1"
        before = len(gateway.upstream.seen)
        assert (await gateway.post(call("echo"), headers=b + mine)).status == 404
        other = await gateway.post(call("echo"), "/mcp/other", a + mine)
        assert other.status == 404
        for forged in ("s-1", session[:-1] + ("A" if session[-1] != "A" else "B"), "x" * 4000):
            headers = [*a, ("Mcp-Session-Id", forged)]
            response = await gateway.post(call("echo"), headers=headers)
            assert response.status in (404, 431), response
        assert len(gateway.upstream.seen) == before
        # GET and DELETE carry it too.
        response = await gateway.request("DELETE", "/mcp/demo", None, a + mine)
        assert response.status == 200
        assert gateway.upstream.seen[-1].method == "DELETE"
        assert gateway.upstream.seen[-1].header("mcp-session-id") == "s-1"
        # The audit names sessions without giving them away.
        text = repr(await gateway.audit())
        assert "s-1" not in text
        assert session not in text


HOSTS = ["evil.example.com", "localhost.evil.com", "127.0.0.1.evil.com", "evil.com:8080", "[::2]"]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_rebound_name_is_refused_on_a_loopback_listener(tmp_path, host):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), headers=[("Host", host)])
        assert response.status in (400, 403)
        assert gateway.upstream.seen == []


@pytest.mark.parametrize(
    "origin", ["http://evil.example.com", "null", "https://localhost.evil.com"]
)
async def test_a_foreign_page_is_refused(tmp_path, origin):
    async with running(tmp_path) as gateway:
        response = await gateway.post(call("echo"), headers=[("Origin", origin)])
        assert response.status == 403
        assert response.header("access-control-allow-origin") is None
        assert gateway.upstream.seen == []


async def test_pages_and_names_of_this_machine_are_served(tmp_path):
    async with running(tmp_path) as gateway:
        for host in ("localhost", f"localhost:{gateway.port}", "127.0.0.1", "[::1]:1"):
            assert (await gateway.post(call("echo"), headers=[("Host", host)])).status == 200
        for origin in ("http://localhost:6274", "http://127.0.0.1", "http://[::1]:3"):
            response = await gateway.post(call("echo"), headers=[("Origin", origin)])
            assert response.status == 200
            # CORS is off unless it is configured.
            assert response.header("access-control-allow-origin") is None


async def test_cors_is_for_the_origins_that_are_listed(tmp_path):
    config = {"cors": {"enabled": True, "allowed_origins": ["https://app.example.com"]}}
    async with running(tmp_path, config) as gateway:
        origin = [("Origin", "https://app.example.com")]
        response = await gateway.post(call("echo"), headers=origin)
        assert response.header("access-control-allow-origin") == "https://app.example.com"
        assert response.header("vary") == "Origin"
        exposed = response.header("access-control-expose-headers").lower()
        for name in ("mcp-session-id", "x-request-id", "retry-after"):
            assert name in exposed
        asked = [*origin, ("Access-Control-Request-Method", "DELETE")]
        preflight = await gateway.request("OPTIONS", "/mcp/demo", None, asked)
        assert preflight.status == 204
        assert "DELETE" in preflight.header("access-control-allow-methods")
        allowed = preflight.header("access-control-allow-headers").lower()
        for name in ("mcp-protocol-version", "last-event-id", "mcp-session-id", "authorization"):
            assert name in allowed
        assert preflight.header("access-control-max-age") == "86400"
        evil = [("Origin", "https://evil.example.com"), ("Access-Control-Request-Method", "POST")]
        assert (await gateway.request("OPTIONS", "/mcp/demo", None, evil)).status == 403
        # A backend's own CORS headers would contradict these.
        assert len(response.all("access-control-allow-origin")) == 1
