"""A gateway's pinned tool definitions: written off the request path, kept across restarts.

What it is: ``put`` takes what a listing's report has to be kept and returns at once;
``run`` writes it to a ``PinFile``, many tools in one transaction on one worker thread.

What it must never do: make a request wait, or forget what could not be written: that is
tried again after a pause that doubles up to ``MAX_PAUSE_S``. What waits is kept by tool,
the newest pending definition in place of the one before, so that a disk that stays full
costs no more memory than the tools do.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from mcpx.core.integrity import NOTHING_PINNED, Baseline, Report
from mcpx.errors import ConfigError
from mcpx.store.pin_file import Change, PinFile

__all__ = ["PinStatistics", "PinStore"]

log = logging.getLogger("mcpx.pins")

FIRST_PAUSE_S: Final = 0.1
MAX_PAUSE_S: Final = 30.0
LAST_WORDS_S: Final = 3.0


class PinStatistics(NamedTuple):
    """``waiting`` is how many tools have something to be written now."""

    waiting: int
    written: int
    failures: int
    healthy: bool


class PinStore:
    """A gateway's writer of pins.

    Args:
        file: open; ``run`` closes it when it ends.
        clock: epoch seconds.
        failed: told of each attempt to write that failed, on the caller's thread.
    """

    def __init__(
        self,
        file: PinFile,
        *,
        clock: Callable[[], float] = time.time,
        failed: Callable[[str], None] | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
        last_words_s: float = LAST_WORDS_S,
    ) -> None:
        self.written = 0
        self.failures = 0
        self._file = file
        self._clock = clock
        self._failed = failed
        self._first_pause_s = first_pause_s
        self._last_words_s = last_words_s
        self._waiting: dict[tuple[str, str], Change] = {}
        self._established: dict[str, float] = {}
        self._healthy = True
        self._alarm = trio.Event()
        # One thread at a time has the file; a lock, so that a batch is taken and put
        # back by one task at a time too.
        self._thread = trio.CapacityLimiter(1)
        self._turn = trio.Lock()

    def close(self) -> None:
        """Let go of the file, where ``run`` never ran. May be called again."""
        self._file.close()

    def put(self, server: str, report: Report) -> None:
        """Keep what a listing's report brought. Never waits."""
        if not (report.pinned or report.pending or report.settled or report.established):
            return
        now = self._clock()
        for tool in {*report.pinned, *report.pending, *report.settled}:
            change = Change(now)
            change.pinned = report.pinned.get(tool)
            change.pending = report.pending.get(tool)
            change.settled = change.pending is None and tool in report.settled
            earlier = self._waiting.setdefault((server, tool), change)
            if earlier is not change:
                earlier.then(change)
        if report.established:
            self._established.setdefault(server, now)
        self._alarm.set()

    def statistics(self) -> PinStatistics:
        """How the store fares."""
        waiting = len(self._waiting)
        return PinStatistics(waiting, self.written, self.failures, self._healthy)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is put, until cancelled; then what is left, and close the file."""
        task_status.started()
        pause_s = self._first_pause_s
        try:
            while True:
                await self._alarm.wait()
                if await self._write():
                    pause_s = self._first_pause_s
                else:
                    await trio.sleep(pause_s)
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._last_words_s):
                await self._write()
            self._file.close()

    async def reload(self) -> dict[str, Baseline]:
        """Write what waits, and read the pins as they are now: some may be approved or reset.

        Raises:
            ConfigError: that can't be done now; what was loaded before stays valid.
        """
        if not await self._write():
            raise ConfigError([f"{self._file.path}: what was seen can't be written to it now"])
        async with self._turn:
            loaded = await trio.to_thread.run_sync(self._file.load, limiter=self._thread)
            # Tools may have been seen while it was read: they are as good as written.
            self._add_waiting(loaded)
            return loaded

    def _add_waiting(self, loaded: dict[str, Baseline]) -> None:
        for server in {server for server, _ in self._waiting} | self._established.keys():
            found = loaded.get(server, NOTHING_PINNED)
            pins, since, pending = dict(found.pins), dict(found.since), dict(found.pending)
            for (owner, tool), change in self._waiting.items():
                if owner != server:
                    continue
                if change.pinned is not None and not (tool in pins and pins[tool].digest):
                    pins[tool] = change.pinned
                    since.setdefault(tool, change.at)
                    pending.pop(tool, None)
                if change.pending is not None:
                    pending[tool] = change.pending.digest
                elif change.settled:
                    pending.pop(tool, None)
            established = found.established or server in self._established
            loaded[server] = Baseline(pins, since, established, pending)

    async def _write(self) -> bool:
        """Write what waits; ``False``, with all of it waiting again, if that failed."""
        async with self._turn:
            batch, established = self._waiting, self._established
            self._waiting, self._established = {}, {}
            # An event that is not set may have someone waiting for it.
            if self._alarm.is_set():
                self._alarm = trio.Event()
            if not batch and not established:
                return True
            try:
                await trio.to_thread.run_sync(
                    self._file.write, batch, established, limiter=self._thread
                )
            except (sqlite3.Error, OSError, ConfigError) as exc:
                self._put_back(batch, established)
                self._report(exc)
                return False
            except BaseException:
                self._put_back(batch, established)
                raise
        self.written += len(batch)
        if not self._healthy:
            log.info("pins are written again")
        self._healthy = True
        return True

    def _put_back(
        self, batch: dict[tuple[str, str], Change], established: dict[str, float]
    ) -> None:
        for key, later in self._waiting.items():
            earlier = batch.get(key)
            if earlier is None:
                batch[key] = later
            else:
                earlier.then(later)
        self._waiting = batch
        self._established = self._established | established
        self._alarm.set()

    def _report(self, exc: Exception) -> None:
        self.failures += 1
        if self._healthy:
            log.error("pins can't be written, and wait: %s", exc)
        self._healthy = False
        if self._failed is not None:
            self._failed(str(exc))
