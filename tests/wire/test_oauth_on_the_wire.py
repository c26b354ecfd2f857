"""The gateway as an OAuth 2.1 resource server: who is let in, with which keys, for what."""

import logging

import pytest
from support.client import call, message
from support.oauth_gateway import (
    DEMO,
    METADATA,
    RESOURCE,
    WELL_KNOWN,
    bearer,
    challenge,
    guarded,
    now,
    settings,
)

CI = "ci-token-of-some-length"
BOTH = {"type": "", "types": ["oauth", "bearer"], "clients": [{"name": "ci", "token": CI}]}
KEYED = {"type": "", "types": ["oauth", "api_key"], "clients": [{"name": "ci", "token": CI}]}
TWO = [{"name": "demo"}, {"name": "other"}]
OTHER = f"{RESOURCE}/mcp/other"


# -- Good tokens, and none


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "RS512", "ES384"])
async def test_a_good_token_is_its_users(tmp_path, algorithm):
    async with guarded(tmp_path, algorithm=algorithm) as rig:
        for _ in range(3):
            await rig.served(rig.headers())
        await rig.served(rig.headers(sub="bob"), client="bob")
        assert rig.fetches == 1


async def test_who_shows_no_token_is_told_where_to_get_one(tmp_path):
    async with guarded(tmp_path, {"scopes": ["mcp:read"]}) as rig:
        for headers in ([], [("X-API-Key", "x")], [("Cookie", "token=x")]):
            await rig.refused(headers, scope="mcp:read")
        for headers in ([("Authorization", "Bearer ")], [("Authorization", "Basic YTpi")]):
            await rig.refused(headers, scope="mcp:read")
        assert rig.fetches == 0


@pytest.mark.parametrize(
    "audience", [DEMO, DEMO + "/", [DEMO], ["https://x.example", DEMO], RESOURCE, RESOURCE + "/"]
)
async def test_an_audience_may_be_the_server_or_the_gateway(tmp_path, audience):
    async with guarded(tmp_path) as rig:
        await rig.served(rig.headers(audience))


@pytest.mark.parametrize("padding", [5000, 5800])
async def test_a_token_may_be_long(tmp_path, padding):
    async with guarded(tmp_path, auth=BOTH) as rig:
        headers = rig.headers(groups="g" * padding)
        assert 7000 < len(headers[0][1]) <= 8192 + len("Bearer ")
        await rig.served(headers)


async def test_the_gateways_own_audience_can_be_refused(tmp_path):
    async with guarded(tmp_path, {"accept_gateway_audience": False}) as rig:
        await rig.refused(rig.headers(RESOURCE), code="audience")
        await rig.served(rig.headers(DEMO))


async def test_a_token_for_one_server_is_good_at_no_other(tmp_path):
    async with guarded(tmp_path, servers=TWO) as rig:
        headers = rig.headers(DEMO)
        for _ in range(2):
            # Known by then, and refused all the same.
            await rig.served(headers)
            where = f"{RESOURCE}{WELL_KNOWN}/mcp/other"
            await rig.refused(headers, code="audience", path="/mcp/other", metadata=where)
        assert rig.gateway.upstreams["other"].seen == []
        await rig.served(rig.headers(OTHER), path="/mcp/other")
        assert len(rig.gateway.upstreams["other"].seen) == 1


async def test_clocks_may_differ_by_the_leeway(tmp_path):
    async with guarded(tmp_path, {"leeway": "60s"}) as rig:
        for _ in range(2):
            await rig.served(rig.headers(exp=now() - 30))
        await rig.served(rig.headers(nbf=now() + 30, iat=now() + 30))
        await rig.refused(rig.headers(exp=now() - 61), code="expired")
        await rig.refused(rig.headers(nbf=now() + 90), code="not_yet_valid")


async def test_another_claim_may_name_the_user(tmp_path):
    async with guarded(tmp_path, auth={"identity_claim": "email"}) as rig:
        await rig.served(rig.headers(email="a@x.example"), client="a@x.example")
        await rig.refused(rig.headers(), code="identity")


# -- Several types of credentials


async def test_static_tokens_and_signed_ones_stand_side_by_side(tmp_path):
    async with guarded(tmp_path, auth=BOTH) as rig:
        await rig.served(bearer(CI), client="ci")
        await rig.served(rig.headers(), client="alice")
        await rig.refused(bearer(CI + "x"), code="unknown")
        await rig.refused(bearer("ey.ey"), code="unknown")
        # An authorization server can't speak for a client that has its own credential.
        await rig.refused(rig.headers(sub="ci"), code="identity")
        await rig.refused(rig.headers(sub="default"), code="identity")


async def test_keys_and_signed_tokens_stand_side_by_side_one_at_a_time(tmp_path):
    async with guarded(tmp_path, auth=KEYED) as rig:
        await rig.served([("X-API-Key", CI)], client="ci")
        await rig.served(rig.headers(), client="alice")
        # A client's key is no token, and a token no key.
        await rig.refused(bearer(CI), code="unknown")
        await rig.refused([("X-API-Key", rig.token().decode())])
        for key in (CI, "wrong"):
            for headers in (rig.headers(), bearer(CI)):
                response = await rig.refused([*headers, ("X-API-Key", key)])
                assert response.error["message"] == "more than one credential"


# -- Scopes

SCOPES = {
    "scopes": ["mcp:read"],
    "scope_rules": [
        {"methods": ["tools/call"], "scopes": ["mcp:call"]},
        {"tools": ["danger*"], "scopes": ["admin"]},
        {"methods": ["GET"], "scopes": ["stream"]},
        {"methods": ["DELETE"], "scopes": ["end"]},
        {"servers": ["other"], "scopes": ["other:use"]},
    ],
    "implied_scopes": {"root": ["admin"], "admin": ["mcp:call", "mcp:read"]},
}


async def lacking(rig, response, scopes, path="demo"):
    assert response.status == 403
    told = challenge(response)
    assert told == {
        "resource_metadata": METADATA.replace("demo", path),
        "error": "insufficient_scope",
        "scope": " ".join(sorted(scopes)),
    }
    line = (await rig.lines())[-1]
    assert (line["status"], line["outcome"], line["client"]) == (403, "denied", "alice")


async def test_an_operation_needs_its_scopes_and_is_told_all_of_them(tmp_path):
    async with guarded(tmp_path, SCOPES, servers=TWO) as rig:

        async def ask(scope, body, path="demo"):
            headers = rig.headers(RESOURCE, scope=scope)
            return await rig.gateway.post(body, f"/mcp/{path}", headers)

        everything = {"mcp:read", "mcp:call", "admin"}
        await rig.refused([], scope="mcp:read")
        for body, scope, needed in (
            (message("tools/list"), "", {"mcp:read"}),
            (message("tools/list"), "mcp:readx MCP:READ", {"mcp:read"}),
            (message("ping"), "mcp:call", {"mcp:read"}),
            (call("echo"), "mcp:read", {"mcp:read", "mcp:call"}),
            (call("dangerous"), "mcp:read mcp:call", everything),
            (call("DANGEROUS"), "mcp:read mcp:call", everything),
            (call("ｄanger"), "mcp:read mcp:call", everything),
            (call("dangerous"), "", everything),
        ):
            response = await ask(scope, body)
            await lacking(rig, response, needed)
            assert response.error["data"]["required_scopes"] == sorted(needed)
            assert response.json["id"] == 1
        response = await ask("mcp:read mcp:call", call("echo"), "other")
        await lacking(rig, response, {"mcp:read", "mcp:call", "other:use"}, "other")
        assert rig.upstream == rig.gateway.upstreams["other"].seen == []

        for body, scope in (
            (message("tools/list"), "mcp:read"),
            (call("echo"), "mcp:read  mcp:call x"),
            (call("echo"), ["mcp:read", "mcp:call"]),
            (call("echo"), "admin"),
            (call("dangerous"), "root"),
        ):
            assert (await ask(scope, body)).status == 200
        assert (await ask("mcp:read mcp:call other:use", call("echo"), "other")).status == 200


async def test_streams_and_ends_of_sessions_need_their_scopes(tmp_path):
    async with guarded(tmp_path, SCOPES, servers=TWO) as rig:
        for method, scope in (("GET", "stream"), ("DELETE", "end")):
            response = await rig.gateway.request(method, "/mcp/demo")
            assert response.status == 401
            assert challenge(response) == {"resource_metadata": METADATA, "scope": "mcp:read"}
            assert response.json["error"]["code"] == "unauthorized"
            response = await rig.gateway.request(
                method, "/mcp/demo", headers=rig.headers(scope="mcp:read")
            )
            await lacking(rig, response, {"mcp:read", scope})
            assert rig.upstream == []
        for method, scope in (("GET", "stream"), ("DELETE", "end")):
            headers = rig.headers(scope=f"mcp:read {scope}")
            response = await rig.gateway.request(method, "/mcp/demo", headers=headers)
            assert response.status == 200
        assert [seen.method for seen in rig.upstream] == ["GET", "DELETE"]


async def test_static_clients_have_no_scopes_and_need_none(tmp_path):
    async with guarded(tmp_path, SCOPES, BOTH, servers=TWO) as rig:
        await rig.served(bearer(CI), client="ci")


async def test_a_kept_result_is_for_tokens_that_could_have_got_it(tmp_path):
    servers = [{"name": "demo", "cache": {"tools": {"echo": {}}}}, {"name": "other"}]
    async with guarded(tmp_path, SCOPES, servers=servers, cache={"enabled": True}) as rig:
        await rig.served(rig.headers(scope="admin"))
        response = await rig.gateway.post(call("echo"), headers=rig.headers(scope="admin"))
        assert response.header("x-mcpx-cache") == "hit"
        for lesser in ("mcp:read", "mcp:call", ""):
            response = await rig.gateway.post(call("echo"), headers=rig.headers(scope=lesser))
            assert response.status == 403
        await rig.refused(rig.headers(exp=1), code="expired", scope="mcp:read")
        await rig.served(rig.headers(scope="admin", sub="bob"), client="bob")


# -- Bodies, policies, sessions, pages


async def test_a_large_body_is_taken_of_whoever_shows_a_good_token(tmp_path):
    large = call("echo", {"text": "x" * 200_000})
    async with guarded(tmp_path) as rig:
        await rig.served(rig.headers(), body=large)
        assert len(rig.upstream[0].body) > 200_000
        for headers in ([], rig.headers("https://x.example"), bearer("x")):
            async with await rig.gateway.connect() as client:
                # Its body never comes: it was not waited for.
                head = client.render("POST", "/mcp/demo", b"", headers)
                await client.raw(head.replace(b"Content-Length: 0", b"Content-Length: 200000"))
                response = await client.response()
            assert response.status == 401
            assert challenge(response)["resource_metadata"] == METADATA
        async with await rig.gateway.connect() as client:
            chunked = [("Content-Length", None), ("Transfer-Encoding", "chunked")]
            await client.raw(client.render("POST", "/mcp/demo", b"", chunked))
            assert (await client.response()).status == 401
        assert len(rig.upstream) == 1
        assert [line["status"] for line in await rig.gateway.audit(5)] == [200, 401, 401, 401, 401]


async def test_a_policy_may_be_of_one_user(tmp_path):
    clients = {"alice": {"servers": {"demo": {"deny_tools": ["echo"]}}}}
    async with guarded(tmp_path, clients=clients) as rig:
        response = await rig.gateway.post(call("echo"), headers=rig.headers())
        assert response.status == 403
        assert response.header("www-authenticate") is None
        await rig.served(rig.headers(sub="bob"), client="bob")
        listed = await rig.served(rig.headers(), body=message("tools/list"))
        assert "echo" not in {tool["name"] for tool in listed.json["result"]["tools"]}


async def test_a_session_is_its_users_whatever_the_token(tmp_path):
    async def answer(seen, reply):
        headers = [("mcp-session-id", "s-1")] if seen.message["method"] == "initialize" else []
        await reply.json({"jsonrpc": "2.0", "id": 1, "result": {}}, headers=headers)

    async with guarded(tmp_path) as rig:
        rig.gateway.upstream.answer = answer
        opened = await rig.served(rig.headers(), body=message("initialize", {}))
        session = [("Mcp-Session-Id", opened.header("mcp-session-id"))]
        await rig.served([*rig.headers(jti="another"), *session])
        assert rig.upstream[-1].header("mcp-session-id") == "s-1"
        reached = len(rig.upstream)
        for name in ("bob", "Alice", "alice\u0301"):
            response = await rig.gateway.post(
                call("echo"), headers=[*rig.headers(sub=name), *session]
            )
            assert response.status == 404
        assert len(rig.upstream) == reached


async def test_the_gateways_pages_want_a_token_for_the_gateway(tmp_path):
    async with guarded(tmp_path, auth={"operators": ["alice"]}) as rig:
        where = f"{RESOURCE}{WELL_KNOWN}"
        for page in ("/metrics", "/servers"):
            response = await rig.gateway.get(page)
            assert (response.status, challenge(response)) == (401, {"resource_metadata": where})
            response = await rig.gateway.get(page, rig.headers(DEMO))
            assert response.status == 401
            assert challenge(response)["error"] == "invalid_token"
            assert (await rig.gateway.get(page, rig.headers(RESOURCE, sub="bob"))).status == 403
            assert (await rig.gateway.get(page, rig.headers(RESOURCE))).status == 200
        health = await rig.gateway.get("/health", rig.headers(RESOURCE))
        assert "demo" in health.body.decode()
        health = await rig.gateway.get("/health", rig.headers(RESOURCE, sub="bob"))
        assert (health.status, "demo" in health.body.decode()) == (200, False)


async def test_a_path_that_names_no_server_tells_a_stranger_nothing(tmp_path):
    async with guarded(tmp_path) as rig:
        where = f"{RESOURCE}{WELL_KNOWN}"
        await rig.refused([], path="/mcp/none", metadata=where)
        await rig.refused(rig.headers(DEMO), path="/mcp/none", metadata=where, code="audience")
        response = await rig.gateway.post(call("echo"), "/mcp/none", rig.headers(RESOURCE))
        assert response.status == 404


# -- Metadata (RFC 9728)


@pytest.mark.parametrize(
    ("resource", "prefix"),
    [(RESOURCE, ""), (RESOURCE + "/", ""), ("https://gw.example/a/b", "/a/b")],
)
async def test_each_server_has_its_metadata_at_its_own_place(tmp_path, resource, prefix):
    oauth = {**SCOPES, "resource": resource}
    async with guarded(tmp_path, oauth, servers=TWO) as rig:
        base = RESOURCE + prefix
        wanted = {
            f"{prefix}/mcp/demo": ["admin", "end", "mcp:call", "mcp:read", "stream"],
            f"{prefix}/mcp/other": [
                "admin", "end", "mcp:call", "mcp:read", "other:use", "stream",
            ],
            prefix: ["mcp:read"],
            "": ["mcp:read"],
        }  # fmt: skip
        for path, scopes in wanted.items():
            response = await rig.gateway.get(WELL_KNOWN + path)
            assert response.status == 200
            assert response.header("content-type") == "application/json"
            assert response.json == {
                "resource": RESOURCE + path if path else base,
                "authorization_servers": [rig.authority.url],
                "bearer_methods_supported": ["header"],
                "scopes_supported": scopes,
            }
        response = await rig.gateway.post(call("echo"))
        where = f"{RESOURCE}{WELL_KNOWN}{prefix}/mcp/demo"
        assert challenge(response)["resource_metadata"] == where
        await rig.served(rig.headers(f"{base}/mcp/demo", scope="admin"))
        for path in (
            "/mcp/none",
            "/mcp",
            "/mcp/demo/",
            "/MCP/demo",
            "//mcp/demo",
            "/mcp/demo/../x",
        ):
            assert (await rig.gateway.get(WELL_KNOWN + prefix + path)).status in (400, 404, 401)
        if prefix:
            assert (await rig.gateway.get(WELL_KNOWN + "/mcp/demo")).status in (404, 401)


async def test_metadata_is_read_with_get_and_head_alone(tmp_path):
    async with guarded(tmp_path) as rig:
        path = WELL_KNOWN + "/mcp/demo"
        got = await rig.gateway.get(path)
        head = await rig.gateway.request("HEAD", path)
        assert (head.status, head.body) == (200, b"")
        assert head.header("content-length") == str(len(got.body))
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            response = await rig.gateway.request(method, path, b"")
            assert response.status == 405
            assert "GET" in response.header("allow")
        assert rig.upstream == []
        assert rig.fetches == 0


async def test_without_oauth_there_is_no_metadata(tmp_path):
    auth = {"type": "bearer", "clients": [{"name": "ci", "token": CI}]}
    async with guarded(tmp_path) as rig:
        config = {"auth": {"enabled": True, **auth}}
        assert await rig.gateway.reload(config)
        for path in (WELL_KNOWN, WELL_KNOWN + "/mcp/demo"):
            assert (await rig.gateway.get(path)).status in (401, 404)
        response = await rig.gateway.post(call("echo"), headers=rig.headers())
        assert response.status == 401
        assert "resource_metadata" not in response.header("www-authenticate")


async def test_other_authorization_servers_may_be_named(tmp_path):
    servers = ["https://one.example", "https://two.example/t"]
    async with guarded(tmp_path, {"authorization_servers": servers}) as rig:
        response = await rig.gateway.get(WELL_KNOWN + "/mcp/demo")
        assert response.json["authorization_servers"] == servers


# -- Limits


async def test_strangers_are_limited_and_take_nothing_from_users(tmp_path):
    limits = {"enabled": True, "rps": 100, "burst": 100, "client_rps": 0.1, "client_burst": 3}
    async with guarded(tmp_path, rate_limit=limits) as rig:
        bad = [rig.headers("https://x.example"), [], bearer("x")]
        statuses = [(await rig.gateway.post(call("echo"), headers=each)).status for each in bad]
        assert statuses == [401] * 3
        for headers in bad:
            response = await rig.gateway.post(call("echo"), headers=headers)
            assert response.status == 429
            assert 1 <= int(response.header("retry-after")) <= 10
        assert (await rig.gateway.get(WELL_KNOWN + "/mcp/demo")).status == 429
        for _ in range(3):
            await rig.served(rig.headers())
        assert (await rig.gateway.post(call("echo"), headers=rig.headers())).status == 429
        await rig.served(rig.headers(sub="bob"), client="bob")
        assert len(rig.upstream) == 4


# -- What is kept to itself


def windows(token, size=24):
    """Pieces of a token that would give it away, its head apart."""
    _, payload, signature = token.decode().split(".")
    return [text[at : at + size] for text in (payload, signature) for at in range(0, 60, 12)]


async def test_who_asks_is_looked_at_with_every_request_of_a_connection(tmp_path):
    async with guarded(tmp_path) as rig:
        async with await rig.gateway.connect() as client:
            statuses = [
                (await client.post(call("echo"), headers=headers)).status
                for headers in (rig.headers(), [], rig.headers(exp=1), rig.headers())
            ]
            # All at one time, too.
            good = client.render("POST", "/mcp/demo", b"{}", rig.headers())
            await client.raw(client.render("GET", "/mcp/demo") + good)
            statuses.append((await client.response("GET")).status)
        assert statuses == [200, 401, 401, 200, 401]


async def test_a_token_never_travels_upstream_in_whatever_place(tmp_path):
    servers = [{"name": "demo", "forward_headers": ["X-Custom"]}]
    async with guarded(tmp_path, servers=servers, auth=KEYED) as rig:
        await rig.served(rig.headers())
        await rig.served([("X-API-Key", CI), ("X-Custom", "kept")], client="ci")
        for method in ("GET", "DELETE"):
            await rig.gateway.request(method, "/mcp/demo", headers=rig.headers())
        await rig.gateway.get("/health", rig.headers(RESOURCE))
        assert len(rig.upstream) == 5
        assert rig.upstream[1].header("x-custom") == "kept"
        for seen in rig.upstream:
            names = {name for name, _ in seen.headers}
            assert not names & {b"authorization", b"x-api-key", b"cookie"}
            text = repr((seen.headers, seen.target, seen.body))
            assert "eyJ" not in text
            assert CI not in text


async def test_a_token_in_a_query_that_would_be_forwarded_is_refused(tmp_path):
    servers = [{"name": "demo", "forward_query": True}]
    async with guarded(tmp_path, servers=servers) as rig:
        assert (await rig.gateway.post(call("echo"), "/mcp/demo?a=1", rig.headers())).status == 200
        for name in ("access_token", "a=1&Access_Token", "access%5ftoken", "a;access_token"):
            path = f"/mcp/demo?{name}={rig.token().decode()}"
            response = await rig.gateway.post(call("echo"), path, rig.headers())
            assert response.status == 400
            assert "Authorization" in response.error["message"]
        assert [seen.target for seen in rig.upstream] == [b"/mcp?a=1"]


async def test_no_piece_of_a_token_is_in_any_output(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    said, pieces = [], []
    more = {
        "log": {"level": "debug"},
        "audit": {
            "enabled": True,
            "output": "file",
            "path": str(tmp_path / "audit.jsonl"),
            "arguments": True,
        },
    }
    async with guarded(tmp_path, {**SCOPES}, BOTH, servers=TWO, **more) as rig:
        made = [
            rig.token(scope="admin"),
            rig.token(RESOURCE, sub="bob", scope="mcp:read"),
            rig.token(RESOURCE),
            rig.token("https://x.example"),
            rig.token(exp=1),
            rig.token(head={"kid": "another"}),
            rig.token()[:-8] + b"AAAAAAAA",
            rig.token(sub="ci"),
            b"not-a-signed-token-but-a-secret-one.ey.ey",
        ]
        pieces = [piece for token in made[:-1] for piece in windows(token)]
        pieces.append(made[-1].decode())
        for failing in (False, True):
            if failing:
                rig.authority.answers["/jwks"] = (500, [], b"")
                assert await rig.gateway.reload(
                    settings(rig.authority, {"issuer": None}, BOTH, **more)
                )
            for token in made:
                headers = bearer(token)
                responses = [
                    await rig.gateway.post(call("danger", {"a": 1}), headers=headers),
                    await rig.gateway.get("/mcp/other", headers),
                    await rig.gateway.get("/metrics", headers),
                    await rig.gateway.get("/health", headers),
                    await rig.gateway.post(b"{", "/mcp/none", headers),
                    await rig.gateway.post(call("echo"), "/mcp/demo?token=" + token.decode()),
                ]
                said += [repr((each.status, each.headers, each.body)) for each in responses]
        state = rig.gateway.app.state
        said += [repr(state.snapshot), repr(vars(state.trust.tokens)), str(await rig.lines())]
        said.append(repr(state.trust.tokens._seen._by_digest))
    said += [repr(record.__dict__) for record in caplog.records]
    everything = "\n".join([caplog.text, *said])
    assert len(pieces) > 50
    assert [piece for piece in pieces if piece in everything] == []
