"""A value that one caller works out and all callers share for a while.

What it is: a cache of one value with single flight, for pages that anybody may ask for
at any rate and that cost something to make. What it must never do: let one caller's
cancellation fail another: where the caller that does the work is cancelled, the next one
that waits begins anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

__all__ = ["Recent"]

T = TypeVar("T")


class _Flight(Generic[T]):
    """Work under way. ``value`` is an empty tuple until it has succeeded."""

    __slots__ = ("done", "parts", "value")

    def __init__(self, parts: Sequence[object]) -> None:
        self.parts = parts
        self.done = trio.Event()
        self.value: tuple[T] | tuple[()] = ()


class Recent(Generic[T]):
    """The last value of some work, good for ``ttl_s`` seconds of trio's clock.

    A value belongs to the objects that it was worked out from (``parts``, compared by
    identity); for other ones the work is done again.
    """

    __slots__ = ("_flight", "_last", "_made_at", "ttl_s")

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._last: _Flight[T] | None = None
        self._made_at = 0.0
        self._flight: _Flight[T] | None = None

    async def get(self, parts: Sequence[object], work: Callable[[], Awaitable[T]]) -> T:
        """The value for ``parts``: one that is fresh, one that is being made, or a new one."""
        while True:
            last = self._last
            if (
                last is not None
                and last.value
                and trio.current_time() - self._made_at < self.ttl_s
                and _same(last.parts, parts)
            ):
                return last.value[0]
            flight = self._flight
            if flight is None:
                return await self._fly(parts, work)
            await flight.done.wait()
            # What was made while this caller waited is fresh enough for it.
            if flight.value and _same(flight.parts, parts):
                return flight.value[0]

    async def _fly(self, parts: Sequence[object], work: Callable[[], Awaitable[T]]) -> T:
        flight = self._flight = _Flight[T](parts)
        try:
            value = await work()
            flight.value = (value,)
            self._last, self._made_at = flight, trio.current_time()
            return value
        finally:
            self._flight = None
            flight.done.set()


def _same(a: Sequence[object], b: Sequence[object]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
