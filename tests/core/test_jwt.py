import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from support.authorization_server import (
    KINDS,
    Signer,
    compact,
    encoded,
    mac_signed,
    private_key,
)

from mcpx.core.jwt import ALGORITHMS, KeyFault, TokenRules, parse_keys, verify
from mcpx.core.oauth import LONGEST_TOKEN_BYTES, TokenRefused, UnknownKey

NOW = 1_800_000_000.0
ISSUER = "https://as.example"
RULES = TokenRules(ISSUER)
FILES = frozenset({"https://gw.example/mcp/files"})


@pytest.fixture
def signer():
    return Signer(ISSUER)


def check(signer, token, *, rules=RULES, accepted=FILES, now=NOW):
    return verify(token, parse_keys(signer.jwks()), rules, accepted, now)


def refusal(signer, token, **more):
    with pytest.raises(TokenRefused) as caught:
        check(signer, token, **more)
    assert caught.value.error == "invalid_token"
    return caught.value.reason_code


@pytest.mark.parametrize("algorithm", sorted(KINDS))
def test_a_good_token_of_every_algorithm_is_taken(algorithm):
    signer = Signer(ISSUER, algorithm)
    claims = check(signer, signer.token(NOW))
    assert claims.name == "alice"
    assert claims.scopes == {"mcp:read", "mcp:write"}
    assert claims.audiences == FILES
    assert claims.expires_at == NOW + 300
    assert claims.kid == "k1"
    assert claims.thumbprint == private_key(KINDS[algorithm]).thumbprint()


def test_the_table_of_algorithms_is_what_is_tested_and_holds_no_symmetric_one():
    assert set(KINDS) == ALGORITHMS
    assert not [name for name in ALGORITHMS if name.startswith("HS") or name == "none"]


@pytest.mark.parametrize("algorithm", sorted(KINDS))
def test_a_token_that_was_changed_after_signing_is_refused(algorithm):
    signer = Signer(ISSUER, algorithm)
    head, payload, signature = signer.token(NOW).split(b".")
    document = json.loads(base64.urlsafe_b64decode(payload + b"=="))
    document["sub"] = "root"
    forged = b".".join((head, encoded(json.dumps(document).encode()), signature))
    assert refusal(signer, forged) == "signature"


def test_a_token_without_a_signature_is_refused_however_it_is_written(signer):
    payload = signer.token(NOW).split(b".")[1]
    for alg in ("none", "None", "NONE", "nOnE"):
        head = encoded(json.dumps({"alg": alg, "kid": "k1"}).encode())
        assert refusal(signer, head + b"." + payload + b".AA") == "algorithm"
        assert refusal(signer, head + b"." + payload + b".") == "malformed"
    head = signer.token(NOW).split(b".")[0]
    assert refusal(signer, head + b"." + payload + b".") == "malformed"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("own", ["RS256", "ES256"])
def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_refused(algorithm, own):
    signer = Signer(ISSUER, own)
    key = signer.keys[0][2]
    payload = base64.urlsafe_b64decode(signer.token(NOW).split(b".")[1] + b"==")
    head = {"alg": algorithm, "kid": "k1"}
    for secret in (key.as_pem(private=False), key.as_der(private=False), signer.jwks()):
        assert refusal(signer, mac_signed(head, payload, secret)) == "algorithm"


def test_a_token_of_an_untrusted_key_under_a_trusted_name_is_refused(signer):
    other = Signer(ISSUER)
    other.rotate("k1", number=7)
    assert refusal(signer, other.token(NOW)) == "signature"


def test_an_unknown_key_is_told_apart_and_names_the_key(signer):
    token = signer.token(NOW)
    old = parse_keys(signer.jwks())
    signer.rotate("k2")
    with pytest.raises(UnknownKey) as caught:
        verify(signer.token(NOW), old, RULES, FILES, NOW)
    assert caught.value.kid == "k2"
    assert caught.value.error == "invalid_token"
    assert check(signer, signer.token(NOW)).kid == "k2"
    with pytest.raises(UnknownKey):  # the old key is gone
        check(signer, token)


def test_a_token_that_names_no_key_is_tried_with_those_that_fit():
    signer = Signer(ISSUER)
    signer.keys.clear()
    signer.add(None, "RS256")
    signer.add(None, "ES256", number=1)
    signer.add(None, "ES256")
    assert check(signer, signer.token(NOW)).kid is None
    old = parse_keys(signer.jwks())
    signer.rotate(None, number=5)
    with pytest.raises(UnknownKey) as caught:
        verify(signer.token(NOW), old, RULES, FILES, NOW)
    assert caught.value.kid is None


def test_an_algorithm_that_is_not_the_key_s_own_is_refused():
    signer = Signer(ISSUER, "RS256")
    assert refusal(signer, signer.token(NOW, head={"alg": "PS256"})) == "algorithm"
    payload = base64.urlsafe_b64decode(signer.token(NOW).split(b".")[1] + b"==")
    token = compact({"alg": "ES256", "kid": "k1"}, payload, private_key("P-256"))
    assert refusal(signer, token) == "algorithm"


def test_a_curve_that_is_not_the_algorithm_s_is_refused():
    ed448 = private_key("Ed448").as_dict(private=False)
    with pytest.raises(KeyFault):
        parse_keys(json.dumps({"keys": [{**ed448, "kid": "k1"}]}).encode())
    with pytest.raises(KeyFault):
        parse_keys(json.dumps({"keys": [{**ed448, "kid": "k1", "alg": "EdDSA"}]}).encode())
    p384 = {**private_key("P-384").as_dict(private=False), "kid": "k1"}
    keys = parse_keys(json.dumps({"keys": [p384]}).encode())
    payload = b'{"sub":"alice"}'
    token = compact({"alg": "ES256", "kid": "k1"}, payload, private_key("P-256"))
    with pytest.raises(TokenRefused) as caught:
        verify(token, keys, RULES, FILES, NOW)
    assert caught.value.reason_code == "algorithm"


@pytest.mark.parametrize(
    ("claims", "without", "reason"),
    [
        ({"aud": "https://gw.example/mcp/other"}, (), "audience"),
        ({"aud": ["https://gw.example", "x"]}, (), "audience"),
        ({"aud": "https://gw.example/mcp/files/x"}, (), "audience"),
        ({"aud": "https://gw.example/mcp/file"}, (), "audience"),
        ({"aud": []}, (), "audience"),
        ({"aud": ""}, (), "audience"),
        ({}, ("aud",), "audience"),
        ({"aud": {"https://gw.example/mcp/files": 1}}, (), "malformed"),
        ({"aud": [["https://gw.example/mcp/files"]]}, (), "malformed"),
        ({"aud": None}, (), "malformed"),
        ({"iss": "https://evil.example"}, (), "issuer"),
        ({"iss": ISSUER + "/"}, (), "issuer"),
        ({"iss": [ISSUER]}, (), "issuer"),
        ({}, ("iss",), "issuer"),
        ({"exp": NOW - 31}, (), "expired"),
        ({"exp": NOW - 30}, (), "expired"),
        ({}, ("exp",), "expired"),
        ({"exp": None}, (), "malformed"),
        ({"exp": "never"}, (), "malformed"),
        ({"exp": True}, (), "malformed"),
        ({"exp": -1}, (), "malformed"),
        ({"exp": 1e300}, (), "malformed"),
        ({"exp": float("inf")}, (), "malformed"),
        ({"exp": float("nan")}, (), "malformed"),
        ({"nbf": NOW + 31}, (), "not_yet_valid"),
        ({"iat": NOW + 31}, (), "not_yet_valid"),
        ({"nbf": "x"}, (), "malformed"),
        ({}, ("sub",), "identity"),
        ({"sub": ""}, (), "identity"),
        ({"sub": 7}, (), "identity"),
        ({"sub": None}, (), "identity"),
        ({"sub": ["alice"]}, (), "identity"),
        ({"sub": "a\nb"}, (), "identity"),
        ({"sub": " alice"}, (), "identity"),
        ({"sub": "\ud800"}, (), "identity"),
        ({"sub": "a" * 257}, (), "identity"),
        ({"scope": 7}, (), "malformed"),
        ({"scope": [7]}, (), "malformed"),
    ],
)
def test_a_claim_that_does_not_fit_refuses_the_token(signer, claims, without, reason):
    token = signer.token(NOW, without=without, **claims)
    assert refusal(signer, token) == reason


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 29.5}, {"nbf": NOW + 30}, {"iat": NOW + 30}, {"exp": NOW + 0.5}]
)
def test_clocks_may_differ_by_the_leeway(signer, claims):
    assert check(signer, signer.token(NOW, **claims)).name == "alice"


def test_the_leeway_can_be_none(signer):
    rules = TokenRules(ISSUER, leeway_s=0)
    assert refusal(signer, signer.token(NOW, exp=NOW), rules=rules) == "expired"
    assert refusal(signer, signer.token(NOW, nbf=NOW + 1), rules=rules) == "not_yet_valid"


def test_one_accepted_audience_among_several_is_enough(signer):
    token = signer.token(NOW, aud=["https://other.example", *FILES])
    assert check(signer, token).name == "alice"


@pytest.mark.parametrize(
    ("claims", "without", "scopes"),
    [
        ({"scope": "a b"}, (), {"a", "b"}),
        ({"scope": ""}, (), set()),
        ({"scp": ["a", "b"]}, ("scope",), {"a", "b"}),
        ({"scp": "a b"}, ("scope",), {"a", "b"}),
        ({"scope": "a", "scp": "b"}, (), {"a"}),
        ({"scope": 'a "b" c\\'}, (), {"a"}),
        ({}, ("scope",), set()),
    ],
)
def test_scopes_are_read_from_scope_or_scp(signer, claims, without, scopes):
    assert check(signer, signer.token(NOW, without=without, **claims)).scopes == scopes


def test_the_name_comes_from_the_claim_that_is_configured_and_no_other(signer):
    rules = TokenRules(ISSUER, identity_claim="client_id")
    assert check(signer, signer.token(NOW, client_id="ci"), rules=rules).name == "ci"
    assert refusal(signer, signer.token(NOW), rules=rules) == "identity"


def test_a_name_that_belongs_to_a_client_with_its_own_credential_is_refused(signer):
    rules = TokenRules(ISSUER, reserved=frozenset({"alice"}))
    assert refusal(signer, signer.token(NOW), rules=rules) == "identity"
    assert check(signer, signer.token(NOW, sub="bob"), rules=rules).name == "bob"


def test_no_issuer_is_asked_for_where_none_is_configured(signer):
    assert check(signer, signer.token(NOW, without=("iss",)), rules=TokenRules(None))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, "header"),
        ({"crit": []}, "header"),
        ({"b64": False, "crit": ["b64"]}, "header"),
        ({"b64": False}, "header"),
        ({"cty": "JWT"}, "header"),
        ({"zip": "DEF"}, "header"),
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "dpop+jwt"}, "type"),
        ({"typ": None}, "type"),
        ({"typ": ["at+jwt"]}, "type"),
        ({"kid": ""}, "header"),
        ({"kid": 1}, "header"),
        ({"kid": "k" * 257}, "header"),
        ({"alg": "ES256K"}, "algorithm"),
    ],
)
def test_a_header_with_a_say_of_its_own_is_refused(signer, head, reason):
    _, _, key = signer.keys[0]
    payload = base64.urlsafe_b64decode(signer.token(NOW).split(b".")[1] + b"==")
    alg = head.get("alg", "ES256")
    if alg == "ES256K":
        key = ECKey.generate_key("secp256k1")
    assert refusal(signer, compact({"alg": alg, "kid": "k1", **head}, payload, key)) == reason


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_types_of_access_tokens_are_taken_in_any_case(signer, typ):
    assert check(signer, signer.token(NOW, head={"typ": typ})).name == "alice"


def test_a_key_that_the_token_brings_along_is_not_looked_at(signer):
    thief = private_key("P-256", 9)
    head = {"jwk": thief.as_dict(private=False), "jku": "https://evil.example/jwks"}
    _, _, key = signer.keys[0]
    payload = base64.urlsafe_b64decode(signer.token(NOW).split(b".")[1] + b"==")
    stolen = compact({"alg": "ES256", "kid": "k1", **head}, payload, thief)
    assert refusal(signer, stolen) == "signature"
    assert check(signer, compact({"alg": "ES256", "kid": "k1", **head}, payload, key))


def test_a_token_is_measured_before_it_is_read(signer):
    long = signer.token(NOW, more="x" * LONGEST_TOKEN_BYTES)
    assert refusal(signer, long) == "too_long"
    assert refusal(signer, b"." * (LONGEST_TOKEN_BYTES + 1)) == "too_long"


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"a.b",
        b"a.b.c.d",
        b"a.b.c",
        b"!.!.!",
        b"eyJhbGciOiJFUzI1NiJ9.e30",
        encoded(b"[" * 1500) + b".e30.AA",
        encoded(b'{"alg":"ES256","alg":"ES256"}') + b".e30.AA",
        encoded(b'{"alg":"ES256","x":NaN}') + b".e30.AA",
        encoded(b'\xff{"alg":"ES256"}') + b".e30.AA",
        encoded(b'["ES256"]') + b".e30.AA",
        encoded(b'{"alg":"ES256","n":' + b"9" * 1000 + b"}") + b".e30.A",
        encoded(b'{"alg":"ES256"}' + b" " * 2048) + b".e30.AA",
    ],
)
def test_what_is_no_signed_token_is_refused_without_a_fault(signer, token):
    assert refusal(signer, token) == "malformed"


def test_base64_has_one_form(signer):
    token = signer.token(NOW)
    head, payload, signature = token.split(b".")
    assert refusal(signer, token + b"=") == "malformed"
    assert refusal(signer, b".".join((head, payload, signature + b"=="))) == "malformed"
    assert refusal(signer, token.replace(b".", b".\n", 1)) == "malformed"
    other = bytes([signature[-1] + 1])  # 64 bytes leave four bits of the last letter unused
    assert refusal(signer, b".".join((head, payload, signature[:-1] + other))) == "malformed"


def test_claims_that_are_said_twice_are_refused(signer):
    _, _, key = signer.keys[0]
    payload = b'{"sub":"alice","sub":"root","exp":%d}' % (NOW + 9)
    assert refusal(signer, compact({"alg": "ES256", "kid": "k1"}, payload, key)) == "malformed"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="eyJ.abc-_=", max_size=60).map(str.encode))
def test_no_bytes_do_anything_but_be_refused(token):
    signer = Signer(ISSUER)
    with pytest.raises(TokenRefused):
        check(signer, token)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_change_of_a_good_token_is_taken_for_it(data):
    signer = Signer(ISSUER)
    token = bytearray(signer.token(NOW))
    place = data.draw(st.integers(0, len(token) - 1))
    token[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TokenRefused):
        check(signer, bytes(token))


def test_no_refusal_quotes_the_token(signer):
    token = signer.token(NOW, sub="\x00secret-subject", kid="x")
    with pytest.raises(TokenRefused) as caught:
        check(signer, token)
    assert "secret-subject" not in str(caught.value)


# Key sets.


def entry(kind="P-256", number=0, **more):
    return {**private_key(kind, number).as_dict(private=False), "kid": "k", **more}


def key_set(*entries):
    return json.dumps({"keys": list(entries)}).encode()


@pytest.mark.parametrize(
    "unusable",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
        private_key("P-256").as_dict(private=True),
        private_key("RSA").as_dict(private=True),
        entry(k="AAAA"),
        entry(use="enc"),
        entry(use=None),
        entry(key_ops=["encrypt"]),
        entry(key_ops="verify"),
        entry(alg="HS256"),
        entry(alg="RS256"),
        entry(alg="ES384"),
        entry(alg=["ES256"]),
        entry(kid=7),
        entry(kid="k" * 257),
        entry(kty="XYZ"),
        entry(kty=["EC"]),
        entry(crv="P-384"),
        entry(crv=["P-256"]),
        entry(x="AAAA"),
        entry(x=7),
        entry(x="A" * 3000),
        entry(y="!"),
        entry("X25519"),
        entry("Ed448"),
        entry("Ed25519", x="AA"),
        entry("RSA", n="AQAB"),
        entry("RSA", n="A" * 2048),
        entry("RSA", n=encoded(b"\xff" * 127).decode()),
        entry("RSA", n=encoded(b"\xff" * 1025).decode()),
        entry("RSA", e="AQ"),
        entry("RSA", e="AAAC"),
        entry("RSA", e=encoded(b"\x7f" * 200).decode()),
        "key",
        None,
        [],
    ],
)
def test_an_entry_that_can_not_verify_is_left_out_and_the_others_stay(unusable):
    keys = parse_keys(key_set(unusable, entry(number=1, kid="good")))
    assert len(keys) == 1
    assert keys.ignored == 1
    assert keys.has("good")
    with pytest.raises(KeyFault):
        parse_keys(key_set(unusable))


def test_a_key_says_nothing_that_it_need_not():
    plain = entry("RSA")
    keys = parse_keys(key_set({**plain, "x5c": "nonsense", "x5u": 7, "key_ops": ["verify", "x"]}))
    assert keys.thumbprints == {private_key("RSA").thumbprint()}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[],"keys":[]}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"<html>",
    ],
)
def test_what_is_no_key_set_is_a_fault(text):
    with pytest.raises(KeyFault):
        parse_keys(text)


def test_a_key_set_is_bounded_in_number_and_size():
    with pytest.raises(KeyFault, match="more than 2 keys"):
        parse_keys(key_set(entry(), entry(), entry()), max_keys=2)
    with pytest.raises(KeyFault, match="longer than 100 bytes"):
        parse_keys(key_set(entry()), max_bytes=100)


def test_two_keys_of_one_name_are_both_tried():
    signer = Signer(ISSUER)
    keys = parse_keys(key_set(entry(number=1, kid="k1"), entry(kid="k1")))
    assert verify(signer.token(NOW), keys, RULES, FILES, NOW).name == "alice"
