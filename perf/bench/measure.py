"""What is measured of a contender, one function for each kind of question.

What it is: closed loop (wrk), open loop (``openloop.py``), memory, start-up, reload, idle
connections. Each gives one flat record. What it must never do: give a figure without
what is to be known to trust it (failures, missed sends, CPU of the load's side).
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perf.bench.backend import HOST
from perf.bench.contenders import Contender
from perf.bench.processes import Cpu, Failed, Program

__all__ = [
    "Record",
    "closed",
    "first_answer_ms",
    "idle_memory",
    "opened",
    "reload_under_load",
    "watching_memory",
]

Record = dict[str, Any]
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}
_SIZES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


def closed(
    contender: Contender,
    folder: Path,
    cpu: int,
    *,
    kind: str = "/json150",
    connections: int = 32,
    seconds: float = 2,
    body: bytes | None = None,
) -> Record:
    """wrk: every connection asks again as soon as it is answered."""
    script = folder / "wrk.lua"
    sent = contender.call if body is None else body
    headers = "".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n"
        for name, value in contender.headers.items()
        if name != "Host"
    )
    # wrk calls done() once, with the latencies in microseconds.
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{sent.decode()}]==]\n{headers}"
        "done = function(s, l)\n  local e = s.errors\n"
        '  io.write(string.format(\'RESULT {"requests":%d,"took_us":%d,"bytes":%d,\''
        ' .. \'"failed":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d}\\n\',\n'
        "    s.requests, s.duration, s.bytes, e.connect + e.read + e.write + e.status + e.timeout,\n"
        "    l:percentile(50), l:percentile(90), l:percentile(99), l:percentile(99.9)))\nend\n"
    )
    command = [
        "taskset",
        "-c",
        str(cpu),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "20s",
        "-s",
        str(script),
        f"http://{HOST}:{contender.port}{contender.kinds[kind]}",
    ]
    before = contender.program.cpu()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    used = contender.program.cpu() - before
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            told = json.loads(line[7:])
            break
    else:
        raise Failed(f"wrk: {done.stdout[-500:]} {done.stderr[-500:]}")
    if not told["requests"]:
        raise Failed(f"{contender.name} answered wrk nothing")
    took_s = told.pop("took_us") / 1e6
    return {
        "loop": "closed",
        "kind": kind[1:],
        "connections": connections,
        "request_bytes": len(sent),
        "rps": told["requests"] / took_s,
        "mb_per_s": told["bytes"] / took_s / 1e6,
        **{key: told[key] for key in told if key != "bytes"},
        **_cpu(used, told["requests"]),
    }


def opened(
    contender: Contender,
    folder: Path,
    cpu: int,
    *,
    rate: float,
    kind: str = "/json150",
    connections: int = 32,
    seconds: float = 2,
) -> Record:
    """Requests on a timetable; see ``openloop.py``."""
    request = folder / "request"
    request.write_bytes(contender.request(kind))
    before = contender.program.cpu()
    done = subprocess.run(
        [
            "taskset",
            "-c",
            str(cpu),
            sys.executable,
            Path(__file__).with_name("openloop.py"),
            "--port",
            str(contender.port),
            "--request",
            request,
            "--connections",
            str(connections),
            "--rate",
            str(rate),
            "--seconds",
            str(seconds),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    used = contender.program.cpu() - before
    if done.returncode:
        raise Failed(f"{contender.name}: the open-loop client: {done.stderr[-500:]}")
    told = json.loads(done.stdout)
    # What was sent to warm up has cost CPU as well.
    return {
        "loop": "open" if rate else "closed",
        "kind": kind[1:],
        **told,
        **_cpu(used, told["sent"]),
    }


def _cpu(used: Cpu, requests: float) -> Record:
    ticks = used.user_s + used.system_s
    share = used.user_s / ticks if ticks else 0.5
    us = used.seconds / requests * 1e6
    return {"cpu_us": us, "user_us": us * share, "system_us": us * (1 - share)}


def watching_memory(program: Program, work: Callable[[], Record]) -> Record:
    """``work()``, and how far the program's memory rose above what it was, in bytes."""
    before = program.rss()
    highest = before
    ended = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.05):
            highest = max(highest, program.rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        record = work()
    finally:
        ended.set()
        watcher.join()
    return {**record, "memory_before": before, "memory_growth": max(0, highest - before)}


def first_answer_ms(start: Callable[[], tuple[Program, Contender]], times: int) -> Record:
    """From the start of the program to the first answer of a call through it."""
    took = []
    for _ in range(times):
        program, contender = start()
        try:
            request = contender.request("/json150")
            while True:
                if program.process.poll() is not None:
                    raise Failed(f"{contender.name} ended: {program.output()[-2000:]}")
                try:
                    with socket.create_connection((HOST, contender.port), timeout=5) as sock:
                        sock.sendall(request)
                        if sock.recv(65536)[9:12] == b"200":
                            break
                except OSError:
                    pass
                if time.monotonic() - program.started_s > 60:
                    raise Failed(f"{contender.name} does not answer")
                time.sleep(0.002)
            took.append((time.monotonic() - program.started_s) * 1000)
        finally:
            program.close()
    return {"first_answer_ms": statistics.median(took), "best_ms": min(took), "worst_ms": max(took)}


def reload_under_load(
    contender: Contender,
    reload: Callable[[], None],
    folder: Path,
    cpu: int,
    *,
    rate: float,
    seconds: float,
    every_s: float,
) -> Record:
    """The open loop while the configuration is read again and again."""
    ended = threading.Event()
    reloads = 0

    def again() -> None:
        nonlocal reloads
        while not ended.wait(every_s):
            reload()
            reloads += 1

    thread = threading.Thread(target=again)
    thread.start()
    try:
        record = opened(contender, folder, cpu, rate=rate, seconds=seconds)
    finally:
        ended.set()
        thread.join()
    return {**record, "reloads": reloads}


def idle_memory(contender: Contender, count: int) -> Record:
    """Memory for each of ``count`` connections that have asked once and say nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft < wanted:
        if hard < wanted:
            raise Failed(f"{wanted} descriptors are needed, {hard} may be had: ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = contender.request("/json150")
    # What the first hundred make it hold for all of them is not a connection's.
    sockets: list[socket.socket] = []
    try:
        _idle(sockets, 100, contender.port, request)
        before = contender.program.rss()
        _idle(sockets, count, contender.port, request)
        time.sleep(0.5)
        after = contender.program.rss()
        # They are all still there: the last ones and the first ones answer.
        for sock in (*sockets[:5], *sockets[-5:]):
            sock.sendall(request)
            if sock.recv(65536)[9:12] != b"200":
                raise Failed(f"{contender.name} has dropped an idle connection")
    finally:
        for sock in sockets:
            sock.close()
    return {"idle_connections": count, "bytes_each": (after - before) / count, "memory": after}


def _idle(sockets: list[socket.socket], count: int, port: int, request: bytes) -> None:
    for _ in range(count):
        sock = socket.create_connection((HOST, port), timeout=20)
        sockets.append(sock)
        sock.sendall(request)
        if sock.recv(65536)[9:12] != b"200":
            raise Failed("an idle connection's first call was not answered with 200")


def machine() -> Record:
    """What the figures were got on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load_before": os.getloadavg()[0],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
