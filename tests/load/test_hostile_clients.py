"""Clients that would hold the gateway up, many at once, beside one that behaves."""

import collections
import itertools
import time

import pytest
import trio
from load_client import (
    Asking,
    both,
    complaints,
    percentile,
    promtool_accepts,
    rss_bytes,
    sample,
    until,
)

OF_EACH = 200
QUESTIONS = 300
LIMITS = {"read": "2s", "write": "2s", "keep_alive": "20s"}
#: A quarter of a second is the gateway's precision, the rest is for a slow machine.
LATE_S = 4.0
#: More than the kernel's buffers on the way take; the client's are kept small.
UNREAD_BLOCKS = 128
MEMORY_BYTES = 200 * 1024 * 1024


async def one_byte_a_second(asking):
    """A request that would take minutes to arrive; what the gateway says about it."""
    began = trio.current_time()

    async def dribble():
        for byte in itertools.cycle(asking.rendered(1, {})):
            try:
                await asking.send(bytes([byte]))
            except OSError:
                return
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        last_words = await asking.rest()
        nursery.cancel_scope.cancel()
    assert last_words.startswith(b"HTTP/1.1 408 "), last_words
    took_s = trio.current_time() - began
    assert 1.9 < took_s < 2 + LATE_S, took_s
    return "cut while it dribbled"


async def one_byte_a_second_on_a_kept_connection(asking):
    assert (await asking.ask(1, {})).status == 200
    return await one_byte_a_second(asking)


async def never_reads(asking, gone):
    """A large answer is asked for and left lying, until the gateway has given it up."""
    await asking.send(asking.rendered(1, {"blocks": UNREAD_BLOCKS}, "never-reads"))
    await gone.wait()
    # The connection is reset: otherwise the kernel would hold the rest of the answer for
    # as long as the client likes.
    received = 0
    with pytest.raises(ConnectionResetError):
        while data := await asking.socket.recv(65536):
            received += len(data)
    assert received < UNREAD_BLOCKS * 65536
    return "cut while it did not read"


async def endless_header(asking):
    """Headers without an end, as fast as they are taken."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 90) for number in range(20))

    async def pour():
        try:
            await asking.send(b"POST /mcp/demo HTTP/1.1\r\n")
            while True:
                await asking.send(lines)
        except OSError:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pour)
        last_words = await asking.rest()
    # What it pours on can make the kernel drop the refusal with the connection.
    assert last_words == b"" or last_words.startswith(b"HTTP/1.1 431 "), last_words
    return "cut while it poured headers"


async def latencies_s(gateway, pause_s):
    found = []
    with await Asking.to(gateway.port) as asking:
        for number in range(QUESTIONS):
            asked = time.perf_counter()
            answer = await asking.ask(number, {"n": number})
            found.append(time.perf_counter() - asked)
            assert (answer.status, answer.json["id"], answer.echoed) == (200, number, {"n": number})
            await trio.sleep(pause_s)
    return found


async def test_hundreds_that_dribble_stall_and_pour_are_cut_and_cost_the_others_nothing(capsys):
    with both(timeouts=LIMITS, limits={"max_calls_per_client": 2000}) as (gateway, _):
        pid = gateway.process.pid
        quiet_s = await latencies_s(gateway, 0)
        quiet_bytes = rss_bytes(pid)
        ends = collections.Counter()
        unread_are_gone = trio.Event()

        async def hostile(work, *args, receive_buffer=None):
            with await Asking.to(gateway.port, receive_buffer=receive_buffer) as asking:
                ends[await work(asking, *args)] += 1

        async def unread():
            await hostile(never_reads, unread_are_gone, receive_buffer=4096)

        def stalled():
            return sum(line["outcome"] == "client_stalled" for line in gateway.audit())

        with trio.fail_after(40):
            async with trio.open_nursery() as nursery:
                for number in range(OF_EACH):
                    nursery.start_soon(
                        hostile,
                        one_byte_a_second_on_a_kept_connection if number % 2 else one_byte_a_second,
                    )
                    nursery.start_soon(hostile, endless_header)
                    nursery.start_soon(unread)
                busy_s = await latencies_s(gateway, 0.01)
                busy_bytes = rss_bytes(pid)
                await until(lambda: stalled() == OF_EACH, every_s=0.1)
                unread_are_gone.set()
        assert ends == {
            "cut while it dribbled": OF_EACH,
            "cut while it did not read": OF_EACH,
            "cut while it poured headers": OF_EACH,
        }
        # Nothing of them is left but connections to the server, kept for the next calls.
        await sample(gateway, "mcpx_active_connections", at_most=2)
        await sample(gateway, "mcpx_requests_in_flight", at_most=1)
        with capsys.disabled():
            print(
                f"\n[{3 * OF_EACH} hostile clients: p50 {percentile(quiet_s, 0.5) * 1000:.1f} -> "
                f"{percentile(busy_s, 0.5) * 1000:.1f} ms, p95 "
                f"{percentile(quiet_s, 0.95) * 1000:.1f} -> "
                f"{percentile(busy_s, 0.95) * 1000:.1f} ms, max {max(busy_s) * 1000:.0f} ms; "
                f"memory {quiet_bytes >> 20} -> {busy_bytes >> 20} MB]"
            )
        # The hostile ones run in this process too, and take their share of its time.
        assert percentile(busy_s, 0.95) < 5 * percentile(quiet_s, 0.95) + 0.1
        assert busy_bytes - quiet_bytes < MEMORY_BYTES
        assert complaints(gateway) == []
        await promtool_accepts(gateway)
