"""What is wrong with a configuration, and how that is said.

A ``Fault`` is found by whoever understands the value; where its place in the file is,
only the reader of the file knows. So faults carry a path, and ``render`` joins both:
``mcpx.yaml:9:7: servers[1].policy.alow_tools: unknown key; did you mean allow_tools?``

Nothing here may show a credential: messages are written by code that knows whether
the value may be shown.
"""

from __future__ import annotations

import difflib
import json
import operator
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

__all__ = [
    "MOST_PROBLEMS",
    "Fault",
    "Faulty",
    "Mark",
    "Path",
    "nearest",
    "path_text",
    "quote",
    "render",
    "render_all",
]

Path = tuple[str | int, ...]

MOST_PROBLEMS: Final = 50
"""Problems told at one time; nobody mends more before trying again."""

_LONGEST_SHOWN: Final = 60
_MOST_COMPARED: Final = 200  # known words; comparing is slow, and a guess may be missing
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Mark(NamedTuple):
    """A place in the file. Both count from 1, columns in characters."""

    line: int
    column: int


class Fault(NamedTuple):
    """One problem. ``at_key`` says that the key itself is wrong, not its value."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False


class Faulty(ValueError):
    """Faults on their way to the one who knows where they are in the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(render(fault, "", None) for fault in self.faults))


def quote(text: str) -> str:
    """``text`` in double quotes on one line, cut where it is long, for use in a message."""
    shown = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    quoted = json.dumps(shown, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in quoted)


def path_text(path: Path) -> str:
    """``("servers", 1, "policy")`` as ``servers[1].policy``; odd names are quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and len(step) <= _LONGEST_SHOWN and _PLAIN.issuperset(step):
            text += f".{step}" if text else step
        else:
            text += f"[{quote(step)}]"
    return text


def render(fault: Fault, filename: str, mark: Mark | None) -> str:
    """``fault`` as one finished line."""
    place = (
        f"{filename}:{mark.line}:{mark.column}: " if mark else f"{filename}: " if filename else ""
    )
    path = path_text(fault.path)
    where = f"{path}: " if path else ""
    hint = f"; {fault.hint}" if fault.hint else ""
    return f"{place}{where}{fault.message}{hint}"


def render_all(placed: Iterable[tuple[Mark, Fault]], filename: str) -> list[str]:
    """Every fault once, in the order of the file, and no more than a person reads."""
    ordered = sorted(placed, key=operator.itemgetter(0))
    lines = list(dict.fromkeys(render(fault, filename, mark) for mark, fault in ordered))
    if len(lines) > MOST_PROBLEMS:
        more = len(lines) - MOST_PROBLEMS
        lines[MOST_PROBLEMS:] = [f"{filename}: and {more} more problems; mend these first"]
    return lines


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be."""
    if len(word) > _LONGEST_SHOWN:
        return None
    folded = {name.casefold(): name for name in islice(known, _MOST_COMPARED) if name}
    found = difflib.get_close_matches(word.casefold().replace("-", "_"), folded, n=1, cutoff=0.6)
    found = found or difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None
