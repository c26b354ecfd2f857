"""What outlives a reload, and what of a configuration can't be used."""

import pytest
import trustme
import yaml

from mcpx.config.load import load_snapshot
from mcpx.errors import ConfigError
from mcpx.gateway.trust import Trust
from mcpx.services.errand import Errands

OAUTH = {"resource": "https://gw.example", "issuer": "https://as.example"}
GRANT = {
    "type": "client_credentials",
    "token_url": "https://as.example/token",
    "client_id": "gw",
    "client_secret": "a secret of some length",
}


def snapshot(auth=None, **servers):
    config = {
        "servers": [
            {"name": name, "url": "http://127.0.0.1:9/mcp", "auth": shown}
            for name, shown in servers.items()
        ]
    }
    if auth is not None:
        config["auth"] = {"enabled": True, "type": "oauth", "oauth": auth}
    text = yaml.safe_dump(config)
    return load_snapshot(text, filename="mcpx.yaml", environ={}, generation=1)


def trust(before=None, **more):
    return Trust.of(snapshot(**more), Errands(), before)


async def test_each_server_is_shown_what_its_entry_says():
    made = trust(
        a={"type": "bearer", "token": "token-of-a"},
        b={"type": "api_key", "key": "key-of-b", "header": "X-Key"},
        c={"type": "headers", "headers": {"X-One": "1", "X-Two": "2"}},
        d={"type": "none"},
    )
    assert await made.credentials["a"].headers() == [(b"authorization", b"Bearer token-of-a")]
    assert await made.credentials["b"].headers() == [(b"x-key", b"key-of-b")]
    assert await made.credentials["c"].headers() == [(b"x-one", b"1"), (b"x-two", b"2")]
    assert "d" not in made.credentials
    assert made.tokens is None


async def test_a_secret_is_read_from_its_file_anew_each_time(tmp_path):
    path = tmp_path / "secret"
    path.write_text("first-secret\n")
    shown = {"type": "bearer", "token": f"file:{path}"}
    made = trust(a=shown)
    assert await made.credentials["a"].headers() == [(b"authorization", b"Bearer first-secret")]
    path.write_text("second-secret\n")
    made = trust(before=made, a=shown)
    assert await made.credentials["a"].headers() == [(b"authorization", b"Bearer second-secret")]


def test_a_file_that_is_not_there_is_told_with_its_server(tmp_path):
    with pytest.raises(ConfigError) as caught:
        trust(a={"type": "bearer", "token": f"file:{tmp_path}/nothing"})
    assert caught.value.problems[0].startswith('servers: "a": auth: ')
    assert "nothing" in caught.value.problems[0]


def test_a_token_that_was_got_outlives_a_reload_unless_its_grant_is_another():
    made = trust(a=GRANT)
    same = trust(before=made, a=GRANT)
    assert same.credentials["a"] is made.credentials["a"]
    other = trust(before=same, a={**GRANT, "scopes": ["read"]})
    assert other.credentials["a"] is not made.credentials["a"]


def test_keys_outlive_a_reload_and_verified_tokens_do_not():
    made = trust(auth=OAUTH)
    assert made.tokens is not None
    same = trust(before=made, auth={**OAUTH, "scopes": ["read"]})
    assert same.tokens is not made.tokens
    assert same.tokens.keys is made.tokens.keys
    other = trust(before=same, auth={**OAUTH, "issuer": "https://other.example"})
    assert other.tokens.keys is not made.tokens.keys


def test_a_file_without_certificates_is_no_trust(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match=r"auth\.oauth\.ca"):
        trust(auth={**OAUTH, "ca": str(path)})


def test_a_token_server_may_have_an_authority_of_its_own(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match=r'servers: "a": auth: ca: .*ca\.pem'):
        trust(a={**GRANT, "ca": str(path)})
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(path))
    made = trust(a={**GRANT, "ca": str(path)})
    assert (
        trust(before=made, a={**GRANT, "ca": str(path)}).credentials["a"] is made.credentials["a"]
    )
    assert trust(before=made, a=GRANT).credentials["a"] is not made.credentials["a"]
