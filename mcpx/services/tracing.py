"""Which requests are traced, and how their spans leave the gateway.

What it is: the decision at a request's beginning whether it is recorded, a bounded queue
for the finished ones, and the task that exports them. What it must never do: make a
request wait, or raise anything into the pipeline. A collector that is gone costs spans,
which are counted, and nothing else.

**Before the end.** ``begin`` reads the caller's context, draws ids and decides. A request
that is not recorded costs no more than that and the header for its server: no object of
OpenTelemetry, no clock. A recorded one notes the moments at which its phases change.

**After it.** ``finish`` puts the facts into the queue. ``run`` takes them out in batches;
a worker thread makes the spans, with the times that were noted, and gives them to the
exporter. OpenTelemetry's own batch processor would have the making done on the serving
thread, where three spans cost more than serving their request. A batch that can't be
exported, after the exporter's repetitions, is dropped: what is in the queue is younger.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio

from mcpx.config.model import TracingConfig
from mcpx.core.trace_context import (
    from_headers,
    in_sample,
    new_id,
    new_trace,
    threshold,
)
from mcpx.services.log import Sparingly, event
from mcpx.services.spans import (
    Exporter,
    Facts,
    Finished,
    SpanMaker,
    Trace,
    Unusable,
    exporter_for,
)

__all__ = ["Facts", "Trace", "Tracer"]

log = logging.getLogger("mcpx.tracing")

#: Requests that wait for their spans to be made; with all that they keep, about 8 MB.
QUEUE: Final = 4096
#: Requests in one export: some 400 spans, 200 KB.
BATCH: Final = 128
FLUSH_INTERVAL_S: Final = 1.0
LAST_FLUSH_S: Final = 3.0
#: A longer ``tracestate`` is sent on, and left out of the spans.
MAX_STATE_BYTES: Final = 512

_HINT: Final = "pip install 'mcpx-gateway[otel]'"
_OUT_OF_REACH: Final = 1 << 62


class Counting(Protocol):
    """Where spans are counted."""

    def spans_exported(self, count: int, /) -> None:
        """So many more have been taken by the exporter."""
        ...

    def spans_dropped(self, count: int, /) -> None:
        """So many more are lost."""
        ...


class Tracer:
    """Begins, finishes and exports traces. ``run`` is used once."""

    def __init__(
        self,
        config: TracingConfig,
        exporter: Exporter,
        *,
        version: str,
        counting: Counting | None = None,
        queue: int = QUEUE,
        batch: int = BATCH,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        last_flush_s: float = LAST_FLUSH_S,
        getrandbits: Callable[[int], int] = random.getrandbits,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.exported = 0
        self.dropped = 0
        self._config = config
        self._exporter = exporter
        self._maker = SpanMaker(config.service_name, version, getrandbits)
        self._counting = counting
        self._limit = queue
        self._batch = batch
        self._flush_interval_s = flush_interval_s
        self._last_flush_s = last_flush_s
        self._getrandbits = getrandbits
        self._clock_ns = clock_ns
        self._threshold = threshold(config.sample_ratio)
        self._queue: deque[Finished] = deque()
        self._wake_at = _OUT_OF_REACH
        self._alarm = trio.Event()
        self._closing = trio.Event()
        self._ended = False
        #: The exporting ends when it has run out, and not when others are cancelled.
        self._work_scope = trio.CancelScope(shield=True)
        self._thread = trio.CapacityLimiter(1)
        self._sparingly = Sparingly(30.0)
        self._failing = False

    @classmethod
    def of(
        cls, config: TracingConfig, *, version: str, counting: Counting | None = None
    ) -> Tracer | None:
        """The tracer that a configuration asks for. Loads libraries: before serving.

        ``None`` if it asks for none, and also where it can't be had: that is logged, and
        the gateway does without.
        """
        if not config.enabled:
            return None
        try:
            exporter = exporter_for(config, version)
            return cls(config, exporter, version=version, counting=counting)
        except ImportError as exc:
            event(log, logging.WARNING, "tracing is off: a library for it is not installed",
                  missing=exc.name or "", hint=_HINT)  # fmt: skip
        except Exception as exc:
            # A library's own words could hold a header's value.
            said = str(exc) if isinstance(exc, Unusable) else type(exc).__name__
            event(log, logging.WARNING, "tracing is off: it can't be set up", error=said)
        return None

    def matches(self, config: TracingConfig) -> bool:
        """Whether a tracer of ``config`` would do just the same."""
        return config == self._config

    # -- on the request path ----------------------------------------------------

    def begin(self, fields: Mapping[bytes, bytes], headers: Sequence[tuple[bytes, bytes]]) -> Trace:
        """The trace of a request; its header fields by name, and all of them in order."""
        parent = from_headers(fields, headers)
        if parent is not None:
            span_id = new_id(self._getrandbits)
            return Trace(parent.trace_id, span_id, parent, sampled=parent.sampled)
        trace_id, span_id = new_trace(self._getrandbits)
        return Trace(trace_id, span_id, None, sampled=in_sample(trace_id, self._threshold))

    def finish(self, trace: Trace, facts: Facts) -> None:
        """Take a finished request; it is dropped and counted where there is no room."""
        if not trace.sampled:
            return
        queue = self._queue
        if len(queue) >= self._limit or self._ended:
            self._lose(trace.spans, "the queue is full")
            return
        parent = trace.parent
        if parent is not None and len(parent.state) > MAX_STATE_BYTES:
            trace.parent = parent._replace(state=b"")
        queue.append((trace, facts, self._clock_ns()))
        if len(queue) >= self._wake_at:
            self._wake()

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def _lose(self, spans: int, error: str) -> None:
        self.dropped += spans
        if self._counting is not None:
            self._counting.spans_dropped(spans)
        turn = self._sparingly.turn(error, trio.current_time())
        if turn is not None:
            event(log, logging.WARNING, "spans are dropped", to=self._place, error=error,
                  spans=spans, also=turn)  # fmt: skip

    @property
    def _place(self) -> str:
        return "stdout" if self._config.exporter == "stdout" else self._config.endpoint or ""

    # -- exporting --------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Export until ``stop`` is called or the task is cancelled.

        Either way what is queued is exported first, for ``LAST_FLUSH_S`` at the most.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._work)
                task_status.started()
                try:
                    await self._closing.wait()
                finally:
                    self.stop()
                    self._work_scope.deadline = trio.current_time() + self._last_flush_s
        finally:
            self._end()

    def stop(self) -> None:
        """Let ``run`` come to its end."""
        self._closing.set()
        self._wake()

    async def _work(self) -> None:
        with self._work_scope:
            while self._queue or not self._closing.is_set():
                await self._gather()
                await self._export()

    def _end(self) -> None:
        self._ended = True
        left = sum(trace.spans for trace, _, _ in self._queue)
        self._queue.clear()
        if left:
            self._lose(left, "the time for the last ones is over")
        try:
            self._exporter.close()
        except Exception:
            log.debug("the exporter could not be closed", exc_info=True)

    def _wake(self) -> None:
        self._wake_at = _OUT_OF_REACH
        self._alarm.set()

    async def _gather(self) -> None:
        """Wait for something to export, then for more of it to come."""
        if not self._queue:
            await self._until(1)
        if len(self._queue) < self._batch:
            with trio.move_on_after(self._flush_interval_s):
                await self._until(self._batch)
        self._wake_at = _OUT_OF_REACH

    async def _until(self, length: int) -> None:
        """Until the queue is so long, or ``stop`` is called."""
        if self._closing.is_set():
            await trio.lowlevel.checkpoint()
            return
        self._alarm = trio.Event()
        self._wake_at = length
        await self._alarm.wait()

    async def _export(self) -> None:
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), self._batch))]
        if not batch:
            return
        spans = sum(trace.spans for trace, _, _ in batch)
        error: str | None = "the time for the last ones is over"
        try:
            # Abandoned when the time is over: a collector that does not answer can't hold
            # up the end of the gateway.
            error = await trio.to_thread.run_sync(
                self._send, batch, abandon_on_cancel=True, limiter=self._thread
            )
        finally:
            if error is None:
                self._sent(spans)
            else:
                self._failing = True
                self._lose(spans, error)

    def _sent(self, spans: int) -> None:
        self.exported += spans
        if self._counting is not None:
            self._counting.spans_exported(spans)
        if self._failing:
            self._failing = False
            event(log, logging.INFO, "spans are exported again", to=self._place)

    def _send(self, batch: list[Finished]) -> str | None:
        """On the worker thread."""
        try:
            return self._exporter.export(self._maker.all(batch))
        except Exception as exc:
            log.debug("spans could not be exported", exc_info=True)
            return type(exc).__name__
