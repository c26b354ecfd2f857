"""Keys of an authorization server: found, changed, withdrawn, out of reach, kept by a reload."""

import json

import pytest
import trio
from support.authorization_server import AuthorizationServer
from support.client import call
from support.oauth_gateway import WELL_KNOWN, bearer, guarded, now, settings

CI = "ci-token-of-some-length"
BOTH = {"type": "", "types": ["oauth", "bearer"], "clients": [{"name": "ci", "token": CI}]}


async def test_a_flood_of_bad_tokens_makes_for_no_flood_of_fetches(tmp_path):
    async with guarded(tmp_path) as rig:
        tokens = [rig.token(head={"kid": f"k-{number}"}) for number in range(60)]
        tokens += [
            rig.token(head={"kid": None}, sub=str(number))[:-4] + b"AAAA" for number in range(60)
        ]
        tokens += [rig.token("https://x.example", sub=str(number)) for number in range(60)]
        statuses = []

        async def send(token):
            statuses.append((await rig.gateway.post(call("echo"), headers=bearer(token))).status)

        async with trio.open_nursery() as nursery:
            for token in tokens:
                nursery.start_soon(send, token)
        assert statuses == [401] * len(tokens)
        # The first one of all, and one for those that name a key that is not known.
        assert rig.fetches <= 2
        assert rig.upstream == []
        await rig.served(rig.headers())


# -- Keys that change


async def test_a_new_key_is_fetched_once_and_what_the_old_one_signed_is_refused(
    tmp_path, mock_clock
):
    mock_clock.rate = 1
    async with guarded(tmp_path) as rig:
        old = rig.headers()
        await rig.served(old)
        rig.authority.rotate("k2")
        await rig.served(rig.headers())
        assert rig.fetches == 2
        # The old one was found good before, and its key was withdrawn since.
        await rig.refused(old, code="unknown_key")
        # Again an unknown key, too soon for another fetch.
        rig.authority.rotate("k3", number=2)
        for _ in range(5):
            await rig.refused(rig.headers(), code="unknown_key")
        assert rig.fetches == 2
        mock_clock.jump(11)
        await rig.served(rig.headers())
        assert rig.fetches == 3


async def test_keys_of_two_generations_are_good_together(tmp_path):
    async with guarded(tmp_path) as rig:
        old = rig.headers()
        await rig.served(old)
        rig.authority.add("k2", "RS256", 1)
        await rig.served(rig.headers())
        await rig.served(old)
        assert rig.fetches == 2


# -- Keys that can't be had


def unavailable(response):
    assert response.status == 503, response
    assert int(response.header("retry-after")) >= 1
    assert response.header("www-authenticate") is None
    assert response.error["data"]["code"] == "auth_unavailable"


async def test_without_keys_nobody_is_told_that_the_token_is_bad(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with guarded(tmp_path) as rig:
        rig.authority.answers["/jwks"] = (500, [], b"it fails")
        for number in range(4):
            response = await rig.gateway.post(call("echo"), headers=rig.headers(sub=str(number)))
            unavailable(response)
            assert "127.0.0.1" not in response.body.decode()
        # After the first failure nobody is asked for a while.
        assert rig.fetches == 1
        assert rig.upstream == []
        lines = await rig.gateway.audit(4)
        assert {(line["status"], line["allowed"]) for line in lines} == {(503, False)}
        # What no key is needed for is refused as ever.
        await rig.refused([])
        await rig.refused(bearer("x"), code="unknown")
        del rig.authority.answers["/jwks"]
        mock_clock.jump(2)
        await rig.served(rig.headers())


async def test_who_asks_for_nothing_while_there_are_no_keys_is_limited_too(tmp_path):
    limits = {"enabled": True, "rps": 100, "burst": 100, "client_rps": 0.1, "client_burst": 3}
    async with guarded(tmp_path, rate_limit=limits) as rig:
        rig.authority.answers["/jwks"] = (500, [], b"")
        headers = bearer("eyJ.eyJ.AAAA")
        statuses = [
            (await rig.gateway.post(call("echo"), headers=headers)).status for _ in range(5)
        ]
        assert statuses == [503] * 3 + [429] * 2


async def test_the_gateways_health_is_not_that_of_the_authorization_server(tmp_path):
    async with guarded(tmp_path) as rig:
        rig.authority.answers["/jwks"] = (500, [], b"")
        response = await rig.gateway.get("/health", rig.headers("https://gw.example"))
        assert response.status == 200
        assert "demo" not in response.body.decode()
        assert (await rig.gateway.get("/health/live", rig.headers())).status == 200


@pytest.mark.parametrize(
    "answer",
    [
        (302, [("location", "/other")], b""),
        (200, [], b"[]"),
        (200, [], b'{"keys":[]}'),
        (200, [], b'{"keys":[{"kty":"oct","k":"AAAA"}]}'),
        (200, [], b"x" * 600_000),
        (200, [("content-encoding", "gzip")], b"x"),
    ],
)
async def test_what_is_no_key_set_is_none(tmp_path, answer):
    async with guarded(tmp_path) as rig:
        rig.authority.answers["/jwks"] = answer
        rig.authority.answers["/other"] = (200, [], rig.authority.jwks())
        unavailable(await rig.gateway.post(call("echo"), headers=rig.headers()))
        assert [path for _, path, _, _ in rig.authority.asked] == ["/jwks"]


async def test_old_keys_are_used_while_no_new_ones_can_be_had(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with guarded(tmp_path, {"jwks_max_age": "1h", "jwks_max_stale": "2h"}) as rig:
        await rig.served(rig.headers())
        rig.authority.answers["/jwks"] = (500, [], b"")
        mock_clock.jump(3601)
        await rig.served(rig.headers(sub="bob"), client="bob")
        assert rig.fetches == 2
        # An unknown key may be a new one: nobody can say.
        rig.authority.add("k2", number=1)
        unavailable(await rig.gateway.post(call("echo"), headers=rig.headers()))
        rig.authority.keys.pop()
        mock_clock.jump(3600)
        unavailable(await rig.gateway.post(call("echo"), headers=rig.headers(sub="carol")))


async def test_keys_that_hang_hold_nobody_for_long(tmp_path, mock_clock):
    mock_clock.rate = 1
    async with guarded(tmp_path, {"jwks_max_age": "1h"}) as rig:
        rig.authority.gate = trio.Event()
        answers = []

        async def ask(name):
            answers.append(await rig.gateway.post(call("echo"), headers=rig.headers(sub=name)))

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(ask, name)
            await asked(rig, 1)
            mock_clock.jump(5.1)
        assert len(answers) == 3
        for response in answers:
            unavailable(response)
        assert rig.fetches == 1

        gate, rig.authority.gate = rig.authority.gate, None
        gate.set()
        mock_clock.jump(2)
        known = rig.headers()
        await rig.served(known)
        rig.authority.gate = trio.Event()
        mock_clock.jump(3601)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "new")
            await asked(rig, 3)
            # Who is known waits for nobody.
            await rig.served(known)
            mock_clock.jump(5.1)
        assert answers[-1].status == 200
        rig.authority.gate.set()


async def asked(rig, fetches):
    with trio.fail_after(30):
        while rig.fetches < fetches:
            await trio.lowlevel.checkpoint()


# -- Keys that are found through the issuer


def publish(authority, path="/.well-known/oauth-authorization-server", **document):
    text = json.dumps({"issuer": authority.url, **document}).encode()
    authority.answers[path] = (200, [], text)


@pytest.mark.parametrize(
    "path",
    ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"],
)
async def test_the_issuers_metadata_tells_where_the_keys_are(tmp_path, path):
    async with guarded(tmp_path, {"jwks_uri": None}) as rig:
        publish(rig.authority, path, jwks_uri=rig.authority.url + "/jwks")
        await rig.served(rig.headers())
        await rig.served(rig.headers(sub="bob"), client="bob")
        assert rig.fetches == 1


async def test_metadata_of_another_issuer_is_not_believed(tmp_path):
    async with guarded(tmp_path, {"jwks_uri": None}) as rig:
        publish(rig.authority, issuer=rig.authority.url + "/", jwks_uri=rig.authority.url + "/jwks")
        unavailable(await rig.gateway.post(call("echo"), headers=rig.headers()))
        assert rig.fetches == 0


async def test_metadata_can_not_make_the_gateway_ask_its_own_network(tmp_path):
    async with AuthorizationServer().serving() as inside:
        for number, uri in enumerate(
            (
                inside.url + "/jwks",
                inside.url.replace("http:", "https:") + "/jwks",
                inside.url.replace("127.0.0.1", "localhost") + "/jwks",
                inside.url.replace("127.0.0.1", "[::ffff:127.0.0.1]") + "/jwks",
                inside.url.replace("127.0.0.1", "2130706433") + "/jwks",
                "https://169.254.169.254/latest",
                "file:///etc/hostname",
                "//127.0.0.1/jwks",
                ["http://127.0.0.1/jwks"],
                None,
            )
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            async with guarded(folder, {"jwks_uri": None}) as rig:
                rig.authority.keys = inside.keys
                publish(rig.authority, jwks_uri=uri)
                unavailable(await rig.gateway.post(call("echo"), headers=rig.headers()))
                assert rig.upstream == []
        assert inside.asked == []

        async with guarded(tmp_path, {"jwks_uri": None, "allow_private_addresses": True}) as rig:
            rig.authority.keys = inside.keys
            publish(rig.authority, jwks_uri=inside.url + "/jwks")
            await rig.served(rig.headers())
        assert [path for _, path, _, _ in inside.asked] == ["/jwks"]


# -- Reloads


async def test_a_reload_keeps_the_keys(tmp_path):
    async with guarded(tmp_path) as rig:
        await rig.served(rig.headers())
        rig.authority.answers["/jwks"] = (500, [], b"")
        changed = settings(rig.authority, {"scopes": ["mcp:read"], "leeway": "10s"})
        assert await rig.gateway.reload(changed)
        await rig.served(rig.headers(sub="bob"), client="bob")
        assert rig.fetches == 1


async def test_a_reload_with_other_rules_forgets_whom_it_knew(tmp_path):
    async with guarded(tmp_path) as rig:
        headers = rig.headers(email="a@x.example", exp=now() - 10)
        lasting = rig.headers(email="a@x.example")
        await rig.served(headers)
        await rig.served(lasting)

        assert await rig.gateway.reload(settings(rig.authority, {"leeway": "0s"}))
        await rig.refused(headers, code="expired")
        await rig.served(lasting)

        other = settings(rig.authority, auth={"identity_claim": "email"})
        assert await rig.gateway.reload(other)
        await rig.served(lasting, client="a@x.example")

        assert await rig.gateway.reload(settings(rig.authority, {"issuer": "https://x.example"}))
        await rig.refused(lasting, code="issuer")

        named = {**BOTH, "clients": [{"name": "alice", "token": CI}]}
        assert await rig.gateway.reload(settings(rig.authority, auth=named))
        await rig.refused(lasting, code="identity")
        await rig.served(bearer(CI), client="alice")

        moved = settings(rig.authority, {"resource": "https://other.example"})
        assert await rig.gateway.reload(moved)
        where = f"https://other.example{WELL_KNOWN}/mcp/demo"
        await rig.refused(lasting, code="audience", metadata=where)
        await rig.served(rig.headers("https://other.example/mcp/demo"))


async def test_a_reload_to_another_issuer_trusts_the_old_ones_keys_no_more(tmp_path):
    async with (
        AuthorizationServer().serving() as other,
        guarded(tmp_path, {"jwks_uri": None}) as rig,
    ):
        other.issuer = other.url
        other.rotate("k1", number=9)
        for authority in (rig.authority, other):
            publish(authority, jwks_uri=authority.url + "/jwks")
        await rig.served(rig.headers())
        assert await rig.gateway.reload(settings(other, {"jwks_uri": None}))
        # Signed by the one, in the name of the other.
        await rig.refused(rig.headers(iss=other.url), code="signature")
        await rig.refused(rig.headers(), code="signature")
        rig.authority = other
        await rig.served(rig.headers())


async def test_who_waits_for_keys_during_a_reload_is_served_by_the_rules_of_before(tmp_path):
    async with guarded(tmp_path) as rig:
        rig.authority.gate = trio.Event()
        answers = []

        async def ask(headers):
            answers.append(await rig.gateway.post(call("echo"), headers=headers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, rig.headers())
            nursery.start_soon(ask, rig.headers("https://x.example"))
            await asked(rig, 1)
            auth = {"enabled": True, "type": "bearer", "token": CI}
            assert await rig.gateway.reload({"auth": auth})
            rig.authority.gate.set()
        assert sorted(answer.status for answer in answers) == [200, 401]
        assert len(rig.upstream) == 1
        response = await rig.gateway.post(call("echo"), headers=rig.headers())
        assert (response.status, "resource_metadata" in str(response.headers)) == (401, False)
        await rig.served(bearer(CI), client="default")
