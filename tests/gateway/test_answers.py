"""Whoever asks is refused in the form that they can read, and told no more than they may be."""

import json

import pytest

from mcpx.errors import BadRequest, PolicyDenied, RateLimited, Unauthorized
from mcpx.gateway.answers import refusal
from mcpx.gateway.front_door import read_message

CALL = {"jsonrpc": "2.0", "id": "x\u00e4", "method": "tools/call", "params": {"name": "echo"}}
META = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


def test_a_message_is_refused_with_its_id(exchange):
    ex = exchange(CALL)
    read_message(ex)
    status, headers, body = refusal(ex, PolicyDenied("no", reason="rule 7"))
    assert status == 403
    assert (b"content-type", b"application/json") in headers
    told = json.loads(body)
    assert (told["id"], told["error"]["code"], told["error"]["message"]) == (
        "x\u00e4",
        -32600,
        "no",
    )
    assert told["error"]["data"]["code"] == "policy_denied"
    assert told["error"]["data"]["request_id"] == dict(headers)[b"x-request-id"].decode()
    assert b"rule 7" not in body


def test_what_was_not_understood_is_refused_without_an_id(exchange):
    told = json.loads(refusal(exchange(b"nonsense"), BadRequest("what?"))[2])
    assert told["jsonrpc"] == "2.0"
    assert told.get("id") is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_carries_no_message_is_refused_in_the_plain_form(exchange, method):
    status, _, body = refusal(exchange(method=method), Unauthorized("who?"))
    assert status == 401
    told = json.loads(body)
    assert set(told) == {"error"}
    assert (told["error"]["code"], told["error"]["message"]) == ("unauthorized", "who?")


def test_the_headers_of_the_error_are_added(exchange):
    error = RateLimited("slow", headers=((b"retry-after", b"3"),))
    assert (b"retry-after", b"3") in refusal(exchange(CALL), error)[1]


def test_data_of_the_error_is_told_beside_the_code(exchange):
    told = json.loads(refusal(exchange(CALL), BadRequest("x", data={"more": 1}))[2])
    assert told["error"]["data"]["more"] == 1


def test_a_modern_client_gets_no_code_that_its_protocol_leaves_to_older_ones(exchange):
    for body, code in ((CALL, -32000), ({**CALL, "params": {"name": "echo", **META}}, -32603)):
        ex = exchange(body)
        read_message(ex)
        assert json.loads(refusal(ex, RateLimited("slow"))[2])["error"]["code"] == code
