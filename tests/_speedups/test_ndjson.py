"""The face of line framing: the specification's names, whichever twin runs."""

from mcpx._speedups import ndjson, ndjson_py


def test_the_face_has_the_names_of_the_specification():
    assert sorted(ndjson.__all__) == sorted(ndjson_py.__all__)


def test_lines_are_cut_whichever_twin_runs():
    parser = ndjson.LineParser(100)
    assert parser.feed(b'{"a":1}\r\n\n{"b"') == [b'{"a":1}']
    assert parser.held == 4
    assert parser.feed(b":2}\n3") == [b'{"b":2}']
    assert parser.end() == b"3"
