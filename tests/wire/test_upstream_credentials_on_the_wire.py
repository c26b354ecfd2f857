"""What the gateway shows to the servers: its own, fresh, once, and nothing of anybody else's.

It is long because each kind of credential goes through the same stories.
"""

import logging
from contextlib import asynccontextmanager

import pytest
import trio
from support.authorization_server import AuthorizationServer
from support.client import call, message
from support.inprocess import running

CANARY = "canary-1234567890abcdefghijklm"
CLIENTS = {
    "enabled": True,
    "type": "api_key",
    "clients": [{"name": "ci", "token": "client-token-0123456789"}],
}
#: What a client may try to be taken for, besides its own key.
CLIENTS_OWN = [
    ("Authorization", "Bearer clients-own-token"),
    ("Cookie", "clients-own-cookie=1"),
    ("Proxy-Authorization", "Basic clients-own"),
    ("X-Upstream-Key", "clients-own-key"),
    ("X-API-Key", "client-token-0123456789"),
]
FIXED = {
    "headers": (
        {"type": "headers", "headers": {"X-Tenant": "t-1", "Authorization": f"Basic {CANARY}"}},
        {"x-tenant": "t-1", "authorization": f"Basic {CANARY}"},
    ),
    "bearer": ({"type": "bearer", "token": CANARY}, {"authorization": f"Bearer {CANARY}"}),
    "api_key": ({"type": "api_key", "key": CANARY}, {"x-api-key": CANARY}),
    "api_key elsewhere": (
        {"type": "api_key", "header": "X-Upstream-Key", "key": CANARY},
        {"x-upstream-key": CANARY},
    ),
    "none": ({"type": "none"}, {}),
}
SHOWN = {
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-tenant",
    "x-upstream-key",
}


def shown(seen):
    """The headers of a request that could be a credential; each is there once."""
    found = [(name.decode(), value.decode()) for name, value in seen.headers]
    found = [(name, value) for name, value in found if name in SHOWN]
    assert len(dict(found)) == len(found), found
    return dict(found)


def with_auth(credential, **more):
    return {"servers": [{"name": "demo", "auth": credential}], **more}


def grant(authority, **more):
    return {
        "type": "client_credentials",
        "token_url": authority.url + "/token",
        "client_id": "gw",
        "client_secret": CANARY,
        **more,
    }


@asynccontextmanager
async def granted(tmp_path, config=None, **more):
    """A gateway that gets its tokens from an authorization server."""
    async with AuthorizationServer().serving() as authority:
        auth = grant(authority, **more)
        async with running(tmp_path, with_auth(auth, **(config or {}))) as gateway:
            yield gateway, authority


def tokens(gateway):
    return [seen.header("authorization") for seen in gateway.upstream.seen]


def refusing(gateway, *refused):
    """An upstream that answers 401 to these tokens."""
    usual = gateway.upstream.answer

    async def answer(seen, reply):
        if seen.header("authorization") in refused:
            headers = [("www-authenticate", 'Bearer realm="inner"'), ("content-type", "text/plain")]
            await reply.send(401, headers, b"inner detail")
        else:
            await usual(seen, reply)

    gateway.upstream.answer = answer


# -- What is shown


@pytest.mark.parametrize("kind", FIXED)
async def test_each_server_is_shown_its_own_and_nothing_of_the_clients(tmp_path, kind):
    auth, expected = FIXED[kind]
    async with running(tmp_path, with_auth(auth, auth=CLIENTS)) as gateway:
        for method, body in (("POST", call("echo")), ("GET", None), ("DELETE", None)):
            response = await gateway.request(method, "/mcp/demo", body, CLIENTS_OWN)
            assert response.status == 200
        assert [shown(seen) for seen in gateway.upstream.seen] == [expected] * 3
        text = repr([(seen.headers, seen.target) for seen in gateway.upstream.seen])
        assert "clients-own" not in text
        assert "client-token" not in text


async def test_a_token_that_is_got_is_shown_alone(tmp_path):
    async with granted(tmp_path, {"auth": CLIENTS}) as (gateway, _):
        for method, body in (("POST", call("echo")), ("GET", None), ("DELETE", None)):
            response = await gateway.request(method, "/mcp/demo", body, CLIENTS_OWN)
            assert response.status == 200
        expected = {"authorization": "Bearer given-1"}
        assert [shown(seen) for seen in gateway.upstream.seen] == [expected] * 3
        assert "clients-own" not in repr([seen.headers for seen in gateway.upstream.seen])


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-Upstream-Key"])
async def test_a_clients_header_can_not_be_passed_on_beside_it(tmp_path, name):
    auth = FIXED["api_key elsewhere"][0]
    server = {"name": "demo", "auth": auth, "forward_headers": ["X-Other"]}
    async with running(tmp_path, {"servers": [server]}) as gateway:
        server = {**server, "forward_headers": [name]}
        assert not await gateway.reload({"servers": [server]})
        headers = [("X-Upstream-Key", "clients-own"), ("x-upstream-key", "clients-own")]
        assert (await gateway.post(call("echo"), headers=headers)).status in (200, 400)
        assert "clients-own" not in repr([seen.headers for seen in gateway.upstream.seen])


@pytest.mark.parametrize(
    "name", ["User-Agent", "Traceparent", "Mcp-Session-Id", "Host", "X-Request-ID"]
)
async def test_a_header_that_clients_set_can_hold_no_credential(tmp_path, name):
    async with running(tmp_path) as gateway:
        auth = {"type": "headers", "headers": {name: CANARY}}
        assert not await gateway.reload(with_auth(auth))


async def test_each_server_gets_its_own(tmp_path):
    servers = [
        {"name": "demo", "auth": {"type": "bearer", "token": "token-of-demo-012345"}},
        {"name": "other", "auth": {"type": "bearer", "token": "token-of-other-01234"}},
        {"name": "third"},
    ]
    async with running(tmp_path, {"servers": servers}) as gateway:
        for name in ("demo", "other", "third"):
            assert (await gateway.post(call("echo"), f"/mcp/{name}")).status == 200
        found = {name: shown(each.seen[0]) for name, each in gateway.upstreams.items()}
        assert found == {
            "demo": {"authorization": "Bearer token-of-demo-012345"},
            "other": {"authorization": "Bearer token-of-other-01234"},
            "third": {},
        }


@pytest.mark.parametrize("kind", ["bearer", "client_credentials"])
async def test_the_health_probe_shows_it_too(tmp_path, kind):
    async with AuthorizationServer().serving() as authority:
        auth = FIXED["bearer"][0] if kind == "bearer" else grant(authority)
        async with running(tmp_path, with_auth(auth)) as gateway:
            assert (await gateway.get("/health")).json["status"] == "healthy"
            (seen,) = gateway.upstream.seen
            assert seen.message["method"] == "server/discover"
            expected = f"Bearer {CANARY}" if kind == "bearer" else "Bearer given-1"
            assert shown(seen) == {"authorization": expected}


async def test_a_server_whose_token_can_not_be_had_is_not_healthy(tmp_path):
    async with granted(tmp_path) as (gateway, authority):
        authority.answers["/token"] = (401, [], b'{"error":"invalid_client"}')
        response = await gateway.get("/health")
        assert response.json["status"] == "unhealthy"
        assert gateway.upstream.seen == []
        assert CANARY not in response.body.decode()


# -- Getting a token


@pytest.mark.parametrize("client_auth", ["basic", "post"])
async def test_a_token_is_asked_for_once_for_a_hundred_calls(tmp_path, client_auth):
    more = {"scopes": ["a", "b"], "resource": "https://up.example/mcp", "audience": "up"}
    async with granted(tmp_path, client_auth=client_auth, parameters={"tenant": "t"}, **more) as (
        gateway,
        authority,
    ):
        authority.gate = trio.Event()
        statuses = []

        async def ask(number):
            statuses.append((await gateway.post(call("echo", id=number))).status)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
            with trio.fail_after(20):
                while gateway.app._listener.connections < 100 or not authority.asked:
                    await trio.lowlevel.checkpoint()
            authority.gate.set()
        assert statuses == [200] * 100
        assert set(tokens(gateway)) == {"Bearer given-1"}
        ((method, path, headers, form),) = authority.asked
        assert (method, path) == ("POST", "/token")
        wanted = {
            "grant_type": "client_credentials",
            "scope": "a b",
            "resource": "https://up.example/mcp",
            "audience": "up",
            "tenant": "t",
        }
        if client_auth == "post":
            wanted |= {"client_id": "gw", "client_secret": CANARY}
        assert form == wanted
        assert (b"authorization" in headers) == (client_auth == "basic")


async def test_a_token_is_renewed_before_it_expires(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        await gateway.post(call("echo"))
        mock_clock.jump(200)
        await gateway.post(call("echo"))
        assert authority.given == 1
        mock_clock.jump(45)
        # Past four fifths of its life: this call goes on with the old one.
        await gateway.post(call("echo"))
        with trio.fail_after(10):
            while authority.given < 2:
                await trio.lowlevel.checkpoint()
        await gateway.get("/health/live")
        mock_clock.jump(60)
        await gateway.post(call("echo"))
        assert tokens(gateway) == ["Bearer given-1"] * 3 + ["Bearer given-2"]


async def test_a_token_that_is_refused_is_renewed_and_the_call_sent_again_once(
    tmp_path, mock_clock
):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        await gateway.post(message("ping"))
        mock_clock.jump(11)
        refusing(gateway, "Bearer given-1")
        large = call("echo", {"text": "x" * 50_000 + "é"})
        response = await gateway.post(large)
        assert response.status == 200
        assert "x" * 50_000 in response.body.decode()
        assert tokens(gateway) == ["Bearer given-1", "Bearer given-1", "Bearer given-2"]
        _, first, second = gateway.upstream.seen
        assert first.body == second.body
        assert len(second.body) > 50_000
        same = [("host", "content-length", "x-request-id", "content-type", "accept")] * 2
        a, b = (
            [seen.header(n) for n in names]
            for seen, names in zip((first, second), same, strict=True)
        )
        assert a == b
        assert authority.given == 2
        # Told and counted as the one call that it was.
        assert [line["status"] for line in await gateway.audit(2)] == [200, 200]


async def test_many_calls_whose_token_is_refused_share_the_next_one(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        await gateway.post(message("ping"))
        mock_clock.jump(11)
        refusing(gateway, "Bearer given-1")
        statuses = []

        async def ask(number):
            statuses.append((await gateway.post(call("echo", id=number))).status)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(ask, number)
        assert statuses == [200] * 30
        assert authority.given == 2


async def test_a_second_refusal_is_told_as_the_gateways_own(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        await gateway.post(message("ping"))
        mock_clock.jump(11)
        refusing(gateway, "Bearer given-1", "Bearer given-2")
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert response.header("www-authenticate") is None
        assert "inner" not in response.body.decode()
        assert len(gateway.upstream.seen) == 3
        # The token is new: another one would be refused as well.
        for _ in range(10):
            assert (await gateway.post(call("echo"))).status == 502
        assert len(gateway.upstream.seen) == 13
        assert authority.given == 2
        line = (await gateway.audit(12))[-1]
        assert (line["status"], line["outcome"]) == (502, "upstream_error")


async def test_a_fixed_credential_that_is_refused_is_not_sent_again(tmp_path):
    async with running(tmp_path, with_auth(FIXED["bearer"][0])) as gateway:
        refusing(gateway, f"Bearer {CANARY}")
        response = await gateway.post(call("echo"))
        assert response.status == 502
        assert response.header("www-authenticate") is None
        assert len(gateway.upstream.seen) == 1


# -- When none can be had


async def fails(gateway, status=503):
    response = await gateway.post(call("echo"))
    assert response.status == status, response
    assert int(response.header("retry-after")) >= 1
    assert response.header("www-authenticate") is None
    assert response.json["id"] == 1
    assert gateway.upstream.seen == []
    return response


@pytest.mark.parametrize(
    "answer",
    [
        (500, [], b""),
        (400, [], b'{"error":"invalid_client","error_description":"' + CANARY.encode() + b'"}'),
        (400, [], b'{"error":"' + CANARY.encode() + b'"}'),
        (200, [], b"no JSON"),
        (200, [], b"{}"),
        (200, [], b'{"access_token":"a b","token_type":"Bearer"}'),
        (200, [], b'{"access_token":"a\\r\\nX: y","token_type":"Bearer"}'),
        (200, [], b'{"access_token":"","token_type":"Bearer"}'),
        (200, [], b'{"access_token":"abc","token_type":"mac"}'),
        (200, [], b'{"access_token":"abc"}'),
        (200, [], b"x" * 600_000),
        (200, [("content-encoding", "gzip")], b"x"),
        (201, [], b'{"access_token":"abc","token_type":"Bearer"}'),
    ],
)
async def test_without_a_token_nothing_is_sent(tmp_path, mock_clock, answer):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        authority.answers["/token"] = answer
        for _ in range(5):
            response = await fails(gateway)
            assert CANARY not in response.body.decode()
        # Asked once; then not for a second.
        assert len(authority.asked) == 1
        for line in await gateway.audit(5):
            assert (line["status"], line["outcome"]) == (503, "upstream_error")
            assert CANARY not in str(line)
        mock_clock.jump(1.1)
        await fails(gateway)
        assert len(authority.asked) == 2
        mock_clock.jump(1.1)
        await fails(gateway)
        assert len(authority.asked) == 2
        del authority.answers["/token"]
        mock_clock.jump(1)
        assert (await gateway.post(call("echo"))).status == 200


async def test_a_token_that_is_over_when_it_comes_is_not_asked_for_again_and_again(tmp_path):
    async with granted(tmp_path) as (gateway, authority):
        authority.lifetime_s = 1e-9
        for _ in range(5):
            await fails(gateway)
        assert authority.given == 1


async def test_a_redirect_of_the_token_endpoint_is_not_followed(tmp_path):
    async with AuthorizationServer().serving() as elsewhere:
        async with granted(tmp_path, client_auth="post") as (gateway, authority):
            for number, status in enumerate((301, 302, 303, 307, 308)):
                location = [("location", elsewhere.url + "/token")]
                authority.answers["/token"] = (status, location, b"")
                if number:
                    auth = grant(authority, client_auth="post", scopes=[str(status)])
                    assert await gateway.reload(with_auth(auth))
                await fails(gateway)
            assert len(authority.asked) == 5
        assert elsewhere.asked == []


async def test_a_token_endpoint_that_hangs_holds_nobody_for_long(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with granted(tmp_path) as (gateway, authority):
        authority.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(fails, gateway)
            with trio.fail_after(20):
                while not authority.asked:
                    await trio.lowlevel.checkpoint()
            mock_clock.jump(11)
        assert len(authority.asked) == 1
        authority.gate.set()


async def test_a_token_endpoint_that_nobody_listens_at(tmp_path):
    async with granted(tmp_path) as (gateway, authority):
        auth = grant(authority, token_url="http://127.0.0.1:9/token")
        assert await gateway.reload(with_auth(auth))
        response = await fails(gateway)
        assert "127.0.0.1" not in response.body.decode()


# -- Reloads, files, secrecy


async def test_a_secret_in_a_file_is_read_again_with_each_reload(tmp_path):
    path = tmp_path / "secret"
    path.write_text("first-secret\n")
    config = with_auth({"type": "bearer", "token": f"file:{path}"})
    async with running(tmp_path, config) as gateway:
        await gateway.post(call("echo"))
        path.write_text("second-secret\n")
        await gateway.post(call("echo"))
        assert await gateway.reload(config)
        await gateway.post(call("echo"))
        path.unlink()
        # Without its secret a configuration changes nothing.
        assert not await gateway.reload(config)
        await gateway.post(call("echo"))
        assert tokens(gateway) == ["Bearer first-secret"] * 2 + ["Bearer second-secret"] * 2


async def test_a_client_secret_in_a_file_is_read_again_and_asks_anew(tmp_path):
    path = tmp_path / "secret"
    path.write_text("first-secret")
    more = {"client_secret": f"file:{path}", "client_auth": "post"}
    async with granted(tmp_path, **more) as (gateway, authority):
        config = with_auth(grant(authority, **more))
        await gateway.post(call("echo"))
        assert await gateway.reload(config)
        await gateway.post(call("echo"))
        assert authority.given == 1
        path.write_text("second-secret")
        assert await gateway.reload(config)
        await gateway.post(call("echo"))
        secrets = [form["client_secret"] for _, _, _, form in authority.asked]
        assert secrets == ["first-secret", "second-secret"]
        assert tokens(gateway) == ["Bearer given-1"] * 2 + ["Bearer given-2"]


@pytest.mark.parametrize("kind", ["headers", "bearer", "api_key", "basic", "post"])
async def test_secrets_are_in_no_output(tmp_path, caplog, kind):
    caplog.set_level(logging.DEBUG)
    said = []
    async with AuthorizationServer().serving() as authority:
        auth = FIXED[kind][0] if kind in FIXED else grant(authority, client_auth=kind)
        # What is given is a secret as well.
        given = "given-"
        config = with_auth(
            auth,
            log={"level": "debug"},
            audit={
                "enabled": True,
                "output": "file",
                "path": str(tmp_path / "audit.jsonl"),
                "arguments": True,
            },
        )
        async with running(tmp_path, config) as gateway:

            async def ask():
                responses = [
                    await gateway.post(call("echo", {"a": 1})),
                    await gateway.get("/health"),
                    await gateway.get("/servers"),
                    await gateway.get("/metrics"),
                    await gateway.get("/mcp/demo"),
                ]
                said.extend(repr((each.status, each.headers, each.body)) for each in responses)

            await ask()
            refusing(gateway, *tokens(gateway), None)
            await ask()
            authority.answers["/token"] = (400, [], b'{"error":"' + CANARY.encode() + b'"}')
            if kind not in FIXED:
                # Another grant than before: it is asked for, and refused in those words.
                auth["scopes"] = ["other"]
            assert await gateway.reload(config)
            await ask()
            assert kind in FIXED or len(authority.asked) >= 2
            # One that can't be used: the fault must not quote it.
            broken = {**auth, **({"token": CANARY + "\n"} if kind == "bearer" else {"nothing": 1})}
            assert not await gateway.reload(with_auth(broken))
            state = gateway.app.state
            held = [state.trust, state.snapshot, *state.trust.credentials.values()]
            said += [*map(repr, held), str(await gateway.audit(6))]
    everything = "\n".join([caplog.text, *said, *map(repr, caplog.records)])
    assert len(caplog.records) > 3
    assert CANARY not in everything
    assert given not in everything
    for record in caplog.records:
        assert CANARY not in repr(record.__dict__)
