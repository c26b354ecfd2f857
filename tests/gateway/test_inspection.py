"""Nothing that must be hidden passes, and what need not be looked at passes untouched."""

import json

import pytest
import trio

from mcpx._speedups.frames import scan
from mcpx.core.integrity import Mode
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
    id = b"1"
    headers: dict = {}

    class request:
        method = "POST"
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


# -- tools that are held against their pins

CHANGED = b'{"jsonrpc":"2.0","method":"notifications\\/tools\\/list_changed"}'


class Integrity:
    def __init__(self, mode):
        self.mode = mode


class Tools:
    def __init__(self, mode):
        self.integrity = Integrity(mode)
        self.learned = []

    def learn(self, listed):
        self.learned.append(dict(listed))


class Watched:
    """A state whose watcher refuses ``b``, and notes what it was given."""

    class metrics:
        @staticmethod
        def learn_tools(server, names):
            pass

    def __init__(self, mode):
        self.watcher = self
        self.tools = Tools(mode)
        self.servers = {"demo": self.tools}
        self.observed = []
        self.changes = []

    def listed(self, ex, tools, listing, observed):
        self.observed.append((observed.cursor, observed.generation))
        found = {name for name, _ in listing.tools()}
        return dict.fromkeys(found & {"b"}, "why") if tools is self.tools else {}

    def tools_changed(self, server):
        self.changes.append((server, trio.lowlevel.in_trio_run()))


class Listing(Exchange):
    """A request for a page of a list."""

    generation = 7

    def __init__(self, body=b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', method="tools/list"):
        self.method = method
        self.request = type("request", (), {"body": body, "method": "POST"})
        self.frame = scan(body)


def watched(mode=Mode.ENFORCE, *, ex=None, hides=False, limit=10_000, status=200, **kwargs):
    state = Watched(mode)
    looked = Inspection(
        ex or Listing(), state, "demo", status, policy=Policy() if hides else None,
        listing=kwargs.pop("listing", True), limit_bytes=limit, **kwargs,
    )  # fmt: skip
    return looked, state


def names(body):
    return [each.get("name") for each in json.loads(body)["result"]["tools"]]


def test_a_refused_tool_is_left_out_and_not_learned():
    looked, state = watched()
    assert looked.filters
    assert names(looked.message(LIST)) == ["a"]
    looked.learn()
    assert state.tools.learned == [{"a": False}]
    assert state.observed == [(None, 7)]


def test_in_warn_all_is_shown_and_the_same_object():
    looked, state = watched(Mode.WARN)
    assert looked.filters
    state.listed = lambda *_: state.observed.append("seen") or {}
    assert looked.message(LIST) is LIST
    assert state.observed == ["seen"]


def test_policy_and_integrity_both_hide():
    text = LIST.replace(b'{"name":"a"}', b'{"name":"a"},{"name":"c"},{}')
    looked, state = watched(hides=True)
    state.listed = lambda *_: {"c": "why"}
    assert names(looked.message(text)) == ["a"]


def test_what_has_no_name_is_hidden_in_enforce_alone():
    text = LIST.replace(b'{"name":"b"}', b'{"title":"b"},{"name":3}')
    assert names(watched()[0].message(text)) == ["a"]
    assert watched(Mode.WARN)[0].message(text) is text


@pytest.mark.parametrize(
    ("params", "cursor"),
    [
        (b"", None),
        (b',"params":{}', None),
        (b',"params":{"cursor":null}', None),
        (b',"params":{"cursor":"c\\u0031"}', "c1"),
        (b',"params":{"cursor":""}', ""),
    ],
)
def test_the_page_is_the_one_that_was_asked_for(params, cursor):
    asked = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"%s}' % params
    looked, state = watched(ex=Listing(asked))
    looked.message(LIST)
    assert state.observed == [(cursor, 7)]


def test_of_a_replay_nobody_knows_when_it_was_asked_for():
    ex = Listing(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "GET")
    ex.generation = None
    looked, state = watched(ex=ex, replayed=True)
    assert looked.filters
    out = looked.events(event(b"no JSON") + event(LIST))
    assert b"no JSON" not in out
    assert b'"a"' in out
    assert b'"b"' not in out
    assert state.observed == [(None, None)]
    looked.learn()
    assert state.tools.learned == []


def test_another_list_is_not_held_back_for_its_tools():
    ex = Listing(b'{"jsonrpc":"2.0","id":1,"method":"prompts/list"}', "prompts/list")
    looked, _ = watched(ex=ex)
    assert not looked.filters


@pytest.mark.parametrize("body", [b"nonsense", LIST.replace(b"tools", b"Tools")])
def test_a_list_of_tools_that_can_not_be_read_passes_in_warn_alone(body):
    assert watched(Mode.WARN)[0].message(body) is body
    with pytest.raises(UpstreamError):
        watched()[0].message(body)
    with pytest.raises(UpstreamError) as caught:
        watched(status=404)[0].message(body)
    assert caught.value.status == 404


@pytest.mark.parametrize("listing", [True, False])
async def test_that_tools_changed_is_heard_on_any_stream(listing):
    for form in (CHANGED, CHANGED.replace(b"\\/", b"/")):
        looked, state = watched(listing=listing)
        data = event(form)
        for index in range(len(data)):
            looked.events(data[index : index + 1])
        assert state.changes == [("demo", True)]
        looked, state = watched(listing=listing)
        await trio.to_thread.run_sync(looked.events, data)
        assert state.changes == [("demo", True)]


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}',
        b'{"jsonrpc":"2.0","method":"x","params":{"m":"notifications/tools/list_changed"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"m":"notifications/tools/list_changed"}}',
        b'{"method":"notifications/tools/list_changed"}',
        CHANGED[:-1],
    ],
)
async def test_what_only_looks_like_it_says_nothing(text):
    looked, state = watched(listing=False)
    looked.events(event(text))
    assert state.changes == []


@pytest.mark.parametrize("id", [b"2", b'"1"', b"null", b"[1]"])
def test_a_result_that_answers_another_request_does_not_pass(id):
    body = b'{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}' % id
    with pytest.raises(UpstreamError):
        inspection(hides=False, listing=False).message(body)
    with pytest.raises(UpstreamError):
        inspection(hides=False, listing=False).events(event(body))
    with pytest.raises(UpstreamError):
        inspection(hides=False, listing=False).message(b'{"jsonrpc":"2.0","result":{}}')


def test_an_error_may_have_an_id_of_the_servers_own():
    body = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-1,"message":"x"}}'
    looked = inspection(hides=False, listing=False)
    assert looked.message(body) is body
    assert looked.outcome == "rpc_error"
