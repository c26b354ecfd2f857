import json

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.authorization_server import (
    AuthorizationServer,
    Signer,
    compact,
    mac_signed,
    private_key,
)

from mcpx.core.jwt import TokenRules, verify
from mcpx.core.oauth import TokenRefused, UnknownKey, VerifiedTokens
from mcpx.services.errand import Errands
from mcpx.services.jwks import JwksKeys, KeysUnavailable, discover
from mcpx.services.outbound import EgressRefused, Outbound, OutboundError

URI = "https://as.example/jwks"


@pytest.fixture
async def errands(nursery):
    running = Errands()
    await nursery.start(running.run)
    return running


class Source:
    """Fetches from a signer, or from ``documents``; fails with ``error``; waits for ``gate``."""

    def __init__(self, signer=None):
        self.signer = signer or Signer()
        self.documents = {}
        self.error = None
        self.gate = None
        self.asked = []
        self.guarded = []

    async def __call__(self, url, *, guarded=False):
        self.asked.append(url)
        if guarded:
            self.guarded.append(url)
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if url == URI:
            return self.signer.jwks()
        if url not in self.documents:
            raise OutboundError(f"{url} answered with status 404")
        return self.documents[url]


@pytest.fixture
def source():
    return Source()


async def test_keys_are_fetched_when_they_are_first_needed_and_kept(
    errands, source, autojump_clock
):
    keys = JwksKeys(URI, source, errands)
    assert source.asked == []
    first = await keys.current()
    assert first.has("k1")
    await trio.sleep(2000)
    assert await keys.current() is first
    assert source.asked == [URI]


async def test_five_hundred_who_need_keys_at_one_time_have_them_fetched_once(
    errands, source, nursery
):
    keys = JwksKeys(URI, source, errands)
    source.gate = trio.Event()
    found = []

    async def one():
        found.append(await keys.current())

    for _ in range(500):
        nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    source.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(found) == 500
    assert len(set(map(id, found))) == 1
    assert source.asked == [URI]


async def test_keys_grow_old_beside_the_requests(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands, max_age_s=100)
    old = await keys.current()
    source.signer.rotate("k2")
    await trio.sleep(80)
    assert await keys.current() is old  # and a fetch begins beside it
    await trio.testing.wait_all_tasks_blocked()
    assert (await keys.current()).has("k2")
    assert len(source.asked) == 2


async def test_keys_beyond_their_age_are_waited_for(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands, max_age_s=100)
    await keys.current()
    source.signer.rotate("k2")
    await trio.sleep(101)
    assert (await keys.current()).has("k2")


async def test_old_keys_are_kept_while_fetching_fails_and_not_for_ever(
    errands, source, autojump_clock
):
    keys = JwksKeys(URI, source, errands, max_age_s=100, max_stale_s=1000)
    old = await keys.current()
    source.error = OutboundError("down")
    await trio.sleep(500)
    assert await keys.current() is old
    await trio.sleep(499)
    assert await keys.current() is old
    await trio.sleep(2)
    with pytest.raises(KeysUnavailable):
        await keys.current()
    source.error = None
    await trio.sleep(61)
    assert await keys.current()


async def test_a_server_that_is_down_is_asked_ever_less_often(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands)
    source.error = OutboundError("down")
    for _ in range(3600):
        with pytest.raises(KeysUnavailable) as caught:
            await keys.current()
        await trio.sleep(0.1)
    assert caught.value.status == 503
    assert "down" in caught.value.reason
    assert "down" not in caught.value.message
    # 1 + 2 + 4 + … + 32 s, then every 60 s: eleven in six minutes.
    assert 10 <= len(source.asked) <= 12
    ((name, seconds),) = caught.value.headers
    assert name == b"Retry-After"
    assert 1 <= int(seconds) <= 60


async def test_a_failure_is_told_at_once_until_the_next_try(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands)
    source.error = OutboundError("down")
    with pytest.raises(KeysUnavailable):
        await keys.current()
    source.gate = trio.Event()  # a fetch would hang now
    before = trio.current_time()
    with pytest.raises(KeysUnavailable):
        await keys.current()
    assert trio.current_time() == before


async def test_nobody_waits_for_a_slow_server_longer_than_the_bound(
    errands, source, autojump_clock
):
    keys = JwksKeys(URI, source, errands, wait_s=5)
    source.gate = trio.Event()
    before = trio.current_time()
    with pytest.raises(KeysUnavailable, match="try again later") as caught:
        await keys.current()
    assert trio.current_time() - before == pytest.approx(5)
    assert "longer than 5 s" in caught.value.reason
    source.gate.set()  # the fetch went on, and serves the next one
    assert await keys.current()
    assert source.asked == [URI]


async def test_a_request_that_is_cancelled_leaves_the_fetch_to_the_others(errands, source, nursery):
    keys = JwksKeys(URI, source, errands)
    source.gate = trio.Event()
    with trio.CancelScope() as scope:
        scope.cancel()
        await keys.current()
    await trio.testing.wait_all_tasks_blocked()
    source.gate.set()
    assert await keys.current()
    assert source.asked == [URI]


# Unknown keys.


async def test_an_unknown_key_is_fetched_for_at_once(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands)
    old = await keys.current()
    source.signer.rotate("k2")
    new = await keys.newer(old)
    assert new.has("k2")
    assert len(source.asked) == 2


async def test_unknown_keys_make_for_one_fetch_in_an_interval(errands, source, autojump_clock):
    keys = JwksKeys(URI, source, errands, min_interval_s=10)
    await keys.current()
    for _ in range(1000):
        await keys.newer(await keys.current())
        await trio.sleep(0.1)
    assert len(source.asked) == 1 + 10


async def test_five_hundred_tokens_of_an_unknown_key_make_for_one_fetch(errands, source, nursery):
    keys = JwksKeys(URI, source, errands)
    old = await keys.current()
    source.gate = trio.Event()
    source.signer.rotate("k2")
    found = []

    async def one():
        found.append((await keys.newer(old)).has("k2"))

    for _ in range(500):
        nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    source.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert found == [True] * 500
    assert len(source.asked) == 2


async def test_keys_that_somebody_else_has_fetched_meanwhile_are_taken(errands, source):
    keys = JwksKeys(URI, source, errands)
    old = await keys.current()
    source.signer.rotate("k2")
    new = await keys.newer(old)
    assert await keys.newer(old) is new
    assert len(source.asked) == 2


@pytest.mark.parametrize("how", ["down", "slow"])
async def test_an_unknown_key_is_nobody_s_fault_while_keys_can_not_be_fetched(
    errands, source, autojump_clock, how
):
    keys = JwksKeys(URI, source, errands)
    old = await keys.current()
    if how == "down":
        source.error = OutboundError("down")
    else:
        source.gate = trio.Event()
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            await keys.newer(old)
    assert await keys.current() is old
    assert len(source.asked) == 2


# What comes of a fetch.


@pytest.mark.parametrize("document", [b"", b"<html>", b'{"keys":[]}', b"[" * 9999, b"\xff"])
async def test_what_is_no_key_set_is_a_failure_like_another(
    errands, source, autojump_clock, document
):
    keys = JwksKeys("https://as.example/x", source, errands)
    source.documents["https://as.example/x"] = document
    with pytest.raises(KeysUnavailable):
        await keys.current()
    assert keys.failures == 1


async def test_tokens_of_withdrawn_keys_are_forgotten_when_the_new_ones_come(errands, source):
    seen = VerifiedTokens()
    keys = JwksKeys(URI, source, errands, changed=lambda new: seen.keep_only(new.thumbprints))
    old = await keys.current()
    token = source.signer.token(0, aud="x")
    seen.put(token, verify(token, old, TokenRules(None), frozenset({"x"}), 0), 0)
    assert seen.get(token, frozenset({"x"}), 1)
    source.signer.rotate("k1")  # another key of the same name
    await keys.newer(old)
    assert seen.get(token, frozenset({"x"}), 1) is None


async def test_a_gateway_that_stops_leaves_nobody_waiting(source):
    with pytest.raises(KeysUnavailable):
        await JwksKeys(URI, source, Errands()).current()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["current", "newer", "rotate", "fail", "mend"]), st.floats(0, 200)
        ),
        max_size=40,
    )
)
def test_whatever_happens_the_server_is_not_asked_too_often(steps):
    """And nobody is given keys that are older than the bound."""

    async def run():
        async with trio.open_nursery() as nursery:
            errands, source = Errands(), Source()
            await nursery.start(errands.run)
            keys = JwksKeys(URI, source, errands, max_age_s=100, max_stale_s=300)
            asked_at, good_at = [], 0.0
            seen = None
            for number, (step, wait_s) in enumerate(steps):
                before = len(source.asked)
                try:
                    match step:
                        case "current":
                            seen = await keys.current()
                        case "newer" if seen is not None:
                            await keys.newer(seen)
                        case "rotate":
                            source.signer.rotate(f"r{number}", number=number % 3)
                        case "fail":
                            source.error = OutboundError("down")
                        case "mend":
                            source.error = None
                except KeysUnavailable:
                    assert source.error is not None or keys.failures
                else:
                    if step == "current":
                        await trio.testing.wait_all_tasks_blocked()
                        assert (
                            not asked_at or trio.current_time() - good_at < 300 or not source.error
                        )
                await trio.testing.wait_all_tasks_blocked()
                now = trio.current_time()
                assert len(source.asked) - before <= 1
                if len(source.asked) > before:
                    asked_at.append(now)
                    if source.error is None:
                        good_at = now
                await trio.sleep(wait_s)
            # Unknown keys once in 10 s; and by age, seven times in the first two minutes of
            # failing, which begin anew when keys that were fetched well are 75 s old.
            span = trio.current_time() - asked_at[0] if asked_at else 0
            assert len(asked_at) <= 8 + span / 5
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


# Discovery.

ISSUER = "https://as.example/realms/x"
PLACES = [
    "https://as.example/.well-known/oauth-authorization-server/realms/x",
    "https://as.example/.well-known/openid-configuration/realms/x",
    "https://as.example/realms/x/.well-known/openid-configuration",
]


def metadata(issuer=ISSUER, **more):
    return json.dumps({"issuer": issuer, **more}).encode()


@pytest.mark.parametrize("place", range(3))
async def test_metadata_is_looked_for_where_servers_put_it_in_order(source, place):
    source.documents[PLACES[place]] = metadata(jwks_uri=URI)
    assert (await discover(ISSUER, source))["jwks_uri"] == URI
    assert source.asked == PLACES[: place + 1]


async def test_an_issuer_without_a_path_has_two_places(source):
    with pytest.raises(OutboundError):
        await discover("https://as.example", source)
    assert source.asked == [
        "https://as.example/.well-known/oauth-authorization-server",
        "https://as.example/.well-known/openid-configuration",
    ]


@pytest.mark.parametrize(
    "document",
    [
        metadata("https://evil.example"),
        metadata(ISSUER + "/"),
        metadata(None),
        b"{}",
        b"[]",
        b"<html>",
        b"[" * 99_999,
    ],
)
async def test_metadata_of_another_issuer_is_not_used(source, document):
    source.documents = dict.fromkeys(PLACES, document)
    with pytest.raises(OutboundError, match="no usable metadata"):
        await discover(ISSUER, source)


async def test_keys_at_another_origin_than_the_issuer_s_are_fetched_with_care(errands, source):
    source.documents[PLACES[0]] = metadata(jwks_uri=URI)
    source.documents["https://other.example/jwks"] = source.signer.jwks()
    assert await JwksKeys(None, source, errands, issuer=ISSUER).current()
    assert source.guarded == []  # the operator wrote this origin
    source.documents[PLACES[0]] = metadata(jwks_uri="https://other.example/jwks")
    assert await JwksKeys(None, source, errands, issuer=ISSUER).current()
    assert source.guarded == ["https://other.example/jwks"]


@pytest.mark.parametrize("uri", [None, 7, ["https://as.example/jwks"]])
async def test_metadata_that_names_no_keys_is_a_failure(errands, source, uri):
    source.documents[PLACES[0]] = metadata(jwks_uri=uri)
    with pytest.raises(KeysUnavailable):
        await JwksKeys(None, source, errands, issuer=ISSUER).current()


async def test_metadata_can_not_send_the_gateway_into_its_own_network(errands):
    async with AuthorizationServer().serving() as server, AuthorizationServer().serving() as inside:
        issuer = server.url
        inner = f"{inside.url}/jwks"
        path = "/.well-known/oauth-authorization-server"
        server.answers[path] = (200, [], metadata(issuer, jwks_uri=inner))
        with pytest.raises(KeysUnavailable) as caught:
            await JwksKeys(None, Outbound().fetch, errands, issuer=issuer).current()
        assert "https" in caught.value.reason
        assert inside.asked == []
        with pytest.raises(EgressRefused):
            await Outbound().fetch(inner.replace("http:", "https:"), guarded=True)
        permitted = Outbound(allow_private=True).fetch
        assert await JwksKeys(None, permitted, errands, issuer=issuer).current()


# The whole of it, over loopback: what a resource server has to prove.

FILES = "https://gw.example/mcp/files"


class Gate:
    """What the pipeline does with a token."""

    def __init__(self, server, errands, **more):
        self.seen = VerifiedTokens()
        self.keys = JwksKeys(
            f"{server.url}/jwks",
            Outbound().fetch,
            errands,
            changed=lambda new: self.seen.keep_only(new.thumbprints),
            **more,
        )
        self.rules = TokenRules(server.issuer)

    async def admit(self, token, now=1000.0):
        accepted = frozenset({FILES})
        claims = self.seen.get(token, accepted, now)
        if claims is None:
            keys = await self.keys.current()
            try:
                claims = verify(token, keys, self.rules, accepted, now)
            except UnknownKey:
                newer = await self.keys.newer(keys)
                if newer is None:
                    raise
                claims = verify(token, newer, self.rules, accepted, now)
            self.seen.put(token, claims, now)
        return claims.name


async def refused(gate, token):
    with pytest.raises(TokenRefused) as caught:
        await gate.admit(token)
    return caught.value.reason_code


async def test_good_tokens_are_admitted_and_all_others_refused(errands):
    async with AuthorizationServer().serving() as server:
        gate = Gate(server, errands)
        good = server.token(1000)
        for _ in range(3):
            assert await gate.admit(good) == "alice"
        stranger = Signer(server.issuer)
        stranger.rotate("k1", number=8)
        payload = json.dumps({"sub": "alice", "aud": FILES, "exp": 9000}).encode()
        pem = server.keys[0][2].as_pem(private=False)
        cases = {
            b"": "malformed",
            server.token(1000, aud="https://other.example"): "audience",
            server.token(1000, without=("aud",)): "audience",
            server.token(1000, exp=900): "expired",
            server.token(1000, nbf=1100): "not_yet_valid",
            stranger.token(1000): "signature",
            compact({"alg": "none", "kid": "k1"}, payload, None): "malformed",
            compact({"alg": "none", "kid": "k1"}, payload, None) + b"AA": "algorithm",
            mac_signed({"alg": "HS256", "kid": "k1"}, payload, pem): "algorithm",
            mac_signed({"alg": "HS256", "kid": "k1"}, payload, server.jwks()): "algorithm",
        }
        for token, reason in cases.items():
            assert await refused(gate, token) == reason
            assert await refused(gate, token) == reason
        assert len(server.asked) == 1


async def test_a_rotated_key_is_known_at_once_and_the_old_one_no_more(errands):
    async with AuthorizationServer().serving() as server:
        gate = Gate(server, errands)
        old = server.token(1000)
        assert await gate.admit(old) == "alice"
        server.rotate("k2")
        assert await gate.admit(server.token(1000, sub="bob")) == "bob"
        assert await refused(gate, old) == "unknown_key"
        assert len(server.asked) == 2
        thief = Signer(server.issuer)
        thief.rotate("k3", number=9)
        assert await refused(gate, thief.token(1000)) == "unknown_key"
        assert len(server.asked) == 2  # too early for another fetch


async def test_tokens_that_are_known_are_admitted_while_the_server_is_down(errands):
    async with AuthorizationServer().serving() as server:
        gate = Gate(server, errands)
        good = server.token(1000)
        assert await gate.admit(good) == "alice"
        server.answers["/jwks"] = (500, [], b"")
        assert await gate.admit(good) == "alice"
        assert await gate.admit(server.token(1000, sub="bob")) == "bob"


async def test_no_token_is_admitted_when_the_server_was_down_from_the_start(errands):
    async with AuthorizationServer().serving() as server:
        server.answers["/jwks"] = (500, [], b"")
        gate = Gate(server, errands)
        for _ in range(20):
            with pytest.raises(KeysUnavailable):
                await gate.admit(server.token(1000))
        assert len(server.asked) == 1


async def test_a_slow_server_makes_a_request_wait_and_no_longer_than_the_bound(errands):
    async with AuthorizationServer().serving() as server:
        server.gate = trio.Event()
        gate = Gate(server, errands, wait_s=0.05)
        with pytest.raises(KeysUnavailable):
            await gate.admit(server.token(1000))
        server.gate.set()
        gate.keys._wait_s = 5
        assert await gate.admit(server.token(1000)) == "alice"
        assert len(server.asked) == 1


async def test_keys_of_other_kinds_in_the_set_do_no_harm(errands):
    async with AuthorizationServer().serving() as server:
        document = json.loads(server.jwks())
        private = private_key("P-256", 3).as_dict(private=True)
        document["keys"] += [{"kty": "oct", "k": "AA", "kid": "k1"}, {**private, "kid": "p"}, 7]
        server.answers["/jwks"] = (200, [], json.dumps(document).encode())
        gate = Gate(server, errands)
        assert await gate.admit(server.token(1000)) == "alice"
        server.rotate("p", number=3)
        assert await refused(gate, server.token(1000)) == "unknown_key"
