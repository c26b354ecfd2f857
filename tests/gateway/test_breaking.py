"""What counts against a server, and what does not."""

import pytest
import trio

from mcpx.core.breaker import Breaker, BreakerState
from mcpx.errors import (
    Overloaded,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mcpx.gateway.breaking import Trial
from mcpx.transport.deadlines import Watch
from mcpx.transport.wire import Broken


@pytest.fixture
def watch():
    return Watch(trio.CancelScope())


async def tried(breaker, watch, status=None, error=None):
    with Trial(breaker, "demo", watch) as trial:
        if status is not None:
            trial.answered(status)
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
async def test_failures_of_the_server_open_it_and_tell_when_to_come_back(
    watch, autojump_clock, error
):
    breaker = Breaker(3, 30, 1, 60)
    for _ in range(3):
        with pytest.raises(type(error)):
            await tried(breaker, watch, error=error)
    with pytest.raises(UpstreamUnavailable) as refused:
        await tried(breaker, watch)
    assert (b"retry-after", b"30") in refused.value.headers
    assert 'server "demo"' in refused.value.message
    await trio.sleep(30)
    await tried(breaker, watch, status=200)
    assert breaker.state(trio.current_time()) is BreakerState.CLOSED


async def test_answers_of_500_and_more_count_and_others_reset(watch):
    breaker = Breaker(2, 30, 1, 60)
    await tried(breaker, watch, status=503)
    await tried(breaker, watch, status=404)
    await tried(breaker, watch, status=503)
    assert breaker.state(0) is BreakerState.CLOSED
    await tried(breaker, watch, status=500)
    assert breaker.trips == 1


@pytest.mark.parametrize("error", [Broken(), Overloaded("x"), RuntimeError()])
async def test_what_the_client_or_the_gateway_did_is_not_the_servers_fault(watch, error):
    breaker = Breaker(1, 30, 1, 60)
    for _ in range(5):
        with pytest.raises(type(error)):
            await tried(breaker, watch, error=error)
    assert breaker.state(trio.current_time()) is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("expired", "phase", "trips"),
    [
        (True, "upstream answer", 1),
        (True, "upstream connection", 1),
        (True, "client", 0),
        (True, "a free connection", 0),
        (False, "upstream answer", 0),
    ],
)
async def test_a_cancelled_exchange_counts_if_it_was_the_server_that_was_late(
    expired, phase, trips
):
    breaker = Breaker(1, 30, 1, 60)
    with trio.CancelScope() as scope:
        watch = Watch(scope)
        watch.phase, watch.expired = phase, expired
        with Trial(breaker, "demo", watch):
            scope.cancel()
            await trio.sleep_forever()
    assert breaker.trips == trips


async def test_a_probe_that_is_left_by_its_client_frees_its_place(watch, autojump_clock):
    breaker = Breaker(1, 10, 1, 60)
    with pytest.raises(UpstreamBroken):
        await tried(breaker, watch, error=UpstreamBroken("x"))
    await trio.sleep(10)
    with pytest.raises(Broken):
        await tried(breaker, watch, error=Broken())
    await tried(breaker, watch, status=200)
    assert breaker.state(trio.current_time()) is BreakerState.CLOSED


async def test_a_slow_success_from_before_it_opened_changes_nothing(watch):
    breaker = Breaker(1, 30, 1, 60)
    with Trial(breaker, "demo", watch) as slow:
        await tried(breaker, watch, status=500)
        slow.answered(200)
    assert breaker.state(trio.current_time()) is BreakerState.OPEN
    assert breaker.failures == 1


async def test_a_slow_failure_from_before_it_opened_is_not_counted_twice(watch):
    breaker = Breaker(1, 30, 1, 60)
    with Trial(breaker, "demo", watch) as slow:
        await tried(breaker, watch, status=500)
        slow.answered(500)
    assert (breaker.trips, breaker.failures) == (1, 1)


async def test_a_stream_that_fails_counts_once(watch):
    breaker = Breaker(3, 30, 1, 60)
    with Trial(breaker, "demo", watch) as trial:
        trial.answered(500)
        trial.streams()
    assert breaker.failures == 1


async def test_what_tells_nothing_leaves_the_count_as_it_is(watch):
    breaker = Breaker(3, 30, 1, 60)
    await tried(breaker, watch, status=500)
    await tried(breaker, watch)
    assert breaker.failures == 1


async def test_a_stream_is_judged_by_its_head(watch):
    breaker = Breaker(1, 30, 1, 60)
    with pytest.raises(UpstreamBroken), Trial(breaker, "demo", watch) as trial:
        trial.answered(200)
        trial.streams()
        raise UpstreamBroken("cut after an hour")
    assert breaker.trips == 0


async def test_without_a_breaker_nothing_is_refused(watch):
    for _ in range(20):
        with pytest.raises(UpstreamBroken):
            await tried(None, watch, error=UpstreamBroken("x"))


async def test_an_answer_that_is_not_passed_on_counts_by_its_status(watch):
    # Else a client could close a server to others by asking for what can't be filtered.
    breaker = Breaker(1, 30, 1, 60)
    for _ in range(5):
        with pytest.raises(UpstreamError):
            await tried(breaker, watch, status=200, error=UpstreamError("unreadable list"))
    assert breaker.trips == 0
