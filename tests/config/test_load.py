"""From text to a configuration, or to every reason why not.

Each ``golden/NAME.yaml`` has a ``golden/NAME.txt`` beside it with what loading it says:
every problem, or "ok" and the warnings. After a change on purpose,

    python tests/config/test_load.py

writes them anew; what it changed is then to be read line by line.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.example import EXAMPLE
from mcpx.config.load import load_snapshot, parse, read_file
from mcpx.config.model import Config
from mcpx.config.yaml_text import MAX_BYTES
from mcpx.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*.yaml"))

ENVIRON = {
    "TOKEN_A": "hidden-credential-of-a",
    "TOKEN_B": "hidden-credential-of-b",
    "LINE_END": "hidden-credential-with-a-line-end\n",
    "DOLLARS": "${TOKEN_A}",
    "EMPTY": "",
    "PORT": "8080",
    "RPS": "50",
    "YES": "hidden-yes",
}


def outcome(path):
    try:
        snapshot = load_snapshot(
            path.read_bytes(), filename=path.name, environ=ENVIRON, generation=1
        )
    except ConfigError as error:
        return "".join(f"{problem}\n" for problem in error.problems)
    return "ok\n" + "".join(f"warning: {warning}\n" for warning in snapshot.warnings)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_loading_says_what_its_golden_file_says(path):
    assert outcome(path) == path.with_suffix(".txt").read_text()


def test_every_golden_text_has_its_configuration():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {path.stem for path in CASES}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_no_problem_or_warning_shows_a_credential(path):
    assert "hidden" not in outcome(path)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_problem_is_one_line_that_begins_with_its_place(path):
    try:
        load_snapshot(path.read_bytes(), filename="f", environ=ENVIRON, generation=1)
    except ConfigError as error:
        for problem in error.problems:
            name, line, column, rest = problem.split(":", 3)
            assert name == "f"
            assert int(line) >= 1
            assert int(column) >= 1
            assert rest.startswith(" ")
            assert problem.isprintable()


def test_a_configuration_is_parsed_without_being_compiled():
    config = parse(b"listen: '127.0.0.1:1'\n", filename="f", environ={})
    assert isinstance(config, Config)
    assert config.listen == "127.0.0.1:1"


def test_parsing_checks_across_fields_as_well():
    with pytest.raises(ConfigError) as refused:
        parse("auth: {enabled: true}\n", filename="f", environ={})
    assert refused.value.problems[0].startswith("f:1:1: auth.type: ")


def test_the_snapshot_has_the_number_that_it_is_given():
    assert load_snapshot("", filename="f", environ={}, generation=7).generation == 7


def test_a_file_that_cannot_be_read_is_a_problem_like_others(tmp_path):
    for name in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(ConfigError) as refused:
            read_file(str(name))
        assert str(name) in refused.value.problems[0]
    with pytest.raises(ConfigError):
        read_file("a\0b")


def test_a_file_is_read_no_further_than_its_bound(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_bytes(b"#" * (MAX_BYTES * 2))
    content = read_file(str(path))
    assert len(content) == MAX_BYTES + 1
    with pytest.raises(ConfigError):
        parse(content, filename="f", environ={})
    path.write_bytes(b"listen: ':1'\n")
    assert read_file(str(path)) == b"listen: ':1'\n"


def loads_or_is_refused(text):
    try:
        load_snapshot(text, filename="f", environ=ENVIRON, generation=1)
    except ConfigError as error:
        assert error.problems
        assert all(problem.startswith("f:") for problem in error.problems)
        assert "hidden-credential" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_loads_or_is_refused_with_a_place(text):
    loads_or_is_refused(text)


SEEDS = [EXAMPLE, *(path.read_text() for path in CASES)]
PIECES = st.sampled_from(
    ["", " ", "\n", "\n  ", ": ", "- ", "[", "]", "{", "}", "null", "true", "0", "-1", "1e9", '"',
     "'", "*x", "&x ", "!!int ", "${TOKEN_A}", "${NONE}", "#", "\t", "yes", "30s", "/", "*", "\x00",
     "hidden-credential-in-the-file", "name: x", "99999999999999999999", ".inf", "\u2028", "😀"]
)  # fmt: skip


@st.composite
def mutated(draw):
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 3, 10, 40])))
        text = text[:start] + draw(PIECES) + text[end:]
    return text


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_any_change_to_a_configuration_loads_or_is_refused_with_a_place(text):
    try:
        load_snapshot(text, filename="f", environ=ENVIRON, generation=1)
    except ConfigError as error:
        assert error.problems
        assert all(problem.startswith("f:") for problem in error.problems)


VALUES = st.recursive(
    st.sampled_from(
        [None, True, 0, 1, -1, 2.5, "", "a", "30s", "http://h/", "${TOKEN_A}", "bearer", "*", "/x"]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def section(kind, depth=0):
    """Mappings with the right keys and any values."""
    from msgspec.inspect import DictType, ListType, StructType, UnionType

    def strategy(kind, depth):
        if isinstance(kind, StructType) and depth < 6:
            return VALUES | section(kind, depth)
        if isinstance(kind, ListType):
            return VALUES | st.lists(strategy(kind.item_type, depth + 1), max_size=2)
        if isinstance(kind, DictType):
            keys = st.sampled_from(["a", "", "x y"])
            return VALUES | st.dictionaries(keys, strategy(kind.value_type, depth + 1), max_size=2)
        if isinstance(kind, UnionType):
            return st.one_of([strategy(member, depth) for member in kind.types])
        return VALUES

    return st.fixed_dictionaries(
        {},
        optional={field.encode_name: strategy(field.type, depth + 1) for field in kind.fields},
    )


def configurations():
    from msgspec.inspect import type_info

    return section(type_info(Config))


@settings(max_examples=150, deadline=None)
@given(configurations())
def test_any_values_below_the_right_keys_load_or_are_refused_with_a_place(tree):
    import json

    # JSON is YAML; PyYAML takes it as it is written here.
    loads_or_is_refused(json.dumps(tree))


if __name__ == "__main__":
    for case in CASES:
        case.with_suffix(".txt").write_text(outcome(case))
    os.write(1, f"{len(CASES)} written\n".encode())
