"""Spans of time as Go writes them: ``"30s"``, ``"1h30m"``, ``"1.5s"``, ``"250ms"``.

The grammar is the one of Go's ``time.ParseDuration`` and nothing beside it::

    duration = [ "+" | "-" ] ( "0" | part { part } )
    part     = ( digits [ "." [ digits ] ] | "." digits ) unit
    unit     = "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h"

Units may come in any order and more than once, as they may in Go. Arithmetic is in
whole nanoseconds, so that ``"0.1s"`` is what it says; what is smaller is cut off. A
duration beyond 2**63 - 1 nanoseconds (some 292 years) is refused, also as in Go.

A sign is understood here, because the text is a duration all the same; which
settings may be negative (none) is for ``validate.py`` to say.
"""

from __future__ import annotations

import re
from typing import Final

from mcpx.config.faults import quote

__all__ = ["DurationError", "format_duration", "parse_duration"]

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # MICRO SIGN
    "\u03bcs": 1_000,  # GREEK SMALL LETTER MU
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LARGEST: Final = 2**63 - 1
_LONGEST: Final = 64  # characters; no duration needs so many, and errors quote the text
_PART: Final = re.compile(r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))([^0-9.+\-]*)")


class DurationError(ValueError):
    """A text that is no duration. The message says why, in words for its author."""


def parse_duration(text: str) -> float:
    """The seconds that ``text`` stands for, negative where it has a minus.

    Raises ``DurationError``.
    """
    if len(text) > _LONGEST:
        raise DurationError("is too long for a duration; write something like 30s or 1h30m")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    if not rest:
        raise DurationError(f"{quote(text)} is no duration; write something like 30s, 2m or 1h30m")
    total = 0
    position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            raise DurationError(
                f"{quote(text)} is no duration: {quote(rest[position:])} is not a number with a unit; "
                "write something like 30s, 2m or 1h30m"
            )
        whole, fraction, bare_fraction, unit = part.groups()
        if not unit:
            raise DurationError(
                f"{quote(text)} has no unit after {part[0]}; write {part[0]}s, or ms, m, h"
            )
        scale = _NANOSECONDS.get(unit)
        if scale is None:
            raise DurationError(
                f"{quote(text)} has the unknown unit {quote(unit)}; units are {_units()}"
            )
        total += int(whole or "0") * scale
        digits = fraction or bare_fraction or ""
        if digits:
            total += int(digits) * scale // 10 ** len(digits)
        position = part.end()
    if total > _LARGEST:
        raise DurationError(f"{quote(text)} is longer than 292 years")
    seconds = total / 1e9
    return -seconds if text[0] == "-" else seconds


def format_duration(seconds: float) -> str:
    """``seconds`` as a duration that ``parse_duration`` reads back: ``"1h30m"``, ``"250ms"``."""
    sign = "-" if seconds < 0 else ""
    nanoseconds = round(abs(seconds) * 1e9)
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _NANOSECONDS["s"]:
        for unit in ("ms", "us"):
            if nanoseconds % _NANOSECONDS[unit] == 0:
                return f"{sign}{nanoseconds // _NANOSECONDS[unit]}{unit}"
        return f"{sign}{nanoseconds}ns"
    hours, nanoseconds = divmod(nanoseconds, _NANOSECONDS["h"])
    minutes, nanoseconds = divmod(nanoseconds, _NANOSECONDS["m"])
    whole, nanoseconds = divmod(nanoseconds, _NANOSECONDS["s"])
    parts = [f"{hours}h"] if hours else []
    if minutes:
        parts.append(f"{minutes}m")
    if nanoseconds:
        parts.append(f"{whole}.{nanoseconds:09d}".rstrip("0") + "s")
    elif whole:
        parts.append(f"{whole}s")
    return sign + "".join(parts)


def _units() -> str:
    return ", ".join(unit for unit in _NANOSECONDS if unit.isascii())
