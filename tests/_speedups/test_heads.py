"""The face of the heads: the specification's names, whichever twin runs."""

import re

from mcpx._speedups import heads, heads_py


def test_the_face_has_the_names_of_the_specification():
    assert sorted(heads.__all__) == sorted(heads_py.__all__)


def test_heads_are_written_whichever_twin_runs():
    fields = heads.forwarded_request_headers([(b"accept", b"a/b"), (b"cookie", b"c")])
    assert heads.request_head("GET", b"/", fields, length=None) == (
        b"GET / HTTP/1.1\r\naccept: a/b\r\n\r\n"
    )
    fields = heads.forwarded_response_headers([(b"allow", b"GET"), (b"set-cookie", b"c")])
    head = heads.response_head(405, fields, length=0, chunked=False, close=True)
    assert head == (
        b"HTTP/1.1 405 Method Not Allowed\r\nallow: GET\r\n"
        b"content-length: 0\r\nconnection: close\r\n\r\n"
    )
    assert heads.after(head + b"more", head) == b"more"


def test_the_grammar_is_for_others_to_build_on():
    assert re.fullmatch(heads.TOKEN, b"x-a") and not re.fullmatch(heads.TOKEN, b"x a")
    assert re.fullmatch(heads.VALUE, b"a\tb\xff") and not re.fullmatch(heads.VALUE, b"a\rb")
    assert b"authorization" in heads.NEVER_FORWARDED
    assert heads.Headers == list[tuple[bytes, bytes]]
