"""The guard: ``python -m perf.guard``, or ``make guard``; ``make guard-renew`` afterwards.

It counts what does not depend on how busy the machine is: instructions of each speedup
and of one whole request (callgrind), its system calls (strace), task switches, calls of
Python functions, and memory. More than a budget allows is an error that names the
functions which grew. A budget holds for the interpreter that it was made with; on another
one, compare with another state of this repository instead: ``--against REF``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perf.bench.processes import Failed
from perf.guard.counting import CALLGRIND, Part, parts, system_calls
from perf.guard.observed import BATCH, CONFIGURATIONS, Observed

ROOT = Path(__file__).resolve().parents[2]
BUDGETS = Path(__file__).with_name("budgets.json")
TOLERANCE = 0.03
#: Above a budget by so little is nothing, whatever the share: a quarter of a system call, a
#: tenth of a memory block that stays.
SLACK = {
    "system calls": 0.25,
    "task switches": 0.05,
    "blocks kept": 0.1,
    "instructions": 30,
    "peak bytes": 2048,
    "Python calls": 1,
}
LOOPS = 200
#: Functions that are kept beside a budget, to tell which one grew.
TOP = 60
LIBRARIES = ("trio", "httptools", "msgspec", "google-re2")

Value = dict[str, Any]


# -- measuring -----------------------------------------------------------------------------


def measured(root: Path, folder: Path) -> Value:
    """All figures of the code at ``root``: ``values`` by name, and what they are made of."""
    value: Value = {"values": {}, "made_of": {}}
    _operations(value, root, folder)
    for configuration in CONFIGURATIONS:
        print(f"  one request, {configuration}: callgrind", flush=True)
        _request_instructions(value, configuration, root, folder)
        print(f"  one request, {configuration}: strace, switches, memory, calls", flush=True)
        _request_system_calls(value, configuration, root, folder)
        _request_counts(value, configuration, root)
    value["made_with"] = _made_with(value["backends"])
    return value


def _made_with(backends: Mapping[str, str]) -> Value:
    return {
        "python": " ".join(sys.version.split()),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "backends": dict(backends),
        "integrity": os.environ.get("INTEGRITY", "enforce"),
    }


def _environment(root: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _operations(value: Value, root: Path, folder: Path) -> None:
    print("  the speedups: callgrind", flush=True)
    out = folder / "operations"
    done = subprocess.run(
        [
            *CALLGRIND,
            f"--callgrind-out-file={out}",
            sys.executable,
            str(Path(__file__).with_name("operations.py")),
            str(LOOPS),
        ],
        env=_environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"operations.py under callgrind: {done.stderr[-3000:]}")
    told = json.loads(done.stdout.splitlines()[0])
    if told["unmeasured"]:
        raise Failed(f"perf/guard/operations.py measures nothing of: {told['unmeasured']}")
    value["backends"] = told["backends"]
    # The first part is what came before, and between two loops nothing happens.
    counted = list(parts(out))[1::2]
    for name, part in zip(told["operations"], counted, strict=True):
        _take(value, f"{name}: instructions", part, LOOPS)


def _take(value: Value, name: str, part: Part, times: int) -> None:
    value["values"][name] = round(part.instructions / times, 1)
    top = part.functions.most_common(TOP)
    value["made_of"][name] = {function: round(cost / times, 1) for function, cost in top}


def _request_instructions(value: Value, configuration: str, root: Path, folder: Path) -> None:
    out = folder / f"request-{configuration}"
    with Observed(configuration, root, tool=[*CALLGRIND, f"--callgrind-out-file={out}"]) as one:
        one.ask(BATCH)
        one.mark()
        for _ in range(3):
            one.ask(BATCH)
            one.mark()
    # Before the first mark: the start, and what warms up. Of the others the middle one.
    counted = sorted(list(parts(out))[1:], key=lambda part: part.instructions)
    name = f"request, {configuration}: instructions"
    _take(value, name, counted[1], BATCH)
    value.setdefault("variation", {})[name] = round(
        counted[-1].instructions / counted[0].instructions - 1, 5
    )


def _request_system_calls(value: Value, configuration: str, root: Path, folder: Path) -> None:
    log = folder / f"strace-{configuration}"
    with Observed(configuration, root, tool=["strace", "-f", "-qq", "-o", str(log)]) as one:
        for _ in range(3):
            one.ask(BATCH)
            one.mark()
    *_, last = system_calls(log)
    name = f"request, {configuration}: system calls"
    value["values"][name] = round(sum(last.values()) / BATCH, 3)
    value["made_of"][name] = {call: round(count / BATCH, 3) for call, count in last.most_common()}


def _request_counts(value: Value, configuration: str, root: Path) -> None:
    values = value["values"]
    with Observed(configuration, root, mode="switches") as one:
        first, last = _two(one)
        for what, key in (("task switches", "switches"), ("loop waits", "waits")):
            values[f"request, {configuration}: {what}"] = round((last[key] - first[key]) / BATCH, 3)
        kept = (last["blocks"] - first["blocks"]) / BATCH
        values[f"request, {configuration}: blocks kept"] = round(max(0.0, kept), 3)
    with Observed(configuration, root, mode="plain") as one:
        first, last = _two(one)
        # Of a batch: its audit records wait together.
        values[f"request, {configuration}: peak bytes of {BATCH}"] = (
            last["peak_bytes"] - first["kept_bytes"]
        )
    with Observed(configuration, root, mode="calls") as one:
        _, last = _two(one)
        name = f"request, {configuration}: Python calls"
        values[name] = round(sum(last["calls"].values()) / BATCH, 2)
        value["made_of"][name] = {
            function: round(count / BATCH, 3)
            for function, count in sorted(last["calls"].items(), key=lambda item: -item[1])
            if count > BATCH / 20
        }


def _two(one: Observed) -> tuple[Value, Value]:
    """What is counted at two marks, with a batch between them and two before."""
    one.ask(BATCH)
    one.mark()
    one.ask(BATCH)
    first = one.mark()
    one.ask(BATCH)
    return first, one.mark()


# -- comparing -----------------------------------------------------------------------------


def slack(name: str) -> float:
    """By how much ``name`` may be above its budget besides the share."""
    return next((much for what, much in SLACK.items() if what in name), 0.0)


def compared(now: Value, budget: Value) -> tuple[list[str], list[str]]:
    """What is wrong, and what is to be told: every figure with its budget."""
    wrong: list[str] = []
    table: list[str] = []
    wrong += [
        f"{name}: it has a budget and was not measured"
        for name in budget["values"]
        if name not in now["values"]
    ]
    for name, value in now["values"].items():
        limit = budget["values"].get(name)
        if limit is None:
            wrong.append(f"{name}: {value:g}, and it has no budget")
            continue
        change = value / limit - 1 if limit else 0.0
        told = f"{name:45} {value:>12,.6g} budget {limit:>12,.6g} {change:+7.1%}"
        if value > limit * (1 + TOLERANCE) + slack(name):
            told += "  TOO MUCH"
            wrong.append(
                "\n".join(
                    [
                        f"{name}: {value:g} instead of {limit:g} ({change:+.1%})",
                        *grown(now["made_of"].get(name, {}), budget["made_of"].get(name, {})),
                    ]
                )
            )
        elif change < -TOLERANCE and limit - value > slack(name):
            told += "  better: renew the budget to keep it"
        table.append(told)
    return wrong, table


def grown(now: Mapping[str, float], before: Mapping[str, float], most: int = 8) -> list[str]:
    """The functions that cost more than they did, dearest first."""
    differences = {name: cost - before.get(name, 0.0) for name, cost in now.items()}
    dearest = sorted(differences.items(), key=lambda item: -item[1])[:most]
    return [
        f"    {difference:+12,.6g}  {name}" + ("" if name in before else "  (new)")
        for name, difference in dearest
        if difference > 0
    ]


def _against(ref: str, folder: Path) -> Value:
    """The same figures of another state of the repository."""
    root = folder / "against"
    root.mkdir()
    archive = subprocess.run(["git", "archive", ref], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise Failed(f"git archive {ref}: {archive.stderr.decode()}")
    subprocess.run(["tar", "x", "-C", str(root)], input=archive.stdout, check=True)
    if any(root.glob("mcpx/_speedups/*.pyx")) and any(ROOT.glob("mcpx/_speedups/*.so")):
        built = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=root,
            check=False,
            capture_output=True,
            text=True,
        )
        if built.returncode:
            raise Failed(f"the extensions of {ref} can't be built: {built.stderr[-1500:]}")
    return measured(root, _new(folder, "then"))


def _new(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m perf.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--renew", action="store_true", help="write what is measured as budgets")
    parser.add_argument(
        "--against", metavar="REF", help="compare with this commit instead of the budgets"
    )
    parser.add_argument("--budgets", type=Path, default=BUDGETS)
    asked = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="mcpx-guard-") as name:
            return _guard(asked, Path(name))
    except (Failed, FileNotFoundError) as problem:
        print(problem, file=sys.stderr)
        return 2


def _guard(asked: argparse.Namespace, folder: Path) -> int:
    print("measuring this state", flush=True)
    now = measured(ROOT, _new(folder, "now"))
    for pair, backend in now["backends"].items():
        if backend != "c":
            print(f"no compiled twin yet: {pair} (its Python twin was measured)")
    for name, share in now["variation"].items():
        print(f"varied from run to run by {share:.2%}: {name}")
    if asked.renew:
        now["libraries"] = {name: importlib.metadata.version(name) for name in LIBRARIES}
        asked.budgets.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        print(f"written: {asked.budgets}")
        return 0
    if asked.against:
        print(f"measuring {asked.against}", flush=True)
        budget = _against(asked.against, folder)
    else:
        budget = json.loads(asked.budgets.read_text())
    if asked.against:
        # Which parts are compiled may be the very change.
        budget["made_with"]["backends"] = now["made_with"]["backends"]
    if budget["made_with"] != now["made_with"]:
        print(
            "The budgets were made with something else, so the figures can't be compared:",
            file=sys.stderr,
        )
        for key, value in now["made_with"].items():
            if budget["made_with"].get(key) != value:
                print(f"  {key}: {budget['made_with'].get(key)} then, {value} now", file=sys.stderr)
        print(
            "Compare with a commit (make guard AGAINST=origin/main), or renew the budgets on"
            " the commit to compare with (make guard-renew).",
            file=sys.stderr,
        )
        return 2
    wrong, table = compared(now, budget)
    print("\n".join(table))
    if wrong:
        print("\nOver budget:\n" + "\n".join(wrong), file=sys.stderr)
        print(
            "\nIf it is worth it: make guard-renew, and commit perf/guard/budgets.json with the"
            " reason.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
