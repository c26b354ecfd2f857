"""Redaction: a credential never shows, a record stays small, nothing raises."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mcpx.core.redaction import MASK, MOST_BYTES, Redactor

PLAIN = Redactor()
PLANTED = "zQ9planted7Xw"


def shown(value, redactor=PLAIN, tool="tool"):
    return redactor.arguments(tool, json.dumps(value).encode())


@pytest.mark.parametrize(
    "key",
    [
        *(
            "password",
            "Password",
            "PASSWORD",
            "passwd",
            "db_password",
            "dbPassword",
            "new-password",
        ),
        *(
            "passwordConfirm",
            "password_hash",
            "passphrase",
            "secret",
            "client_secret",
            "clientSecret",
        ),
        *(
            "AWS_SECRET_ACCESS_KEY",
            "token",
            "access_token",
            "accessToken",
            "refresh-token",
            "id_token",
        ),
        *("githubtoken", "tokens", "api_key", "apiKey", "API-KEY", "APIKey", "apikey", "x-api-key"),
        *(
            "openai.api.key",
            "authorization",
            "Proxy-Authorization",
            "cookie",
            "Set-Cookie",
            "cookies",
        ),
        *(
            "private_key",
            "privateKeyPem",
            "credential",
            "credentials",
            "session_key",
            "mcp-session-id",
        ),
        *("user_pwd", "PIN", "userPin", "otp", "basicAuth", "db_pass", "jwt"),
        *(
            "ｐａｓｓｗｏｒｄ",
            "paſſword",
            "pásswörd",
            "pass\u200bword",
            " p a s s w o r d ",
            "pass\tword",
        ),
    ],
)
def test_a_credentials_name_hides_its_value_in_any_spelling(key):
    assert shown({"a": {"b": [{key: PLANTED}]}}) == {"a": {"b": [{key: MASK}]}}
    assert shown({key: {"deep": [PLANTED]}}) == {key: MASK}
    assert shown({key: 1234}) == {key: MASK}


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens",
        "tokenizer",
        "bypass",
        "compass",
        "author",
        "spin",
        "monkey",
        "key",
        "path",
        "",
        "__",
    ],
)
def test_other_names_show_their_values(key):
    assert shown({key: 7}) == {key: 7}


def test_configured_names_count_in_any_spelling_and_at_a_names_end():
    redactor = Redactor(keys=["Konto-Nummer", "pan"])
    value = {"kontoNummer": 1, "my_konto_nummer": 2, "PAN": 3, "cardPan": 4, "japan": 5, "panic": 6}
    assert list(shown(value, redactor).values()) == [MASK, MASK, MASK, MASK, 5, 6]


variants = st.tuples(
    st.sampled_from(
        ["password", "api_key", "client-secret", "access_token", "private_key", "credentials"]
    ),
    st.sampled_from([str.lower, str.upper, str.title, str.capitalize]),
    st.sampled_from(["_", "-", " ", ".", ""]),
    st.sampled_from(["", "my_", "X-", "the "]),
).map(lambda v: v[3] + v[1](v[0]).replace("_", v[2]).replace("-", v[2]))
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=6), v, max_size=3)
)


@given(key=variants, around=values, data=st.data())
def test_a_planted_secret_under_any_variant_of_a_key_never_shows(key, around, data):
    hidden = data.draw(
        st.sampled_from([PLANTED, [PLANTED], {"x": PLANTED}, {PLANTED: 1}, [[{"y": [PLANTED]}]]])
    )
    value = {"around": around, key: hidden}
    for _ in range(data.draw(st.integers(0, 5))):
        value = data.draw(st.sampled_from([[value], {"in": value}, [around, value]]))
    assert PLANTED not in json.dumps(shown(value))


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Basic " + PLANTED,
        "authorization=" + PLANTED,
        "curl -H 'Authorization: Bearer " + PLANTED + "' x",
        "curl -H 'Cookie: a=b; c=" + PLANTED + "'",
        "bearer   " + PLANTED,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + PLANTED,
        "https://user:" + PLANTED + "@host/path",
        "postgres://user:p@" + PLANTED + "@host",
        "https://" + PLANTED + "@github.com/a/b",
        "password=" + PLANTED,
        "PGPASSWORD='" + PLANTED + "' psql",
        "password: a," + PLANTED,
        'password := "two words ' + PLANTED + '"',
        '{"db_password": "a\\"b ' + PLANTED + '"}',
        '{\\"token\\": \\"' + PLANTED + '\\"}',
        "api-key => " + PLANTED,
        "export SECRET_KEY_BASE=" + PLANTED,
        "run --token " + PLANTED,
        "run --db-password '" + PLANTED + "'",
        "--secret\n" + PLANTED,
        "<Password>" + PLANTED + "</Password>",
        "-----BEGIN RSA PRIVATE KEY-----\n" + PLANTED + "\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\ncut off " + PLANTED,
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n" + PLANTED,
    ],
)
def test_credentials_within_texts_are_masked(text):
    assert PLANTED not in PLAIN.text("before " + text + " after")
    assert MASK in PLAIN.text(text)
    masked = shown({"a": [text], text: 1})
    assert PLANTED not in json.dumps(masked)


@pytest.mark.parametrize(
    "credential",
    [
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_0123456789abcdefABCDEF0123456789abcd",
        "github_pat_11ABCDEFG0123456789_abcdefghij",
        "glpat-abcdefghij0123456789",
        "sk-proj-abcdefghij0123456789",
        "sk_live_abcdefghij0123456789",
        "xoxb-123456789012-abcdef",
        "AIzaSyA0123456789abcdefghij0123456789xyz",
        "npm_abcdefghij0123456789abcdefghij012345",
        "pypi-AgEIcHlwaS5vcmcabcdef",
        "hf_abcdefghij0123456789abcd",
    ],
)
def test_well_known_credentials_are_known_by_how_they_begin(credential):
    assert PLAIN.text(f"see {credential}.") == f"see {MASK}."


@pytest.mark.parametrize(
    "text",
    [
        "hello world",
        "/data/reports/2024.txt",
        "task-management-service-name",
        "https://example.com/a?b=c",
        "user@example.com",
        "top-secret plan",
        "SELECT * FROM t WHERE a = 'b'",
        "größe 東京 🎉",
        "",
    ],
)
def test_other_texts_stay_as_they_are(text):
    assert PLAIN.text(text) == text
    assert shown({"text": text}) == {"text": text}


def test_a_credential_beside_its_name_is_masked():
    assert shown([{"name": "API_KEY", "value": PLANTED}, {"Key": "db_password", "Value": 1}]) == [
        {"name": "API_KEY", "value": MASK},
        {"Key": "db_password", "Value": MASK},
    ]
    assert shown({"name": "colour", "value": "red"}) == {"name": "colour", "value": "red"}
    assert shown(["-v", "--token", PLANTED, "x"]) == ["-v", "--token", MASK, "x"]
    assert shown(["--token", "--secret", PLANTED]) == ["--token", MASK, MASK]
    assert shown([["Authorization", PLANTED]]) == [["Authorization", MASK]]


def test_configured_patterns_mask_texts_names_and_numbers():
    redactor = Redactor(patterns=[r"\d{16}", "(?i)geheim"])
    value = {
        "a": "card 4111111111111111!",
        "n": 4111111111111111,
        "Geheim": 1,
        "4111111111111111": 2,
        "x4222222222222222": 3,
    }
    assert shown(value, redactor) == {"a": "card ***!", "n": MASK, "***": 1, "***#4": 2, "x***": 3}


def test_names_that_become_one_by_masking_lose_no_member():
    redactor = Redactor(patterns=["[ab]"])
    assert shown({"a": 1, "b": 2, "***#1": 3, "***#2": 4}, redactor) == {
        "***": 1,
        "***#2": 2,
        "***#1": 3,
        "***#2#4": 4,
    }


def test_patterns_that_overlap_mask_what_any_of_them_found():
    redactor = Redactor(patterns=["abc", "cde", "b"])
    assert redactor.text("xabcdex") == "x***x"


def test_a_pattern_that_matches_everywhere_masks_all_in_bounded_work():
    assert Redactor(patterns=["x"]).text("xy" * 30_000) == (MASK + "y") * 1000 + "…(+58000)"
    assert "z" not in Redactor(patterns=["x"]).cut("xz" * 1000 + "xzzz" * 2000, 4000)[4000:]


def test_the_arguments_of_a_named_tool_are_left_out_whole():
    redactor = Redactor(tools=["vault_*", "Exact", "a?c"])
    for tool in (
        "vault_read",
        "VAULT_READ",
        "ｖault_read",
        "Exact",
        "exact ",
        "abc",
        "a c",
        "v" * 9999,
    ):
        assert shown({"a": 1}, redactor, tool) == MASK
    assert shown({"a": 1}, redactor, "other") == {"a": 1}
    assert shown({"a": 1}, Redactor(), "v" * 9999) == {"a": 1}


@pytest.mark.parametrize(
    "number", ["9007199254740993", "123456789012345678901234567890", "-0", "1.5", "1" * 1000]
)
def test_numbers_stay_exact(number):
    assert shown({"n": json.loads(number)})["n"] == json.loads(number)


def test_a_number_that_no_float_or_int_holds_hides_nothing_else():
    outcome = PLAIN.arguments("t", b'{"path":"/x","n":1e999,"m":' + b"7" * 5000 + b"}")
    assert outcome == {"path": "/x", "n": "1e999", "m": "7" * 2000 + "…(+3000)"}


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"",
            b" ",
            b"nonsense",
            b"{",
            b'{"a":1}x',
            b"[NaN]",
            b"Infinity",
            b"\xff",
            b'"\xed\xa0\x80"',
        ),
        *(b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"[" * 100_000, b'"a\nb"', b"{'a':1}"),
    ],
)
def test_what_is_not_json_is_masked_whole(raw):
    assert PLAIN.arguments("tool", raw) == MASK


@given(raw=st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode()))
@example(raw=b'"\\ud800"')
@example(raw=b'{"\\udfff":"\\ud800x"}')
def test_no_bytes_raise_and_the_outcome_can_be_written(raw):
    msgspec.json.encode(Redactor(patterns=["[a-f]+", r"\bx"]).arguments("tool", raw))


def test_a_long_text_is_cut_and_says_by_how_much():
    assert PLAIN.text("a" * 2000) == "a" * 2000
    assert PLAIN.text("ä" * 2001) == "ä" * 2000 + "…(+1)"


@given(before=st.integers(1950, 2050))
def test_what_crosses_the_cut_is_masked_as_a_whole(before):
    text = " " * before + "ghp_0123456789abcdefABCDEF0123456789abcd" + " " * 3000
    assert "ghp" not in PLAIN.text(text)
    assert "0123" not in PLAIN.text(text)


def test_a_nest_deeper_than_any_reader_is_cut():
    value = 1
    for _ in range(60):
        value = [value]
    assert "…(+1)" in json.dumps(shown(value), ensure_ascii=False)


bulky = st.one_of(
    st.lists(st.text(alphabet='\0aé🎉"', max_size=3000), max_size=30),
    st.dictionaries(st.text(min_size=1, max_size=400), st.integers(), max_size=60),
    st.integers(0, 4000).map(lambda n: [[]] * n),
    st.integers(0, 4000).map(lambda n: [{"k": n}] * n),
    st.integers(0, 4000).map(lambda n: [{"password": n}] * n),
    st.integers(0, 40).map(lambda n: ["\0" * 5000] * n),
    st.integers(0, 40).map(lambda n: {f"{i}" + "ß" * 250: ["x" * 1999] for i in range(n)}),
)


@settings(max_examples=60, deadline=None)
@given(value=bulky)
def test_a_record_is_bounded_and_says_what_was_left_out(value):
    outcome = shown({"first": 1, "bulk": value, "last": 2})
    written = msgspec.json.encode(outcome)
    assert len(written) <= MOST_BYTES + 200
    assert outcome["first"] == 1
    assert "last" in outcome or "…".encode() in written


def test_a_record_that_is_cut_counts_what_is_missing():
    outcome = shown({f"k{number}": "x" * 1000 for number in range(100)})
    kept = [name for name in outcome if name != "…"]
    assert outcome["…"] == f"(+{100 - len(kept)})"
    outcome = shown(list(range(100_000)))
    assert outcome[-1] == f"…(+{100_000 - (len(outcome) - 1)})"


def test_what_is_remembered_of_names_stays_bounded():
    redactor = Redactor()
    for start in range(0, 20_000, 500):
        shown({f"n{number}": 0 for number in range(start, start + 500)}, redactor)
    shown({"x" * 300: 1}, redactor)
    assert 0 < len(redactor._names) <= 1024
    assert max(map(len, redactor._names)) <= 64


@given(text=st.text(max_size=50))
def test_a_text_without_credentials_that_is_short_is_kept(text):
    assume(not set(text) & set("=:-<@"))
    assume(not any("\ud800" <= character <= "\udfff" for character in text))
    assume("bearer" not in text.lower())
    assert PLAIN.text(text) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["--"],), "key '--'"),
        (((), ["("]), r"pattern '\(': missing"),
        (((), [""]), "pattern ''"),
        (((), ["a*"]), r"pattern 'a\*': it matches the empty text"),
        (((), ["\ud800"]), "isn't Unicode"),
        (((), (), [""]), "tool '': is empty"),
    ],
)
def test_settings_that_can_not_be_used_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        Redactor(*arguments)
