"""Who waits for bytes is woken when they are there, and no earlier, whichever way holds.

``World`` plays what can happen to a socket in every order: bytes and the end come, tasks
begin to wait and give up, somebody else reads, the way changes, sockets are closed and
their numbers used again. At rest, nobody may wait for what is there, and the loop sleeps.
"""

import itertools
import os
import socket
import struct

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.transport import readiness as module
from mcpx.transport.readiness import MANY_SOCKETS, MANY_WAITS, REST_TICKS, Readiness

pytestmark = pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
async def readiness(nursery):
    readiness = Readiness()
    await nursery.start(readiness.run)
    readiness.share()
    return readiness


@pytest.fixture
def pairs():
    made = []

    def pair():
        ours, theirs = socket.socketpair()
        made.extend((ours, theirs))
        ours.setblocking(False)
        theirs.setblocking(False)
        return ours, theirs

    yield pair
    for sock in made:
        sock.close()


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    return ours, theirs


class Side:
    """A socket, its peer, and the one task that may wait for it."""

    def __init__(self, readiness):
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.channel = readiness.channel(self.ours)
        self.scope = None
        self.told = []

    async def wait(self, scope):
        with scope:
            try:
                while True:
                    await self.channel.readable()
                    try:
                        self.ours.recv(1, socket.MSG_PEEK)
                    except BlockingIOError:
                        continue
                    self.told.append("readable")
                    return
            except trio.ClosedResourceError:
                self.told.append("closed")
            finally:
                self.scope = None

    def has_something(self):
        try:
            self.ours.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return True

    def close(self):
        self.channel.close()
        trio.lowlevel.notify_closing(self.ours)
        self.ours.close()
        self.theirs.close()


class World:
    def __init__(self, readiness, nursery, sides):
        self.readiness = readiness
        self.nursery = nursery
        self.sides = [Side(readiness) for _ in range(sides)]

    async def do(self, what, at):
        side = self.sides[at]
        if what == "send":
            if side.theirs.fileno() >= 0:
                side.theirs.send(b"x")
        elif what == "end":
            side.theirs.close()
        elif what == "wait":
            if side.scope is None:
                side.scope = trio.CancelScope()
                self.nursery.start_soon(side.wait, side.scope)
        elif what == "give up":
            if side.scope is not None:
                side.scope.cancel()
        elif what == "read":
            try:
                side.ours.recv(100)
            except BlockingIOError:
                pass
        elif what == "flip":
            self.readiness.shared = not self.readiness.shared
        elif what == "reopen":
            number = side.ours.fileno()
            waited = side.scope is not None
            side.close()
            self.sides[at] = Side(self.readiness)
            # The number is most often the same, which is what is to be tried.
            self.reused = self.sides[at].ours.fileno() == number
            if waited:
                await trio.testing.wait_all_tasks_blocked()
                assert side.scope is None, "whoever waits for a closed socket is woken"
        elif what == "turn":
            await trio.lowlevel.checkpoint()
        else:
            await self.rest()

    async def rest(self):
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()
        for side in self.sides:
            assert side.scope is None or not side.has_something(), "it waits for what is there"
        inside = [side for side in self.sides if side.channel._in]
        assert len(inside) == len(self.readiness)
        for side in inside:
            waits = side.scope is not None
            assert waits or not side.has_something(), "it would keep the loop awake"

    async def end(self):
        await self.rest()
        for side in self.sides:
            # Whatever was before: what comes now is told.
            await self.do("wait", self.sides.index(side))
            await trio.lowlevel.checkpoint()
            if side.theirs.fileno() >= 0:
                side.theirs.send(b"x")
        await self.rest()
        for side in self.sides:
            assert side.scope is None
            side.close()
        assert len(self.readiness) == 0


ACTIONS = ("send", "end", "wait", "give up", "read", "flip", "reopen", "turn", "rest")


async def play(steps, *, sides, shared):
    async with trio.open_nursery() as nursery:
        readiness = Readiness()
        await nursery.start(readiness.run)
        readiness.shared = shared
        world = World(readiness, nursery, sides)
        for what, at in steps:
            await world.do(what, at)
        await world.end()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("shared", [True, False])
async def test_everything_in_every_order(shared):
    async with trio.open_nursery() as nursery:
        readiness = Readiness()
        await nursery.start(readiness.run)
        # What comes after the first wait matters; before it there is little to go wrong.
        for before in ((), ("send",), ("end",)):
            for steps in itertools.product(ACTIONS, repeat=3):
                readiness.shared = shared
                world = World(readiness, nursery, 1)
                for what in (*before, "wait", *steps):
                    await world.do(what, 0)
                await world.end()
        nursery.cancel_scope.cancel()


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2)), max_size=40),
    shared=st.booleans(),
)
async def test_long_stories_of_several_sockets(steps, shared):
    await play(steps, sides=3, shared=shared)


async def test_one_poll_wakes_all_that_have_something(readiness, pairs, nursery, monkeypatch):
    monkeypatch.setattr(module, "EVENTS", 4)
    woken = []

    async def wait(number, sock):
        await readiness.channel(sock).readable()
        woken.append((number, sock.recv(10)))

    made = [pairs() for _ in range(10)]
    for number, (ours, _) in enumerate(made):
        nursery.start_soon(wait, number, ours)
    await trio.testing.wait_all_tasks_blocked()
    assert len(readiness) == 10
    for number, (_, theirs) in enumerate(made):
        theirs.send(b"%d" % number)
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(woken) == [(number, b"%d" % number) for number in range(10)]


async def test_a_socket_stays_registered_from_one_wait_to_the_next(readiness, pairs):
    ours, theirs = pairs()
    channel = readiness.channel(ours)
    entered = []
    enter = readiness.enter
    readiness.enter = lambda *args: entered.append(args) or enter(*args)

    async def wait():
        await channel.readable()
        assert ours.recv(10) == b"x"

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"x")
    assert len(entered) == 1
    channel.close()


async def test_what_nobody_waits_for_does_not_keep_the_loop_awake(readiness, nursery):
    polls = 0
    poll = readiness._poll

    def counted(epoll):
        nonlocal polls
        polls += 1
        return poll(epoll)

    readiness._poll = counted
    for last_act in ("send", "end", "reset"):
        ours, theirs = tcp_pair()
        channel = readiness.channel(ours)
        scope = trio.CancelScope()

        async def wait(scope=scope, channel=channel):
            with scope:
                await channel.readable()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert len(readiness) == 1
        before = polls
        if last_act == "send":
            theirs.send(b"x")
        else:
            if last_act == "reset":
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            theirs.close()
        await trio.sleep(0.05)
        assert len(readiness) == 0
        assert polls - before == 1
        # It is told of at once to who waits for it later.
        with trio.fail_after(5):
            await channel.readable()
        channel.close()
        ours.close()
        theirs.close()


async def test_bytes_that_are_not_read_to_their_end_are_told_of_again(readiness, pairs):
    ours, theirs = pairs()
    channel = readiness.channel(ours)
    theirs.send(b"abc")
    for expected in (b"a", b"b", b"c"):
        with trio.fail_after(5):
            await channel.readable()
        assert ours.recv(1) == expected
        await trio.testing.wait_all_tasks_blocked()
    channel.close()


async def test_bytes_beyond_one_that_is_out_of_band_are_told_of(readiness):
    ours, theirs = tcp_pair()
    channel = readiness.channel(ours)
    theirs.send(b"ab")
    theirs.send(b"!", socket.MSG_OOB)
    theirs.send(b"cd")
    got = b""
    with trio.fail_after(5):
        while len(got) < 4:
            await channel.readable()
            got += ours.recv(100)
    assert got == b"abcd"
    channel.close()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("shared", [True, False])
async def test_two_tasks_may_not_wait_for_one_socket(readiness, pairs, nursery, shared):
    ours, theirs = pairs()
    channel = readiness.channel(ours)
    readiness.shared = shared
    nursery.start_soon(channel.readable)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.BusyResourceError):
        await channel.readable()
    readiness.shared = False
    with pytest.raises(trio.BusyResourceError):
        await channel.readable()
    theirs.send(b"x")
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
    ours.recv(1)
    channel.close()


@pytest.mark.parametrize("shared", [True, False])
async def test_a_closed_socket_is_not_waited_for(readiness, pairs, shared):
    ours, _ = pairs()
    channel = readiness.channel(ours)
    readiness.shared = shared
    channel.close()
    with pytest.raises(trio.ClosedResourceError):
        await channel.readable()
    assert len(readiness) == 0


async def test_a_number_that_is_used_again_belongs_to_the_new_socket_alone(readiness, nursery):
    first = Side(readiness)
    nursery.start_soon(first.wait, trio.CancelScope())
    await trio.testing.wait_all_tasks_blocked()
    number = first.ours.fileno()
    # Its bytes have come, and are not yet told of, when it is closed.
    first.theirs.send(b"of the first")
    first.close()
    second = Side(readiness)
    assert second.ours.fileno() == number
    scope = second.scope = trio.CancelScope()
    nursery.start_soon(second.wait, scope)
    await trio.testing.wait_all_tasks_blocked()
    assert first.told == ["closed"]
    assert second.told == []
    second.theirs.send(b"of the second")
    await trio.testing.wait_all_tasks_blocked()
    assert second.told == ["readable"]
    assert second.ours.recv(100) == b"of the second"
    second.close()


async def test_where_the_kernel_has_no_room_waits_are_trios(readiness, pairs, nursery):
    class Full:
        def register(self, fd, mask):
            raise OSError(28, "No space left on device")

    ours, theirs = pairs()
    channel = readiness.channel(ours)
    epoll, readiness._epoll = readiness._epoll, Full()
    nursery.start_soon(channel.readable)
    await trio.testing.wait_all_tasks_blocked()
    readiness._epoll = epoll
    assert len(readiness) == 0
    theirs.send(b"x")
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked()
    channel.close()


async def test_those_that_wait_when_it_ends_go_on_in_trios_way(pairs):
    ours, theirs = pairs()
    readiness = Readiness()
    got = []

    async def wait(channel):
        while not got:
            await channel.readable()
            try:
                got.append(ours.recv(10))
            except BlockingIOError:
                continue

    async with trio.open_nursery() as waiting:
        async with trio.open_nursery() as running:
            await running.start(readiness.run)
            readiness.share()
            channel = readiness.channel(ours)
            waiting.start_soon(wait, channel)
            await trio.testing.wait_all_tasks_blocked()
            assert len(readiness) == 1
            running.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert len(readiness) == 0
        assert not got
        theirs.send(b"x")
    assert got == [b"x"]
    channel.close()


async def test_without_a_task_that_runs_it_every_wait_is_trios(pairs):
    ours, theirs = pairs()
    readiness = Readiness()
    readiness.share()
    for _ in range(REST_TICKS + 1):
        readiness.sockets, readiness.waits = MANY_SOCKETS, MANY_WAITS
        readiness.look(0)
    assert not readiness.shared
    channel = readiness.channel(ours)
    theirs.send(b"x")
    with trio.fail_after(5):
        await channel.readable()
    channel.close()


async def test_it_gives_its_descriptor_back(readiness, nursery):
    opened = set(os.listdir("/proc/self/fd"))
    async with trio.open_nursery() as inner:
        await inner.start(Readiness().run)
        assert set(os.listdir("/proc/self/fd")) > opened
        inner.cancel_scope.cancel()
    assert set(os.listdir("/proc/self/fd")) <= opened


# -- which way holds ------------------------------------------------------------


async def test_waits_are_shared_while_many_sockets_wait_much(readiness, pairs, nursery):
    readiness.shared = False
    channels = [readiness.channel(pairs()[0]) for _ in range(MANY_SOCKETS)]

    async def tick(active, each):
        """A tick in which ``active`` sockets wait ``each`` times."""
        for channel in channels[:active]:
            for _ in range(each):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await channel.readable()
        readiness.look(0)
        return readiness.shared

    each = MANY_WAITS // MANY_SOCKETS + 1
    assert not await tick(MANY_SOCKETS - 1, each * 2)  # too few sockets
    assert not await tick(MANY_SOCKETS, 2)  # too few waits
    assert await tick(MANY_SOCKETS, each)
    assert await tick(MANY_SOCKETS, each)
    assert not await tick(MANY_SOCKETS, 1)  # the load is over
    assert await tick(MANY_SOCKETS, each)  # and back
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("at_once", [1, MANY_SOCKETS])
async def test_sharing_ends_for_a_while_where_few_are_woken_at_a_time(
    readiness, pairs, nursery, at_once
):
    made = [pairs() for _ in range(MANY_SOCKETS)]
    channels = [readiness.channel(ours) for ours, _ in made]

    async def wait(channel, ours):
        await channel.readable()
        ours.recv(10)

    for first in range(0, MANY_SOCKETS, at_once):
        chosen = range(first, first + at_once)
        for number in chosen:
            nursery.start_soon(wait, channels[number], made[number][0])
        await trio.testing.wait_all_tasks_blocked()
        for number in chosen:
            made[number][1].send(b"x")
        await trio.testing.wait_all_tasks_blocked()
    readiness.waits = MANY_WAITS
    readiness.look(0)
    assert readiness.shared == (at_once > 1)
    if at_once == 1:
        for _ in range(REST_TICKS):
            readiness.sockets, readiness.waits = MANY_SOCKETS, MANY_WAITS
            readiness.look(0)
            assert not readiness.shared
        readiness.sockets, readiness.waits = MANY_SOCKETS, MANY_WAITS
        readiness.look(0)
        assert readiness.shared
    for channel in channels:
        channel.close()
