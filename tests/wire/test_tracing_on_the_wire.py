"""A request leaves its spans, and its context goes on to the server."""

import trio
from support.client import call
from support.collector import Collector, attributes
from support.inprocess import running

CALLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
META = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def spans(collector, count):
    with trio.fail_after(10):
        while len(collector.spans) < count:
            await trio.sleep(0.02)
    return collector.spans


async def test_a_request_becomes_three_spans_and_the_server_is_told_its_parent(tmp_path):
    with Collector() as collector, Collector() as second:
        conf = {"tracing": {"enabled": True, "endpoint": collector.address}}
        off = {"tracing": {"enabled": True, "endpoint": second.address, "sample_ratio": 0}}
        async with running(tmp_path, conf) as gateway:
            r = await gateway.post(
                call("echo"), headers=[("traceparent", CALLED), ("tracestate", "a=1")]
            )
            assert r.status == 200
            seen = gateway.upstream.seen[-1]
            told = seen.header("traceparent")
            assert seen.header("tracestate") == "a=1"
            assert sum(n == b"traceparent" for n, _ in seen.headers) == 1
            found = {s.name: s for s in await spans(collector, 3)}
            assert set(found) == {"mcpx.request", "mcpx.policy", "mcpx.proxy"}
            assert (
                told
                == f"00-{found['mcpx.proxy'].trace_id.hex()}-{found['mcpx.proxy'].span_id.hex()}-01"
            )
            assert found["mcpx.request"].parent_span_id.hex() == "b7ad6b7169203331"
            told_of = attributes(found["mcpx.request"].attributes)
            assert told_of["mcpx.tool"] == "echo"
            assert told_of["mcpx.server"] == "demo"
            assert told_of["http.response.status_code"] == 200
            request = call("echo")
            request["params"]["_meta"] = {"traceparent": META, "tracestate": "b=2"}
            await gateway.post(request, headers=[("traceparent", CALLED)])
            six = (await spans(collector, 6))[3:]
            assert {s.trace_id.hex() for s in six} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
            assert six[0].links[0].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
            assert gateway.upstream.seen[-1].message["params"]["_meta"]["traceparent"] == META
            await gateway.post(b"{", path="/mcp/none")
            (seven,) = (await spans(collector, 7))[6:]
            assert attributes(seven.attributes)["mcpx.decision"] == "deny"
            with trio.fail_after(10):
                while gateway.app.state.tracer.exported < 7:
                    await trio.sleep(0.02)
            assert "mcpx_spans_exported_total 7.0" in await gateway.metrics()
            assert await gateway.reload(off)
            await gateway.post(call("echo"))
            assert gateway.upstream.seen[-1].header("traceparent").endswith("-00")
            await gateway.post(call("echo"), headers=[("traceparent", CALLED)])
        assert len(second.spans) == 3
        assert len(collector.spans) == 7
