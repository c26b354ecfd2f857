"""The face of canonical JSON: the specification's names, whichever twin runs."""

import hashlib

from mcpx._speedups import canon, canon_py


def test_the_face_has_the_names_of_the_specification():
    assert sorted(canon.__all__) == sorted(canon_py.__all__)


def test_one_value_has_one_text_whichever_twin_runs():
    text = b'{"b": 1.0, "a": "\\u0041"}'
    assert canon.canonical(text) == b'{"a":"A","b":1}'
    assert canon.digest(text) == hashlib.sha256(b'{"a":"A","b":1}').digest()
    assert len(canon.key(text)) == 16
    assert canon.MAX_DEPTH == canon_py.MAX_DEPTH
