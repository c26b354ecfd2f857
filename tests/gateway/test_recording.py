"""Every exchange is told of once; the rest of it is tested on the wire."""

import json
from types import SimpleNamespace

import pytest

from mcpx._speedups.frames import scan
from mcpx.gateway.recording import trace_of_message

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def exchange(meta=None):
    params = {"name": "echo"} if meta is None else {"name": "echo", "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    body = json.dumps(message).encode()
    return SimpleNamespace(frame=scan(body), request=SimpleNamespace(body=body))


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"traceparent": PARENT}, (PARENT, None)),
        ({"traceparent": PARENT, "tracestate": "a=1"}, (PARENT, "a=1")),
        ({"traceparent": 7}, (None, None)),
        ({"other": {"traceparent": PARENT}}, (None, None)),
    ],
)
def test_the_context_is_read_from_the_messages_own_meta(meta, found):
    assert trace_of_message(exchange(meta)) == found


def test_what_has_no_message_has_no_context():
    assert trace_of_message(SimpleNamespace(frame=None, request=SimpleNamespace(body=b""))) == (
        None,
        None,
    )
