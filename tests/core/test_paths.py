import os.path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.core.globs import GlobFault, GlobSet, parse_glob
from mcpx.core.paths import (
    LONGEST_PATH,
    PathFault,
    _within_however_read,
    glob_readings,
    path_within,
    path_within_root,
    readings,
)

DATA = (path_within_root("/data"),)


@pytest.mark.parametrize(
    "path",
    [
        "/data",
        "/data/",
        "/data/x",
        "/data//x",
        "/data/./x",
        "/data/a/../b",
        "/etc/../data/x",
        "/data/~root",
        "/data/a b",
        "/data/ä",
        "/data/a%20b",
        "/data/100%",
        "/data/..x",
        "/data/...",
        "/../data/x",
        "//data/x",
    ],
)
def test_what_lies_within_is_admitted(path):
    assert path_within(path, DATA)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "data/x",
        "~/data/x",
        "/database",
        "/data.txt",
        "/DATA/x",
        "/data/..",
        "/data/../etc/passwd",
        "/data/../../data/../etc",
        "/data/./../etc",
        "/data//../etc",
        "/data/a/../../etc",
        "/data/..\\etc",
        "\\data\\x",
        "/data/x\x00",
        "/data/x\n",
        "/data/\x85x",
        "/data/%2e%2e/etc",
        "/data/%2E./etc",
        "/data/..%2fetc",
        "/data/..%5cetc",
        "/data/%252e%252e/etc",
        "/data/%25252e%25252e/etc",
        "/data/x%00",
        "/data/%c0%ae%c0%ae/etc",
        "%2fdata/x",
        "/data/．．/etc",
        "/data/․․/etc",
        "/data/‥/etc",
        "/data／../etc",
        "/data/..／etc",
        "/data/％2e％2e/etc",
        "/data/%EF%BC%8E%EF%BC%8E/etc",
        "/data/％EF％BC％8E％EF％BC％8E/etc",
        "/data/..＼etc",
        "/data/\ud800",
        "file:///data/x",
    ],
)
def test_what_could_be_read_as_lying_outside_is_not(path):
    assert not path_within(path, DATA)


def test_a_path_encoded_more_often_than_is_looked_at_is_refused():
    text = "%41"
    for _ in range(20):
        text = text.replace("%", "%25")
    assert not path_within("/data/" + text, DATA)


def test_a_path_longer_than_any_system_takes_is_refused():
    assert path_within("/data/" + "x" * (LONGEST_PATH - 6), DATA)
    assert not path_within("/data/" + "x" * (LONGEST_PATH - 5), DATA)


def test_a_heap_of_combining_marks_is_refused():
    assert not path_within("/data/" + "\u0300\u0327" * 1_000, DATA)
    assert not path_within("/data/" + "%CC%80" * 500, DATA)


def test_any_of_several_folders_will_do():
    roots = (path_within_root("/a"), path_within_root("/b/c/"))
    assert path_within("/a/x", roots)
    assert path_within("/b/c", roots)
    assert not path_within("/b/x", roots)
    assert not path_within("/a/x/../../b", roots)


def test_the_root_folder_holds_every_absolute_path():
    roots = (path_within_root("/"),)
    assert path_within("/", roots)
    assert path_within("/../etc", roots)
    assert not path_within("etc", roots)


@pytest.mark.parametrize(
    ("folder", "root"),
    [("/data", "/data/"), ("/data/", "/data/"), ("//a/./b/../c", "/a/c/"), ("/", "/")],
)
def test_a_root_is_resolved(folder, root):
    assert path_within_root(folder) == root


@pytest.mark.parametrize(
    "folder",
    ["", "data", "~", "/a\\b", "/a\x00", "/a%20b", "/．", "/a\u0308", "/" + "x" * 5000,
     "/\ud800"],
)  # fmt: skip
def test_a_root_that_reads_in_two_ways_is_refused(folder):
    with pytest.raises(PathFault):
        path_within_root(folder)


pieces = st.sampled_from(
    ["/", ".", "..", "//", "/../", "data", "database", "%2e", "%2f", "%25", "2e", "．", "／", "etc",
     "\\", "~", "%5c", "%", "\x00", "…"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(pieces, max_size=10).map("".join))
def test_what_the_system_would_place_outside_is_never_admitted(tail):
    for path in (tail, "/data" + tail, "/data/" + tail):
        if path_within(path, DATA):
            text = path
            for _ in range(4):
                placed = os.path.normpath(text).replace("//", "/", 1)
                assert placed == "/data" or placed.startswith("/data/"), (path, text)
                text = unquote(text)


def covers(denied, uri):
    found = readings(uri)
    return found is None or any(map(GlobSet(glob_readings(parse_glob(denied))).matches, found))


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file:///data/../etc/passwd",
        "file:///%65tc/passwd",
        "file:///%2565tc/passwd",
        "file:///data/%2e%2e/etc/passwd",
        "file:///data/..%2fetc/passwd",
        "file:///data/..\\etc\\passwd",
        "file:\\\\\\etc\\passwd",
        "file:////etc/passwd",
        "file:///./etc//passwd",
        "file:/etc/passwd",
        "file:etc/passwd",
        "file://localhost/etc/passwd",
        "file://LOCALHOST/etc/passwd",
        "FILE:///etc/passwd",
        " file:///etc/passwd",
        "file:///data?x/../../etc/passwd",
        "file:///data%3Fx/../../etc/passwd",
        "file:///data#x/../../etc/passwd",
        "file%3A///etc/passwd",
    ],
)
def test_every_spelling_of_a_file_reads_as_the_file(uri):
    assert covers("file:///etc/*", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://h.example/secret",
        "HTTP://H.EXAMPLE/secret",
        "http://user:pw@h.example/secret",
        "http://h.example:80/secret",
        "http://h.example./secret",
        "http://h.example:/secret",
        "http:/h.example/secret",
        "http:h.example/secret",
        "http:\\\\h.example\\secret",
        "http:///h.example/secret",
        "http://ｈ.example/secret",
        "http://h.example/secret?x=/../../public",
        "http://h.example/%73ecret?x=/../../public",
        "http://h.example/a%3Fx/../secret",
        "http://h.example/a?b/../secret",
    ],
)
def test_every_spelling_of_a_page_reads_as_the_page(uri):
    assert covers("http://h.example/secret*", uri)


def test_what_follows_an_unknown_scheme_is_read_as_a_host_and_as_a_path():
    assert covers("note://secret", "note://a/../secret")
    assert covers("note:secret", "note:a/../secret")
    assert covers("note://secret/x", "NOTE://secret/./x")


def test_case_in_a_path_counts_and_case_in_a_host_does_not():
    assert not covers("http://h/secret", "http://h/Secret")
    assert covers("http://h/secret", "http://H/secret")


def test_a_plain_uri_has_one_reading():
    for uri in ("file:///data/x", "http://h.example/a/b", "urn:isbn:123", "note://a/b", "x"):
        assert readings(uri) == (uri,)


@pytest.mark.parametrize(
    "uri",
    ["file:///a%0ab", "file:///a%00", "file:///%ff", "http://" + "h" * 600 + "/",
     "file:///" + "%CC%80" * 40, "file:///" + "%" + "25" * 12 + "41"],
)  # fmt: skip
def test_there_is_no_end_to_what_can_not_be_read(uri):
    assert readings(uri) is None


uris = st.lists(
    st.sampled_from(
        ["file:", "http:", "note:", "/", "//", "..", ".", "a", "B", "?", "#", "%2e", "%2f", "%25",
         "%3F", "@", ":80", "\\", "localhost", "Ａ", " ", "%41", "{x}"]
    ),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(uris)
def test_the_readings_of_a_reading_are_readings(uri):
    found = readings(uri)
    if found is None:
        return
    assert found[0] == uri
    for reading in found:
        again = readings(reading)
        assert again is not None
        assert set(again) <= set(found)


@given(st.text(alphabet=st.characters(), max_size=30))
def test_no_text_raises(text):
    found = readings(text)
    assert found is None or text in found
    path_within("/" + text, DATA)


def test_a_glob_of_uris_is_read_with_its_wildcards_kept():
    assert GlobSet(glob_readings(parse_glob("FILE:///a%20b/../c/*"))).matches("file:///c/x")


def test_a_wildcard_does_not_come_out_of_an_escape():
    with pytest.raises(GlobFault):
        glob_readings(parse_glob("file:///%EF%B7%90"))
    found = GlobSet(glob_readings(parse_glob("file:///a%2A")))
    assert found.matches("file:///a*")
    assert not found.matches("file:///abc")


def test_a_glob_that_is_encoded_without_end_is_refused():
    with pytest.raises(GlobFault):
        glob_readings(parse_glob("file:///%" + "25" * 12 + "41"))


@settings(max_examples=1500)
@given(
    st.lists(
        st.sampled_from(["/", "data", "a", ".", "..", "//", "%2e", "%", "\\", "~", " ", "\x7f", "\n",
                         "é", "．", "x.y", ".x", "[", "]", "-", "$", "&"]), max_size=8
    ).map("".join)
    | st.text(alphabet=[chr(code) for code in range(130)], max_size=6).map("/data/".__add__),
    st.sampled_from([("/",), ("/data/",), ("/data/a/", "/a/")]),
)  # fmt: skip
def test_a_plain_path_is_judged_as_it_would_be_in_every_reading(value, roots):
    assert path_within(value, roots) == _within_however_read(value, roots)


def test_every_ascii_character_in_every_place_is_judged_as_in_every_reading():
    for character in map(chr, range(129)):
        for place in ("{}", "/{}", "/data{}", "/data/{}", "/data/x{}y", "/data/{}/x", "/data/x{}"):
            value = place.format(character)
            for roots in (("/",), ("/data/",)):
                assert path_within(value, roots) == _within_however_read(value, roots), value
