import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpx.config.model import LogConfig
from mcpx.secret import Secret
from mcpx.services.log import (
    MAX_VALUE,
    JsonFormatter,
    Sparingly,
    TextFormatter,
    configure,
    event,
)


@pytest.fixture
def restored():
    root, mine = logging.getLogger(), logging.getLogger("mcpx")
    handlers, level = root.handlers[:], mine.level
    yield
    root.handlers[:] = handlers
    mine.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def made(message="m", fields=None, **more):
    record = logging.makeLogRecord(
        {"msg": message, "levelno": logging.INFO, "created": 0.5, "name": "mcpx.x", **more}
    )
    if fields is not None:
        record.fields = fields
    return record


def text(*args, **more):
    return TextFormatter().format(made(*args, **more))


def parsed(*args, **more):
    return json.loads(JsonFormatter().format(made(*args, **more)))


def unlogfmt(line):
    """Reads key=value as a reader of logs does: quotes and backslashes, nothing else."""
    pairs, at = {}, 0
    while at < len(line):
        key, _, rest = line[at:].partition("=")
        at += len(key) + 1
        if rest.startswith('"'):
            end, value = 1, ""
            while rest[end] != '"':
                if rest[end] == "\\":
                    value += rest[end : end + 2]
                    end += 2
                else:
                    value += rest[end]
                    end += 1
            at += end + 1
        else:
            value = rest.split(" ", 1)[0]
            at += len(value)
        assert key not in pairs
        pairs[key] = value
        assert line[at : at + 1] in ("", " ")
        at += 1
    return pairs


def test_a_message_and_its_fields_make_one_line():
    assert text("ready", {"listen": "127.0.0.1:8080", "servers": 3, "path": "/a b"}) == (
        'time=1970-01-01T00:00:00.500Z level=info msg=ready listen=127.0.0.1:8080 servers=3 path="/a b"'
    )


def test_json_has_the_same_keys_and_keeps_numbers():
    assert parsed("ready", {"servers": 3, "ok": True, "load": 0.5, "none": None}) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "mcpx.x",
        "msg": "ready",
        "servers": 3,
        "ok": True,
        "load": 0.5,
        "none": None,
    }


def test_arguments_of_a_message_are_put_in():
    assert parsed("%d servers", args=(3,))["msg"] == "3 servers"
    assert parsed("%d servers", args=("x",))["msg"] == "%d servers"


def test_a_secret_is_three_stars_wherever_it_is():
    fields = {
        "token": Secret("hunter2"),
        "list": [Secret("hunter2")],
        "map": {"a": Secret("hunter2")},
    }
    for line in (
        text("%s", fields, args=(Secret("hunter2"),)),
        JsonFormatter().format(made("m", fields)),
    ):
        assert "hunter2" not in line
        assert "***" in line


@given(
    st.text(),
    st.dictionaries(st.text(), st.text() | st.integers() | st.floats() | st.binary() | st.none()),
)
@settings(max_examples=300)
def test_nothing_that_is_logged_can_end_its_line_or_pass_for_another_field(message, fields):
    line = text(message, fields)
    assert len(line.splitlines()) == 1
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in line)
    line.encode()
    line = JsonFormatter().format(made(message, fields))
    assert len(line.splitlines()) == 1
    assert json.loads(line)["level"] == "info"


@given(st.text(alphabet='a"\\ =\n\x1b\u2028'), st.text(alphabet='a"\\ =\n'))
@settings(max_examples=300)
def test_a_value_never_ends_before_its_own_quote(message, value):
    pairs = unlogfmt(text(message, {"value": value}))
    assert list(pairs) == ["time", "level", "msg", "value"]


def test_a_terminal_sees_escapes_as_text():
    assert text("\x1b[2J") == 'time=1970-01-01T00:00:00.500Z level=info msg="\\x1b[2J"'


def test_a_field_can_not_replace_a_key_of_the_log():
    line = parsed("m", {"msg": "x", "level": "error", "time": 0})
    assert (line["msg"], line["level"], line["msg_"], line["level_"]) == ("m", "info", "x", "error")


def test_long_values_are_cut():
    assert len(parsed("m", {"x": "y" * 100_000})["x"]) == MAX_VALUE + 1


def test_a_traceback_is_one_value():
    try:
        raise ValueError("bad\nthing")
    except ValueError as exc:
        info = (ValueError, exc, exc.__traceback__)
    line = text("failed", exc_info=info)
    assert "error_type=ValueError" in line
    assert len(line.splitlines()) == 1
    assert parsed("failed", exc_info=info)["trace"].endswith("ValueError: bad\nthing")


def test_configuring_shows_what_is_severe_enough(restored):
    out = io.StringIO()
    configure(LogConfig(level="warning"), out)
    log = logging.getLogger("mcpx.some")
    event(log, logging.INFO, "no", a=1)
    event(log, logging.WARNING, "yes", a=1)
    logging.getLogger("a.library").info("no")
    logging.getLogger("a.library").warning("library")
    lines = out.getvalue().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "level=warning msg=yes a=1",
        "level=warning msg=library",
    ]


def test_configuring_again_replaces_the_stream_and_the_form(restored):
    first, second = io.StringIO(), io.StringIO()
    configure(LogConfig(), first)
    configure(LogConfig(format="json", level="debug"), second)
    logging.getLogger("mcpx").debug("x", extra={"fields": {"a": 1}})
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["a"] == 1


def test_only_a_terminal_gets_colours_and_only_by_default(restored):
    for stream, form, coloured in (
        (Terminal(), "auto", True), (Terminal(), "text", False), (io.StringIO(), "auto", False),
    ):  # fmt: skip
        configure(LogConfig(format=form), stream)
        logging.getLogger("mcpx").error("x")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_a_stream_that_is_gone_does_not_stop_the_program(restored):
    stream = io.StringIO()
    configure(LogConfig(), stream)
    stream.close()
    logging.getLogger("mcpx").error("x")


def test_a_repeated_message_is_let_through_once_an_interval_with_the_count():
    sparingly = Sparingly(10.0)
    assert sparingly.turn("a", 0.0) == 0
    assert [sparingly.turn("a", t) for t in (1.0, 5.0, 9.9)] == [None, None, None]
    assert sparingly.turn("b", 5.0) == 0
    assert sparingly.turn("a", 10.0) == 3
    assert sparingly.turn("a", 11.0) is None
    assert sparingly.turn("a", 20.0) == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 2)), max_size=200))
@settings(max_examples=100)
def test_however_many_keys_there_are_the_lines_of_an_interval_are_bounded(asked):
    sparingly, now, shown = Sparingly(10.0, max_keys=4), 0.0, []
    for key, step in asked:
        now += step
        if sparingly.turn(str(key), now) is not None:
            shown.append(now)
    for at in shown:
        assert sum(1 for other in shown if at <= other < at + 9.999) <= 4 + 1
    assert len(sparingly._seen) <= 4


def test_when_there_are_too_many_keys_the_rest_share_one_turn():
    sparingly = Sparingly(10.0, max_keys=2)
    assert [sparingly.turn(key, 0.0) for key in "abcde"] == [0, 0, 0, None, None]
    assert sparingly.turn("f", 5.0) is None
    assert sparingly.turn("a", 10.0) == 0
