"""What the gateway defends against, and how each defence is taken out of it.

What it is: the type of an entry, and all entries together; they stand in the modules
``table_*``, by subject. Each is a fact in words, the text that makes it true, the text
without that, and the tests on the wire that must then turn red. What it must never
hold: a text that does more than take its defence away, and tests that would fail of
something else.

Where two checks stand behind each other, taking out one shows nothing; ``also`` takes
out the other. Some defences are not a line that can be left out but a way to do
something; there the new text does it the careless way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["CANARY", "DEFENCES", "Defence", "Edit"]

#: What must stay green whatever is taken out: the gateway still works.
CANARY = "test_requests_that_are_sent_ahead_are_answered_in_order"


class Edit(NamedTuple):
    """``old`` stands in ``file`` exactly once."""

    file: str
    old: str
    new: str


class Defence:
    """A fact, the edits that make it false, and the tests that notice, each of them.

    A test is named as it is in ``tests/wire``, with the case in brackets where one case
    is meant.
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


# Below, because the tables make use of the types above.
from table_callers import CALLERS  # noqa: E402
from table_messages import MESSAGES  # noqa: E402
from table_operation import OPERATION  # noqa: E402

DEFENCES: tuple[Defence, ...] = (*MESSAGES, *CALLERS, *OPERATION)
