"""``${VAR}`` and ``${VAR:-default}`` inside values that were parsed already.

Expansion happens after parsing and in texts alone, so that no variable's value can
become a key, a list or a comment, and once: what a variable holds is never looked at
again. ``$${`` stands for ``${``; any other ``$`` is itself. As in a shell, the default
of ``${VAR:-default}`` also stands in for an empty variable; it ends at the first
``}`` and is not expanded itself. A variable that is not set and has no default is a
fault, never an empty text.

A variable's value may be a credential: no fault here quotes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mcpx.config.faults import Fault, Path
from mcpx.config.yaml_text import Plain

__all__ = ["Expansion", "expand"]

_LONGEST: Final = 1024 * 1024  # characters in all that expansion may produce
_PLACE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Expansion:
    """A value with its variables filled in.

    ``filled`` holds the paths of the texts that had some: these may be read as
    numbers and truth values where such are wanted, and may not be shown.
    """

    __slots__ = ("_environ", "_produced", "faults", "filled", "value")

    def __init__(self, value: Plain, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._produced = 0
        self.faults: list[Fault] = []
        self.filled: set[Path] = set()
        self.value: Plain = self._walk(value, ())

    def _walk(self, value: Plain, path: Path) -> Plain:
        if isinstance(value, str):
            return self._text(value, path) if "${" in value else value
        if isinstance(value, list):
            return [self._walk(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: self._walk(item, (*path, name)) for name, item in value.items()}
        return value

    def _text(self, text: str, path: Path) -> str:
        parts: list[str] = []
        end = 0
        for found in _PLACE.finditer(text):
            parts.append(text[end : found.start()])
            end = found.end()
            if found[0] == "$${":
                parts.append("${")
                continue
            self.filled.add(path)
            filling = self._filling(found[1], bool(found[2]), path)
            self._produced += len(filling)
            if self._produced > _LONGEST:
                self._fault(path, f"variables fill in more than {_LONGEST} characters in all")
                return ""
            parts.append(filling)
        parts.append(text[end:])
        return "".join(parts)

    def _filling(self, inside: str, closed: bool, path: Path) -> str:  # noqa: FBT001  private
        name, separator, default = inside.partition(":-")
        if not closed:
            self._fault(
                path, "`${` without `}`", "close it, or write `$${` for the characters themselves"
            )
            return ""
        if not _NAME.fullmatch(name):
            self._fault(
                path,
                "`${…}` without the name of a variable",
                "write `${NAME}` or `${NAME:-default}`, or `$${` for the characters themselves",
            )
            return ""
        if "${" in default:
            self._fault(
                path, f"the default of {name} holds another variable", "defaults are not expanded"
            )
            return ""
        value = self._environ.get(name)
        if value is not None and not _is_text(value):
            self._fault(path, f"the environment variable {name} is not UTF-8")
            return ""
        if separator:
            return value or default
        if value is None:
            self._fault(
                path,
                f"the environment variable {name} is not set",
                f"set it, or give a default: `${{{name}:-…}}`",
            )
            return ""
        return value

    def _fault(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path, message, hint))


def _is_text(value: str) -> bool:
    """Bytes of the environment that are no UTF-8 arrive as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def expand(value: Plain, environ: Mapping[str, str]) -> Expansion:
    """``value`` with every variable replaced from ``environ``; faults are in the result."""
    return Expansion(value, environ)
