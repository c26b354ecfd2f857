"""What the guard reads of callgrind and strace, and what it makes of it."""

import pytest

from perf.bench.backend import call_of, result_of
from perf.guard.__main__ import compared, grown
from perf.guard.counting import Part, parts, system_calls
from perf.guard.operations import OPERATIONS, pairs, unmeasured

PART = """\
events: Ir

ob=/lib/python
fl=scan.c
fn=scan
0 100
cfi=other.c
cfn=string
calls=3 0
0 900
0 20
fn=string
0 900
totals: 1020
"""


def test_a_functions_cost_is_its_own_without_what_it_calls(tmp_path):
    (tmp_path / "out.1").write_text("totals: 5\n")
    (tmp_path / "out.2").write_text(PART)
    first, second = parts(tmp_path / "out")
    assert (first.instructions, dict(first.functions)) == (5, {})
    assert second.instructions == 1020
    assert dict(second.functions) == {"scan": 120, "string": 900}


def test_system_calls_are_those_between_two_marks(tmp_path):
    (tmp_path / "log").write_text(
        "10 read(0, x) = 1\n10 getppid() = 1\n10 recvfrom(3, x <unfinished ...>\n"
        "11 futex(0x1) = 0\n10 <... recvfrom resumed>) = 2\n10 sendto(4) = 1\n"
        "10 getppid() = 1\n10 read(0) = 1\n"
    )
    assert [dict(counts) for counts in system_calls(tmp_path / "log")] == [
        {"recvfrom": 1, "sendto": 1}
    ]


def of(values, made_of=None):
    return {"values": values, "made_of": made_of or {}}


def test_more_than_three_per_cent_is_an_error_that_names_the_function():
    name = "frames.scan 150 B: instructions"
    budget = of({name: 10_000}, {name: {"scan": 9_000, "string": 1_000}})
    wrong, _ = compared(of({name: 10_300}), budget)
    assert wrong == []
    now = of({name: 10_400}, {name: {"scan": 9_000, "string": 1_100, "fresh": 300}})
    (text,), table = compared(now, budget)
    assert "10400 instead of 10000" in text
    assert text.index("fresh  (new)") < text.index("string")
    assert "TOO MUCH" in table[0]


@pytest.mark.parametrize("now, budget", [({}, {"a": 1}), ({"a": 1}, {})])
def test_what_has_no_counterpart_is_an_error(now, budget):
    assert len(compared(of(now), of(budget))[0]) == 1


def test_a_small_count_may_be_above_by_its_slack():
    name = "request, bare: system calls"
    assert compared(of({name: 2.2}), of({name: 2.0}))[0] == []
    assert compared(of({name: 3.0}), of({name: 2.0}))[0] != []


def test_what_grew_comes_dearest_first():
    assert [line.split() for line in grown({"a": 5, "b": 9, "c": 1}, {"a": 4, "b": 2, "c": 2})] == [
        ["+7", "b"],
        ["+1", "a"],
    ]


def test_every_pair_of_twins_is_measured():
    assert unmeasured() == []
    measured = {pair for pair, _ in OPERATIONS.values()}
    assert measured >= set(pairs())
    for pair, make in OPERATIONS.values():
        if pair in pairs():
            assert make()() is not None


@pytest.mark.parametrize("size", [150, 10_000])
def test_calls_and_results_have_the_size_that_is_told(size):
    assert len(call_of(size)) == len(result_of(size)) == size


def test_a_part_without_functions_is_empty():
    assert Part([]).instructions == 0
