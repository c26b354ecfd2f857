"""What an answer says is told in one word, whatever the answer is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.outcome import MAX_BYTES, read_answer

WORDS = {"ok", "tool_error", "rpc_error", "http_error", "unread"}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', 200, "ok"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"isError":false}}', 200, "ok"),
        (b'{"jsonrpc":"2.0","id":1,"result":{"isError":true}}', 200, "tool_error"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":-1}}', 200, "rpc_error"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":-1}}', 404, "rpc_error"),
        (b'{"jsonrpc":"2.0","method":"notifications/progress"}', 200, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}', 200, None),
        (b"", 202, "ok"),
        (b"", 500, "http_error"),
        (b"<html>", 200, "unread"),
        (b"<html>", 502, "http_error"),
        (b"[]", 200, "unread"),
        (b'{"a":1}', 200, "unread"),
        (b'{"result":"text"}', 200, "unread"),
        (b" " * (MAX_BYTES + 1), 200, "unread"),
        (b" " * (MAX_BYTES + 1), 500, "http_error"),
    ],
)
def test_an_answer_has_its_word(body, status, word):
    assert read_answer(body, status, None)[0] == word


@given(st.binary(max_size=60), st.integers(100, 599))
@settings(max_examples=300)
def test_no_bytes_raise(body, status):
    assert read_answer(body, status, None)[0] in WORDS | {None}


@pytest.mark.parametrize(
    ("asked", "found", "astray"),
    [
        (b"1", b"1", False),
        (b"1", b"1.0", False),
        (b'"a"', b'"\\u0061"', False),
        (b"1", b"2", True),
        (b"1", b'"1"', True),
        (b"1", b"null", True),
        (b"9007199254740993", b"9007199254740992", True),
        (None, b"1", True),
    ],
)
def test_a_result_belongs_to_the_request_that_has_its_id(asked, found, astray):
    body = b'{"jsonrpc":"2.0","id":%s,"result":{}}' % found
    assert read_answer(body, 200, asked) == ("ok", astray)
    error = b'{"jsonrpc":"2.0","id":%s,"error":{}}' % found
    assert read_answer(error, 200, asked) == ("rpc_error", False)
