"""The rate limiter: exact waits, bounded maps, nobody starves another."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mcpx.config.model import RateLimitConfig
from mcpx.core import limits
from mcpx.core.limits import Rate, RateLimiter, Rates, retry_after

T0 = 123_456.789

rates = st.floats(min_value=0.01, max_value=100_000, allow_nan=False)
bursts = st.integers(1, 50)
times = st.floats(min_value=0, max_value=1e7, allow_nan=False)


def drain(limiter, client, now):
    granted = 0
    while limiter.request(client, now) == 0.0:
        granted += 1
    return granted


def test_a_burst_of_n_is_exactly_n_requests_at_one_moment():
    limiter = RateLimiter(Rates(total=Rate(3.0, 7)))
    assert drain(limiter, "a", T0) == 7


@given(rate=rates, burst=bursts, now=times)
def test_every_burst_is_granted_whole_at_every_time_and_rate(rate, burst, now):
    assert drain(RateLimiter(Rates(total=Rate(rate, burst))), "a", now) == burst
    limiter = RateLimiter(Rates(tool=Rate(rate, burst)))
    assert [limiter.tool("s", "t", now) for _ in range(burst)] == [0.0] * burst
    assert limiter.tool("s", "t", now) > 0


@given(rate=rates, burst=bursts, now=times)
def test_waiting_the_told_time_gets_a_token_and_a_hair_less_does_not(rate, burst, now):
    limiter = RateLimiter(Rates(total=Rate(rate, burst)))
    drain(limiter, "a", now)
    wait = limiter.request("a", now)
    assert 0 < wait <= 1 / rate * (1 + 1e-9) + math.ulp(now) + 1e-11
    early = math.nextafter(now + wait, -math.inf)
    assert limiter.request("a", early) > 0
    assert limiter.request("a", now + wait) == 0.0


@given(now=times, early=st.floats(0, 1))
def test_the_told_time_is_right_whenever_one_asks(now, early):
    limiter = RateLimiter(Rates(client=Rate(0.5, 2)))
    drain(limiter, "a", now)
    asked_at = now + early
    wait = limiter.request("a", asked_at)
    assert limiter.request("a", asked_at + wait) == 0.0


def test_a_throttled_client_costs_the_others_nothing():
    limiter = RateLimiter(Rates(total=Rate(1.0, 5), client=Rate(1.0, 2)))
    assert drain(limiter, "noisy", T0) == 2
    for _ in range(1000):
        assert limiter.request("noisy", T0) > 0
    assert drain(limiter, "quiet", T0) == 2
    assert drain(limiter, "third", T0) == 1


def test_a_request_refused_by_the_common_bucket_leaves_the_clients_token():
    limiter = RateLimiter(Rates(total=Rate(1.0, 1), client=Rate(0.001, 1)))
    assert limiter.request("a", T0) == 0.0
    wait = limiter.request("b", T0)
    assert wait == pytest.approx(1.0)
    assert len(limiter) == 1
    assert limiter.request("b", T0 + wait) == 0.0


def test_the_wait_covers_both_buckets():
    limiter = RateLimiter(Rates(total=Rate(0.1, 1), client=Rate(1.0, 1)))
    limiter.request("a", T0)
    wait = limiter.request("a", T0)
    assert wait == pytest.approx(10.0)
    assert limiter.request("a", T0 + wait) == 0.0


def test_a_tool_has_a_bucket_on_each_server():
    limiter = RateLimiter(Rates(tool=Rate(1.0, 1)))
    assert limiter.tool("one", "echo", T0) == 0.0
    assert limiter.tool("two", "echo", T0) == 0.0
    assert limiter.tool("one", "echo", T0) > 0
    assert limiter.tool("one", "other", T0) == 0.0


def test_without_rates_everything_is_granted():
    limiter = RateLimiter(Rates())
    assert [limiter.request("a", T0), limiter.tool("s", "t", T0)] == [0.0, 0.0]
    assert len(limiter) == 0


def test_a_map_keeps_max_keys_and_forgets_the_one_asked_least_recently():
    limiter = RateLimiter(Rates(client=Rate(0.001, 1), tool=Rate(0.001, 1), max_keys=2))
    limiter.request("a", T0)
    limiter.request("b", T0)
    assert limiter.request("a", T0) > 0  # a refusal is an asking as well
    limiter.request("c", T0)
    assert limiter.request("a", T0) > 0
    assert limiter.request("b", T0) == 0.0
    for number in range(100):
        limiter.tool("s", f"t{number}", T0)
    assert len(limiter) == 4


def test_a_tool_that_is_refused_is_not_forgotten_for_others():
    limiter = RateLimiter(Rates(tool=Rate(0.001, 1), max_keys=2))
    limiter.tool("s", "hot", T0)
    for number in range(50):
        assert limiter.tool("s", "hot", T0) > 0
        limiter.tool("s", f"t{number}", T0)
    assert limiter.tool("s", "hot", T0) > 0


def test_long_names_are_told_apart_and_not_kept():
    limiter = RateLimiter(Rates(client=Rate(0.001, 1), tool=Rate(0.001, 1)))
    long, other = "x" * 1_000_000, "x" * 1_000_000 + "\ud800"
    assert limiter.tool("s", long, T0) == 0.0
    assert limiter.tool("s", long, T0) > 0
    assert limiter.tool("s", other, T0) == 0.0
    assert limiter.request(long, T0) == 0.0
    assert limiter.request(long, T0) > 0
    kept = [*limiter._tools.entries, *limiter._clients.entries]
    assert all(len(part) < 300 for key in kept for part in (key if type(key) is tuple else [key]))


def test_a_clock_that_runs_back_locks_nobody_out_and_gives_nothing_away():
    limiter = RateLimiter(Rates(total=Rate(1.0, 3), client=Rate(1.0, 3)))
    drain(limiter, "a", T0)
    wait = limiter.request("a", T0 - 100_000)
    assert 0 < wait <= 1.0
    assert drain(limiter, "a", T0 - 100_000 + 2) == 2


def test_retry_after_is_whole_seconds_rounded_up_and_never_zero():
    assert [retry_after(s) for s in (0.0, 1e-9, 1.0, 1.0000001, 59.5)] == [1, 1, 1, 2, 60]


@pytest.mark.parametrize(
    "bad",
    [
        Rates(total=Rate(0.0, 1)),
        Rates(total=Rate(-1.0, 1)),
        Rates(client=Rate(math.inf, 1)),
        Rates(client=Rate(math.nan, 1)),
        Rates(tool=Rate(1.0, 0)),
        Rates(max_keys=0),
    ],
)
def test_rates_that_can_not_be_kept_are_refused(bad):
    with pytest.raises(ValueError):
        RateLimiter(bad)


@pytest.mark.parametrize("rps", [5e-324, 1e-9, 1e9, 1.7e308])
def test_the_most_extreme_rates_keep_to_their_burst(rps):
    limiter = RateLimiter(Rates(total=Rate(rps, 3)))
    assert [limiter.request("a", T0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert math.isfinite(limiter.request("a", T0))


def test_resizing_keeps_each_buckets_share():
    limiter = RateLimiter(Rates(Rate(1.0, 10), Rate(1.0, 10), Rate(1.0, 10)))
    drain(limiter, "empty", T0)
    limiter.tool("s", "t", T0)
    bigger = limiter.resized(Rates(Rate(5.0, 1000), Rate(2.0, 20), Rate(1.0, 20)), T0)
    assert bigger.request("empty", T0) > 0
    assert bigger.request("empty", T0 + 2.5) == 0.0
    bigger = limiter.resized(Rates(None, Rate(2.0, 20), Rate(1.0, 20)), T0)
    assert drain(bigger, "new", T0) == 20
    assert [bigger.tool("s", "t", T0) == 0.0 for _ in range(19)] == [True] * 18 + [False]


def test_a_limit_switched_off_and_on_again_begins_full():
    limiter = RateLimiter(Rates(total=Rate(1.0, 2)))
    drain(limiter, "a", T0)
    off = limiter.resized(Rates(), T0)
    assert drain(off.resized(Rates(total=Rate(1.0, 2)), T0), "a", T0) == 2


def test_resizing_to_fewer_keys_keeps_those_asked_last():
    limiter = RateLimiter(Rates(client=Rate(0.001, 1)))
    for name in "abcd":
        limiter.request(name, T0)
    smaller = limiter.resized(Rates(client=Rate(0.001, 1), max_keys=2), T0)
    assert len(smaller) == 2
    assert smaller.request("d", T0) > 0
    assert smaller.request("a", T0) == 0.0


@given(
    burst=st.integers(1, 20),
    used=st.integers(0, 20),
    sizes=st.lists(st.tuples(rates, bursts), max_size=5),
)
def test_resizing_back_and_forth_gives_no_token_away(burst, used, sizes):
    first = Rates(total=Rate(2.0, burst))
    limiter = RateLimiter(first)
    spent = sum(limiter.request("a", T0) == 0.0 for _ in range(used))
    for rate, size in sizes:
        limiter = limiter.resized(Rates(total=Rate(rate, size)), T0)
    assert drain(limiter.resized(first, T0), "a", T0) <= burst - spent


def test_rates_come_from_settings_with_their_defaults_filled_in():
    assert Rates.of(RateLimitConfig(rps=5, burst=2)) == Rates(max_keys=10_000)
    source = RateLimitConfig(
        enabled=True, rps=5, burst=2, client_rps=3, per_tool=True, tool_rps=-1, tool_burst=0
    )
    assert Rates.of(source) == Rates(Rate(5, 2), Rate(3, 2), Rate(5, 2), 10_000)
    source = RateLimitConfig(
        enabled=True,
        rps=5,
        burst=2,
        client_rps=3,
        client_burst=9,
        per_tool=True,
        tool_rps=1,
        tool_burst=4,
        max_keys=7,
    )
    assert Rates.of(source) == Rates(Rate(5, 2), Rate(3, 9), Rate(1, 4), 7)


class Windows(RuleBasedStateMachine):
    """In no window are there more grants than its burst and what flowed in meanwhile."""

    @initialize(
        total=st.tuples(st.floats(0.1, 100), st.integers(1, 10)),
        client=st.tuples(st.floats(0.1, 100), st.integers(1, 10)),
    )
    def begin(self, total, client):
        self.total, self.client = Rate(*total), Rate(*client)
        self.limiter = RateLimiter(Rates(self.total, self.client))
        self.now = T0
        self.grants = {"a": [], "b": [], "c": []}

    @rule(step=st.floats(0, 5))
    def time_passes(self, step):
        self.now += step

    @rule(client=st.sampled_from("abc"), count=st.integers(1, 15))
    def ask(self, client, count):
        for _ in range(count):
            wait = self.limiter.request(client, self.now)
            if wait == 0.0:
                self.grants[client].append(self.now)
            else:
                assert retry_after(wait) >= wait

    @rule(client=st.sampled_from("abc"))
    def wait_as_told(self, client):
        wait = self.limiter.request(client, self.now)
        self.now += wait
        if wait:
            assert self.limiter.request(client, self.now) == 0.0
        self.grants[client].append(self.now)

    @rule()
    def reload_the_same(self):
        self.limiter = self.limiter.resized(self.limiter.rates, self.now)

    @invariant()
    def no_window_holds_too_many(self):
        for name, rate in (("a", self.client), ("b", self.client), ("c", self.client)):
            check_windows(self.grants[name], rate)
        check_windows(sorted(sum(self.grants.values(), [])), self.total)


def check_windows(grants, rate):
    for first, begin in enumerate(grants):
        for last in range(first, len(grants)):
            allowed = rate.burst + rate.rps * (grants[last] - begin)
            assert last - first + 1 <= allowed + 1e-6


Windows.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_no_window_of_time_holds_more_than_its_burst_and_flow = Windows.TestCase


class Plainly:
    """The same limits, one step after the other."""

    def __init__(self, rates):
        self.rates = rates
        fresh = RateLimiter(rates)
        self.total, self.clients = fresh._total, fresh._clients
        self.maps = {"stranger": fresh._strangers, "tool": fresh._tools}

    def request(self, client, now):
        tick = math.floor(now * 2**40)
        mine, total = self.clients, self.total
        kept = None if mine is None else mine.entries.get(client)
        my_full_at = tick if kept is None else mine.settled(kept, tick)
        ready = [my_full_at - mine.reach] if kept is not None else []
        if total is not None:
            total.full_at = total.settled(total.full_at, tick)
            ready.append(total.full_at - total.reach)
        if ready and max(ready) > tick:
            if kept is not None:
                mine.put(client, my_full_at)
            return limits._wait(max(ready), now)
        if mine is not None:
            mine.put(client, my_full_at + mine.interval)
        if total is not None:
            total.full_at += total.interval
        return 0.0

    def one(self, which, key, now):
        buckets = self.maps[which]
        if buckets is None:
            return 0.0
        tick = math.floor(now * 2**40)
        full_at = buckets.settled(buckets.entries.get(key, tick), tick)
        if full_at - buckets.reach > tick:
            buckets.put(key, full_at)
            return limits._wait(full_at - buckets.reach, now)
        buckets.put(key, full_at + buckets.interval)
        return 0.0


some_rate = st.none() | st.builds(Rate, st.sampled_from([0.5, 3.0, 1000.0]), st.integers(1, 3))


@settings(max_examples=400)
@given(
    st.builds(Rates, some_rate, some_rate, some_rate, st.integers(1, 3)),
    st.lists(
        st.tuples(
            st.sampled_from(["request", "stranger", "tool"]),
            st.sampled_from("abcd"),
            st.sampled_from([0.0, 0.0, 1e-4, 0.3, 2.0, -1.0, -50.0]),
        ),
        max_size=30,
    ),
)
def test_the_limiter_does_what_its_steps_say_one_after_the_other(rates, asked):
    limiter, plainly, now = RateLimiter(rates), Plainly(rates), T0
    for what, name, step in asked:
        now += step
        if what == "request":
            assert limiter.request(name, now) == plainly.request(name, now)
        elif what == "tool":
            assert limiter.tool("s", name, now) == plainly.one("tool", ("s", name), now)
        else:
            assert limiter.stranger(name, now) == plainly.one("stranger", name, now)
        for mine, other in (
            (limiter._clients, plainly.clients),
            (limiter._strangers, plainly.maps["stranger"]),
            (limiter._tools, plainly.maps["tool"]),
        ):
            if mine is not None:
                assert list(mine.entries.items()) == list(other.entries.items())
        if limiter._total is not None:
            assert max(limiter._total.full_at, 0) == max(plainly.total.full_at, 0)
