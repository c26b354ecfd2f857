"""The gateway starts, reloads and stops as its operator is told, and loses nothing then."""

import json
import logging
import re
import signal
import socket
import urllib.error
import urllib.request

import pytest
import trio
import yaml
from support.client import call
from support.gateway import running_gateway
from support.inprocess import running
from support.processes import ProgramFailedError
from support.recorder import plain_mcp

from mcpx.app import App, check_snapshot, raise_descriptor_limit, read_snapshot
from mcpx.errors import ConfigError

NOWHERE = "http://127.0.0.1:9/mcp"
DEMO = {"servers": [{"name": "demo", "url": NOWHERE}]}
DENY = {"servers": [{"name": "demo", "url": NOWHERE, "policy": {"deny_tools": ["echo"]}}]}


def post(gateway, body):
    request = urllib.request.Request(  # noqa: S310
        gateway.url("demo"), json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return response.status
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code


def until(gateway, satisfied, *, tries=500):
    for _ in range(tries):
        if satisfied():
            return
        assert not gateway.process.ended_within(0.02), gateway.process.describe()
    raise ProgramFailedError(gateway.process.describe())


def test_a_process_starts_reloads_on_a_signal_and_stops_on_another():
    with running_gateway(DEMO) as gateway:
        assert post(gateway, call("echo")) == 502
        gateway.write_config(DENY)
        gateway.reload()
        until(gateway, lambda: "configuration reloaded" in gateway.process.stderr)
        assert post(gateway, call("echo")) == 403
        gateway.config_path.write_text("servers: [{name: demo, polcy: 1}]")
        gateway.reload()
        until(gateway, lambda: "was not reloaded" in gateway.process.stderr)
        assert re.search(r"mcpx\.yaml:1:\d+: .*polcy", gateway.process.stderr)
        assert post(gateway, call("echo")) == 403
        assert gateway.stop() == 0
        log = gateway.process.stderr
        for words in ("starting", "ready", "generation=2", "stopping", "stopped"):
            assert words in log
        assert "Traceback" not in log
        assert [line["status"] for line in gateway.audit()] == [502, 403, 403]


def test_a_watched_file_is_reloaded_when_it_changes():
    with running_gateway(DEMO, arguments=["-watch", "-watch-interval", "50ms"]) as gateway:
        gateway.write_config(DENY)
        until(gateway, lambda: "configuration reloaded" in gateway.process.stderr)
        assert post(gateway, call("echo")) == 403
        assert gateway.stop() == 0


def test_a_port_that_is_taken_is_exit_code_1_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as failed:
            trio.run(_run_once, f"127.0.0.1:{port}")
    assert "another program listens there" in str(failed.value)


async def _run_once(listen):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mcpx.yaml"
        path.write_text(yaml.safe_dump({"listen": listen, **DEMO}))
        await App(str(path), {}).run()


def test_a_second_gateway_on_the_port_ends_with_a_clear_message(tmp_path):
    import subprocess
    import sys

    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = tmp_path / "mcpx.yaml"
        path.write_text(yaml.safe_dump({"listen": f"127.0.0.1:{taken.getsockname()[1]}", **DEMO}))
        done = subprocess.run(
            [sys.executable, "-m", "mcpx", "-c", str(path)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "another program listens there" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_reload_swaps_the_audit_file_and_loses_no_line(tmp_path):
    async with running(tmp_path) as gateway:
        first, second = tmp_path / "audit.jsonl", tmp_path / "second.jsonl"
        sent = 0
        stop = trio.Event()

        async def load():
            nonlocal sent
            async with await gateway.connect() as client:
                while not stop.is_set():
                    sent += 1
                    assert (await client.post(call("echo"))).status == 200

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(load)
            for path in (second, first, second):
                audit = {"enabled": True, "output": "file", "path": str(path)}
                await trio.sleep(0.05)
                assert await gateway.reload({"audit": audit})
            await trio.sleep(0.05)
            stop.set()

        def lines():
            return [
                json.loads(line)["request_id"]
                for path in (first, second)
                for line in path.read_text().splitlines()
            ]

        with trio.fail_after(5):
            while len(lines()) < sent:
                await gateway.app.state.audit.flush()
                await trio.sleep(0.01)
        assert len(lines()) == len(set(lines())) == sent
        assert second.stat().st_size


async def test_a_reload_counts_its_generations_and_says_what_it_could_not_change(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mcpx")
    async with running(tmp_path) as gateway:
        assert await gateway.reload({"listen": "127.0.0.1:1"})
        assert gateway.app.state.snapshot.generation == 2
        assert "`listen` is now 127.0.0.1:1; 127.0.0.1:0 stays until a restart" in caplog.text
        assert not await gateway.reload({"listen": "nonsense"})
        assert gateway.app.state.snapshot.generation == 2
        assert (await gateway.post(call("echo"))).status == 200
        shown = await gateway.metrics()
        counted = re.findall(r"reload\w*\{[^}]*(ok|success|failed|failure)[^}]*\} (\d)", shown)
        assert [number for _, number in counted] == ["1", "1"], shown


async def test_a_reload_keeps_the_connections_to_a_server_that_did_not_change(tmp_path):
    async with running(tmp_path) as gateway:
        await gateway.post(call("echo"))
        pool = gateway.app.state.pools["demo"]
        for denied in ("a", "b"):
            assert await gateway.reload(
                {"servers": [{"name": "demo", "policy": {"deny_tools": [denied]}}]}
            )
            await gateway.post(call("echo"))
        assert gateway.app.state.pools["demo"] is pool
        assert gateway.upstream.connections == 1
        assert await gateway.reload({"servers": [{"name": "demo", "max_connections": 7}]})
        assert gateway.app.state.pools["demo"] is not pool
        assert (await gateway.post(call("echo"))).status == 200


async def test_told_twice_to_stop_it_waits_for_nothing(tmp_path):
    async def answer(seen, reply):
        await trio.sleep_forever()

    async with running(tmp_path, {"timeouts": {"drain": "1h"}}) as gateway:
        gateway.upstream.answer = answer
        async with await gateway.connect() as client:
            arrived = gateway.upstream.arrived
            await client.raw(client.render("POST", "/mcp/demo", call("echo", id=5)))
            await arrived.wait()
            gateway.app.stop()
            with trio.move_on_after(0.3) as waited:
                await client.response()
            assert waited.cancelled_caught
            gateway.app.stop()
            with trio.fail_after(5):
                data = await client.ends()
            assert b" 503 " in data
            assert b'"id":5' in data.replace(b" ", b"")


async def test_what_is_in_flight_when_it_stops_is_answered(tmp_path):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    async with running(tmp_path) as gateway:
        gateway.upstream.answer = answer
        async with await gateway.connect() as client:
            arrived = gateway.upstream.arrived
            await client.raw(client.render("POST", "/mcp/demo", call("echo")))
            await arrived.wait()
            gateway.app.stop()
            release.set()
            response = await client.response()
            assert response.status == 200
            assert response.header("connection") == "close"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(tmp_path, number, nursery):
    path = tmp_path / "mcpx.yaml"
    path.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", **DEMO}))
    app = App(str(path), {})
    over = trio.Event()

    async def run(*, task_status):
        await app.run(task_status=task_status)
        over.set()

    await nursery.start(run)
    signal.raise_signal(number)
    with trio.fail_after(5):
        await over.wait()


def test_the_configuration_is_read_with_its_variables(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_text("servers: [{name: demo, url: '${URL}'}]")
    snapshot = read_snapshot(str(path), {"URL": NOWHERE}, 3)
    assert (snapshot.generation, list(snapshot.routes)) == (3, ["demo"])
    with pytest.raises(ConfigError, match="URL"):
        read_snapshot(str(path), {}, 1)


def test_a_check_finds_files_that_can_not_be_used(tmp_path):
    path = tmp_path / "mcpx.yaml"
    tls = {"ca": "/no/such/ca.pem"}
    server = {"name": "demo", "url": "https://a/", "tls": tls}
    path.write_text(yaml.safe_dump({"servers": [server]}))
    read_snapshot(str(path), {}, 1)
    with pytest.raises(ConfigError, match="tls"):
        check_snapshot(str(path), {})


def test_raising_the_limit_of_descriptors_twice_does_no_harm():
    import resource

    raise_descriptor_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
    raise_descriptor_limit()
