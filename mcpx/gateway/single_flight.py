"""Many who ask the same at one time, and one who goes and asks.

What it is: for each key, one leader does the work while the others, the followers, wait
for what it brings. What it must never do: let two lead for one key, leave a follower
waiting for a leader that is gone, or let all followers loose at once.

A turn is what ``join`` gives, one of three:

* ``LEADS``: do the work, then say ``share(value)`` or ``decline()``;
* ``SHARED``: ``value`` is what another brought;
* ``ALONE``: what the leader brought was for itself alone; do the work, as one of at most
  ``max_alone`` for this key. ``share`` and ``decline`` may be said here as well.

What a leader says decides about its followers:

    share(value)       all get ``value``
    decline()          all go on alone, in the order they came, ``max_alone`` at a time
    leaves unsaid      (cancelled, its client gone, an error that it did not account for)
                       the first follower leads next, the others go on waiting

``share`` and ``decline`` act at once, not at the end of the block: nobody waits for a
leader that is busy giving its answer to a slow client. A failure of the work itself, which
the others would run into as well, is to be declined; left unsaid, it would be found out by
one follower after the other.

The algorithm: a record for each key that somebody works on holds the leader, the seats of
those who wait for it, the seats of those who may go alone, and how many do. Every change is
one step without a wait between. A follower that is cancelled leaves its seat within the
cancellation itself (trio's abort function), so a seat that is found is one whose owner
still sits there, and a turn that is handed over can't be lost. Should its new owner be
cancelled before it runs, it finds out inside its block, and leaves unsaid like any other.

Followers wait as long as their own cancel scopes let them.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Hashable
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, cast

import trio

from mcpx.errors import LocalProtocolError, Overloaded

__all__ = ["Role", "SingleFlight", "Statistics", "Turn"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Role(enum.Enum):
    """What a turn is for."""

    LEADS = "leads"
    SHARED = "shared"
    ALONE = "alone"


class Statistics(NamedTuple):
    """Turns given since the start, refusals, and what goes on now."""

    led: int
    shared: int
    alone: int
    refused: int
    keys: int
    waiting: int


class _Seat(Generic[V]):
    """A follower that waits; ``turn`` is set when it is woken."""

    __slots__ = ("task", "turn")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.turn: Turn[V] | None = None


class _Record(Generic[V]):
    """What goes on for one key."""

    __slots__ = ("_flight", "_key", "alone", "followers", "has_leader", "queue")

    def __init__(self, flight: SingleFlight[Any, V], key: Hashable) -> None:
        self._flight = flight
        self._key = key
        self.has_leader = False
        #: Those who wait for what the leader brings: none without a leader.
        self.followers: OrderedDict[_Seat[V], None] = OrderedDict()
        #: Those who go alone as soon as a place is free: none while one is.
        self.queue: OrderedDict[_Seat[V], None] = OrderedDict()
        self.alone = 0

    def lead(self) -> Turn[V]:
        """The turn of a new leader."""
        self.has_leader = True
        self._flight.led += 1
        return Turn(Role.LEADS, self)

    def share(self, role: Role, value: V) -> None:
        """A turn ends: all who wait get ``value``."""
        self._stop(role)
        for seats in (self.followers, self.queue):
            while seats:
                self._flight.shared += 1
                _wake(seats, Turn(Role.SHARED, None, value))
        self._settle()

    def decline(self, role: Role) -> None:
        """A turn ends: if it led, those who waited for it may go alone."""
        self._stop(role)
        if role is Role.LEADS:
            self.queue.update(self.followers)
            self.followers.clear()
        self._settle()

    def leave(self, role: Role) -> None:
        """A turn ends with nothing said: if it led, the next leads."""
        self._stop(role)
        if role is Role.LEADS and self.followers:
            _wake(self.followers, self.lead())
        self._settle()

    def _stop(self, role: Role) -> None:
        if role is Role.LEADS:
            self.has_leader = False
        else:
            self.alone -= 1

    def _settle(self) -> None:
        """Fill the places of those who go alone; be forgotten if nobody works any more."""
        flight = self._flight
        while self.queue and self.alone < flight.max_alone:
            self.alone += 1
            flight.alone += 1
            _wake(self.queue, Turn(Role.ALONE, self))
        if not (self.has_leader or self.alone):
            flight.forget(self._key)


class Turn(Generic[V]):
    """What somebody who joined is to do. ``value`` is there for ``SHARED`` alone."""

    __slots__ = ("_record", "_value", "role")

    def __init__(self, role: Role, record: _Record[V] | None, value: V | None = None) -> None:
        self.role = role
        #: Where to say how it ended; ``None`` when that is said or there is nothing to say.
        self._record = record
        self._value = value

    @property
    def value(self) -> V:
        """What was shared. Raises LocalProtocolError in a turn that has to work itself."""
        if self.role is not Role.SHARED:
            raise LocalProtocolError("this turn has to work for its value itself")
        return cast("V", self._value)

    def share(self, value: V) -> None:
        """Give ``value`` to all who wait. Raises LocalProtocolError if an end was said."""
        self._end().share(self.role, value)

    def decline(self) -> None:
        """What was brought is for this turn alone: the others go on for themselves.

        In a turn that is alone, this makes room for the next. Raises LocalProtocolError
        if an end was said.
        """
        self._end().decline(self.role)

    def leave(self) -> None:
        """What the end of the block does: if no end was said, this turn brought nothing."""
        if self._record is not None:
            self._end().leave(self.role)

    def _end(self) -> _Record[V]:
        record = self._record
        if record is None:
            raise LocalProtocolError("this turn has nothing to say, or has said it")
        self._record = None
        return record


def _wake(seats: OrderedDict[_Seat[V], None], turn: Turn[V]) -> None:
    """Give ``turn`` to whoever has waited longest."""
    seat, _ = seats.popitem(last=False)
    seat.turn = turn
    trio.lowlevel.reschedule(seat.task)


class _Joining(Generic[K, V]):
    """``async with`` this to have a turn; what was left unsaid is settled at its end."""

    __slots__ = ("_flight", "_key", "_turn")

    def __init__(self, flight: SingleFlight[K, V], key: K) -> None:
        self._flight = flight
        self._key = key

    async def __aenter__(self) -> Turn[V]:
        self._turn = await self._flight.turn(self._key)
        return self._turn

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._turn.leave()


class SingleFlight(Generic[K, V]):
    """Turns by key.

    ``max_followers``: how many may wait for one key; ``max_alone``: how many of them work at
    one time where nothing could be shared. Both 1 or more, else ValueError.
    """

    __slots__ = ("_records", "alone", "led", "max_alone", "max_followers", "refused", "shared")

    def __init__(self, *, max_followers: int, max_alone: int) -> None:
        if max_followers < 1 or max_alone < 1:
            raise ValueError("max_followers and max_alone must be 1 or more")
        self.max_followers = max_followers
        self.max_alone = max_alone
        self.led = self.shared = self.alone = self.refused = 0
        self._records: dict[K, _Record[V]] = {}

    @property
    def statistics(self) -> Statistics:
        """What has happened and what goes on."""
        waiting = sum(len(r.followers) + len(r.queue) for r in self._records.values())
        keys = len(self._records)
        return Statistics(self.led, self.shared, self.alone, self.refused, keys, waiting)

    def join(self, key: K) -> _Joining[K, V]:
        """A turn for ``key``: ``async with flight.join(key) as turn:``.

        Whoever leads gets its turn at once, without a checkpoint; whoever follows waits.

        Raises:
            Overloaded: as many as may wait for this key do.
            trio.Cancelled: while waiting.
        """
        return _Joining(self, key)

    async def turn(self, key: K) -> Turn[V]:
        """What ``join`` enters with."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(self, key)
        elif record.has_leader:
            return await self._follow(record)
        # With a record and no leader, some go alone since nothing could be shared. That may
        # be over: one at a time may find out.
        return record.lead()

    def forget(self, key: K) -> None:
        """Drop the record of a key that nobody works on any more."""
        del self._records[key]

    async def _follow(self, record: _Record[V]) -> Turn[V]:
        if len(record.followers) + len(record.queue) >= self.max_followers:
            self.refused += 1
            raise Overloaded("too many wait for the same answer; nothing was done")
        seat: _Seat[V] = _Seat(trio.lowlevel.current_task())
        record.followers[seat] = None

        def leave_seat(_: object) -> trio.lowlevel.Abort:
            record.followers.pop(seat, None)
            record.queue.pop(seat, None)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave_seat)
        assert seat.turn is not None
        return seat.turn
