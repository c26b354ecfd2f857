"""YAML text into plain values, with the place of each in the file.

What is read is the part of YAML 1.2 that no two readers take differently. Only
``true``, ``false``, ``null`` (or nothing) and decimal, ``0x`` and ``0o`` numbers have a
meaning of their own. ``yes``, ``on``, ``12:30``, ``1_000``, ``0755`` and ``2026-01-01``,
which YAML 1.1 turns into something else, stay the text that they look like; a setting
that wants another type says so where it is checked.

Refused are: a key given twice in one mapping, merge keys, tags other than the three
that change nothing, keys that are no plain text, several documents, aliases that
contain themselves, and characters that make a file read otherwise than it looks.

The text is the author's, but may be anybody's: its size, its nesting, its number of
values once aliases are followed and the length of its numbers have bounds. It is read
as a stream of events and built without recursion, because libyaml's own composer
recurses as deep as the text says.

libyaml is used where PyYAML was built with it, its Python twin otherwise. Both give
the same values; the places of syntax errors can differ by a character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

import yaml

from mcpx.config.faults import Fault, Mark, Path, quote

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "Document", "Plain", "YamlError", "read_yaml"]

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 100_000
_LONGEST_NUMBER: Final = 100
_MOST_EVENTS: Final = 2 * MAX_VALUES  # a value of a mapping has a key beside it
_ENOUGH: Final = 100  # faults after which nothing more is looked for

# YAML 1.2.2 section 10.3.2, the core schema, less three things: leading zeros (decimal
# to some readers, octal to others), infinities, and NaN.
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_PREFIXED: Final = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NAME: Final = re.compile(r"[0-9]+")

# The tags that say what is there anyway.
_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str")
_LIST_TAG: Final = "tag:yaml.org,2002:seq"
_MAPPING_TAG: Final = "tag:yaml.org,2002:map"

# Section 5.1's printable characters, less those that YAML 1.1 breaks lines at and no
# editor does (U+0085, U+2028, U+2029), less those that turn the direction of writing.
_UNFIT: Final = re.compile(
    "[^\t\n\r\x20-\x7e\u00a0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

# What the parsers call it (libyaml's words, then PyYAML's), and what its author needs to know.
_PLAIN_WORDS: Final = (
    (
        ("mapping values are not allowed",),
        (
            "a `:` where no key can be; put a value that contains `: ` in quotes, "
            "and check the indentation of this line and the one before"
        ),
    ),
    (
        ("sequence entries are not allowed",),
        "a list item where no list can start; put `- ` on a line of its own below the key",
    ),
    (
        ("expected ',' or ']'",),
        "a list opened with `[` is not closed; a `,` or `]` is missing before this place",
    ),
    (
        ("expected ',' or '}'",),
        "a mapping opened with `{` is not closed; a `,` or `}` is missing before this place",
    ),
    (
        ("did not find expected '-' indicator",),
        "this line belongs to a list, but does not start with `- `; check its indentation",
    ),
    (
        ("did not find expected key", "expected <block end>"),
        "this line fits nothing above it; check its indentation",
    ),
    (("could not find expected ':'",), "a key without `:`; write `key: value`"),
    (("unexpected end of stream",), "a quote that is opened here is never closed"),
    (
        ("unknown escape character",),
        "an unknown escape after a backslash; use single quotes for text with backslashes",
    ),
    (("undefined tag handle",), "a tag; remove the word that starts with `!`, or quote it"),
    (("incompatible YAML document",), "a YAML version that is not known here; remove the line"),
    (
        ("expected the node content", "did not find expected node content"),
        "a value is missing here, or there is a bracket too many",
    ),
    (
        ("document start>",),
        "text after the end of the document; the file holds one document and nothing after it",
    ),
)
_AT_CHARACTER: Final = {
    "\t": "a tab in the indentation; use spaces",
    "@": "a value can't start with `@`; put it in quotes",
    "`": "a value can't start with a backtick; put it in quotes",
    "%": "a value can't start with `%`; put it in quotes",
}


class YamlError(ValueError):
    """A text that is refused, with every reason found and its place."""

    def __init__(self, problems: list[tuple[Mark, Fault]]) -> None:
        super().__init__("; ".join(fault.message for _, fault in problems))
        self.problems = problems


class _Scalar:
    """A value as written. ``plain`` is whether it had neither quotes nor a tag."""

    __slots__ = ("mark", "plain", "text")

    def __init__(self, mark: Mark, text: str, plain: bool) -> None:  # noqa: FBT001  private
        self.mark = mark
        self.text = text
        self.plain = plain


class _List:
    __slots__ = ("items", "mark", "open")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.items: list[_Node] = []
        self.open = True


class _Mapping:
    __slots__ = ("entries", "key", "mark", "open")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.entries: dict[str, tuple[Mark, _Node]] = {}
        self.key: tuple[str, Mark] | None = None  # read, and waiting for its value
        self.open = True


_Node = _Scalar | _List | _Mapping


class Document:
    """A text that was read: its ``value``, and where each part of it stands."""

    __slots__ = ("_root", "value")

    def __init__(self, root: _Node, value: Plain) -> None:
        self._root = root
        self.value = value

    def locate(self, path: Path, *, at_key: bool = False) -> Mark:
        """Where the value at ``path`` is, or its key; the nearest thing around it if it is absent."""
        node = self._root
        mark = Mark(1, 1)
        for depth, step in enumerate(path, 1):
            if isinstance(node, _Mapping) and isinstance(step, str) and step in node.entries:
                mark, node = node.entries[step]
            elif isinstance(node, _List) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
                mark = node.mark
            else:
                return mark
            if depth == len(path) and not at_key and isinstance(node, _Scalar):
                mark = node.mark
        return mark

    def written(self, path: Path) -> str | None:
        """The text of the scalar at ``path`` as its author wrote it; None if there is no scalar."""
        node = self._root
        for step in path:
            if isinstance(node, _Mapping) and isinstance(step, str) and step in node.entries:
                node = node.entries[step][1]
            elif isinstance(node, _List) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            else:
                return None
        return node.text if isinstance(node, _Scalar) else None


def read_yaml(text: str | bytes, loader: type[Any] | None = None) -> Document:
    """The one document in ``text``; an empty text is an empty document.

    ``loader`` is a PyYAML loader class, for tests that compare both parsers. Raises
    ``YamlError`` and nothing else.
    """
    characters = _characters(text)
    builder = _Builder()
    try:
        for event in _events(characters, loader or _LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_explained(error, characters))
    except yaml.YAMLError as error:
        builder.refuse(Mark(1, 1), f"no YAML: {error}")
    if builder.problems:
        raise YamlError(builder.problems)
    root = builder.root or _Scalar(Mark(1, 1), "", plain=True)
    return Document(root, _Values().of(root, 1))


def _loader() -> type[Any]:
    return cast("type[Any]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))


_LOADER: Final = _loader()


def _events(text: str, loader: type[Any]) -> Iterator[Any]:
    return cast("Iterator[Any]", yaml.parse(text, Loader=loader))


def _characters(text: str | bytes) -> str:
    """``text`` as characters that may stand in a file, without a leading byte order mark."""
    if isinstance(text, str):
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise _refusal(
                _mark_at(text, error.start), "a lone surrogate, which is no character"
            ) from None
    else:
        raw = text
    if len(raw) > MAX_BYTES:
        raise _refusal(Mark(1, 1), f"the file has {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        characters = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        raise _refusal(
            _mark_at(before, len(before)), "the file is not UTF-8; save it as UTF-8"
        ) from None
    unfit = _UNFIT.search(characters)
    if unfit is not None:
        raise _refusal(
            _mark_at(characters, unfit.start()),
            f"the character U+{ord(unfit[0]):04X}, which can't be seen in a file; remove it, "
            "or write it as an escape in double quotes",
        )
    return characters


class _Builder:
    """Events into a tree, with every fault noted that does not end the reading."""

    __slots__ = ("_anchors", "_count", "_documents", "_stack", "problems", "root")

    def __init__(self) -> None:
        self.root: _Node | None = None
        self.problems: list[tuple[Mark, Fault]] = []
        self._stack: list[_List | _Mapping] = []
        self._anchors: dict[str, _Node] = {}
        self._documents = 0
        self._count = 0

    def refuse(self, mark: Mark, message: str, hint: str = "") -> None:
        """Note a fault; end the reading once there are enough of them."""
        self.problems.append((mark, Fault(self._path(), message, hint)))
        if len(self.problems) >= _ENOUGH:
            raise YamlError(self.problems)

    def take(self, event: Any) -> None:
        """One event of the parser's."""
        self._count += 1
        if self._count > _MOST_EVENTS:
            raise YamlError([(_mark(event), Fault((), f"more than {MAX_VALUES} values"))])
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(_Mapping(_mark(event)), event, _MAPPING_TAG)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(_List(_mark(event)), event, _LIST_TAG)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._stack.pop().open = False
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self.refuse(_mark(event), "a second document; the file holds one", "remove `---`")
                raise YamlError(self.problems)

    def _scalar(self, event: Any) -> None:
        mark = _mark(event)
        tag = event.tag
        if tag is not None and tag not in _TEXT_TAGS:
            self._refuse_tag(mark, tag)
        if not event.value.isascii():
            try:
                event.value.encode()
            except UnicodeEncodeError:
                self.refuse(mark, "a lone surrogate, which is no character")
        node = _Scalar(mark, event.value, plain=tag is None and event.implicit[0])
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, _Mapping) and parent.key is None:
            self._key(parent, node)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
            return
        self._add(node, event.anchor)

    def _open(self, node: _List | _Mapping, event: Any, tag: str) -> None:
        if event.tag is not None and event.tag not in ("!", tag):
            self._refuse_tag(node.mark, event.tag)
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, _Mapping) and parent.key is None:
            self.refuse(node.mark, "a key must be text", "remove `?` or the brackets")
            raise YamlError(self.problems)
        self._add(node, event.anchor)
        self._stack.append(node)
        if len(self._stack) > MAX_DEPTH:
            self.problems.append((node.mark, Fault((), f"more than {MAX_DEPTH} levels of nesting")))
            raise YamlError(self.problems)

    def _alias(self, event: Any) -> None:
        mark = _mark(event)
        node = self._anchors.get(event.anchor)
        if node is None:
            self.refuse(
                mark, f"the alias {quote(event.anchor)} has no anchor of that name before it"
            )
            node = _Scalar(mark, "", plain=True)
        elif not isinstance(node, _Scalar) and node.open:
            self.refuse(mark, f"the alias {quote(event.anchor)} would contain itself")
            node = _Scalar(mark, "", plain=True)
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, _Mapping) and parent.key is None:
            self.refuse(mark, "an alias can't be a key", "write the key out")
            raise YamlError(self.problems)
        self._add(node, None)

    def _key(self, parent: _Mapping, node: _Scalar) -> None:
        name = node.text
        mark = node.mark
        if node.plain and name == "<<":
            self.refuse(mark, "a merge key `<<`; write the keys out, they are not merged here")
        elif node.plain and not _NAME.fullmatch(name) and not isinstance(_meaning(node, self), str):
            shown = name or "(nothing)"
            self.refuse(mark, f"the key {shown} is not text", "put it in quotes")
        elif name in parent.entries:
            first = parent.entries[name][0]
            lines = (
                f"on line {first.line} and on line {mark.line}"
                if first.line != mark.line
                else f"both times on line {mark.line}"
            )
            self.refuse(mark, f"the key {quote(name)} is given twice, {lines}", "keep one of them")
        parent.key = (name, mark)

    def _add(self, node: _Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self.root = node
            return
        parent = self._stack[-1]
        if isinstance(parent, _List):
            parent.items.append(node)
            return
        assert parent.key is not None
        name, mark = parent.key
        parent.entries.setdefault(name, (mark, node))
        parent.key = None

    def _refuse_tag(self, mark: Mark, tag: str) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        self.refuse(mark, f"the tag {quote(shown)}", "remove it; values are what they look like")

    def _path(self) -> Path:
        """The path of what is open now. A key that waits for its value is not part of it."""
        steps: list[str | int] = []
        for inner in self._stack[:-1]:
            if isinstance(inner, _List):
                steps.append(len(inner.items) - 1)
            else:
                steps.append(next(reversed(inner.entries)))
        return tuple(steps)


class _Values:
    """A tree into plain values, with aliases followed and counted."""

    __slots__ = ("_count", "_problems")

    def __init__(self) -> None:
        self._count = 0
        self._problems: list[tuple[Mark, Fault]] = []

    def refuse(self, mark: Mark, message: str, hint: str = "") -> None:
        self._problems.append((mark, Fault((), message, hint)))
        raise YamlError(self._problems)

    def of(self, node: _Node, depth: int) -> Plain:
        self._count += 1
        if self._count > MAX_VALUES:
            self.refuse(node.mark, f"more than {MAX_VALUES} values, aliases followed")
        if isinstance(node, _Scalar):
            return _meaning(node, self) if node.plain else node.text
        if depth > MAX_DEPTH:
            self.refuse(node.mark, f"more than {MAX_DEPTH} levels of nesting, aliases followed")
        if isinstance(node, _List):
            return [self.of(item, depth + 1) for item in node.items]
        return {name: self.of(value, depth + 1) for name, (_, value) in node.entries.items()}


def _meaning(node: _Scalar, faults: _Builder | _Values) -> bool | int | float | str | None:
    """What a scalar without quotes stands for."""
    text = node.text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        kind: type[int | float] = int
    elif _PREFIXED.fullmatch(text):
        return int(text, 0) if len(text) <= _LONGEST_NUMBER else _too_long(node, faults)
    elif _FLOAT.fullmatch(text):
        kind = float
    else:
        return text
    if len(text) > _LONGEST_NUMBER:
        return _too_long(node, faults)
    number = kind(text)
    if number in (float("inf"), float("-inf")):
        faults.refuse(node.mark, "a number beyond 1e308", "put it in quotes if it is text")
    return number


def _too_long(node: _Scalar, faults: _Builder | _Values) -> int:
    faults.refuse(
        node.mark,
        f"a number of more than {_LONGEST_NUMBER} characters",
        "put it in quotes if it is text",
    )
    return 0


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _mark_at(text: str, index: int) -> Mark:
    before = text[:index].replace("\r\n", "\n").replace("\r", "\n")
    return Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _refusal(mark: Mark, message: str) -> YamlError:
    return YamlError([(mark, Fault((), message))])


def _explained(error: yaml.MarkedYAMLError, text: str) -> tuple[Mark, Fault]:
    """A parser's complaint in words that say what to do."""
    problem = error.problem or "the text is no YAML"
    at = error.problem_mark or error.context_mark
    if "unexpected end of stream" in problem and error.context_mark is not None:
        at = error.context_mark
    if at is None:
        return Mark(1, 1), Fault((), f"no YAML: {problem}")
    mark = Mark(at.line + 1, at.column + 1)
    if "cannot start any token" in problem:
        lines = text.splitlines()
        line = lines[at.line] if at.line < len(lines) else ""
        character = line[at.column] if at.column < len(line) else ""
        message = _AT_CHARACTER.get(
            character, "a character that no value can start with; quote the value"
        )
        return mark, Fault((), message)
    opened = error.context_mark.line + 1 if error.context_mark is not None else mark.line
    since = f"; it was opened on line {opened}" if opened != mark.line else ""
    for phrases, explanation in _PLAIN_WORDS:
        if any(phrase in problem for phrase in phrases):
            bracket = "is not closed" in explanation
            return mark, Fault((), explanation + (since if bracket else ""))
    context = f"{error.context}: " if error.context else ""
    return mark, Fault((), f"no YAML: {context}{problem}")
