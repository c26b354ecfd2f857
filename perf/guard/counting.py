"""What the tools have written, read: callgrind's parts, strace's lines.

What it is: parsers of two formats, and the figures that the guard compares. What it must
never do: run anything.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["CALLGRIND", "Part", "parts", "system_calls"]

#: Each part is read by itself, so names must not be told once for all of them.
CALLGRIND = (
    "valgrind",
    "--tool=callgrind",
    "--dump-before=getppid",
    "--compress-strings=no",
    "--compress-pos=no",
    "--dump-line=no",
)

#: A thread that waits for the interpreter's lock asks the kernel as often as it likes.
UNCOUNTED = frozenset({"futex"})

_LINE = re.compile(r"^(?:\d+ +)?([a-z_0-9]+)\(")


class Part:
    """What was executed between two marks.

    Attributes:
        instructions: all of them.
        functions: those of each function itself, by its name.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.instructions = 0
        self.functions: collections.Counter[str] = collections.Counter()
        function = ""
        called = False
        for line in lines:
            if line.startswith("fn="):
                function = line[3:].strip()
            elif line.startswith("calls="):
                called = True
            elif line[:1].isdigit() or line[:1] in {"+", "-", "*"}:
                # After calls= comes what the function that is called has used with its own.
                if not called:
                    self.functions[function] += int(line.split()[-1])
                called = False
            elif line.startswith("totals:"):
                self.instructions = int(line.split()[1])


def parts(file: Path) -> Iterator[Part]:
    """The parts that callgrind has written because of a mark, in their order."""
    number = 1
    while (path := file.with_name(f"{file.name}.{number}")).exists():
        with path.open() as lines:
            yield Part(lines)
        number += 1


def system_calls(log: Path) -> Iterator[collections.Counter[str]]:
    """The system calls between each two marks of a log of ``strace -f -o``, by name."""
    counts: collections.Counter[str] | None = None
    for line in log.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        # The second half of a call that was interrupted has no bracket here.
        if found is None:
            continue
        name = found.group(1)
        if name == "getppid":
            if counts is not None:
                yield counts
            counts = collections.Counter()
        elif counts is not None and name not in UNCOUNTED:
            counts[name] += 1
