"""Definitions, and who had a name or a description first."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.definitions import (
    DESCRIPTION_REASON,
    NAME_REASON,
    Definition,
    Shadows,
    read_definition,
)
from mcpx.errors import FrameError

LONG = "Reads a file from the project's folder and gives its text."


def tool(description="short", **more):
    return read_definition(json.dumps({"description": description, **more}).encode())


def test_a_definition_is_the_same_however_it_is_written():
    one = read_definition(b'{"name":"a","n":1.0,"x":"\\u0041"}')
    assert one == read_definition(b' {"x" : "A", "n":1,"name":"a"} ')
    assert one == Definition(hashlib.sha256(one.canonical).digest(), one.canonical)


def test_a_definition_too_large_to_keep_is_still_told_apart():
    large = [read_definition(b'{"d":"' + b"x" * 2_000_000 + end + b'"}') for end in (b"1", b"2")]
    assert [definition.canonical for definition in large] == [b"", b""]
    assert large[0].digest != large[1].digest


def test_what_is_no_json_has_no_definition():
    for raw in (b"", b"{", b'{"a":1,"a":2}', b"[" * 600 + b"]" * 600):
        with pytest.raises(FrameError):
            read_definition(raw)


def test_the_later_server_is_told_of_and_not_the_first():
    shadows = Shadows()
    shadows.claim("old", "search", tool(), 1.0)
    shadows.claim("new", "search", tool("other"), 2.0)
    assert shadows.rivals("new", "search", tool()) == [(NAME_REASON, "old")]
    assert shadows.rivals("old", "search", tool()) == []
    assert shadows.rivals("third", "search", tool()) == [(NAME_REASON, "old")]
    assert shadows.rivals("third", "Search", tool()) == []


def test_a_copied_description_is_found_whatever_its_blanks_and_case():
    shadows = Shadows()
    shadows.claim("old", "read", tool(LONG), 1.0)
    copied = tool("  " + LONG.upper().replace(" ", " \n "))
    assert shadows.rivals("new", "fetch", copied) == [(DESCRIPTION_REASON, "old")]
    assert shadows.rivals("old", "fetch", copied) == []


@pytest.mark.parametrize("description", ["Adds two numbers.", "", None, 7, ["x" * 100]])
def test_short_descriptions_and_none_are_nobodys(description):
    shadows = Shadows()
    shadows.claim("old", "a", tool(description), 1.0)
    assert shadows.rivals("new", "b", tool(description)) == []


def test_who_is_dropped_shadows_nothing():
    shadows = Shadows()
    shadows.claim("old", "read", tool(LONG), 1.0)
    shadows.claim("mid", "read", tool(LONG), 2.0)
    shadows.drop("old")
    assert shadows.rivals("new", "read", tool(LONG)) == [
        (NAME_REASON, "mid"),
        (DESCRIPTION_REASON, "mid"),
    ]
    shadows.drop("mid")
    shadows.drop("never there")
    assert shadows.rivals("new", "read", tool(LONG)) == []


CLAIM = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"]), st.integers(0, 3).map(float)
)


@settings(max_examples=200, deadline=None)
@given(claims=st.lists(CLAIM, max_size=8), dropped=st.sets(st.sampled_from("abc")))
def test_of_the_holders_of_a_name_exactly_the_first_is_not_told_of(claims, dropped):
    shadows = Shadows()
    for server, name, since in claims:
        shadows.claim(server, name, tool(), since)
    for server in dropped:
        shadows.drop(server)
    for name in ("x", "y"):
        held = [(since, server) for server, n, since in claims if n == name]
        held = [claim for claim in held if claim[1] not in dropped]
        for server in {server for _, server in held}:
            wanted = [] if server == min(held)[1] else [(NAME_REASON, min(held)[1])]
            assert shadows.rivals(server, name, tool()) == wanted
