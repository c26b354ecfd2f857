"""What the arguments of a tool must look like.

What it is: rules compiled from the configuration, each about one place in a tool's
arguments, and what reads the arguments' text for them. What it must never do: raise for
any JSON text but ``Unreadable``, let a number be rounded, or pass what it can't judge.

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

Of the text, only the members that rules name are decoded, each once, whatever else is
there. All rules of a tool are one tree of the keys that they name, and one walk judges
them all: it costs what the arguments hold, not what the configuration holds. The walk
goes on after a violation, since a rule that stands before it may be violated as well.

It is one file because a rule, its tree and its walk are one thing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol, final

import re2

from mcpx._speedups.frames import members, string
from mcpx.core.globs import fold, is_unicode, piles_marks, re2_error, re2_options
from mcpx.core.paths import PathFault, path_within, path_within_root
from mcpx.errors import FrameError

__all__ = [
    "ArgumentFault",
    "ArgumentRuleSource",
    "ArgumentRules",
    "Arguments",
    "Unreadable",
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


_QUOTE: Final = 0x22
#: Bytes above which arguments are decoded on a thread.
_LARGE: Final = 64 * 1024
_scan: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
).raw_decode
_scan_large: Final = json.JSONDecoder(
    parse_float=_number, parse_int=_number, parse_constant=_refuse_constant
).raw_decode


class Unreadable(Exception):
    """An argument that a rule asks for is nested deeper, or is longer, than can be decoded."""


@final
class Arguments:
    """A tool's arguments: the members of one object, each decoded when it is asked for.

    ``members`` are (key, start, end of the value) in the order of the text.
    """

    __slots__ = ("_decoded", "_text", "members")

    def __init__(self, text: bytes) -> None:
        self.members = members(text, 0)
        self._text = text
        self._decoded: dict[int, object] | None = None

    def value(self, start: int, end: int) -> object:
        """The value of a member.

        Raises:
            Unreadable: it can't be decoded.
        """
        text = self._text
        if text[start] == _QUOTE:
            try:
                return string(text, (start, end))
            except FrameError:
                raise Unreadable from None
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = {}
        elif start in decoded:
            return decoded[start]
        decoded[start] = value = _decode(text[start:end])
        return value


def _decode(text: bytes) -> object:
    scan = _scan if len(text) <= _LARGE else _scan_large
    try:
        decoded = text.decode()
        value, end = scan(decoded)
    except (ValueError, RecursionError):
        raise Unreadable from None
    if end != len(decoded):
        raise Unreadable
    return value


_NONE_GIVEN: Final = Arguments(b"{}")


def read_arguments(raw: bytes | None) -> Arguments | None:
    """The arguments as ``ArgumentRules.violation`` takes them; None if they are no object.

    ``raw`` is a JSON text that the front door accepted, without spaces around it; absent
    arguments are an empty object.
    """
    if raw is None:
        return _NONE_GIVEN
    if not raw.startswith(b"{"):
        return None
    try:
        return Arguments(raw)
    except (AssertionError, FrameError, ValueError):
        return None  # which no front door accepted


def _decimal(text: str) -> str | None:
    """A JSON number's exact value without exponent and idle zeros; None if it is too long.

    The digits are moved, not calculated with: nothing is rounded, and an exponent of a
    million costs nothing.
    """
    if text.isdecimal() and text.isascii() and text[0] != "0" and len(text) <= _MOST_DIGITS:
        return text
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


class _Rule:
    __slots__ = ("_checks", "name", "place", "required")

    def __init__(
        self, place: int, name: str, checks: tuple[_Check, ...], *, required: bool
    ) -> None:
        self.place = place
        self.name = name
        self.required = required
        self._checks = checks

    def judge(self, value: object) -> _Breach | None:
        if type(value) is str:
            if not value.isascii() and not is_unicode(value):
                return self.says(_NOT_UNICODE)
            text: str | None = value
        else:
            text = _text(value)
            if text is None:
                return self.says(_TOO_LONG if type(value) is _Number else _NON_SCALAR)
        assert text is not None
        for constraint, holds in self._checks:
            if not holds(text):
                says = f"violates {constraint} rule"
                return self.place, Violation(self.name, constraint, says)
        return None

    def says(self, says: str) -> _Breach:
        return self.place, Violation(self.name, "", says)


#: A violation, and the place of its rule in the configuration.
_Breach = tuple[int, Violation]
_Found = set[_Rule] | None


@final
class _Node:
    """What rules ask of one value: those whose path ends here, and those that go on.

    ``rule`` is the one that ends here, ``every`` leads to each element or member. ``keys``
    lead on by name: ``a`` to the next node, ``a.b``, written with the dot, to one further.
    ``folded``: those keys, folded, each with the first rule that asks for it. ``by_name``
    is the first rule that goes on by a key, ``onward`` the first that goes on at all, and
    ``requires`` whether one that ends or goes on here is required.
    """

    __slots__ = ("by_name", "every", "folded", "keys", "onward", "requires", "rule")

    def __init__(self) -> None:
        self.rule: _Rule | None = None
        self.every: _Node | None = None
        self.keys: dict[str, _Node] = {}
        self.folded: dict[str, _Rule] = {}
        self.by_name: _Rule | None = None
        self.onward: _Rule | None = None
        self.requires = False

    def look(self, value: object, found: _Found) -> _Breach | None:
        """What the first rule that is violated says; ``found`` gains the required ones met.

        First is first in the configuration. Where one rule is violated in several places,
        the first of them is told.
        """
        rule = self.rule
        worst: _Breach | None = None
        if rule is not None:
            worst = rule.judge(value)
            if found is not None and rule.required:
                found.add(rule)
        onward = self.onward
        if onward is None:
            return worst
        if isinstance(value, dict):
            return _first(worst, self.look_into(value.items(), len(value), found))
        if isinstance(value, list):
            if self.by_name is not None:
                worst = _first(worst, self.by_name.says(_NON_SCALAR))
            if self.every is not None:
                worst = _first(worst, self.every.look_at_each(value, found))
        elif type(value) is str and value.lstrip()[:1] in ("{", "["):
            worst = _first(worst, onward.says(_MAYBE_JSON))
        return worst

    def look_into(
        self, members_here: Iterable[tuple[str, object]], count: int, found: _Found
    ) -> _Breach | None:
        """The same for the members of an object."""
        worst: _Breach | None = None
        if self.by_name is not None:
            if count > _MOST_MEMBERS:
                worst = self.by_name.says(_TOO_MANY)
            else:
                keys = self.keys
                for key, value in members_here:
                    node = keys.get(key)
                    if node is not None:
                        worst = _first(worst, node.look(value, found))
                    elif (rule := self.resembled(key)) is not None:
                        worst = _first(worst, rule.says(_LOOK_ALIKE))
        if self.every is not None:
            values = [value for _, value in members_here]
            worst = _first(worst, self.every.look_at_each(values, found))
        return worst

    def look_at_each(self, values: Iterable[object], found: _Found) -> _Breach | None:
        """The same for several values; a required rule is met if each of them meets it."""
        worst: _Breach | None = None
        met_by_all: set[_Rule] | None = None
        for value in values:
            met: _Found = set() if found is not None and self.requires else None
            worst = _first(worst, self.look(value, met))
            if met is not None:
                met_by_all = met if met_by_all is None else met_by_all & met
        if found is not None and met_by_all:
            found |= met_by_all
        return worst

    def resembled(self, key: str) -> _Rule | None:
        """The first rule that asks for a key which this one could be taken for."""
        if key.isascii():
            # An identifier holds nothing that folding would leave out.
            return self.folded.get(key.lower() if key.isidentifier() else fold(key))
        if len(key) > _LONGEST_KEY or piles_marks(key):
            return self.by_name
        return self.folded.get(fold(key))


def _first(one: _Breach | None, other: _Breach | None) -> _Breach | None:
    """The breach of the rule that stands first; of one rule, the one that was met first."""
    if other is None or (one is not None and one[0] <= other[0]):
        return one
    return other


class ArgumentRules:
    """The rules of one tool.

    Raises ``ArgumentFault`` for the first rule that can't be compiled.
    """

    __slots__ = ("_required", "_root")

    def __init__(self, source: Mapping[str, ArgumentRuleSource]) -> None:
        paths = {name: _parts(name) for name in source}
        rules = {
            name: _Rule(
                place, name, _checks(name, source[name]), required=bool(source[name].required)
            )
            for place, name in enumerate(paths)
        }
        self._required = tuple(rule for rule in rules.values() if rule.required)
        self._root = _tree([(path, rules[name]) for name, path in paths.items()])

    def __bool__(self) -> bool:
        return self._root.onward is not None

    def violation(self, arguments: Arguments) -> Violation | None:
        """The first violation, in the order of the configuration; None if all rules hold.

        ``arguments`` come from ``read_arguments``.

        Raises:
            Unreadable: an argument that a rule names can't be decoded.
        """
        root, value = self._root, arguments.value
        found: _Found = set() if self._required else None
        breach: _Breach | None = None
        if root.every is None and len(arguments.members) <= _MOST_MEMBERS:
            # What `look_into` does, but that only what is wanted is decoded.
            keys = root.keys
            for key, start, end in arguments.members:
                node = keys.get(key)
                if node is not None:
                    breach = _first(breach, node.look(value(start, end), found))
                elif (rule := root.resembled(key)) is not None:
                    breach = _first(breach, rule.says(_LOOK_ALIKE))
        else:
            # Every value is wanted, or, where there are too many members, none.
            wanted = arguments.members if root.every is not None else ()
            decoded = [(key, value(start, end)) for key, start, end in wanted]
            breach = root.look_into(decoded, len(arguments.members), found)
        if found is not None:
            for rule in self._required:
                if breach is not None and breach[0] <= rule.place:
                    break
                if rule not in found:
                    return Violation(rule.name, "required", "is missing", missing=True)
        return None if breach is None else breach[1]


# Compiling


def _tree(paths: list[tuple[tuple[str, ...], _Rule]]) -> _Node:
    root = _Node()
    nodes: dict[tuple[str, ...], _Node] = {(): root}

    def node_at(path: tuple[str, ...]) -> _Node:
        if path not in nodes:
            nodes[path] = _Node()
        return nodes[path]

    for path, rule in paths:
        for depth, part in enumerate(path):
            node = node_at(path[:depth])
            node.requires = node.requires or rule.required
            node.onward = node.onward or rule
            if part == "*":
                node.every = node_at(path[: depth + 1])
                continue
            node.by_name = node.by_name or rule
            for key, end in _keys(path, depth).items():
                node.keys[key] = node_at(path[:end])
                node.folded.setdefault(fold(key), rule)
        end_node = node_at(path)
        end_node.rule = rule
        end_node.requires = end_node.requires or rule.required
    return root


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
