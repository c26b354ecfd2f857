"""Plain values against the structs' types: everything that does not fit, at once.

``msgspec.convert`` stops at its first error and names places its own way. This walk
goes over the same type information (``msgspec.inspect``), so it knows every struct of
``model.py`` and no field by name; it collects a fault for each unknown key, missing key
and value of another type, and returns values that ``msgspec.convert`` then takes.

Where it helps the author and can't mislead, it reads a value as the wanted type:

- a number or truth value where text is wanted is the text as written (``PORT: 8080``);
- a text that had a ``${VAR}`` in it may be a number or a truth value where one is wanted;
- a mapping with nothing in it (``auth:``) is an empty one. A list or a single value with
  nothing written is a fault: it might be a rule whose lines were lost.

No value of a ``Secret``, and none that came from a variable, is in any message; nor is
a text where a whole section belongs, which may be a credential in the wrong place.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec
from msgspec.inspect import (
    BoolType,
    CustomType,
    DictType,
    FloatType,
    IntType,
    ListType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from mcpx.config.durations import DurationError, parse_duration
from mcpx.config.expand import Expansion
from mcpx.config.faults import Fault, Path, nearest, quote
from mcpx.config.model import Config, Duration
from mcpx.config.yaml_text import Document, Plain
from mcpx.secret import Secret

__all__ = ["Shape"]

_LARGEST: Final = 2**63 - 1
_BAD: Final = object()  # stands for a value that a fault was noted about
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,19}")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,30}(?:\.[0-9]{1,30})?")
_LISTED: Final = 24  # valid keys that a message may list
_YAML_1_1_TRUE: Final = frozenset({"yes", "on", "y"})
_YAML_1_1_FALSE: Final = frozenset({"no", "off", "n"})


class Shape:
    """One pass over a document: ``config`` if it fits, else ``faults``."""

    __slots__ = ("_document", "_expansion", "config", "faults")

    def __init__(self, document: Document, expansion: Expansion) -> None:
        self._document = document
        self._expansion = expansion
        self.faults: list[Fault] = []
        self.config: Config | None = None
        fitted = self._fit(expansion.value, _ROOT, ())
        if not self.faults and not expansion.faults:
            self.config = self._convert(fitted)

    def _convert(self, fitted: object) -> Config | None:
        try:
            return msgspec.convert(fitted, Config)
        except msgspec.ValidationError:
            # The walk above and msgspec disagree, which is a fault here. The message may
            # quote a value, so it is not shown.
            self._fault((), "the file does not fit the configuration's structure")
            return None

    def _fit(self, value: Plain, kind: Type, path: Path) -> object:
        match kind:
            case StructType():
                return self._struct(value, kind, path)
            case DictType():
                return self._dict(value, kind, path)
            case ListType():
                return self._list(value, kind, path)
            case UnionType():
                return self._union(value, kind, path)
            case LiteralType():
                return self._literal(value, kind, path)
            case CustomType(cls=cls) if cls is Duration:
                return self._duration(value, path)
            case CustomType(cls=cls) if cls is Secret:
                return self._secret(value, path)
            case BoolType():
                return self._bool(value, path)
            case IntType():
                return self._int(value, kind, path)
            case FloatType():
                return self._float(value, kind, path)
            case StrType():
                return self._str(value, path)
        raise TypeError(f"model.py uses a type that nothing here reads: {kind}")

    # -- Mappings and lists

    def _struct(self, value: Plain, kind: StructType, path: Path) -> object:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return self._wrong("a mapping of settings", value, path, shown=False)
        fields = {field.encode_name: field for field in kind.fields}
        fitted: dict[str, object] = {}
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                self._unknown(name, kind, path)
            else:
                fitted[name] = self._fit(item, field.type, (*path, name))
        for name, field in fields.items():
            if field.required and name not in value:
                self._fault((*path, name), "is missing")
        return fitted

    def _unknown(self, name: str, kind: StructType, path: Path) -> None:
        names = [field.encode_name for field in kind.fields]
        meant = nearest(name, names)
        below = _below(kind)
        wanted = name.replace("-", "_")
        if wanted in below and meant != wanted:
            meant = f"{below[wanted]}.{wanted}"
        if meant is not None:
            hint = f"did you mean {meant}?"
        elif len(names) <= _LISTED:
            hint = f"known here: {', '.join(names)}"
        else:
            hint = "see the reference for the keys that are known here"
        self.faults.append(Fault((*path, name), "unknown key", hint, at_key=True))

    def _dict(self, value: Plain, kind: DictType, path: Path) -> object:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return self._wrong("a mapping of names", value, path, shown=False)
        return {
            name: self._fit(item, kind.value_type, (*path, name)) for name, item in value.items()
        }

    def _list(self, value: Plain, kind: ListType, path: Path) -> object:
        if not isinstance(value, list):
            hint = "write [] for an empty list, or leave the key out" if value is None else ""
            hint = hint or ("write - before it" if not isinstance(value, dict) else "")
            return self._wrong("a list", value, path, hint, shown=False)
        return [self._fit(item, kind.item_type, (*path, index)) for index, item in enumerate(value)]

    # -- Alternatives

    def _union(self, value: Plain, kind: UnionType, path: Path) -> object:
        kinds = [member for member in kind.types if not isinstance(member, NoneType)]
        if len(kinds) == 1:
            return self._fit(value, kinds[0], path)
        for member in kinds:
            if _is_a(value, member):
                return self._fit(value, member, path)
        if isinstance(value, (bool, int, float)):
            for member in kinds:
                if isinstance(member, StrType):
                    return self._fit(value, member, path)
        return self._wrong(" or ".join(_WANTED[type(member)] for member in kinds), value, path)

    def _literal(self, value: Plain, kind: LiteralType, path: Path) -> object:
        choices = [str(choice) for choice in kind.values]
        text = self._as_text(value, path)
        if text in choices:
            return text
        listed = ", ".join(choice for choice in choices if choice)
        meant = nearest(text, choices) if text is not None else None
        return self._wrong(
            f"one of {listed}", value, path, f"did you mean {meant}?" if meant else ""
        )

    # -- Single values

    def _bool(self, value: Plain, path: Path) -> object:
        if isinstance(value, bool):
            return value
        hint = "write true or false"
        if isinstance(value, str):
            lower = value.lower()
            if path in self._expansion.filled and lower in ("true", "false"):
                return lower == "true"
            if lower in _YAML_1_1_TRUE or lower == "true":
                hint = "write true"
            elif lower in _YAML_1_1_FALSE or lower == "false":
                hint = "write false"
            hint += ", without quotes" if lower in ("true", "false") else ""
        return self._wrong("true or false", value, path, hint)

    def _int(self, value: Plain, kind: IntType, path: Path) -> object:
        number = value
        filled = path in self._expansion.filled
        if isinstance(number, str) and filled and _INTEGER.fullmatch(number):
            number = int(number)
        if isinstance(number, float) and number.is_integer() and abs(number) <= _LARGEST:
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            return self._wrong("a whole number", value, path, _number_hint(value))
        if abs(number) > _LARGEST:
            return self._wrong(f"a whole number of at most {_LARGEST}", value, path)
        return number if self._in_range(number, kind, path) else _BAD

    def _float(self, value: Plain, kind: FloatType, path: Path) -> object:
        number = value
        if isinstance(number, str) and path in self._expansion.filled and _NUMBER.fullmatch(number):
            number = float(number)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return self._wrong("a number", value, path, _number_hint(value))
        if abs(number) > _LARGEST:
            return self._wrong(f"a number of at most {_LARGEST}", value, path)
        return float(number) if self._in_range(number, kind, path) else _BAD

    def _in_range(self, number: float, kind: IntType | FloatType, path: Path) -> bool:
        found = "" if path in self._expansion.filled else f", found {number}"
        if kind.ge is not None and number < kind.ge:
            self._fault(path, f"must be {_at_least(kind)}{found}")
            return False
        if kind.le is not None and number > kind.le:
            self._fault(path, f"must be at most {kind.le:g}{found}")
            return False
        return True

    def _str(self, value: Plain, path: Path) -> object:
        text = self._as_text(value, path)
        return text if text is not None else self._wrong("text", value, path)

    def _duration(self, value: Plain, path: Path) -> object:
        if isinstance(value, str):
            try:
                return Duration(parse_duration(value))
            except DurationError as error:
                shown = str(error)
                if path in self._expansion.filled:
                    shown = "what the variable holds is no duration; write something like 30s"
                self._fault(path, shown)
                return _BAD
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self._wrong("a duration such as 30s or 1h30m", value, path)
        if abs(value) > _LARGEST / 1e9:
            return self._wrong("a duration of less than 292 years", value, path)
        return Duration(value)

    def _secret(self, value: Plain, path: Path) -> object:
        text = self._as_text(value, path)
        if text is None:
            self._fault(path, f"expected text, found {_kind_of(value)}")
            return _BAD
        if not text:
            source = (
                "the variable that it comes from is empty" if path in self._expansion.filled else ""
            )
            self._fault(path, "is empty; a secret needs at least one character", source)
            return _BAD
        return Secret(text)

    def _as_text(self, value: Plain, path: Path) -> str | None:
        """A text, or what its author wrote where YAML made a number or truth value of it."""
        if isinstance(value, str):
            return value
        if isinstance(value, (bool, int, float)):
            return self._document.written(path)
        return None

    # -- Faults

    def _wrong(
        self, wanted: str, value: Plain, path: Path, hint: str = "", *, shown: bool = True
    ) -> object:
        found = _kind_of(value)
        if path in self._expansion.filled:
            found = "something else in the variable"
        elif shown and isinstance(value, str):
            found = f"the text {quote(value)}" if value else "an empty text"
        elif shown and isinstance(value, (bool, int, float)):
            found = self._document.written(path) or found
        elif value is None and not hint:
            hint = "write a value, or leave the key out"
        self._fault(path, f"expected {wanted}, found {found}", hint)
        return _BAD

    def _fault(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(Fault(path, message, hint))


_ROOT: Final = type_info(Config)
_WANTED: Final[dict[type[Type], str]] = {
    StrType: "text",
    BoolType: "true or false",
    IntType: "a whole number",
    FloatType: "a number",
    ListType: "a list",
    DictType: "a mapping",
    StructType: "a mapping",
}


def _is_a(value: Plain, kind: Type) -> bool:
    """Whether ``value`` is of ``kind`` as it stands."""
    match kind:
        case StrType():
            return isinstance(value, str)
        case BoolType():
            return isinstance(value, bool)
        case IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case FloatType():
            return isinstance(value, float)
        case ListType():
            return isinstance(value, list)
        case DictType() | StructType():
            return isinstance(value, dict)
    return False


def _below(kind: StructType) -> dict[str, str]:
    """Keys of the sections right below ``kind``, each with the name of its section."""
    names: dict[str, str] = {}
    for field in kind.fields:
        section = cast("Any", field.type)
        if isinstance(section, UnionType):
            section = next((t for t in section.types if isinstance(t, StructType)), section)
        if isinstance(section, StructType):
            for inner in section.fields:
                names.setdefault(inner.encode_name, field.encode_name)
    return names


def _kind_of(value: Plain) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else "a number or truth value"


def _number_hint(value: Plain) -> str:
    """Why a text that looks like a number is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9][0-9_:]{0,30}", value):
        return "write it in decimal, without leading zeros, `_`, `:` or quotes"
    return ""


def _at_least(kind: IntType | FloatType) -> str:
    return "0 or more" if kind.ge == 0 else f"at least {kind.ge:g}"
