"""YAML that no two readers take differently, and where each part of it stands."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, YamlError, read_yaml

LOADERS = {"python": yaml.SafeLoader}
if hasattr(yaml, "CSafeLoader"):
    LOADERS["libyaml"] = yaml.CSafeLoader


@pytest.fixture(params=LOADERS.values(), ids=LOADERS.keys())
def loader(request):
    return request.param


def value(text, loader=None):
    return read_yaml(text, loader).value


def refusals(text, loader=None):
    with pytest.raises(YamlError) as refused:
        read_yaml(text, loader)
    return [(tuple(mark), fault.path, fault.message) for mark, fault in refused.value.problems]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("12", 12),
        ("-12", -12),
        ("+3", 3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("9007199254740993", 9007199254740993),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("text", "text"),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, meaning, loader):
    found = value(f"a: {text}\n", loader)
    assert found == {"a": meaning}
    assert type(found["a"]) is type(meaning)


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "off", "y", "n", "Yes", "ON", "12:30:00", "190:20:30", "1_000", "0755",
     "007", "0b11", "0x_1", "2026-01-01", "2026-01-01T00:00:00Z", ".inf", "-.inf", ".nan", "=",
     "1,000", "0x", "0o8", "1e", "e5", "-", "+", ".", "-.", "00.5", "1.2.3", "tRue"],
)  # fmt: skip
def test_what_yaml_1_1_makes_something_else_of_stays_text(text, loader):
    if text == "-":
        text = "'-'"
    assert value(f"a: {text}\n", loader) == {"a": text.strip("'")}


def test_keys_are_text_and_whole_numbers_are_names(loader):
    assert value("on: 1\n3000: 2\n'true': 3\n007: 4\n", loader) == {
        "on": 1, "3000": 2, "true": 3, "007": 4,
    }  # fmt: skip


@pytest.mark.parametrize("key", ["true", "~", "1.5", "[a]", "{a: b}", "0x10", "-1"])
def test_a_key_that_is_no_text_is_refused(key, loader):
    assert "text" in refusals(f"? {key}\n: 1\n", loader)[0][2]


def test_a_key_that_is_an_alias_is_refused(loader):
    assert "alias can't be a key" in refusals("a: &x b\n*x : 1\n", loader)[0][2]


def test_a_duplicate_key_at_any_depth_is_refused(loader):
    text = "a:\n  - b: 1\n    c: {d: 1, 'd': 2}\n    b: 3\na: 4\n"
    assert refusals(text, loader) == [
        ((3, 15), ("a", 0, "c"), 'the key "d" is given twice, both times on line 3'),
        ((4, 5), ("a", 0), 'the key "b" is given twice, on line 2 and on line 4'),
        ((5, 1), (), 'the key "a" is given twice, on line 1 and on line 5'),
    ]


def test_a_merge_key_is_refused_and_a_quoted_one_is_a_name(loader):
    assert "merge key" in refusals("a: &x {b: 1}\nc:\n  <<: *x\n", loader)[0][2]
    assert value("'<<': 1\n", loader) == {"<<": 1}


@pytest.mark.parametrize(
    "tagged", ["!!int '1'", "!!python/object:os.system {}", "!x y", "!!binary aGk=", "!!set {a}",
               "!!str {a: b}", "!!map [a]", "!!timestamp 2026-01-01", "!<tag:x,1:y> z"],
)  # fmt: skip
def test_a_tag_that_changes_anything_is_refused(tagged, loader):
    assert any("the tag" in message for _, _, message in refusals(f"a: {tagged}\n", loader))


def test_tags_that_change_nothing_pass(loader):
    assert value("!!map {a: !!seq [!!str b]}\n", loader) == {"a": ["b"]}


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "--- a\n--- b\n", "a: 1\n...\nb: 2\n"])
def test_a_second_document_is_refused(text, loader):
    assert "document" in refusals(text, loader)[0][2]


def test_an_alias_is_the_value_that_it_names(loader):
    assert value("a: &x {b: [1]}\nc: *x\n", loader) == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize("text", ["a: *x\n", "a: &x [*x]\n", "a: &x {b: {c: *x}}\n", "&x [*x]\n"])
def test_an_alias_of_nothing_or_of_itself_is_refused(text, loader):
    assert "the alias" in refusals(text, loader)[0][2]


def test_aliases_that_multiply_end_at_the_bound(loader):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert "more than" in refusals("\n".join(lines), loader)[0][2]


def test_aliases_that_nest_end_at_the_bound(loader):
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)]
    assert "levels of nesting" in refusals("\n".join(lines), loader)[0][2]


def test_nesting_has_a_bound(loader):
    assert value("[" * MAX_DEPTH + "]" * MAX_DEPTH, loader) is not None
    assert "levels" in refusals("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), loader)[0][2]
    assert "levels" in refusals("- " * 5000 + "x", loader)[0][2]


def test_size_and_number_of_values_have_bounds():
    assert "bytes" in refusals("#" * (MAX_BYTES + 1))[0][2]
    assert "values" in refusals("- \n" * (MAX_VALUES + 1))[0][2]
    assert len(value("- \n" * (MAX_VALUES - 1))) == MAX_VALUES - 1


def test_numbers_have_bounds(loader):
    assert "characters" in refusals("a: " + "9" * 200, loader)[0][2]
    assert "beyond" in refusals("a: 1e999", loader)[0][2]
    assert value("a: '" + "9" * 200 + "'", loader) == {"a": "9" * 200}


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (b"a: 1\nb: \xff\n", (2, 4), "not UTF-8"),
        ("a: 1\r\nb: \ud800\n", (2, 4), "surrogate"),
        ("a: 1\nb: x\x00\n", (2, 5), "U+0000"),
        ("a: \u2028\n", (1, 4), "U+2028"),
        ("a: 1 # \u202e\n", (1, 8), "U+202E"),
        ("a: 1\rb: \x85", (2, 4), "U+0085"),
        ("a: \ufeff", (1, 4), "U+FEFF"),
        (b"\xff\xfea\x00", (1, 1), "not UTF-8"),
    ],
)
def test_characters_that_nobody_sees_or_reads_are_refused_with_their_place(text, place, words):
    found = refusals(text)
    assert found[0][0] == place
    assert words in found[0][2]


def test_an_escaped_surrogate_is_no_text(loader):
    with pytest.raises(YamlError):
        read_yaml('a: "\\ud800"', loader)


def test_a_byte_order_mark_and_crlf_are_read():
    assert value(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", b""])
def test_an_empty_text_is_an_empty_document(text, loader):
    assert value(text, loader) is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a:\n\t- b\n", 2, "tab"),
        ("a: b: c\n", 1, "a `:` where no key can be"),
        ("a: - b\n", 1, "no list can start"),
        ("a: 'b\n", 1, "never closed"),
        ("a: @b\n", 1, "`@`"),
        ("a: %b\n", 1, "`%`"),
        ("a: `b`\n", 1, "backtick"),
        ('a: "\\q"\n', 1, "single quotes"),
        ("a: {b: 1\n", None, "not closed"),
        ("a: [b\n", None, "not closed"),
        ("a: ]\n", 1, "bracket too many"),
        ("a:\n - b\n  - c\n- d\n", 4, "indentation"),
        ("a: !x!y z\n", 1, "tag"),
        ("%YAML 2.0\n---\na: 1\n", 1, "version"),
        ("a\nb: 1\n", 2, "indentation"),
        ("a: b\nc\nd: e\n", None, "without `:`|a `:` where"),
    ],
)
def test_a_syntax_error_says_where_and_what_to_write(text, line, words, loader):
    place, _, message = refusals(text, loader)[0]
    assert line is None or place[0] == line
    assert any(word in message for word in words.split("|"))


def test_keys_values_items_and_what_is_absent_have_a_place(loader):
    document = read_yaml("a:\n  - b: 1\n    c:   two\n  - 3\n", loader)
    assert document.locate(("a",)) == (1, 1)
    assert document.locate(("a", 0)) == (2, 5)
    assert document.locate(("a", 0, "c")) == (3, 10)
    assert document.locate(("a", 0, "c"), at_key=True) == (3, 5)
    assert document.locate(("a", 1)) == (4, 5)
    assert document.locate(("a", 0, "absent", "deeper")) == (2, 5)
    assert document.locate(("absent",)) == (1, 1)
    assert document.locate(()) == (1, 1)


def test_a_scalar_is_known_as_it_was_written(loader):
    document = read_yaml("a: {b: 1.10, c: 0x1F, d: [x]}\n", loader)
    assert document.written(("a", "b")) == "1.10"
    assert document.written(("a", "c")) == "0x1F"
    assert document.written(("a", "d", 0)) == "x"
    assert document.written(("a",)) is None
    assert document.written(("a", "d", 5)) is None


YAML_LIKE = st.text(alphabet="ab1: -[]{},&*!|>'\"#%@\n\t?~", max_size=60)


@settings(max_examples=300, deadline=None)
@given(YAML_LIKE | st.text(max_size=40) | st.binary(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        read_yaml(text)
    except YamlError as error:
        assert error.problems


@pytest.mark.skipif("libyaml" not in LOADERS, reason="PyYAML was built without libyaml")
@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(-1e9, 1e9),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_both_parsers_read_what_any_writer_wrote(tree):
    text = yaml.safe_dump(tree)
    results = []
    for each in LOADERS.values():
        try:
            results.append(read_yaml(text, each).value)
        except YamlError as error:
            results.append([fault.message for _, fault in error.problems])
    assert results[0] == results[1]
