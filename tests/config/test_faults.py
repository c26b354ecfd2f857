"""How problems are said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcpx.config.faults import (
    MOST_PROBLEMS,
    Fault,
    Faulty,
    Mark,
    nearest,
    path_text,
    quote,
    render,
    render_all,
)


def test_a_problem_names_file_line_column_path_and_remedy():
    fault = Fault(
        ("servers", 1, "policy", "alow_tools"), "unknown key", "did you mean allow_tools?"
    )
    assert (
        render(fault, "mcpx.yaml", Mark(9, 7))
        == "mcpx.yaml:9:7: servers[1].policy.alow_tools: unknown key; did you mean allow_tools?"
    )


def test_a_problem_of_the_whole_file_has_no_path():
    assert render(Fault((), "is empty"), "f", Mark(1, 1)) == "f:1:1: is empty"


def test_names_that_are_no_plain_words_are_quoted_in_paths():
    assert path_text(("clients", "a b", "servers", "")) == 'clients["a b"].servers[""]'
    assert path_text(("env", "x\ny")) == 'env["x\\ny"]'


@given(st.text())
def test_no_quoted_text_breaks_the_line_steers_the_terminal_or_grows_without_bound(text):
    shown = quote(text)
    assert shown.isprintable()
    assert len(shown) < 800


def test_problems_come_in_the_order_of_the_file_and_each_once():
    first, second = Fault(("a",), "x"), Fault(("b",), "y")
    placed = [(Mark(9, 1), second), (Mark(2, 5), first), (Mark(9, 1), second)]
    assert render_all(placed, "f") == ["f:2:5: a: x", "f:9:1: b: y"]


def test_a_flood_of_problems_is_cut_and_counted():
    placed = [(Mark(n, 1), Fault((), f"p{n}")) for n in range(1, MOST_PROBLEMS + 31)]
    lines = render_all(placed, "f")
    assert len(lines) == MOST_PROBLEMS + 1
    assert lines[-1] == "f: and 30 more problems; mend these first"


def test_the_nearest_name_ignores_case_and_hyphens():
    known = ["read_only", "allow_tools", "deny_tools", ""]
    assert nearest("read-only", known) == "read_only"
    assert nearest("Allow_Tool", known) == "allow_tools"
    assert nearest("xyzzy", known) is None
    assert nearest("a" * 10_000, known) is None


def test_faults_carried_by_an_exception_keep_their_paths():
    faults = [Fault(("a", 0), "x")]
    assert Faulty(faults).faults == tuple(faults)
    assert str(Faulty(faults)) == "a[0]: x"
