import base64
import json
import logging
import os

import pytest
import trio
import trio.testing
from support.authorization_server import AuthorizationServer

from mcpx.errors import ConfigError
from mcpx.secret import Secret
from mcpx.services.credentials import (
    ClientCredentials,
    CredentialUnavailable,
    Grant,
    api_key,
    bearer,
    read_secret,
    static_headers,
)
from mcpx.services.errand import Errands
from mcpx.services.outbound import Answer, Outbound, OutboundError

URL = "https://as.example/token"
SECRET = "s3cret:with/odd+chars"


@pytest.fixture
async def errands(nursery):
    running = Errands()
    await nursery.start(running.run)
    return running


class Giver:
    """Gives ``token-1``, ``token-2``, …; or ``answer``; fails with ``error``."""

    def __init__(self, expires_in=300):
        self.expires_in = expires_in
        self.asked = []
        self.answer = None
        self.error = None
        self.gate = None

    async def __call__(self, url, form, *, headers=()):
        self.asked.append((url, dict(form), dict(headers)))
        number = len(self.asked)
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            return self.answer
        document = {"access_token": f"token-{number}", "token_type": "bearer"}
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        return Answer(200, json.dumps(document).encode())


def grant(**more):
    return Grant(**{"token_url": URL, "client_id": "id", "client_secret": Secret(SECRET), **more})


def header(number):
    return [(b"authorization", b"Bearer token-%d" % number)]


# Fixed ones.


async def test_a_bearer_token_is_shown_as_one():
    credential = bearer(Secret("abc.def=="))
    assert await credential.headers() == [(b"authorization", b"Bearer abc.def==")]
    assert not credential.rejected(await credential.headers())


async def test_a_key_is_shown_in_the_header_of_the_server_s_choice():
    assert await api_key("X-Api-Key", Secret("k")).headers() == [(b"x-api-key", b"k")]


async def test_headers_of_any_names_are_shown():
    credential = static_headers({"X-A": Secret("1 2"), "Authorization": Secret("Basic x")})
    assert await credential.headers() == [(b"x-a", b"1 2"), (b"authorization", b"Basic x")]


def test_no_credential_shows_itself():
    shown = repr(bearer(Secret("abc"))) + repr(static_headers({"X-A": Secret("abc")}))
    shown += repr(grant(client_secret=Secret("abc")))
    shown += repr(ClientCredentials(grant(client_secret=Secret("abc")), Giver(), Errands()))
    assert "abc" not in shown


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a:",
        "é",
        "Host",
        "Content-Length",
        "transfer-encoding",
        "Connection",
        "Accept-Encoding",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "X-Request-Id",
        "X-Forwarded-For",
        "Content-Type",
    ],
)
def test_a_header_that_is_not_a_credential_can_not_be_set(name):
    with pytest.raises(ConfigError):
        static_headers({name: Secret("v")})


def test_one_header_can_not_be_set_twice():
    with pytest.raises(ConfigError):
        static_headers({"X-A": Secret("1"), "x-a": Secret("2")})


@pytest.mark.parametrize(
    "value",
    ["", " ", "hidden\r\nX: y", "hidden\0", "hidden\x7f", "hiddené", "hidden ", "h" * 20_000],
)
def test_a_value_that_no_header_can_carry_is_refused_and_not_shown(value):
    for make in (bearer, lambda v: api_key("X-A", v)):
        with pytest.raises(ConfigError) as caught:
            make(Secret(value))
        assert "hidden" not in str(caught.value)


# Files.


def test_a_secret_is_read_from_its_file_without_the_line_break(tmp_path):
    file = tmp_path / "secret"
    for content in (b"abc", b"abc\n", b"abc\r\n"):
        file.write_bytes(content)
        assert read_secret(Secret(f"file:{file}")).reveal() == "abc"
    file.write_bytes(b"abc\n\n")
    assert read_secret(Secret(f"file:{file}")).reveal() == "abc\n"
    assert read_secret(Secret("plain")).reveal() == "plain"


def test_a_secret_is_read_anew_each_time(tmp_path):
    file = tmp_path / "secret"
    file.write_text("old")
    assert read_secret(Secret(f"file:{file}")).reveal() == "old"
    file.write_text("new")
    assert read_secret(Secret(f"file:{file}")).reveal() == "new"


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 20_000, b"hidden\xff"])
def test_a_file_that_holds_no_short_text_is_refused_by_its_name_alone(tmp_path, content):
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_secret(Secret(f"file:{file}"))
    assert str(file) in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_is_no_file_is_refused_and_nobody_waits_for_it(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "missing", "relative", "", "/x\0y"):
        with pytest.raises(ConfigError):
            read_secret(Secret(f"file:{path}"))


# Client credentials.


async def test_a_token_is_got_when_it_is_first_needed_and_kept(errands, autojump_clock):
    giver = Giver()
    credential = ClientCredentials(grant(), giver, errands)
    assert giver.asked == []
    for _ in range(3):
        assert await credential.headers() == header(1)
    await trio.sleep(200)
    assert await credential.headers() == header(1)
    assert len(giver.asked) == 1


async def test_five_hundred_requests_at_one_time_get_one_token(errands, nursery):
    giver = Giver()
    giver.gate = trio.Event()
    credential = ClientCredentials(grant(), giver, errands)
    found = []

    async def one():
        found.append(await credential.headers())

    for _ in range(500):
        nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    giver.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert found == [header(1)] * 500
    assert len(giver.asked) == 1


async def test_a_client_shows_who_it_is_in_a_header():
    made = grant(client_id="a:b c")
    assert "client_id" not in made.form()
    assert "client_secret" not in made.form()
    ((name, value),) = made.headers()
    assert name == "authorization"
    pair = base64.b64decode(value.removeprefix("Basic "))
    assert pair == b"a%3Ab+c:s3cret%3Awith%2Fodd%2Bchars"


async def test_a_client_shows_who_it_is_in_the_form():
    made = grant(client_auth="post")
    assert made.headers() == []
    assert made.form() == {
        "grant_type": "client_credentials",
        "client_id": "id",
        "client_secret": SECRET,
    }


async def test_what_the_token_is_for_is_told():
    made = grant(
        scopes=("a", "b"),
        resource="https://up.example/mcp",
        audience="up",
        extra={"organization": "o", "grant_type": "password"},
    )
    assert made.form() == {
        "grant_type": "client_credentials",
        "scope": "a b",
        "resource": "https://up.example/mcp",
        "audience": "up",
        "organization": "o",
    }


async def test_a_token_is_renewed_beside_the_requests_before_it_expires(errands, autojump_clock):
    giver = Giver(expires_in=100)
    credential = ClientCredentials(grant(), giver, errands)
    assert await credential.headers() == header(1)
    await trio.sleep(85)
    assert await credential.headers() == header(1)
    await trio.testing.wait_all_tasks_blocked()
    assert await credential.headers() == header(2)
    assert len(giver.asked) == 2


async def test_a_token_about_to_expire_is_not_shown(errands, autojump_clock):
    giver = Giver(expires_in=100)
    credential = ClientCredentials(grant(), giver, errands)
    await credential.headers()
    await trio.sleep(91)
    assert await credential.headers() == header(2)


async def test_a_token_is_shown_while_it_lasts_though_a_new_one_can_not_be_had(
    errands, autojump_clock
):
    giver = Giver(expires_in=100)
    credential = ClientCredentials(grant(), giver, errands)
    await credential.headers()
    giver.error = OutboundError("down")
    await trio.sleep(85)
    for _ in range(3):
        assert await credential.headers() == header(1)
        await trio.testing.wait_all_tasks_blocked()
    assert len(giver.asked) == 2
    await trio.sleep(6)
    with pytest.raises(CredentialUnavailable):
        await credential.headers()
    giver.error = None
    await trio.sleep(60)
    assert (await credential.headers())[0][1].startswith(b"Bearer token-")


async def test_a_token_that_is_over_when_it_comes_is_a_failure(errands, autojump_clock):
    giver = Giver(expires_in=1)

    async def slow(url, form, *, headers=()):
        await trio.sleep(2)
        return await giver(url, form, headers=headers)

    credential = ClientCredentials(grant(), slow, errands)
    for _ in range(3):
        with pytest.raises(CredentialUnavailable, match="no credential"):
            await credential.headers()
    # Asked for once: then not for a while, as after any failure.
    assert len(giver.asked) == 1
    giver.expires_in = 100
    await trio.sleep(1)
    assert await credential.headers() == header(2)
    # One that lasts is not given up for one that doesn't.
    giver.expires_in = 1
    await trio.sleep(84)
    for _ in range(3):
        assert await credential.headers() == header(2)
        await trio.sleep(1.5)
    assert len(giver.asked) == 3


@pytest.mark.parametrize(
    ("told", "lasts_s"),
    [
        (None, 270),
        ("100", 90),
        ("soon", 270),
        (-5, 270),
        (0, 270),
        (True, 270),
        (float("nan"), 270),
        (10**9, 86_370),
        (1, 0.9),
    ],
)
async def test_the_life_of_a_token_is_read_with_care(errands, autojump_clock, told, lasts_s):
    giver = Giver(expires_in=told)
    credential = ClientCredentials(grant(), giver, errands)
    await credential.headers()
    giver.error = OutboundError("down")
    await trio.sleep(lasts_s - 0.05)
    assert await credential.headers() == header(1)
    await trio.sleep(0.1)
    with pytest.raises(CredentialUnavailable):
        await credential.headers()


async def test_a_server_that_is_down_is_asked_ever_less_often(errands, autojump_clock):
    giver = Giver()
    giver.error = OutboundError("as.example is down")
    credential = ClientCredentials(grant(), giver, errands)
    for _ in range(3600):
        with pytest.raises(CredentialUnavailable) as caught:
            await credential.headers()
        await trio.sleep(0.1)
    assert 10 <= len(giver.asked) <= 12
    assert caught.value.status == 503
    assert "as.example" in caught.value.reason
    assert "as.example" not in caught.value.message
    assert caught.value.headers[0][0] == b"Retry-After"


async def test_nobody_waits_for_a_slow_server_longer_than_the_bound(errands, autojump_clock):
    giver = Giver()
    giver.gate = trio.Event()
    credential = ClientCredentials(grant(), giver, errands, wait_s=7)
    before = trio.current_time()
    with pytest.raises(CredentialUnavailable) as caught:
        await credential.headers()
    assert trio.current_time() - before == pytest.approx(7)
    assert "longer than 7 s" in caught.value.reason
    giver.gate.set()
    assert await credential.headers() == header(1)
    assert len(giver.asked) == 1


async def test_a_request_that_is_cancelled_leaves_the_asking_to_the_others(errands):
    giver = Giver()
    giver.gate = trio.Event()
    credential = ClientCredentials(grant(), giver, errands)
    with trio.CancelScope() as scope:
        scope.cancel()
        await credential.headers()
    giver.gate.set()
    assert await credential.headers() == header(1)
    assert len(giver.asked) == 1


async def test_a_token_that_is_refused_is_replaced_once_for_all_who_showed_it(
    errands, autojump_clock, nursery
):
    giver = Giver()
    credential = ClientCredentials(grant(), giver, errands)
    shown = await credential.headers()
    await trio.sleep(60)
    found = []

    async def one():
        assert credential.rejected(shown)
        found.append(await credential.headers())

    for _ in range(100):
        nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    assert credential.rejected(shown)  # late, and about the old one: the new one stays
    assert found == [header(2)] * 100
    assert await credential.headers() == header(2)
    assert len(giver.asked) == 2


async def test_a_server_that_refuses_every_token_does_not_make_for_ever_new_ones(
    errands, autojump_clock
):
    giver = Giver(expires_in=10_000)
    credential = ClientCredentials(grant(), giver, errands)
    for _ in range(1000):
        shown = await credential.headers()
        if credential.rejected(shown):
            assert not credential.rejected(await credential.headers())
        await trio.sleep(0.1)
    assert len(giver.asked) <= 11


def wrong(status=200, **document):
    return Answer(status, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (wrong(400, error="invalid_client"), "invalid_client"),
        (wrong(401, error="hidden", error_description="hidden"), "401"),
        (wrong(302, access_token="hidden", token_type="bearer"), "302"),
        (Answer(200, b"<html>hidden"), "without a JSON object"),
        (Answer(200, b"[" * 99_999), "without a JSON object"),
        (Answer(200, b'["hidden"]'), "without a JSON object"),
        (wrong(access_token="hidden"), "no bearer token"),
        (wrong(access_token="hidden", token_type="mac"), "no bearer token"),
        (wrong(token_type="bearer"), "no header can carry"),
        (wrong(access_token="", token_type="bearer"), "no header can carry"),
        (wrong(access_token="hidden\r\nX: y", token_type="bearer"), "no header can carry"),
        (wrong(access_token="hidden x", token_type="bearer"), "no header can carry"),
        (wrong(access_token="hiddené", token_type="bearer"), "no header can carry"),
        (wrong(access_token="h" * 20_000, token_type="bearer"), "no header can carry"),
    ],
)
async def test_an_answer_without_a_usable_token_is_a_failure_that_quotes_nothing(
    errands, caplog, answer, said
):
    giver = Giver()
    giver.answer = answer
    credential = ClientCredentials(grant(), giver, errands)
    with caplog.at_level(logging.DEBUG), pytest.raises(CredentialUnavailable) as caught:
        await credential.headers()
    assert said in caught.value.reason
    fields = "".join(str(vars(record)) for record in caplog.records)
    assert "no token for a server" in fields
    for text in (caught.value.reason, caught.value.message, fields):
        assert "hidden" not in text
        assert SECRET not in text


# Over loopback.


async def test_five_hundred_requests_make_for_one_token_request_on_the_wire(
    errands, nursery, caplog
):
    async with AuthorizationServer().serving() as server:
        server.gate = trio.Event()
        credential = ClientCredentials(
            grant(token_url=f"{server.url}/token", resource="https://up.example/mcp"),
            Outbound().post,
            errands,
        )
        found = []

        async def one():
            found.append(await credential.headers())

        with caplog.at_level(logging.DEBUG):
            async with trio.open_nursery() as requests:
                for _ in range(500):
                    requests.start_soon(one)
                while not server.asked:
                    await trio.lowlevel.checkpoint()
                server.gate.set()
        assert found == [[(b"authorization", b"Bearer given-1")]] * 500
        ((method, path, headers, form),) = server.asked
        assert (method, path) == ("POST", "/token")
        assert form == {"grant_type": "client_credentials", "resource": "https://up.example/mcp"}
        assert headers[b"authorization"].startswith(b"Basic ")
        said = "".join(str(vars(record)) + record.getMessage() for record in caplog.records)
        for secret in (SECRET, "given-1", headers[b"authorization"].decode()[6:]):
            assert secret not in said


async def test_no_redirect_is_followed_with_the_client_s_secret(errands):
    async with AuthorizationServer().serving() as server, AuthorizationServer().serving() as other:
        for status in (301, 302, 307, 308):
            server.answers["/token"] = (status, [("location", f"{other.url}/token")], b"{}")
            credential = ClientCredentials(
                grant(token_url=f"{server.url}/token", client_auth="post"),
                Outbound().post,
                errands,
            )
            with pytest.raises(CredentialUnavailable):
                await credential.headers()
        assert len(server.asked) == 4
        assert other.asked == []
