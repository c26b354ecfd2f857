"""The circuit breaker: it opens for faults of the server alone, and never stays stuck."""

from __future__ import annotations

import math
import timeit
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mcpx.core.breaker import (
    Breaker,
    BreakerState,
    Outcome,
    Refusal,
    Ticket,
    outcome_of_status,
)

T0 = 123_456.789
SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(threshold=3, cooldown_s=30.0, half_open_max=1, probe_timeout_s=10.0):
    return Breaker(threshold, cooldown_s, half_open_max, probe_timeout_s)


def admitted(b, now):
    ticket = b.admit(now)
    assert isinstance(ticket, Ticket)
    return ticket


def ends(b, outcome, now):
    b.settle(admitted(b, now), outcome, now)


def opened(b, now=T0):
    while b.state(now) is not OPEN:
        ends(b, FAILURE, now)
    return b


def test_it_opens_at_the_failure_that_reaches_the_threshold_and_not_before():
    b = breaker(threshold=3)
    ends(b, FAILURE, T0)
    ends(b, FAILURE, T0)
    assert b.state(T0) is CLOSED
    assert (b.failures, b.trips) == (2, 0)
    ends(b, FAILURE, T0)
    assert b.state(T0) is OPEN
    assert b.trips == 1


def test_everybody_is_admitted_while_it_is_closed_and_a_success_counts_in_its_time_alone():
    b = breaker(threshold=2, cooldown_s=30)
    before = b.everybody
    assert before is not None
    ends(b, FAILURE, T0)
    b.succeeded(before)
    assert b.failures == 0
    opened(b)
    assert b.everybody is None
    b.succeeded(before)
    assert (b.state(T0), b.failures) == (OPEN, 2)
    probe = admitted(b, T0 + 30)
    assert b.everybody is None
    b.settle(probe, SUCCESS, T0 + 30)
    assert b.everybody not in {None, before}


def test_a_success_begins_the_count_anew():
    b = breaker(threshold=2)
    for _ in range(10):
        ends(b, FAILURE, T0)
        ends(b, SUCCESS, T0)
    assert b.state(T0) is CLOSED
    assert b.failures == 0


def test_any_number_of_clients_that_hang_up_open_nothing_and_excuse_nothing():
    b = breaker(threshold=2)
    for _ in range(100):
        ends(b, NEUTRAL, T0)
    assert (b.state(T0), b.failures) == (CLOSED, 0)
    ends(b, FAILURE, T0)
    for _ in range(100):
        ends(b, NEUTRAL, T0)
    assert b.failures == 1
    ends(b, FAILURE, T0)
    assert b.state(T0) is OPEN


def test_an_open_breaker_refuses_until_the_very_moment_that_it_told():
    b = opened(breaker(cooldown_s=30.0))
    refusal = b.admit(T0 + 12.5)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(17.5)
    at = T0 + 12.5 + refusal.wait_s
    assert isinstance(b.admit(math.nextafter(at, 0)), Refusal)
    assert isinstance(b.admit(at), Ticket)


@given(
    now=st.floats(0, 1e7),
    asked_after=st.floats(0, 1),
    cooldown_s=st.floats(1, 1e5),
)
# Here the plain difference, added again, ends a hair too early.
@example(now=3.426, asked_after=0.08000000000000007, cooldown_s=278.13)
@example(now=0.733, asked_after=0.5200000000000001, cooldown_s=196.41)
def test_the_told_wait_is_enough_and_exact_to_the_clocks_last_bit_at_every_time(
    now, asked_after, cooldown_s
):
    b = opened(breaker(threshold=1, cooldown_s=cooldown_s), now)
    asked = now + asked_after
    refusal = b.admit(asked)
    if isinstance(refusal, Ticket):
        assert asked >= now + cooldown_s
        return
    until = now + cooldown_s
    surplus = Fraction(refusal.wait_s) - (Fraction(until) - Fraction(asked))
    assert abs(surplus) <= math.ulp(until)
    assert isinstance(b.admit(math.nextafter(until, 0)), Refusal)
    assert isinstance(b.admit(asked + refusal.wait_s), Ticket)


def test_the_state_shown_is_the_one_that_a_request_would_find():
    b = opened(breaker(cooldown_s=30.0))
    assert b.state(T0 + 29.9) is OPEN
    assert b.state(T0 + 30.0) is HALF_OPEN
    assert [int(s) for s in (CLOSED, OPEN, HALF_OPEN)] == [0, 1, 2]


def test_half_open_admits_no_more_probes_than_it_may_at_one_time():
    b = opened(breaker(cooldown_s=1.0, half_open_max=3))
    probes = [admitted(b, T0 + 1) for _ in range(3)]
    assert isinstance(b.admit(T0 + 1), Refusal)
    b.settle(probes[0], NEUTRAL, T0 + 2)
    assert b.state(T0 + 2) is HALF_OPEN
    admitted(b, T0 + 2)
    assert isinstance(b.admit(T0 + 2), Refusal)


def test_one_probe_that_succeeds_closes_it():
    b = opened(breaker(cooldown_s=1.0, half_open_max=2))
    ends(b, SUCCESS, T0 + 1)
    assert (b.state(T0 + 1), b.failures) == (CLOSED, 0)
    assert isinstance(b.admit(T0 + 1), Ticket)


def test_one_probe_that_fails_opens_it_for_a_whole_new_cooldown():
    b = opened(breaker(cooldown_s=30.0))
    probe = admitted(b, T0 + 40)
    b.settle(probe, FAILURE, T0 + 45)
    assert b.state(T0 + 45) is OPEN
    refusal = b.admit(T0 + 45)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(30.0)
    assert b.trips == 2


def test_a_late_success_from_before_the_trip_closes_nothing():
    b = breaker(threshold=1, cooldown_s=5.0)
    slow, slower = admitted(b, T0), admitted(b, T0)
    ends(b, FAILURE, T0)
    b.settle(slow, SUCCESS, T0 + 1)
    assert (b.state(T0 + 1), b.failures) == (OPEN, 1)
    # Nor does one that comes back while a probe is out.
    admitted(b, T0 + 5)
    b.settle(slower, SUCCESS, T0 + 6)
    assert b.state(T0 + 6) is HALF_OPEN


def test_late_failures_from_before_the_trip_neither_reopen_it_nor_prolong_the_cooldown():
    b = breaker(threshold=1, cooldown_s=5.0)
    slow = [admitted(b, T0) for _ in range(3)]
    ends(b, FAILURE, T0)
    b.settle(slow[0], FAILURE, T0 + 4)
    assert b.state(T0 + 5) is HALF_OPEN
    probe = admitted(b, T0 + 5)
    b.settle(slow[1], FAILURE, T0 + 5)
    assert b.state(T0 + 5) is HALF_OPEN
    b.settle(probe, SUCCESS, T0 + 6)
    b.settle(slow[2], FAILURE, T0 + 7)
    assert (b.state(T0 + 7), b.failures, b.trips) == (CLOSED, 0, 1)


def test_the_second_probe_of_a_trial_that_is_decided_changes_nothing():
    b = opened(breaker(threshold=1, cooldown_s=1.0, half_open_max=2))
    first, second = admitted(b, T0 + 1), admitted(b, T0 + 1)
    b.settle(first, FAILURE, T0 + 2)
    b.settle(second, SUCCESS, T0 + 2)
    assert b.state(T0 + 2) is OPEN
    third, fourth = admitted(b, T0 + 3), admitted(b, T0 + 3)
    b.settle(third, SUCCESS, T0 + 3)
    b.settle(fourth, FAILURE, T0 + 3)
    assert (b.state(T0 + 3), b.failures) == (CLOSED, 0)


def test_a_ticket_counts_once():
    b = breaker(threshold=3)
    ticket = admitted(b, T0)
    for _ in range(10):
        b.settle(ticket, FAILURE, T0)
    assert b.failures == 1
    b = opened(breaker(cooldown_s=1.0, half_open_max=1))
    probe = admitted(b, T0 + 1)
    b.settle(probe, NEUTRAL, T0 + 1)
    admitted(b, T0 + 1)
    b.settle(probe, NEUTRAL, T0 + 1)
    b.settle(probe, SUCCESS, T0 + 1)
    assert b.state(T0 + 1) is HALF_OPEN
    assert isinstance(b.admit(T0 + 1), Refusal)


def test_a_ticket_of_another_breaker_means_nothing():
    b = breaker(threshold=1)
    b.settle(admitted(breaker(), T0), FAILURE, T0)
    assert (b.state(T0), b.failures) == (CLOSED, 0)


def test_a_probe_that_is_never_settled_gives_its_place_back_at_the_told_moment():
    b = opened(breaker(cooldown_s=1.0, half_open_max=1, probe_timeout_s=10.0))
    admitted(b, T0 + 1)
    refusal = b.admit(T0 + 4)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(7.0)
    at = T0 + 4 + refusal.wait_s
    assert isinstance(b.admit(math.nextafter(at, 0)), Refusal)
    assert isinstance(b.admit(at), Ticket)
    assert isinstance(b.admit(at), Refusal)


def test_a_probe_that_comes_back_after_its_time_counts_but_frees_no_second_place():
    b = opened(breaker(cooldown_s=1.0, half_open_max=1, probe_timeout_s=10.0))
    late = admitted(b, T0 + 1)
    admitted(b, T0 + 11)
    b.settle(late, NEUTRAL, T0 + 12)
    assert isinstance(b.admit(T0 + 12), Refusal)
    later = admitted(b, T0 + 21)
    admitted(b, T0 + 31)
    b.settle(later, SUCCESS, T0 + 32)
    assert b.state(T0 + 32) is CLOSED


def test_a_reload_keeps_state_count_and_tickets():
    b = breaker(threshold=5)
    ends(b, FAILURE, T0)
    ends(b, FAILURE, T0)
    under_way = admitted(b, T0)
    b.resize(2, 60.0, 1, 10.0)
    assert (b.state(T0), b.failures) == (CLOSED, 2)
    b.settle(under_way, FAILURE, T0)
    assert b.state(T0 + 59) is OPEN
    b.resize(2, 20.0, 1, 10.0)
    assert b.state(T0 + 20) is HALF_OPEN
    assert b.trips == 1


def test_a_reload_to_fewer_probes_recalls_none_and_tells_the_time_when_enough_are_back():
    b = opened(breaker(cooldown_s=1.0, half_open_max=3, probe_timeout_s=10.0))
    for at in (1, 2, 3):
        admitted(b, T0 + at)
    b.resize(3, 1.0, 1, 10.0)
    refusal = b.admit(T0 + 4)
    assert isinstance(refusal, Refusal)
    assert refusal.wait_s == pytest.approx(9.0)
    assert isinstance(b.admit(T0 + 12.9), Refusal)
    assert isinstance(b.admit(T0 + 4 + refusal.wait_s), Ticket)


def test_a_probe_that_fails_opens_it_also_where_a_reload_has_raised_the_threshold():
    b = opened(breaker(threshold=1, cooldown_s=5.0))
    b.resize(10, 5.0, 1, 10.0)
    ends(b, FAILURE, T0 + 5)
    assert b.state(T0 + 5) is OPEN


@pytest.mark.parametrize(
    "settings_",
    [
        (0, 1.0, 1, 1.0),
        (1, -1.0, 1, 1.0),
        (1, math.inf, 1, 1.0),
        (1, math.nan, 1, 1.0),
        (1, 1.0, 0, 1.0),
        (1, 1.0, 1, 0.0),
        (1, 1.0, 1, math.nan),
    ],
)
def test_settings_that_mean_nothing_are_refused_and_leave_the_old_ones(settings_):
    with pytest.raises(ValueError):
        Breaker(*settings_)
    b = breaker(threshold=1, cooldown_s=7.0)
    with pytest.raises(ValueError):
        b.resize(*settings_)
    ends(b, FAILURE, T0)
    assert b.state(T0 + 7) is HALF_OPEN


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, SUCCESS), (202, SUCCESS), (404, SUCCESS), (429, SUCCESS), (499, SUCCESS)]
    + [(500, FAILURE), (502, FAILURE), (503, FAILURE), (599, FAILURE)],
)
def test_only_5xx_is_a_failure_of_the_server(status, outcome):
    assert outcome_of_status(status) is outcome


def test_a_closed_breaker_keeps_nothing_of_a_request():
    b = breaker()
    for _ in range(1000):
        admitted(b, T0)
    assert b.probes == 0


def test_a_request_through_a_closed_breaker_costs_no_more_than_a_few_calls():
    # Against calls of a method on this very machine, so that its speed does not matter.
    class Bare:
        __slots__ = ()

        def nothing(self, a, b, c):
            return None

    b, bare = breaker(), Bare()

    def through():
        b.settle(b.admit(T0), SUCCESS, T0)

    cost = min(timeit.repeat(through, number=2000, repeat=9))
    unit = min(timeit.repeat(lambda: bare.nothing(1, 2, 3), number=2000, repeat=9))
    assert cost < 25 * unit


class Model(RuleBasedStateMachine):
    """The breaker beside a plain model that keeps every ticket that it ever gave."""

    @initialize(
        threshold=st.integers(1, 4),
        cooldown_s=st.integers(0, 8),
        half_open_max=st.integers(1, 3),
        probe_timeout_s=st.integers(1, 8),
    )
    def begin(self, threshold, cooldown_s, half_open_max, probe_timeout_s):
        self.now = 1000.0
        self.set = (threshold, float(cooldown_s), half_open_max, float(probe_timeout_s))
        self.breaker = Breaker(*self.set)
        self.open_tickets = []
        self.settled = []
        self.state, self.failures, self.trips, self.since = CLOSED, 0, 0, 0.0
        self.era = 0
        self.places = []

    def become(self, state):
        self.state = state
        self.era += 1
        self.places = []

    def free(self):
        return [p for p in self.places if self.now < p[1] + self.set[3]]

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def ask(self):
        answer = self.breaker.admit(self.now)
        _, cooldown_s, half_open_max, probe_timeout_s = self.set
        if self.state is OPEN and self.now >= self.since + cooldown_s:
            self.become(HALF_OPEN)
        if self.state is CLOSED:
            may, wait_s = True, None
        elif self.state is OPEN:
            may, wait_s = False, self.since + cooldown_s - self.now
        else:
            self.places = self.free()
            may = len(self.places) < half_open_max
            wait_s = None
            if not may:
                ends_at = sorted(p[1] + probe_timeout_s for p in self.places)
                wait_s = ends_at[len(ends_at) - half_open_max] - self.now
        if may:
            assert isinstance(answer, Ticket)
            entry = (answer, self.now, self.era)
            self.open_tickets.append(entry)
            if self.state is HALF_OPEN:
                self.places.append(entry)
        else:
            assert isinstance(answer, Refusal)
            assert answer.wait_s == wait_s > 0

    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def settle_one(self, data, outcome):
        if not self.open_tickets:
            return
        index = data.draw(st.integers(0, len(self.open_tickets) - 1))
        entry = self.open_tickets.pop(index)
        ticket, _, era = entry
        self.breaker.settle(ticket, outcome, self.now)
        self.settled.append(ticket)
        if era != self.era:
            return
        self.places = [p for p in self.places if p is not entry]
        if outcome is SUCCESS:
            self.failures = 0
            if self.state is HALF_OPEN:
                self.become(CLOSED)
        elif outcome is FAILURE:
            self.failures += 1
            if self.state is HALF_OPEN or self.failures >= self.set[0]:
                self.since, self.trips = self.now, self.trips + 1
                self.become(OPEN)

    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def settle_again(self, data, outcome):
        if self.settled:
            self.breaker.settle(data.draw(st.sampled_from(self.settled)), outcome, self.now)

    @rule(threshold=st.integers(1, 4), cooldown_s=st.integers(0, 8), most=st.integers(1, 3))
    def reload(self, threshold, cooldown_s, most):
        self.set = (threshold, float(cooldown_s), most, self.set[3])
        self.breaker.resize(*self.set)

    @invariant()
    def it_is_where_the_model_is(self):
        if not hasattr(self, "breaker"):
            return
        shown = self.state
        if shown is OPEN and self.now >= self.since + self.set[1]:
            shown = HALF_OPEN
        assert self.breaker.state(self.now) is shown
        assert (self.breaker.failures, self.breaker.trips) == (self.failures, self.trips)

    @invariant()
    def it_is_never_stuck(self):
        """Whatever happened, somebody who waits long enough is let in."""
        if hasattr(self, "breaker"):
            wait_s = self.set[1] + self.set[3]
            probes = dict(self.breaker._probes)
            before = (self.breaker._state, self.breaker._generation)
            assert isinstance(self.breaker.admit(self.now + wait_s), Ticket)
            self.breaker._state, self.breaker._generation = before
            self.breaker._probes.clear()
            self.breaker._probes.update(probes)


Model.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
test_every_sequence_of_events_leaves_it_where_the_model_is = Model.TestCase
