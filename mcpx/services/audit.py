"""The audit log: every decision becomes one line, off the request path.

What it is: a bounded queue and the one task that empties it. ``put`` is called where an
exchange ends: it neither waits nor touches a lock, a thread or a file. ``run`` takes
records in batches, encodes and redacts them a few at a time between other tasks, and
writes the batch on a worker thread, since a disk may take its time. Encoding there would
cost more: two threads that both want the interpreter spend as much on handing it over as
on the lines. Only a batch with a long text in it is encoded there, for others would have
to wait for it.

What it must never do: lose a record without a word. Whatever there was no room for is
counted in ``lost``, and a line ``audit.lost`` with the count is written as soon as lines
can be written at all. A record leaves the queue only once its line is out, so a full
disk keeps records in the queue (and fills it) instead of dropping them; the writer tries
again after a pause that doubles up to ``MAX_PAUSE_S``. Being cancelled loses nothing
either: what is queued is written first, for ``LAST_WORDS_S`` at the most.

What a full queue means is the configuration's to say. ``shed``: ``put`` refuses. With
``block``, requests wait in ``room`` before anything is done for them, and ``put`` still
takes what exchanges already under way have to tell, up to a reserve of its own. The queue is bounded by its count of records and by the memory that they keep.

The writer gathers for ``flush_interval_s`` after the first record of a batch, or until
the batch is full. ``_wake_at`` is the length of the queue at which ``put`` has to wake
it: 0 while it waits for work, a batch while it gathers, out of reach while it writes.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, Protocol

import trio

from mcpx.config.model import AuditConfig
from mcpx.errors import ConfigError
from mcpx.services.audit_record import AuditRecord, Lines, Redacting, lost_line
from mcpx.services.audit_sink import Sink, Written, sink_for
from mcpx.services.log import event

__all__ = ["AuditLog", "AuditRecord", "AuditStatistics"]

log = logging.getLogger("mcpx.audit")

BATCH: Final = 1024
#: Records that are encoded in a row, at 2 to 10 µs each: others wait for no longer.
SLICE: Final = 32
#: Arguments past this size are redacted on the worker thread.
LONG_BYTES: Final = 4096
FLUSH_INTERVAL_S: Final = 0.05
MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
#: Records above the bound for exchanges under way: as many as there may be connections.
RESERVE: Final = 16_384
FIRST_PAUSE_S: Final = 0.1
MAX_PAUSE_S: Final = 5.0
LAST_WORDS_S: Final = 3.0

_OUT_OF_REACH: Final = 1 << 62


class Counting(Protocol):
    """Where lost records are counted and the queue's length is shown."""

    def audit_lost(self, count: int, /) -> None:
        """So many more records are lost."""
        ...

    def count_audit_queue(self, length: Callable[[], int], /) -> None:
        """Ask ``length`` for the records that wait."""
        ...


class AuditStatistics(NamedTuple):
    """``waiting`` and ``bytes`` are of the queue now, the rest since the start."""

    waiting: int
    bytes: int
    written: int
    lost: int
    failures: int
    healthy: bool


class AuditLog:
    """Records of decisions on their way to a sink.

    ``redactor`` may be replaced at any time; the next batch uses the new one. Without a
    redactor no arguments are written.

    Opening and closing: nothing is open before ``run`` writes its first batch, and
    everything is closed when ``run`` ends. ``run`` is used once.
    """

    def __init__(
        self,
        config: AuditConfig,
        *,
        redactor: Redacting | None = None,
        counting: Counting | None = None,
        sink: Sink | None = None,
        batch: int = BATCH,
        flush_interval_s: float = FLUSH_INTERVAL_S,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        reserve: int = RESERVE,
        first_pause_s: float = FIRST_PAUSE_S,
        last_words_s: float = LAST_WORDS_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.redactor = redactor
        self.lost = 0
        self.written = 0
        self.failures = 0
        self._config = config
        self._counting = counting
        self._sink = sink if sink is not None else sink_for(config)
        self._batch = batch
        self._flush_interval_s = flush_interval_s
        self._first_pause_s = first_pause_s
        self._last_words_s = last_words_s
        self._clock = clock
        self._blocks = config.on_full == "block"
        # Admission stops at the first bounds; what is under way may use up the second.
        self._soft = config.queue
        self._soft_bytes = max_queue_bytes
        self._hard = config.queue + reserve if self._blocks else config.queue
        self._hard_bytes = max_queue_bytes * (2 if self._blocks else 1)
        self._lines = Lines(redactor)
        # A record and the bytes that it was counted as.
        self._queue: deque[tuple[AuditRecord, int]] = deque()
        self._bytes = 0
        self._untold = 0
        self._taken = 0
        self._error: OSError | None = None
        self._wake_at = _OUT_OF_REACH
        self._alarm = trio.Event()
        self._closing = trio.Event()
        self._finished = trio.Event()
        self._started = False
        self._ended = False
        self._scope = trio.CancelScope()
        self._waiting_for_room = trio.lowlevel.ParkingLot()
        self._waiting_for_writer = trio.lowlevel.ParkingLot()
        self._thread = trio.CapacityLimiter(1)

    @classmethod
    def of(
        cls,
        config: AuditConfig,
        redactor: Redacting | None = None,
        counting: Counting | None = None,
    ) -> AuditLog | None:
        """The log that a configuration asks for, ``None`` if it asks for none.

        The file is opened and closed again, so that a path which can't be used is known
        before anything relies on it. Raises ConfigError where there is no path, or where
        it can't be written to.
        """
        if not config.enabled:
            return None
        try:
            sink = sink_for(config)
            sink.open()
            sink.close()
        except ValueError as exc:
            raise ConfigError([str(exc)]) from exc
        except OSError as exc:
            where = f"audit.path: {config.path}" if config.output == "file" else "audit.output"
            text = exc.strerror or type(exc).__name__
            raise ConfigError(
                [f"{where}: can't be written to: {text}; name a file that the gateway may write"]
            ) from exc
        return cls(config, redactor=redactor, counting=counting, sink=sink)

    def matches(self, config: AuditConfig) -> bool:
        """Whether a log of ``config`` would write the same way to the same place.

        What is recorded of arguments, and how they are redacted, is not asked: the one is
        the pipeline's to know, the other is changed by setting ``redactor``.
        """
        return _identity(self._config) == _identity(config)

    # -- taking records ---------------------------------------------------------

    def put(self, record: AuditRecord) -> bool:
        """Take a record; ``False``, and one more lost, if there is no room for it.

        Never waits, and costs well under a microsecond while the writer is busy.
        """
        queue = self._queue
        length = len(queue)
        size = record.weight()
        if (
            length >= self._hard
            or (length and self._bytes + size > self._hard_bytes)
            or self._ended
        ):
            self._lose(1)
            return False
        queue.append((record, size))
        self._bytes += size
        if length >= self._wake_at:
            self._wake()
        return True

    async def put_waiting(self, record: AuditRecord) -> None:
        """Take a record, waiting for room first if the configuration says so."""
        try:
            await self.room()
        except BaseException:
            self._lose(1)
            raise
        self.put(record)

    @property
    def full(self) -> bool:
        """Whether a new request should wait in ``room``. Never so with ``on_full: shed``."""
        return (
            self._blocks
            and (len(self._queue) >= self._soft or self._bytes >= self._soft_bytes)
            and not self._closing.is_set()
        )

    async def room(self) -> None:
        """Wait while the log is ``full``, without a bound of its own."""
        while self.full:
            await self._waiting_for_room.park()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to write succeeded."""
        return self._error is None

    def statistics(self) -> AuditStatistics:
        """How the log fares."""
        return AuditStatistics(
            waiting=len(self._queue),
            bytes=self._bytes,
            written=self.written,
            lost=self.lost,
            failures=self.failures,
            healthy=self.healthy,
        )

    def _lose(self, count: int) -> None:
        self.lost += count
        self._untold += count
        if self._counting is not None:
            self._counting.audit_lost(count)
        if self._wake_at == 0:
            self._wake()

    def _wake(self) -> None:
        self._wake_at = _OUT_OF_REACH
        self._alarm.set()

    # -- writing ----------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write records until ``drain`` is called or the task is cancelled.

        Either way the queue is emptied first, as far as the sink takes it, and the sink
        is closed.
        """
        if self._started:
            raise RuntimeError("an audit log runs once: make a new one")
        self._started = True
        if self._counting is not None:
            self._counting.count_audit_queue(self.__len__)
        task_status.started()
        try:
            with self._scope:
                pause_s = 0.0
                while not self._done():
                    if not pause_s:
                        await self._gather()
                    pause_s = await self._attempt(pause_s)
        finally:
            await self._end()

    async def flush(self) -> None:
        """Wait until all that was put before this call is written, without gathering."""
        target = self._taken + len(self._queue)
        while self._taken < target and not self._finished.is_set():
            if self._wake_at != _OUT_OF_REACH:
                self._wake()
            await self._waiting_for_writer.park()

    async def drain(self, timeout_s: float) -> bool:
        """Write everything, close the sink and end ``run``; whether nothing was lost.

        After ``timeout_s`` the rest is counted as lost, and the gateway's log says so.
        New records are taken until the queue is empty, none after that. Who waits in
        ``room`` is let go.
        """
        lost = self.lost
        self._closing.set()
        self._wake()
        self._waiting_for_room.unpark_all()
        if not self._started:
            with trio.move_on_after(timeout_s):
                await self.run()
        with trio.move_on_after(timeout_s):
            await self._finished.wait()
        if not self._finished.is_set():
            self._scope.cancel(reason="the time to drain is over")
            await self._finished.wait()
        return self.lost == lost

    def _done(self) -> bool:
        return self._closing.is_set() and not self._pending()

    def _pending(self) -> bool:
        return bool(self._queue) or self._untold > 0 or self._sink.torn

    async def _gather(self) -> None:
        """Wait for something to write, then for more of it to come."""
        if not self._pending():
            await self._sleep_until(0)
        if len(self._queue) < self._batch:
            with trio.move_on_after(self._flush_interval_s):
                await self._sleep_until(self._batch - 1)
        self._wake_at = _OUT_OF_REACH

    async def _sleep_until(self, length: int) -> None:
        """Until ``put`` finds more than ``length`` records, or ``drain`` or ``flush`` is called."""
        if self._closing.is_set():
            await trio.lowlevel.checkpoint()
            return
        self._alarm = trio.Event()
        self._wake_at = length
        await self._alarm.wait()

    async def _attempt(self, pause_s: float) -> float:
        """Write one batch; after a failure, pause. Gives the length of that pause."""
        before = self._taken
        error = (await self._write()).error
        if error is None or self._taken > before:
            return 0.0
        pause_s = min(pause_s * 2 or self._first_pause_s, MAX_PAUSE_S)
        if self._closing.is_set():
            await trio.sleep(min(pause_s, self._first_pause_s))
        else:
            with trio.move_on_after(pause_s):
                await self._closing.wait()
        return pause_s

    async def _write(self) -> Written:
        """Write the first records of the queue and take out those that are written."""
        batch = [record for record, _ in islice(self._queue, self._batch)]
        untold, line = self._untold, self._line()
        last = [lost_line(untold, self._clock())] if untold else []
        if any(record.arguments and len(record.arguments) > LONG_BYTES for record in batch):
            work = partial(self._encode_and_write, line, batch, last)
        else:
            work = partial(self._sink.write, [*await _encoded(line, batch), *last])
        # Not abandoned when cancelled: the thread's result says what is written.
        result = await trio.to_thread.run_sync(work, limiter=self._thread)
        count = min(result.lines, len(batch))
        for _ in range(count):
            self._bytes -= self._queue.popleft()[1]
        self._taken += count
        self.written += count
        if result.lines > len(batch):
            self._untold -= untold
        self._tell(result.error, rotation=result.lines == len(batch) + bool(untold))
        if not self.full:
            self._waiting_for_room.unpark_all()
        self._waiting_for_writer.unpark_all()
        return result

    def _encode_and_write(
        self,
        line: Callable[[AuditRecord], bytes],
        batch: Sequence[AuditRecord],
        last: Sequence[bytes],
    ) -> Written:
        """On the worker thread."""
        return self._sink.write([*map(line, batch), *last])

    def _line(self) -> Callable[[AuditRecord], bytes]:
        """What makes a line of a record, with the redactor of now: for one batch."""
        if self._lines.redactor is not self.redactor:
            # What the other one left is forgotten with it.
            self._lines = Lines(self.redactor)
        return self._lines.line

    def _tell(self, error: OSError | None, *, rotation: bool) -> None:
        """Log that writing began to fail, fails otherwise, or works again: each once.

        ``rotation``: all was written, so what failed is the rotation.
        """
        before, self._error = self._error, error
        if error is None:
            if before is not None:
                event(log, logging.INFO, "audit records are written again", waiting=len(self))
            return
        self.failures += 1
        if before is None or before.errno != error.errno:
            event(
                log,
                logging.ERROR,
                "the audit file can't be rotated; writing on into it"
                if rotation
                else "audit records can't be written; trying on",
                error=error.strerror or type(error).__name__,
                path=self._config.path or "",
                waiting=len(self),
            )

    async def _end(self) -> None:
        """The last words: what is still queued, then the sink is closed."""
        self._closing.set()
        self._waiting_for_room.unpark_all()
        with trio.CancelScope(shield=True):
            if not self._scope.cancel_called:
                with trio.move_on_after(self._last_words_s):
                    while not self._done():
                        await self._attempt(0.0)
            self._ended = True
            await trio.to_thread.run_sync(self._sink.close, limiter=self._thread)
        left = len(self._queue) + self._sink.torn
        self._queue.clear()
        self._bytes = 0
        if left:
            self._lose(left)
        if self._untold:
            event(log, logging.ERROR, "audit records are lost", count=self._untold)
        self._finished.set()
        self._waiting_for_writer.unpark_all()


async def _encoded(
    line: Callable[[AuditRecord], bytes], batch: Sequence[AuditRecord]
) -> list[bytes]:
    """The batch as lines, with turns for other tasks in between."""
    lines: list[bytes] = []
    for start in range(0, len(batch), SLICE):
        if start:
            await trio.lowlevel.checkpoint()
        lines += map(line, batch[start : start + SLICE])
    return lines


def _identity(config: AuditConfig) -> tuple[object, ...]:
    """What makes two logs the same."""
    output = {"": "stdout", "json": "stdout"}.get(config.output, config.output)
    path = config.path if output == "file" else None
    return (
        config.enabled,
        output,
        path,
        config.max_bytes,
        config.keep,
        config.queue,
        config.on_full,
    )
