"""A client that asks at a fixed rate, whatever comes back.

What it is: requests leave on a timetable, ``rate`` a second, over ``connections`` kept
connections. A latency is counted from the moment at which the request was to be sent to
the last byte of its answer: an answer that comes late and holds up the next requests is
counted against those too (no coordinated omission).

What it must never do: be slow in silence. A request that found a free connection and
still left more than ``LATE_US`` after its time is the client's own fault: ``missed``
counts them, and ``worst_lag_us`` says by how much. One that had to wait for a connection
(``waited``) is the fault of what is measured, and its latency says so.

One epoll loop, one timer of the kernel that beats at the rate, request bytes made once,
answers looked at for their length and status alone. Run as a program of its own, so that
it can be pinned: ``python openloop.py '{"port": …}'`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import select
import socket
import struct
import sys
import time
from array import array

__all__ = ["FIRST_ID", "LATE_US", "run"]

#: A request that leaves later than this by the client's own fault is counted.
LATE_US = 500
BUFFER = 1 << 20
#: In a request with this id each connection gets an id of its own: where they share a
#: session, two calls under way must not have the same one.
FIRST_ID = 1000
#: So long the last answers are waited for.
DRAIN_NS = 10 * 10**9
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_libc = ctypes.CDLL(None, use_errno=True)


#: The first beat is given as a time of the clock, not as a wait.
_ABSOLUTE = 1


def _timer(first_ns: int, period_ns: int) -> int:
    """A descriptor that can be read at ``first_ns`` of the clock, and every ``period_ns`` then."""
    number: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK)
    spec = struct.pack("qqqq", *divmod(period_ns, 10**9), *divmod(first_ns, 10**9))
    if number < 0 or _libc.timerfd_settime(number, _ABSOLUTE, spec, None):
        raise OSError(ctypes.get_errno(), "no timer of the kernel")
    return number


class _Client:
    """One connection: its socket, the answer that it waits for."""

    __slots__ = ("due_ns", "left", "request", "sock", "tail", "waits")

    def __init__(self, port: int, request: bytes) -> None:
        self.request = request
        #: Whether an answer is to come.
        self.waits = False
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.due_ns = 0
        #: Bytes of the answer that are still to come: 0 before its head, -1 when chunked.
        self.left = 0
        self.tail = b""


def _connect(port: int, count: int, request: bytes, limit_s: float = 20.0) -> list[_Client]:
    deadline = time.monotonic() + limit_s
    clients: list[_Client] = []
    while len(clients) < count:
        try:
            own = b'"id":%d,' % (FIRST_ID + len(clients))
            clients.append(_Client(port, request.replace(b'"id":%d,' % FIRST_ID, own)))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    return clients


def run(
    port: int,
    request: bytes,
    *,
    connections: int,
    rate: float,
    seconds: float,
    warm_s: float = 0.3,
) -> dict[str, float]:
    """Ask for so long at this rate; ``rate`` 0 is as fast as answers allow.

    Returns latencies in microseconds, and what is to be known to trust them.
    """
    clients = _connect(port, connections, request)
    poll = select.epoll()
    by_number = {client.sock.fileno(): client for client in clients}
    for client in clients:
        poll.register(client.sock, select.EPOLLIN)
    free = clients[::-1]
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    clock = time.monotonic_ns
    flood = rate <= 0
    period_ns = 1 if flood else int(1e9 / rate)
    late_ns = LATE_US * 1000
    latencies = array("q")
    sent = asked = failed = missed = waited = received = 0
    worst_ns = 0
    was_full = False
    gc.collect()
    gc.disable()
    begin_ns = clock() + 1_000_000
    timer = -1
    if not flood:
        timer = _timer(begin_ns, period_ns)
        poll.register(timer, select.EPOLLIN)
    counted_from_ns = begin_ns + int(warm_s * 1e9)
    end_ns = counted_from_ns + int(seconds * 1e9)
    last_ns = end_ns + DRAIN_NS
    due_ns = begin_ns
    busy = 0
    while True:
        now = clock()
        if flood and now < end_ns:
            due_ns = now
        while due_ns <= now and due_ns < end_ns and free:
            client = free.pop()
            try:
                if client.sock.send(client.request) != len(client.request):
                    raise SystemExit("the request is too large for one send: use a closed loop")
            except OSError:
                failed += 1
            client.due_ns = due_ns
            client.waits = True
            busy += 1
            sent += 1
            if due_ns >= counted_from_ns:
                asked += 1
                if was_full:
                    waited += 1
                elif not flood and now - due_ns > late_ns:
                    missed += 1
                    worst_ns = max(worst_ns, now - due_ns)
            if flood:
                due_ns = now = clock()
            else:
                due_ns += period_ns
                if due_ns > now:
                    now = clock()
            if was_full and due_ns > now:
                was_full = False
        if not free and due_ns <= now:
            was_full = True
        if now >= end_ns and (not busy or now > last_ns):
            break
        for number, _ in poll.poll(0.2):
            if number == timer:
                os.read(timer, 8)
                continue
            client = by_number[number]
            try:
                count = client.sock.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            if not count:
                poll.unregister(number)
                client.sock.close()
                del by_number[number]
                if client.waits:
                    failed += 1
                    busy -= 1
                else:
                    free.remove(client)
                fresh = _Client(port, client.request)
                by_number[fresh.sock.fileno()] = fresh
                poll.register(fresh.sock, select.EPOLLIN)
                free.append(fresh)
                continue
            received += count
            if client.left == 0:
                end = buffer.find(b"\r\n\r\n", 0, count)
                if end < 0:
                    raise SystemExit("the head of an answer did not come in one piece")
                if buffer[9:12] != b"200":
                    failed += 1
                found = _LENGTH.search(view[: end + 2])
                if found is not None:
                    client.left = end + 4 + int(found.group(1)) - count
                    if client.left > 0:
                        continue
                else:
                    client.left = -1
            elif client.left > 0:
                client.left -= count
                if client.left > 0:
                    continue
            if client.left < 0:
                client.tail = (client.tail + bytes(view[max(0, count - 5) : count]))[-5:]
                if client.tail != b"0\r\n\r\n":
                    continue
                client.tail = b""
            client.left = 0
            if client.due_ns >= counted_from_ns:
                latencies.append(clock() - client.due_ns)
            client.waits = False
            busy -= 1
            free.append(client)
    took_s = (min(clock(), last_ns) - counted_from_ns) / 1e9
    gc.enable()
    if timer >= 0:
        os.close(timer)
    for client in by_number.values():
        client.sock.close()
    ordered = sorted(latencies)
    if not ordered:
        raise SystemExit("no answer came")
    return {
        "connections": connections,
        "rate": rate,
        "rps": len(ordered) / max(seconds, took_s if flood else seconds),
        "sent": sent,
        "asked": asked,
        "answered": len(ordered),
        "failed": failed,
        "unanswered": busy,
        "missed": missed,
        "worst_lag_us": worst_ns / 1000,
        "waited": waited,
        "received_bytes": received,
        **{
            name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000
            for name, share in _SHARES.items()
        },
        "max_us": ordered[-1] / 1000,
    }


_SHARES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", required=True, help="a file with the bytes of one request")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1000, help="requests a second; 0: flood")
    parser.add_argument("--seconds", type=float, default=3)
    asked = parser.parse_args()
    with open(asked.request, "rb") as file:
        request = file.read()
    result = run(
        asked.port, request, connections=asked.connections, rate=asked.rate, seconds=asked.seconds
    )
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
