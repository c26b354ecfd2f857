"""A gateway that is told to stop while it has work."""

import collections
import signal

import pytest
import trio
from load_client import Asking, Cut, Load, both, until

IN_FLIGHT = 64


async def ask_one(port, number, arguments, statuses):
    with await Asking.to(port) as asking:
        answer = await asking.ask(number, arguments)
        assert answer.json["id"] == number
        statuses.append(answer.status)


async def exit_status(gateway, limit_s=20.0):
    return await until(
        lambda: (gateway.process.returncode is not None) and [gateway.process.returncode], limit_s
    )


def said(gateway, message):
    return lambda: f"msg={message}" in gateway.process.stderr


async def refuses_connections(port):
    """Wait until nobody listens any more."""
    with trio.fail_after(5):
        while True:
            try:
                with await Asking.to(port):
                    await trio.sleep(0.02)
            except ConnectionRefusedError:
                return


def by_status(gateway):
    return collections.Counter(line["status"] for line in gateway.audit())


async def test_sigterm_finishes_what_is_in_flight_and_writes_every_line():
    with both(timeouts={"drain": "15s"}) as (gateway, upstream):
        statuses = []
        async with trio.open_nursery() as nursery:
            for number in range(IN_FLIGHT):
                nursery.start_soon(ask_one, gateway.port, number, {"delay_s": 2}, statuses)
            await upstream.answering(IN_FLIGHT)
            gateway.process.send(signal.SIGTERM)
            await refuses_connections(gateway.port)
            # It is not the end of the program that refuses.
            assert gateway.process.returncode is None
            assert (await upstream.seen())["answering"] == IN_FLIGHT
        assert statuses == [200] * IN_FLIGHT
        # Nothing is left to wait for.
        assert await exit_status(gateway, 5) == [0]
        assert by_status(gateway) == {200: IN_FLIGHT}
        assert len({line["request_id"] for line in gateway.audit()}) == IN_FLIGHT


@pytest.mark.parametrize("attempt", range(3))
async def test_sigterm_under_steady_load_answers_or_leaves_untouched_every_request(attempt):
    """A question that finds its connection closed was not acted on: it may be asked again."""
    with both(timeouts={"drain": "15s"}) as (gateway, upstream):
        load = Load(gateway.port, arguments={"delay_s": 0.002 * attempt})
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.on, 32)
                await until(lambda: len(load.answered) >= 1000)
                gateway.process.send(signal.SIGTERM)
        assert await exit_status(gateway, 5) == [0]
        assert load.wrong == []
        assert collections.Counter(load.answered.values()) == {200: len(load.answered)}
        assert (await upstream.seen())["taken"] == len(load.answered)
        assert sorted(line["request_id"] for line in gateway.audit()) == sorted(load.answered)


async def test_sigterm_does_not_wait_longer_than_the_drain_time_for_a_stalled_server():
    with both(timeouts={"drain": "1s"}) as (gateway, upstream):
        outcomes = []

        async def ask(number):
            with await Asking.to(gateway.port) as asking:
                try:
                    answer = await asking.ask(number, {"stall": True})
                except Cut as cut:
                    assert cut.received == b""
                    outcomes.append("cut")
                else:
                    assert answer.json["id"] == number
                    outcomes.append(answer.status)

        async with trio.open_nursery() as nursery:
            for number in range(IN_FLIGHT):
                nursery.start_soon(ask, number)
            await upstream.answering(IN_FLIGHT)
            began = trio.current_time()
            gateway.process.send(signal.SIGTERM)
            assert await exit_status(gateway) == [0]
            took_s = trio.current_time() - began
        assert 0.9 < took_s < 3
        assert outcomes == [503] * IN_FLIGHT
        assert by_status(gateway) == {503: IN_FLIGHT}


async def test_a_second_sigint_does_not_wait():
    with both(timeouts={"drain": "60s"}) as (gateway, upstream):
        with await Asking.to(gateway.port) as asking:
            await asking.send(asking.rendered(1, {"stall": True}))
            await upstream.answering(1)
            gateway.process.send(signal.SIGINT)
            await until(said(gateway, "stopping"))
            began = trio.current_time()
            gateway.process.send(signal.SIGINT)
            assert await exit_status(gateway) == [0]
            assert trio.current_time() - began < 3
            assert (await asking.answer()).status == 503
        assert by_status(gateway) == {503: 1}


async def test_idle_connections_do_not_keep_it_from_stopping():
    with both(timeouts={"drain": "60s"}) as (gateway, _):
        async with trio.open_nursery() as nursery:
            idle = []

            async def open_one(number):
                asking = await Asking.to(gateway.port)
                idle.append(asking)
                assert (await asking.ask(number, {})).status == 200

            for number in range(100):
                nursery.start_soon(open_one, number)
        gateway.process.send(signal.SIGTERM)
        assert await exit_status(gateway, 5) == [0]
        for asking in idle:
            with asking:
                assert await asking.rest() == b""
