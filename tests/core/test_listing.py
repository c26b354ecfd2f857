"""A list loses the entries that may not be seen, and not one byte besides."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.listing import filter_listing, listed_tools
from mcpx.core.policy import Kind
from mcpx.errors import FrameError

ODD = b'{"jsonrpc":"2.0", "id":1 ,"result":{"x":[1e400], "tools":[ {"name":"a","z":1.0} ,\n{"n":1,"name":"b"}, {"name":"\\u0061b"} ],"nextCursor":"c"}}'


def visible(*names):
    return lambda kind, name: name in names


def test_what_remains_is_as_the_server_wrote_it():
    listing = filter_listing(ODD, visible("a", "ab"))
    assert listing.body == (
        b'{"jsonrpc":"2.0", "id":1 ,"result":{"x":[1e400], "tools":'
        b'[{"name":"a","z":1.0},{"name":"\\u0061b"}],"nextCursor":"c"}}'
    )
    assert (listing.tools, listing.hidden) == (["a", "ab"], 1)


def test_a_list_that_loses_nothing_is_the_same_object():
    assert filter_listing(ODD, lambda *_: True).body is ODD


def test_a_list_may_lose_everything():
    assert b'"tools":[],' in filter_listing(ODD, visible()).body


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

    result = json.loads(filter_listing(body, seen).body)["result"]
    assert [entry[name] for entry in result[key]] == ["yes", "yes"]
    assert {of for of, _ in asked} == {kind}


@pytest.mark.parametrize("entry", [{}, {"name": 7}, {"name": None}, {"Name": "a"}])
def test_an_entry_whose_name_can_not_be_read_is_hidden(entry):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [entry]}}).encode()
    try:
        listing = filter_listing(body, lambda *_: True)
    except FrameError:
        return
    assert json.loads(listing.body)["result"]["tools"] == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}',
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
    ],
)
def test_what_holds_no_list_comes_back_unchanged(body):
    assert filter_listing(body, visible()).body is body


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
        filter_listing(body, visible())


@given(st.lists(st.tuples(st.text(max_size=5), st.booleans()), max_size=12))
@settings(max_examples=150)
def test_exactly_the_hidden_are_missing(entries):
    tools = [{"name": name, "shown": shown} for name, shown in entries]
    hidden = {name for name, shown in entries if not shown}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}).encode()
    listing = filter_listing(body, lambda kind, name: name not in hidden)
    left = [tool for tool in tools if tool["name"] not in hidden]
    assert json.loads(listing.body)["result"]["tools"] == left
    assert listing.hidden == len(tools) - len(left)


def test_names_for_metrics_are_read_where_they_can_be():
    assert listed_tools(ODD) == ["a", "b", "ab"]
    for body in (b"", b"nonsense", b"[]", b'{"result":{"tools":7}}', b"\xff", b"[" * 100_000):
        assert listed_tools(body) == []
