"""Ten thousand clients that stay connected and ask now and then."""

import contextlib
import resource
import time

import pytest
import trio
from load_client import Asking, both, complaints, descriptors, percentile, rss_bytes, sample, until

WANTED = 10_000
AT_LEAST = 4_000
AT_ONCE = 100
PER_CONNECTION_BYTES = 40 * 1024
#: What else needs descriptors, here and in the gateway.
SPARE = 300


@pytest.fixture
def limits():
    """The soft and the hard limit of descriptors; put back after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def each(numbers, work):
    """``work(number)`` for each, a hundred at a time."""
    left = iter(numbers)

    async def worker():
        for number in left:
            await work(number)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)


async def test_ten_thousand_idle_connections_hold_and_cost_the_others_nothing(limits, capsys):
    hard = limits[1]
    count = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard - SPARE)
    assert count >= AT_LEAST, "the limit of descriptors is too low: see ulimit -Hn"
    # The gateway is started with a low limit, and must raise it by itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with (
        both(timeouts={"keep_alive": "10m"}, audit={"enabled": False}) as (gateway, _),
        contextlib.ExitStack() as closing,
    ):
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + SPARE, hard))
        pid = gateway.process.pid
        idle = {}

        async def begin(number):
            idle[number] = closing.enter_context(await Asking.to(gateway.port))
            await again(number)

        async def again(number):
            answer = await idle[number].ask(number, {"n": number})
            assert (answer.status, answer.json["id"], answer.echoed) == (200, number, {"n": number})

        # What the first requests make the gateway load and keep is no idle connection's.
        await each(range(AT_ONCE), begin)
        before_bytes, before_files = rss_bytes(pid), descriptors(pid)
        began = time.perf_counter()
        await each(range(AT_ONCE, count), begin)
        opened_s = time.perf_counter() - began
        assert await sample(gateway, "mcpx_active_connections", count) >= count
        assert descriptors(pid) >= count
        per_connection = (rss_bytes(pid) - before_bytes) / (count - AT_ONCE)

        waits_s = []
        with await Asking.to(gateway.port) as further:
            for number in range(200):
                asked = time.perf_counter()
                assert (await further.ask(number, {})).status == 200
                waits_s.append(time.perf_counter() - asked)

        began = time.perf_counter()
        await each(range(count), again)
        again_s = time.perf_counter() - began

        full_bytes = rss_bytes(pid)
        closing.close()
        await until(lambda: descriptors(pid) <= before_files)
        # The allocator keeps the memory for the next ones, which then take no more.
        await each(range(AT_LEAST), begin)
        after_bytes = rss_bytes(pid)
        with capsys.disabled():
            print(
                f"\n[{count} idle connections: {per_connection / 1024:.1f} kB each, opened in "
                f"{opened_s:.1f} s, asked again in {again_s:.1f} s; another client's requests: "
                f"p50 {percentile(waits_s, 0.5) * 1000:.1f} ms, "
                f"p99 {percentile(waits_s, 0.99) * 1000:.1f} ms; memory {before_bytes >> 20} "
                f"-> {full_bytes >> 20} -> {after_bytes >> 20} MB]"
            )
        assert per_connection < PER_CONNECTION_BYTES
        assert percentile(waits_s, 0.99) < 0.1
        assert after_bytes < full_bytes + AT_LEAST * 1024
        assert complaints(gateway) == []
