"""A server that fails is left alone for a while, and only for its own failures."""

import trio
from support.client import call
from support.inprocess import running
from support.recorder import plain_mcp


def breaker(**settings):
    return {"circuit_breaker": {"enabled": True, "failure_threshold": 3, **settings}}


async def test_a_dead_server_costs_a_fast_503_and_is_tried_again(tmp_path):
    async def broken(seen, reply):
        await reply.send(500, [("content-type", "text/plain")], b"oops")

    async with running(tmp_path, breaker(cooldown="300ms")) as gateway:
        gateway.upstream.answer = broken
        statuses = [(await gateway.post(call("echo"))).status for _ in range(6)]
        assert statuses == [500] * 3 + [503] * 3
        assert len(gateway.upstream.seen) == 3
        refused = await gateway.post(call("echo", id="x"))
        assert refused.json["id"] == "x"
        assert refused.error["code"] == -32000
        assert refused.error["message"] == ('server "demo" temporarily unavailable (circuit open)')
        assert refused.header("retry-after") == "1"
        line = (await gateway.audit(7))[-1]
        assert (line["status"], line["outcome"]) == (503, "unavailable")
        text = await gateway.metrics()
        assert 'mcpx_breaker_state{server="demo"} 1.0' in text
        assert "mcpx_breaker_trips_total 1.0" in text
        gateway.upstream.answer = plain_mcp
        with trio.fail_after(5):
            while (await gateway.post(call("echo"))).status != 200:
                await trio.sleep(0.05)
        assert (await gateway.post(call("echo"))).status == 200


async def test_clients_that_abort_open_nothing(tmp_path):
    async def answer(seen, reply):
        await trio.sleep_forever()

    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    request = call("echo")
    request["params"]["_meta"] = meta
    async with running(tmp_path, breaker(failure_threshold=1)) as gateway:
        gateway.upstream.answer = answer
        for _ in range(5):
            client = await gateway.connect()
            arrived = gateway.upstream.arrived
            await client.raw(client.render("POST", "/mcp/demo", request))
            await arrived.wait()
            await client.aclose()
        assert len(await gateway.audit(5)) == 5
        gateway.upstream.answer = plain_mcp
        assert (await gateway.post(call("echo"))).status == 200


async def test_an_open_breaker_stays_open_across_a_reload(tmp_path):
    async def broken(seen, reply):
        await reply.hang_up()

    config = breaker(failure_threshold=1, cooldown="1h")
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = broken
        assert (await gateway.post(call("echo"))).status == 502
        assert (await gateway.post(call("echo"))).status == 503
        config["servers"] = [{"name": "demo", "policy": {"deny_tools": ["x"]}}]
        assert await gateway.reload(config)
        assert (await gateway.post(call("echo"))).status == 503
        # A server that is elsewhere now starts anew.
        config["servers"] = [{"name": "demo", "url": gateway.upstream.url + "/other"}]
        assert await gateway.reload(config)
        assert (await gateway.post(call("echo"))).status == 502
