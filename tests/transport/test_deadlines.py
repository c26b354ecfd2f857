"""Deadlines are kept within a tick, and moving one costs nothing."""

import pytest
import trio
import trio.testing

from mcpx.transport.deadlines import Deadlines, Watch


async def test_what_waits_too_long_is_cancelled_within_a_tick(nursery, autojump_clock):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    started = trio.current_time()
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        deadlines.add(watch)
        watch.until(started + 3, "upstream answer")
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert watch.expired
    assert watch.phase == "upstream answer"
    assert 3 <= trio.current_time() - started <= 3.25


async def test_a_deadline_that_is_moved_on_in_time_does_not_fire(nursery, autojump_clock):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        deadlines.add(watch)
        for _ in range(10):
            watch.until(trio.current_time() + 2, "client")
            await trio.sleep(1.5)
        watch.rest()
        await trio.sleep(100)
    assert not scope.cancelled_caught


async def test_the_limit_of_the_exchange_bounds_every_wait(nursery, autojump_clock):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    started = trio.current_time()
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        deadlines.add(watch)
        watch.limit = started + 5
        while True:
            watch.until(trio.current_time() + 2, "upstream body")
            await trio.sleep(1)
    assert watch.expired
    assert 5 <= trio.current_time() - started <= 6.25


async def test_a_client_that_has_left_is_seen_without_having_expired(nursery, autojump_clock):
    deadlines = Deadlines()
    await nursery.start(deadlines.run)
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        watch.gone = lambda: trio.current_time() > 10
        deadlines.add(watch)
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not watch.expired


async def test_what_is_no_longer_watched_is_left_alone(nursery, autojump_clock):
    deadlines = Deadlines()
    await nursery.start(deadlines.run)
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        deadlines.add(watch)
        watch.until(1, "idle")
        deadlines.remove(watch)
        assert len(deadlines) == 0
        await trio.sleep(10)
    assert not scope.cancelled_caught


async def test_chores_are_done_at_every_tick(nursery, autojump_clock):
    deadlines = Deadlines(tick_s=1)
    times = []
    deadlines.every_tick(times.append)
    await nursery.start(deadlines.run)
    await trio.sleep(3.5)
    assert len(times) == 3


@pytest.mark.parametrize("since_tick_s", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("wait_s", [0.05, 0.3, 3])
async def test_a_wait_counted_from_the_next_tick_is_never_short(
    nursery, autojump_clock, since_tick_s, wait_s
):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    await trio.sleep(1 + since_tick_s)
    started = trio.current_time()
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        deadlines.add(watch)
        watch.within(wait_s, "upstream answer")
        await trio.sleep_forever()
    assert watch.expired
    assert watch.phase == "upstream answer"
    assert wait_s <= trio.current_time() - started <= wait_s + 2 * 0.25


async def test_a_wait_is_not_short_where_the_loop_was_busy_for_long(nursery, mock_clock):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    watches = [Watch(trio.CancelScope()) for _ in range(3)]
    before, meanwhile, precise = watches
    for watch in watches:
        deadlines.add(watch)
    before.within(20, "client")
    mock_clock.jump(0.26)
    await trio.testing.wait_all_tasks_blocked()
    # Two seconds in which no task had its turn, and so no tick.
    mock_clock.jump(2)
    meanwhile.within(1, "client")
    precise.until(trio.current_time() + 1, "client")
    await trio.testing.wait_all_tasks_blocked()
    assert not meanwhile.expired
    for _ in range(3):
        mock_clock.jump(0.3)
        await trio.testing.wait_all_tasks_blocked()
    assert not meanwhile.expired, "0.9 s of 1 s"
    assert not precise.expired
    for _ in range(2):
        mock_clock.jump(0.3)
        await trio.testing.wait_all_tasks_blocked()
    assert meanwhile.expired
    assert precise.expired
    assert not before.expired


async def test_the_limit_bounds_a_wait_counted_from_the_next_tick(nursery, autojump_clock):
    deadlines = Deadlines(tick_s=0.25)
    await nursery.start(deadlines.run)
    watch = Watch(trio.CancelScope())
    deadlines.add(watch)
    watch.limit = trio.current_time() + 2
    watch.within(5, "client")
    assert watch.deadline == watch.limit
    watch.within(1, "client")
    assert watch.deadline < watch.limit


async def test_a_watch_that_no_task_looks_at_counts_from_now(autojump_clock):
    deadlines = Deadlines(tick_s=0.25)
    watch = Watch(trio.CancelScope())
    await trio.sleep(7)
    watch.within(5, "client")
    assert watch.deadline == 12
    deadlines.add(watch)
    watch.within(6, "client")
    assert watch.deadline == 13
    async with trio.open_nursery() as nursery:
        await nursery.start(deadlines.run)
        watch.within(7, "client")
        assert watch.deadline == 14.25
        deadlines.remove(watch)
        watch.within(7, "client")
        assert watch.deadline == 14
        deadlines.add(watch)
        nursery.cancel_scope.cancel()
    watch.within(8, "client")
    assert watch.deadline == 15
