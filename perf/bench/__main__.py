"""The benchmark: ``python -m perf.bench --mode quick``, or ``make bench``.

Two CPUs are used: the load generator and the backend share one, the gateway has the
other. Each contender is measured in turn, in rounds, in one run, so that what the machine
does at that time meets all of them; figures of two runs are not to be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perf.bench import gateways
from perf.bench.backend import Backend, call_of
from perf.bench.contenders import Contender, contenders, found_peers, integrity
from perf.bench.measure import (
    Record,
    closed,
    first_answer_ms,
    idle_memory,
    machine,
    opened,
    reload_under_load,
    watching_memory,
)
from perf.bench.openloop import LATE_US
from perf.bench.processes import Failed, Program
from perf.bench.report import write_reports

RESULTS = Path(__file__).resolve().parents[1] / "results"
IDLE_CONNECTIONS = 10_000
#: Open-loop questions that all are asked: requests a second, connections.
RATES = ((500, 1), (1000, 32), (1000, 256), (3000, 32))
QUICK_RATES = ((500, 1), (1000, 32))
#: Answers, each with the connections that they are asked on.
KINDS = (
    ("/sse150", 32),
    ("/json10k", 32),
    ("/sse10k", 32),
    ("/json1m", 8),
    ("/sse1m", 8),
    ("/json10m", 4),
)
QUICK_KINDS = (("/sse150", 32), ("/json10k", 32), ("/json10m", 4))
REQUESTS = (10_000, 1_000_000)
#: A peer can take a second for an answer when 32 clients ask at once.
PEER_SECONDS = 5.0
#: Peers that take longer to start than the quick mode has.
SLOW_TO_START = frozenset({"contextforge"})


class Run:
    """One run: what was asked of whom, and what came of it."""

    def __init__(self, *, quick: bool, load_cpu: int, gateway_cpu: int, folder: Path) -> None:
        self.quick = quick
        self.load_cpu = load_cpu
        self.gateway_cpu = gateway_cpu
        self.folder = folder
        self.seconds = 2.0 if quick else 5.0
        self.rounds = 1 if quick else 3
        self.records: list[Record] = []
        self.skipped: list[str] = []
        self.client_max = 0.0
        self.began_s = time.monotonic()

    def note(self, contender: str, scenario: str, record: Record, number: int = 0) -> None:
        self.records.append(
            {"contender": contender, "scenario": scenario, "round": number, **record}
        )
        told = " ".join(
            f"{key}={record[key]:,.1f}"
            for key in (
                "rps",
                "cpu_us",
                "p50_us",
                "p99_us",
                "mb_per_s",
                "first_answer_ms",
                "bytes_each",
            )
            if key in record and isinstance(record[key], float | int)
        )
        if "memory" in record:
            told += f" memory={record['memory'] / 1e6:,.1f} MB"
        if record.get("failed"):
            told += f" FAILED={record['failed']}"
        if record.get("missed", 0) > record.get("asked", 0) * 0.01:
            told += f" (the client itself was late {record['missed']} times)"
        at_s = time.monotonic() - self.began_s
        print(f"{at_s:5.0f} s  {contender:18} {scenario:28} {told}", flush=True)

    def attempt(
        self, contender: str, scenario: str, work: Callable[[], Record], number: int = 0
    ) -> Record | None:
        """Measure; what fails is told in the results, and the rest goes on."""
        try:
            record = work()
        except Failed as problem:
            self.skipped.append(f"{contender}, {scenario}: {problem}")
            print(f"         {contender}: {scenario}: {problem}", file=sys.stderr, flush=True)
            return None
        self.note(contender, scenario, record, number)
        return record

    # -- what is asked of each -----------------------------------------------------

    def calibrate(self, backend: Contender) -> None:
        """How much the open-loop client can do, the backend beside it on its CPU."""
        record = opened(backend, self.folder, self.load_cpu, rate=0, seconds=1)
        self.client_max = record["rps"]
        self.note("open-loop client", "as fast as it can", record)

    def loads(self, running: Sequence[Contender]) -> None:
        """Closed and open loops, in rounds."""
        for number in range(self.rounds):
            most: dict[str, float] = {}
            for connections in (1, 32, 256):
                for each in running:
                    if self.quick and connections != 32 and len(each.kinds) == 1:
                        continue
                    record = self.attempt(
                        each.name,
                        f"closed {connections}",
                        lambda c=each, n=connections: self._closed(c, n),
                        number,
                    )
                    if record is not None and connections == 32:
                        most[each.name] = record["rps"]
            for rate, connections in QUICK_RATES if self.quick else RATES:
                for each in running:
                    if len(each.kinds) > 1 or not self.quick:
                        self._open(
                            each,
                            f"open {rate}/s on {connections}",
                            rate,
                            connections,
                            most.get(each.name, 0),
                            number,
                        )
            for each in running:
                half = most.get(each.name, 0) / 2
                self._open(
                    each,
                    "open at half its maximum",
                    min(half, self.client_max / 3),
                    32,
                    most.get(each.name, 0),
                    number,
                )

    def _closed(self, each: Contender, connections: int) -> Record:
        if len(each.kinds) > 1:
            return closed(
                each, self.folder, self.load_cpu, connections=connections, seconds=self.seconds
            )
        # wrk leaves what is under way; where an answer takes a second that is much of all.
        return opened(
            each,
            self.folder,
            self.load_cpu,
            rate=0,
            connections=connections,
            seconds=max(self.seconds, PEER_SECONDS),
        )

    def _open(
        self,
        each: Contender,
        scenario: str,
        rate: float,
        connections: int,
        most: float,
        number: int,
    ) -> None:
        if rate <= 0 or rate > 0.8 * most:
            self.skipped.append(f"{each.name}, {scenario}: it can do {most:.0f} a second")
            return
        if rate * 3 > self.client_max * 1.01:
            self.skipped.append(f"{each.name}, {scenario}: the client can do {self.client_max:.0f}")
            return
        self.attempt(
            each.name,
            scenario,
            lambda: opened(
                each,
                self.folder,
                self.load_cpu,
                rate=rate,
                connections=connections,
                seconds=self.seconds,
            ),
            number,
        )

    def kinds(self, running: Sequence[Contender]) -> None:
        """Other answers and other requests, with the memory that they take."""
        for kind, connections in QUICK_KINDS if self.quick else KINDS:
            for each in running:
                if kind in each.kinds and not (self.quick and "pure" in each.name):
                    self.attempt(
                        each.name,
                        f"answer {kind[1:]}",
                        lambda c=each, k=kind, n=connections: watching_memory(
                            c.program,
                            lambda: closed(
                                c,
                                self.folder,
                                self.load_cpu,
                                kind=k,
                                connections=n,
                                seconds=self.seconds,
                            ),
                        ),
                    )
        for size in () if self.quick else REQUESTS:
            for each in running:
                if len(each.kinds) > 1:
                    self.attempt(
                        each.name,
                        f"request {size}",
                        lambda c=each, n=size: watching_memory(
                            c.program,
                            lambda: closed(
                                c,
                                self.folder,
                                self.load_cpu,
                                connections=8,
                                seconds=self.seconds,
                                body=call_of(n),
                            ),
                        ),
                    )

    # -- what is asked of mcpx alone -------------------------------------------------

    def start_up(self, backend: Backend) -> None:
        """From nothing to an answer, with 20 servers."""
        for name, env in (
            ("mcpx protected", {}),
            ("mcpx pure Python", {"MCPX_NO_EXTENSIONS": "1"}),
        ):
            if env and not extensions():
                continue

            def start(env: dict[str, str] = env) -> tuple[Program, Contender]:
                folder = Path(tempfile.mkdtemp(dir=self.folder))
                config = gateways.protected(backend, folder, integrity=integrity(), extra=13)
                gateway = gateways.Gateway(folder, config, self.gateway_cpu, env=env)
                return gateway.program, self._of(gateway)

            # The first one may have to compile the modules.
            start()[0].close()
            self.attempt(
                name,
                "start-up, 20 servers",
                lambda s=start: first_answer_ms(s, 3 if self.quick else 9),
            )

    def servers(self, backend: Backend) -> None:
        """A few servers in the configuration, and a thousand."""
        gates = []
        for extra in (0, 993):
            folder = self.folder / f"servers{extra}"
            config = gateways.protected(backend, folder, integrity=integrity(), extra=extra)
            gates.append((7 + extra, gateways.Gateway(folder, config, self.gateway_cpu)))
        try:
            for _, gateway in gates:
                gateway.program.wait_for_port(gateway.port)
                closed(self._of(gateway), self.folder, self.load_cpu, seconds=1)
            # In turn, and in both orders, so that neither is always the first.
            for number in range(4 if self.quick else 8):
                for count, gateway in gates if number % 2 else gates[::-1]:
                    self.attempt(
                        f"mcpx, {count} servers",
                        "closed 32",
                        lambda g=gateway: closed(
                            self._of(g), self.folder, self.load_cpu, seconds=1 if self.quick else 3
                        ),
                        number,
                    )
            for count, gateway in gates:
                self.note(f"mcpx, {count} servers", "memory", {"memory": gateway.program.rss()})
        finally:
            for _, gateway in gates:
                gateway.program.close()

    def reloads(self, backend: Backend) -> None:
        """The configuration read again under load, with other servers each time."""
        folder = self.folder / "reloads"
        configs = [
            gateways.protected(backend, folder, integrity=integrity(), extra=extra)
            for extra in (13, 14)
        ]
        gateway = gateways.Gateway(folder, configs[0], self.gateway_cpu)
        turn = 0

        def reload() -> None:
            nonlocal turn
            turn += 1
            gateway.write(configs[turn % 2])
            gateway.reload()

        try:
            gateway.program.wait_for_port(gateway.port)
            each = self._of(gateway)
            seconds = max(3.0, self.seconds)
            self.attempt(
                "mcpx protected",
                "open 1000/s, no reload",
                lambda: opened(each, self.folder, self.load_cpu, rate=1000, seconds=seconds),
            )
            self.attempt(
                "mcpx protected",
                "open 1000/s, reloads",
                lambda: reload_under_load(
                    each,
                    reload,
                    self.folder,
                    self.load_cpu,
                    rate=1000,
                    seconds=seconds,
                    every_s=0.5,
                ),
            )
        finally:
            gateway.program.close()

    def idle(self, backend: Backend) -> None:
        """Many connections that say nothing."""
        folder = self.folder / "idle"
        config = gateways.protected(backend, folder, integrity=integrity())
        gateway = gateways.Gateway(folder, config, self.gateway_cpu)
        try:
            gateway.program.wait_for_port(gateway.port)
            self.attempt(
                "mcpx protected",
                "idle connections",
                lambda: idle_memory(self._of(gateway), IDLE_CONNECTIONS),
            )
        finally:
            gateway.program.close()

    def _of(self, gateway: gateways.Gateway) -> Contender:
        headers = {"Authorization": f"Bearer {gateways.TOKEN}"}
        return Contender(
            "mcpx protected",
            gateway.program,
            gateway.port,
            {"/json150": "/mcp/json150"},
            headers=headers,
        )


def extensions() -> bool:
    """Whether compiled parts are there, so that pure Python is something else."""
    root = Path(__file__).resolve().parents[2] / "mcpx"
    return any(root.glob("**/*.so"))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--mode",
        choices=("quick", "full"),
        default="full",
        help="quick takes under three minutes, full about half an hour",
    )
    parser.add_argument(
        "--cpus", default="0,1", help="the CPU of the load and the backend, and the gateway's"
    )
    parser.add_argument(
        "--peers",
        default=os.environ.get("PEERS"),
        help="name=command,…; `none`; all that are found when not given",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="write the table and the plot again from bench.json",
    )
    asked = parser.parse_args()
    if asked.report_only:
        write_reports(json.loads((asked.results / "bench.json").read_text()), asked.results)
        return 0
    for program in ("nginx", "wrk", "taskset"):
        if shutil.which(program) is None:
            print(f"{program} is not there: make bench installs it", file=sys.stderr)
            return 2
    load_cpu, gateway_cpu = (int(number) for number in asked.cpus.split(","))
    if not {load_cpu, gateway_cpu} <= os.sched_getaffinity(0) or load_cpu == gateway_cpu:
        print("two CPUs are needed; see --cpus", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="mcpx-bench-"))
    try:
        value = _measure(
            asked,
            Run(
                quick=asked.mode == "quick",
                load_cpu=load_cpu,
                gateway_cpu=gateway_cpu,
                folder=folder,
            ),
        )
    except Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "bench.json").write_text(json.dumps(value, indent=1) + "\n")
    for path in write_reports(value, asked.results):
        print(f"written: {path}")
    return 0


def _measure(asked: argparse.Namespace, run: Run) -> dict[str, Any]:
    told = machine()
    peers = found_peers(asked.peers)
    left_out = SLOW_TO_START & peers.keys() if run.quick and not asked.peers else set()
    for name in left_out:
        del peers[name]
    backend = Backend(run.folder / "backend", run.load_cpu)
    try:
        with contenders(
            run.folder, backend, run.gateway_cpu, peers=peers, extensions=extensions()
        ) as (running, missing):
            missing |= dict.fromkeys(left_out, "it starts too slowly for the quick mode")
            for name, why in missing.items():
                print(f"not measured: {name}: {why}", flush=True)
            for each in running:
                run.note(each.name, "memory at rest", {"memory": each.program.rss()})
            run.calibrate(running[0])
            run.loads(running)
            run.kinds(running)
            for each in running:
                run.note(each.name, "memory after", {"memory": each.program.rss()})
        run.start_up(backend)
        run.servers(backend)
        run.reloads(backend)
        run.idle(backend)
    finally:
        backend.close()
    told["load_after"] = os.getloadavg()[0]
    return {
        "machine": told,
        "mode": asked.mode,
        "integrity": integrity(),
        "extensions": extensions(),
        "cpus": {"load and backend": run.load_cpu, "gateway": run.gateway_cpu},
        "late_us": LATE_US,
        "client_max_rps": run.client_max,
        "took_s": time.monotonic() - run.began_s,
        "missing": missing,
        "skipped": run.skipped,
        "records": run.records,
    }


if __name__ == "__main__":
    sys.exit(main())
