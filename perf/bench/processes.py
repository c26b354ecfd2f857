"""Programs that the benchmark starts: pinned to a CPU, measured from /proc, always ended.

What it is: starting a program in a process group of its own, waiting until it listens,
and the CPU time and memory of it and of all that it started.

What it must never do: end a process that it did not start.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Cpu", "Failed", "Program", "cpu_of_tree", "free_port", "rss_of_tree", "tree"]

HOST = "127.0.0.1"
STOP_LIMIT_S = 5.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A program did not start, or ended early; the text says what it printed."""


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class Cpu:
    """CPU time of a tree of processes, in seconds.

    ``run_s`` is the scheduler's own account in nanoseconds (of the threads that are
    alive), ``user_s`` and ``system_s`` are ticks of 10 ms, which tell how to divide it.
    """

    user_s: float
    system_s: float
    run_s: float

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(
            self.user_s - other.user_s, self.system_s - other.system_s, self.run_s - other.run_s
        )

    @property
    def seconds(self) -> float:
        return self.run_s or self.user_s + self.system_s


def tree(pid: int) -> list[int]:
    """``pid`` and all that it started which still run."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            # The name of the program is in brackets and may hold anything.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found, at = [pid], 0
    while at < len(found):
        found += children.get(found[at], ())
        at += 1
    return found


def cpu_of_tree(pids: Sequence[int]) -> Cpu:
    """What they have used until now. Children that ended are counted by their parents."""
    user = system = 0
    run_ns = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
            for task in os.listdir(f"/proc/{pid}/task"):
                run_ns += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except (OSError, IndexError):
            continue
    return Cpu(user / TICKS, system / TICKS, run_ns / 1e9)


def rss_of_tree(pids: Sequence[int]) -> int:
    """Bytes of memory that they have in use; shared pages are divided among them."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


class Program:
    """One started program; its output goes to a file without a name.

    Args:
        command: program and arguments.
        name: what messages call it.
        cpu: the CPU that it and its children run on; any when None.
        env: added to this process's environment.
        cwd: its folder.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        cpu: int | None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.name = name
        pinned = ["taskset", "-c", str(cpu)] if cpu is not None else []
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [*pinned, *wrapper, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def pids(self) -> list[int]:
        return tree(self.pid)

    def cpu(self) -> Cpu:
        return cpu_of_tree(self.pids())

    def rss(self) -> int:
        return rss_of_tree(self.pids())

    def output(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode("utf-8", "replace")

    def wait_for_port(self, port: int, limit_s: float = 30.0) -> None:
        """Return once ``port`` accepts connections. Raises Failed."""
        deadline = time.monotonic() + limit_s
        while True:
            if self.process.poll() is not None:
                raise Failed(f"{self.name} ended: {self.output()[-3000:]}")
            try:
                with socket.create_connection((HOST, port), timeout=1):
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} does not listen: {self.output()[-3000:]}")
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        """End it and what it started, politely first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._output.close()
