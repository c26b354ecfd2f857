import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.model import ArgumentRule
from mcpx.core.argument_rules import ArgumentRules
from mcpx.core.globs import Glob, GlobSet, fold, parse_glob
from mcpx.core.name_lists import NameLists, ToolEntry, ToolRules


def lists(allow=(), deny=(), *, uris=False):
    return NameLists([*map(parse_glob, allow)], [*map(parse_glob, deny)], uris=uris)


def test_empty_lists_refuse_nothing():
    assert lists().name("x") == ""
    assert lists(uris=True).uri("file:///%" + "25" * 20 + "41") == ""
    assert lists(uris=True).template("file:///{x}") == ""
    assert not lists().given


def test_deny_wins_over_allow():
    both = lists(["a*"], ["ab*"])
    assert both.name("ac") == ""
    assert both.name("abc") == "deny"
    assert both.name("x") == "allow"


def test_a_deny_list_matches_look_alikes_and_an_allow_list_does_not():
    assert lists(deny=["rm_*"]).name("ＲＭ_all") == "deny"
    assert lists(deny=["RM_x"]).name("rm_x") == "deny"
    assert lists(allow=["rm_*"]).name("ＲＭ_all") == "allow"
    assert lists(allow=["rm_*"]).name("rm_all") == ""


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/x", "FILE:///etc/x", "file:///a/../etc/x", "file:///%65tc/x", "file:///ETC/x"],
)
def test_a_denied_uri_is_denied_in_every_spelling(uri):
    assert lists(deny=["file:///etc/*"], uris=True).uri(uri) == "deny"
    assert lists(allow=["*"], deny=["file:///etc/*"], uris=True).uri(uri) == "deny"


def test_an_allowed_uri_must_be_allowed_as_written_and_in_every_reading():
    data = lists(allow=["file:///data/*", "http://good.example*"], uris=True)
    assert data.uri("file:///data/x") == ""
    assert data.uri("file:///data/a%20b") == ""
    assert data.uri("http://good.example/x?y=1#z") == ""
    for uri in (
        "file:///data/../etc/passwd",
        "file:///data/%2e%2e/etc/passwd",
        "FILE:///data/x",
        "file:/data/x",
        "file:///x/../data/y",
        "http://good.example@evil.example/x",
        "file:///data",
    ):
        assert data.uri(uri) == "allow", uri


def test_a_glob_may_itself_be_written_with_escapes_and_capitals():
    data = lists(allow=["file:///my%20docs/*", "HTTP://Host/*"], uris=True)
    assert data.uri("file:///my%20docs/x") == ""
    assert data.uri("HTTP://Host/x") == ""
    assert data.uri("file:///my docs/x") == "allow"


def test_a_uri_without_end_of_readings_can_not_be_judged():
    uri = "file:///data/%" + "25" * 20 + "41"
    assert lists(deny=["x"], uris=True).uri(uri) == "judge"
    assert lists(allow=["*"], uris=True).uri(uri) == "judge"
    assert lists(deny=["x"], uris=True).template(uri + "{x}") == "judge"


@pytest.mark.parametrize(
    ("template", "refused"),
    [
        ("file:///data/{name}", ""),
        ("file:///data/sub/{name}", ""),
        ("file:///{+path}", ""),
        ("{+uri}", ""),
        ("file:///da{x}", ""),
        ("file:///exact.txt{?v}", ""),
        ("file:///exact{ext}", ""),
        ("file:///etc/{name}", "allow"),
        ("file:///data/../etc/{name}", "allow"),
        ("http://{host}/", "allow"),
        ("file:///data/x", ""),
        ("file:///other", "allow"),
        ("file:///data", "allow"),
    ],
)
def test_a_template_passes_if_some_uri_of_it_could_be_allowed(template, refused):
    assert (
        lists(allow=["file:///data/*", "file:///exact.txt"], uris=True).template(template)
        == refused
    )


def test_a_template_is_denied_by_its_text():
    denied = lists(deny=["file:///etc/*"], uris=True)
    assert denied.template("file:///etc/{name}") == "deny"
    assert denied.template("FILE:///ETC/{name}") == "deny"
    assert denied.template("file:///{name}") == ""


def rules(**args):
    return ArgumentRules(msgspec.convert(args, dict[str, ArgumentRule]))


def test_every_entry_that_matches_a_tool_holds_in_order_and_for_look_alikes_too():
    entries = [
        ToolEntry(parse_glob(key), key, rules(a={"equals": "x"}))
        for key in ("*_file", "read_file", "write_file", "READ*")
    ]
    entries.append(ToolEntry(parse_glob("read_*"), "read_*", rules()))
    found = ToolRules(entries)
    assert [key for key, _ in found.of("read_file")] == ["*_file", "read_file", "READ*"]
    assert [key for key, _ in found.of("Read_File")] == ["*_file", "read_file", "READ*"]
    assert [key for key, _ in found.of("write_file")] == ["*_file", "write_file"]
    assert found.of("echo") == ()


some_patterns = st.lists(
    st.lists(st.sampled_from("aAb*?ａ_"), min_size=1, max_size=4).map("".join), max_size=4
)
some_names = st.lists(st.sampled_from("aAbBａ_ "), min_size=1, max_size=4).map("".join)


def either_way(glob, name):
    return GlobSet([glob]).matches(name) or GlobSet([Glob(fold(glob))]).matches(fold(name))


@settings(max_examples=500)
@given(some_patterns, some_names)
def test_a_name_is_denied_by_what_matches_it_written_or_folded(deny, name):
    expected = any(either_way(parse_glob(pattern), name) for pattern in deny)
    assert lists(deny=deny).name(name) == ("deny" if expected else "")


@settings(max_examples=500)
@given(some_patterns.map(lambda some: list(dict.fromkeys(some))), some_names)
def test_a_tool_has_the_rules_of_each_entry_that_matches_it_written_or_folded(keys, name):
    made = ArgumentRules({"a": ArgumentRule(equals=1)})
    table = ToolRules([ToolEntry(parse_glob(key), key, made) for key in keys])
    expected = tuple((key, made) for key in keys if either_way(parse_glob(key), name))
    assert table.of(name) == expected
