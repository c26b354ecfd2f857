"""What the audit may show of a call's arguments.

A redactor turns the raw JSON of a call's arguments into a value that may be written
down: without what looks like a credential, and small. It must never raise for any
bytes, never show what it couldn't understand, and never do more work than is
proportional to its input. Where it is in doubt it masks: a record that hides too much
is a smaller evil.

Three things are masked. The value of a member whose *name* says credential: names are
compared without case, accents, width and separators, so that ``apiKey``, ``API-KEY``
and ``api_key`` are one; a configured name counts at the end of a longer one as well
(``pin_code`` in ``userPinCode``), and some built-in words wherever they occur
(``db_password``, ``passwordConfirm``). A name may also stand beside its value
(``{"name": "API_KEY", "value": …}``, ``["--token", …]``). Then what *patterns* find in
any text, names included: those of well-known credentials and the configured ones.
Last, all arguments of *tools* that are named.

Patterns are RE2, so that no text makes one slow. Each runs over the original text and
what any of them found is masked, so that one pattern's mask can't hide a match from
another. A long text is shown in its first 2,000 characters and searched 65,536 further,
so that what crosses the cut is still found and masked as a whole.

The size of a record is bounded by the bytes that its JSON has. Where something is left
out it says how much: ``…(+N)``, in characters of a text, members of an object, elements
of an array.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from math import isfinite
from typing import Any, Final, NoReturn

import msgspec
import re2

from mcpx.core.globs import Glob, GlobSet, fold, parse_glob, piles_marks, re2_error, re2_options

__all__ = ["MASK", "MOST_BYTES", "Redactor"]

MASK: Final = "***"

#: About how many bytes of JSON a record's arguments have at most; marks of what was cut come on top.
MOST_BYTES: Final = 16 * 1024
_MOST_CHARACTERS: Final = 2000
_MOST_NAME_CHARACTERS: Final = 256
_SEARCHED_CHARACTERS: Final = 64 * 1024
_DEEPEST: Final = 32
_MOST_MATCHES: Final = 1000
_MOST_DIGITS: Final = 1000
_REMEMBERED_NAMES: Final = 1024
_LONGEST_REMEMBERED_NAME: Final = 64

# Wherever they occur in a name, separators and case aside.
_WORDS_ANYWHERE: Final = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "credential",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "sessionkey",
    "signingkey",
    "encryptionkey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "connectionstring",
)
_WORDS_AT_END: Final = ("token", "cookie", "cookies", "sessionid")
# As whole words at a name's end: short ones are part of too many others.
_WHOLE_WORDS: Final = frozenset(
    ("auth", "bearer", "cvv", "jwt", "otp", "pass", "pin", "pwd", "ssn")
)
# Alone: ``max_tokens`` is a number that everybody may see.
_WHOLE_NAMES: Final = frozenset(("tokens",))
# A run of capitals but for the one that begins the next word; or a capitalised or small word.
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+")

_NAME_KEYS: Final = frozenset(("name", "key", "header", "variable"))
_VALUE_KEYS: Final = frozenset(("value", "val"))

_CREDENTIAL_WORD: Final = (
    r"(?:(?:passw(?:or)?d|passphrase|pwd|secret|credential|api[_-]?key|access[_-]?key"
    r"|private[_-]?key)[\w-]*|token)"
)
_ASSIGNED: Final = r"""(?:\\*"((?:[^"\\]|\\.)*)|\\*'((?:[^'\\]|\\.)*)|([^\s"'&;]+))"""
# Where a pattern has groups, they are what is masked; else it is the whole match.
# Known by how they begin: AWS, GitHub, GitLab, Slack, Google, npm, PyPI, Hugging Face,
# Stripe, and the sk- of many.
_PREFIXED: Final = (
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|gh[opsru]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"
    r"|glpat-[A-Za-z0-9_-]{16,}|xox[a-z]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}"
    r"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|\bsk-[A-Za-z0-9_-]{12,}"
)
_PRIVATE_KEY: Final = (
    r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)"
)
# Where a pattern has groups, they are what is masked; else it is the whole match.
_BUILT_IN: Final = (
    r"(?i)\bbearer\s+([A-Za-z0-9._~+/=-]+)",
    r"(?i)\b(?:authorization|cookie)\\*[\"']?\s*[:=]\s*\\*[\"']?([^\r\n\"']+)",
    # JSON web tokens, signed and encrypted
    r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){1,4}",
    _PREFIXED,
    _PRIVATE_KEY,
    # user and password of a URL; an @ in the password belongs to it
    r"[A-Za-z][A-Za-z0-9+.-]*://([^/\s?#]+)@",
    # password=…, "api_key": "…", --token …, <secret>…
    rf"(?is){_CREDENTIAL_WORD}\\*[\"']?\s*[:=]+>?\s*{_ASSIGNED}",
    rf"(?is)(?:^|[\s\"'])--?[\w-]*{_CREDENTIAL_WORD}\s+{_ASSIGNED}",
    rf"(?i)<[\w.:-]*{_CREDENTIAL_WORD}[^<>]*>([^<]+)",
)


# An expression and how many groups it has.
_Pattern = tuple[Any, int]


def _with_groups(pattern: str) -> _Pattern:
    options = re2.Options()
    options.log_errors = False
    expression = re2.compile(pattern, options)
    return expression, expression.groups


_BUILT_IN_PATTERNS: Final[tuple[_Pattern, ...]] = tuple(map(_with_groups, _BUILT_IN))
_ANY_BUILT_IN: Final = re2.compile("|".join(f"(?:{one})" for one in _BUILT_IN), re2_options())


class Redactor:
    """Masks by name, by pattern and by tool. Threads may share it.

    ``keys`` are member names besides the built-in ones, ``patterns`` RE2 expressions,
    ``tools`` names or globs of tools whose arguments are left out whole. Raises
    ValueError that says which of them can't be used.
    """

    __slots__ = ("_any_tool", "_folded_tools", "_keys", "_names", "_own_patterns", "_tools")

    def __init__(
        self,
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        tools: Iterable[str] = (),
    ) -> None:
        forms = set(_WHOLE_WORDS)
        for key in keys:
            form = "".join(_words(key))
            if not form:
                raise ValueError(f"key {key!r}: it has neither letter nor digit")
            forms.add(form)
        self._keys = frozenset(forms)
        self._names: dict[str, tuple[str, bool]] = {}
        self._own_patterns = tuple(_own_pattern(pattern) for pattern in patterns)
        globs: list[Glob] = []
        for tool in tools:
            try:
                globs.append(parse_glob(tool))
            except ValueError as fault:
                raise ValueError(f"tool {tool!r}: {fault}") from None
        self._any_tool = bool(globs)
        self._tools = GlobSet(globs)
        self._folded_tools = GlobSet(Glob(fold(glob)) for glob in globs)

    def arguments(self, tool: str, raw: bytes) -> object:
        """The arguments as a value that JSON can say: see the module's head.

        ``raw`` is their JSON text. Whole numbers stay exact. What isn't JSON, and the
        arguments of a tool that is named, come out as ``***``.
        """
        if self._any_tool and self._leaves_out(tool):
            return MASK
        try:
            value = _DECODER.decode(raw.decode())
            return _Record(self).value(value, 0)
        except (ValueError, RecursionError):
            return MASK

    def text(self, text: str) -> str:
        """The text without what looks like a credential, cut to 2,000 characters."""
        return self.cut(text, _MOST_CHARACTERS)

    def cut(self, text: str, most: int) -> str:
        """The text, masked, of ``most`` characters and a mark of how many more there were."""
        if most <= 0:
            return f"…(+{len(text)})" if text else ""
        shown = text if len(text) <= most else text[:most]
        encoded = text[: most + _SEARCHED_CHARACTERS].encode("utf-8", "replace")
        end = len(encoded) if shown is text else len(shown.encode("utf-8", "replace"))
        spans = self._spans(encoded)
        if not spans:
            kept = encoded[:end].decode()
        else:
            pieces: list[str] = []
            at = 0
            for start, stop in sorted(spans):
                if start >= end:
                    break
                if start >= at:
                    pieces += (encoded[at:start].decode("utf-8", "replace"), MASK)
                at = max(at, stop)
            pieces.append(encoded[at:end].decode("utf-8", "replace"))
            kept = "".join(pieces)
        return kept if shown is text else f"{kept}…(+{len(text) - most})"

    def hides_number(self, number: str) -> bool:
        """Whether a configured pattern finds something in a number's digits."""
        return bool(self._own_patterns) and bool(_found(self._own_patterns, number.encode()))

    def names_credential(self, text: str) -> bool:
        """Whether a text is the name of a credential."""
        if len(text) > _MOST_NAME_CHARACTERS:
            return False
        words = _words(text)
        form = "".join(words)
        if form in _WHOLE_NAMES or form.endswith(_WORDS_AT_END):
            return True
        if any(word in form for word in _WORDS_ANYWHERE):
            return True
        return any("".join(words[start:]) in self._keys for start in range(len(words)))

    def name(self, name: str) -> tuple[str, bool]:
        """How a member's name is shown, and whether its value is hidden."""
        # Few names come again and again.
        known = self._names.get(name)
        if known is None:
            # No honest name is so long: what it names isn't shown.
            hidden = len(name) > _MOST_NAME_CHARACTERS or self.names_credential(name)
            known = (self.cut(name, _MOST_NAME_CHARACTERS), hidden)
            if len(self._names) >= _REMEMBERED_NAMES:
                self._names.clear()
            if len(name) <= _LONGEST_REMEMBERED_NAME:
                self._names[name] = known
        return known

    def _spans(self, text: bytes) -> list[tuple[int, int]]:
        # Most texts hold nothing: one look for all the built-in patterns says so.
        if _ANY_BUILT_IN.search(text) is None:
            return _found(self._own_patterns, text) if self._own_patterns else []
        return _found(_BUILT_IN_PATTERNS, text) + _found(self._own_patterns, text)

    def _leaves_out(self, tool: str) -> bool:
        if len(tool) > _MOST_NAME_CHARACTERS or piles_marks(tool):
            return True
        return self._tools.matches(tool) or self._folded_tools.matches(fold(tool))


class _Record:
    """One value on its way into one record, and the bytes that are left for it."""

    __slots__ = ("_redactor", "_room")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._room = MOST_BYTES

    def value(self, value: object, depth: int) -> object:
        if isinstance(value, str):
            return self._text(value, _MOST_CHARACTERS)
        if isinstance(value, dict | list):
            self._room -= 2
            if depth >= _DEEPEST:
                return f"…(+{len(value)})"
            return (
                self._object(value, depth) if isinstance(value, dict) else self._array(value, depth)
            )
        if isinstance(value, int | float) and not isinstance(value, bool):
            digits = str(value)
            self._room -= len(digits)
            return MASK if self._redactor.hides_number(digits) else value
        self._room -= 5
        return value

    def _object(self, members: dict[str, object], depth: int) -> dict[str, object]:
        redactor = self._redactor
        named = any(
            isinstance(value, str)
            and name.lower() in _NAME_KEYS
            and redactor.names_credential(value)
            for name, value in members.items()
        )
        shown: dict[str, object] = {}
        for count, (name, value) in enumerate(members.items()):
            if self._room <= 0:
                shown[_another("…", shown)] = f"(+{len(members) - count})"
                break
            self._room -= 2
            key, hidden = redactor.name(name)
            key = _another(key if self._fits(key) else self._text(name, 0), shown)
            if hidden or (named and name.lower() in _VALUE_KEYS):
                shown[key] = self._mask()
            else:
                shown[key] = self.value(value, depth + 1)
        return shown

    def _array(self, elements: list[object], depth: int) -> list[object]:
        shown: list[object] = []
        hides_next = False
        for count, element in enumerate(elements):
            if self._room <= 0:
                shown.append(f"…(+{len(elements) - count})")
                break
            self._room -= 1
            shown.append(self._mask() if hides_next else self.value(element, depth + 1))
            # A flag of a command line, or the first of a pair.
            hides_next = (
                isinstance(element, str)
                and (element.startswith("-") or (count == 0 and len(elements) == 2))
                and self._redactor.names_credential(element)
            )
        return shown

    def _mask(self) -> str:
        self._room -= len(MASK) + 2
        return MASK

    def _text(self, text: str, most: int) -> str:
        shown = self._redactor.cut(text, min(most, max(0, self._room)))
        if not self._fits(shown):
            # A character is at most six bytes of JSON (``\\u0000``).
            shown = self._redactor.cut(text, max(0, self._room) // 6)
            if not self._fits(shown):
                shown = self._redactor.cut(text, 0)
                self._room -= len(shown)
        return shown

    def _fits(self, shown: str) -> bool:
        """Whether there is room for a text; if so, it is taken."""
        size = len(msgspec.json.encode(shown))
        if size > self._room:
            return False
        self._room -= size
        return True


def _another(name: str, taken: dict[str, object]) -> str:
    """``name``, or with its place where masking has made two names one."""
    unique, count = name, len(taken)
    while unique in taken:
        count += 1
        unique = f"{name}#{count}"
    return unique


def _words(name: str) -> list[str]:
    """The words of a name, folded: ``dbApiKey``, ``DB_API-KEY`` and others are db, api, key."""
    if not name.isascii():
        name = unicodedata.normalize("NFKD", name[: _MOST_NAME_CHARACTERS + 1])
    return [word.casefold() for word in _WORD.findall(name)]


def _found(patterns: tuple[_Pattern, ...], text: bytes) -> list[tuple[int, int]]:
    """What to mask in ``text``, as offsets; in no order, and overlapping."""
    spans: list[tuple[int, int]] = []
    for expression, groups in patterns:
        for count, match in enumerate(expression.finditer(text)):
            if count == _MOST_MATCHES:
                spans.append((match.start(), len(text)))
                break
            for group in range(1, groups + 1) if groups else (0,):
                start, stop = match.span(group)
                if start < stop:
                    spans.append((start, stop))
    return spans


def _own_pattern(pattern: str) -> _Pattern:
    try:
        expression = re2.compile(pattern, re2_options())
    except (re2.error, UnicodeEncodeError) as error:
        told = re2_error(error) if isinstance(error, re2.error) else "it isn't Unicode"
        raise ValueError(f"pattern {pattern!r}: {told}") from None
    if expression.fullmatch(b"") is not None:
        raise ValueError(f"pattern {pattern!r}: it matches the empty text, so it masks nothing")
    return expression, 0


def _integer(digits: str) -> int | str:
    # Python itself refuses to read more than 4,300, and nobody reads so many.
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _real(digits: str) -> float | str:
    number = float(digits)
    return number if isfinite(number) else digits


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=_no_number)
