"""The compiled heads are the specification's twin: the same heads, fields and refusals.

What a head is stands in ``test_heads_py.py``, which runs on both.
"""

import os
import resource
import sys
from functools import partial
from importlib import import_module

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcpx._speedups import heads_py
from mcpx.errors import LocalProtocolError

if os.environ.get("MCPX_REQUIRE_EXTENSIONS") == "1":
    heads_c = import_module("mcpx._speedups.heads_c")
else:
    heads_c = pytest.importorskip("mcpx._speedups.heads_c", exc_type=ImportError)

NAMES = st.sampled_from(
    [b"accept", b"host", b"x-a", b"mcp-name", b"mcp-session-id", b"connection", b"Connection",
     b"content-length", b"transfer-encoding", b"cookie", b"x-forwarded-for", b"x-tenant",
     b"content-type", b"retry-after", b"close", b"a: b", b"", b"x\r\ny"]
) | st.binary(max_size=18)  # fmt: skip
VALUES = (
    st.sampled_from([b"", b"close", b"keep-alive", b"x-tenant, accept", b"a\r\nb: c", b"a b"])
    | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80).map(str.encode)
    | st.binary(max_size=40)
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
GOOD = st.lists(
    st.tuples(st.from_regex(rb"\Ax[a-z-]{0,20}\Z"), st.from_regex(rb"\A[ -~\x80-\xff]{0,60}\Z")),
    max_size=6,
)
LENGTHS = st.none() | st.integers(-3, 2**70) | st.integers(0, 10**6)


def told(call):
    try:
        return call()
    except LocalProtocolError as exc:
        return LocalProtocolError, str(exc), vars(exc)
    except (TypeError, ValueError) as exc:
        return type(exc)


def same(name, *arguments, **named):
    found = told(partial(getattr(heads_c, name), *arguments, **named))
    assert found == told(partial(getattr(heads_py, name), *arguments, **named)), (arguments, named)
    return found


def test_the_names_are_the_same():
    assert sorted(heads_c.__all__) == sorted(heads_py.__all__)
    for name in ("NEVER_FORWARDED", "TOKEN", "VALUE", "Headers"):
        assert getattr(heads_c, name) is getattr(heads_py, name)


@settings(max_examples=1000, deadline=None)
@given(
    status=st.sampled_from([200, 204, 100, 304, 404]) | st.integers(-1, 700),
    fields=FIELDS | GOOD,
    length=LENGTHS,
    chunked=st.booleans(),
    close=st.booleans(),
)
@example(status=200, fields=[(b"x", b"\n"), (b"y", b"")], length=1, chunked=False, close=False)
@example(status=200, fields=[(b"x:", b"")], length=1, chunked=False, close=False)
def test_both_write_the_same_heads_of_answers(status, fields, length, chunked, close):
    same("response_head", status, fields, length=length, chunked=chunked, close=close)


@settings(max_examples=1000, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]) | st.text(max_size=5),
    target=st.from_regex(rb"\A/[!-~]{0,40}\Z") | st.binary(max_size=9),
    fields=FIELDS | GOOD,
    length=LENGTHS,
)
def test_both_write_the_same_heads_of_requests(method, target, fields, length):
    same("request_head", method, target, fields, length=length)


@settings(max_examples=1000, deadline=None)
@given(
    fields=FIELDS,
    extra=st.frozensets(st.sampled_from([b"x-tenant", b"x-a", b"cookie", b"close", b"connection"])),
)
def test_both_let_the_same_fields_travel(fields, extra):
    same("forwarded_request_headers", fields, extra)
    same("forwarded_request_headers", fields)
    same("forwarded_response_headers", fields)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=10), st.binary(max_size=40))
def test_both_find_the_same_after_a_head(head, rest, other):
    assert same("after", head + rest, head) == (rest if head else None)
    same("after", other, head)
    same("after", memoryview(bytearray(other + rest)), other[:3])


class Text(bytes):
    """Bytes that say of themselves what they please."""

    def __getitem__(self, at):
        return b"accept"


class Number(int):
    pass


@pytest.mark.parametrize(
    "fields",
    [
        [[b"accept", b"b"]],
        [(bytearray(b"accept"), b"b")],
        [(b"accept", memoryview(b"b\n"))],
        [(Text(b"x\n"), b"b")],
        [(b"accept", Text(b"b\n"))],
        [("accept", b"b")],
        [(b"accept",)],
        [(b"accept", b"b", b"c")],
        [None],
        ((b"accept", b"b"),),
        {b"accept": b"b"},
    ],
)
def test_both_say_the_same_of_other_shapes(fields):
    same("response_head", 200, fields, length=1, chunked=False, close=False)
    same("request_head", "GET", b"/", fields, length=None)


@pytest.mark.parametrize("length", [True, Number(7), 1.5, "7", Number(-7)])
def test_both_say_the_same_of_other_lengths(length):
    same("response_head", 200, (), length=length, chunked=False, close=False)
    same("request_head", "GET", b"/", (), length=length)


@pytest.mark.parametrize("status", [True, Number(200), Number(204), 200.0, "200", None])
def test_both_say_the_same_of_other_statuses(status):
    same("response_head", status, (), length=0, chunked=False, close=False)


def test_both_say_the_same_of_other_methods_and_targets():
    class Word(str):
        __slots__ = ()

    same("request_head", Word("GET"), b"/", (), length=None)
    same("request_head", "GET", bytearray(b"/"), (), length=None)
    same("request_head", "GET", "/", (), length=None)


def test_both_write_the_same_large_heads():
    for size in (1, 7, 8, 15, 16, 31, 32, 33, 4095, 100_000):
        for text in (b"a" * size, b"a" * (size - 1) + b"\n", b"\n" + b"a" * size):
            same("request_head", "GET", b"/" + text, [(b"x", b"y")], length=size)
            fields = [(b"x", text), (text, b"y")]
            for field in fields:
                same("response_head", 200, [field] * 3, length=size, chunked=False, close=True)


def test_data_is_let_go_when_it_has_been_read():
    data = bytearray(b"head and rest")
    assert heads_c.after(data, b"head") == b" and rest"
    assert heads_c.after(data, b"tail") is None
    # A buffer that is still looked at can't be resized.
    data.clear()
    with pytest.raises(TypeError):
        heads_c.after("head", b"head")


@pytest.mark.skipif(
    os.environ.get("MCPX_SANITIZE") == "1", reason="the watched allocator keeps what is freed"
)
def test_no_memory_is_left_behind():
    fields = [(b"x-%d" % at, b"v" * 500) for at in range(20)]

    def repeat(count):
        for _ in range(count):
            heads_c.request_head("GET", b"/", fields, length=1)
            heads_c.response_head(200, fields, length=1, chunked=False, close=False)
            heads_c.forwarded_request_headers(fields, frozenset({b"x-1"}))
            heads_c.forwarded_response_headers([*fields, (b"connection", b"x")])
            heads_c.after(b"x" * 1000, b"x" * 10)
            with pytest.raises(LocalProtocolError):
                heads_c.response_head(200, [(b"x", b"\n")], length=1, chunked=False, close=False)

    repeat(50)
    pair = fields[0]
    before, counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, sys.getrefcount(pair)
    repeat(2000)
    assert sys.getrefcount(pair) == counted
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8192 * (1 if os.uname().sysname == "Linux" else 1024)
