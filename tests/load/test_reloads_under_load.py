"""A gateway that is reconfigured again and again while it serves."""

import collections

import trio
from load_client import (
    Load,
    Upstream,
    both,
    complaints,
    descriptors,
    promtool_accepts,
    rss_bytes,
    sample,
    until,
)

CONNECTIONS = 32
VALID = 100
INVALID = 20
GROWTH_BYTES = 24 * 1024 * 1024
TOKEN = "a-token-of-the-load-test"


def configuration(upstream: Upstream, number: int):
    """Another configuration for each number: what it changes replaces every kind of part."""
    policy = {
        "deny_tools": [f"other-{number}", "dangerous_*"],
        "tool_rules": {"echo": {"args": {"text": {"regex": f"^question [0-9]+$|^{number}$"}}}},
    }
    return {
        "servers": [
            {
                "name": "demo",
                "url": upstream.url,
                "policy": policy,
                # A new pool of upstream connections, for one reload in three.
                "max_connections": 100 + number // 3,
            },
            {"name": f"second-{number % 7}", "url": "http://127.0.0.1:9/mcp"},
        ],
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [{"name": "load", "token": TOKEN}],
            "public": ["metrics"],
        },
        "rate_limit": {"enabled": True, "rps": 1e6 + number, "burst": 1_000_000},
        "limits": {"max_depth": 64 + number % 5},
    }


def audit_section(gateway, number):
    # The log is replaced by one that writes into the same file, for one reload in four.
    return {
        "enabled": True,
        "output": "file",
        "path": str(gateway.audit_path),
        "arguments": True,
        "queue": 8192 + number // 4,
    }


def spoiled(config, number):
    """The configuration with one fault; of a kind that is found at another place each time."""
    first = config["servers"][0]
    match number % 5:
        case 0:
            first["polcy"] = {}
        case 1:
            first["url"] = "https://127.0.0.1/"
            first["tls"] = {"ca": "/no/such/file.pem"}
        case 2:
            config["servers"].append(dict(first))
        case 3:
            first["policy"]["tool_rules"]["echo"]["args"]["text"]["regex"] = "("
        case 4:
            config["audit"] = {"enabled": True, "output": "file", "path": "/proc/no/such/file"}
    return config


async def reloaded(gateway, config, message):
    """Put ``config`` in the file's place, tell the gateway, and wait until it says what came of it."""

    def said():
        return gateway.process.stderr.count(f'msg="{message}')

    before = said()
    await trio.to_thread.run_sync(gateway.write_config, config)
    gateway.reload()
    await until(lambda: said() > before, every_s=0.005)


async def test_a_hundred_reloads_and_twenty_invalid_ones_under_load_lose_no_request(capsys):
    start = configuration(Upstream(), 0)
    with both(**{key: start[key] for key in ("auth", "rate_limit")}) as (gateway, upstream):
        before_files = descriptors(gateway.process.pid)
        load = Load(gateway.port, headers=[f"Authorization: Bearer {TOKEN}"])
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.on, CONNECTIONS)
            await until(lambda: len(load.answered) >= 10 * CONNECTIONS)
            for number in range(1, VALID + 1):
                config = configuration(upstream, number)
                config["audit"] = audit_section(gateway, number)
                await reloaded(gateway, config, "configuration reloaded")
                if number % (VALID // INVALID) == 0:
                    bad = spoiled(config, number // (VALID // INVALID))
                    await reloaded(gateway, bad, "the configuration was not reloaded")
                if number == VALID // 4:
                    warm_bytes = rss_bytes(gateway.process.pid)
            done = len(load.answered)
            await until(lambda: len(load.answered) >= done + 10 * CONNECTIONS)
            load.stopped = True
        took_s = trio.current_time() - began
        grown_bytes = rss_bytes(gateway.process.pid) - warm_bytes

        assert load.wrong == []
        assert load.unanswered == []
        assert collections.Counter(load.answered.values()) == {200: len(load.answered)}
        assert await sample(gateway, 'mcpx_reloads_total{result="ok"}', VALID) == VALID
        assert await sample(gateway, 'mcpx_reloads_total{result="failed"}', INVALID) == INVALID
        lines = await trio.to_thread.run_sync(
            gateway.audit_until, lambda lines: len(lines) >= len(load.answered)
        )
        assert sorted(line["request_id"] for line in lines) == sorted(load.answered)
        assert {(line["status"], line["client"]) for line in lines} == {(200, "load")}
        assert grown_bytes < GROWTH_BYTES
        # Logs and pools that were replaced are closed; of the last ones, connections to
        # the server are kept, and the log is open.
        assert descriptors(gateway.process.pid) <= before_files + CONNECTIONS + 2
        refused = [line for line in complaints(gateway) if "was not reloaded" in line]
        assert len(refused) == INVALID
        # Each refusal is followed by what is wrong, and nothing else was ever complained of.
        assert len(complaints(gateway)) == 2 * INVALID, complaints(gateway)
        await promtool_accepts(gateway)
        assert await trio.to_thread.run_sync(gateway.stop) == 0
        with capsys.disabled():
            print(
                f"\n[{len(load.answered)} requests, {VALID} reloads and {INVALID} refused ones "
                f"in {took_s:.1f} s; memory grew by {grown_bytes // 1024} kB]"
            )
