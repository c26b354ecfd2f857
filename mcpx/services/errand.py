"""Work that many wait for, and that nobody's leaving stops.

What it is: ``Errands`` is the place in the tree of tasks where such work runs; an
``Errand`` is one piece of it, under way at most once. Whoever needs its result waits for
its end, each with a deadline of their own: a request that gives up takes nothing from the
others, and the work goes on and serves the next one. What it must never do: raise into
``Errands``, where it would end the gateway, or leave somebody waiting when it is stopped.

The work keeps its result itself, its failures too; ``Pauses`` says when a failed one may
be tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

__all__ = ["Errand", "Errands", "Pauses"]

log = logging.getLogger("mcpx.errand")

FIRST_PAUSE_S: Final = 1.0


class Errands:
    """Runs errands. One of them is enough for the whole gateway; it outlives reloads."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what is begun, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def begin(self, work: Callable[[], Awaitable[None]], done: trio.Event) -> None:
        """Begin ``work``; ``done`` is set when it has ended, and at once when nothing runs."""
        if self._nursery is None:
            done.set()
        else:
            self._nursery.start_soon(self._guard, work, done)

    @staticmethod
    async def _guard(work: Callable[[], Awaitable[None]], done: trio.Event) -> None:
        try:
            await work()
        except Exception:
            log.exception("an errand failed by a fault of the gateway")
        finally:
            done.set()


class Errand:
    """One piece of work, under way at most once."""

    __slots__ = ("_done", "_errands", "_work")

    def __init__(self, errands: Errands, work: Callable[[], Awaitable[None]]) -> None:
        self._errands = errands
        self._work = work
        self._done: trio.Event | None = None

    @property
    def under_way(self) -> bool:
        """Whether it has begun and not ended."""
        return self._done is not None and not self._done.is_set()

    def begin(self) -> None:
        """Begin it, if it is not under way."""
        if not self.under_way:
            self._done = trio.Event()
            self._errands.begin(self._work, self._done)

    async def finish(self, wait_s: float) -> None:
        """Begin it if need be, and wait for its end, no longer than ``wait_s``."""
        self.begin()
        assert self._done is not None
        with trio.move_on_after(wait_s):
            await self._done.wait()


class Pauses:
    """When to try again: after 1 s, then twice as long each time, up to ``longest_s``."""

    __slots__ = ("_pause_s", "longest_s", "until")

    def __init__(self, longest_s: float) -> None:
        self.longest_s = longest_s
        self._pause_s = 0.0
        #: Not before this time, of the clock that ``failed`` is told.
        self.until = float("-inf")

    def failed(self, now: float) -> None:
        """It failed once more."""
        self._pause_s = min(self._pause_s * 2 or FIRST_PAUSE_S, self.longest_s)
        self.until = now + self._pause_s

    def succeeded(self) -> None:
        """It went well; the next failure is a first one."""
        self._pause_s = 0.0
        self.until = float("-inf")
