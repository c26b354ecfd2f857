"""Who asks: exactly one credential, in constant work, never echoed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.core import identity
from mcpx.core.identity import ANONYMOUS, Authenticator, Principal
from mcpx.errors import Unauthorized
from mcpx.secret import Secret

ALICE, BOB = "alice-token-0123456789", "Bob.token~+/x=="
CLIENTS = [("alice", Secret(ALICE)), ("bob", Secret(BOB))]


@pytest.fixture
def bearer():
    return Authenticator("bearer", clients=CLIENTS)


@pytest.fixture
def api_key():
    return Authenticator("api_key", "X-Team-Key", CLIENTS)


def refusal(authenticator, *headers):
    with pytest.raises(Unauthorized) as caught:
        authenticator.identify(list(headers))
    return caught.value.message, dict(caught.value.headers)[b"WWW-Authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   "])
def test_a_bearer_token_names_its_client_in_any_case_of_the_scheme(bearer, scheme):
    headers = [(b"host", b"x"), (b"authorization", (scheme + BOB).encode())]
    assert bearer.identify(headers) == Principal("bob", authenticated=True)


def test_an_api_key_names_its_client(api_key):
    assert api_key.identify([(b"x-team-key", ALICE.encode())]).name == "alice"


def test_nobody_is_not_authenticated():
    assert ANONYMOUS.name == ""
    assert not ANONYMOUS.authenticated


def test_a_request_without_authorization_is_told_so_and_challenged(bearer):
    assert refusal(bearer, (b"x-api-key", ALICE.encode())) == (
        "missing Authorization header",
        b'Bearer realm="mcpx"',
    )


@pytest.mark.parametrize("value", [b"", b"Bearer", b"Bearer ", b"Basic YTpi", ALICE.encode()])
def test_another_scheme_or_no_token_is_a_missing_bearer_token(bearer, value):
    assert refusal(bearer, (b"authorization", value)) == (
        "missing bearer token",
        b'Bearer realm="mcpx"',
    )


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        ALICE + " ",
        "\t" + ALICE,
        ALICE.upper(),
        ALICE[:-1],
        ALICE + "=",
        ALICE + "," + BOB,
        '"' + ALICE + '"',
        "x" * 100_000,
        "é",
    ],
)
def test_an_unknown_token_is_invalid_and_not_echoed(bearer, token):
    message, challenge = refusal(bearer, (b"authorization", b"Bearer " + token.encode()))
    assert message == "invalid token"
    assert challenge == b'Bearer realm="mcpx", error="invalid_token"'


@pytest.mark.parametrize("separator", [b"\t", b"\x0b", b"\xa0", b"", b":"])
def test_only_a_space_parts_scheme_and_token(bearer, separator):
    value = b"Bearer" + separator + ALICE.encode()
    assert refusal(bearer, (b"authorization", value))[0] == "missing bearer token"


def test_two_authorization_headers_are_refused_even_if_both_are_right(bearer):
    header = (b"authorization", b"Bearer " + ALICE.encode())
    assert refusal(bearer, header, header)[0] == "more than one Authorization header"


def test_api_key_messages_name_the_header_that_is_missing_or_doubled(api_key):
    right = (b"x-team-key", ALICE.encode())
    assert refusal(api_key)[0] == "missing X-Team-Key header"
    assert refusal(api_key, (b"x-team-key", b"nope"))[0] == "invalid API key"
    assert refusal(api_key, (b"x-team-key", b""))[0] == "invalid API key"
    assert refusal(api_key, right, right)[0] == "more than one X-Team-Key header"
    assert refusal(api_key, right, right)[1] == b'ApiKey realm="mcpx"'


def test_an_api_key_may_be_read_from_authorization_itself():
    authenticator = Authenticator("api_key", "Authorization", CLIENTS)
    assert authenticator.identify([(b"authorization", ALICE.encode())]).name == "alice"
    assert refusal(authenticator, (b"authorization", b"Bearer x"))[0] == "invalid API key"


def test_the_api_key_header_means_nothing_to_bearer():
    authenticator = Authenticator("bearer", "Authorization", CLIENTS)
    assert authenticator.identify([(b"authorization", b"Bearer " + ALICE.encode())]).name == "alice"
    assert refusal(authenticator, (b"authorization", ALICE.encode()))[0] == "missing bearer token"


def test_with_several_kinds_a_request_shows_exactly_one():
    both = Authenticator(("bearer", "api_key"), clients=CLIENTS)
    token, key = (b"authorization", b"Bearer " + ALICE.encode()), (b"x-api-key", BOB.encode())
    assert both.identify([token]).name == "alice"
    assert both.identify([key]).name == "bob"
    assert refusal(both, token, key)[0] == "more than one credential"
    assert refusal(both)[0] == "missing Authorization header"
    assert both.credential_headers == {b"authorization", b"x-api-key"}


def test_the_headers_that_hold_credentials_are_told(bearer, api_key):
    assert bearer.credential_headers == {b"authorization"}
    assert api_key.credential_headers == {b"x-team-key"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bearer", "X", [("a", Secret(""))]), "'a' is empty"),
        (("bearer", "X", [("a", Secret("has blank"))]), "'a' can't be a Bearer token"),
        (("bearer", "X", [("a", Secret("a=b"))]), "'a' can't be a Bearer token"),
        (("bearer", "X", [("a", Secret("=="))]), "'a' can't be a Bearer token"),
        (("api_key", "X", [("a", Secret("blank inside"))]), "'a' can't be sent"),
        (("api_key", "X", [("a", Secret("naïve"))]), "'a' can't be sent"),
        (("api_key", "X", [("a", Secret("\udcff"))]), "'a' can't be sent"),
        (("api_key", "X", [("a", Secret("x" * 5000))]), "'a' is longer than 4096"),
        (("bearer", "X", [("", Secret("x"))]), "no name"),
        (("bearer", "X", [("a", Secret("x")), ("a", Secret("y"))]), "two clients"),
        (("bearer", "X", [("a", Secret("x")), ("b", Secret("x"))]), "'a' and 'b' have the same"),
        (("bearer", "X", []), "nobody could ever be let in"),
        (("bearer", "X Y", CLIENTS), "not the name of a header"),
        (("api_key", "", CLIENTS), "not the name of a header"),
        (("basic", "X", CLIENTS), "kind must be"),
        (((), "X", CLIENTS), "kind must be"),
        ((("bearer", "api_key"), "authorization", CLIENTS), "needs another header"),
    ],
)
def test_credentials_that_could_not_work_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        Authenticator(*arguments)
    for _, secret in arguments[2]:
        assert len(secret.reveal()) < 3 or secret.reveal() not in str(caught.value)


def test_the_credentials_themselves_are_not_kept(bearer):
    kept = repr([getattr(bearer, slot) for slot in bearer.__slots__])
    assert ALICE not in kept
    assert BOB not in kept


def test_known_and_unknown_credentials_cost_one_hash_and_one_comparison(monkeypatch):
    compared = []
    true_compare = identity.hmac.compare_digest

    def compare(one, other):
        compared.append((len(one), len(other)))
        return true_compare(one, other)

    monkeypatch.setattr(identity.hmac, "compare_digest", compare)
    many = Authenticator("api_key", clients=[(f"c{n}", Secret(f"key-{n}")) for n in range(500)])
    assert many.identify([(b"x-api-key", b"key-499")]).name == "c499"
    assert refusal(many, (b"x-api-key", b"key-500"))[0] == "invalid API key"
    assert compared == [(32, 32)] * 2


@given(value=st.binary(max_size=80), name=st.sampled_from([b"authorization", b"x-api-key"]))
def test_no_other_value_is_ever_let_in_or_shown(value, name):
    both = Authenticator(("bearer", "api_key"), clients=CLIENTS)
    with pytest.raises(Unauthorized) as caught:
        both.identify([(name, value)])
    known = {str(caught.value), *(pair[1].decode() for pair in caught.value.headers)}
    assert known <= {
        "missing bearer token",
        "invalid token",
        "invalid API key",
        'Bearer realm="mcpx"',
        'Bearer realm="mcpx", error="invalid_token"',
        'ApiKey realm="mcpx"',
    }
