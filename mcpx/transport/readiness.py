"""Waiting for many sockets at the price of one.

What it is: a second epoll in which a socket stays registered for as long as it is used,
and the one task that waits for that epoll's own descriptor and wakes whoever waits for a
socket in it. ``trio.lowlevel.wait_readable`` arms its registration anew for every wait,
which is a system call and bookkeeping each time.

What it must never do: say that a socket is readable when the kernel did not, or keep a
task waiting for what has come.

What makes it right is that nothing is remembered of what the kernel said. Registrations
are level-triggered: as long as bytes, or the end, lie unread, every poll tells of them.
(Edge-triggered ones would need a note of every event that nobody waited for, and a rule
for when the note ends; a short read is no such rule where bytes out of band or
descriptors cut a read.) What is told while nobody waits takes the socket out, so that
it can't keep the loop awake; the next wait puts it in again. A socket is in the epoll
exactly if its channel is in the table, and leaves both before it is closed: an event
never meets a number that another socket has now. A wait may end although nothing is
there; whoever reads is told so by the kernel, and waits again.

When it is worth it: waking for one event costs more this way than trio's (a turn of the
loop is added), waking for many at once far less for each. So sockets are waited for in
trio's way until many are active, and again when the polls find only few at a time. Which
way holds is looked at when a wait begins; both always work.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["Channel", "Readiness"]

#: Sockets that must wait, and waits that there must be, in one tick, before waits are shared.
MANY_SOCKETS: Final = 16
MANY_WAITS: Final = 500
#: Fewer tasks than this woken by a poll, and trio's way is the cheaper one.
WORTHWHILE: Final = 3.0
#: So many ticks pass before sharing is tried again where it was not worth it.
REST_TICKS: Final = 20
#: Events taken at one poll; the others are told of by the next.
EVENTS: Final = 256


class Channel:
    """One socket. ``close`` it before the socket, and close that at once.

    ``trio.lowlevel.notify_closing`` is the caller's to call: it wakes those that wait in
    trio's way.
    """

    __slots__ = ("_closed", "_fd", "_in", "_reader", "_readiness", "_tick", "_woken")

    def __init__(self, readiness: Readiness, fd: int) -> None:
        self._readiness = readiness
        self._fd = fd
        self._tick = -1
        #: Whether it is in the epoll, and who waits for it there.
        self._in = False
        self._reader: trio.lowlevel.Task | None = None
        #: Its reader was woken and has not yet had its turn to read.
        self._woken = False
        self._closed = False

    async def readable(self) -> None:
        """Wait until there may be bytes, or the end, to read. One task at a time.

        Raises:
            trio.BusyResourceError: another task waits for it.
            trio.ClosedResourceError: it is closed, or was while this waited.
        """
        if self._closed:
            raise trio.ClosedResourceError("the socket is closed")
        if self._reader is not None:
            raise trio.BusyResourceError("another task waits for this socket")
        readiness = self._readiness
        readiness.waits += 1
        if self._tick != readiness.tick:
            self._tick = readiness.tick
            readiness.sockets += 1
        if readiness.shared and (self._in or self._enter()):
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._given_up)
            self._woken = False
        else:
            await trio.lowlevel.wait_readable(self._fd)
        # Also if it was woken by bytes, and closed before its turn came.
        if self._closed:
            raise trio.ClosedResourceError("the socket was closed by another task")

    def _given_up(self, _raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def ready(self) -> bool:
        """The kernel says that it can be read; whether that wakes a task."""
        if self._reader is not None:
            self.wake()
            return True
        if not self._woken:
            self._leave()
        return False

    def wake(self) -> None:
        """Let whoever waits go on."""
        if self._reader is not None:
            task, self._reader = self._reader, None
            self._woken = True
            trio.lowlevel.reschedule(task)

    def dismiss(self) -> None:
        """The epoll is no more."""
        self._in = False
        self.wake()

    def _enter(self) -> bool:
        self._in = self._readiness.enter(self, self._fd)
        return self._in

    def _leave(self) -> None:
        self._in = False
        self._readiness.leave(self._fd)

    def close(self) -> None:
        """The socket is about to be closed: whoever waits is woken with an error."""
        self._closed = True
        if self._in:
            self._leave()
        self.wake()


class Readiness:
    """The shared epoll of a process; Linux alone has one (``Readiness.here``).

    While ``run`` does not run, every wait is trio's own.
    """

    here: Final = hasattr(select, "epoll")

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._channels: dict[int, Channel] = {}
        #: Whether waits that begin now are shared.
        self.shared = False
        # Of this tick: its number, the waits that began, for how many sockets.
        self.tick = 0
        self.waits = 0
        self.sockets = 0
        # Of this tick: the polls that woke tasks, and how many they woke.
        self._polls = 0
        self._woken = 0
        self._rest = 0

    def __len__(self) -> int:
        return len(self._channels)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake tasks until cancelled; those that still wait then go on in trio's way."""
        self._epoll = epoll = select.epoll()
        try:
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(epoll.fileno())
                # Where much goes on, more has come in the meantime: that spares the wait.
                while self._poll(epoll):
                    await trio.lowlevel.checkpoint()
        finally:
            self.shared = False
            self._epoll = None
            for channel in self._channels.values():
                channel.dismiss()
            self._channels.clear()
            trio.lowlevel.notify_closing(epoll.fileno())
            epoll.close()

    def _poll(self, epoll: select.epoll) -> bool:
        """Wake whoever the kernel has something for; whether anybody was."""
        channels, woken = self._channels, 0
        for fd, _ in epoll.poll(0, EVENTS):
            woken += channels[fd].ready()
        if not woken:
            return False
        self._polls += 1
        self._woken += woken
        return True

    def look(self, _now: float) -> None:
        """A tick is over: choose the way of the waits that begin in the next one."""
        if self._epoll is None:
            return
        if self.shared:
            if self.waits < MANY_WAITS:
                self.shared = False
            elif self._woken < WORTHWHILE * self._polls:
                self.shared = False
                self._rest = REST_TICKS
        elif self._rest:
            self._rest -= 1
        else:
            self.shared = self.sockets >= MANY_SOCKETS and self.waits >= MANY_WAITS
        self.tick += 1
        self.waits = self.sockets = self._polls = self._woken = 0

    def share(self) -> None:
        """Share the waits that begin from now on, until a tick finds that it isn't worth it."""
        self.shared = self._epoll is not None

    def channel(self, sock: socket.socket) -> Channel:
        """The way to wait for ``sock``, which is non-blocking and not waited for elsewhere."""
        return Channel(self, sock.fileno())

    def enter(self, channel: Channel, fd: int) -> bool:
        """Register ``fd``; ``False`` where the kernel has no room for it."""
        assert self._epoll is not None
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            return False
        self._channels[fd] = channel
        return True

    def leave(self, fd: int) -> None:
        """Take ``fd`` out; it is still open."""
        del self._channels[fd]
        assert self._epoll is not None
        self._epoll.unregister(fd)
