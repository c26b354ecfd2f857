"""The compiled canonical JSON is the specification's twin: the same texts, the same refusals.

What is accepted, and how it is written, is in ``test_canon_py.py``, which runs on both.
Here both are given the same text, and must say the same of it to the last offset.
"""

import json
import os
import random
import resource
import time
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import canon_py
from mcpx.errors import FrameError

if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
    canon_c = import_module("mcpx._speedups.canon_c")
else:
    canon_c = pytest.importorskip("mcpx._speedups.canon_c", exc_type=ImportError)

TEXTS = [
    (
        b'{"name":"echo","description":"Says it \\"again\\"","inputSchema":{"type":"object",'
        b'"properties":{"text":{"type":"string","maxLength":200},"n":{"type":"integer"}},'
        b'"required":["text"],"additionalProperties":false},"annotations":{"readOnlyHint":true}}'
    ),
    b' [ 1.5e-7 , -0.0 , 1e21 , {"b" : null , "a" : [ ] , "" : { } } , "\\u00e9\\ud83d\\ude00\\/" ] ',
    '{"é😀":1,"\ufb33":[{"b":2,"a":{"d":1,"c":"日本語 text"}}],"\\u0000":12345678901234567890123}'.encode(),
    b'{"c":{"c":1,"b":2},"b":[{"z":0,"y":0},{"y":0,"z":0}],"a":{"b":{"b":1,"a":1},"a":1}}',
    b"-12.50e+9999999999999999999",
    b'"\\ud83d\\ude00"',
]
ILL_FORMED = [b"\xff", b"\x80", b"\xc3", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe2\x82",
              b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xa0",
              b"\xf0\x80\x80\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80"]  # fmt: skip
WELL_FORMED = ["\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000",
               "\U0010ffff"]  # fmt: skip


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except FrameError as exc:
        return FrameError, str(exc), vars(exc)
    except Exception as exc:
        return type(exc)


def same(*args, **kwargs):
    """What both give; that they give the same is seen to here."""
    expected = outcome(canon_py.canonical, *args, **kwargs)
    found = outcome(canon_c.canonical, *args, **kwargs)
    assert found == expected, args
    assert type(found) is type(expected)
    return found


def test_the_names_are_the_same():
    assert sorted(canon_c.__all__) == sorted(canon_py.__all__)
    assert canon_c.MAX_DEPTH == canon_py.MAX_DEPTH


@pytest.mark.parametrize("text", TEXTS)
def test_both_say_the_same_of_a_text_and_of_every_part_of_it(text):
    assert isinstance(same(text), bytes)
    for end in range(len(text)):
        same(text, 0, end)
        same(text[:end])
        same(text, end)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("byte", b'"\\{}[],:019eE+-.tfnu/ \n\t\x00\x1f\x7f\x80\xc3\xed\xf4\xff')
def test_both_say_the_same_of_a_text_with_any_byte_changed(text, byte):
    for at in range(len(text)):
        same(text[:at] + bytes([byte]) + text[at + 1 :])
        same(text[:at] + bytes([byte]) + text[at:])


@pytest.mark.parametrize("call", ["digest", "key"])
def test_both_give_the_same_hashes_and_refuse_alike(call):
    for text in (*TEXTS, b"", b"[1", b'{"a":1,"a":1}', b"[" * 600 + b"]" * 600):
        for span in ((), (0, len(text)), (1,), (0, len(text) + 1)):
            found = outcome(getattr(canon_c, call), text, *span)
            assert found == outcome(getattr(canon_py, call), text, *span)
    assert canon_c.digest(text=b" 1 ", start=1, end=2) == canon_py.digest(b"1")


@pytest.mark.parametrize("text", [b"", b"1", b" 1 ", b"[1]", b"x", b"   "])
def test_both_take_an_end_or_a_start_outside_of_the_text_alike(text):
    places = [-(2**63), -4, -1, 0, 1, 2, 3, 4, 9, 2**63 - 1]
    for start in places:
        for end in (*places, None):
            same(text, start, end)
    for huge in (2**63, 10**30, -(10**30)):
        assert same(text, huge) is OverflowError
        assert same(text, 0, huge) is OverflowError


@pytest.mark.parametrize("limit", [-(10**40), -1, 0, 1, 2, 3, True, 2**63 - 1, 2**63, 10**40])
def test_both_count_the_depth_alike(limit):
    for text in (b"1", b"[]", b"[[1]]", b'{"b":{"a":[{}]},"a":1}', b"[[[", b'{"a":[[{"a":1,"a":2'):
        same(text, 0, None, limit)
        same(text, max_depth=limit)


@pytest.mark.parametrize("text", [None, 5, "1", [49], object()])
def test_what_is_no_bytes_is_refused_alike(text):
    assert same(text) is TypeError


@pytest.mark.parametrize("kind", [bytearray, memoryview, type("Text", (bytes,), {})])
def test_other_kinds_of_bytes_are_read_as_bytes(kind):
    for text in (*TEXTS, b"", b"[1"):
        assert outcome(canon_c.canonical, kind(text)) == same(text)
        assert same(kind(text)) == same(text)


@pytest.mark.parametrize("piece", ILL_FORMED)
def test_both_find_what_is_not_utf8_at_the_same_place(piece):
    for size in range(18):
        for behind in (b"", b"x", b"\\n", b"\\ud800", b"\xff", b"\\ud83d\\ude00", b"\x00", b"\\x"):
            for text in (b"a" * size + piece + behind, behind + b"a" * size + piece):
                same(b'"' + text + b'"')
                same(b'["' + text)
                same(b'{"a":1,"' + text + b'":1}')
                same(b'{"' + text + b'" 1}')


@pytest.mark.parametrize("letter", WELL_FORMED)
def test_both_take_every_letter_wherever_it_stands(letter):
    for size in range(18):
        text = "a" * size + letter
        assert isinstance(same(f'["{text}",{{"{text}b":1,"{text}":"{letter}"}}]'.encode()), bytes)
        assert same(json.dumps(text).encode()) == f'"{text}"'.encode()


@pytest.mark.parametrize("code", range(0x100))
def test_both_see_the_same_byte_wherever_it_stands_in_a_string(code):
    for size in range(18):
        same(b'"' + b"a" * size + bytes([code]) + b'bcdefghi"')
        same(b'"' + b"a" * size + b"\\" + bytes([code]) + b'cdefghi"')
        same(b'"' + b"a" * size + b"\\u%04x" % code + b'bcdefghi"')
        same(b'"' + b"a" * size + b"\\u00" + bytes([code]) + b'0"')


@pytest.mark.parametrize("first", ["d7ff", "d800", "dbff", "dc00", "dfff", "e000", "D83D"])
@pytest.mark.parametrize("then", ["", "a", "\\n", "\\u", "\\u00", "\\u0041", "\\ud7ff", "\\ud800",
                                  "\\udbff", "\\udc00", "\\uDFFF", "\\ue000", "\\uzzzz"])  # fmt: skip
def test_both_take_halves_of_pairs_alike(first, then):
    for text in (f'"\\u{first}{then}"', f'"\\u{first}{then}', f'{{"\\u{first}{then}":1}}'):
        same(text.encode())


def test_both_order_every_pair_of_keys_alike():
    parts = ["", "a", "ab", "b", '"', "\\", "\b", "\t", "\x00", "\x1f", "\x7f", "/", *WELL_FORMED]
    keys = [left + right for left in parts for right in ("", "a", '"', "\\", "\x01", "\U00010000")]
    keys += ["abcdefgh" + key for key in keys]
    for one in keys:
        for other in keys:
            text = json.dumps({one: 1, other: 2}, ensure_ascii=False).encode()
            assert canon_c.canonical(text) == canon_py.canonical(text)


@pytest.mark.parametrize("count", [2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100])
@pytest.mark.parametrize("form", ["k%d", "%d\\u000a", "a long key that is the same but for %03d", "é%d"])  # fmt: skip
def test_both_order_few_members_and_many_and_find_a_key_twice(count, form):
    draw = random.Random(count)
    for _ in range(5):
        members = [f'"{form % number}":{{"b":{number},"a":1}}' for number in range(count)]
        draw.shuffle(members)
        assert isinstance(same(("{" + ",".join(members) + "}").encode()), bytes)
        members.insert(draw.randrange(count), draw.choice(members))
        members.insert(draw.randrange(count), draw.choice(members))
        assert same(("{" + ",".join(members) + "}").encode())[0] is FrameError
        assert same(("{" + ",".join(members)).encode())[0] is FrameError


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":2,!',
        b'{"a":1,"a":{"b":1,"b":2}}',
        b'{"a":1,"b":{"c":1,"c":2},"a":3}',
        b'{"a":1,"a":[[[[{"b":1,"b":',
        b'{"b":1,"a":1,"b":2,"a":2,"c":"\xff"}',
        b'{"a":1,"a":"\xff"}',
        b'{"a":1,"a":1,"\xff":1}',
        b'{"a":1,"\xff":1,"a":1}',
        b'{"a":1,"a" 1}',
        b'{"a":1,"a"',
        b'{"a":1,"a":1]',
        b'[{"a":1,"a":1},{"b":1,"b":1}]',
        b'{"b":{"a":1,"a":1},"b":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":1,"x":[[[]]]}',
    ],
)
def test_of_two_faults_both_tell_the_first(text):
    assert same(text)[0] is FrameError
    assert same(text, 0, None, 2)[0] is FrameError


KEYS = st.sampled_from(
    ["a", "b", "aa", "", "é", "\ufb33", "\U0001f600", '"', "\\", "\n", "\x00", "type", "name"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
STRINGS = (
    KEYS.map(json.dumps)
    | KEYS.map(json.JSONEncoder(ensure_ascii=False).encode)
    | st.sampled_from(['"\\/"', '"\\ud800"', '"\\uD83D\\uDE00"', '"\\u000A"'])
)
NUMBERS = st.from_regex(
    r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,22})?\Z"
) | st.sampled_from(["01", "-", "1.", "1e", "1e+", "-0", "0.0e-0", "-.1"])
BLANKS = st.sampled_from(["", "", "", " ", "\n\t\r "])
LEAVES = STRINGS | NUMBERS | st.sampled_from(["true", "false", "null"])


def joined(left, right):
    return lambda items: left + ",".join(items) + right


WRITTEN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(st.builds("{}{}".format, BLANKS, inner), max_size=5).map(joined("[", "]"))
        | st.lists(
            st.builds("{2}{0}{2}:{3}{1}{2}".format, STRINGS, inner, BLANKS, BLANKS), max_size=9
        ).map(joined("{", "}"))
    ),
    max_leaves=15,
).map(lambda text: text.encode("utf-8", "surrogatepass"))
BITS = st.sampled_from(
    [b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"{", b"}", b"[", b"]", b":", b",", b" ", b"1",
     b"-", b".", b"e", b"tru", b"\x00", b"\x1f", b'"a":1,', *ILL_FORMED]
) | st.binary(min_size=1, max_size=3)  # fmt: skip


@st.composite
def damaged(draw):
    text = draw(WRITTEN)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        removed = draw(st.integers(0, 4))
        text = text[:at] + draw(BITS | st.just(b"")) + text[at + removed :]
    return text


@settings(max_examples=150, deadline=None)
@given(text=WRITTEN, max_depth=st.integers(-1, 6) | st.just(512))
def test_both_say_the_same_of_any_text(text, max_depth):
    found = same(text, 0, None, max_depth)
    if isinstance(found, bytes):
        assert same(found) == found


@settings(max_examples=300, deadline=None)
@given(text=damaged())
def test_both_say_the_same_of_a_damaged_text(text):
    same(text)


@settings(max_examples=150, deadline=None)
@given(text=damaged(), start=st.integers(-3, 60), end=st.integers(-3, 60) | st.none())
def test_both_say_the_same_of_any_span(text, start, end):
    same(text, start, end)


@settings(max_examples=500, deadline=None)
@given(text=st.from_regex(rb"\A-?[0-9]{0,30}\.?[0-9]{0,30}([eE][+-]?[0-9]{0,40})?\Z"))
@example(b"1e-1000000000000000000")
@example(b"0." + b"0" * 40 + b"1e1000000000000000000")
@example(b"1" + b"0" * 40 + b"e-" + b"9" * 30)
@example(b"10e" + b"9" * 30)
@example(b"0.01e1" + b"0" * 30)
def test_both_write_every_number_alike(text):
    same(text)


def test_numbers_that_grow_find_their_room():
    for number in (b"1e20", b"1E-6", b"1e+20", b"-1e20", b"1e0000000000000000000000020"):
        for count in (1, 2, 3, 30, 3000):
            text = b"[" + b",".join([number] * count) + b"]"
            assert isinstance(same(text), bytes)


def test_a_large_text_is_the_same_with_and_without_the_lock():
    tool = json.loads(TEXTS[0])
    for count in (1, 250, 300, 2000):
        text = json.dumps({"tools": [dict(tool, name=f"t{n}") for n in range(count)]}).encode()
        assert isinstance(same(text), bytes)
    same(text[:-1])


def test_time_and_room_are_in_proportion_to_a_hostile_text():
    """Each level out of order; wide and out of order; runs of objects that need no moving."""
    deep = b'{"b":' * 100_000 + b"1" + b',"a":0}' * 100_000
    wide = b"{" + b",".join(b'"%d":[{},{"a":{}}]' % n for n in range(60_000, 0, -1)) + b"}"
    common = b"{" + b",".join(b'"%s%d":1' % (b"k" * 5000, n) for n in range(300, 0, -1)) + b"}"
    ordered = b'{"b":[' + b'{"a":1,"b":{"a":{}}},' * 60_000 + b'0],"a":{"b":1,"a":2}}'
    for text in (deep, wide, common, ordered):
        began = time.process_time()
        found = canon_c.canonical(text, max_depth=100_000)
        assert time.process_time() - began < 5
        assert len(found) == len(text)
    assert canon_c.canonical(deep, max_depth=100_000) == b'{"a":0,"b":' * 100_000 + b"1" + b"}" * 100_000  # fmt: skip
    assert canon_c.canonical(wide) == canon_py.canonical(wide)
    assert canon_c.canonical(ordered) == canon_py.canonical(ordered)


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_path_leaves_memory_behind():
    members = b",".join(b'"%d":{"b":1,"a":2}' % n for n in range(200, 0, -1))
    texts = [b"{" + members + b"}", b"{" + members, b"{" + members + b"," + members + b"}",
             b"[" * 600, b'"' + b"x" * 5000, b"[" + b"1e20," * 500 + b"1]", b'["\xff"]', b"1 2"]  # fmt: skip

    def repeat(count):
        for _ in range(count):
            for text in texts:
                outcome(canon_c.canonical, text)
                outcome(canon_c.digest, text)

    repeat(20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # One block of the smallest of these texts' arrays left behind each time is 8 MiB and more.
    repeat(2000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 4096 * (1 if os.uname().sysname == "Linux" else 1024)
