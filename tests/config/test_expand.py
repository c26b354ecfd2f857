"""Variables in values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.config.expand import expand

ENVIRON = {"A": "alpha", "EMPTY": "", "B_2": "${A}", "LONG": "x" * 1000}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "alpha"),
        ("<${A}-${A}>", "<alpha-alpha>"),
        ("${EMPTY}", ""),
        ("${NONE:-beta}", "beta"),
        ("${NONE:-}", ""),
        ("${EMPTY:-beta}", "beta"),
        ("${A:-beta}", "alpha"),
        ("${NONE:-a:-b}", "a:-b"),
        ("${NONE:-{}", "{"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $5 $ $$ %A% {A}", "$A $5 $ $$ %A% {A}"),
        ("^a$", "^a$"),
    ],
)
def test_variables_are_filled_in_and_other_dollars_stay(text, filled):
    result = expand({"k": [text]}, ENVIRON)
    assert result.faults == []
    assert result.value == {"k": [filled]}


def test_what_a_variable_holds_is_not_expanded_again():
    assert expand("${B_2}", ENVIRON).value == "${A}"


def test_keys_numbers_and_nothing_are_left_alone():
    value = {"${A}": 1, "b": None, "c": True, "d": 1.5}
    assert expand(value, ENVIRON).value == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NONE}", "NONE is not set"),
        ("${NONE:-", "without `}`"),
        ("x ${A", "without `}`"),
        ("${}", "without the name"),
        ("${ A }", "without the name"),
        ("${1A}", "without the name"),
        ("${A-b}", "without the name"),
        ("${NONE:-${A}}", "another variable"),
    ],
)
def test_what_cannot_be_filled_in_is_a_fault_with_its_path(text, words):
    result = expand({"a": ["x", text]}, ENVIRON)
    assert [fault.path for fault in result.faults] == [("a", 1)]
    assert words in result.faults[0].message


def test_all_missing_variables_are_told_at_once():
    result = expand({"a": "${X}", "b": ["${Y} ${Z}"]}, ENVIRON)
    assert [f.message.split()[3] for f in result.faults] == ["X", "Y", "Z"]


def test_it_is_known_which_texts_came_from_variables():
    result = expand({"a": "${A}", "b": ["$${A}", "${NONE:-x}"], "c": "plain"}, ENVIRON)
    assert result.filled == {("a",), ("b", 1)}


def test_bytes_that_are_no_text_are_refused_without_being_shown():
    result = expand("${BAD}", {"BAD": "hidden\udcff"})
    assert "BAD is not UTF-8" in result.faults[0].message
    assert "hidden" not in result.faults[0].message


def test_what_variables_fill_in_has_a_bound():
    result = expand(["${LONG}" * 600, "${LONG}" * 600], ENVIRON)
    assert any("more than" in fault.message for fault in result.faults)


@given(st.text(alphabet="${}:-AB_2 x", max_size=40))
def test_any_text_is_filled_in_or_a_fault_and_names_no_value(text):
    result = expand(text, {"A": "hidden", "AB": ""})
    assert isinstance(result.value, str)
    for fault in result.faults:
        assert "hidden" not in fault.message + fault.hint


@given(st.text(max_size=40).filter(lambda text: "${" not in text))
def test_a_text_without_a_variable_is_itself(text):
    result = expand(text, {})
    assert result.value == text
    assert result.faults == []
