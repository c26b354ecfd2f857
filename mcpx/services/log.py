"""The gateway's own log: what an operator reads on standard error.

What it is: two formatters for the standard library's logging, one function that writes
an event with fields, and a limiter for messages that could come with every request.
What it must never do: let a text that came from outside end a line, begin one, or move
the cursor of a terminal; or show a credential. Controls, separators of lines and
characters that turn the direction of writing are written as escapes in every message
and value; a ``Secret`` is ``***`` whatever holds it.

Text is ``key=value``, each value quoted where it needs to be, one line for each message
whatever it contains; a traceback is one value. JSON has the same keys.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from mcpx.config.model import LogConfig
from mcpx.services.json_line import json_line

__all__ = ["JsonFormatter", "Sparingly", "TextFormatter", "configure", "event"]

#: Values are cut here; tracebacks keep their end, which says what went wrong.
MAX_VALUE: Final = 4096
MAX_TRACE: Final = 16_384

_LEVELS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "error",
}
_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "\x1b[36m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
}
_PLAIN: Final = "\x1b[0m"
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
#: What may stand without quotes.
_BARE: Final = re.compile(r"[^\s\"'=\\]+\Z")
_OWN_KEYS: Final = frozenset({"time", "level", "logger", "msg", "error_type", "trace"})


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Write ``message`` with ``fields`` beside it."""
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={"fields": fields}, stacklevel=2)


def configure(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send the program's log to ``stream`` (standard error), as ``config`` says.

    May be called again, with another configuration: its own handler is replaced, those of
    others are left alone. Libraries are heard from ``warning`` on.
    """
    out = sys.stderr if stream is None else stream
    handler = _Handler(out)
    if config.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(colour=config.format == "auto" and _is_terminal(out)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _Handler):
            root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("mcpx").setLevel(config.level.upper())


class TextFormatter(logging.Formatter):
    """``time=… level=… msg="…" key=value``, in colour if asked to."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its newline."""
        level = _LEVELS.get(record.levelno, "info")
        shown = f"{_COLOURS[level]}{level}{_PLAIN}" if self._colour else level
        parts = [f"time={_time(record)}", f"level={shown}", f"msg={_quoted(_message(record))}"]
        parts += [f"{_key(key)}={_quoted(_text(value))}" for key, value in _fields(record).items()]
        return " ".join(parts)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its newline."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": _LEVELS.get(record.levelno, "info"),
            "logger": record.name,
            "msg": _message(record),
        }
        for key, value in _fields(record).items():
            exact = value is None or isinstance(value, bool | float)
            exact = exact or (isinstance(value, int) and abs(value) < 1 << 53)
            line[_key(key)] = value if exact else _text(value)
        return json_line(line)[:-1].decode()


class Sparingly:
    """Says when a message that could come with every request should be written.

    Each key is let through once in ``interval_s``, with the number of times that it was
    held back since. At most ``max_keys`` are known at one time; while none of them has
    run out, all further ones share a single turn, so that at most ``max_keys`` + 1
    messages are written in any interval, whatever the keys are.
    """

    __slots__ = ("_interval_s", "_max_keys", "_others", "_seen")

    def __init__(self, interval_s: float, max_keys: int = 256) -> None:
        self._interval_s = interval_s
        self._max_keys = max_keys
        # When the key was let through, and how often it was held back since. The order is
        # that of the times, so that the first one is the oldest.
        self._seen: dict[str, tuple[float, int]] = {}
        self._others: tuple[float, int] | None = None

    def turn(self, key: str, now: float) -> int | None:
        """``None`` to keep silent; else how many times ``key`` was held back since its last turn."""
        seen = self._seen
        entry = seen.get(key)
        if entry is not None:
            at, held = entry
            if now - at < self._interval_s:
                seen[key] = (at, held + 1)
                return None
            del seen[key]
            seen[key] = (now, 0)
            return held
        if len(seen) >= self._max_keys:
            oldest = next(iter(seen), None)
            if oldest is None or now - seen[oldest][0] < self._interval_s:
                return self._turn_of_others(now)
            del seen[oldest]
        seen[key] = (now, 0)
        return 0

    def _turn_of_others(self, now: float) -> int | None:
        at, held = self._others or (now - self._interval_s, 0)
        if now - at < self._interval_s:
            self._others = (at, held + 1)
            return None
        self._others = (now, 0)
        return held


class _Handler(logging.StreamHandler[TextIO]):
    """A stream that may be gone: the gateway goes on without its log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop what can't be written: there is nowhere left to say so."""


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:
        # The message and its arguments don't fit: show what there is.
        text = str(record.msg)
    return _text(text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = getattr(record, "fields", None)
    fields: dict[str, Any] = {}
    if isinstance(given, dict):
        for key, value in given.items():
            name = str(key)
            fields[name + "_" if name in _OWN_KEYS else name] = value
    if record.exc_info and record.exc_info[0] is not None:
        fields["error_type"] = record.exc_info[0].__name__
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        fields["trace"] = _Trace(trace[-MAX_TRACE:])
    return fields


class _Trace(str):
    """A traceback, which may be longer than other values."""

    __slots__ = ()


def _text(value: object) -> str:
    """A value's text, cut to a size that a reader can bear."""
    if isinstance(value, _Trace):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("utf-8", "backslashreplace")
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _key(key: str) -> str:
    return key if key.isidentifier() else re.sub(r"\W", "_", key) or "_"


def _quoted(text: str) -> str:
    if _BARE.match(text) and not _UNSAFE.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _UNSAFE.sub(_escape, escaped) + '"'


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
