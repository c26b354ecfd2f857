"""One leader for a key, no follower forgotten, no stampede; whoever leaves, and whenever."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.errors import LocalProtocolError, Overloaded
from mcpx.gateway.single_flight import Role, SingleFlight


def flight(max_followers=1000, max_alone=2):
    return SingleFlight(max_followers=max_followers, max_alone=max_alone)


class Backend:
    """Counts how often it is asked, and how often at one time."""

    def __init__(self, takes_s=1.0):
        self.takes_s = takes_s
        self.calls = self.now = self.peak = 0

    async def ask(self):
        self.calls += 1
        number = self.calls
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await trio.sleep(self.takes_s)
        finally:
            self.now -= 1
        return f"answer {number}"


async def fetch(f, backend, results, key="k", verdict="share"):
    """What a pipeline does with a turn."""
    async with f.join(key) as turn:
        if turn.role is Role.SHARED:
            results.append(turn.value)
            return
        answer = await backend.ask()
        if verdict == "share":
            turn.share(answer)
        elif verdict == "decline":
            turn.decline()
        results.append(answer)


def nothing_is_left(f):
    return not f._records and f.statistics.waiting == 0


async def test_500_identical_calls_at_one_time_reach_the_backend_once(autojump_clock):
    f, backend, results = flight(), Backend(), []
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(fetch, f, backend, results)
    assert backend.calls == 1
    assert results == ["answer 1"] * 500
    assert (f.led, f.shared, f.alone) == (1, 499, 0)
    assert trio.current_time() == pytest.approx(1.0)
    assert nothing_is_left(f)


async def test_calls_of_different_keys_do_not_wait_for_each_other(autojump_clock):
    f, backend, results = flight(), Backend(), []
    async with trio.open_nursery() as nursery:
        for key in range(10):
            nursery.start_soon(fetch, f, backend, results, key)
    assert backend.calls == backend.peak == 10
    assert trio.current_time() == pytest.approx(1.0)


async def test_who_comes_after_the_answer_asks_anew(autojump_clock):
    f, backend, results = flight(), Backend(), []
    await fetch(f, backend, results)
    await fetch(f, backend, results)
    assert results == ["answer 1", "answer 2"]
    assert nothing_is_left(f)


async def test_followers_of_an_answer_that_is_the_leaders_alone_go_few_at_a_time(autojump_clock):
    f, backend, results = flight(max_alone=3), Backend(), []
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(fetch, f, backend, results, "k", "decline")
    assert backend.calls == 10
    assert backend.peak == 3
    assert sorted(results) == sorted(f"answer {n + 1}" for n in range(10))
    assert trio.current_time() == pytest.approx(4.0)
    assert nothing_is_left(f)


async def test_waves_of_calls_that_share_nothing_stay_within_one_limit(autojump_clock):
    f, backend, results = flight(max_alone=2), Backend(takes_s=5.0), []
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            for _ in range(5):
                nursery.start_soon(fetch, f, backend, results, "k", "decline")
            await trio.sleep(0.5)
    assert backend.calls == 30
    assert backend.peak <= 2 + 1
    assert nothing_is_left(f)


async def test_who_goes_alone_without_a_word_makes_room_for_the_next(autojump_clock):
    f, backend, results = flight(max_alone=1), Backend(), []

    async def unsaid_unless_leader():
        async with f.join("k") as turn:
            await backend.ask()
            if turn.role is Role.LEADS:
                turn.decline()
            results.append(turn.role)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(unsaid_unless_leader)
    assert results == [Role.LEADS] + [Role.ALONE] * 3
    assert (backend.calls, backend.peak) == (4, 1)
    assert nothing_is_left(f)


async def test_one_who_goes_alone_and_can_share_after_all_serves_those_still_waiting(
    autojump_clock,
):
    f, backend, results = flight(max_alone=1), Backend(), []

    async def first_fails():
        async with f.join("k") as turn:
            if turn.role is Role.SHARED:
                results.append(turn.value)
                return
            answer = await backend.ask()
            if turn.role is Role.LEADS:
                turn.decline()
            else:
                turn.share(answer)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(first_fails)
    assert backend.calls == 2
    assert results == ["answer 2"] * 18
    assert nothing_is_left(f)


async def test_followers_have_their_answer_while_the_leader_is_still_busy_with_its_client(
    autojump_clock,
):
    f, backend, results = flight(), Backend(), []
    at = []

    async def slow_leader():
        async with f.join("k") as turn:
            turn.share(await backend.ask())
            await trio.sleep(100)

    async def follower():
        await fetch(f, backend, results)
        at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow_leader)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(follower)
    assert results == ["answer 1"]
    assert at == [pytest.approx(1.0)]


# Leaving.


async def test_a_leader_that_is_cancelled_is_followed_by_exactly_one(autojump_clock):
    f, backend, results = flight(), Backend(), []
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leader():
            with scope:
                await fetch(f, backend, results)

        nursery.start_soon(leader)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(20):
            nursery.start_soon(fetch, f, backend, results)
        await trio.sleep(0.5)
        scope.cancel()
    assert backend.calls == 2
    assert backend.peak == 1
    assert results == ["answer 2"] * 20
    assert trio.current_time() == pytest.approx(1.5)
    assert nothing_is_left(f)


async def test_leaders_that_fall_one_after_the_other_are_followed_in_order(autojump_clock):
    f, order = flight(), []

    async def falls(n):
        async with f.join("k") as turn:
            order.append((n, turn.role))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(falls, n)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [(n, Role.LEADS) for n in range(5)]
    assert nothing_is_left(f)


async def test_an_error_that_the_leader_did_not_account_for_goes_to_it_alone(autojump_clock):
    f, backend, results = flight(), Backend(), []

    async def leader():
        with pytest.raises(RuntimeError, match="mine"):
            async with f.join("k"):
                await trio.sleep(0.5)
                raise RuntimeError("mine")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(fetch, f, backend, results)
        nursery.start_soon(fetch, f, backend, results)
    assert results == ["answer 1"] * 2
    assert nothing_is_left(f)


async def test_a_leader_without_followers_that_leaves_leaves_nothing_behind(autojump_clock):
    f = flight()
    with trio.move_on_after(1):
        async with f.join("k"):
            await trio.sleep_forever()
    assert nothing_is_left(f)


async def test_a_follower_waits_no_longer_than_its_own_deadline(autojump_clock):
    f, backend, results = flight(), Backend(takes_s=10.0), []
    left = []

    async def impatient():
        with trio.move_on_after(2) as scope:
            await fetch(f, backend, results)
        left.append((scope.cancelled_caught, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, f, backend, results)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(impatient)
        nursery.start_soon(fetch, f, backend, results)
    assert left == [(True, pytest.approx(2.0))]
    assert results == ["answer 1"] * 2
    assert backend.calls == 1
    assert nothing_is_left(f)


async def test_who_waits_to_go_alone_can_leave_and_takes_nobodys_place(autojump_clock):
    f, backend, results = flight(max_alone=1), Backend(takes_s=2.0), []
    scopes = []

    async def caller():
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await fetch(f, backend, results, "k", "decline")

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3)
        scopes[2].cancel()
    assert backend.calls == 3
    assert backend.peak == 1
    assert nothing_is_left(f)


@pytest.mark.parametrize("end", ["share", "decline", "leave"])
@pytest.mark.parametrize("first", ["cancel", "end"])
async def test_a_follower_cancelled_in_the_moment_of_its_turn_loses_it_for_nobody(
    autojump_clock, end, first
):
    """Both within one step of the scheduler, in both orders."""
    f, backend, results = flight(max_alone=1), Backend(), []
    scope = trio.CancelScope()

    async def doomed():
        with scope:
            await fetch(f, backend, results)

    async with trio.open_nursery() as nursery:
        async with f.join("k") as turn:
            nursery.start_soon(doomed)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(fetch, f, backend, results)
            nursery.start_soon(fetch, f, backend, results)
            await trio.testing.wait_all_tasks_blocked()
            if first == "cancel":
                scope.cancel()
            if end == "share":
                turn.share("shared")
            elif end == "decline":
                turn.decline()
            else:
                turn.leave()
            if first == "end":
                scope.cancel()
    if end == "share":
        # Its value was there before it was cancelled; it had no need to wait again.
        assert results == ["shared"] * (3 if first == "end" else 2)
    else:
        assert len(results) == 2
        assert all(result.startswith("answer") for result in results)
    assert backend.peak <= 1
    assert nothing_is_left(f)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("who", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("verdict", ["share", "decline", "unsaid"])
async def test_whoever_is_cancelled_whenever_all_others_are_served(
    autojump_clock, at, who, verdict
):
    f, backend = flight(max_alone=2), Backend()
    scopes = [trio.CancelScope() for _ in range(5)]
    served = set()

    async def caller(n):
        with scopes[n]:
            await fetch(f, backend, [], "k", verdict)
            served.add(n)

    async with trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(caller, n)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(at)
        scopes[who].cancel()
    assert served >= {0, 1, 2, 3, 4} - {who}
    assert nothing_is_left(f)


# Bounds and misuse.


async def test_more_followers_than_may_wait_are_refused_at_once(autojump_clock):
    f, backend, results = flight(max_followers=3), Backend(), []
    refused = []

    async def caller():
        try:
            await fetch(f, backend, results)
        except Overloaded as error:
            refused.append((error.status, dict(error.headers), trio.current_time()))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(caller)
    assert len(results) == 4
    assert refused == [(503, {b"retry-after": b"1"}, 0.0)] * 2
    assert f.statistics.refused == 2
    assert nothing_is_left(f)


async def test_those_who_wait_to_go_alone_count_as_waiting(autojump_clock):
    f, backend, results = flight(max_followers=3, max_alone=1), Backend(), []
    async with trio.open_nursery() as nursery:
        async with f.join("k") as turn:
            for _ in range(3):
                nursery.start_soon(fetch, f, backend, results, "k", "decline")
            await trio.testing.wait_all_tasks_blocked()
            turn.decline()
        assert f.statistics.waiting == 2
        async with f.join("k") as turn:
            assert turn.role is Role.LEADS
            nursery.start_soon(fetch, f, backend, results, "k", "decline")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await f.turn("k")
            turn.decline()
    assert nothing_is_left(f)


async def test_an_end_can_be_said_once():
    f = flight()
    async with f.join("k") as turn:
        turn.share(None)
        with pytest.raises(LocalProtocolError):
            turn.share(1)
        with pytest.raises(LocalProtocolError):
            turn.decline()
        turn.leave()
    assert nothing_is_left(f)


async def test_only_a_shared_turn_has_a_value_and_nothing_else(autojump_clock):
    f = flight()

    async def follower():
        async with f.join("k") as turn:
            assert turn.value is None
            with pytest.raises(LocalProtocolError):
                turn.share(2)

    async with trio.open_nursery() as nursery:
        async with f.join("k") as turn:
            with pytest.raises(LocalProtocolError):
                _ = turn.value
            nursery.start_soon(follower)
            await trio.testing.wait_all_tasks_blocked()
            turn.share(None)


@pytest.mark.parametrize("limits", [(0, 1), (1, 0)])
def test_limits_below_one_are_refused(limits):
    with pytest.raises(ValueError):
        SingleFlight(max_followers=limits[0], max_alone=limits[1])


# Any schedule.

callers = st.tuples(
    st.sampled_from(["a", "a", "b"]),
    st.integers(0, 8),  # when it comes
    st.integers(0, 4),  # how long its work takes
    st.sampled_from(["share", "decline", "raise"]),
    st.none() | st.integers(0, 10),  # when it is cancelled
)


@settings(max_examples=150, deadline=None)
@given(schedule=st.lists(callers, max_size=14), max_alone=st.integers(1, 3))
def test_every_schedule_ends_with_everybody_served_and_the_limits_kept(schedule, max_alone):
    async def main():
        f = flight(max_alone=max_alone)
        leads = {"a": 0, "b": 0}
        alone = {"a": 0, "b": 0}
        ended = []

        async def caller(index, key, comes, takes, verdict, cancelled):
            deadline = math.inf if cancelled is None else trio.current_time() + cancelled
            with trio.CancelScope(deadline=deadline) as scope:
                await trio.sleep(comes)
                try:
                    async with f.join(key) as turn:
                        if turn.role is Role.SHARED:
                            assert schedule[turn.value][0] == key
                            assert schedule[turn.value][3] == "share"
                        else:
                            counts = leads if turn.role is Role.LEADS else alone
                            counts[key] += 1
                            assert leads[key] <= 1
                            assert alone[key] <= max_alone
                            try:
                                await trio.sleep(takes)
                            finally:
                                counts[key] -= 1
                            if verdict == "raise":
                                raise KeyError
                            if verdict == "share":
                                turn.share(index)
                            else:
                                turn.decline()
                except KeyError:
                    pass
            ended.append(index)
            assert cancelled is not None or not scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for index, entry in enumerate(schedule):
                nursery.start_soon(caller, index, *entry)
        assert sorted(ended) == list(range(len(schedule)))
        assert nothing_is_left(f)

    # Work of fourteen callers, four seconds each, is over long before this.
    async def in_time():
        with trio.fail_after(14 * 4 + 10):
            await main()

    trio.run(in_time, clock=trio.testing.MockClock(autojump_threshold=0))
