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

Ten thousand globs cost about what ten cost. Where the rest is more than a batch, each
of it is filed under what it begins or ends with, whichever fewer others share, and only
those are tried whose beginning or end the text has. Where that leaves more than a
batch, as of globs with wildcards at both ends, a glob is tried only if the text holds
the literal of it that fewest others have. One search for all of those literals tells
that most texts hold none.

A glob is parsed before anything else is done to it: its wildcards become two
noncharacters (Unicode 16, section 23.7), which no glob may contain. So its text can be
folded or decoded like a name, and a full-width asterisk or a ``%2A`` that turns into
``*`` on the way stays a literal one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, NewType, TypeVar

import re2

__all__ = [
    "ANY",
    "MARKS_IN_A_ROW",
    "ONE",
    "Glob",
    "GlobFault",
    "GlobSet",
    "GlobTable",
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
_WILDCARD: Final = re.compile(f"[{ANY}{ONE}]")
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_RESERVED: Final = frozenset((ANY, ONE))

#: Globs in one RE2 program, whose automaton then stays within RE2's own bound of 8 MiB.
_BATCH: Final = 256
#: Globs that are tried one by one where it is asked which of them match.
_FEW: Final = 16

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


class _Ends(NamedTuple):
    """What texts must begin and end with: ``plain`` if one ``*`` between is all the rest."""

    head: str
    tail: str
    plain: bool


def _ends(glob: Glob) -> _Ends:
    """For a glob with a wildcard."""
    first = min(place for mark in _RESERVED if (place := glob.find(mark)) >= 0)
    last = max(glob.rfind(mark) for mark in _RESERVED)
    return _Ends(glob[:first], glob[last + 1 :], first == last and glob[first] == ANY)


_Filed = TypeVar("_Filed")
#: By the length of a key, the shortest first: key to what is filed under it.
_ByLength = tuple[tuple[int, Mapping[str, _Filed]], ...]


def _by_length(filed: Mapping[str, _Filed]) -> _ByLength[_Filed]:
    lengths: dict[int, dict[str, _Filed]] = {}
    for key, value in filed.items():
        lengths.setdefault(len(key), {})[key] = value
    return tuple(sorted(lengths.items(), key=lambda item: item[0]))


class _Filing:
    """Globs filed under their heads, under their tails, or, if they have neither, loose."""

    __slots__ = ("heads", "loose", "tails")

    def __init__(self, globs: Sequence[Glob]) -> None:
        ends = list(map(_ends, globs))
        shared_heads = Counter(each.head for each in ends)
        shared_tails = Counter(each.tail for each in ends)
        self.heads: dict[str, list[Glob]] = {}
        self.tails: dict[str, list[Glob]] = {}
        self.loose: list[Glob] = []
        for glob, (head, tail, _) in zip(globs, ends, strict=True):
            if not head and not tail:
                self.loose.append(glob)
            elif not tail or (head and shared_heads[head] <= shared_tails[tail]):
                self.heads.setdefault(head, []).append(glob)
            else:
                self.tails.setdefault(tail, []).append(glob)


def _sharing(text: str, heads: _ByLength[_Filed], tails: _ByLength[_Filed]) -> Iterator[_Filed]:
    """What is filed under a beginning or an end of the text."""
    size = len(text)
    for length, filed in heads:
        if length > size:
            break
        found = filed.get(text[:length])
        if found is not None:
            yield found
    for length, filed in tails:
        if length > size:
            break
        found = filed.get(text[-length:])
        if found is not None:
            yield found


class GlobSet:
    """A list of parsed globs; ``matches`` says whether any of them matches a text.

    Raises ``GlobFault`` when RE2 can't compile one of them, because it is far too long.
    """

    __slots__ = ("_everything", "_exact", "_heads", "_rest", "_rest_heads", "_rest_tails", "_tails")

    def __init__(self, globs: Iterable[Glob]) -> None:
        exact: set[str] = set()
        heads: dict[int, set[str]] = {}
        tails: dict[int, set[str]] = {}
        rest: list[Glob] = []
        self._everything = False
        for glob in dict.fromkeys(globs):
            if is_literal(glob):
                exact.add(glob)
                continue
            head, tail, plain = _ends(glob)
            if not plain or (head and tail):
                rest.append(glob)
            elif head:
                heads.setdefault(len(head), set()).add(head)
            elif tail:
                tails.setdefault(len(tail), set()).add(tail)
            else:
                self._everything = True
        self._exact = frozenset(exact)
        self._heads = tuple((length, frozenset(heads[length])) for length in sorted(heads))
        self._tails = tuple((length, frozenset(tails[length])) for length in sorted(tails))
        self._rest_heads: _ByLength[_Test] = ()
        self._rest_tails: _ByLength[_Test] = ()
        if len(rest) > _BATCH:
            filing = _Filing(rest)
            self._rest_heads = _by_length({key: _test(some) for key, some in filing.heads.items()})
            self._rest_tails = _by_length({key: _test(some) for key, some in filing.tails.items()})
            rest = filing.loose
        self._rest = _test(rest) if rest else None

    def __bool__(self) -> bool:
        return bool(
            self._everything
            or self._exact
            or self._heads
            or self._tails
            or self._rest
            or self._rest_heads
            or self._rest_tails
        )

    def matches(self, text: str) -> bool:
        """Whether a glob matches the whole text. Half a surrogate pair matches wildcards alone."""
        if self._everything or text in self._exact:
            return True
        size = len(text)
        for length, heads in self._heads:
            if length > size:
                break
            if text[:length] in heads:
                return True
        for length, tails in self._tails:
            if length > size:
                break
            if text[-length:] in tails:
                return True
        if self._rest is not None and self._rest.matches(text):
            return True
        if not self._rest_heads and not self._rest_tails:
            return False
        return any(
            test.matches(text) for test in _sharing(text, self._rest_heads, self._rest_tails)
        )


class GlobTable:
    """A list of parsed globs; ``matching`` says which of them match a text.

    Raises ``GlobFault`` as ``GlobSet`` does.
    """

    __slots__ = ("_everything", "_exact", "_heads", "_loose", "_places", "_tails")

    def __init__(self, globs: Sequence[Glob]) -> None:
        places: dict[Glob, list[int]] = {}
        for place, glob in enumerate(globs):
            places.setdefault(glob, []).append(place)
        self._places = places
        self._exact = frozenset(filter(is_literal, places))
        self._everything = Glob(ANY) in places
        filing = _Filing([glob for glob in places if glob != ANY and glob not in self._exact])
        self._heads = _by_length({key: _Sieve(some) for key, some in filing.heads.items()})
        self._tails = _by_length({key: _Sieve(some) for key, some in filing.tails.items()})
        self._loose = _Sieve(filing.loose) if filing.loose else None

    def matching(self, text: str) -> set[int]:
        """The places in the list of the globs that match the whole text."""
        places = self._places
        found = set(places[Glob(ANY)]) if self._everything else set()
        if text in self._exact:
            found.update(places[Glob(text)])
        for sieve in _sharing(text, self._heads, self._tails):
            for glob in sieve.matching(text):
                found.update(places[glob])
        if self._loose is not None:
            for glob in self._loose.matching(text):
                found.update(places[glob])
        return found


class _Between:
    """What one glob with a single ``*`` asks for."""

    __slots__ = ("_head", "_least", "_tail")

    def __init__(self, head: str, tail: str) -> None:
        self._head = head
        self._tail = tail
        self._least = len(head) + len(tail)

    def matches(self, text: str) -> bool:
        return (
            len(text) >= self._least and text.startswith(self._head) and text.endswith(self._tail)
        )


class _Holding:
    """What one glob asks for that is a literal between two ``*``."""

    __slots__ = ("_literal",)

    def __init__(self, literal: str) -> None:
        self._literal = literal

    def matches(self, text: str) -> bool:
        return self._literal in text


class _Alternation:
    """A batch of globs as one RE2 program."""

    __slots__ = ("_program",)

    def __init__(self, globs: Sequence[Glob]) -> None:
        self._program = _compiled("|".join(map(_expression, globs)))

    def matches(self, text: str) -> bool:
        return self._program.fullmatch(_encoded(text)) is not None


class _Sieve:
    """Globs with wildcards, of which few are tried for a text, however many there are."""

    __slots__ = ("_literals", "_search", "_tests")

    def __init__(self, globs: Sequence[Glob]) -> None:
        #: Those that are always tried.
        self._tests: list[tuple[Glob, _Test]] = []
        self._search: re2._Regexp | None = None
        self._literals: _ByLength[list[tuple[Glob, _Test]]] = ()
        if len(globs) <= _FEW:
            self._tests = [(glob, _test((glob,))) for glob in globs]
            return
        pieces = {glob: set(_WILDCARD.split(glob)) - {""} for glob in globs}
        shared = Counter(piece for some in pieces.values() for piece in some)
        filed: dict[str, list[tuple[Glob, _Test]]] = {}
        for glob, some in pieces.items():
            test = (glob, _test((glob,)))
            if some:
                rarest = min(some, key=lambda piece: (shared[piece], -len(piece), piece))
                filed.setdefault(rarest, []).append(test)
            else:
                self._tests.append(test)
        self._literals = _by_length(filed)
        # Sorted, so that RE2 makes one tree of them, whose automaton stays small.
        self._search = _compiled("|".join(map(re2.escape, sorted(filed)))) if filed else None

    def matches(self, text: str) -> bool:
        return any(True for _ in self.matching(text))

    def matching(self, text: str) -> Iterator[Glob]:
        for glob, test in self._tests:
            if test.matches(text):
                yield glob
        if self._search is None or self._search.search(_encoded(text)) is None:
            return
        for length, filed in self._literals:
            for piece in {text[at : at + length] for at in range(len(text) - length + 1)}:
                for glob, test in filed.get(piece, ()):
                    if test.matches(text):
                        yield glob


_Test = _Between | _Holding | _Alternation | _Sieve


def _test(globs: Sequence[Glob]) -> _Test:
    """Whether a text matches one of them."""
    if len(globs) > _BATCH:
        return _Sieve(globs)
    if len(globs) == 1:
        glob = globs[0]
        head, tail, plain = _ends(glob)
        if plain:
            return _Between(head, tail)
        inner = Glob(glob[1:-1])
        if glob[0] == glob[-1] == ANY and is_literal(inner):
            return _Holding(inner)
    return _Alternation(globs)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub(ANY, text).encode()  # which is no literal of any glob


def _compiled(expression: str) -> re2._Regexp:
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
