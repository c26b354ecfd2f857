"""Deadlines are kept within a tick, and moving one costs nothing."""

import trio

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
