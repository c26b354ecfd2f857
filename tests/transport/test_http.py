"""A request is what a listener read, and its headers are found by name."""

from mcpx.transport.http import Budget, Request

REQUEST = Request(
    "POST", b"/mcp/demo?x", [(b"accept", b"a"), (b"accept", b"b"), (b"host", b"")], b"{}",
    "unix", "http",
)  # fmt: skip


def test_the_first_header_of_a_name_is_given():
    assert REQUEST.header(b"accept") == b"a"


def test_an_empty_header_is_told_from_none():
    assert REQUEST.header(b"host") == b""
    assert REQUEST.header(b"origin") is None


def test_what_was_read_is_kept_as_it_was():
    assert (REQUEST.method, REQUEST.target, REQUEST.body) == ("POST", b"/mcp/demo?x", b"{}")
    assert (REQUEST.peer, REQUEST.scheme) == ("unix", "http")


def test_a_request_has_no_room_for_anything_else():
    assert not hasattr(REQUEST, "__dict__")


def test_what_is_taken_of_a_budget_is_not_there_until_it_is_given_back():
    budget = Budget(10)
    assert budget.take(7)
    assert not budget.take(4)
    assert budget.take(3)
    budget.give(7)
    assert budget.take(7)
    assert budget.take(0)


def test_a_budget_that_shrinks_keeps_what_is_taken():
    budget = Budget(10)
    assert budget.take(8)
    budget.resize(5)
    assert not budget.take(1)
    budget.give(8)
    assert budget.take(5)
    assert not budget.take(1)
