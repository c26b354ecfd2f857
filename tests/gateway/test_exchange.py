"""An exchange knows its request from its first moment, and takes no name that could do harm."""

import re

import pytest


@pytest.mark.parametrize("given", [b"abc", b"A-1_2.3:4/5+6=@", b"x" * 128])
def test_a_harmless_request_id_is_kept(exchange, given):
    assert exchange(headers={b"x-request-id": given}).request_id == given


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b'"', b"\xff", b"a\tb", b"{}", b"%0a"])
def test_another_is_replaced(exchange, given):
    assert re.fullmatch(rb"[0-9a-f]{16}", exchange(headers={b"x-request-id": given}).request_id)


def test_ids_that_are_made_differ(exchange):
    assert len({exchange().request_id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/mcp/demo", b"/mcp/demo", None),
        ("/mcp/demo?", b"/mcp/demo", b""),
        ("/mcp/demo?a=b?c", b"/mcp/demo", b"a=b?c"),
    ],
)
def test_the_target_is_taken_apart(exchange, target, path, query):
    ex = exchange(path=target)
    assert (ex.path, ex.query) == (path, query)


def test_nothing_is_allowed_before_it_was_judged(exchange):
    ex = exchange()
    assert (ex.allowed, ex.status, ex.outcome) == (False, 0, "error")
    assert (ex.tool, ex.id, ex.route, ex.policy) == (None, None, None, None)
    assert not ex.principal.authenticated


def test_every_answer_carries_the_request_id_and_what_browsers_need(exchange):
    cors = {"enabled": True, "allowed_origins": ["https://a.example"]}
    ex = exchange(headers={b"origin": b"https://a.example"}, config={"cors": cors})
    headers = {name.lower(): value for name, value in ex.common_headers()}
    assert headers[b"x-request-id"] == ex.request_id
    assert headers[b"access-control-allow-origin"] == b"https://a.example"
