import logging

import pytest
import trio
import trio.testing

from mcpx.services.errand import Errand, Errands, Pauses


@pytest.fixture
async def errands(nursery):
    running = Errands()
    await nursery.start(running.run)
    return running


class Work:
    def __init__(self):
        self.begun = 0
        self.ended = 0
        self.gate = trio.Event()
        self.error = None

    async def __call__(self):
        self.begun += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.ended += 1


async def test_many_who_wait_have_it_done_once(errands, nursery):
    work = Work()
    errand = Errand(errands, work)
    done = []

    async def one():
        await errand.finish(10)
        done.append(work.ended)

    for _ in range(50):
        nursery.start_soon(one)
    await trio.testing.wait_all_tasks_blocked()
    assert errand.under_way
    work.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert work.begun == 1
    assert done == [1] * 50
    assert not errand.under_way


async def test_the_first_who_waits_may_leave_and_the_work_goes_on(errands):
    work = Work()
    errand = Errand(errands, work)
    with trio.CancelScope() as scope:
        scope.cancel()
        await errand.finish(10)
    assert errand.under_way
    work.gate.set()
    await errand.finish(10)
    assert (work.begun, work.ended) == (1, 1)


async def test_nobody_waits_longer_than_their_own_deadline(errands, autojump_clock):
    errand = Errand(errands, Work())
    before = trio.current_time()
    await errand.finish(3)
    assert trio.current_time() - before == pytest.approx(3)
    assert errand.under_way


async def test_it_can_be_done_again(errands):
    work = Work()
    work.gate.set()
    errand = Errand(errands, work)
    await errand.finish(10)
    await errand.finish(10)
    assert work.ended == 2


async def test_a_fault_in_the_work_is_logged_and_ends_nothing_else(errands, caplog):
    work = Work()
    work.gate.set()
    work.error = KeyError("a fault")
    with caplog.at_level(logging.ERROR, "mcpx.errand"):
        await Errand(errands, work).finish(10)
    assert "errand failed" in caplog.text
    other = Work()
    other.gate.set()
    await Errand(errands, other).finish(10)
    assert other.ended == 1


async def test_whoever_waits_when_the_gateway_stops_is_released(nursery):
    async with trio.open_nursery() as inner:
        errands = Errands()
        await inner.start(errands.run)
        errand = Errand(errands, Work())
        nursery.start_soon(errand.finish, 1000)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert not errand.under_way
    await errand.finish(1000)  # and whoever comes later does not wait at all


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_success():
    pauses = Pauses(60)
    found = []
    now = 100.0
    for _ in range(8):
        pauses.failed(now)
        found.append(pauses.until - now)
    assert found == [1, 2, 4, 8, 16, 32, 60, 60]
    pauses.succeeded()
    assert now >= pauses.until
    pauses.failed(now)
    assert pauses.until - now == 1
