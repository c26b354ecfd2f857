"""How much may be asked: one bucket for all, one for each client, one for each tool.

Pure: the caller passes the time of a monotonic clock in seconds. Nothing here reads
a clock, waits or logs.

A bucket is kept as one whole number, the tick at which it will be full again
(the generic cell rate algorithm, GCRA; ITU-T I.371 annex A tells it for ATM). A
token costs ``interval`` ticks. A bucket of ``burst`` tokens has one to give as long
as it is no further than ``burst - 1`` intervals from being full. Ticks are 2**-40
seconds: a float scales to them without rounding, whole numbers add up without
rounding, so a burst of five is five requests and the wait that is told is exact.

A request must find a token in the client's bucket and in the one for all. Both are
looked at before either is charged: a client that is being refused costs the others
nothing, and a request that the common bucket refuses costs its client nothing. The
wait told is the one after which both have a token.

A bucket that is not kept is a full one, so that a map of buckets may forget. It
holds ``max_keys`` and forgets the one that was asked least recently, which is the
one most likely to be full. Long keys are kept as digests, so that the names a peer
chooses can't fill the memory.
"""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from hashlib import blake2b
from math import ceil, floor, inf, isfinite, nextafter
from typing import NamedTuple, Protocol

__all__ = ["Rate", "RateLimiter", "RateSource", "Rates", "retry_after"]

TICKS_PER_S = 2**40
_SCALE = float(TICKS_PER_S)
# Slower than a token in a hundred years is told from it by nobody, and stays finite.
_LONGEST_INTERVAL = TICKS_PER_S * 3600 * 24 * 365 * 100
_LONGEST_NAME = 256

# A name, or the digest of a long one.
Name = str | bytes
Key = Name | tuple[Name, Name]


class Rate(NamedTuple):
    """One bucket: ``rps`` tokens flow in each second, ``burst`` is what it holds."""

    rps: float
    burst: int


class RateSource(Protocol):
    """The settings as their author writes them."""

    @property
    def enabled(self) -> bool:
        """Whether anything is limited."""
        ...

    @property
    def rps(self) -> float:
        """Tokens a second of the bucket for all."""
        ...

    @property
    def burst(self) -> int:
        """Its size."""
        ...

    @property
    def client_rps(self) -> float:
        """Tokens a second of each client; 0 for no such limit."""
        ...

    @property
    def client_burst(self) -> int:
        """The size of a client's bucket."""
        ...

    @property
    def per_tool(self) -> bool:
        """Whether tools are limited."""
        ...

    @property
    def tool_rps(self) -> float:
        """Tokens a second of each tool."""
        ...

    @property
    def tool_burst(self) -> int:
        """The size of a tool's bucket."""
        ...

    @property
    def max_keys(self) -> int:
        """Buckets kept of clients, and of tools."""
        ...


class Rates(NamedTuple):
    """What a limiter enforces. ``None`` is no limit of that sort."""

    total: Rate | None = None
    client: Rate | None = None
    tool: Rate | None = None
    max_keys: int = 10_000

    @classmethod
    def of(cls, source: RateSource) -> Rates:
        """The rates that ``source`` asks for, with its defaults filled in.

        A client or tool burst of 0 or less, and a tool rate of 0 or less, are those
        of the common bucket.
        """
        if not source.enabled:
            return cls(max_keys=source.max_keys)
        client = tool = None
        if source.client_rps > 0:
            client = Rate(source.client_rps, _first_positive(source.client_burst, source.burst))
        if source.per_tool:
            tool_rps = source.tool_rps if source.tool_rps > 0 else source.rps
            tool = Rate(tool_rps, _first_positive(source.tool_burst, source.burst))
        return cls(Rate(source.rps, source.burst), client, tool, source.max_keys)


def _first_positive(one: int, other: int) -> int:
    return one if one > 0 else other


class _Bucket:
    """The arithmetic of one rate, in ticks; ``full_at`` is the one that all share."""

    __slots__ = ("full_at", "interval", "rate", "reach", "span")

    def __init__(self, rate: Rate) -> None:
        if not (isfinite(rate.rps) and rate.rps > 0):
            raise ValueError(f"a rate must be a positive number of requests a second: {rate.rps}")
        if rate.burst < 1:
            raise ValueError(f"a burst must be 1 or more: {rate.burst}")
        self.rate = rate
        # Rounded up: a rate is never exceeded, not even by rounding.
        self.interval = min(ceil(Fraction(TICKS_PER_S) / Fraction(rate.rps)), _LONGEST_INTERVAL)
        self.span = self.interval * rate.burst
        self.reach = self.span - self.interval
        self.full_at = 0

    def settled(self, full_at: int, tick: int) -> int:
        """``full_at``, brought into what is possible at ``tick``.

        A bucket that has been full since is full now. One further from full than
        empty was filled by a clock that has since run back: it counts as empty.
        """
        if full_at <= tick:
            return tick
        empty = tick + self.span
        return min(empty, full_at)

    def carried(self, full_at: int, old: _Bucket, tick: int) -> int:
        """The same share of this bucket as ``full_at`` was of ``old``, rounded to emptier."""
        missing = old.settled(full_at, tick) - tick
        return tick - (-missing * self.span // old.span)


class _Buckets(_Bucket):
    """Buckets of one rate, by key."""

    __slots__ = ("entries", "max_keys")

    def __init__(self, rate: Rate, max_keys: int) -> None:
        super().__init__(rate)
        self.max_keys = max_keys
        self.entries: OrderedDict[Key, int] = OrderedDict()

    def put(self, key: Key, full_at: int) -> None:
        entries = self.entries
        entries[key] = full_at
        entries.move_to_end(key)
        if len(entries) > self.max_keys:
            entries.popitem(last=False)

    def charge(self, key: Key, now: float) -> float:
        """Take a token of one bucket: 0.0, or the seconds to wait.

        Every call passes here, so ``settled`` and ``put`` are written out.
        """
        tick = floor(now * _SCALE)
        entries = self.entries
        full_at = entries.get(key)
        if full_at is None:
            entries[key] = tick + self.interval
            if len(entries) > self.max_keys:
                entries.popitem(last=False)
            return 0.0
        # Refused or not, it was asked: a flood can't have its bucket forgotten.
        entries.move_to_end(key)
        if full_at <= tick:
            entries[key] = tick + self.interval
            return 0.0
        full_at = min(full_at, tick + self.span)
        ready = full_at - self.reach
        if ready > tick:
            entries[key] = full_at
            return _wait(ready, now)
        entries[key] = full_at + self.interval
        return 0.0


class RateLimiter:
    """The buckets of one gateway. Not for use from several threads at one time."""

    __slots__ = ("_clients", "_strangers", "_tools", "_total", "rates")

    def __init__(self, rates: Rates) -> None:
        """Raises ValueError where a rate isn't positive or a bound isn't 1 or more."""
        if rates.max_keys < 1:
            raise ValueError(f"max_keys must be 1 or more: {rates.max_keys}")
        self.rates = rates
        self._total = None if rates.total is None else _Bucket(rates.total)
        self._clients = None if rates.client is None else _Buckets(rates.client, rates.max_keys)
        stranger = rates.client or rates.total
        self._strangers = None if stranger is None else _Buckets(stranger, rates.max_keys)
        self._tools = None if rates.tool is None else _Buckets(rates.tool, rates.max_keys)

    def __len__(self) -> int:
        """How many buckets of clients and tools are kept."""
        return sum(len(part.entries) for part in (self._clients, self._tools) if part is not None)

    def request(self, client: str, now: float) -> float:
        """Charge a request of ``client``: 0.0 if granted, else the seconds to wait.

        ``client`` is its name, or its address where nobody has a name.
        """
        mine, total = self._clients, self._total
        if total is None:
            if mine is None:
                return 0.0
            return mine.charge(client if len(client) <= _LONGEST_NAME else _digest(client), now)
        # Every request passes here, so `settled` is written out.
        tick = my_ready = floor(now * _SCALE)
        total_full_at = total.full_at
        if total_full_at <= tick:
            total_full_at = tick
        elif total_full_at > tick + total.span:
            total_full_at = tick + total.span
        total_ready = total_full_at - total.reach
        if mine is not None:
            key = client if len(client) <= _LONGEST_NAME else _digest(client)
            entries = mine.entries
            kept = entries.get(key)
            if kept is None or kept <= tick:
                my_full_at = tick
            else:
                my_full_at = min(kept, tick + mine.span)
                my_ready = my_full_at - mine.reach
        if my_ready > tick or total_ready > tick:
            total.full_at = total_full_at
            if mine is not None and kept is not None:
                # Refused or not, it was asked: a flood can't have its bucket forgotten.
                mine.put(key, my_full_at)
            return _wait(max(my_ready, total_ready), now)
        if mine is not None:
            entries[key] = my_full_at + mine.interval
            if kept is not None:
                entries.move_to_end(key)
            elif len(entries) > mine.max_keys:
                entries.popitem(last=False)
        total.full_at = total_full_at + total.interval
        return 0.0

    def stranger(self, address: str, now: float) -> float:
        """Charge a request of an address in a bucket of its own: 0.0, or seconds to wait.

        For who shows no credential where one is needed, and for the gateway's pages. It
        has the rate of a client (of all, where clients have none) and touches no other
        bucket: strangers can't empty those of clients, nor clients hide the pages.
        """
        strangers = self._strangers
        if strangers is None:
            return 0.0
        return strangers.charge(address if len(address) <= _LONGEST_NAME else _digest(address), now)

    def tool(self, server: str, tool: str, now: float) -> float:
        """Charge a call of one tool: 0.0 if granted, else the seconds to wait.

        What the request itself was charged stays charged: it was work.
        """
        tools = self._tools
        if tools is None:
            return 0.0
        return tools.charge((server, tool if len(tool) <= _LONGEST_NAME else _digest(tool)), now)

    def resized(self, rates: Rates, now: float) -> RateLimiter:
        """A limiter of other ``rates`` whose buckets are filled as these are.

        Each bucket keeps its share: one that is a third full is a third full of its
        new size, an empty one stays empty, and one that nobody asked stays full. So a
        reload gives nobody a fresh burst. Where ``max_keys`` shrinks, the buckets
        asked least recently go. A limit that was off begins full.
        """
        fresh = RateLimiter(rates)
        tick = floor(now * _SCALE)
        if self._total is not None and fresh._total is not None:
            fresh._total.full_at = fresh._total.carried(self._total.full_at, self._total, tick)
        _carry(self._clients, fresh._clients, tick)
        _carry(self._strangers, fresh._strangers, tick)
        _carry(self._tools, fresh._tools, tick)
        return fresh


def _carry(old: _Buckets | None, fresh: _Buckets | None, tick: int) -> None:
    if old is None or fresh is None:
        return
    for key, full_at in old.entries.items():
        if full_at > tick:
            fresh.put(key, fresh.carried(full_at, old, tick))


def _wait(ready: int, now: float) -> float:
    """The fewest seconds which, added to ``now`` in floating point, reach ``ready``."""
    at = ready / _SCALE
    if at * _SCALE < ready:
        at = nextafter(at, inf)
    wait_s = at - now
    while now + wait_s < at:
        wait_s = nextafter(wait_s, inf)
    return wait_s


def _digest(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass")).digest()


def retry_after(wait_s: float) -> int:
    """The value of ``Retry-After`` in seconds (RFC 9110 section 10.2.3), at least 1."""
    return max(1, ceil(wait_s))
