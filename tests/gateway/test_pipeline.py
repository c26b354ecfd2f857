"""Every request takes every step, and ends with one answer and one record."""

import pytest
import trio
from support.client import call, message
from support.inprocess import running

from mcpx.gateway import pipeline

AUTH = {"enabled": True, "type": "bearer", "token": "t" * 20}
KNOWN = [("Authorization", "Bearer " + "t" * 20)]


@pytest.mark.parametrize("body", [b"nonsense", call("echo"), call("dangerous_delete")])
@pytest.mark.parametrize("path", ["/mcp/demo", "/mcp/other", "/x"])
async def test_who_has_no_credential_learns_nothing_else(tmp_path, body, path):
    config = {"auth": AUTH,
              "servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}  # fmt: skip
    async with running(tmp_path, config) as gateway:
        assert (await gateway.post(body, path)).status == 401
        assert gateway.upstream.seen == []
        assert [line["outcome"] for line in await gateway.audit(1)] == ["unauthorized"]


async def test_the_steps_come_in_their_order(tmp_path):
    config = {
        "auth": AUTH,
        "servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}],
        "rate_limit": {"enabled": True, "rps": 0.001, "burst": 4},
    }
    host = ("Host", "rebound.example")
    async with running(tmp_path, config) as gateway:
        steps = [
            (b"nonsense", "/x", [host], 403),
            (b"nonsense", "/x", [], 401),
            (b"nonsense", "/x", KNOWN, 400),
            (call("dangerous_delete"), "/x", KNOWN, 404),
            (call("dangerous_delete"), "/mcp/demo", [*KNOWN, ("Mcp-Session-Id", "x")], 403),
            (call("echo"), "/mcp/demo", [*KNOWN, ("Mcp-Session-Id", "x")], 404),
            (b"nonsense", "/x", KNOWN, 429),
        ]
        for body, path, headers, status in steps:
            response = await gateway.post(body, path, headers)
            assert response.status == status, response
        assert gateway.upstream.seen == []
        lines = await gateway.audit(len(steps))
        assert [line["status"] for line in lines] == [step[3] for step in steps]
        assert not any(line["allowed"] for line in lines)


async def test_a_fault_of_the_gateway_is_a_500_that_tells_nothing_and_a_record(
    tmp_path, monkeypatch, caplog
):
    def faulty(ex):
        raise KeyError("the inside")

    async with running(tmp_path) as gateway:
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, "judge", faulty)
            response = await gateway.post(call("echo", id="f"))
        assert (response.status, response.json["id"]) == (500, "f")
        assert b"inside" not in response.body
        assert "the inside" in caplog.text
        assert (await gateway.audit(1))[0]["status"] == 500
        assert gateway.upstream.seen == []
        assert (await gateway.post(call("echo"))).status == 200


async def test_who_waits_in_vain_for_a_connection_is_told_that_nothing_was_done(tmp_path):
    async def never(seen, reply):
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "max_connections": 1,
                           "timeouts": {"connect": "300ms", "head": "5s"}}]}  # fmt: skip
    async with running(tmp_path, config) as gateway:
        gateway.upstream.answer = never
        async with await gateway.connect() as first:
            arrived = gateway.upstream.arrived
            await first.raw(first.render("POST", "/mcp/demo", call("echo")))
            await arrived.wait()
            waited = await gateway.post(call("echo"))
            assert (waited.status, waited.error["data"]["code"]) == (503, "overloaded")
            assert len(gateway.upstream.seen) == 1


async def test_what_can_not_be_read_as_http_has_its_record_too(tmp_path):
    async with running(tmp_path) as gateway:
        async with await gateway.connect() as client:
            await client.raw(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.response()).status == 501
        (line,) = await gateway.audit(1)
        assert (line["status"], line["allowed"]) == (501, False)


async def test_pages_have_no_record_and_messages_have_one_each(tmp_path):
    async with running(tmp_path) as gateway:
        await gateway.get("/health/live")
        await gateway.post(message("notifications/initialized", id=None))
        await gateway.post(call("echo"))
        lines = await gateway.audit(2)
        assert [line["status"] for line in lines] == [202, 200]
