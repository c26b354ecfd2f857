"""The compiled scan is the specification's twin: the same frames, the same refusals.

The table of what is accepted and what is refused is in ``test_frames_py.py`` and runs on
both. Here both are given the same text, and must say the same of it to the last offset.
"""

import json
import os
import time
import tracemalloc
from importlib import import_module

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import frames_py
from mcpx.errors import FrameError

if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
    frames_c = import_module("mcpx._speedups.frames_c")
else:
    frames_c = pytest.importorskip("mcpx._speedups.frames_c", exc_type=ImportError)

ATTRIBUTES = frames_py.Frame.__slots__
KNOWN = {
    "": sorted(frames_py._ENVELOPE),
    "params": sorted(frames_py._PARAMS),
    "_meta": sorted(frames_py._META),
}
CALL = (
    b'{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"name":"echo","arguments":'
    b'{"text":"hi \\"you\\"","n":[1,-2.5e+3,{"a":null}],"t":true,"f":false},"_meta":'
    b'{"progressToken":9,"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
)
SPACED = (
    b' {\t"jsonrpc" : "2.0" ,\r\n "id" : 0 , "method" : "resources\\/read" ,'
    b' "params" : { "uri" : "file:///\\u00e9\\ud83d\\ude00" } } \n'
)
BEYOND_ASCII = (
    '{"id":-1,"jsonrpc":"2.0","method":"prompts/get","params":{"name":"Zoë 日本 😀","ref":'
    '{"type":"ref/prompt"},"notifications":{"é":[[],{}]},"extra":"ß"}}'
).encode()
LISTING = b'{"jsonrpc":"2.0","id":"a\\nb","result":{"tools":[{"name":"a"},{"name":"b","x":[]}]}}'
MANY_KEYS = b",".join(b'"key%d":%d' % (i, i) for i in range(20))
MESSAGES = [
    CALL,
    SPACED,
    BEYOND_ASCII,
    LISTING,
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}',
    b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{' + MANY_KEYS + b"}}}",
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    b'{"a":1,"a":2}',
]


def outcome(call, *args, **kwargs):
    try:
        found = call(*args, **kwargs)
    except FrameError as exc:
        return FrameError, str(exc), exc.message, exc.rpc_code, exc.offset, exc.id
    except Exception as exc:
        return type(exc)
    if isinstance(found, frames_py.Frame | frames_c.Frame):
        return {name: getattr(found, name) for name in ATTRIBUTES}
    return found


def same(name, *args, **kwargs):
    """What both give; that they give the same is seen to here."""
    expected = outcome(getattr(frames_py, name), *args, **kwargs)
    found = outcome(getattr(frames_c, name), *args, **kwargs)
    assert found == expected, args
    # 1 == True and b"" == bytearray(): types are compared as well.
    assert repr(found) == repr(expected), args
    return found


def same_of(body, max_depth=64):
    same("scan", body, max_depth)
    return same("scan", body, max_depth, of_server=True)


def test_the_names_are_the_same():
    assert sorted(frames_c.__all__) == sorted(frames_py.__all__)
    for name in frames_py.__all__:
        assert getattr(frames_c, name) is not getattr(frames_py, name)


def test_a_frame_that_nothing_was_read_into_is_the_same():
    assert outcome(frames_c.Frame) == outcome(frames_py.Frame)


def test_a_frame_can_not_be_changed():
    frame = frames_c.scan(CALL)
    for name in ATTRIBUTES:
        with pytest.raises(AttributeError):
            setattr(frame, name, None)


@pytest.mark.parametrize("body", MESSAGES)
def test_both_say_the_same_of_a_message_cut_anywhere(body):
    for end in range(len(body) + 1):
        same_of(body[:end])
        same_of(body[end:])
        same_of(body[:end] + body[end + 1 :])


@pytest.mark.parametrize("body", MESSAGES)
@pytest.mark.parametrize("byte", b'"\\{}[],:0eE+-.tfnu \n\x00\x1f\x7f\x80\xc3\xed\xf4\xff')
def test_both_say_the_same_of_a_message_with_any_byte_changed(body, byte):
    for at in range(len(body)):
        same("scan", body[:at] + bytes([byte]) + body[at + 1 :])


ILL_FORMED = [
    b"\x80", b"\xbf", b"\xc0\xaf", b"\xc1\xbf", b"\xc3", b"\xc3\x28", b"\xc3\xc3\xa9",
    b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x82", b"\xe2\x28\xa1", b"\xe2\x82\x28",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xef\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf0\x9f", b"\xf0\x9f\x98", b"\xf0\x28\x98\x80", b"\xf0\x9f\x28\x80", b"\xf0\x9f\x98\x28",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",
]  # fmt: skip
WELL_FORMED = ["\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000"]
WELL_FORMED += ["\U0010ffff", "\ufeff"]


@pytest.mark.parametrize("piece", ILL_FORMED)
def test_both_find_what_is_not_utf8_at_the_same_place(piece):
    for before in range(41):
        for after in (0, 1, 2, 3, 7, 8, 9, 33):
            text = b'"' + b"a" * before + piece + b"b" * after + b'"'
            assert same("scan", text)[2] == "the message is not UTF-8"
            same("scan", text[:-1])
            same("scan", "é".encode() * before + piece + b"b" * after)
            # Not JSON earlier on, and all the same it is not UTF-8.
            assert same("scan", b"x" * before + piece)[2] == "the message is not UTF-8"


@pytest.mark.parametrize("letter", WELL_FORMED)
def test_both_take_every_letter_wherever_it_stands(letter):
    for before in range(41):
        text = f'{{"jsonrpc":"2.0","id":1,"method":"x","v":"{"a" * before}{letter}b"}}'
        assert same("scan", text.encode())["method"] == "x"
        same("scan", f"{'a' * before}{letter}".encode())


@pytest.mark.parametrize("code", [*range(0x23), 0x5B, 0x5C, 0x5D, 0x7F, 0xC3A9])
def test_both_see_the_same_byte_wherever_it_stands_in_a_string(code):
    piece = bytes([code]) if code < 256 else code.to_bytes(2, "big")
    for before in range(20):
        for after in range(10):
            same("scan", b'{"v":"' + b"a" * before + piece + b"b" * after + b'"}')


def inside(part, member):
    """A message with ``member`` in its envelope, its params or its _meta."""
    members = ['"jsonrpc":"2.0"', '"id":1', '"method":"x"']
    if part == "":
        members.append(member)
    elif part == "params":
        members.append(f'"params":{{{member}}}')
    else:
        members.append(f'"params":{{"_meta":{{"a":1,{member}}}}}')
    return ("{" + ",".join(members) + "}").encode()


def escaped(key, at):
    return f"{key[:at]}\\u{ord(key[at]):04x}{key[at + 1 :]}"


@pytest.mark.parametrize(("part", "key"), [(part, key) for part in KNOWN for key in KNOWN[part]])
def test_both_know_every_key_and_what_can_be_taken_for_it(part, key):
    spellings = {key, key.upper(), key.lower(), key.title(), key.swapcase(), key + "\\u0000"}
    spellings |= {key + "\\u0000" + "x" * 99, "\\u0000" + key, key + "s", key[:-1], key + "é"}
    spellings |= {key.replace("s", "ſ"), key.replace("k", "\u212a"), key.replace("i", "ı")}
    for at, letter in enumerate(key):
        spellings.add(key[:at] + letter.swapcase() + key[at + 1 :])
        spellings.add(key[:at] + chr(ord(letter) ^ 0x20) + key[at + 1 :])
        spellings.add(key[:at] + chr(ord(letter) + 0xFEE0) + key[at + 1 :])
        spellings.add(escaped(key, at))
        spellings.add(escaped(key.upper(), at))
    for spelling in spellings:
        for value in ("1", "{}", '"v"', "null"):
            for other_part in KNOWN:
                same("scan", inside(other_part, f'"{spelling}":{value}'))
        same("scan", inside(part, f'"{spelling}":{{}},"{key}":{{}}'))
        same("scan", inside(part, f'"{key}":{{"b":1}} ,"{spelling}" : {{"{key}":1}}'))


@pytest.mark.parametrize("part", KNOWN)
def test_both_name_the_first_of_several_look_alikes(part):
    for first in KNOWN[part]:
        for second in KNOWN[part]:
            if first != second:
                for left in (first.upper(), escaped(first.title(), 0), first + "\\u0000"):
                    same("scan", inside(part, f'"{left}":1,"{second.upper()}":2'))
                    same("scan", inside(part, f'"{second.title()}":{{}},"{left}":2'))


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 18, 33])
@pytest.mark.parametrize("form", ["k%d", "k\\u00e9%d", "ké%d", "%d"])
def test_both_find_the_same_key_twice_among_few_and_among_many(count, form):
    keys = [form % at for at in range(count)]
    for again in range(count):
        for spelling in (keys[again], escaped(keys[again], 0), keys[again] + "x"):
            listed = [*keys, spelling, "after"]
            inner = ",".join(f'"{key}":{{"{keys[0]}":0}}' for key in listed)
            same("scan", f'{{"v":{{{inner}}}}}'.encode())
            # In a list, where each object begins anew.
            same("scan", f'[{{{inner[:40]}}},{{{inner}}},{{"{keys[0]}":1}}]'.encode())


def nest(depth, keys):
    """Objects in one another, each with ``keys`` keys before the inner one."""
    before = ",".join(f'"k{at}":{at}' for at in range(keys))
    comma = "," if keys else ""
    return f'{{{before}{comma}"in":' * depth + "[]" + "}" * depth


@pytest.mark.parametrize("keys", [0, 1, 9, 15, 16, 20])
@pytest.mark.parametrize("depth", [1, 8, 63, 64, 65, 130, 700])
def test_both_say_the_same_of_deep_objects_with_many_keys(depth, keys):
    text = nest(depth, keys)
    for limit in (depth, depth + 1, 10**6, 10**40):
        same_of(text.encode(), limit)
        same_of(inside("params", f'"v":{text}'), limit)
    # Twice in the outermost, after all of the inner ones were closed.
    same_of((text[:-1] + ',"in":1}').encode(), 10**6)
    same_of((text[:-1] + ',"out":1}').encode(), 10**6)


@pytest.mark.parametrize("limit", [-(10**40), -1, 0, 1, 2, 3, True, 2**63 - 1, 2**63, 10**40])
def test_both_count_the_depth_alike(limit):
    for body in (b"1", b"[]", b"[1]", b"[[]]", b"{}", b'{"a":[{}]}', *MESSAGES):
        same_of(body, limit)


def test_what_is_no_bytes_is_refused_alike():
    for body in ("{}", memoryview(b"{}"), None, 7, [1]):
        assert same("scan", body) is AttributeError
        assert outcome(frames_c.members, body, 0) is AttributeError
        assert outcome(frames_c.elements, body, 0) is AttributeError
        assert outcome(frames_c.string, body, (0, 2)) is AttributeError


@pytest.mark.parametrize("kind", [bytearray, type("Text", (bytes,), {})])
def test_other_kinds_of_bytes_are_read_as_bytes(kind):
    for body in MESSAGES:
        assert outcome(frames_c.scan, kind(body)) == outcome(frames_py.scan, body)
    result = frames_c.scan(LISTING).result
    assert frames_c.members(kind(LISTING), result[0]) == same("members", LISTING, result[0])


def test_no_part_is_sought_outside_of_a_text():
    for body in (b"", b"{", b"{}", b"[]", b'""'):
        for start in (-(2**62), -1, len(body), len(body) + 1, 2**62):
            for seek in (frames_c.members, frames_c.elements):
                with pytest.raises(IndexError):
                    seek(body, start)
            with pytest.raises(IndexError):
                frames_c.string(body, (start, start + 2))
    # A span that is none of this text's values, but begins in it.
    for end in (-5, 0, 1, 2, 3, 99, 2**62):
        assert outcome(frames_c.string, b'"a', (0, end)) == outcome(
            frames_py.string, b'"a', (0, end)
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)
white = st.text(" \t\r\n", max_size=2)
#: Letters, each as itself or in one of the ways to write it; some are wrong.
letters = st.sampled_from(
    ["a", "b", "A", " ", "é", "ſ", "\u212a", "日", "😀", "\x7f", "\ufeff", "\x1f", "\\n", '\\"']
    + ["\\\\", "\\/", "\\u0061", "\\u0041", "\\u00E9", "\\u0000", "\\ud83d\\ude00", "\\ud83d"]
    + ["\\ude00", "\\ud83d\\u0061", "\\x", "\\u00", "\\", "{", "]", ":", ","]
)
strings = st.lists(letters, max_size=12).map(lambda pieces: '"' + "".join(pieces) + '"')
scalars = st.sampled_from(
    ["0", "-0", "1", "-12", "1.5", "1e5", "1.0E-9", "true", "false", "null", "01", "1.", "-", "1e"]
    + ["1.e1", "+1", "NaN", "tru", "truex", "", "1e+", "1.5.5", "0x1"]
)


@st.composite
def keys(draw, known=()):
    if known and draw(st.integers(0, 9)) < 7:
        key = draw(st.sampled_from(known))
        change = draw(st.integers(0, 11))
        at = draw(st.integers(0, len(key) - 1))
        if change == 0:
            key = key[:at] + key[at].swapcase() + key[at + 1 :]
        elif change == 1:
            key = escaped(key, at)
        elif change == 2:
            key = key.replace("s", "ſ").replace("k", "\u212a")
        elif change == 3:
            key += "\\u0000x"
        return f'"{key}"'
    return draw(strings | st.sampled_from(['"a"', '"b"', '"c"', '"\\u0061"', '"key"']))


def spaced(draw, pieces):
    return "".join(draw(white) + piece for piece in pieces) + draw(white)


@st.composite
def objects(draw, values, known=(), max_size=4):
    members = draw(st.lists(st.tuples(keys(known), values), max_size=max_size))
    return "{" + ",".join(spaced(draw, [key, ":", value]) for key, value in members) + "}"


values = st.recursive(
    scalars | strings | json_values.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda found: f"[{' ,'.join(found)}]") | objects(inner)
    ),
    max_leaves=8,
)


@st.composite
def messages(draw):
    meta = objects(values, KNOWN["_meta"])
    params = objects(values, KNOWN["params"])
    parts = [
        ("jsonrpc", st.just('"2.0"')),
        ("id", st.sampled_from(["1", '"a"', "null", '"\\u0061"', "1.0", "-0", "[]"])),
        ("method", st.sampled_from(['"tools/call"', '"resources\\/read"', '"x"', '""', "1"])),
        ("name", strings | values),
        ("uri", strings | values),
        ("arguments", objects(values)),
        ("_meta", meta | values),
        ("params", params | values),
    ]
    top, inner = [], []
    for key, choices in parts:
        if draw(st.integers(0, 9)) < 9:
            shelf = inner if key in {"name", "uri", "arguments", "_meta"} else top
            if key != "params" or not inner:
                shelf.append(spaced(draw, [f'"{key}"', ":", draw(choices)]))
    if inner:
        top.append(
            spaced(draw, ['"params"', ":", "{" + ",".join(draw(st.permutations(inner))) + "}"])
        )
    if draw(st.integers(0, 4)) == 0:
        top.append(spaced(draw, [draw(keys(KNOWN[""])), ":", draw(values)]))
    return spaced(draw, ["{" + ",".join(draw(st.permutations(top))) + "}"]).encode()


@st.composite
def changed(draw, texts):
    """A text that was damaged: bytes flipped, left out, doubled, or taken from another."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        size = draw(st.integers(1, 9))
        way = draw(st.integers(0, 4))
        if way == 0:
            text = (
                text[:at]
                + bytes(byte ^ draw(st.integers(1, 255)) for byte in text[at:][:1])
                + text[at + 1 :]
            )
        elif way == 1:
            text = text[:at] + text[at + size :]
        elif way == 2:
            text = text[: at + size] + text[at:]
        elif way == 3:
            text = text[:at]
        else:
            other = draw(texts)
            begin = draw(st.integers(0, len(other)))
            text = text[:at] + other[begin : begin + size] + text[at:]
    return text


def every_part(body, frame):
    """Both find the same in every object and array of a message."""
    waiting = [span for span in frame.values() if isinstance(span, tuple)]
    while waiting:
        start, end = waiting.pop()
        same("string", body, (start, end))
        for begin in {start, end - 1}:
            found = same("members", body, begin)
            spans = same("elements", body, begin)
            if begin == start:
                waiting += [(at, close) for _, at, close in found] + spans


@given(body=messages(), max_depth=st.integers(0, 8) | st.just(64))
@settings(max_examples=250, deadline=None)
def test_both_say_the_same_of_any_message(body, max_depth):
    same_of(body, max_depth)
    frame = same("scan", body)
    if isinstance(frame, dict):
        every_part(body, frame)


@given(body=changed(st.sampled_from(MESSAGES)))
@settings(max_examples=500, deadline=None)
def test_both_say_the_same_of_a_damaged_message(body):
    same_of(body)


@given(body=changed(messages()))
@settings(max_examples=150, deadline=None)
def test_both_say_the_same_of_a_message_that_is_odd_and_damaged(body):
    same_of(body)


@given(body=st.binary(max_size=80))
@example(b"\xef\xbb\xbf{}")
@example(b"\xef\xbb")
@settings(max_examples=500)
def test_both_say_the_same_of_any_bytes(body):
    same_of(body)


@given(body=changed(st.sampled_from(MESSAGES)), data=st.data())
@settings(max_examples=200, deadline=None)
def test_both_find_the_same_parts_even_in_what_was_never_scanned(body, data):
    # Nobody should ask; what is asked anyway gets the same answer and no foreign memory.
    assume(body)
    for start in data.draw(st.sets(st.integers(0, len(body) - 1), max_size=8)):
        same("members", body, start)
        same("elements", body, start)


HEAD = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"v":'
GROWING = {
    "keys": lambda n: HEAD + b"{" + b",".join(b'"k%d":1' % i for i in range(n)) + b"}}}",
    "keys of params": lambda n: HEAD + b"1," + b",".join(b'"%d":1' % i for i in range(n)) + b"}}",
    "keys with escapes": lambda n: HEAD + b"[" + b",".join([b'{"\\n":1}'] * n) + b"]}}",
    "keys beyond ASCII": lambda n: (
        HEAD + b"1," + ",".join(f'"é{i}":1' for i in range(n)).encode() + b"}}"
    ),
    "long keys that are alike": lambda n: (
        HEAD + b"{" + b",".join(b'"' + b"a" * n + b'%02d":1' % i for i in range(90)) + b"}}}"
    ),
    "elements": lambda n: HEAD + b"[" + b"1," * (10 * n) + b"1]}}",
    "a string": lambda n: HEAD + b'"' + b"x" * (100 * n) + b'"}}',
    "a string of escapes": lambda n: HEAD + b'"' + b"\\n" * (20 * n) + b'"}}',
    "a string of pairs": lambda n: HEAD + b'"' + b"\\ud83d\\ude00" * (10 * n) + b'"}}',
    "a string beyond ASCII": lambda n: HEAD + b'"' + "日本".encode() * (20 * n) + b'"}}',
    "a number": lambda n: HEAD + b"1" * (100 * n) + b"}}",
    "white space": lambda n: HEAD + b" " * (100 * n) + b"1}}",
    "nesting": lambda n: HEAD + b"[" * n + b"]" * n + b"}}",
    "objects in objects": lambda n: HEAD + b'{"a":' * n + b"1" + b"}" * n + b"}}",
    "many keys in objects in objects": lambda n: HEAD + nest(n // 20, 20).encode() + b"}}",
    "marks": lambda n: HEAD + ('1,"' + "\u0300" * n + "\u0316" * n + '":1}}').encode(),
    "quotes that are not closed": lambda n: HEAD + b'"\\"' * (20 * n),
}


@pytest.mark.parametrize("shape", GROWING)
def test_a_text_four_times_as_long_takes_about_four_times_the_time(shape):
    def seconds(body):
        begun = time.perf_counter()
        outcome(frames_c.scan, body, 10**7)
        return time.perf_counter() - begun

    short, long = GROWING[shape](4_000), GROWING[shape](16_000)
    # What takes the square takes sixteen times as long; the machine may stumble.
    ratios = []
    for _ in range(5):
        ratios.append(min(seconds(long) for _ in range(5)) / min(seconds(short) for _ in range(5)))
        if ratios[-1] < 10:
            return
    pytest.fail(f"four times the length takes {ratios} times as long")


def test_no_stack_of_c_is_used_by_what_is_nested():
    body = HEAD + b'[{"a":' * 1_000_000 + b"1" + b"}]" * 1_000_000 + b"}}"
    frame = frames_c.scan(body, 10**8)
    ((key, start, end),) = frames_c.members(body, frame.params[0])
    assert (key, end - start) == ("v", len(body) - len(HEAD) - 2)
    assert len(frames_c.elements(body, start)) == 1


def test_what_is_refused_or_accepted_leaves_no_memory_behind():
    deep = nest(300, 20)
    bodies = [deep, deep[:-1], deep + "x", deep.replace("[]", '{"a":1,"\\u0061":2}')]
    bodies += [inside("params", f'"v":{body}').decode() for body in bodies]

    def round_of_scans():
        for body in bodies:
            outcome(frames_c.scan, body.encode(), 1000)

    tracemalloc.start()
    try:
        round_of_scans()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            round_of_scans()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # One table that was not given back is more than this.
    assert grown < 8_000
