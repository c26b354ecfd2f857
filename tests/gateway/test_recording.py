"""Every exchange is told of once; the rest of it is tested on the wire."""

import json
from types import SimpleNamespace

import pytest

from mcpx._speedups.frames import scan
from mcpx.config.model import AuditConfig
from mcpx.core.policy import Kind
from mcpx.gateway.recording import record, trace_of_message
from mcpx.services.audit_record import AuditRecord

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


class Told:
    """Keeps what it is told."""

    def __init__(self):
        self.records = []
        self.durations = []

    def observe(self, _ex, duration_s):
        self.durations.append(duration_s)

    def put(self, one):
        self.records.append(one)


def finished(**fields):
    """An exchange that is over, with a value of its own in each field."""
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":1}}}'
    )
    return SimpleNamespace(
        **{
            "route": SimpleNamespace(name="a server"),
            "principal": SimpleNamespace(name="a client"),
            "request": SimpleNamespace(method="POST", body=body),
            "frame": scan(body),
            "snapshot": SimpleNamespace(config=SimpleNamespace(audit=AuditConfig(arguments=True))),
            "trace": None,
            "started_s": 0.5,
            "method": "a method",
            "kind": Kind.PROMPT,
            "tool": "a tool",
            "name": "a target",
            "client_ip": "an address",
            "session": b"a session",
            "request_id": b"an-id",
            "allowed": True,
            "reason": "a reason",
            "rule": "a rule",
            "status": 201,
            "outcome": "an outcome",
            "cache": "hit",
            **fields,
        }
    )


async def told(mock_clock, **fields):
    told = Told()
    mock_clock.jump(2.0)
    record(finished(**fields), SimpleNamespace(metrics=told, audit=told, tracer=None))
    assert told.durations == [1.5]
    return told.records


async def test_each_field_of_the_record_says_what_it_is_named_for(mock_clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert await told(mock_clock) == [
        AuditRecord(
            time=1e9,
            server="a server",
            method="a method",
            http_method="POST",
            tool="a tool",
            client="a client",
            client_ip="an address",
            session=b"a session",
            request_id="an-id",
            allowed=True,
            reason="a reason",
            rule="a rule",
            status=201,
            outcome="an outcome",
            duration_s=1.5,
            arguments=b'{"a":1}',
            target="a target",
            cache="hit",
        )
    ]


async def test_arguments_are_kept_where_they_are_asked_for_alone(mock_clock):
    quiet = SimpleNamespace(config=SimpleNamespace(audit=AuditConfig(arguments=False)))
    assert (await told(mock_clock, snapshot=quiet))[0].arguments is None


async def test_a_tool_is_no_target_and_what_found_no_server_names_none(mock_clock):
    (one,) = await told(mock_clock, kind=Kind.TOOL, route=None, frame=None)
    assert (one.target, one.server, one.arguments) == (None, "", None)


async def test_a_page_of_the_gateway_has_no_line(mock_clock):
    assert await told(mock_clock, outcome="page") == []


def test_what_has_no_message_has_no_context():
    assert trace_of_message(SimpleNamespace(frame=None, request=SimpleNamespace(body=b""))) == (
        None,
        None,
    )
