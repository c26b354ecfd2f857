"""Deadlines that cost nothing when they are met.

What it is: a task that looks at everything that waits, a few times a second, and
cancels what has waited too long. A trio deadline costs about 3 µs each time that it is
moved, and an exchange moves its deadline four times or more; here moving it is one
assignment. The price is precision: a wait ends up to ``tick_s`` late.

Reading the clock costs as much again, so most waits don't: ``Watch.within`` counts from
``soon``, the time of the next tick, which is never before the present. Such a wait ends
up to two ticks late. Where a tick itself comes late, because the loop was busy, what
was counted from it is put off by as much: no wait ends early.

What it must never do: wait for anything but its own clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["Deadlines", "Watch"]

NEVER: Final = math.inf


class Watch:
    """Something that waits: its deadline, and the scope to cancel when that has passed.

    ``phase`` says what is being waited for, in words for an error or a log line.
    ``expired`` tells a cancellation by deadline from one that came from outside.
    """

    __slots__ = (
        "counted_from",
        "deadline",
        "deadlines",
        "expired",
        "gone",
        "limit",
        "phase",
        "scope",
    )

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.deadline = NEVER
        self.limit = NEVER
        self.phase = ""
        self.expired = False
        self.gone: Callable[[], bool] | None = None
        #: Who looks at it, and the tick from which ``within`` counted.
        self.deadlines: Deadlines | None = None
        self.counted_from = 0.0

    def until(self, deadline: float, phase: str) -> None:
        """Wait for ``phase`` until ``deadline`` (trio's clock) or the exchange's own limit."""
        self.deadline = min(deadline, self.limit)
        self.phase = phase

    def within(self, wait_s: float, phase: str) -> None:
        """Wait for ``phase`` for ``wait_s`` seconds, or until the exchange's own limit."""
        deadlines = self.deadlines
        now = self.counted_from = 0.0 if deadlines is None else deadlines.soon
        deadline = (now or trio.current_time()) + wait_s
        # As fast as all the rest of it: min() would be a call.
        self.deadline = deadline if deadline < self.limit else self.limit  # noqa: FURB136
        self.phase = phase

    def rest(self) -> None:
        """Nothing is being waited for."""
        self.deadline = NEVER


class Deadlines:
    """All watches of the process.

    ``gone`` of a watch, where set, is asked at every tick whether the client has left;
    if so the watch is cancelled without having expired.

    ``soon`` is the time (trio's clock) of the next tick; 0 while ``run`` does not run.
    """

    def __init__(self, tick_s: float = 0.25) -> None:
        self._tick_s = tick_s
        self._watches: set[Watch] = set()
        self._chores: list[Callable[[float], None]] = []
        self.soon = 0.0

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, watch: Watch) -> None:
        """Look at ``watch`` from now on."""
        self._watches.add(watch)
        watch.deadlines = self

    def remove(self, watch: Watch) -> None:
        """Look at it no more."""
        self._watches.discard(watch)
        watch.deadlines = None

    def every_tick(self, chore: Callable[[float], None]) -> None:
        """Call ``chore(now)`` at every tick; it must be quick and must not wait."""
        self._chores.append(chore)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the watches until cancelled."""
        self.soon = trio.current_time() + self._tick_s
        task_status.started()
        try:
            while True:
                await trio.sleep(self._tick_s)
                self._look(trio.current_time())
        finally:
            self.soon = 0.0

    def _look(self, now: float) -> None:
        expected, self.soon = self.soon, now + self._tick_s
        late_s = max(0.0, now - expected)
        for watch in self._watches:
            if watch.counted_from == expected:
                watch.deadline += late_s
            if watch.deadline <= now:
                watch.expired = True
                watch.deadline = NEVER
                watch.scope.cancel(reason=f"deadline: {watch.phase}")
            elif watch.gone is not None and watch.gone():
                watch.gone = None
                watch.scope.cancel(reason="the client has left")
        for chore in self._chores:
            chore(now)
