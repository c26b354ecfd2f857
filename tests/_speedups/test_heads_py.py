"""Heads of HTTP/1.1: what is written, what is refused, and which fields travel on.

Every test here runs on the specification and on its compiled twin, where that was built.
"""

import os
import time
from importlib import import_module

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx._speedups import heads_py
from mcpx.errors import LocalProtocolError


def twins():
    found = [pytest.param(heads_py, id="python")]
    try:
        found.append(pytest.param(import_module("mcpx._speedups.heads_c"), id="cython"))
    except ImportError:
        if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
            raise
    return found


@pytest.fixture(scope="module", params=twins())
def heads(request):
    return request.param


def answer(heads, status=200, fields=(), *, length=None, chunked=False, close=False):
    return heads.response_head(status, fields, length=length, chunked=chunked, close=close)


TOKEN_LETTERS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VALUE_LETTERS = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
TARGET_LETTERS = bytes(range(0x21, 0x7F))


def written(call):
    try:
        return call()
    except LocalProtocolError:
        return None


@pytest.mark.parametrize("letter", [bytes([each]) for each in range(256)], ids=lambda x: x.hex())
@pytest.mark.parametrize(("before", "behind"), [(b"", b""), (b"a" * 20, b"b" * 40)])
def test_each_letter_is_written_where_it_may_stand_and_nowhere_else(heads, letter, before, behind):
    text = before + letter + behind
    head = written(lambda: answer(heads, fields=[(text, b"v")]))
    line = b"HTTP/1.1 200 OK\r\n"
    expected = line + text + b": v\r\n\r\n"
    assert head == (expected if letter in TOKEN_LETTERS else None)
    head = written(lambda: answer(heads, fields=[(b"x", text)]))
    expected = line + b"x: " + text + b"\r\n\r\n"
    assert head == (expected if letter in VALUE_LETTERS else None)
    head = written(lambda: heads.request_head("GET", b"/" + text, (), length=None))
    expected = b"GET /" + text + b" HTTP/1.1\r\n\r\n"
    assert head == (expected if letter in TARGET_LETTERS else None)
    method = text.decode("latin-1")
    head = written(lambda: heads.request_head(method, b"/", (), length=None))
    expected = text + b" / HTTP/1.1\r\n\r\n"
    assert head == (expected if letter in TOKEN_LETTERS else None)


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\r\n"),
        (b"x", b"\r\n\r\nbody"),
        (b"x", b"a\nb: c"),
        (b"x", b"a\r"),
        (b"x", b"\n"),
        (b"x\r\ny", b"a"),
        (b"x: a\r\ny", b"b"),
        (b"mcp-name: a", b"b"),
        (b"x:", b"a"),
        (b":path", b"a"),
        (b"x ", b"a"),
        (b" x", b"a"),
        (b"", b"a"),
        (b"", b""),
    ],
)
@pytest.mark.parametrize("before", [[], [(b"host", b"a")], [(b"a", b"b")] * 40])
def test_a_field_that_would_leave_its_line_is_not_written(heads, field, before):
    for fields in ([*before, field], [*before, field, (b"y", b"z")]):
        with pytest.raises(LocalProtocolError, match="^a header can't be written$"):
            answer(heads, fields=fields, length=0)
        with pytest.raises(LocalProtocolError, match="^a request's head can't be written$"):
            heads.request_head("POST", b"/", fields, length=0)


@pytest.mark.parametrize("name", [b"connection", b"content-length", b"transfer-encoding"])
def test_the_fields_of_framing_are_written_by_the_writer_alone(heads, name):
    for each in (name, name.upper(), name.title()):
        with pytest.raises(LocalProtocolError):
            answer(heads, fields=[(each, b"0")])
        with pytest.raises(LocalProtocolError):
            heads.request_head("GET", b"/", [(each, b"0")], length=None)
    for each in (
        name[:-1],
        name + b"s",
        b"x-" + name,
        name[:-1] + b"\x7e",
        name.replace(b"c", b"#"),
    ):
        assert each + b": 0\r\n" in answer(heads, fields=[(each, b"0")])


def test_what_a_refusal_says_holds_nothing_of_the_value(heads):
    secret = b"top-secret\n"
    for call in (
        lambda: answer(heads, fields=[(b"x", secret)]),
        lambda: heads.request_head("GET", b"/", [(b"x", secret)], length=None),
        lambda: heads.request_head("GET", secret, (), length=None),
    ):
        with pytest.raises(LocalProtocolError) as caught:
            call()
        assert "secret" not in repr(caught.value) + str(caught.value)


def test_an_answers_head_says_how_its_body_is_framed(heads):
    line = b"HTTP/1.1 200 OK\r\n"
    assert answer(heads) == line + b"\r\n"
    assert answer(heads, length=0) == line + b"content-length: 0\r\n\r\n"
    assert answer(heads, length=10, close=True) == (
        line + b"content-length: 10\r\nconnection: close\r\n\r\n"
    )
    assert answer(heads, chunked=True) == line + b"transfer-encoding: chunked\r\n\r\n"
    assert answer(heads, chunked=True, close=True) == (
        line + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert answer(heads, close=True) == line + b"connection: close\r\n\r\n"
    for status in (100, 103, 199, 204):
        for length in (None, 0):
            head = answer(heads, status, length=length)
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert head.count(b"\r\n") == 2
    assert answer(heads, 304, length=7) == b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
    assert answer(heads, 299) == b"HTTP/1.1 299 \r\n\r\n"


@pytest.mark.parametrize(
    ("status", "length", "chunked", "said"),
    [
        (200, 5, True, "an answer 200 can't be framed so"),
        (200, 0, True, "an answer 200 can't be framed so"),
        (204, 5, False, "an answer 204 can't be framed so"),
        (204, None, True, "an answer 204 can't be framed so"),
        (103, None, True, "an answer 103 can't be framed so"),
        (199, 1, False, "an answer 199 can't be framed so"),
        (200, -1, False, "a length is not negative"),
        (200, -(2**80), False, "a length is not negative"),
        (99, None, False, "99 is not a status"),
        (600, None, False, "600 is not a status"),
        (-(2**70), None, False, f"{-(2**70)} is not a status"),
    ],
)
def test_an_answer_that_can_not_be_framed_so_is_not_written(heads, status, length, chunked, said):
    with pytest.raises(LocalProtocolError) as caught:
        answer(heads, status, length=length, chunked=chunked)
    assert str(caught.value) == said


@pytest.mark.parametrize("length", [0, 9, 10, 99, 100, 2**31, 2**63 - 1, 2**63, 2**64, 10**30])
def test_a_length_is_written_in_its_digits(heads, length):
    assert answer(heads, length=length).endswith(b"\r\ncontent-length: %d\r\n\r\n" % length)
    head = heads.request_head("POST", b"/", (), length=length)
    assert head == b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % length


def test_a_requests_head_is_written(heads):
    fields = [(b"host", b"a:1"), (b"accept", b"")]
    assert heads.request_head("POST", b"/mcp?x={y}", fields, length=2) == (
        b"POST /mcp?x={y} HTTP/1.1\r\nhost: a:1\r\naccept: \r\ncontent-length: 2\r\n\r\n"
    )
    assert heads.request_head("GET", b"/", iter(fields[:1]), length=None) == (
        b"GET / HTTP/1.1\r\nhost: a:1\r\n\r\n"
    )
    assert heads.request_head("GET", b"/", tuple(fields[:1]), length=None) == (
        heads.request_head("GET", b"/", fields[:1], length=None)
    )


@pytest.mark.parametrize(
    ("method", "target", "said"),
    [
        ("GE T", b"/", "a request's head can't be written"),
        ("", b"/", "a request's head can't be written"),
        ("GET\r\nX: y", b"/", "a request's head can't be written"),
        ("G\xc9T", b"/", "a request's method is ASCII"),
        ("G\u0142T", b"/", "a request's method is ASCII"),
        ("G\ud800T", b"/", "a request's method is ASCII"),
        # In memory, each of these is two letters of ASCII.
        ("\u4547\u5454", b"/", "a request's method is ASCII"),
        ("GET", b"", "a request's head can't be written"),
        ("GET", b"mcp", "a request's head can't be written"),
        ("GET", b"http://a/", "a request's head can't be written"),
        ("GET", b"/ HTTP/1.1\r\nx: y\r\nz:", "a request's head can't be written"),
    ],
)
def test_a_request_line_that_can_not_be_read_back_is_not_written(heads, method, target, said):
    with pytest.raises(LocalProtocolError) as caught:
        heads.request_head(method, target, [(b"host", b"a")], length=None)
    assert str(caught.value) == said
    with pytest.raises(LocalProtocolError, match="a length is not negative"):
        heads.request_head("GET", b"/", [(b"host", b"a")], length=-1)


@pytest.mark.parametrize(
    "fields", [[(b"a",)], [(b"a", b"b", b"c")], [("a", b"b")], [(b"a", None)], [1], [()], 5, None]
)
def test_what_are_no_pairs_of_bytes_is_a_type_error(heads, fields):
    with pytest.raises((TypeError, ValueError)):
        answer(heads, fields=fields)
    with pytest.raises((TypeError, ValueError)):
        heads.request_head("GET", b"/", fields, length=None)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=4),
    st.integers(0, 2**40),
)
def test_what_is_read_back_is_what_was_given_and_no_more(heads, fields, length):
    try:
        head = heads.response_head(200, fields, length=length, chunked=False, close=False)
    except LocalProtocolError:
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(head)
    event = connection.next_event()
    assert list(event.headers) == [
        *((name.lower(), value.strip(b" \t")) for name, value in fields),
        (b"content-length", b"%d" % length),
    ]
    assert connection.trailing_data == (b"", False)


def test_time_is_in_proportion_to_what_is_written(heads):
    began = time.process_time()
    for fields in ([(b"x" * 10**6, b"y" * 10**6)] * 5, [(b"x", b"y")] * 10**5):
        answer(heads, fields=fields)
        heads.request_head("GET", b"/" + b"z" * 10**6, fields, length=None)
    assert time.process_time() - began < 10


# Which fields travel on.


def up(heads, *names, extra=frozenset()):
    return [name for name, _ in heads.forwarded_request_headers([(n, b"v") for n in names], extra)]


def down(heads, *names):
    return [name for name, _ in heads.forwarded_response_headers([(n, b"v") for n in names])]


UP = [b"user-agent", b"accept", b"content-type", b"accept-language", b"last-event-id",
      b"traceparent", b"tracestate", b"baggage"]  # fmt: skip
DOWN = [b"allow", b"cache-control", b"content-language", b"content-type", b"retry-after",
        b"traceresponse", b"x-accel-buffering"]  # fmt: skip
MCP = [b"mcp-protocol-version", b"mcp-method", b"mcp-param-region", b"mcp-", b"mcp-session-idx",
       b"mcp-session-i"]  # fmt: skip


def test_what_is_on_the_list_travels_in_its_order(heads):
    assert up(heads, *UP, *MCP, *UP) == [*UP, *MCP, *UP]
    assert down(heads, *DOWN, *MCP, *DOWN) == [*DOWN, *MCP, *DOWN]
    pairs = [(b"accept", b"a/b"), (b"x", b""), (b"accept", b"c/d")]
    kept = heads.forwarded_request_headers(pairs)
    assert kept == [pairs[0], pairs[2]]
    assert kept is not pairs
    assert heads.forwarded_request_headers([]) == heads.forwarded_response_headers([]) == []


NEVER = [*sorted(heads_py.NEVER_FORWARDED), b"x-forwarded-for", b"x-forwarded-", b"x-forwarded-x"]


@pytest.mark.parametrize("name", NEVER)
def test_what_is_for_the_gateway_alone_travels_in_no_direction(heads, name):
    assert up(heads, name) == down(heads, name) == []
    assert up(heads, name, extra=frozenset({name})) == []


@pytest.mark.parametrize(
    "name", [b"", b"m", b"mcp", b"mcpx", b"x-mcp-name", b"Accept", b"Mcp-Name", b"etag", b"server"]
)
def test_a_name_that_no_list_has_stays_here(heads, name):
    assert up(heads, name) == down(heads, name) == []
    assert up(heads, name, extra=frozenset({b"other"})) == []
    assert up(heads, name, extra=frozenset({name})) == [name]


@pytest.mark.parametrize("travels", ["forwarded_request_headers", "forwarded_response_headers"])
@pytest.mark.parametrize(
    ("values", "dropped"),
    [
        ([b"keep-alive"], False),
        ([b"close"], False),
        ([b""], False),
        ([b"content-type"], True),
        ([b"close, Content-Type"], True),
        ([b"x,\tCONTENT-TYPE ,y"], True),
        ([b"keep-alive", b"content-type"], True),
        ([b"content-type", b"close"], True),
        ([b"content-typ", b"content-type2"], False),
    ],
)
def test_a_field_that_connection_names_ends_here(heads, travels, values, dropped):
    pairs = [(b"mcp-x", b"1"), (b"content-type", b"a/b")]
    named = [(b"connection", value) for value in values]
    for order in ([*pairs, *named], [*named, *pairs]):
        assert getattr(heads, travels)(order) == (pairs[:1] if dropped else pairs)


def test_a_field_that_connection_names_ends_here_whatever_the_configuration_says(heads):
    extra = frozenset({b"x-tenant"})
    pairs = [(b"x-tenant", b"1"), (b"connection", b"x-tenant")]
    assert heads.forwarded_request_headers(pairs, extra) == []


# The head that came before.


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda text: memoryview(bytearray(text))])
def test_what_follows_a_head_is_given_as_bytes_of_its_own(heads, kind):
    head = b"GET / HTTP/1.1\r\n\r\n"
    data = bytearray(head + b"body")
    rest = heads.after(memoryview(data), head)
    data[:] = b"x" * len(data)
    assert (type(rest), rest) == (bytes, b"body")
    assert heads.after(kind(head), head) == b""
    for other in (b"", head[:-1], b"x" + head, head[:-1] + b"x", head[:-1] + b"xbody"):
        assert heads.after(kind(other), head) is None
    # What came earlier may still stand behind what has come.
    assert heads.after(memoryview(bytearray(head))[:-1], head) is None
    assert heads.after(kind(head), b"") is None
    assert heads.after(kind(b""), b"") is None
