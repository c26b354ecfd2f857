import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.globs import (
    ANY,
    ONE,
    Glob,
    GlobFault,
    GlobSet,
    GlobTable,
    fold,
    is_literal,
    literal_prefix,
    parse_glob,
    piles_marks,
    re2_options,
)


def globs(*patterns):
    return GlobSet(map(parse_glob, patterns))


def reference(pattern, text):
    """The same question by dynamic programming over (pattern, text)."""
    row = [True] + [False] * len(text)
    for symbol in pattern:
        if symbol == "*":
            seen = False
            for index, reached in enumerate(row):
                seen = seen or reached
                row[index] = seen
        else:
            row = [False] + [
                row[index] and symbol in ("?", character) for index, character in enumerate(text)
            ]
    return row[-1]


letters = st.text(alphabet="ab/.A?*[\\\n😀", max_size=8)
patterns = st.text(alphabet="ab/.A?*[\\\n😀|", min_size=1, max_size=8)


@settings(max_examples=400)
@given(st.lists(patterns, max_size=4), letters)
def test_a_list_matches_what_the_reference_matches(given_patterns, text):
    assert globs(*given_patterns).matches(text) == any(
        reference(pattern, text) for pattern in given_patterns
    )


@given(st.lists(st.text(min_size=1, max_size=6).filter(lambda t: ANY not in t), max_size=3),
       st.text(max_size=6))  # fmt: skip
def test_a_list_matches_like_the_reference_over_all_of_unicode(given_patterns, text):
    assert globs(*given_patterns, "?*é").matches(text) == any(
        reference(pattern, text) for pattern in (*given_patterns, "?*é")
    )


def test_a_star_runs_across_slashes_and_lines():
    assert globs("a*z").matches("a/b\nc/z")


def test_a_question_mark_is_exactly_one_character_however_many_bytes_it_takes():
    found = globs("a?c")
    assert found.matches("a😀c")
    assert not found.matches("ac")
    assert not found.matches("a😀😀c")


def test_case_and_the_whole_name_count():
    assert not globs("read").matches("Read")
    assert not globs("read").matches("read_file")
    assert not globs("read*").matches("a read")


@pytest.mark.parametrize("text", ["[ab]", "a.c", "(a|b)", "a+", "^a$", "\\d", "{1}", "a|b", "\\Q"])
def test_everything_but_star_and_question_mark_is_itself(text):
    for pattern in (text, text + "?", "?" + text + "*x"):
        made = pattern.replace("?", "z").replace("*", "yy")
        assert globs(pattern).matches(made)
        assert not globs(pattern).matches("a" + made)
    assert not globs("a.c?").matches("abcz")
    assert not globs("a|b?").matches("a")


def test_an_empty_list_matches_nothing_and_is_false():
    assert not globs()
    assert not globs().matches("")
    assert globs("a")
    assert globs("*")


def test_a_lone_star_matches_everything_even_nothing():
    assert globs("*").matches("")
    assert globs("**").matches("x")


@pytest.mark.parametrize("pattern", ["", ANY, f"a{ONE}", "a\ud800"])
def test_a_pattern_that_no_name_could_match_is_refused(pattern):
    with pytest.raises(GlobFault):
        parse_glob(pattern)


def test_a_pattern_that_is_too_long_to_compile_is_refused():
    with pytest.raises(GlobFault, match="too long"):
        globs("?a" * 200_000)


def test_half_a_surrogate_pair_matches_wildcards_alone():
    assert globs("a?*c").matches("a\ud800c")
    assert not globs("a?b*c").matches("a\ud800xc")
    assert not GlobSet([Glob(f"a?{ONE}{ANY}c")]).matches("a\ud800xc")


def test_sixty_stars_over_a_hundred_thousand_characters_come_to_an_end():
    pattern = "a*" * 60 + "b"
    assert not globs(pattern).matches("a" * 100_000)
    assert globs(pattern).matches("a" * 100_000 + "b")


def test_ten_thousand_globs_of_every_shape_are_all_found():
    shapes = ("{}", "{}*", "*{}", "*{}*", "{}?x")
    found = globs(*(shape.format(f"n{i:04}") for i in range(2_000) for shape in shapes))
    for i in (0, 999, 1_999):
        name = f"n{i:04}"
        assert found.matches(name)
        assert found.matches(name + "_tail")
        assert found.matches("head_" + name)
        assert found.matches(f"head_{name}_tail")
    assert not found.matches("n2000")


def test_literals_and_prefixes_are_told_from_globs():
    assert is_literal(parse_glob("a[b]"))
    assert not is_literal(parse_glob("a?"))
    assert literal_prefix(parse_glob("ab?c*")) == "ab"
    assert literal_prefix(parse_glob("ab*c?")) == "ab"
    assert literal_prefix(parse_glob("ab")) == "ab"


@pytest.mark.parametrize(
    "alike",
    [
        "DELETE_ALL",
        "Delete_All",
        "ｄｅｌｅｔｅ＿ａｌｌ",
        "delete_all ",
        " delete_all",
        "delete_\u200ball",
        "\ufeffdelete_all",
        "delete_all\u00a0",
        "del\u00adete_all",
        "delete_a\u2060ll",
        "delete_all\ufe0f",
        "delete\u3164_all",
        "delete_\tall",
        "𝐝elete_all",
        "delete_al\u2113",
        "delete_all\U000e0041",
    ],
)
def test_look_alikes_fold_to_the_same(alike):
    assert fold(alike) == fold("delete_all") == "delete_all"


def test_the_kelvin_sign_and_the_long_s_fold_to_their_letters():
    assert fold("to\u212aen_\u017ftore") == "token_store"


def test_letters_of_another_script_stay_different():
    assert fold("p\u0430th") != fold("path")


@given(st.text(alphabet=st.characters(), max_size=20))
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@given(st.text(max_size=20))
def test_folding_sees_no_case_form_or_blank(text):
    assert fold(unicodedata.normalize("NFKC", text)) == fold(text)
    assert fold(" " + text + "\u200b") == fold(text)


def test_a_full_width_asterisk_does_not_become_a_wildcard_when_folded():
    folded = GlobSet([Glob(fold(parse_glob("a＊")))])
    assert folded.matches("a*")
    assert not folded.matches("abc")
    assert GlobSet([Glob(fold(parse_glob("A*")))]).matches("abc")


def test_more_marks_in_a_row_than_any_writing_needs_are_noticed():
    assert not piles_marks("e\u0301" * 500)
    assert not piles_marks("e" + "\u0301" * 30)
    assert piles_marks("e" + "\u0301" * 31)


def test_re2_says_nothing_on_stderr():
    assert re2_options().log_errors is False


shapes = st.lists(st.sampled_from("aabB*?_"), min_size=1, max_size=5).map("".join)


@settings(max_examples=300)
@given(st.lists(shapes, max_size=60), st.lists(st.sampled_from("abB_"), max_size=7).map("".join))
def test_a_table_tells_each_that_the_reference_matches(given_patterns, text):
    table = GlobTable(list(map(parse_glob, given_patterns)))
    assert table.matching(text) == {
        place for place, pattern in enumerate(given_patterns) if reference(pattern, text)
    }


@settings(max_examples=60)
@given(
    st.lists(shapes, min_size=260, max_size=300, unique=True),
    st.lists(st.sampled_from("abB_"), max_size=7).map("".join),
)
def test_more_globs_than_a_batch_match_what_the_reference_matches(given_patterns, text):
    # Without those that match nearly everything.
    kept = [pattern for pattern in given_patterns if set(pattern) - set("*?")]
    made = globs(*kept)
    assert made.matches(text) == any(reference(pattern, text) for pattern in kept)


def test_a_table_of_ten_thousand_globs_of_every_shape_finds_each():
    shapes = ("{}", "{}*", "*{}", "*{}*", "{}?x", "a*{}", "tool_*_{}_*", "?*{}?*")
    patterns = [shape.format(f"n{i:04}") for i in range(1_500) for shape in shapes]
    table = GlobTable([*map(parse_glob, patterns), parse_glob("??"), parse_glob("*")])
    everything = len(patterns) + 1
    for i in (0, 749, 1_499):
        for text in (f"n{i:04}", f"n{i:04}_x", f"n{i:04}yx", f"a_n{i:04}", f"tool_1_n{i:04}_2",
                     f"x_n{i:04}_x", f"x_n{i:04}\ud800"):  # fmt: skip
            near = range(i * len(shapes), (i + 1) * len(shapes))
            expected = {place for place in near if reference(patterns[place], text)}
            assert expected
            assert table.matching(text) == expected | {everything}
    assert table.matching("ab") == {everything - 1, everything}
