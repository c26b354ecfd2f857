"""A request is understood to the last letter, or refused before anything is decided."""

import json

import pytest

from mcpx.core.policy import Kind
from mcpx.errors import BadRequest, GatewayError, HeaderMismatch, UnknownServer
from mcpx.gateway.front_door import find_route, more_targets, read_message


def message(method, params=None, id=1):
    value = {"jsonrpc": "2.0", "id": id, "method": method}
    return value if params is None else {**value, "params": params}


@pytest.mark.parametrize(
    ("method", "params", "kind", "name"),
    [
        ("tools/call", {"name": "echo"}, Kind.TOOL, "echo"),
        ("prompts/get", {"name": "p"}, Kind.PROMPT, "p"),
        ("resources/read", {"uri": "file:///x"}, Kind.RESOURCE, "file:///x"),
        ("resources/subscribe", {"uri": "file:///x"}, Kind.RESOURCE, "file:///x"),
        ("tools/list", None, None, None),
        ("ping", None, None, None),
    ],
)
def test_what_a_message_is_about_is_found(exchange, method, params, kind, name):
    ex = exchange(message(method, params, id="7"))
    read_message(ex)
    assert (ex.method, ex.kind, ex.name, ex.id) == (method, kind, name, b'"7"')


def test_only_a_tool_is_called_a_tool(exchange):
    for method, params, tool in (
        ("tools/call", {"name": "echo"}, "echo"),
        ("prompts/get", {"name": "echo"}, None),
        ("resources/read", {"uri": "echo"}, None),
        ("tools/list", {}, None),
    ):
        ex = exchange(message(method, params))
        read_message(ex)
        assert ex.tool == tool


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"jsonrpc":"1.0","method":"ping","id":1}'])
def test_what_is_no_message_is_refused(exchange, text):
    with pytest.raises(BadRequest) as refused:
        read_message(exchange(text))
    assert refused.value.status == 400


def test_a_refusal_knows_the_id_where_it_was_understood(exchange):
    ex = exchange(b'{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{"name":7}}')
    with pytest.raises(BadRequest) as refused:
        read_message(ex)
    assert refused.value.id == b'"q"'


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"content-type": b"text/plain"}, 415),
        ({b"content-type": b""}, 415),
        ({b"content-encoding": b"gzip"}, 415),
        ({b"mcp-method": b"ping"}, 400),
        ({b"mcp-name": b"other"}, 400),
        ({b"mcp-name": b"=?base64?!?="}, 400),
    ],
)
def test_headers_that_do_not_fit_the_message_are_refused(exchange, headers, status):
    ex = exchange(message("tools/call", {"name": "echo"}), headers=headers)
    with pytest.raises(GatewayError) as refused:
        read_message(ex)
    assert refused.value.status == status


def test_headers_that_fit_pass(exchange):
    headers = {b"mcp-method": b"tools/call", b"mcp-name": b"=?base64?ZWNobw==?="}
    read_message(exchange(message("tools/call", {"name": "echo"}), headers=headers))


def test_a_task_id_is_a_name_too(exchange):
    headers = {b"mcp-name": b"t1"}
    read_message(exchange(message("tasks/get", {"taskId": "t1"}), headers=headers))
    with pytest.raises(HeaderMismatch):
        read_message(exchange(message("tasks/get", {"taskId": "t2"}), headers=headers))


def test_a_response_of_the_client_is_a_message_without_a_method(exchange):
    ex = exchange({"jsonrpc": "2.0", "id": 1, "result": {}})
    read_message(ex)
    assert ex.method == "response"
    with pytest.raises(HeaderMismatch):
        read_message(
            exchange({"jsonrpc": "2.0", "id": 1, "result": {}}, headers={b"mcp-method": b"ping"})
        )


@pytest.mark.parametrize(("method", "status"), [("PUT", 405), ("HEAD", 405), ("PATCH", 405)])
def test_other_methods_are_refused(exchange, method, status):
    with pytest.raises(BadRequest) as refused:
        read_message(exchange(method=method))
    assert refused.value.status == status
    assert (b"allow", b"GET, POST, DELETE") in refused.value.headers


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_belongs_is_refused(exchange, method):
    read_message(exchange(method=method))
    with pytest.raises(BadRequest):
        read_message(exchange(b"{}", method=method))


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({"ref": {"type": "ref/prompt", "name": "p"}}, [(Kind.PROMPT, "p")]),
        ({"ref": {"type": "ref/resource", "uri": "a://{b}"}}, [(Kind.TEMPLATE, "a://{b}")]),
    ],
)
def test_a_completion_names_what_it_completes(exchange, params, found):
    ex = exchange(message("completion/complete", params))
    read_message(ex)
    assert more_targets(ex) == found


@pytest.mark.parametrize(
    "params",
    [
        {"ref": {"type": "ref/other", "name": "p"}},
        {"ref": {"type": "ref/prompt"}},
        {"ref": {"type": "ref/prompt", "name": ""}},
        {"ref": {"type": "ref/prompt", "name": 7}},
        {"ref": {"type": "ref/prompt", "name": "p", "uri": "u"}},
        {"ref": {"type": "ref/prompt", "name": "p", "Name": "q"}},
    ],
)
def test_a_completion_that_can_not_be_judged_is_refused(exchange, params):
    ex = exchange(message("completion/complete", params))
    with pytest.raises(BadRequest) as refused:
        read_message(ex)
        more_targets(ex)
    assert refused.value.rpc_code == -32602


def test_a_subscription_names_each_of_its_resources(exchange):
    uris = {"resourceSubscriptions": ["a://1", "a://2"]}
    ex = exchange(message("subscriptions/listen", {"notifications": uris}))
    read_message(ex)
    assert more_targets(ex) == [(Kind.RESOURCE, "a://1"), (Kind.RESOURCE, "a://2")]


@pytest.mark.parametrize("uris", ["a://1", [7], {"a": 1}, ["a://1", None], ["a://"] * 513])
def test_a_subscription_that_can_not_be_judged_is_refused(exchange, uris):
    ex = exchange(
        message("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
    )
    with pytest.raises(BadRequest):
        read_message(ex)
        more_targets(ex)


def test_the_path_names_the_server(exchange):
    ex = exchange()
    find_route(ex)
    assert (ex.route.name, ex.upstream_path) == ("demo", None)


@pytest.mark.parametrize("path", ["/", "/mcp", "/mcp/", "/mcp/other", "/mcp/DEMO", "/mcp/demo/x"])
def test_another_path_is_unknown(exchange, path):
    with pytest.raises(UnknownServer):
        find_route(exchange(path=path))


PATHS = {"servers": [{"name": "demo", "url": "http://127.0.0.1:9/mcp", "paths": ["/**"]}]}


@pytest.mark.parametrize(
    "below",
    ["..", "../x", "a/../b", "a/%2e%2e/b", "a/%252e%252e/b", "a%2f..%2fb", "a\\..\\b", "..;/x",
     "a//b", "%00", "a%0ab", "./x"],
)  # fmt: skip
def test_no_path_below_leads_elsewhere(exchange, below):
    with pytest.raises(UnknownServer):
        find_route(exchange(path=f"/mcp/demo/{below}", config=PATHS))


def test_a_query_goes_on_only_where_it_may(exchange):
    with pytest.raises(BadRequest, match="forward_query"):
        find_route(exchange(path="/mcp/demo?a=1"))
    server = {"name": "demo", "url": "http://127.0.0.1:9/mcp?key=1", "forward_query": True}
    find_route(exchange(path="/mcp/demo?a=1", config={"servers": [server]}))
    for query in ("key=2", "KEY=2", "k%65y=2", "a=1;key=2", "key[]=2"):
        with pytest.raises(BadRequest, match="parameter"):
            find_route(exchange(path=f"/mcp/demo?{query}", config={"servers": [server]}))


def test_the_depth_of_a_message_is_bounded(exchange):
    deep = json.dumps(message("ping")).encode()[:-1] + b',"x":' + b"[" * 500 + b"]" * 500 + b"}"
    with pytest.raises(BadRequest):
        read_message(exchange(deep))


@pytest.mark.parametrize("query", ["access_token=x", "a=1&Access%5FToken=x", "access_token[]=x"])
def test_a_token_in_the_query_goes_nowhere(exchange, query):
    server = {"name": "demo", "url": "http://127.0.0.1:9/mcp", "forward_query": True}
    with pytest.raises(BadRequest):
        find_route(exchange(path=f"/mcp/demo?{query}", config={"servers": [server]}))
