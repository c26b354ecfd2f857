"""Lists of names: which of them refuses a name, a URI or a template, and whose rules hold.

What it is: the allow and deny lists of a policy, and the look-up of a tool's rules.
What it must never do: let a look-alike past a deny list or past a rule, or take one for
what an allow list names.

A deny list refuses what any of its globs matches, as it is written and folded, in any
reading. An allow list lets pass what one of its globs matches as it is written; a URI
must be matched in each of its readings too, by the readings of the globs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mcpx.core.argument_rules import ArgumentRules
from mcpx.core.globs import Glob, GlobSet, GlobTable, fold, literal_prefix
from mcpx.core.paths import glob_readings, readings

__all__ = ["NameLists", "ToolEntry", "ToolRules"]


class NameLists:
    """An allow list and a deny list, both of names or both of URIs."""

    __slots__ = (
        "_allow",
        "_allow_readings",
        "_deny",
        "_deny_folded",
        "_heads",
        "_is_folded",
        "allows",
        "given",
    )

    def __init__(self, allow: Sequence[Glob], deny: Sequence[Glob], *, uris: bool = False) -> None:
        self.given = bool(allow or deny)
        self.allows = bool(allow)
        self._allow = GlobSet(allow) if allow else None
        self._allow_readings = GlobSet(_each_reading(allow)) if allow and uris else None
        denied = _each_reading(deny) if uris else deny
        self._deny = GlobSet(denied) if deny else None
        folded = [Glob(fold(glob)) for glob in denied]
        self._deny_folded = GlobSet(folded) if deny else None
        #: Whether the two are the same, so that a folded name need not be asked about twice.
        self._is_folded = folded == list(denied)
        self._heads = _Heads(map(literal_prefix, _each_reading(allow))) if allow and uris else None

    def name(self, name: str) -> str:
        """Which list refuses the name: ``deny``, ``allow``, or none with an empty text."""
        if self._denies(name):
            return "deny"
        if self._allow is not None and not self._allow.matches(name):
            return "allow"
        return ""

    def uri(self, uri: str) -> str:
        """The same for a URI, in every reading; ``judge`` when there is no end to them."""
        if not self.given:
            return ""
        found = readings(uri)
        if found is None:
            return "judge"
        if any(map(self._denies, found)):
            return "deny"
        if self._allow is None:
            return ""
        assert self._allow_readings is not None
        # As written it must be as the list has it; as read, as the list reads.
        if self._allow.matches(uri) and all(map(self._allow_readings.matches, found)):
            return ""
        return "allow"

    def template(self, template: str) -> str:
        """The same for a template: it passes if some URI that it makes could be allowed.

        Without an expression it is a URI. The URIs that are made of it are judged when
        they are read.
        """
        if "{" not in template:
            return self.uri(template)
        if not self.given:
            return ""
        found = readings(template)
        starts = readings(template.partition("{")[0])
        if found is None or starts is None:
            return "judge"
        if any(map(self._denies, found)):
            return "deny"
        if self._heads is None or all(map(self._heads.meets, starts)):
            return ""
        return "allow"

    def _denies(self, name: str) -> bool:
        if self._deny is None:
            return False
        assert self._deny_folded is not None
        folded = fold(name)
        if self._is_folded and folded == name:
            return self._deny.matches(name)
        return self._deny.matches(name) or self._deny_folded.matches(folded)


def _each_reading(globs: Sequence[Glob]) -> list[Glob]:
    return [reading for glob in globs for reading in glob_readings(glob)]


class _Heads:
    """What allowed URIs begin with; ``meets`` says whether a text could grow into one."""

    __slots__ = ("_by_length", "_sorted")

    def __init__(self, heads: Iterable[str]) -> None:
        self._sorted = sorted(set(heads))
        by_length: dict[int, set[str]] = {}
        for head in self._sorted:
            by_length.setdefault(len(head), set()).add(head)
        self._by_length = tuple(by_length.items())

    def meets(self, start: str) -> bool:
        if any(start[:length] in heads for length, heads in self._by_length):
            return True
        # Texts with a common beginning stand together, the beginning before them.
        place = bisect_left(self._sorted, start)
        return place < len(self._sorted) and self._sorted[place].startswith(start)


class ToolEntry(NamedTuple):
    """The rules under one key of ``tool_rules``, which is a name or a glob."""

    glob: Glob
    key: str
    rules: ArgumentRules


class ToolRules:
    """The rules of every tool, found by name, by glob, and by what looks like either."""

    __slots__ = ("_alike", "_entries", "_exact", "_is_folded")

    def __init__(self, entries: Sequence[ToolEntry]) -> None:
        given = [entry for entry in entries if entry.rules]
        globs = [entry.glob for entry in given]
        folded = [Glob(fold(glob)) for glob in globs]
        self._entries = tuple((key, rules) for _, key, rules in given)
        self._exact = GlobTable(globs)
        self._alike = GlobTable(folded)
        #: Whether the two are the same, so that a folded name need not be asked about twice.
        self._is_folded = folded == globs

    def of(self, tool: str) -> tuple[tuple[str, ArgumentRules], ...]:
        """Each entry whose rules hold for the tool, in the order of the configuration.

        Rules only take away, so a look-alike of the tool has them too.
        """
        if not self._entries:
            return ()
        folded = fold(tool)
        found = self._exact.matching(tool)
        if not self._is_folded or folded != tool:
            found |= self._alike.matching(folded)
        return tuple(self._entries[place] for place in sorted(found)) if found else ()
