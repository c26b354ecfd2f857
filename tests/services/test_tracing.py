import json
import logging
import random
import subprocess
import sys
import threading

import pytest
import trio
import trio.testing
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.collector import Collector, attributes

from mcpx.config.model import TracingConfig
from mcpx.core.trace_context import Parent, parse_traceparent
from mcpx.services import tracing
from mcpx.services.tracing import MAX_STATE_BYTES, Facts, Tracer

TRACE, CALLER = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
OTHER = b"4bf92f3577b34da6a3ce929d0e0e4736"
CALLED = b"00-" + TRACE + b"-" + CALLER + b"-01"
NOT_RECORDED = CALLED[:-1] + b"0"


class Memory:
    """An exporter that keeps what it gets, and fails or stalls when told to."""

    def __init__(self):
        self.batches = []
        self.failure = None
        self.raises = None
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.ended = threading.Semaphore(0)
        self.threads = set()

    def export(self, spans):
        self.begun.set()
        self.threads.add(threading.get_ident())
        self.gate.wait(30)
        if self.raises is not None:
            raise self.raises
        self.batches.append(list(spans))
        self.ended.release()
        return self.failure

    def close(self):
        self.closed += 1

    @property
    def spans(self):
        return [span for batch in self.batches for span in batch]


class Counter:
    def __init__(self):
        self.exported = self.dropped = 0

    def spans_exported(self, count):
        self.exported += count

    def spans_dropped(self, count):
        self.dropped += count


def tracer_of(exporter, *, ratio=1.0, **more):
    config = TracingConfig(enabled=True, endpoint="collector:4318", sample_ratio=ratio)
    more = {"flush_interval_s": 0, "getrandbits": random.Random(3).getrandbits, **more}
    return Tracer(config, exporter, version="1.2.3", **more)


def begin(tracer, *headers):
    return tracer.begin(dict(headers), list(headers))


def facts(**more):
    now = trio.current_time()
    return Facts(
        **{
            "started_s": now - 0.5,
            "ended_s": now,
            "http_method": "POST",
            "path": b"/mcp/demo",
            "status": 200,
            "outcome": "ok",
            "allowed": True,
            **more,
        }
    )


async def until(condition):
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.001)


# -- the beginning --------------------------------------------------------------


def test_a_trace_that_begins_here_is_recorded_by_its_ratio():
    tracer = tracer_of(Memory(), ratio=0.25)
    made = [begin(tracer) for _ in range(2000)]
    assert 0.2 < sum(trace.sampled for trace in made) / 2000 < 0.3
    assert len({trace.trace_id for trace in made}) == 2000
    assert {trace.parent for trace in made} == {None}


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("header", "sampled"), [(CALLED, True), (NOT_RECORDED, False)])
def test_who_began_a_trace_has_decided_for_it(ratio, header, sampled):
    trace = begin(tracer_of(Memory(), ratio=ratio), (b"traceparent", header))
    assert trace.sampled is sampled
    assert trace.trace_id == TRACE
    assert trace.parent.span_id == CALLER
    assert trace.span_id != CALLER


@pytest.mark.parametrize("sampled", [True, False])
def test_the_server_is_told_the_decision(sampled):
    header = CALLED if sampled else NOT_RECORDED
    trace = begin(tracer_of(Memory()), (b"traceparent", header), (b"tracestate", b"a=1 , b=2"))
    (_, parent), state = trace.outgoing()
    assert parse_traceparent(parent) == Parent(TRACE, trace.span_id, sampled)
    assert state == (b"tracestate", b"a=1,b=2")


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_context_that_can_not_be_read_is_replaced(ratio):
    headers = [(b"traceparent", CALLED + b"x"), (b"tracestate", b"a=1")]
    trace = begin(tracer_of(Memory(), ratio=ratio), *headers)
    assert trace.trace_id != TRACE
    assert trace.sampled is bool(ratio)
    ((_, parent),) = trace.outgoing()
    assert parse_traceparent(parent) == Parent(trace.trace_id, trace.span_id, bool(ratio))


def test_a_request_takes_the_trace_of_its_message():
    tracer = tracer_of(Memory(), ratio=0.0)
    trace = begin(tracer)
    own = trace.span_id
    trace.adopt(CALLED.decode(), "a=1")
    assert (trace.trace_id, trace.span_id, trace.sampled) == (TRACE, own, True)
    assert trace.parent == Parent(TRACE, CALLER, True, b"a=1")
    assert trace.link is None


def test_the_headers_context_is_linked_where_the_message_names_another():
    tracer = tracer_of(Memory())
    trace = begin(tracer, (b"traceparent", CALLED))
    trace.adopt(b"00-" + OTHER + b"-" + b"2" * 16 + b"-00")
    assert (trace.trace_id, trace.sampled) == (OTHER, False)
    assert trace.link == Parent(TRACE, CALLER, True)


@pytest.mark.parametrize(
    "said", [None, "", "nonsense", b"\xff" * 55, b"00-" + TRACE + b"-" + b"2" * 16 + b"-00"]
)
def test_a_message_that_names_no_other_trace_changes_nothing(said):
    tracer = tracer_of(Memory())
    trace = begin(tracer, (b"traceparent", CALLED))
    before = (trace.trace_id, trace.span_id, trace.parent, trace.sampled)
    trace.adopt(said)
    assert (trace.trace_id, trace.span_id, trace.parent, trace.sampled) == before
    assert trace.link is None


# -- the end --------------------------------------------------------------------


async def test_a_finished_request_reaches_a_collector(nursery):
    clock = iter([1_790_000_000_000_000_000])
    counter = Counter()
    with Collector() as collector:
        config = TracingConfig(
            enabled=True, endpoint=collector.address, service_name="gate", sample_ratio=1.0
        )
        tracer = Tracer.of(config, version="1.2.3", counting=counter)
        tracer._clock_ns = lambda: next(clock)
        await nursery.start(tracer.run)
        trace = begin(tracer, (b"traceparent", CALLED))
        trace.policy_begins()
        trace.policy_ends()
        trace.proxy_begins()
        ((_, told),) = trace.outgoing()
        trace.proxy_ends()
        tracer.finish(trace, facts(server="demo", method="tools/call", tool="echo"))
        tracer.stop()
        await until(lambda: counter.exported)
    request, policy, proxy = collector.spans
    assert [span.name for span in (request, policy, proxy)] == [
        "mcpx.request",
        "mcpx.policy",
        "mcpx.proxy",
    ]
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.trace_id.hex() == TRACE.decode()
    assert request.parent_span_id.hex() == CALLER.decode()
    assert policy.parent_span_id == proxy.parent_span_id == request.span_id
    assert parse_traceparent(told).span_id.decode() == proxy.span_id.hex()
    assert request.end_time_unix_nano == 1_790_000_000_000_000_000
    assert request.end_time_unix_nano - request.start_time_unix_nano == pytest.approx(5e8, abs=1e3)
    assert (
        request.start_time_unix_nano
        < policy.start_time_unix_nano
        <= policy.end_time_unix_nano
        <= proxy.start_time_unix_nano
        <= proxy.end_time_unix_nano
        <= request.end_time_unix_nano
    )
    assert attributes(request.attributes)["mcpx.tool"] == "echo"
    assert collector.taken[0].resource["service.name"] == "gate"
    assert (tracer.exported, tracer.dropped, counter.exported, counter.dropped) == (3, 0, 3, 0)


async def test_what_is_not_recorded_leaves_nothing(nursery):
    memory = Memory()
    tracer = tracer_of(memory)
    await nursery.start(tracer.run)
    tracer.finish(begin(tracer, (b"traceparent", NOT_RECORDED)), facts())
    assert len(tracer) == 0
    tracer.stop()
    await until(lambda: memory.closed)
    assert memory.batches == []


async def test_spans_are_made_and_sent_beside_the_loop(nursery):
    memory = Memory()
    tracer = tracer_of(memory)
    await nursery.start(tracer.run)
    for _ in range(3):
        tracer.finish(begin(tracer), facts())
    await until(lambda: tracer.exported == 3)
    assert threading.get_ident() not in memory.threads
    tracer.stop()


async def test_requests_are_gathered(autojump_clock):
    memory = Memory()
    tracer = tracer_of(memory, flush_interval_s=10, batch=3)
    async with trio.open_nursery() as nursery:
        await nursery.start(tracer.run)
        started = trio.current_time()
        tracer.finish(begin(tracer), facts())
        await trio.sleep(9)
        assert memory.batches == []
        await trio.to_thread.run_sync(memory.ended.acquire)
        assert trio.current_time() == pytest.approx(started + 10)
        # A full batch does not wait.
        for _ in range(3):
            tracer.finish(begin(tracer), facts())
        await trio.to_thread.run_sync(memory.ended.acquire)
        assert trio.current_time() == pytest.approx(started + 10)
        assert [len(batch) for batch in memory.batches] == [1, 3]
        tracer.stop()


async def test_what_there_is_no_room_for_is_counted(nursery, caplog):
    memory, counter = Memory(), Counter()
    memory.gate.clear()
    tracer = tracer_of(memory, queue=2, batch=1, counting=counter)
    await nursery.start(tracer.run)
    tracer.finish(begin(tracer), facts())
    await until(memory.begun.is_set)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            trace = begin(tracer)
            trace.proxy_begins()
            tracer.finish(trace, facts())
    assert (len(tracer), tracer.dropped, counter.dropped) == (2, 6, 6)
    # Told once, not for each.
    assert [record.fields["error"] for record in caplog.records] == ["the queue is full"]
    memory.gate.set()
    await until(lambda: tracer.exported == 5)
    tracer.stop()


async def test_a_failure_costs_its_spans_and_is_told_once(nursery, caplog):
    memory, counter = Memory(), Counter()
    memory.failure = "status 503"
    tracer = tracer_of(memory, counting=counter)
    caplog.set_level(logging.INFO)
    await nursery.start(tracer.run)
    for lost in (1, 2):
        tracer.finish(begin(tracer), facts())
        await until(lambda: tracer.dropped == lost)  # noqa: B023
    memory.failure = None
    for sent in (1, 2):
        tracer.finish(begin(tracer), facts())
        await until(lambda: tracer.exported == sent)  # noqa: B023
    assert (counter.exported, counter.dropped) == (2, 2)
    assert [record.message for record in caplog.records] == [
        "spans are dropped",
        "spans are exported again",
    ]
    assert caplog.records[0].fields["error"] == "status 503"
    tracer.stop()


async def test_an_exporter_that_raises_is_a_failure(nursery):
    memory = Memory()
    memory.raises = ZeroDivisionError("a secret")
    tracer = tracer_of(memory)
    await nursery.start(tracer.run)
    tracer.finish(begin(tracer), facts())
    await until(lambda: tracer.dropped == 1)
    memory.raises = None
    tracer.finish(begin(tracer), facts())
    await until(lambda: tracer.exported == 1)
    tracer.stop()


async def test_a_state_too_long_for_a_span_is_still_sent_on(nursery):
    memory = Memory()
    tracer = tracer_of(memory)
    await nursery.start(tracer.run)
    state = b",".join(b"k%d=" % n + b"v" * 100 for n in range(10))
    assert len(state) > MAX_STATE_BYTES
    trace = begin(tracer, (b"traceparent", CALLED), (b"tracestate", state))
    assert trace.outgoing()[1] == (b"tracestate", state)
    tracer.finish(trace, facts())
    await until(lambda: tracer.exported == 1)
    assert len(memory.spans[0].context.trace_state) == 0
    assert memory.spans[0].parent.span_id == int(CALLER, 16)
    tracer.stop()


# -- stopping -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_the_last_ones_are_exported(how):
    memory = Memory()
    tracer = tracer_of(memory, flush_interval_s=1000, batch=2)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(tracer.run)
            for _ in range(5):
                tracer.finish(begin(tracer), facts())
            if how == "stop":
                tracer.stop()
            else:
                nursery.cancel_scope.cancel()
    assert len(memory.spans) == tracer.exported == 5
    assert (tracer.dropped, memory.closed) == (0, 1)


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_the_end_does_not_wait_for_a_collector_that_stalls(how, autojump_clock, caplog):
    memory, counter = Memory(), Counter()
    memory.gate.clear()
    tracer = tracer_of(memory, batch=1, counting=counter)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(tracer.run)
            for _ in range(4):
                tracer.finish(begin(tracer), facts())
            await trio.to_thread.run_sync(memory.begun.wait)
            began = trio.current_time()
            if how == "stop":
                tracer.stop()
            else:
                nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(3.0)
    finally:
        memory.gate.set()
    assert (tracer.exported, tracer.dropped, counter.dropped) == (0, 4, 4)
    assert memory.closed == 1
    assert "the time for the last ones is over" in {r.fields["error"] for r in caplog.records}


async def test_what_comes_after_the_end_is_counted():
    memory = Memory()
    tracer = tracer_of(memory)
    tracer.stop()
    with trio.fail_after(20):
        await tracer.run()
    tracer.finish(begin(tracer), facts())
    assert (len(tracer), tracer.dropped) == (0, 1)


async def test_an_exporter_that_can_not_be_closed_does_no_harm():
    class Stuck(Memory):
        def close(self):
            raise OSError

    tracer = tracer_of(Stuck())
    tracer.stop()
    with trio.fail_after(20):
        await tracer.run()


# -- the configuration ----------------------------------------------------------


def test_without_tracing_there_is_no_tracer():
    assert Tracer.of(TracingConfig(endpoint="c:1"), version="1") is None


def test_a_tracer_knows_whether_it_is_still_the_right_one():
    config = TracingConfig(enabled=True, endpoint="c:4318", headers={"a": "b"})
    tracer = Tracer.of(config, version="1")
    assert tracer.matches(TracingConfig(enabled=True, endpoint="c:4318", headers={"a": "b"}))
    for other in (
        TracingConfig(enabled=False, endpoint="c:4318", headers={"a": "b"}),
        TracingConfig(enabled=True, endpoint="d:4318", headers={"a": "b"}),
        TracingConfig(enabled=True, endpoint="c:4318", headers={"a": "c"}),
        TracingConfig(enabled=True, endpoint="c:4318", headers={"a": "b"}, sample_ratio=0.5),
    ):
        assert not tracer.matches(other)


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp", "requests"]
)
def test_without_the_libraries_it_is_told_what_to_install(missing, monkeypatch, caplog):
    for name in list(sys.modules):
        if name == missing or name.startswith(missing + "."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert Tracer.of(TracingConfig(enabled=True, endpoint="c:1"), version="1") is None
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert told.fields["hint"] == "pip install 'mcpx-gateway[otel]'"
    assert told.fields["missing"].startswith(missing)


def test_what_can_not_work_is_told_without_secrets(caplog):
    config = TracingConfig(
        enabled=True, endpoint="c:1", headers={"authorization": "Bearer h∞nter2"}
    )
    assert Tracer.of(config, version="1") is None
    (told,) = caplog.records
    assert "tracing.headers" in told.fields["error"]
    assert "nter2" not in caplog.text + str(told.fields)


def test_a_fault_of_a_library_is_told_by_its_kind(monkeypatch, caplog):
    def fail(config, version):
        raise RuntimeError("Bearer hunter2")

    monkeypatch.setattr(tracing, "exporter_for", fail)
    assert Tracer.of(TracingConfig(enabled=True, endpoint="c:1"), version="1") is None
    (told,) = caplog.records
    assert told.fields["error"] == "RuntimeError"


def test_the_libraries_are_loaded_only_where_they_are_configured():
    program = """
import json, sys
from mcpx.config.model import TracingConfig
from mcpx.services.tracing import Tracer
def loaded():
    return sorted(n for n in sys.modules if n.split(".")[0] in ("opentelemetry", "requests"))
assert Tracer.of(TracingConfig(endpoint="c:1"), version="1") is None
before = loaded()
assert Tracer.of(TracingConfig(enabled=True, endpoint="c:1"), version="1") is not None
print(json.dumps([before, len(loaded())]))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    before, after = json.loads(ran.stdout)
    assert before == []
    assert after > 10
