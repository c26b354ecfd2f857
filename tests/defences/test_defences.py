"""The tables fit the source and the tests, so that ``make defences`` can be run at any time."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from defences import CANARY, DEFENCES

ROOT = Path(__file__).resolve().parents[2]


def texts(defence):
    return {file: (ROOT / file).read_text("utf-8") for file in defence.files}


@pytest.fixture(scope="module")
def on_the_wire():
    """The tests on the wire, each without its case and with each of its cases."""
    command = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/wire"]
    listed = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    cases = [line.partition("::")[2] for line in listed.splitlines() if "::" in line]
    return {*cases, *(case.partition("[")[0] for case in cases)}


@pytest.mark.parametrize("defence", DEFENCES, ids=lambda defence: defence.fact)
def test_what_is_taken_out_is_there_once_and_leaves_python(defence):
    before = texts(defence)
    assert defence.misfit(before) == ""
    for file, text in defence.removed(before).items():
        ast.parse(text, file)


def test_every_test_that_must_turn_red_exists(on_the_wire):
    named = {test for defence in DEFENCES for test in defence.tests}
    assert named - on_the_wire == set()
    assert CANARY in on_the_wire
    assert CANARY not in named


def test_every_defence_names_a_test_and_is_told_once():
    facts = [defence.fact for defence in DEFENCES]
    assert len(facts) == len(set(facts))
    assert all(defence.tests for defence in DEFENCES)
