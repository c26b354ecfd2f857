"""What an answer says is told in one word, whatever the answer is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.outcome import MAX_BYTES, classify

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
    assert classify(body, status) == word


@given(st.binary(max_size=60), st.integers(100, 599))
@settings(max_examples=300)
def test_no_bytes_raise(body, status):
    assert classify(body, status) in WORDS | {None}
