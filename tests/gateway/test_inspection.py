"""Nothing that must be hidden passes, and what need not be looked at passes untouched."""

import json

import pytest

from mcpx.core.policy import Kind
from mcpx.errors import UpstreamError
from mcpx.gateway.inspection import WATCHED_EVENT_BYTES, Inspection

LIST = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}}'
OK = b'{"jsonrpc":"2.0","id":1,"result":{}}'


class Policy:
    def visible(self, kind, name):
        return (kind, name) != (Kind.TOOL, "b")


class State:
    class metrics:
        learned: list = []

        @classmethod
        def learn_tools(cls, server, names):
            cls.learned.append((server, list(names)))

    class watcher:
        servers: dict = {}


class Exchange:
    caching = None
    generation = None
    frame = None
    method = "tools/list"

    class request:
        body = b""


def inspection(*, hides=True, listing=True, limit=10_000, status=200, **kwargs):
    return Inspection(
        Exchange(), State(), "demo", status, policy=Policy() if hides else None, listing=listing,
        limit_bytes=limit, **kwargs,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_learned():
    State.metrics.learned = []


def event(data):
    return b"event: message\nid: 7\ndata: " + data + b"\n\n"


def test_a_list_is_filtered_and_its_tools_are_learned():
    looked = inspection()
    assert json.loads(looked.message(LIST))["result"]["tools"] == [{"name": "a"}]
    looked.learn()
    assert State.metrics.learned == [("demo", ["a"])]
    assert looked.outcome == "ok"


def test_without_something_to_hide_the_list_is_the_same_object():
    looked = inspection(hides=False)
    assert looked.message(LIST) is LIST
    assert not looked.filters
    looked.learn()
    assert State.metrics.learned == [("demo", ["a", "b"])]


@pytest.mark.parametrize("body", [b"nonsense", LIST[:-1], LIST + b"x", b"[" + LIST + b"]"])
def test_a_list_that_can_not_be_read_is_not_passed_on(body):
    with pytest.raises(UpstreamError):
        inspection().message(body)
    assert inspection(hides=False).message(body) is body


def test_each_event_of_a_stream_is_filtered_as_it_comes():
    looked = inspection()
    out = looked.events(b": hello\n\n" + event(LIST)[:-1])
    assert out == b": hello\n\n"
    assert looked.held
    out = looked.events(b"\n" + event(OK))
    assert b'"b"' not in out
    assert b'"a"' in out
    assert b"id: 7" in out
    assert out.endswith(event(OK))


def test_a_stream_that_is_only_watched_passes_byte_for_byte():
    looked = inspection(listing=False, hides=False)
    data = event(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}')
    for index in range(len(data)):
        assert looked.events(data[index : index + 1]) == data[index : index + 1]
    assert looked.outcome == "rpc_error"


def test_an_event_too_large_to_be_filtered_is_not_passed_on():
    looked = inspection(limit=1000)
    with pytest.raises(UpstreamError, match="too large"):
        for _ in range(100):
            looked.events(b"data: " + b"x" * 100)


def test_an_event_too_large_to_be_watched_passes_and_is_watched_no_more():
    looked = inspection(listing=False, hides=False)
    huge = b"data: " + b"x" * (WATCHED_EVENT_BYTES + 1)
    assert looked.events(huge) == huge
    assert looked.events(b"\n\n" + event(OK)) == b"\n\n" + event(OK)


def test_an_error_is_told_as_what_it_is():
    looked = inspection(listing=False, status=500)
    looked.message(b"<html>")
    assert looked.outcome == "http_error"
