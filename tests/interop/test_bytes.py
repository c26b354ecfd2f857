"""What the server wrote is what the client gets, byte for byte.

The official client understands an answer and lets go of its bytes; here they are
compared: status, content type and body of the answers to the same requests, once
straight from the server and once through the gateway.
"""

from __future__ import annotations

import json

import httpx
import pytest

LIMIT_S = 30
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bytes", "version": "1"},
}
REQUESTS = {
    "discover": ("server/discover", {}),
    "tools": ("tools/list", {}),
    "resources": ("resources/list", {}),
    "templates": ("resources/templates/list", {}),
    "prompts": ("prompts/list", {}),
    "call": ("tools/call", {"name": "echo", "arguments": {"text": "æ \u2028 /"}}),
    "structure": ("tools/call", {"name": "add", "arguments": {"a": 2**80, "b": -1}}),
    "failure": ("tools/call", {"name": "fail", "arguments": {"reason": "calm"}}),
    "error": ("tools/call", {"name": "reject", "arguments": {"reason": "calm"}}),
    "lacking capability": ("tools/call", {"name": "greet", "arguments": {}}),
    "log events": (
        "tools/call",
        {
            "name": "talk",
            "arguments": {"lines": 3},
            "_meta": {"io.modelcontextprotocol/logLevel": "debug"},
        },
    ),
    "resource": ("resources/read", {"uri": "note://static"}),
    "bytes": ("resources/read", {"uri": "image://pixel"}),
    "unknown resource": ("resources/read", {"uri": "note://nowhere"}),
    "prompt": ("prompts/get", {"name": "summarise", "arguments": {"topic": "tides"}}),
    "completion": (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "summarise"},
            "argument": {"name": "topic", "value": "t"},
        },
    ),
}
LEGACY_REQUESTS = sorted(set(REQUESTS) - {"discover", "lacking capability", "log events"})


@pytest.fixture
def http():
    with httpx.Client(timeout=LIMIT_S, trust_env=False) as client:
        yield client


@pytest.fixture(params=[7, "seven", 2**53 + 1], ids=["number", "text", "big-number"])
def identifier(request):
    """The request's id, which must come back as it was, type and all."""
    return request.param


@pytest.mark.parametrize("name", REQUESTS)
def test_a_modern_answer_comes_through_byte_for_byte(both_ways, http, name, identifier):
    method, params = REQUESTS[name]
    body = request_text(
        identifier, method, {**params, "_meta": {**META, **params.get("_meta", {})}}
    )
    headers = {**ACCEPTING, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    if "name" in params or "uri" in params:
        headers["mcp-name"] = params.get("name", params.get("uri"))
    direct, gateway = (http.post(way("sdk"), content=body, headers=headers) for way in both_ways)
    assert parts(gateway) == parts(direct)
    assert b'"id":' + json.dumps(identifier).encode() in direct.content.replace(b'": ', b'":')


@pytest.mark.parametrize("name", LEGACY_REQUESTS)
def test_a_legacy_answer_comes_through_byte_for_byte(both_ways, http, name):
    direct, gateway = (legacy_answer(http, way("sdk"), *REQUESTS[name]) for way in both_ways)
    assert parts(gateway) == parts(direct)


def test_a_modern_request_to_a_legacy_server_gets_that_server_s_own_refusal(both_ways, http):
    """A client that speaks both eras reads from it that it must use the older one."""
    body = request_text(1, "server/discover", {"_meta": META})
    headers = {**ACCEPTING, "mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover"}
    direct, gateway = (
        http.post(way("everything"), content=body, headers=headers) for way in both_ways
    )
    assert direct.status_code == 400
    assert gateway.status_code == direct.status_code
    assert gateway.json()["error"] == direct.json()["error"]


def test_a_session_that_the_server_does_not_know_is_refused_with_its_status(both_ways, http):
    body = request_text(1, "tools/list", {})
    headers = {
        **ACCEPTING,
        "mcp-protocol-version": "2025-11-25",
        "mcp-session-id": "0123456789abcdef0123456789abcdef",
    }
    direct, gateway = (http.post(way("sdk"), content=body, headers=headers) for way in both_ways)
    assert direct.status_code == gateway.status_code == 404


ACCEPTING = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
}


def request_text(identifier, method, params):
    message = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
    return json.dumps(message).encode()


def legacy_answer(http, url, method, params):
    """The answer within a session that is opened for it and ended after it."""
    opening = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bytes", "version": "1"},
    }
    opened = http.post(url, content=request_text(0, "initialize", opening), headers=ACCEPTING)
    assert opened.status_code == 200
    headers = {
        **ACCEPTING,
        "mcp-protocol-version": "2025-11-25",
        "mcp-session-id": opened.headers["mcp-session-id"],
    }
    ready = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    assert http.post(url, content=ready, headers=headers).status_code == 202
    answer = http.post(url, content=request_text(1, method, params), headers=headers)
    assert http.delete(url, headers=headers).status_code == 200
    assert http.post(url, content=ready, headers=headers).status_code == 404
    return answer


def parts(response):
    return response.status_code, response.headers["content-type"], response.content
