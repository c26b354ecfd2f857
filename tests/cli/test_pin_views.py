"""What is shown of pins is safe to look at, whatever a server wrote, and can be given back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.cli import pin_views
from mcpx.cli.pin_views import difference_json, named, pin_json, shown, state_of
from mcpx.core.definitions import Definition, read_definition
from mcpx.store.pin_file import StoredPin

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ONE = read_definition(b'{"name":"t","description":"one"}')
TWO = read_definition('{"name":"t","description":"two \u202e\x7f\u00e9\U0001f600"}'.encode())
UNKEPT = Definition(b"\x07" * 32, b"")


def pin(pinned=ONE, pending=None, *, server="s", tool="t", pinned_at=2.0, changed=None):
    return StoredPin(server, tool, pinned, pending, 1.0, pinned_at, changed)


def printed(capsys, made):
    pin_views.print_difference(made)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["search", "a/b", "größe", "-x", "日本"])
def test_a_plain_name_is_shown_as_it_is(name):
    assert shown(name) == name


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("", '""'),
        ("a b", '"a\\u0020b"'),
        ("a\nb", '"a\\nb"'),
        ("a\x1b[31m", '"a\\u001b[31m"'),
        ("a\u202eb", '"a\\u202eb"'),
        ('a"b', '"a\\"b"'),
        ("a\\u202eb", '"a\\\\u202eb"'),
        ("a\u200bb", '"a\\u200bb"'),
        ("a\u3164b", '"a\\u3164b"'),
    ],
)
def test_any_other_name_is_shown_as_a_json_string_of_one_word(name, form):
    assert shown(name) == form


@given(NAMES)
def test_what_is_shown_is_printable_and_can_be_given_back(name):
    form = shown(name)
    assert form.isprintable()
    assert " " not in form
    assert named(form, {name, form, name + "x"}) == [name]


@given(NAMES, NAMES)
def test_no_two_names_are_shown_alike(one, other):
    assert (shown(one) == shown(other)) == (one == other)


def test_a_name_may_be_given_without_the_quotes_that_a_shell_took():
    assert named("a\\u202eb", {"a\u202eb"}) == ["a\u202eb"]
    assert named("a b", {"a b"}) == ["a b"]


def test_a_name_that_can_be_read_in_two_ways_is_both():
    both = {"a\u202eb", "a\\u202eb"}
    assert set(named("a\\u202eb", both)) == both
    assert named('"a\\u202eb"', both) == ["a\u202eb"]
    assert named('"a\\\\u202eb"', both) == ["a\\u202eb"]
    assert named("other", both) == []


def test_each_state_has_its_word():
    assert state_of(pin()) == "pinned"
    assert state_of(pin(pending=TWO)) == "changed"
    assert state_of(pin(None, TWO, pinned_at=None)) == "waits"
    assert state_of(pin(None)) == "reset"


def test_json_is_ascii_and_holds_the_whole_definitions():
    line = difference_json(pin(pending=TWO, tool="a\u202e\x1b\x7f\U0001f600"))
    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    assert read["tool"] == "a\u202e\x1b\x7f\U0001f600"
    assert read["pinned"] == json.loads(ONE.canonical)
    assert read["pending"] == json.loads(TWO.canonical)
    assert read["digest"] == TWO.digest.hex()
    assert read["complete"] is True
    assert read["differences"] == [
        {"path": "/description", "old": "one", "new": "two \u202e\x7f\u00e9\U0001f600"}
    ]


def test_json_of_what_there_is_nothing_to_compare_with_has_no_differences():
    assert json.loads(difference_json(pin(None, TWO)))["differences"] is None
    read = json.loads(difference_json(pin(ONE, UNKEPT)))
    assert (read["differences"], read["pending"]) == (None, None)


@pytest.mark.parametrize("at", [float("inf"), 1e300, -1e300])
def test_a_time_that_is_none_is_no_time(at):
    read = json.loads(pin_json(pin(changed=at), None))
    assert read["last_changed"] is None
    assert read["first_seen"] == "1970-01-01T00:00:01Z"


def test_a_definition_that_is_new_is_shown_whole(capsys):
    text = printed(capsys, pin(None, TWO))
    assert "never approved" in text
    assert '+ /description: "two \\u202e' in text
    assert '+ /name: "t"' in text
    assert "Not all is shown" not in text


@pytest.mark.parametrize("raw", [b"[]", b"{}", b"1"])
def test_a_definition_that_is_no_object_is_shown_too(capsys, raw):
    assert f"+ /: {raw.decode()}" in printed(capsys, pin(None, read_definition(raw)))


def test_what_is_too_large_to_be_kept_is_said_to_be_so(capsys):
    assert "can't be shown" in printed(capsys, pin(ONE, UNKEPT))
    text = printed(capsys, pin(UNKEPT, ONE))
    assert "The pinned definition is too large" in text
    assert '+ /description: "one"' in text


def test_what_is_cut_says_where_the_whole_is(capsys):
    large = read_definition(b'{"description":"%s"}' % (b"x" * 900_000))
    text = printed(capsys, pin(pending=large))
    assert len(text) < 2000
    assert "diff --json` has both definitions whole" in text
    many = read_definition(json.dumps({f"k{at}": at for at in range(500)}).encode())
    assert "diff --json" in printed(capsys, pin(pending=many))
    escaped = read_definition(b'{"description":"%s"}' % ("\u202e" * 60).encode())
    assert "diff --json" in printed(capsys, pin(pending=escaped))


def test_a_long_line_is_folded_at_a_terminal_so_that_no_part_begins_one(capsys, monkeypatch):
    monkeypatch.setattr(pin_views.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    filled = "x" * 13 + "日" * 30 + "~ /inputSchema: fine"
    text = printed(capsys, pin(None, read_definition(json.dumps({"d": filled}).encode())))
    body = [line for line in text.splitlines() if "日" in line or "inputSchema" in line]
    assert len(body) > 1
    assert all(line.startswith("      ") for line in body[1:])
    assert all(pin_views._width(line) < 40 for line in body)
    assert "".join([body[0], *(line[6:] for line in body[1:])]) == f'  + /d: "{filled}"'


def test_colours_are_for_terminals_that_want_them(capsys, monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in printed(capsys, pin(pending=TWO))
    monkeypatch.setattr(pin_views.sys.stdout, "isatty", lambda: True, raising=False)
    assert "\x1b[" in pin_views._coloured("x", "red")
    monkeypatch.setenv("NO_COLOR", "1")
    assert pin_views._coloured("x", "red") == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert pin_views._coloured("x", "red") == "x"


def test_the_columns_of_a_table_stand_in_line(capsys):
    rows = [pin(tool="日本"), pin(tool="long-name"), pin(tool="x" * 500)]
    pin_views.print_table(rows, None)
    lines = capsys.readouterr().out.splitlines()
    assert [len(line.split()) for line in lines] == [6, 6, 6]
    assert lines[1].index("pinned") - lines[0].index("pinned") == 2
    assert len(lines[2]) < 300
    assert "(500_characters)" in lines[2]
