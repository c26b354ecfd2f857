"""What the arguments of a tool must look like.

What it is: rules compiled from the configuration, each about one place in a tool's
arguments, and one function that reads the arguments' text for them. What it must never
do: raise for any JSON text, let a number be rounded, or pass what it can't judge.

A rule's name is a path: ``options.path`` is the member ``path`` of the object
``options``, ``*`` is every element of an array or every member of an object. Where the
arguments hold a key that is written with the dot, both are judged. At each object on
the way, keys are looked for that differ from the ruled one in case, width or invisible
characters only: a server that reads carelessly would take them for it, so they are
refused. An array where the rule has no ``*`` is refused, and so is text that looks like
a JSON array or object where the rule goes on into one, because servers are known to
parse it. Any other value there means that the argument is absent: it passes, unless
the rule requires it. With ``*``, a required argument must be there in every element,
and there must be an element.

A value is compared as text: a string is itself, a boolean ``true`` or ``false``, a
number its exact decimal value without exponent or idle zeros, so that ``1``, ``1.0``
and ``10e-1`` are the same and 9007199254740993 is not its neighbour. Objects, arrays
and null have no text and are refused. All constraints of a rule must hold, and the
first that does not, in the order of ``_MAKERS``, is the one that is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import re2

from mcpx.core.globs import fold, is_unicode, piles_marks, re2_error, re2_options
from mcpx.core.paths import PathFault, path_within, path_within_root

__all__ = [
    "ArgumentFault",
    "ArgumentRuleSource",
    "ArgumentRules",
    "Violation",
    "read_arguments",
]


Scalar = str | bool | int | float

#: Digits of a number, written out. A double needs 767 at most; what is longer is refused.
_MOST_DIGITS: Final = 1100
#: Characters of a key that is not ASCII. Longer ones are not folded but refused.
_LONGEST_KEY: Final = 1024
#: Members of one object that are looked through for look-alikes; more are refused.
_MOST_MEMBERS: Final = 10_000
#: Parts of a rule's path.
_MOST_PARTS: Final = 32

_NUMBER: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")


class ArgumentFault(ValueError):
    """A rule that can't be compiled. ``path`` is relative to the tool's ``args``."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


class ArgumentRuleSource(Protocol):
    """One rule as its author writes it; None is a constraint that is not there."""

    @property
    def equals(self) -> Scalar | None:
        """The exact value."""
        ...

    @property
    def one_of(self) -> Sequence[Scalar] | None:
        """The values that are allowed."""
        ...

    @property
    def prefix(self) -> str | None:
        """How the text must start."""
        ...

    @property
    def suffix(self) -> str | None:
        """How the text must end."""
        ...

    @property
    def regex(self) -> str | None:
        """An RE2 expression to be found in the text."""
        ...

    @property
    def full_match(self) -> str | None:
        """An RE2 expression that matches the whole text."""
        ...

    @property
    def path_within(self) -> str | Sequence[str] | None:
        """Folders that the path must stay within."""
        ...

    @property
    def required(self) -> bool | None:
        """Whether the argument must be there."""
        ...


class Violation(NamedTuple):
    """What is wrong: ``says`` continues ``argument "…" ``; ``missing`` ones are told apart.

    ``argument`` is the rule's path as written, ``constraint`` the one that does not hold.
    """

    argument: str
    constraint: str
    says: str
    missing: bool = False


# Reading


class _Number(str):
    """A number as it stands in its JSON text."""

    __slots__ = ()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _number(text: str) -> _Number:
    """In Python, so that a thread that decodes a large text lets others have their turn."""
    return _Number(text)


#: Bytes above which arguments are decoded on a thread.
_LARGE: Final = 64 * 1024
_decode: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
).decode
_decode_large: Final = json.JSONDecoder(
    parse_float=_number, parse_int=_number, parse_constant=_refuse_constant
).decode


def read_arguments(raw: bytes | None) -> dict[str, object] | None:
    """The arguments as ``ArgumentRules.violation`` takes them; None if they are no object.

    ``raw`` is the JSON text that the front door accepted; absent arguments are an empty
    object.
    """
    if raw is None:
        return {}
    try:
        document = (_decode if len(raw) <= _LARGE else _decode_large)(raw.decode())
    except (ValueError, RecursionError):
        return None
    return document if type(document) is dict else None


def _decimal(text: str) -> str | None:
    """A JSON number's exact value without exponent and idle zeros; None if it is too long.

    The digits are moved, not calculated with: nothing is rounded, and an exponent of a
    million costs nothing.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    exponent_digits = exponent_digits.lstrip("0")
    if len(exponent_digits) > 9:
        return None
    exponent = int(exponent_digits or "0")
    scale = (-exponent if exponent_sign == "-" else exponent) - len(fraction)
    kept = digits.rstrip("0")
    scale += len(digits) - len(kept)
    if len(kept) + abs(scale) > _MOST_DIGITS:
        return None
    if scale >= 0:
        return sign + kept + "0" * scale
    if len(kept) > -scale:
        return f"{sign}{kept[:scale]}.{kept[scale:]}"
    return f"{sign}0.{kept.rjust(-scale, '0')}"


def _text(value: object) -> str | None:
    """The text that constraints see; None where a number is too long or the type has none."""
    kind = type(value)
    if kind is _Number:
        return _decimal(value)  # type: ignore[arg-type]
    if kind is bool:
        return "true" if value else "false"
    return None


# Judging

_Check = tuple[str, Callable[[str], bool]]

_NON_SCALAR: Final = "has a non-scalar value, which rules cannot evaluate"
_TOO_LONG: Final = "has a number of too many digits, which rules cannot evaluate"
_NOT_UNICODE: Final = "has text that is not valid Unicode, which rules cannot evaluate"
_TOO_MANY: Final = "is among more keys than rules look through"
_LOOK_ALIKE: Final = "has a look-alike key"
_MAYBE_JSON: Final = "has text where the rule expects an object, which rules cannot evaluate"


class _Absent:
    """Nothing was found on the rule's path."""

    __slots__ = ()


_ABSENT: Final = _Absent()
_Finding = Violation | _Absent | None


class _Part(NamedTuple):
    """One step of a rule's path, seen from the object that it looks into.

    ``every``: it is ``*``. ``keys``: each key that leads on, with the depth it leads to
    (``a`` to the next one; ``a.b``, written with the dot, one further). ``folded``: those
    keys, folded. ``known``: keys that other rules of the tool name here; they are no
    look-alikes.
    """

    every: bool
    keys: dict[str, int]
    folded: frozenset[str]
    known: frozenset[str]


class _Rule:
    __slots__ = ("_checks", "_name", "_parts", "_required")

    def __init__(
        self, name: str, parts: tuple[_Part, ...], checks: tuple[_Check, ...], *, required: bool
    ) -> None:
        self._name = name
        self._parts = parts
        self._checks = checks
        self._required = required

    def violation(self, arguments: dict[str, object]) -> Violation | None:
        finding = self._look(arguments, 0)
        if finding is None or isinstance(finding, Violation):
            return finding
        if self._required:
            return Violation(self._name, "required", "is missing", missing=True)
        return None

    def _look(self, value: object, depth: int) -> _Finding:
        """Judge what lies below ``value``: None if it was found and complies."""
        if depth == len(self._parts):
            return self._judge(value)
        part = self._parts[depth]
        if isinstance(value, dict):
            return self._look_into(value, depth, part)
        if isinstance(value, list):
            if not part.every:
                return self._says(_NON_SCALAR)
            return self._all(self._look(element, depth + 1) for element in value)
        if type(value) is str and value.lstrip()[:1] in ("{", "["):
            return self._says(_MAYBE_JSON)
        return _ABSENT

    def _look_into(self, members: dict[str, object], depth: int, part: _Part) -> _Finding:
        if part.every:
            return self._all(self._look(member, depth + 1) for member in members.values())
        if len(members) > _MOST_MEMBERS:
            return self._says(_TOO_MANY)
        finding: _Finding = _ABSENT
        for key, member in members.items():
            further = part.keys.get(key)
            if further is not None:
                found = self._look(member, further)
                if isinstance(found, Violation):
                    return found
                if found is None:
                    finding = None
            elif key not in part.known and _resembles(key, part.folded):
                return self._says(_LOOK_ALIKE)
        return finding

    @staticmethod
    def _all(findings: Iterable[_Finding]) -> _Finding:
        """One for several elements: a violation if there is one, absent if one is or none are."""
        outcome: _Finding = None
        empty = True
        for finding in findings:
            if isinstance(finding, Violation):
                return finding
            empty = False
            if finding is not None:
                outcome = finding
        return _ABSENT if empty else outcome

    def _judge(self, value: object) -> Violation | None:
        if type(value) is str:
            if not is_unicode(value):
                return self._says(_NOT_UNICODE)
            text: str | None = value
        else:
            text = _text(value)
            if text is None:
                return self._says(_TOO_LONG if type(value) is _Number else _NON_SCALAR)
        assert text is not None
        for constraint, holds in self._checks:
            if not holds(text):
                return Violation(self._name, constraint, f"violates {constraint} rule")
        return None

    def _says(self, says: str) -> Violation:
        return Violation(self._name, "", says)


def _resembles(key: str, folded: frozenset[str]) -> bool:
    if key.isascii():
        # An identifier holds nothing that folding would leave out.
        return (key.lower() if key.isidentifier() else fold(key)) in folded
    if len(key) > _LONGEST_KEY or piles_marks(key):
        return bool(folded)
    return fold(key) in folded


class ArgumentRules:
    """The rules of one tool.

    Raises ``ArgumentFault`` for the first rule that can't be compiled.
    """

    __slots__ = ("_rules",)

    def __init__(self, source: Mapping[str, ArgumentRuleSource]) -> None:
        paths = {name: _parts(name) for name in source}
        siblings: dict[tuple[str, ...], set[str]] = {}
        for path in paths.values():
            for depth in range(len(path)):
                siblings.setdefault(path[:depth], set()).update(_keys(path, depth))
        self._rules = tuple(
            _Rule(
                name,
                tuple(_part(path, depth, siblings[path[:depth]]) for depth in range(len(path))),
                _checks(name, source[name]),
                required=bool(source[name].required),
            )
            for name, path in paths.items()
        )

    def __bool__(self) -> bool:
        return bool(self._rules)

    def violation(self, arguments: dict[str, object]) -> Violation | None:
        """The first violation, in the order of the configuration; None if all rules hold.

        ``arguments`` come from ``read_arguments``.
        """
        for rule in self._rules:
            found = rule.violation(arguments)
            if found is not None:
                return found
        return None


# Compiling


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(name.split("."))
    if not all(parts):
        raise ArgumentFault(
            (name,), "has an empty part", "write the names of nested members with one dot between"
        )
    if len(parts) > _MOST_PARTS:
        raise ArgumentFault((name,), f"has more than {_MOST_PARTS} parts", "shorten the path")
    if any("*" in part and part != "*" for part in parts):
        raise ArgumentFault(
            (name,), "has `*` within a part", "`*` stands for all members, alone between dots"
        )
    return parts


def _keys(path: tuple[str, ...], depth: int) -> dict[str, int]:
    """The keys that lead on from a depth: one part, or several that are written with dots.

    None where the part is ``*``, which every key leads on from. So each key leads to one
    depth, and a walk meets each value once.
    """
    if path[depth] == "*":
        return {}
    return {".".join(path[depth:end]): end for end in range(depth + 1, len(path) + 1)}


def _part(path: tuple[str, ...], depth: int, siblings: set[str]) -> _Part:
    keys = _keys(path, depth)
    return _Part(path[depth] == "*", keys, frozenset(map(fold, keys)), frozenset(siblings))


def _checks(name: str, source: ArgumentRuleSource) -> tuple[_Check, ...]:
    made = tuple(
        (constraint, _MAKERS[constraint]((name, constraint), value))
        for constraint in _MAKERS
        if (value := getattr(source, constraint)) is not None
    )
    if not made and not source.required:
        raise ArgumentFault(
            (name,), "has no constraint", f"give one of {', '.join(_MAKERS)}, required: true"
        )
    return made


_Path = tuple[str | int, ...]


def _canonical(path: _Path, value: Scalar) -> str:
    """A configured value as the text that arguments become."""
    text: str | None
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        try:
            text = _decimal(repr(value))
        except ValueError:  # more digits than Python writes out
            text = None
        if text is None:
            raise ArgumentFault(path, "is not a finite number of bearable length", "write a string")
    return text


def _equals(path: _Path, value: Scalar) -> Callable[[str], bool]:
    return _canonical(path, value).__eq__


def _one_of(path: _Path, values: Sequence[Scalar]) -> Callable[[str], bool]:
    if not values:
        raise ArgumentFault(path, "is empty", "name at least one value")
    texts = frozenset(_canonical((*path, index), value) for index, value in enumerate(values))
    return texts.__contains__


def _prefix(path: _Path, value: str) -> Callable[[str], bool]:
    _not_empty(path, value)
    return lambda text: text.startswith(value)


def _suffix(path: _Path, value: str) -> Callable[[str], bool]:
    _not_empty(path, value)
    return lambda text: text.endswith(value)


def _regex(path: _Path, value: str) -> Callable[[str], bool]:
    search = _expression(path, value).search
    return lambda text: search(text.encode()) is not None


def _full_match(path: _Path, value: str) -> Callable[[str], bool]:
    match = _expression(path, value).fullmatch
    return lambda text: match(text.encode()) is not None


def _within(path: _Path, value: str | Sequence[str]) -> Callable[[str], bool]:
    if isinstance(value, str):
        roots: tuple[str, ...] = (_root(path, value),)
    else:
        roots = tuple(_root((*path, index), folder) for index, folder in enumerate(value))
        if not roots:
            raise ArgumentFault(path, "is empty", "name at least one folder")
    return lambda text: path_within(text, roots)


def _root(path: _Path, folder: str) -> str:
    try:
        return path_within_root(folder)
    except PathFault as fault:
        raise ArgumentFault(
            path, str(fault), "write the plain, absolute path of a folder"
        ) from None


def _not_empty(path: _Path, value: str) -> None:
    if not value:
        raise ArgumentFault(
            path, "is empty", 'every text complies; for an empty text use equals: ""'
        )


def _expression(path: _Path, value: str) -> re2._Regexp:
    _not_empty(path, value)
    try:
        return re2.compile(value, re2_options())
    except re2.error as error:
        says = f"is no RE2 expression: {re2_error(error)}"
    except UnicodeEncodeError:
        says = "is not valid Unicode"
    raise ArgumentFault(path, says, "RE2 has no lookahead, lookbehind or backreference")


#: In the order in which they are looked at.
_MAKERS: Final[Mapping[str, Callable[[_Path, Any], Callable[[str], bool]]]] = {
    "equals": _equals,
    "one_of": _one_of,
    "prefix": _prefix,
    "suffix": _suffix,
    "regex": _regex,
    "full_match": _full_match,
    "path_within": _within,
}
