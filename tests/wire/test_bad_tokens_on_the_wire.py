"""Tokens that prove nothing: each is refused, told why, recorded once, and goes nowhere."""

import base64
import json

import pytest
from support.authorization_server import KINDS, compact, encoded, mac_signed, private_key
from support.client import call
from support.oauth_gateway import DEMO, RESOURCE, bearer, guarded, now


def claims(authority, **more):
    document = {"iss": authority.issuer, "sub": "alice", "aud": DEMO, "exp": now() + 300, **more}
    return {name: value for name, value in document.items() if value is not None}


def own(authority, head=None, payload=None, key=None, **more):
    """A token of any head and payload, signed with the authorization server's key."""
    kid, algorithm, right = authority.keys[-1]
    head = {"alg": algorithm, "typ": "at+jwt", "kid": kid, **(head or {})}
    head = {name: value for name, value in head.items() if value is not None}
    if payload is None:
        payload = json.dumps(claims(authority, **more)).encode()
    return compact(head, payload, key or right)


def raw(authority, **texts):
    """A token with claims whose JSON text is given, so that it may be wrong."""
    given = {name: json.dumps(value) for name, value in claims(authority).items()}
    body = ",".join(f'"{name}":{text}' for name, text in {**given, **texts}.items())
    return own(authority, payload=b"{" + body.encode() + b"}")


def parts(token):
    return token.split(b".")


def public_pem(authority):
    return authority.keys[-1][2].as_pem(private=False)


def unsigned(authority, name):
    kid = authority.keys[-1][0]
    return compact({"alg": name, "kid": kid}, json.dumps(claims(authority)).encode(), None)


def shared(authority, secret):
    head = {"alg": "HS256", "kid": authority.keys[-1][0]}
    return mac_signed(head, json.dumps(claims(authority)).encode(), secret)


def with_signature(authority, signature):
    head, payload, _ = parts(own(authority))
    return b".".join((head, payload, encoded(signature)))


def attackers(authority, **head):
    return own(authority, head=head, key=private_key("P-256", 66))


def own_jwk():
    return private_key("P-256", 66).as_dict(private=False)


CLAIMS = {
    "no audience": ("audience", lambda a: own(a, aud=None)),
    "an empty audience": ("audience", lambda a: own(a, aud="")),
    "no audience in a list": ("audience", lambda a: own(a, aud=[])),
    "another server's": ("audience", lambda a: own(a, aud=f"{RESOURCE}/mcp/other")),
    "a server's whose name begins so": ("audience", lambda a: own(a, aud=DEMO + "2")),
    "a place below": ("audience", lambda a: own(a, aud=DEMO + "/more")),
    "a place above": ("audience", lambda a: own(a, aud=f"{RESOURCE}/mcp")),
    "an audience in upper case": ("audience", lambda a: own(a, aud=DEMO.upper())),
    "an audience without TLS": ("audience", lambda a: own(a, aud=DEMO.replace("https", "http"))),
    "an audience with a query": ("audience", lambda a: own(a, aud=DEMO + "?")),
    "an audience with two slashes": ("audience", lambda a: own(a, aud=DEMO + "//")),
    "an audience with a blank": ("audience", lambda a: own(a, aud=DEMO + " ")),
    "audiences in one text": ("audience", lambda a: own(a, aud=f"x {DEMO}")),
    "a glob": ("audience", lambda a: own(a, aud=f"{RESOURCE}/mcp/*")),
    "a nested list of audiences": ("malformed", lambda a: own(a, aud=[[DEMO]])),
    "a number beside an audience": ("malformed", lambda a: own(a, aud=[DEMO, 1])),
    "an object as audience": ("malformed", lambda a: own(a, aud={DEMO: 1})),
    "null as audience": ("malformed", lambda a: raw(a, aud="null")),
    "expired beyond the leeway": ("expired", lambda a: own(a, exp=now() - 31)),
    "expired long ago": ("expired", lambda a: own(a, exp=0)),
    "no end": ("expired", lambda a: own(a, exp=None)),
    "null as end": ("malformed", lambda a: raw(a, exp="null")),
    "an end in a text": ("malformed", lambda a: own(a, exp=str(now() + 300))),
    "true as end": ("malformed", lambda a: own(a, exp=True)),
    "an end in a list": ("malformed", lambda a: own(a, exp=[now() + 300])),
    "an endless end": ("malformed", lambda a: raw(a, exp="1e999")),
    "infinity as end": ("malformed", lambda a: raw(a, exp="Infinity")),
    "no number as end": ("malformed", lambda a: raw(a, exp="NaN")),
    "an end of 4000 digits": ("malformed", lambda a: raw(a, exp="9" * 4000)),
    "an end of 5000 digits": ("malformed", lambda a: raw(a, exp="9" * 5000)),
    "an end of many digits after the point": ("expired", lambda a: raw(a, exp="1." + "1" * 4000)),
    "an end before all time": ("malformed", lambda a: own(a, exp=-1)),
    "two ends": ("malformed", lambda a: raw(a, exp="1", **{' ","exp': "9999999999"})),
    "not yet valid": ("not_yet_valid", lambda a: own(a, nbf=now() + 60)),
    "made in the future": ("not_yet_valid", lambda a: own(a, iat=now() + 60)),
    "a begin in a text": ("malformed", lambda a: own(a, nbf="0")),
    "another issuer": ("issuer", lambda a: own(a, iss="https://evil.example")),
    "no issuer": ("issuer", lambda a: own(a, iss=None)),
    "an issuer with a slash": ("issuer", lambda a: own(a, iss=a.issuer + "/")),
    "an issuer in a list": ("issuer", lambda a: own(a, iss=[a.issuer])),
    "no user": ("identity", lambda a: own(a, sub=None)),
    "an empty user": ("identity", lambda a: own(a, sub="")),
    "a blank user": ("identity", lambda a: own(a, sub=" ")),
    "a user with a blank at the end": ("identity", lambda a: own(a, sub="alice ")),
    "a user with a line break": ("identity", lambda a: own(a, sub="al\nice")),
    "a user with a zero": ("identity", lambda a: own(a, sub="alice\0")),
    "a user with a hidden mark": ("identity", lambda a: own(a, sub="ali\u200bce")),
    "a user that turns writing around": ("identity", lambda a: own(a, sub="\u202ealice")),
    "half a surrogate pair": ("identity", lambda a: raw(a, sub='"\\ud800"')),
    "a long user": ("identity", lambda a: own(a, sub="a" * 257)),
    "a number as user": ("identity", lambda a: own(a, sub=7)),
    "a list of users": ("identity", lambda a: own(a, sub=["alice"])),
    "true as user": ("identity", lambda a: own(a, sub=True)),
    "a static client's name": ("identity", lambda a: own(a, sub="ci")),
    "the name of the one token": ("identity", lambda a: own(a, sub="default")),
    "two users": ("malformed", lambda a: raw(a, **{'sub":"bob","sub': '"alice"'})),
    "one user written in two ways": (
        "malformed",
        lambda a: raw(a, **{'s\\u0075b":"bob","s': "1"}),
    ),
    "a number as scope": ("malformed", lambda a: own(a, scope=5)),
    "numbers as scopes": ("malformed", lambda a: own(a, scope=["mcp:read", 5])),
    "a list of claims": ("malformed", lambda a: own(a, payload=b"[1]")),
    "no JSON": ("malformed", lambda a: own(a, payload=b"alice")),
    "something behind the claims": ("malformed", lambda a: own(a, payload=b'{"sub":"a"} {}')),
    "claims with a mark of order": (
        "malformed",
        lambda a: own(a, payload=b"\xef\xbb\xbf" + json.dumps(claims(a)).encode()),
    ),
    "claims in UTF-16": (
        "malformed",
        lambda a: own(a, payload=json.dumps(claims(a)).encode("utf-16-le")),
    ),
    "claims that are no text": ("malformed", lambda a: own(a, payload=b'{"sub":"\xff"}')),
    "claims as deep as they can be": ("malformed", lambda a: own(a, payload=b"[" * 5000)),
    "objects as deep as they can be": ("malformed", lambda a: own(a, payload=b'{"a":' * 1100)),
}

SIGNATURES = {
    "a key that nobody trusts": ("signature", attackers),
    "such a key, put into the token": ("signature", lambda a: attackers(a, jwk=own_jwk())),
    "such a key, to be fetched": (
        "signature",
        lambda a: attackers(a, jku=a.url + "/evil", x5u=a.url + "/evil"),
    ),
    "such a key under a name of its own": (
        "unknown_key",
        lambda a: attackers(a, kid="mine", jwk=own_jwk()),
    ),
    "such a key without a name": ("unknown_key", lambda a: attackers(a, kid=None)),
    "no signature": ("malformed", lambda a: b".".join((*parts(own(a))[:2], b""))),
    "a signature of zeros": ("signature", lambda a: with_signature(a, bytes(64))),
    "a short signature": ("signature", lambda a: with_signature(a, bytes(63))),
    "a long signature": ("signature", lambda a: with_signature(a, bytes(4096))),
    "another one's signature": (
        "signature",
        lambda a: b".".join((*parts(own(a))[:2], parts(own(a, sub="bob"))[2])),
    ),
    "none": ("algorithm", lambda a: unsigned(a, "none") + b"AA"),
    "None": ("algorithm", lambda a: unsigned(a, "None") + b"AA"),
    "nOnE": ("algorithm", lambda a: unsigned(a, "nOnE") + b"AA"),
    "none, and nothing behind it": ("malformed", lambda a: unsigned(a, "none")),
    "a secret that is the key's PEM": ("algorithm", lambda a: shared(a, public_pem(a))),
    "a secret that is the key's PEM, bare": (
        "algorithm",
        lambda a: shared(a, public_pem(a).strip()),
    ),
    "a secret that is the key set": ("algorithm", lambda a: shared(a, a.jwks())),
    "an empty secret": ("algorithm", lambda a: shared(a, b"")),
    "an algorithm of another key": (
        "algorithm",
        lambda a: own(a, head={"alg": "RS256"}, key=private_key("RSA", 66)),
    ),
    "an algorithm in lower case": (
        "algorithm",
        lambda a: b".".join((encoded(b'{"alg":"es256"}'), *parts(own(a))[1:])),
    ),
    "no algorithm": (
        "algorithm",
        lambda a: b".".join((encoded(b'{"kid":"k1"}'), *parts(own(a))[1:])),
    ),
    "a list of algorithms": (
        "algorithm",
        lambda a: b".".join((encoded(b'{"alg":["ES256"]}'), *parts(own(a))[1:])),
    ),
    "two algorithms": (
        "malformed",
        lambda a: b".".join((encoded(b'{"alg":"none","alg":"ES256"}'), *parts(own(a))[1:])),
    ),
    "an extension": ("header", lambda a: own(a, head={"crit": ["exp"], "exp": 1})),
    "an empty list of extensions": ("header", lambda a: own(a, head={"crit": []})),
    "claims that are not encoded": (
        "header",
        lambda a: own(a, head={"b64": False, "crit": ["b64"]}),
    ),
    "b64 alone": ("header", lambda a: own(a, head={"b64": False})),
    "b64 as a number": ("header", lambda a: own(a, head={"b64": 1})),
    "a packed one": ("header", lambda a: own(a, head={"zip": "DEF"})),
    "a token in a token": ("header", lambda a: own(a, head={"cty": "JWT"}, payload=own(a))),
    "a logout token": ("type", lambda a: own(a, head={"typ": "logout+jwt"})),
    "a proof": ("type", lambda a: own(a, head={"typ": "dpop+jwt"})),
    "a type that is a number": ("type", lambda a: own(a, head={"typ": 1})),
    "a key by a path": ("unknown_key", lambda a: own(a, head={"kid": "../../../dev/null"})),
    "a key by a query": ("unknown_key", lambda a: own(a, head={"kid": "k1' OR '1'='1"})),
    "a key by an address": ("unknown_key", lambda a: own(a, head={"kid": a.url + "/evil"})),
    "a key by a command": ("unknown_key", lambda a: own(a, head={"kid": "|touch /tmp/x"})),
    "a key with a line break": ("unknown_key", lambda a: own(a, head={"kid": "k1\r\nX: y"})),
    "a key in upper case": ("unknown_key", lambda a: own(a, head={"kid": "K1"})),
    "a key by a number": ("header", lambda a: own(a, head={"kid": 1})),
    "a key by a list": ("header", lambda a: own(a, head={"kid": ["k1"]})),
    "a key without a letter": ("header", lambda a: own(a, head={"kid": ""})),
    "a key of a long name": ("header", lambda a: own(a, head={"kid": "k" * 300})),
    "a long head": ("malformed", lambda a: own(a, head={"x": "y" * 3000})),
    "8 KiB": ("too_long", lambda a: own(a, x="y" * 8192)),
    "padding": ("malformed", lambda a: own(a) + b"=="),
    "padding within": (
        "malformed",
        lambda a: parts(own(a))[0] + b"=." + b".".join(parts(own(a))[1:]),
    ),
    "letters of the other alphabet": (
        "malformed",
        lambda a: b".".join((*parts(own(a))[:2], b"+/" + parts(own(a))[2][2:])),
    ),
    "bits that say nothing": ("malformed", lambda a: loose(own(a))),
}


def loose(token):
    """The same signature in another spelling: the last letter has bits that count for nothing."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1:])
    other = token[:-1] + alphabet[last ^ 1 : (last ^ 1) + 1]
    same = [base64.urlsafe_b64decode(parts(text)[2] + b"==") for text in (token, other)]
    assert same[0] == same[1]
    return other


AUTH = {"types": ["oauth", "bearer"], "type": "", "clients": [{"name": "ci", "token": "ci-" * 6}]}


async def check(tmp_path, code, make):
    async with guarded(tmp_path, auth=AUTH) as rig:
        token = make(rig.authority)
        # A token that was refused is refused again: nothing of it is remembered.
        for _ in range(2):
            response = await rig.refused(bearer(token), code=code)
        assert "alice" not in str(response.headers)
        assert {path for _, path, _, _ in rig.authority.asked} <= {"/jwks"}
        assert rig.fetches <= 2
        # What is refused takes nothing from the others.
        await rig.served(bearer(own(rig.authority)))


@pytest.mark.parametrize("case", CLAIMS)
async def test_what_a_good_key_signed_must_say_who_for_whom_and_how_long(tmp_path, case):
    await check(tmp_path, *CLAIMS[case])


@pytest.mark.parametrize("case", SIGNATURES)
async def test_what_no_trusted_key_signed_as_it_should_is_refused(tmp_path, case):
    await check(tmp_path, *SIGNATURES[case])


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "EdDSA"])
async def test_no_kind_of_public_key_is_taken_for_a_secret(tmp_path, algorithm):
    async with guarded(tmp_path, algorithm=algorithm) as rig:
        key = rig.authority.keys[-1][2]
        pem = public_pem(rig.authority)
        secrets = [pem, pem.strip(), rig.authority.jwks(), key.as_der(private=False)]
        members = key.as_dict(private=False)
        secrets.append(members["n" if "n" in members else "x"].encode())
        for secret in secrets:
            await rig.refused(bearer(shared(rig.authority, secret)), code="algorithm")


async def test_a_symmetric_key_in_the_key_set_is_none(tmp_path):
    secret = b"a secret that everybody can read in the key set"
    async with guarded(tmp_path) as rig:
        keys = json.loads(rig.authority.jwks())
        keys["keys"].append({"kty": "oct", "kid": "s1", "k": encoded(secret).decode()})
        rig.authority.answers["/jwks"] = (200, [], json.dumps(keys).encode())
        head = {"alg": "HS256", "kid": "s1"}
        token = mac_signed(head, json.dumps(claims(rig.authority)).encode(), secret)
        await rig.refused(bearer(token), code="algorithm")
        await rig.served(bearer(own(rig.authority)))


async def test_a_key_for_one_algorithm_verifies_no_other(tmp_path):
    async with guarded(tmp_path, algorithm="RS256") as rig:
        token = own(rig.authority, head={"alg": "PS256"}, key=private_key(KINDS["RS256"]))
        await rig.refused(bearer(token), code="algorithm")
        await rig.served(bearer(own(rig.authority)))


HEADERS = {
    "a tab": "Bearer\t{}",
    "a tab behind a blank": "Bearer \t{}",
    "a quote": 'Bearer "{}"',
    "another scheme": "DPoP {}",
    "no scheme": "{}",
    "the scheme twice": "Bearer Bearer {}",
    "a comma": "Bearer {}, Bearer x",
    "a parameter": "Bearer token={}",
    "something behind it": "Bearer {} x",
    "Basic before it": "Basic YTpi, Bearer {}",
}


@pytest.mark.parametrize("case", HEADERS)
async def test_a_token_in_a_header_of_another_form_is_not_read(tmp_path, case):
    async with guarded(tmp_path) as rig:
        text = HEADERS[case].format(rig.token().decode())
        response = await rig.gateway.post(call("echo"), headers=[("Authorization", text)])
        assert response.status == 401
        assert rig.upstream == []
        (line,) = await rig.gateway.audit(1)
        assert (line["status"], line["allowed"]) == (401, False)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   "])
async def test_the_scheme_is_read_in_any_case_and_blanks_may_follow_it(tmp_path, scheme):
    async with guarded(tmp_path) as rig:
        await rig.served([("Authorization", scheme + rig.token().decode())])


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("second", ["Bearer x", "Basic YTpi", "", None])
async def test_two_authorization_headers_are_refused_in_either_order(tmp_path, order, second):
    async with guarded(tmp_path) as rig:
        good = "Bearer " + rig.token().decode()
        values = [good, good if second is None else second][::order]
        headers = [("Authorization", values[0]), ("authorization", values[1])]
        response = await rig.gateway.post(call("echo"), headers=headers)
        assert response.status in (400, 401)
        assert rig.upstream == []
        (line,) = await rig.gateway.audit(1)
        assert not line["allowed"]


@pytest.mark.parametrize(
    "folded",
    [
        b"Authorization: Bearer\r\n %s\r\n",
        b"Authorization : Bearer %s\r\n",
        b"Authorization\t: Bearer %s\r\n",
        b" Authorization: Bearer %s\r\n",
        b"Authorization: Bearer %s\0\r\n",
        b"Authorization: Bearer %s\rX: y\r\n",
        b"X: y\nAuthorization: Bearer %s\r\n",
        b"Proxy-Authorization: Bearer %s\r\n",
        b"X-Authorization: Bearer %s\r\n",
        b"Author\xc4\xb1zation: Bearer %s\r\n",
        b"Cookie: access_token=%s\r\n",
    ],
)
async def test_a_header_that_another_parser_might_read_shows_nothing_here(tmp_path, folded):
    async with guarded(tmp_path) as rig:
        body = json.dumps(call("echo")).encode()
        head = b"POST /mcp/demo HTTP/1.1\r\nHost: " + rig.gateway.address.encode() + b"\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        async with await rig.gateway.connect() as client:
            await client.raw(head + folded % rig.token() + b"\r\n" + body)
            response = await client.response()
        assert response.status in (400, 401)
        assert rig.upstream == []


@pytest.mark.parametrize("place", ["query", "body", "path"])
async def test_a_token_elsewhere_than_in_the_header_is_not_read(tmp_path, place):
    async with guarded(tmp_path) as rig:
        token = rig.token().decode()
        path, body = "/mcp/demo", call("echo")
        if place == "query":
            path += f"?access_token={token}"
        elif place == "path":
            path += f"/{token}"
        else:
            body["access_token"] = token
        await rig.refused([], path=path, body=body)
        for line in await rig.lines():
            assert token not in json.dumps(line)


async def test_a_trailer_shows_nothing(tmp_path):
    async with guarded(tmp_path) as rig:
        body = json.dumps(call("echo")).encode()
        head = b"POST /mcp/demo HTTP/1.1\r\nHost: " + rig.gateway.address.encode() + b"\r\n"
        head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        head += b"Trailer: Authorization\r\n\r\n"
        chunk = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\n\r\n"
        async with await rig.gateway.connect() as client:
            await client.raw(head + chunk % (len(body), body, rig.token()))
            response = await client.response()
        assert response.status in (400, 401)
        assert rig.upstream == []
