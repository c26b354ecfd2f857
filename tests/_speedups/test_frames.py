"""The face of the strict scan: the specification's names, whichever twin runs."""

from mcpx._speedups import frames, frames_py


def test_the_face_has_the_names_of_the_specification():
    assert sorted(frames.__all__) == sorted(frames_py.__all__)


def test_what_the_face_scans_is_a_frame_of_the_face():
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'
    frame = frames.scan(body)
    assert type(frame) is frames.Frame
    assert (frame.kind, frame.method, frame.name) == ("request", "tools/call", "echo")
    assert frames.string(body, frame.name_span) == "echo"
    assert [key for key, _, _ in frames.members(body, frame.params[0])] == ["name"]
    assert frames.elements(b"[1,2]", 0) == [(1, 2), (3, 4)]
