"""The canonical text: one for each value, another for every other value.

Every test here runs on the specification and on its compiled twin, where that was built.
"""

import hashlib
import json
import os
import time
from fractions import Fraction
from importlib import import_module

import pytest
import rfc8785
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx._speedups import canon_py
from mcpx.errors import FrameError


def twins():
    found = [pytest.param(canon_py, id="python")]
    try:
        found.append(pytest.param(import_module("mcpx._speedups.canon_c"), id="cython"))
    except ImportError:
        if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
            raise
    return found


@pytest.fixture(params=twins(), scope="module")
def canon(request):
    return request.param


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
#: What RFC 8785 and this rule write alike: doubles' own numbers, whole ones up to 2**53.
SHARED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NUMBER = st.from_regex(rb"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?\Z")


def written(value, draw):
    """``value`` as JSON text, spelled as ``draw`` (a random.Random) has it."""

    def blank():
        return "".join(draw.choices(" \t\r\n", k=draw.choice([0, 0, 1, 3])))

    def string(text):
        out = []
        for char in text:
            units = char.encode("utf-16-be")
            escaped = "".join(
                "\\u" + f"{int.from_bytes(units[i : i + 2]):04{draw.choice('xX')}}"
                for i in range(0, len(units), 2)
            )
            plain = json.dumps(char, ensure_ascii=False)[1:-1]
            out.append(draw.choice([plain, escaped, "\\/" if char == "/" else plain]))
        return '"' + "".join(out) + '"'

    def any_value(value):
        if isinstance(value, str):
            text = string(value)
        elif isinstance(value, list):
            text = "[" + ",".join(any_value(item) for item in value) + blank() + "]"
        elif isinstance(value, dict):
            items = list(value.items())
            draw.shuffle(items)
            text = ",".join(blank() + string(k) + blank() + ":" + any_value(v) for k, v in items)
            text = "{" + text + blank() + "}"
        else:
            text = json.dumps(value)
        return blank() + text + blank()

    return any_value(value).encode()


@settings(max_examples=300, deadline=None)
@given(value=SHARED)
def test_where_both_rules_agree_the_text_is_rfc_8785s(canon, value):
    assert canon.canonical(json.dumps(value).encode()) == rfc8785.dumps(value)


@settings(max_examples=200, deadline=None)
@given(value=JSON, draw=st.randoms(use_true_random=False))
def test_the_spelling_of_a_value_does_not_matter(canon, value, draw):
    assert canon.canonical(written(value, draw)) == canon.canonical(json.dumps(value).encode())


def exact(text):
    return json.loads(text, parse_int=Fraction, parse_float=Fraction)


def typed(value):
    """``value`` such that 1 and true, 0 and false are not equal."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return (isinstance(value, bool), value)


@settings(max_examples=200, deadline=None)
@given(one=JSON, other=JSON)
def test_two_values_have_one_text_only_if_they_are_equal(canon, one, other):
    texts = [json.dumps(value).encode() for value in (one, other)]
    same = canon.canonical(texts[0]) == canon.canonical(texts[1])
    assert same == (typed(exact(texts[0])) == typed(exact(texts[1])))


@settings(max_examples=200, deadline=None)
@given(value=JSON)
def test_the_canonical_text_means_the_same_and_is_its_own_canonical_text(canon, value):
    text = json.dumps(value).encode()
    out = canon.canonical(text)
    assert typed(exact(out)) == typed(exact(text))
    assert canon.canonical(out) == out


@settings(max_examples=500, deadline=None)
@given(one=NUMBER, other=NUMBER, scale=st.integers(0, 40))
def test_numbers_have_one_text_exactly_when_they_are_equal(canon, one, other, scale):
    assert (canon.canonical(one) == canon.canonical(other)) == (
        Fraction(one.decode()) == Fraction(other.decode())
    )
    assert Fraction(canon.canonical(one).decode()) == Fraction(one.decode())
    # The same number with its point elsewhere.
    mantissa, _, exponent = one.lower().partition(b"e")
    point = b"" if b"." in mantissa else b"."
    moved = mantissa + point + b"0" * scale + (b"0" if point else b"")
    again = moved + b"e" + (exponent or b"0")
    assert canon.canonical(again) == canon.canonical(one)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"1.0", b"1"),
        (b"-0", b"0"),
        (b"-0.0e5", b"0"),
        (b"0e99999999999999999999999", b"0"),
        (b"10e-1", b"1"),
        (b"1E2", b"100"),
        (b"9007199254740993", b"9007199254740993"),
        (b"9007199254740993.0", b"9007199254740993"),
        (b"100000000000000000000", b"100000000000000000000"),
        (b"123456789012345678901", b"123456789012345678901"),
        (b"1234567890123456789012", b"1.234567890123456789012e+21"),
        (b"1e21", b"1e+21"),
        (b"1e-6", b"0.000001"),
        (b"1e-7", b"1e-7"),
        (b"0.1000000000000000055511151231257827", b"0.1000000000000000055511151231257827"),
        (b"-12.50", b"-12.5"),
        (b"1e400", b"1e+400"),
        (b"1e-400", b"1e-400"),
        (b"1e999999999", b"1e+999999999"),
        (b"-10.0e999999999", b"-1e+1000000000"),
        (b"0.01e-999999999999999999", b"1e-1000000000000000001"),
        (b"100e999999999999999999", b"1e+1000000000000000001"),
        (b"10e9999999999999999999", b"1e+10000000000000000000"),
        (b"0.1e10000000000000000000", b"1e+9999999999999999999"),
        (b"0.1e1000000000000000000", b"1e+999999999999999999"),
        (b"1e999999999999999999", b"1e+999999999999999999"),
        (b"10e-1000000000000000000", b"1e-999999999999999999"),
        (b"0.1e-9999999999999999999", b"1e-10000000000000000000"),
        (b"1.5e00000000000000000000000001", b"15"),
        (b"1.5e-12345678901234567890", b"1.5e-12345678901234567890"),
    ],
)
def test_numbers_are_exact_and_laid_out_one_way(canon, text, wanted):
    assert canon.canonical(text) == wanted


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(0, 10**45) | st.integers(10**18 - 50, 10**18 + 50),
    shift=st.integers(0, 60),
    below=st.booleans(),
)
def test_the_longest_exponents_are_counted_exactly(canon, size, shift, below):
    power = -size if below else size
    texts = [
        f"7e{power}",
        f"7{'0' * shift}e{power - shift}",
        f"0.{'0' * shift}7e{power + shift + 1}",
    ]
    assert len({canon.canonical(text.encode()) for text in texts}) == 1
    assert canon.canonical(f"7e{power + 1}".encode()) != canon.canonical(texts[0].encode())


def test_an_enormous_exponent_or_number_costs_no_more_than_its_text(canon):
    began = time.process_time()
    nines = b"9" * 1_000_000
    assert canon.canonical(b"10e" + nines) == b"1e+1" + b"0" * 1_000_000
    assert canon.canonical(b"1e-" + nines) == b"1e-" + nines
    assert canon.canonical(b"0.1e1" + b"0" * 1_000_000) == b"1e+" + nines
    assert canon.canonical(nines) == b"9." + b"9" * 999_999 + b"e+999999"
    assert canon.canonical(b"[" + b"1e999999999," * 50_000 + b"0]").count(b"1e+999999999") == 50_000
    assert time.process_time() - began < 5


def test_keys_are_ordered_by_their_utf_16_code_units(canon):
    # The example of RFC 8785 section 3.2.3, whose order differs from that of code points.
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    text = json.dumps(dict.fromkeys(keys, 0)).encode()
    wanted = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canon.canonical(text))) == wanted


def test_strings_are_escaped_the_shortest_way_and_only_where_they_must_be(canon):
    text = b'"\\u0000\\u0008\\u0009\\u000A\\u000b\\u000C\\u000d\\u001F\\u0022\\u005c\\/\\u007f\\u00e9\\ud83d\\ude00"'
    assert canon.canonical(text) == (
        b'"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\"\\\\/\x7f' + "é😀".encode() + b'"'
    )


def test_values_that_look_alike_are_kept_apart(canon):
    texts = [b'{"a":1}', b'["a",1]', b'["a",[1]]', b'{"a":"1"}', b'{"a":[1]}', b'"a"', b"[]",
             b"{}", b"null", b'""', b"0", b"false", b'["a","b"]', b'["a,b"]', b'["a\\",\\"b"]']  # fmt: skip
    assert len({canon.canonical(text) for text in texts}) == len(texts)
    # Composed and decomposed letters are different texts.
    assert canon.canonical(b'"\\u00e9"') != canon.canonical(b'"e\\u0301"')


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"{", b"[", b"{]", b"[}", b'{"a"', b'{"a":}', b'{"a":1,}', b"[1,]", b"[1}",
        b'{"a":1]', b"01", b"1.", b".5", b"+1", b"-", b"1e", b"NaN", b"tru", b"1 2", b"[1] x",
        b'"\x01"', b'"\\x"', b'"\\ud800"', b'{"\\udc00":1}', b'"\xff"', b'"\xed\xa0\x80"',
        b'{"a":1,"\\u0061":2}', b"{,}", b"[,1]", b"\xef\xbb\xbf1", b"'a'", b"{1:1}",
    ],
)  # fmt: skip
def test_what_is_no_single_value_is_refused(canon, text):
    with pytest.raises(FrameError):
        canon.canonical(text)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=20) | st.text('{}[]",:\\ue0123. -+', max_size=20).map(str.encode))
def test_any_bytes_are_refused_or_are_json(canon, text):
    try:
        out = canon.canonical(text)
    except FrameError:
        return
    assert typed(exact(out)) == typed(exact(text))


def test_nesting_is_bounded_and_costs_no_recursion(canon):
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(FrameError, match="deeper than 512"):
        canon.canonical(deep)
    assert canon.canonical(deep, max_depth=100_000) == deep
    objects = b'{"a": ' * 50_000 + b"1" + b"}" * 50_000
    assert canon.canonical(objects, max_depth=50_000) == objects.replace(b" ", b"")


def test_a_large_object_takes_time_in_proportion(canon):
    text = b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(100_000, 0, -1)) + b"}"
    began = time.process_time()
    assert json.loads(canon.canonical(text)) == json.loads(text)
    assert time.process_time() - began < 5


def test_a_span_is_taken_as_if_it_stood_alone(canon):
    text = b'{"arguments": {"b":1.0, "a":2 }, "x":3}'
    start = text.index(b'{"b"')
    end = text.index(b"}", start) + 1
    assert canon.canonical(text, start, end) == b'{"a":2,"b":1}'
    assert canon.digest(text, start, end) == hashlib.sha256(b'{"a":2,"b":1}').digest()
    assert canon.key(text, start, end) == xxhash.xxh3_128(b'{"a":2,"b":1}').digest()
    with pytest.raises(FrameError):
        canon.canonical(text, start, end - 1)
    with pytest.raises(FrameError):
        canon.canonical(b"123", 3)
