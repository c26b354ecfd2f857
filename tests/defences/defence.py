"""A defence of the gateway, and how it is taken out.

What it is: the type of the entries in the modules ``table_*``. Each is a fact in words,
the text that makes it true, the text without that, and the tests on the wire that must
then turn red. What an entry must never hold: a text that does more than take its defence
away, and tests that would fail of something else.

Where two checks stand behind each other, taking out one shows nothing; ``also`` takes
out the other. Some defences are not a line that can be left out but a way to do
something; there the new text does it the careless way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Defence", "Edit"]


class Edit(NamedTuple):
    """``old`` stands in ``file`` exactly once; ``new`` takes its place."""

    file: str
    old: str
    new: str


class Defence:
    """A fact, the edits that make it false, and the tests that notice, each of them.

    A test is named as it is in ``tests/wire``, with the case in brackets where one case
    is meant; without it, one of its cases is enough.
    """

    __slots__ = ("edits", "fact", "tests")

    def __init__(
        self,
        fact: str,
        file: str,
        old: str,
        new: str,
        *tests: str,
        also: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        self.fact = fact
        self.edits = (Edit(file, old, new), *(Edit(*edit) for edit in also))
        self.tests = tests

    def __repr__(self) -> str:
        return f"Defence({self.fact!r})"

    @property
    def files(self) -> list[str]:
        """The source files that it is in, by their paths in the checkout."""
        return list(dict.fromkeys(edit.file for edit in self.edits))

    def misfit(self, texts: Mapping[str, str]) -> str:
        """Why the entry does not fit the source (path to text); empty if it does."""
        for file, old, new in self.edits:
            count = texts[file].count(old)
            if count != 1:
                return f"found {count} times in {file}: {old!r}"
            if old == new:
                return f"changes nothing in {file}: {old!r}"
        return ""

    def removed(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The same source files without the defence."""
        fresh = dict(texts)
        for file, old, new in self.edits:
            fresh[file] = fresh[file].replace(old, new)
        return fresh
