import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.services.json_line import json_line


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.text(st.characters(exclude_categories=["Cs"])),
    )
)
@settings(max_examples=300)
def test_a_line_reads_back_as_what_was_written_and_has_one_newline(members):
    line = json_line(members)
    assert json.loads(line) == members
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1


@pytest.mark.parametrize(
    "character",
    [
        "\n",
        "\r",
        "\x00",
        "\x1b",
        "\x7f",
        "\x85",
        "\x9b",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u2066",
        "\u200f",
        "\ufeff",
    ],
)
def test_a_character_that_could_pass_for_layout_is_escaped(character):
    line = json_line({"msg": f"a{character}b"})
    assert character.encode() not in line[:-1]
    assert json.loads(line)["msg"] == f"a{character}b"


def test_other_characters_stay_as_they_are():
    assert json_line({"msg": "Grüße, 世界 … –"}) == '{"msg":"Grüße, 世界 … –"}\n'.encode()


def test_a_lone_surrogate_becomes_the_text_of_its_escape():
    assert json.loads(json_line({"tool": "a\ud800", "status": 1})) == {
        "tool": "a\\ud800",
        "status": 1,
    }
