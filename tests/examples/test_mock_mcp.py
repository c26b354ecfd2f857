"""The mock MCP server answers as MCP servers do, and touches nothing."""

from __future__ import annotations

import http.client
import json
import threading

import pytest

from examples.mock_mcp.messages import PROTOCOL_VERSION, InvalidMessageError, answer
from examples.mock_mcp.server import BODY_LIMIT_BYTES, MockServer, parse_address


@pytest.fixture(scope="module")
def server():
    with MockServer("127.0.0.1", 0, quiet=True) as mock:
        thread = threading.Thread(target=mock.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield mock
        mock.shutdown()
        thread.join()


def exchange(server, method, *, body=None, path="/mcp", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(
            method, path, body=body, headers={"Connection": "close", **(headers or {})}
        )
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def ask(server, method, params=None, **members):
    message = {"jsonrpc": "2.0", "id": 7, "method": method, **members}
    if params is not None:
        message["params"] = params
    status, headers, body = exchange(server, "POST", body=json.dumps(message))
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    reply = json.loads(body)
    assert reply["jsonrpc"] == "2.0"
    assert reply["id"] == message["id"]
    return reply


def said(reply):
    (block,) = reply["result"]["content"]
    return block["text"]


def test_get_on_any_path_says_that_it_lives(server):
    status, headers, body = exchange(server, "GET", path="/anything")
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert headers["Content-Type"] == "application/json"


def test_it_offers_the_three_tools_with_their_schemas(server):
    tools = ask(server, "tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["echo", "read_file", "dangerous_delete"]
    for tool in tools:
        schema = tool["inputSchema"]
        assert schema["type"] == "object"
        assert set(schema["required"]) == set(schema["properties"])


@pytest.mark.parametrize("asked", ["2024-11-05", "2025-03-26", "2025-06-18"])
def test_a_known_version_is_agreed_to(server, asked):
    result = ask(server, "initialize", {"protocolVersion": asked, "capabilities": {}})["result"]
    assert result["protocolVersion"] == asked
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "mock-mcp"


@pytest.mark.parametrize("asked", ["1999-01-01", "", None, 7, ["2025-06-18"]])
def test_an_unknown_version_is_answered_with_its_own(server, asked):
    result = ask(server, "initialize", {"protocolVersion": asked})["result"]
    assert result["protocolVersion"] == PROTOCOL_VERSION


def test_ping_is_answered_with_nothing(server):
    assert ask(server, "ping")["result"] == {}


def test_echo_says_the_same_thing_back(server):
    text = 'ä {0} %s "quoted" \u2028 \U0001f600'
    reply = ask(server, "tools/call", {"name": "echo", "arguments": {"message": text}})
    assert said(reply) == text
    assert reply["result"]["isError"] is False


def test_read_file_reads_no_file(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("the contents")
    reply = ask(server, "tools/call", {"name": "read_file", "arguments": {"path": str(secret)}})
    assert str(secret) in said(reply)
    assert "the contents" not in said(reply)


def test_dangerous_delete_deletes_nothing(server, tmp_path):
    kept = tmp_path / "kept"
    kept.touch()
    reply = ask(
        server, "tools/call", {"name": "dangerous_delete", "arguments": {"path": str(kept)}}
    )
    assert reply["result"]["isError"] is False
    assert kept.exists()


@pytest.mark.parametrize("arguments", [{}, {"message": 5}, {"Message": "x"}])
def test_a_bad_argument_is_a_result_that_the_model_can_read(server, arguments):
    reply = ask(server, "tools/call", {"name": "echo", "arguments": arguments})
    assert reply["result"]["isError"] is True
    assert "message" in said(reply)


@pytest.mark.parametrize("id", [0, -1, "", "a", 1.5, 2**70])
def test_the_id_comes_back_as_it_was(server, id):
    assert ask(server, "ping", id=id)["id"] == id


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("no/such", {}, -32601),
        ("server/discover", {}, -32601),
        ("tools/call", {"name": "rm"}, -32602),
        ("tools/call", {}, -32602),
        ("tools/call", {"name": ["echo"]}, -32602),
        ("tools/call", {"name": "echo", "arguments": []}, -32602),
        ("tools/call", [], -32602),
    ],
)
def test_what_it_can_not_do_is_a_json_rpc_error(server, method, params, code):
    assert ask(server, method, params)["error"]["code"] == code


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "no/such"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}},
    ],
)
def test_what_asks_for_no_answer_gets_202_and_no_body(server, message):
    status, headers, body = exchange(server, "POST", body=json.dumps(message))
    assert (status, body) == (202, b"")
    assert headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b"7", -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
    ],
)
def test_what_is_no_message_gets_400_and_a_json_rpc_error(server, body, code):
    with pytest.raises(InvalidMessageError) as fault:
        answer(body)
    assert fault.value.reply["error"]["code"] == code
    status, _, reply = exchange(server, "POST", body=body)
    assert (status, json.loads(reply)) == (400, fault.value.reply)


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}])
def test_a_body_without_a_length_is_refused(server, headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest("POST", "/")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (411, "close")
    finally:
        connection.close()


@pytest.mark.parametrize("length", [str(BODY_LIMIT_BYTES + 1), "9" * 5000])
def test_a_body_over_the_limit_is_refused_unread(server, length):
    status, headers, _ = exchange(server, "POST", headers={"Content-Length": length})
    assert (status, headers["Connection"]) == (413, "close")


def test_delete_is_not_allowed_for_there_are_no_sessions(server):
    status, headers, _ = exchange(server, "DELETE")
    assert (status, headers["Allow"]) == (405, "GET, POST")


def test_a_connection_serves_many_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        for id in range(3):
            connection.request(
                "POST", "/", body=json.dumps({"jsonrpc": "2.0", "id": id, "method": "ping"})
            )
            assert json.loads(connection.getresponse().read())["id"] == id
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":3001", ("127.0.0.1", 3001)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_an_address_without_a_host_is_the_loopback_one(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["3001", "", ":", ":x", ":65536", ":-1", "host", ":³"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="is not host:port"):
        parse_address(text)
