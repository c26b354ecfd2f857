"""A list loses the entries that may not be seen, and not one byte besides."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.listing import listed_tools, read_listing
from mcpx.core.policy import Kind
from mcpx.errors import FrameError

ODD = b'{"jsonrpc":"2.0", "id":1 ,"result":{"x":[1e400], "tools":[ {"name":"a","z":1.0} ,\n{"n":1,"name":"b"}, {"name":"\\u0061b"} ],"nextCursor":"c"}}'


def filtered(body, seen):
    """The text without what isn't seen, or has no name."""
    return read_listing(body).only(lambda kind, name: name is not None and seen(kind, name))


def visible(*names):
    return lambda kind, name: name in names


def test_what_remains_is_as_the_server_wrote_it():
    assert filtered(ODD, visible("a", "ab")) == (
        b'{"jsonrpc":"2.0", "id":1 ,"result":{"x":[1e400], "tools":'
        b'[{"name":"a","z":1.0},{"name":"\\u0061b"}],"nextCursor":"c"}}'
    )


def test_a_list_that_loses_nothing_is_the_same_object():
    assert filtered(ODD, lambda *_: True) is ODD


def test_a_list_may_lose_everything():
    assert b'"tools":[],' in filtered(ODD, visible())


@pytest.mark.parametrize(
    ("key", "name", "kind"),
    [
        ("tools", "name", Kind.TOOL),
        ("prompts", "name", Kind.PROMPT),
        ("resources", "uri", Kind.RESOURCE),
        ("resourceTemplates", "uriTemplate", Kind.TEMPLATE),
    ],
)
def test_each_kind_of_list_is_filtered_by_its_own_name(key, name, kind):
    entries = [{name: "yes"}, {name: "no"}, {"name": "no", name: "yes"}]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {key: entries}}).encode()
    asked = []

    def seen(of, what):
        asked.append((of, what))
        return what == "yes"

    result = json.loads(filtered(body, seen))["result"]
    assert [entry[name] for entry in result[key]] == ["yes", "yes"]
    assert {of for of, _ in asked} == {kind}


@pytest.mark.parametrize("entry", [{}, {"name": 7}, {"name": None}, {"Name": "a"}])
def test_an_entry_whose_name_can_not_be_read_is_hidden(entry):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [entry]}}).encode()
    try:
        left = filtered(body, lambda *_: True)
    except FrameError:
        return
    assert json.loads(left)["result"]["tools"] == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}',
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
)
def test_what_holds_no_list_comes_back_unchanged(body):
    assert filtered(body, visible()) is body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        ODD + b"x",
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{"name":"x"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","name":"x"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":{"tools":[]}}',
    ],
)
def test_what_can_be_read_in_two_ways_is_not_passed(body):
    with pytest.raises(FrameError):
        filtered(body, visible())


@given(st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=12))
@settings(max_examples=150)
def test_exactly_the_hidden_are_missing(entries):
    tools = [{"name": name, "shown": shown} for name, shown in entries]
    hidden = {name for name, shown in entries if not shown}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()
    answer = filtered(body, lambda kind, name: name not in hidden)
    left = [tool for tool in tools if tool["name"] not in hidden]
    assert json.loads(answer)["result"]["tools"] == left


def test_names_for_metrics_are_read_where_they_can_be():
    assert listed_tools(ODD) == {"a": False, "b": False, "ab": False}
    for body in (b"", b"nonsense", b"[]", b'{"result":{"tools":7}}', b"\xff", b"[" * 100_000):
        assert listed_tools(body) == {}


def test_tools_that_only_read_are_told():
    tools = [
        {"name": "a", "annotations": {"readOnlyHint": True}},
        {"name": "b", "annotations": {"readOnlyHint": False, "title": "b"}},
        {"name": "c", "annotations": None},
    ]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()
    assert listed_tools(body) == {"a": True, "b": False, "c": False}


def test_a_listing_says_what_it_holds():
    listing = read_listing(ODD)
    assert listing.has_tools
    assert listing.next_cursor == "c"
    assert [name for name, _ in listing.tools()] == ["a", "b", "ab"]
    assert dict(listing.tools())["b"] == b'{"n":1,"name":"b"}'
    other = read_listing(b'{"jsonrpc":"2.0","id":1,"result":{"prompts":[{"name":"p"}]}}')
    assert not other.has_tools
    assert other.tools() == []
    assert other.next_cursor is None
    assert read_listing(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}').has_tools
