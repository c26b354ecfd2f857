"""A server that dies and comes back while it is asked."""

import collections
import contextlib
import signal

import pytest
import trio
from load_client import (
    Asking,
    Load,
    Upstream,
    complaints,
    gateway_before,
    promtool_accepts,
    sample,
    until,
)

CONNECTIONS = 32


async def more_answers(load, count=10 * CONNECTIONS):
    """Wait until so many questions that are asked from now on were answered; gives them."""
    # Those that are on their way now were asked before.
    first = load.asked + 1
    await until(lambda: sum(number >= first for number in load.numbers) >= count)
    return {number: load.numbers[number] for number in list(load.numbers) if number >= first}


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_dies_under_load_is_a_502_with_the_right_id_until_it_is_back(death):
    upstream = Upstream()
    with gateway_before(upstream) as gateway:
        load = Load(gateway.port, arguments={"delay_s": 0.001})
        async with trio.open_nursery() as nursery:
            with upstream.running() as server:
                nursery.start_soon(load.on, CONNECTIONS)
                assert set((await more_answers(load)).values()) == {200}
                server.send(death)
                await until(lambda: server.returncode is not None)
            assert set((await more_answers(load)).values()) == {502}
            with upstream.running():
                # Nothing needs time to recover: what is asked from now on is answered.
                assert set((await more_answers(load)).values()) == {200}
                load.stopped = True
                await until(lambda: not nursery.child_tasks)
        # The id, and the arguments in an answer, are compared with the question's by Load.
        assert load.wrong == []
        assert load.unanswered == []
        counts = collections.Counter(load.answered.values())
        assert set(counts) == {200, 502}
        lines = await trio.to_thread.run_sync(
            gateway.audit_until, lambda lines: len(lines) >= len(load.answered)
        )
        assert {line["request_id"]: line["status"] for line in lines} == load.answered
        assert len(lines) == len(load.answered)
        failed = 'mcpx_upstream_errors_total{reason="error",server="demo"}'
        assert await sample(gateway, failed, counts[502]) == counts[502]
        # It says that the server fails, and says it once, not with every request.
        (line,) = complaints(gateway)
        assert "a server fails" in line
        await promtool_accepts(gateway)


async def test_a_server_that_is_restarted_while_nobody_asks_costs_no_request():
    upstream = Upstream()
    with gateway_before(upstream) as gateway, contextlib.ExitStack() as closing:
        connections = []
        statuses = []

        async def ask(asking):
            answer = await asking.ask(1, {"delay_s": 0.1})
            statuses.append(answer.status)

        for _ in range(3):
            with upstream.running():
                while len(connections) < CONNECTIONS:
                    asking = closing.enter_context(await Asking.to(gateway.port))
                    connections.append(asking)
                # The kept connections of last time are dead, and are known to be.
                async with trio.open_nursery() as nursery:
                    for asking in connections:
                        nursery.start_soon(ask, asking)
        assert statuses == [200] * 3 * CONNECTIONS


async def test_what_a_dead_server_gets_back_is_an_error_of_json_rpc():
    with gateway_before(Upstream()) as gateway, await Asking.to(gateway.port) as asking:
        for number in ("text", 7, 2**53 - 1):
            answer = await asking.ask(number, {})
            assert answer.status == 502
            assert answer.json["jsonrpc"] == "2.0"
            assert answer.json["id"] == number
            assert answer.json["error"]["code"] == -32000
            assert not answer.closes
