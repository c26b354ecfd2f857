import hashlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.services.audit_record import (
    LONGEST_REMEMBERED,
    MAX_TEXT,
    MOST_REMEMBERED,
    AuditRecord,
    Lines,
    lost_line,
    timestamp,
)


class Masking:
    """Replaces one secret wherever it is."""

    def __init__(self, secret="hunter2"):
        self.secret = secret

    def arguments(self, tool, raw):
        return json.loads(self.text(raw.decode()))

    def text(self, text):
        return text.replace(self.secret, "***")


class Broken:
    def arguments(self, tool, raw):
        raise RuntimeError("hunter2")

    def text(self, text):
        raise RuntimeError("hunter2")


def record(**fields):
    return AuditRecord(**{"time": 1_700_000_000.1239, **fields})


def line_of(one, redactor):
    return Lines(redactor).line(one)


def parsed(one, redactor=None):
    return json.loads(line_of(one, redactor))


def test_a_full_record_has_every_key_in_its_place():
    line = parsed(
        record(
            server="files",
            method="tools/call",
            tool="read",
            client="alice",
            client_ip="10.0.0.1",
            session=b"sealed",
            request_id="r1",
            reason="because",
            rule="deny_tools",
            status=200,
            outcome="ok",
            duration_s=0.0123456,
            arguments=b'{"path":"/x"}',
        ),
        Masking(),
    )
    assert line == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "INFO",
        "msg": "mcp.request",
        "server": "files",
        "method": "tools/call",
        "tool": "read",
        "allowed": True,
        "decision": "allow",
        "client": "alice",
        "client_ip": "10.0.0.1",
        "session": hashlib.sha256(b"sealed").hexdigest()[:8],
        "request_id": "r1",
        "reason": "because",
        "rule": "deny_tools",
        "status": 200,
        "outcome": "ok",
        "duration_ms": 12.346,
        "arguments": {"path": "/x"},
    }


def test_what_is_absent_is_left_out():
    assert set(parsed(record())) == {
        "time", "level", "msg", "server", "method", "allowed", "decision",
        "request_id", "status", "outcome", "duration_ms",
    }  # fmt: skip


def test_an_exchange_without_a_message_is_told_by_its_http_method():
    assert parsed(record(http_method="DELETE"))["method"] == "DELETE"
    assert parsed(record(http_method="POST", method="ping"))["method"] == "ping"


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"outcome": "ok", "status": 200}, "INFO"),
        ({"outcome": "ok", "status": 202}, "INFO"),
        ({"allowed": False, "outcome": "denied", "status": 403}, "WARN"),
        ({"outcome": "tool_error", "status": 200}, "WARN"),
        ({"outcome": "timeout", "status": 504}, "WARN"),
        ({"outcome": "ok", "status": 404}, "WARN"),
    ],
)
def test_what_was_denied_or_failed_is_a_warning(fields, level):
    line = parsed(record(**fields))
    assert line["level"] == level
    assert line["decision"] == ("allow" if fields.get("allowed", True) else "deny")


def test_a_session_id_never_reaches_the_log():
    secret = b"0123456789abcdef0123456789abcdef"
    for session in (secret, secret.decode()):
        assert secret not in line_of(record(session=session), None)
        assert len(parsed(record(session=session))["session"]) == 8


def test_arguments_are_written_only_through_a_redactor():
    one = record(tool="t", arguments=b'{"password":"hunter2"}')
    assert "arguments" not in parsed(one)
    assert parsed(one, Masking())["arguments"] == {"password": "***"}


def test_names_and_reasons_go_through_the_redactor_as_well():
    line = line_of(record(tool="x-hunter2", reason="hunter2 is no", rule="hunter2"), Masking())
    assert b"hunter2" not in line


def test_a_redactor_that_fails_hides_everything_and_loses_no_line():
    one = record(tool="t-hunter2", reason="hunter2", arguments=b'{"a":"hunter2"}', request_id="r9")
    line = line_of(one, Broken())
    assert b"hunter2" not in line
    assert json.loads(line)["arguments"] == "***"
    assert json.loads(line)["request_id"] == "r9"


def test_arguments_that_have_no_json_form_are_masked():
    class Odd(Masking):
        def arguments(self, tool, raw):
            return object()

    assert parsed(record(arguments=b"{}"), Odd())["arguments"] == "***"


def test_a_record_that_can_not_be_encoded_leaves_a_line_with_its_request_id():
    one = record(request_id="r7")
    one.time = float("nan")
    line = parsed(one)
    assert (line["msg"], line["request_id"]) == ("audit.unwritable", "r7")


def test_long_names_are_cut():
    line = parsed(record(tool="x" * 100_000, method="m" * 100_000))
    assert len(line["tool"]) == MAX_TEXT + 1
    assert len(line["method"]) == MAX_TEXT + 1


def test_the_bytes_of_a_line_are_these():
    one = record(
        server="files",
        method="tools/call",
        tool="read",
        client="alice",
        client_ip="::1",
        session=b"sealed",
        request_id="a/b+c=",
        allowed=False,
        reason='no "\u202e" Grüße\n\x7f',
        rule="deny_tools",
        status=403,
        outcome="denied",
        duration_s=0.0005,
        cache="miss",
        arguments=b'{"a":[1.5,null,"\xe2\x80\xa8"]}',
    )
    expected = (
        '{"time":"2023-11-14T22:13:20.123Z","level":"WARN","msg":"mcp.request","server":"files",'
        '"method":"tools/call","tool":"read","allowed":false,"decision":"deny","client":"alice",'
        f'"client_ip":"::1","session":"{hashlib.sha256(b"sealed").hexdigest()[:8]}",'
        '"request_id":"a/b+c=","reason":"no \\"\\u202e\\" Grüße\\n\\u007f","rule":"deny_tools",'
        '"status":403,"outcome":"denied","duration_ms":0.5,"cache":"miss",'
        '"arguments":{"a":[1.5,null,"\\u2028"]}}\n'
    ).encode()
    lines = Lines(Masking())
    # The second is made from what is remembered of the first.
    assert [lines.line(one), lines.line(one)] == [expected, expected]


def test_a_finding_about_a_tool_is_no_request():
    assert parsed(record(outcome="integrity_changed"))["msg"] == "mcp.integrity"


class Counting(Masking):
    """Counts what it is asked."""

    asked = 0

    def text(self, text):
        self.asked += 1
        return super().text(text)


def test_a_text_that_comes_again_is_redacted_once():
    redactor = Counting()
    lines = Lines(redactor)
    one = record(tool="x-hunter2", target="hunter2", reason="hunter2 is no", rule="a hunter2")
    first = lines.line(one)
    assert b"hunter2" not in first
    assert [lines.line(one) for _ in range(5)] == [first] * 5
    assert redactor.asked == 4


def test_the_same_text_is_shown_or_not_by_what_it_is():
    lines = Lines(Masking())
    own = record(outcome="unauthorized", reason="hunter2", allowed=False)
    others = record(outcome="denied", reason="hunter2", allowed=False)
    shown = [json.loads(lines.line(one))["reason"] for one in (own, others, own)]
    assert shown == ["hunter2", "***", "hunter2"]


def test_what_is_remembered_is_bounded():
    lines = Lines(Masking())
    for n in range(MOST_REMEMBERED * 2 + 5):
        lines.line(record(tool=f"t{n}", session=b"s%d" % n))
    assert len(lines._texts) == len(lines._digests) == 5
    lines.line(record(tool="x" * (LONGEST_REMEMBERED + 1), session=b"x" * (LONGEST_REMEMBERED + 1)))
    assert len(lines._texts) == len(lines._digests) == 5


def test_sessions_are_told_apart_by_what_they_are():
    lines = Lines(None)
    digests = [
        json.loads(lines.line(record(session=session)))["session"]
        for session in (b"a", b"b", b"a", "a", b"x" * 1000)
    ]
    assert digests == [
        hashlib.sha256(raw).hexdigest()[:8] for raw in (b"a", b"b", b"a", b"a", b"x" * 1000)
    ]


def test_time_goes_on_between_the_lines():
    lines = Lines(None)
    times = [1.0, 1.0004, 1.0015, 2.0, 1.0]
    shown = [json.loads(lines.line(record(time=time)))["time"][17:] for time in times]
    assert shown == ["01.000Z", "01.000Z", "01.001Z", "02.000Z", "01.000Z"]


texts = st.text() | st.text(alphabet='\n\r\x1b\x85\u2028\u202e\ud800"\\a')


@given(texts, texts, texts, st.binary(), st.booleans())
@settings(max_examples=300)
def test_any_record_gives_one_line_of_json(tool, reason, client, session, allowed):
    line = line_of(
        record(tool=tool, reason=reason, client=client, session=session, allowed=allowed), Masking()
    )
    assert line.endswith(b"\n")
    assert len(line.decode("utf-8").splitlines()) == 1
    assert msgspec.json.decode(line)["msg"] == "mcp.request"
    assert not any(ord(character) < 0x20 for character in line[:-1].decode())


def test_times_are_utc_with_milliseconds():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_700_000_000.9999) == "2023-11-14T22:13:20.999Z"


def test_lost_records_are_told_by_their_count():
    assert json.loads(lost_line(3, 0)) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "WARN",
        "msg": "audit.lost",
        "count": 3,
    }


def test_the_weight_of_a_record_follows_what_a_client_can_make_large():
    assert record(arguments=b"x" * 5000).weight() >= record().weight() + 5000
    assert record(tool="x" * 5000).weight() >= record().weight() + 5000
    assert record(method="x" * 5000).weight() >= record().weight() + 5000
