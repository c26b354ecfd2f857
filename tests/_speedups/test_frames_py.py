"""The strict scan: what it understands, what it refuses, and that nothing slips between.

Every test here runs on the specification and on its compiled twin, where that was built.
"""

import json
import os
import unicodedata
from importlib import import_module
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx._speedups import frames_py
from mcpx.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, FrameError


def twins():
    found = [pytest.param(frames_py, id="python")]
    try:
        found.append(pytest.param(import_module("mcpx._speedups.frames_c"), id="cython"))
    except ImportError:
        if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
            raise
    return found


@pytest.fixture(scope="module", params=twins())
def frames(request):
    return request.param


CALL = (
    b'{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"name":"echo",'
    b'"arguments":{"text":"hi","n":[1,{"a":null}]},"_meta":{"progressToken":9,'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
)


def cut(body, span):
    return body[span[0] : span[1]]


def refusal(frames, body, **kwargs):
    with pytest.raises(FrameError) as caught:
        frames.scan(body, **kwargs)
    return caught.value


def test_the_parts_of_a_call_are_found(frames):
    frame = frames.scan(CALL)
    assert (frame.kind, frame.method, frame.name) == ("request", "tools/call", "echo")
    assert frame.id == b'"7"'
    assert cut(CALL, frame.id_span) == b'"7"'
    assert cut(CALL, frame.name_span) == b'"echo"'
    assert json.loads(cut(CALL, frame.arguments)) == {"text": "hi", "n": [1, {"a": None}]}
    assert cut(CALL, frame.progress_token) == b"9"
    assert frame.protocol_version == "2026-07-28"


def test_white_space_anywhere_changes_nothing(frames):
    spaced = json.dumps(json.loads(CALL), indent=3).replace("\n", "\r\n\t").encode()
    frame = frames.scan(b" \n" + spaced + b"\t ")
    assert (frame.method, frame.name, frame.protocol_version) == (
        "tools/call",
        "echo",
        "2026-07-28",
    )


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', "notification"),
        (b'{"jsonrpc":"2.0","id":-3,"method":"ping"}', "request"),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', "response"),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}', "response"),
        (b'{"jsonrpc":"2.0","id":99999999999999999999,"method":"x","extra":{"a":1}}', "request"),
    ],
)
def test_each_kind_of_message_is_told_apart(frames, body, kind):
    assert frames.scan(body).kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"[1,]",
        b'{"a" 1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-}',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":.5}',
        b'{"a":+1}',
        b'{"a":0x1}',
        b'{"a":1e}',
        b"{'a':1}",
        b'{"a":tru}',
        b'{"a":True}',
        b'{"a":"\x01"}',
        b'{"a":"\n"}',
        b'{"a":"\\x41"}',
        b'{"a":"\\u12"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b'{"a":1}{"a":1}',
        b'{"a":1} x',
        b'{"a":1}\x00',
        b'{"a":[1}]',
        b'{"a":{"b":1]}',
        b'[{"a":1]',
        b"// c\n{}",
        b'{"a":/**/1}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
        '{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16"),
        '{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16-le"),
        '{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-32-be"),
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b"\x0b{}",
        b"\xc2\xa0{}",
    ],
)
def test_what_is_not_json_is_a_parse_error(frames, body):
    assert refusal(frames, body).rpc_code == PARSE_ERROR


@pytest.mark.parametrize("body", [b"[]", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b" [1]"])
def test_a_batch_is_refused_with_words_that_say_so(frames, body):
    error = refusal(frames, body)
    assert error.rpc_code == INVALID_REQUEST
    assert "batch" in error.message


@pytest.mark.parametrize("body", [b'"ping"', b"1", b"null", b"true"])
def test_a_scalar_is_no_message(frames, body):
    assert refusal(frames, body).rpc_code == INVALID_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}',
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":'
            b'{"x":[[{"deep":{"k":1,"k":2}}]]}}}'
        ),
        b'{"jsonrpc":"2.0","id":1,"method":"x","other":{"":1,"":2}}',
    ],
)
def test_a_key_twice_at_any_depth_is_refused(frames, body):
    error = refusal(frames, body)
    assert error.rpc_code == PARSE_ERROR
    assert "twice" in error.message


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","METHOD":"ping"}',
        '{"jsonrpc":"2.0","id":1,"Method":"ping"}',
        '{"jsonrpc":"2.0","id":1,"method":"x","param\u017f":{}}',
        '{"jsonrpc":"2.0","id":1,"method":"x","ID":2}',
        '{"jsonrpc":"2.0","id":1,"method":"x","\uff4dethod":"y"}',
        '{"jsonrpc":"2.0","id":1,"method":"x","json\\u0052pc":"2.0"}',
    ],
)
def test_a_look_alike_of_an_envelope_key_is_refused(frames, body):
    error = refusal(frames, body.encode())
    assert error.rpc_code == INVALID_REQUEST
    assert "taken for" in error.message


@pytest.mark.parametrize(
    "params",
    [
        '{"name":"dangerous","NAME":"echo"}',
        '{"Name":"echo","name":"echo"}',
        '{"name":"echo","Arguments":{}}',
        '{"name":"echo","argument\u017f":{}}',
        '{"name":"echo","_META":{}}',
        '{"name":"echo","_meta":{"progresstoken":1}}',
        '{"name":"echo","_meta":{"io.modelcontextprotocol/ProtocolVersion":"2026-07-28"}}',
        '{"name":"echo","tas\u212a":{}}',
    ],
)
def test_a_look_alike_of_a_key_in_params_is_refused(frames, params):
    body = f'{{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{params}}}'.encode()
    error = refusal(frames, body)
    assert (error.rpc_code, error.id) == (INVALID_PARAMS, b"5")


@pytest.mark.parametrize(
    "params",
    [
        None,
        "null",
        "[]",
        '"x"',
        "7",
        "{}",
        '{"name":7}',
        '{"name":""}',
        '{"name":null}',
        '{"name":["echo"]}',
        '{"name":"echo","arguments":[]}',
        '{"name":"echo","arguments":"{}"}',
        '{"name":"echo","arguments":1}',
        '{"name":"echo","arguments":null}',
        '{"name":"echo","_meta":[]}',
        '{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":7}}',
    ],
)
def test_a_call_whose_params_can_not_be_judged_is_refused_with_its_id(frames, params):
    rest = "" if params is None else f',"params":{params}'
    body = f'{{"jsonrpc":"2.0","id":"q","method":"tools/call"{rest}}}'.encode()
    error = refusal(frames, body)
    assert (error.rpc_code, error.id) == (INVALID_PARAMS, b'"q"')


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("prompts/get", "{}"),
        ("resources/read", '{"name":"x"}'),
        ("resources/read", '{"uri":[]}'),
        ("resources/subscribe", "{}"),
    ],
)
def test_what_a_method_acts_on_must_be_named(frames, method, params):
    body = f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'.encode()
    assert refusal(frames, body).rpc_code == INVALID_PARAMS


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":2.0,"id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1e3,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":[1],"method":"ping"}',
        b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
        b'{"jsonrpc":"2.0","id":"' + b"x" * 2000 + b'","method":"ping"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":7}',
        b'{"jsonrpc":"2.0","id":1,"method":""}',
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"m" * 200 + b'"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"params":{}}',
        b'{"jsonrpc":"2.0"}',
        b"{}",
    ],
)
def test_json_that_is_no_message_is_an_invalid_request(frames, body):
    assert refusal(frames, body).rpc_code == INVALID_REQUEST


def test_nesting_is_bounded_exactly(frames):
    def nested(depth):
        inner = b'{"a":' * (depth - 2) + b"1" + b"}" * (depth - 2)
        return b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"v":' + inner + b"}}"

    frames.scan(nested(10), max_depth=10)
    assert refusal(frames, nested(11), max_depth=10).rpc_code == PARSE_ERROR


def test_a_million_brackets_cost_no_stack(frames):
    assert "nesting" in refusal(frames, b"[" * 1_000_000).message
    assert "nesting" in refusal(frames, b'{"a":' * 1_000_000).message


def test_a_hundred_thousand_keys_are_read_in_linear_time(frames):
    keys = b",".join(b'"k%d":%d' % (i, i) for i in range(100_000))
    body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"v":{' + keys + b"}}}"
    assert frames.scan(body).method == "x"
    twice = body.replace(b'"k99999":', b'"k0":')
    assert "twice" in refusal(frames, twice).message


def test_long_strings_of_escapes_are_read_in_linear_time(frames):
    body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"v":"' + b"\\n" * 2_000_000 + b'"}}'
    assert frames.scan(body).method == "x"
    assert refusal(frames, body[:-3]).rpc_code == PARSE_ERROR


def test_an_unfinished_message_says_that_it_ends_too_early(frames):
    for end in range(len(CALL)):
        assert refusal(frames, CALL[:end]).rpc_code == PARSE_ERROR


def marks(count):
    """Marks in the order that Unicode's normal forms take the most steps to mend."""
    return "\u0300" * count + "\u0316" * count


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","id":1,"method":"x","%s":1}',
        '{"jsonrpc":"2.0","id":1,"method":"x","params":{"%s":1}}',
        '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"%s":1}}}',
    ],
)
def test_a_long_key_is_not_folded(frames, body, monkeypatch):
    # To fold it takes the square of its length: hours for what a client may send.
    folded = []

    def normalize(form, text):
        folded.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(frames_py, "unicodedata", SimpleNamespace(normalize=normalize))
    assert frames.scan((body % marks(5_000)).encode()).method == "x"
    assert folded == []
    assert frames.scan((body % marks(20)).encode()).method == "x"
    assert set(folded) == {40}


def test_a_look_alike_before_a_null_is_seen_however_long_the_rest_is(frames):
    body = f'{{"jsonrpc":"2.0","id":1,"method":"x","Method\\u0000{marks(5_000)}":1}}'
    assert "taken for" in refusal(frames, body.encode()).message


def test_no_letters_fold_to_a_known_key_that_is_shorter_than_they_are():
    # What the bound above rests on: a letter folds to one letter at least, and what is
    # composed of several folds to nothing that is ASCII alone.
    for code in range(0x110000):
        letter = chr(code)
        assert unicodedata.normalize("NFKD", letter)
        if len(unicodedata.normalize("NFD", letter)) > 1:
            assert not unicodedata.normalize("NFKC", letter).casefold().isascii()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def utf8(value):
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None


@given(arguments=st.dictionaries(st.text(), json_values, max_size=5), ascii_only=st.booleans())
@settings(max_examples=300)
def test_any_arguments_come_through_byte_for_byte(frames, arguments, ascii_only):
    raw = json.dumps(arguments, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":'
        + raw
        + b"}}"
    )
    try:
        frame = frames.scan(body)
    except FrameError as exc:
        assert utf8(arguments) is None, exc
    else:
        assert cut(body, frame.arguments) == raw
        found = {k: json.loads(body[s:e]) for k, s, e in frames.members(body, frame.arguments[0])}
        assert found == json.loads(raw)


def no_duplicates(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("duplicate")
    return dict(pairs)


def constant(name):
    raise ValueError(name)


@given(
    text=st.lists(
        st.sampled_from(
            [b"{", b"}", b"[", b"]", b",", b":", b'"', b'"a"', b'"b"', b"1", b"-0", b"1e5", b" ",
             b"null", b"NaN", b"\\", b"\\u0061", b"\x00", b"\xff", b"\xc3\xa9", b"\n"]
        ),
        max_size=12,
    ).map(b"".join)
)  # fmt: skip
@settings(max_examples=1500)
def test_the_grammar_agrees_with_an_independent_parser(frames, text):
    body = b'{"jsonrpc":"2.0","id":1,"method":"x","v":' + text + b"}"
    try:
        oracle = json.loads(body.decode(), object_pairs_hook=no_duplicates, parse_constant=constant)
        json.dumps(oracle, ensure_ascii=False).encode()
        accepted = True
    except (ValueError, UnicodeError):
        accepted = False
    try:
        frames.scan(body)
    except FrameError as exc:
        # An accepted text may still be no message: an extra member can break the envelope.
        assert not accepted or exc.rpc_code != PARSE_ERROR, text
    else:
        assert accepted, text


@given(body=st.binary(max_size=60))
@settings(max_examples=500)
def test_no_bytes_make_it_raise_anything_else(frames, body):
    try:
        frames.scan(body)
    except FrameError:
        pass


@given(value=json_values)
def test_elements_and_members_find_what_json_finds(frames, value):
    raw = utf8({"jsonrpc": "2.0", "id": 1, "result": {"list": [value, value], "x": value}})
    if raw is None:
        return
    frame = frames.scan(raw, 100)
    found = {k: (s, e) for k, s, e in frames.members(raw, frame.result[0])}
    assert json.loads(cut(raw, found["x"])) == json.loads(utf8(value))
    spans = frames.elements(raw, found["list"][0])
    assert [json.loads(cut(raw, span)) for span in spans] == [json.loads(utf8(value))] * 2
