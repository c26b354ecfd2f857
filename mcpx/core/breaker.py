"""A circuit breaker: a server that keeps failing is left alone for a while.

Pure: the caller passes the time of a monotonic clock in seconds, and tells how each
admitted request ended. It must never wait, read a clock, or take a client's leaving
for a fault of the server.

    state      event                                        next state
    closed     a failure, the ``failure_threshold``-th      open
               in a row
    open       ``cooldown_s`` has passed                    half open
    half open  a probe succeeds                             closed
    half open  a probe fails                                open, for a new cooldown

Closed, everybody is admitted; open, nobody; half open, at most ``half_open_max``
probes at one time. That a cooldown has passed is noticed when somebody asks.

Each admission is a ticket, and a ticket belongs to a generation: the time between two
changes of state. A ticket counts as long as its generation lasts, and once. What comes
back later, a slow success from before the trip or the second probe of a trial that is
decided, tells nothing about the server of now and changes nothing. Generations are
objects and told apart by identity, so that no ticket fits another breaker either.

A probe that is never settled would hold its place for ever, so a place is given back
``probe_timeout_s`` after it was taken. Should the probe come back after all while the
trial still runs, its outcome counts; its place is free already.
"""

from __future__ import annotations

import enum
from itertools import islice
from math import inf, isfinite, nextafter
from typing import NamedTuple

__all__ = ["Breaker", "BreakerState", "Outcome", "Refusal", "Ticket", "outcome_of_status"]


class BreakerState(enum.IntEnum):
    """The state; the numbers are what the gauge shows."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Outcome(enum.Enum):
    """How an admitted request ended.

    ``SUCCESS``: the server answered, whatever it said. ``FAILURE``: it could not be
    reached, broke off, was too slow, or said that it is broken. ``NEUTRAL``: nothing was
    learned about it, since the client left or the request never went out.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


def outcome_of_status(status: int) -> Outcome:
    """What an HTTP status says: 5xx (RFC 9110 section 15.6) is a failure of the server."""
    return Outcome.FAILURE if status >= 500 else Outcome.SUCCESS


class Ticket:
    """One admitted request. ``generation`` is ``None`` once it is settled."""

    __slots__ = ("admitted_s", "generation")

    def __init__(self, generation: object, admitted_s: float) -> None:
        self.generation: object | None = generation
        self.admitted_s = admitted_s


class Refusal(NamedTuple):
    """No: ask again ``wait_s`` seconds later.

    While open, that is when the cooldown ends. While half open, it is when a place is
    free at the latest; a probe that is settled sooner frees its place sooner.
    """

    wait_s: float


class Breaker:
    """The breaker of one server.

    ``failure_threshold``: failures in a row that open it; ``cooldown_s``: how long it
    stays open; ``half_open_max``: probes at one time; ``probe_timeout_s``: how long a
    probe may hold its place. ``failures`` are those in a row until now, ``trips`` how
    often it has opened, for good or again.

    ``everybody`` is the generation while the breaker is closed, and ``None`` else. Who
    finds one there is admitted without asking, and tells of a success with ``succeeded``;
    of a failure, with ``settle`` and a ticket of that generation. Whoever tells nothing
    has learned nothing.

    Raises ValueError for counts below 1, a cooldown that is negative, a timeout that is
    not above 0, and times that are not finite.
    """

    __slots__ = (
        "_cooldown_s",
        "_failure_threshold",
        "_generation",
        "_half_open_max",
        "_opened_s",
        "_probe_timeout_s",
        "_probes",
        "_state",
        "everybody",
        "failures",
        "trips",
    )

    def __init__(
        self,
        failure_threshold: int,
        cooldown_s: float,
        half_open_max: int,
        probe_timeout_s: float,
    ) -> None:
        self.resize(failure_threshold, cooldown_s, half_open_max, probe_timeout_s)
        self.failures = 0
        self.trips = 0
        self._opened_s = 0.0
        #: The probes that hold a place, oldest first.
        self._probes: dict[Ticket, None] = {}
        self.everybody: object | None = None
        self._enter(BreakerState.CLOSED)

    def resize(
        self,
        failure_threshold: int,
        cooldown_s: float,
        half_open_max: int,
        probe_timeout_s: float,
    ) -> None:
        """Take other settings and keep state, counts and tickets.

        In place, since requests under way hold this breaker and settle with it. A
        cooldown that runs, and probes that are out, are measured by the new times from
        when they began. A lower threshold opens nothing by itself: the next failure does.
        """
        if failure_threshold < 1 or half_open_max < 1:
            raise ValueError("a breaker's threshold and number of probes must be 1 or more")
        if not (isfinite(cooldown_s) and cooldown_s >= 0):
            raise ValueError("a breaker's cooldown must be 0 or more seconds")
        if not (isfinite(probe_timeout_s) and probe_timeout_s > 0):
            raise ValueError("a probe's timeout must be more than 0 seconds")
        self._failure_threshold = failure_threshold
        self._cooldown_s = cooldown_s
        self._half_open_max = half_open_max
        self._probe_timeout_s = probe_timeout_s

    @property
    def probes(self) -> int:
        """How many probes hold a place, those that ran out of time since included."""
        return len(self._probes)

    def state(self, now: float) -> BreakerState:
        """The state as a request at ``now`` would find it. Changes nothing."""
        if self._state is BreakerState.OPEN and now >= self._opened_s + self._cooldown_s:
            return BreakerState.HALF_OPEN
        return self._state

    def admit(self, now: float) -> Ticket | Refusal:
        """A ticket, to be settled however the request ends, or when to ask again."""
        if self._state is BreakerState.CLOSED:
            return Ticket(self._generation, now)
        if self._state is BreakerState.OPEN:
            until = self._opened_s + self._cooldown_s
            if now < until:
                return Refusal(_wait(until, now))
            self._enter(BreakerState.HALF_OPEN)
        probes = self._probes
        while probes:
            oldest = next(iter(probes))
            if now < oldest.admitted_s + self._probe_timeout_s:
                break
            del probes[oldest]
        surplus = len(probes) - self._half_open_max
        if surplus >= 0:
            # More than one place too few where a reload has just made them fewer.
            last = next(islice(probes, surplus, None))
            return Refusal(_wait(last.admitted_s + self._probe_timeout_s, now))
        ticket = Ticket(self._generation, now)
        probes[ticket] = None
        return ticket

    def settle(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """Tell how the request of ``ticket`` ended.

        A ticket settled before, or from before the last change of state, is ignored.
        """
        if ticket.generation is not self._generation:
            return
        ticket.generation = None
        half_open = self._state is BreakerState.HALF_OPEN
        if half_open:
            self._probes.pop(ticket, None)
        if outcome is Outcome.SUCCESS:
            self.failures = 0
            if half_open:
                self._enter(BreakerState.CLOSED)
        elif outcome is Outcome.FAILURE:
            self.failures += 1
            if half_open or self.failures >= self._failure_threshold:
                self._opened_s = now
                self.trips += 1
                self._enter(BreakerState.OPEN)

    def succeeded(self, generation: object) -> None:
        """A request that was admitted with ``everybody`` has succeeded."""
        if generation is self._generation:
            self.failures = 0

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self._generation = object()
        self.everybody = self._generation if state is BreakerState.CLOSED else None
        self._probes.clear()


def _wait(until: float, now: float) -> float:
    """Seconds from ``now`` to ``until``: a hair more where their rounded sum would fall short."""
    wait_s = until - now
    while now + wait_s < until:
        wait_s = nextafter(wait_s, inf)
    return wait_s
