import pytest
import trio
import trio.testing

from mcpx.services.recent import Recent


class Work:
    def __init__(self):
        self.runs = 0
        self.go = trio.Event()

    async def __call__(self):
        self.runs += 1
        mine = self.runs
        await self.go.wait()
        return mine


async def test_many_callers_share_one_run(nursery):
    work, recent, got = Work(), Recent(5.0), []

    async def ask():
        got.append(await recent.get((), work))

    for _ in range(100):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    work.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert got == [1] * 100
    assert work.runs == 1


async def test_a_value_is_given_again_until_it_is_too_old(autojump_clock):
    work, recent = Work(), Recent(5.0)
    work.go.set()
    assert await recent.get((), work) == 1
    await trio.sleep(4.9)
    assert await recent.get((), work) == 1
    await trio.sleep(0.2)
    assert await recent.get((), work) == 2


async def test_followers_share_the_run_they_waited_for_even_if_nothing_is_kept(nursery):
    work, recent, got = Work(), Recent(0.0), []

    async def ask():
        got.append(await recent.get((), work))

    for _ in range(10):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    work.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert got == [1] * 10
    assert await recent.get((), work) == 2


async def test_cancelling_the_one_that_works_does_not_fail_the_others(nursery):
    work, recent, got = Work(), Recent(5.0), []
    leader = trio.CancelScope()

    async def lead():
        with leader:
            got.append(await recent.get((), work))

    async def follow():
        got.append(await recent.get((), work))

    nursery.start_soon(lead)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(3):
        nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked()
    leader.cancel()
    await trio.testing.wait_all_tasks_blocked()
    work.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert leader.cancelled_caught
    assert got == [2, 2, 2]


async def test_work_that_raises_is_its_callers_alone():
    recent = Recent(5.0)

    async def fail():
        raise ValueError

    with pytest.raises(ValueError):
        await recent.get((), fail)
    work = Work()
    work.go.set()
    assert await recent.get((), work) == 1


async def test_a_value_belongs_to_the_objects_it_was_made_from(nursery):
    recent, one, two = Recent(5.0), [1], [1]
    work = Work()
    work.go.set()
    assert await recent.get([one], work) == 1
    assert await recent.get([one], work) == 1
    assert await recent.get([two], work) == 2
    assert await recent.get([two, one], work) == 3
