import json
import os
import random
import ssl
import threading

import pytest
import trustme
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support.collector import Collector, attributes

from mcpx.config.model import TracingConfig
from mcpx.core.trace_context import Parent
from mcpx.services import spans as spans_module
from mcpx.services.spans import (
    MAX_ANSWER_BYTES,
    MAX_TEXT,
    Facts,
    SpanMaker,
    Trace,
    Unusable,
    exporter_for,
)

TRACE, SPAN, CALLER = b"0af7651916cd43dd8448eb211c80319c", b"00f067aa0ba902b7", b"b7ad6b7169203331"
ENDED_NS = 1_790_000_000_000_000_000


def maker():
    return SpanMaker("gate", "1.2.3", random.Random(5).getrandbits)


CALLED = Parent(TRACE, CALLER, True)


def trace(parent=CALLED, link=None, **moments):
    made = Trace(TRACE, SPAN, parent, sampled=True)
    made.link = link
    for name, moment in moments.items():
        setattr(made, name, moment)
    return made


def facts(**more):
    return Facts(
        **{
            "started_s": 100.0,
            "ended_s": 100.5,
            "http_method": "POST",
            "path": b"/mcp/demo",
            "status": 200,
            "outcome": "ok",
            "allowed": True,
            "request_id": b"r-1",
            "server": "demo",
            "method": "tools/call",
            "tool": "echo",
            "client": "alice",
            **more,
        }
    )


WHOLE = {
    "policy_from_s": 100.01,
    "policy_to_s": 100.02,
    "proxy_from_s": 100.03,
    "proxy_to_s": 100.49,
}


def export(exporter, *finished):
    return exporter.export(maker().all([(*one, ENDED_NS) for one in finished]))


def sent(*finished):
    """The spans of requests as a collector gets them, by name."""
    with Collector() as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1.2.3")
        assert export(exporter, *finished) is None
        exporter.close()
    return {span.name: span for span in collector.spans}


# -- what is said ---------------------------------------------------------------


def test_a_request_is_three_spans_that_belong_together():
    found = sent((trace(**WHOLE), facts()))
    assert list(found) == ["mcpx.request", "mcpx.policy", "mcpx.proxy"]
    request, policy, proxy = found.values()
    assert {span.trace_id.hex().encode() for span in found.values()} == {TRACE}
    assert request.parent_span_id.hex().encode() == CALLER
    assert policy.parent_span_id == proxy.parent_span_id == request.span_id
    assert proxy.span_id.hex().encode() == SPAN
    assert len({span.span_id for span in found.values()}) == 3
    assert request.kind == Span.SPAN_KIND_SERVER
    assert policy.kind == Span.SPAN_KIND_INTERNAL
    assert proxy.kind == Span.SPAN_KIND_CLIENT
    assert attributes(request.attributes) == {
        "http.request.method": "POST",
        "url.path": "/mcp/demo",
        "http.response.status_code": 200,
        "mcpx.server": "demo",
        "mcpx.method": "tools/call",
        "mcpx.tool": "echo",
        "mcpx.client": "alice",
        "mcpx.decision": "allow",
        "mcpx.outcome": "ok",
        "mcpx.request_id": "r-1",
    }
    assert attributes(policy.attributes) == {"mcpx.decision": "allow"}
    assert attributes(proxy.attributes) == {"mcpx.transport": "http", "mcpx.server": "demo"}
    assert {span.status.code for span in found.values()} == {Status.STATUS_CODE_UNSET}


def test_times_are_those_that_were_noted():
    request, policy, proxy = sent((trace(**WHOLE), facts())).values()
    assert request.end_time_unix_nano == ENDED_NS
    began = [span.start_time_unix_nano for span in (request, policy, proxy)]
    ended = [span.end_time_unix_nano for span in (policy, proxy)]
    for found, since_end_s in zip([*began, *ended], [0.5, 0.49, 0.47, 0.48, 0.01], strict=True):
        assert found == pytest.approx(ENDED_NS - since_end_s * 1e9, abs=10)
        assert isinstance(found, int)


def test_a_phase_that_was_not_left_ends_with_the_request():
    found = sent((trace(policy_from_s=100.0, proxy_from_s=100.1), facts(outcome="timeout")))
    assert found["mcpx.policy"].end_time_unix_nano == ENDED_NS
    assert found["mcpx.proxy"].end_time_unix_nano == ENDED_NS
    # What the policies would have said is not known.
    assert attributes(found["mcpx.policy"].attributes) == {}


def test_a_trace_that_begins_here_has_no_parent():
    (request,) = sent((trace(parent=None), facts())).values()
    assert request.parent_span_id == b""
    assert request.trace_state == ""


def test_the_callers_state_and_the_other_trace_are_told():
    link = Parent(b"4bf92f3577b34da6a3ce929d0e0e4736", b"1" * 16, False)
    parent = Parent(TRACE, CALLER, True, b"foo=1,bar=2")
    found = sent((trace(parent=parent, link=link, **WHOLE), facts()))
    assert {span.trace_state for span in found.values()} == {"foo=1,bar=2"}
    (told,) = found["mcpx.request"].links
    assert (told.trace_id.hex().encode(), told.span_id.hex().encode()) == link[:2]
    assert not found["mcpx.proxy"].links


def test_a_refusal_is_an_error_of_its_request_and_of_the_policy():
    found = sent((trace(policy_from_s=100.1), facts(status=403, outcome="denied", allowed=False)))
    assert list(found) == ["mcpx.request", "mcpx.policy"]
    for span in found.values():
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.status.message == "denied"
        assert attributes(span.attributes)["mcpx.decision"] == "deny"
    assert attributes(found["mcpx.request"].attributes)["error.type"] == "denied"


@pytest.mark.parametrize(
    ("more", "request_fails", "proxy_fails"),
    [
        ({"status": 200, "outcome": "tool_error"}, False, False),
        ({"status": 404, "outcome": "rpc_error"}, False, False),
        ({"status": 500, "outcome": "http_error"}, True, True),
        ({"status": 504, "outcome": "timeout"}, True, True),
        ({"status": 200, "outcome": "upstream_error"}, True, True),
        ({"status": 200, "outcome": "error"}, True, False),
        ({"status": 429, "outcome": "limited", "allowed": False}, True, False),
        ({"status": 200, "outcome": "client_gone"}, False, False),
    ],
)
def test_what_failed_is_an_error(more, request_fails, proxy_fails):
    found = sent((trace(**WHOLE), facts(**more)))
    for name, fails in (
        ("mcpx.request", request_fails),
        ("mcpx.proxy", proxy_fails),
        ("mcpx.policy", False),
    ):
        assert (found[name].status.code == Status.STATUS_CODE_ERROR) is fails
        assert found[name].status.message == (more["outcome"] if fails else "")


def test_a_stream_is_marked_with_its_beginning():
    found = sent((trace(stream_from_s=100.25, **WHOLE), facts()))
    (began,) = found["mcpx.request"].events
    assert began.name == "stream.start"
    assert began.time_unix_nano == ENDED_NS - 250_000_000
    assert attributes(found["mcpx.request"].attributes)["mcpx.streaming"] is True


def test_what_is_not_there_is_left_out():
    (request,) = sent(
        (trace(), facts(status=0, server="", method="", tool="", client="", request_id=b""))
    ).values()
    assert set(attributes(request.attributes)) == {
        "http.request.method",
        "url.path",
        "mcpx.decision",
        "mcpx.outcome",
    }


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800" * 300, "é\x00\n" * 1000, "😀" * 300])
def test_a_clients_texts_are_cut_and_made_whole(text):
    path = b"/mcp/" + text.encode("utf-8", "surrogatepass")
    told = facts(tool=text, method=text, http_method=text, path=path, client=text, server=text)
    assert max(map(len, (told.tool, told.method, told.http_method, told.path))) <= MAX_TEXT
    found = sent((trace(**WHOLE), told))
    values = attributes(found["mcpx.request"].attributes)
    assert {"mcpx.tool", "mcpx.method", "mcpx.client", "mcpx.server", "url.path"} <= set(values)
    assert max(len(str(value)) for value in values.values()) <= MAX_TEXT
    assert list(found) == ["mcpx.request", "mcpx.policy", "mcpx.proxy"]


def test_who_sends_is_told_with_each_export():
    with Collector() as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1.2.3")
        export(exporter, (trace(), facts()))
        exporter.close()
    (taken,) = collector.taken
    assert taken.resource["service.name"] == "gate"
    assert taken.resource["service.version"] == "1.2.3"
    (resource,) = taken.message.resource_spans
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("mcpx", "1.2.3")


# -- what is noted --------------------------------------------------------------


async def test_moments_are_noted_where_a_request_is_recorded(mock_clock):
    noted = trace(parent=None)
    for step in ("policy_begins", "policy_ends", "proxy_begins", "stream_begins", "proxy_ends"):
        getattr(noted, step)()
        mock_clock.jump(1)
    moments = (noted.policy_from_s, noted.policy_to_s, noted.proxy_from_s, noted.stream_from_s)
    assert (*moments, noted.proxy_to_s) == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert noted.spans == 3


async def test_nothing_is_noted_where_it_is_not():
    noted = Trace(TRACE, SPAN, None, sampled=False)
    for step in ("policy_begins", "policy_ends", "proxy_begins", "stream_begins", "proxy_ends"):
        getattr(noted, step)()
    assert noted.policy_from_s is noted.policy_to_s is noted.proxy_from_s is None
    assert noted.proxy_to_s is noted.stream_from_s is None


def test_the_server_is_told_its_parent():
    assert trace(parent=None).outgoing() == [
        (b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-01")
    ]
    kept = trace(parent=Parent(TRACE, CALLER, False, b"a=1"))
    kept.sampled = False
    assert kept.outgoing() == [
        (b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-00"),
        (b"tracestate", b"a=1"),
    ]


# -- OTLP -----------------------------------------------------------------------


def test_an_export_carries_what_is_configured():
    with Collector() as collector:
        config = TracingConfig(
            endpoint=collector.address, headers={"X-Team": "ops", "Authorization": "Bearer k"}
        )
        exporter = exporter_for(config, "1.2.3")
        assert export(exporter, (trace(), facts())) is None
        exporter.close()
    (taken,) = collector.taken
    assert taken.path == "/v1/traces"
    assert taken.headers["x-team"] == "ops"
    assert taken.headers["authorization"] == "Bearer k"
    assert taken.headers["content-type"] == "application/x-protobuf"
    assert taken.headers["user-agent"] == "mcpx/1.2.3"
    assert "content-encoding" not in taken.headers


def test_a_connection_is_kept_for_the_next_export():
    def answer(handler):
        handler.send_response(200)
        handler.send_header("content-length", "2")
        handler.end_headers()
        handler.wfile.write(b"ok")

    with Collector(answer) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        for _ in range(3):
            assert export(exporter, (trace(), facts())) is None
        exporter.close()
    assert [taken.connection for taken in collector.taken] == [1, 1, 1]


def test_the_environment_has_no_say(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password hunter2")
    with Collector() as trap, Collector() as collector:
        for name, value in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{trap.address}",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://{trap.address}/v1/traces",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-eve=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-eve=2",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere",
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/nowhere",
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/nowhere",
            "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "eve",
            "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
            "OTEL_SDK_DISABLED": "true",
            "OTEL_SERVICE_NAME": "eve",
            "OTEL_RESOURCE_ATTRIBUTES": "eve=1",
            "OTEL_TRACES_SAMPLER": "always_off",
            "REQUESTS_CA_BUNDLE": "/nowhere",
            "CURL_CA_BUNDLE": "/nowhere",
            "NETRC": str(tmp_path / "netrc"),
            "HTTP_PROXY": f"http://{trap.address}",
            "http_proxy": f"http://{trap.address}",
            "ALL_PROXY": f"http://{trap.address}",
            "all_proxy": f"http://{trap.address}",
        }.items():
            monkeypatch.setenv(name, value)
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        assert export(exporter, (trace(), facts())) is None
        exporter.close()
    assert trap.connections == 0
    (taken,) = collector.taken
    assert set(taken.headers) == {
        "host",
        "accept-encoding",
        "user-agent",
        "content-type",
        "content-length",
    }
    assert taken.resource["service.name"] == "gate"
    assert "eve" not in taken.resource


def test_a_redirect_is_not_followed_and_no_success():
    with Collector(307) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        assert export(exporter, (trace(), facts())) == "status 307"
        exporter.close()
    assert len(collector.taken) == 1


def test_a_refusal_is_told_by_its_status_and_not_repeated():
    with Collector(401) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        assert export(exporter, (trace(), facts())) == "status 401"
        exporter.close()
    assert len(collector.taken) == 1


def test_a_collector_that_is_busy_is_asked_again():
    def busy(handler):
        handler.send_response(503)
        handler.send_header("retry-after", "0")
        handler.send_header("content-length", "0")
        handler.end_headers()

    with Collector(busy, 200) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        assert export(exporter, (trace(), facts())) is None
        exporter.close()
    first, second = collector.taken
    assert first.message == second.message


def test_an_answer_without_an_end_is_not_waited_for():
    written = threading.Event()

    def endless(handler):
        handler.send_response(200)
        handler.send_header("content-length", str(1 << 40))
        handler.end_headers()
        handler.wfile.write(b"x" * (MAX_ANSWER_BYTES + 1))
        written.set()
        # Until the other side has had enough.
        handler.rfile.read(1)
        handler.close_connection = True

    with Collector(endless) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        assert export(exporter, (trace(), facts())) is None
        assert written.wait(20)
        exporter.close()


def test_an_answer_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(spans_module, "EXPORT_S", 0.2)
    enough = threading.Event()
    with Collector(lambda handler: enough.wait(20)) as collector:
        exporter = exporter_for(TracingConfig(endpoint=collector.address), "1")
        failure = export(exporter, (trace(), facts()))
        enough.set()
        exporter.close()
    assert failure in {"ReadTimeout", "ConnectionError", "ConnectTimeout"}


def test_a_collector_that_is_not_there_is_a_failure(monkeypatch):
    monkeypatch.setattr(spans_module, "EXPORT_S", 0.2)
    with Collector() as collector:
        address = collector.address
    exporter = exporter_for(TracingConfig(endpoint=address), "1")
    assert export(exporter, (trace(), facts())) == "ConnectionError"
    exporter.close()


def test_tls_is_verified_with_what_the_system_trusts(monkeypatch, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Collector(tls=context) as collector:
        config = TracingConfig(endpoint=collector.address, insecure=False)
        monkeypatch.setattr(spans_module, "EXPORT_S", 0.5)
        stranger = exporter_for(config, "1")
        assert export(stranger, (trace(), facts())) == "SSLError"
        stranger.close()
        assert collector.taken == []
        monkeypatch.setattr(spans_module, "EXPORT_S", 5.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        exporter = exporter_for(config, "1")
        assert export(exporter, (trace(), facts())) is None
        exporter.close()
    assert len(collector.taken) == 1


@pytest.mark.parametrize(
    "endpoint",
    [None, "", "collector", ":4318", "collector:x", "collector:99999", "http://c:1", "c:1/x",
     "u@c:1", "[::1:4318", "c:1?x"],
)  # fmt: skip
def test_an_endpoint_that_is_no_host_and_port_is_told_at_once(endpoint):
    with pytest.raises(Unusable, match=r"tracing\.endpoint"):
        exporter_for(TracingConfig(endpoint=endpoint), "1")


def test_an_address_of_ipv6_is_one():
    exporter_for(TracingConfig(endpoint="[::1]:4318"), "1").close()


def test_a_header_that_http_can_not_carry_is_told_without_its_value():
    config = TracingConfig(endpoint="c:1", headers={"authorization": "Bearer h∞nter2"})
    with pytest.raises(Unusable, match=r"tracing\.headers: 'authorization'") as told:
        exporter_for(config, "1")
    assert "nter2" not in str(told.value)


# -- standard output ------------------------------------------------------------


def test_standard_output_gets_one_object_for_each_span(capfd):
    exporter = exporter_for(TracingConfig(exporter="stdout"), "1")
    assert export(exporter, (trace(**WHOLE), facts(tool="é\n"))) is None
    exporter.close()
    text = capfd.readouterr().out
    found = []
    decoder = json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        assert text[end] == "\n"
        found.append(value)
        text = text[end + 1 :]
    assert [span["name"] for span in found] == ["mcpx.request", "mcpx.policy", "mcpx.proxy"]
    assert found[0]["attributes"]["mcpx.tool"] == "é\n"
    assert found[1]["parent_id"] == found[0]["context"]["span_id"]


def test_an_output_that_nobody_reads_is_a_failure_and_no_wait_without_end(monkeypatch):
    monkeypatch.setattr(spans_module, "EXPORT_S", 0.0)
    reading, writing = os.pipe()
    exporter = exporter_for(TracingConfig(exporter="stdout"), "1")
    exporter._sink = spans_module.DescriptorSink(writing, stall_s=0.01, budget_s=0.01)
    try:
        failure = export(exporter, *[(trace(**WHOLE), facts())] * 100)
    finally:
        os.close(reading)
        os.close(writing)
    assert failure == "nobody reads the output"
