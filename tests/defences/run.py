"""Take each defence out of the gateway, and see a test on the wire turn red.

What it is: a program over the tables of ``defences.py``. It copies the checkout (what git
tracks, and what it would track) to a temporary folder. There it first sees that every
named test is green. Then, for one defence after the other, it puts the text without the
defence in place, runs the tests that the entry names, and puts the text back. What it
must never do: change the checkout itself, or take a gateway that no longer works at all
for a defence that was seen to fail: a test that has nothing to do with any defence must
stay green each time.

A defence that can be removed without each of its tests turning red makes the program
end with status 1. So does an ``old`` text that is not there exactly once. Tests that do
not end within ``LIMIT_S`` count as red, and are told apart.

    .venv/bin/python tests/defences/run.py [--only WORD] [--fail-fast] [--why]

``--only`` may be given several times. The copy runs without the compiled twins: what an
entry takes out is in the Python ones, which both must do alike.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from defence import Defence
from defences import CANARY, DEFENCES

ROOT = Path(__file__).resolve().parents[2]
WIRE = "tests/wire"
LIMIT_S = 60.0
#: A line of `pytest -v`: what was run and what became of it.
OUTCOME = re.compile(r"^(?:tests/wire/\S+?\.py)::(.+?) (PASSED|FAILED|ERROR)\b", re.MULTILINE)

#: A line of a traceback that says what failed, in a group of exceptions or not.
FAILURE = re.compile(r"^[ |E]*[\w.]*(?:Error|Exception)(?::.*)?$")

RED, HANG, GREEN, BROKEN = "red", "hang", "SURVIVED", "BROKEN"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        metavar="WORD",
        action="append",
        default=[],
        help="facts, files and texts with this word, or with another one that is given so",
    )
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first that survives")
    parser.add_argument("--why", action="store_true", help="show where the tests failed")
    wanted = parser.parse_args()
    words = [word.lower() for word in wanted.only] or [""]
    chosen = [
        each
        for each in DEFENCES
        if any(word in f"{each.fact} {each.edits}".lower() for word in words)
    ]
    if not chosen:
        sys.exit(f"no defence with {' or '.join(map(repr, words))} in it")
    with tempfile.TemporaryDirectory(prefix="mcpx-defences-") as name:
        folder = Path(name) / "mcpx"
        copy(ROOT, folder)
        return prove(chosen, folder, fail_fast=wanted.fail_fast, why=wanted.why)


def prove(chosen: list[Defence], folder: Path, *, fail_fast: bool, why: bool) -> int:
    print(f"{len(chosen)} defences; their tests with nothing removed: ", end="", flush=True)
    found = places(folder)
    tests = [CANARY, *(test for each in chosen for test in each.tests)]
    outcomes, ended, output = run(folder, found, tests)
    bad = sorted(name for name, outcome in outcomes.items() if outcome != "PASSED")
    if bad or not ended or not outcomes:
        print("not green\n" + "\n".join(bad or output.splitlines()[-20:]))
        return 1
    print(f"{len(outcomes)} green\n\n| | fact | where | turned red |\n|---|---|---|---|")
    verdicts = []
    for each in chosen:
        verdict, names, output = attempt(each, folder, found)
        verdicts.append(verdict)
        where = ", ".join(each.files)
        print(f"| {verdict} | {each.fact} | {where} | {'; '.join(names)} |", flush=True)
        if why:
            print("\n".join(line for line in output.splitlines() if FAILURE.match(line)))
        if fail_fast and verdict in (GREEN, BROKEN):
            break
    survivors = [verdict for verdict in verdicts if verdict in (GREEN, BROKEN)]
    hangs = verdicts.count(HANG)
    print(f"\n{len(verdicts) - len(survivors)} of {len(verdicts)} are held by their tests", end="")
    print(f", {hangs} of these by not ending in time." if hangs else ".")
    return 1 if survivors else 0


def attempt(defence: Defence, folder: Path, found: dict[str, str]) -> tuple[str, list[str], str]:
    """The verdict on one defence; the tests that turned red, or what is wrong; what was said."""
    before = {file: (folder / file).read_text("utf-8") for file in defence.files}
    misfit = defence.misfit(before)
    if misfit:
        return BROKEN, [misfit], ""
    try:
        for file, text in defence.removed(before).items():
            (folder / file).write_text(text, "utf-8")
        outcomes, ended, output = run(folder, found, [CANARY, *defence.tests])
    finally:
        for file, text in before.items():
            (folder / file).write_text(text, "utf-8")
    if outcomes.get(CANARY) != "PASSED":
        return BROKEN, ["without it nothing works at all, which proves nothing"], output
    red = [test for test in defence.tests if is_red(outcomes, test)]
    rest = [test for test in defence.tests if test not in red]
    if rest and (ended or any(name in outcomes for name in rest)):
        return GREEN, [f"still green: {test}" for test in rest], output
    if ended:
        return RED, red, output
    return HANG, [*red, *(f"{test} (did not end)" for test in rest)], output


def is_red(outcomes: dict[str, str], test: str) -> bool:
    """Whether the test, or one of its cases if the table names them all, failed."""
    return any(
        outcome != "PASSED"
        for name, outcome in outcomes.items()
        if name == test or name.partition("[")[0] == test
    )


def copy(root: Path, folder: Path) -> None:
    """The checkout's files as they are now, those not yet committed included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
    # Two edits within a second can't be told apart by time and size: go by content.
    compileall.compile_dir(
        folder / "mcpx", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )
    used = subprocess.run(
        [sys.executable, "-c", "import mcpx; print(mcpx.__file__)"],
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if not Path(used).resolve().is_relative_to(folder.resolve()):
        sys.exit(f"the tests would run against {used}, not against the copy")


def places(folder: Path) -> dict[str, str]:
    """Each test on the wire, without its cases, and the file that it is in."""
    found: dict[str, str] = {}
    for file in sorted((folder / WIRE).glob("test_*.py")):
        for name in re.findall(
            r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE
        ):
            if name in found:
                sys.exit(f"two tests are called {name}: the table can't tell which it means")
            found[name] = f"{WIRE}/{file.name}"
    return found


def run(
    folder: Path, found: dict[str, str], tests: Iterable[str]
) -> tuple[dict[str, str], bool, str]:
    """What became of each test (of each case), whether they ended in time, what pytest said."""
    ids = [f"{found[test.partition('[')[0]]}::{test}" for test in dict.fromkeys(tests)]
    options = ["-v", "--tb=short", "--no-header", "-rN", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *ids],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    ended = True
    try:
        output = process.communicate(timeout=LIMIT_S * (1 + len(ids) // 20))[0]
    except subprocess.TimeoutExpired:
        ended = False
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate()[0]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    outcomes: dict[str, str] = {}
    for name, outcome in OUTCOME.findall(output):
        # A test that passed may still fail as it is taken down.
        if outcomes.get(name) in (None, "PASSED"):
            outcomes[name] = outcome
    return outcomes, ended, output


def environment() -> dict[str, str]:
    """This program's own, without what would lead imports elsewhere or to a compiled twin."""
    environ = dict(os.environ)
    for name in ("PYTHONPATH", "MCPX_REQUIRE_EXTENSIONS"):
        environ.pop(name, None)
    return {
        **environ,
        "MCPX_NO_EXTENSIONS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
