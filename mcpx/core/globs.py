"""Names against lists of globs, and the fold under which look-alikes are equal.

What it is: ``*`` stands for any run of characters, ``/`` included, ``?`` for exactly
one; everything else is itself, in its own case; a glob speaks about the whole text.
What it must never do: take longer than linear time in the text, whatever the globs,
or raise for any text. That is why no glob is ever handed to ``re``.

A list is sorted once into what it takes to answer quickly. Literals are a set. Globs
with their only ``*`` at one end, which most are, are sets of heads or of tails by
length: one slice and one look-up for each length that occurs. The rest become RE2
alternations. ``re2.Set`` is not used: it has an automaton and nothing else, and says
"no match" when the automaton outgrows its memory, which would open a deny list. An
alternation falls back to a slower, still linear search. It is made in batches, because
the automaton of a few hundred globs fits in memory where that of ten thousand doesn't.

A glob is parsed before anything else is done to it: its wildcards become two
noncharacters (Unicode 16, section 23.7), which no glob may contain. So its text can be
folded or decoded like a name, and a full-width asterisk or a ``%2A`` that turns into
``*`` on the way stays a literal one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, NewType

import re2

__all__ = [
    "ANY",
    "MARKS_IN_A_ROW",
    "ONE",
    "Glob",
    "GlobFault",
    "GlobSet",
    "fold",
    "is_literal",
    "is_unicode",
    "literal_prefix",
    "parse_glob",
    "piles_marks",
    "re2_error",
    "re2_options",
]

#: A pattern with its wildcards marked; literal text otherwise.
Glob = NewType("Glob", str)

ANY: Final = "\ufdd0"
ONE: Final = "\ufdd1"
_WILDCARDS: Final = str.maketrans({"*": ANY, "?": ONE})
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_RESERVED: Final = frozenset((ANY, ONE))

#: Globs in one RE2 program, whose automaton then stays within RE2's own bound of 8 MiB.
_BATCH: Final = 256

#: How many combining marks may follow one another. Normalising sorts them, at a cost
#: that grows with the square of the run; 30 is the Stream-Safe bound of UAX #15.
MARKS_IN_A_ROW: Final = 30

#: Categories whose characters show nothing: blanks, controls, format characters.
_UNSEEN_CATEGORIES: Final = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))
#: Characters of other categories that show nothing either: the rest of what Unicode
#: calls default-ignorable (fillers, variation selectors, joiners), and the empty braille cell.
_UNSEEN: Final = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0000, 0xE1000),
        ),
    )
)
_UNSEEN_ASCII: Final = dict.fromkeys([*range(0x21), 0x7F])


class GlobFault(ValueError):
    """A pattern that can't be used; the text says why."""


def re2_options() -> re2.Options:
    """Options for matching only: no captures, and nothing said on stderr."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return options


def re2_error(error: re2.error) -> str:
    """RE2's own words about an expression; the binding hands them out as bytes."""
    words = error.args[0] if error.args else "unknown error"
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)


def parse_glob(pattern: str) -> Glob:
    """The pattern with its wildcards marked, runs of ``*`` as one.

    Raises ``GlobFault`` when it is empty, or holds what no name can: half a surrogate
    pair, or one of the two noncharacters that mark wildcards.
    """
    if not pattern:
        raise GlobFault("is empty")
    if not _RESERVED.isdisjoint(pattern) or not is_unicode(pattern):
        raise GlobFault("contains a code point that is no character")
    parsed = pattern.translate(_WILDCARDS)
    while ANY + ANY in parsed:
        parsed = parsed.replace(ANY + ANY, ANY)
    return Glob(parsed)


def is_literal(glob: Glob) -> bool:
    """Whether the glob has no wildcard, so that it matches itself alone."""
    return _RESERVED.isdisjoint(glob)


def literal_prefix(glob: Glob) -> str:
    """What every text that the glob matches begins with."""
    return glob.partition(ANY)[0].partition(ONE)[0]


def is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form, which half a surrogate pair has not."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def piles_marks(text: str) -> bool:
    """Whether more combining marks follow one another than any writing needs."""
    if text.isascii():
        return False
    run = 0
    for character in text:
        if not unicodedata.combining(character):
            run = 0
            continue
        run += 1
        if run > MARKS_IN_A_ROW:
            return True
    return False


def fold(text: str) -> str:
    """The text as a careless reader sees it: look-alikes fold to the same.

    Compatibility forms (full-width letters, ligatures) become plain ones, case is
    folded, and what shows nothing (blanks, controls, zero-width characters) is left
    out. Letters of different scripts stay different. Folding twice changes nothing.
    The cost is quadratic in a run of combining marks: see ``piles_marks``.
    """
    if text.isascii():
        return text.translate(_UNSEEN_ASCII).lower()
    # Each step can make work for another: leaving out a joiner brings a mark beside its
    # letter. Two rounds do for nearly everything; the bound is there to be one.
    for _ in range(8):
        folded = unicodedata.normalize("NFKC", text).casefold()
        folded = "".join(
            character
            for character in folded
            if unicodedata.category(character) not in _UNSEEN_CATEGORIES
            and character not in _UNSEEN
        )
        if folded == text:
            break
        text = folded
    return text


class GlobSet:
    """A list of parsed globs; ``matches`` says whether any of them matches a text.

    Raises ``GlobFault`` when RE2 can't compile one of them, because it is far too long.
    """

    __slots__ = ("_everything", "_exact", "_heads", "_programs", "_tails")

    def __init__(self, globs: Iterable[Glob]) -> None:
        exact: set[str] = set()
        heads: dict[int, set[str]] = {}
        tails: dict[int, set[str]] = {}
        rest: list[Glob] = []
        self._everything = False
        for glob in dict.fromkeys(globs):
            if is_literal(glob):
                exact.add(glob)
            elif glob == ANY:
                self._everything = True
            elif glob[-1] == ANY and is_literal(head := Glob(glob[:-1])):
                heads.setdefault(len(head), set()).add(head)
            elif glob[0] == ANY and is_literal(tail := Glob(glob[1:])):
                tails.setdefault(len(tail), set()).add(tail)
            else:
                rest.append(glob)
        self._exact = frozenset(exact)
        self._heads = tuple((length, frozenset(heads[length])) for length in sorted(heads))
        self._tails = tuple((length, frozenset(tails[length])) for length in sorted(tails))
        self._programs = tuple(
            _program(rest[start : start + _BATCH]) for start in range(0, len(rest), _BATCH)
        )

    def __bool__(self) -> bool:
        return bool(self._everything or self._exact or self._heads or self._tails or self._programs)

    def matches(self, text: str) -> bool:
        """Whether a glob matches the whole text. Half a surrogate pair matches wildcards alone."""
        if self._everything or text in self._exact:
            return True
        for length, heads in self._heads:
            if text[:length] in heads:
                return True
        for length, tails in self._tails:
            if text[-length:] in tails:
                return True
        if not self._programs:
            return False
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            encoded = _LONE_SURROGATE.sub(ANY, text).encode()  # which is no literal of any glob
        return any(program.fullmatch(encoded) is not None for program in self._programs)


def _program(globs: list[Glob]) -> re2._Regexp:
    expression = "|".join(map(_expression, globs))
    options = re2_options()
    options.dot_nl = True
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        raise GlobFault(f"is too long to compile ({re2_error(error)})") from None


def _expression(glob: Glob) -> str:
    parts: list[str] = []
    literal: list[str] = []
    for character in glob:
        if character not in _RESERVED:
            literal.append(character)
            continue
        parts.append(re2.escape("".join(literal)))
        literal.clear()
        parts.append(".*" if character == ANY else ".")
    parts.append(re2.escape("".join(literal)))
    return "".join(parts)
