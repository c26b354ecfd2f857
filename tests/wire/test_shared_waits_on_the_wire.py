"""Every client gets its own answer, however its connections are waited for."""

import pytest
import trio
from support.client import call
from support.inprocess import running
from support.recorder import plain_mcp

from mcpx.transport.readiness import Readiness

CLIENTS = 20
CALLS = 25


async def each_gets_its_own(gateway):
    async def client(number):
        async with await gateway.connect() as connection:
            for turn in range(CALLS):
                id = number * 1000 + turn
                response = await connection.post(call("echo", id=id))
                assert response.status == 200
                assert response.json["id"] == id

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(client, number)


@pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")
async def test_everybody_gets_his_own_answer_while_the_way_of_waiting_changes(tmp_path):
    async with running(tmp_path) as gateway:
        readiness = gateway.app._readiness
        seen = set()

        async def flip():
            while True:
                for _ in range(50):
                    await trio.lowlevel.checkpoint()
                    seen.add(len(readiness) > 0)
                readiness.shared = not readiness.shared

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flip)
            await each_gets_its_own(gateway)
            nursery.cancel_scope.cancel()
        assert True in seen, "no connection was ever waited for together with others"
    assert len(readiness) == 0


@pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")
async def test_a_server_that_speaks_out_of_turn_is_not_believed(tmp_path):
    async with running(tmp_path) as gateway:
        readiness = gateway.app._readiness
        readiness.share()
        plain = plain_mcp

        async def answer(seen, reply):
            await plain(seen, reply)
            await reply.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")

        gateway.upstream.answer = answer
        for id in range(1, 6):
            response = await gateway.post(call("echo", id=id))
            assert response.status == 200
            assert response.json["id"] == id


@pytest.mark.skipif(not Readiness.here, reason="this system has no epoll")
async def test_the_way_is_looked_at_again_at_every_tick(tmp_path):
    async with running(tmp_path) as gateway:
        with trio.fail_after(5):
            while gateway.app._readiness.tick < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_system_without_an_epoll_serves_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(Readiness, "here", False)
    async with running(tmp_path) as gateway:
        assert gateway.app._readiness is None
        await each_gets_its_own(gateway)
