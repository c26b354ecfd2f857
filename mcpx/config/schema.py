"""The format of the configuration for editors and readers, generated from the structs.

``json_schema`` gives what ``docs/mcpx.schema.json`` holds (JSON Schema 2020-12), and
``reference`` what ``docs/configuration.md`` does. Neither knows a field by name: types
and defaults come from ``msgspec.inspect``, and descriptions are the strings below each
field in the source of ``model.py``, which are read once with ``ast``.

``msgspec.json.schema`` is not used, because it can't show a ``Duration`` as the text
that its author writes.

The schema describes the form to write. The loader takes a little more: numbers where
text is wanted, and sections with nothing in them.

    python -m mcpx.config.schema --write    # rewrites both files
    python -m mcpx.config.schema            # prints the schema
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Final

from msgspec import NODEFAULT
from msgspec.inspect import (
    BoolType,
    CustomType,
    DictType,
    Field,
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

from mcpx.config import model
from mcpx.config.durations import format_duration
from mcpx.config.example import EXAMPLE
from mcpx.config.model import Config, Duration

__all__ = ["descriptions", "json_schema", "main", "reference", "structs"]

_DOCS: Final = Path(__file__).parents[2] / "docs"
_SCHEMA_FILE: Final = "mcpx.schema.json"
_REFERENCE_FILE: Final = "configuration.md"

_VARIABLE: Final = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    "description": "A value from the environment: `${NAME}` or `${NAME:-default}`.",
}
_DURATION: Final = {
    "description": 'A Go duration such as "30s" or "1h30m", or a number of seconds.',
    "anyOf": [
        {
            "type": "string",
            "pattern": r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
        },
        {"type": "number", "minimum": 0},
        {"$ref": "#/$defs/Variable"},
    ],
}
_SECRET: Final = {
    "type": "string",
    "minLength": 1,
    "description": "A credential. Write `${NAME}` and keep the value in the environment.",
}

_ACRONYMS: Final = {"cors": "CORS", "oauth": "OAuth", "tls": "TLS"}

_HEAD: Final = """\
# Configuration

mcpx reads one YAML file. Every section is optional; what is not written has the
default that is given here. This page is generated from the program's own types, and
[`mcpx.schema.json`](mcpx.schema.json) too: with the first line of the example in a file,
an editor completes and checks it.

- A key that is not known, or given twice, is an error; so is anything that would have no
  effect without its author's knowing. Errors say `file:line:column` and what to write.
- `${NAME}` in a value is replaced from the environment, once. A variable that is not set
  is an error; `${NAME:-default}` has a default for one that is not set or empty. `$${`
  stands for `${`.
- `true` and `false` are the only truth values. `yes`, `no`, `on` and `off` are text.
- A duration is written as in Go (`250ms`, `30s`, `2m`, `1h30m`) or as a number of seconds.
- `mcpx check` reads a file and says what would run.

## Example

```yaml
"""


def structs() -> list[StructType]:
    """Every section's type, in reading order: each before those that it leads to."""
    found: dict[str, StructType] = {}

    def visit(kind: Type) -> None:
        if isinstance(kind, StructType):
            if kind.cls.__name__ in found:
                return
            found[kind.cls.__name__] = kind
            for field in kind.fields:
                visit(field.type)
        elif isinstance(kind, ListType):
            visit(kind.item_type)
        elif isinstance(kind, DictType):
            visit(kind.value_type)
        elif isinstance(kind, UnionType):
            for member in kind.types:
                visit(member)

    visit(type_info(Config))
    return list(found.values())


def descriptions() -> dict[str, dict[str, str]]:
    """Struct name to field name to the text below the field in ``model.py``."""
    tree = ast.parse(inspect.getsource(model))
    told: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields: dict[str, str] = {}
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    fields[name] = " ".join(text.split())
        told[node.name] = fields
    return told


# -- JSON Schema


def json_schema() -> dict[str, object]:
    """The schema of a whole file (JSON Schema 2020-12)."""
    told = descriptions()
    defs: dict[str, object] = {
        kind.cls.__name__: _section_schema(kind, told[kind.cls.__name__]) for kind in structs()
    }
    defs |= {"Duration": _DURATION, "Secret": _SECRET, "Variable": _VARIABLE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcpx",
        "$ref": f"#/$defs/{Config.__name__}",
        "$defs": defs,
    }


def _section_schema(kind: StructType, told: dict[str, str]) -> dict[str, object]:
    properties: dict[str, object] = {}
    for field in kind.fields:
        schema = {"description": told[field.name], **_type_schema(field.type)}
        default = _default(field)
        if default is not None:
            schema["default"] = default
        properties[field.encode_name] = schema
    section: dict[str, object] = {
        "type": "object",
        "description": _purpose(kind),
        "properties": properties,
        "additionalProperties": False,
    }
    required = [field.encode_name for field in kind.fields if field.required]
    if required:
        section["required"] = required
    return section


def _type_schema(kind: Type) -> dict[str, object]:
    match kind:
        case StructType():
            return {"$ref": f"#/$defs/{kind.cls.__name__}"}
        case CustomType():
            return {"$ref": f"#/$defs/{kind.cls.__name__}"}
        case ListType():
            return {"type": "array", "items": _type_schema(kind.item_type)}
        case DictType():
            return {"type": "object", "additionalProperties": _type_schema(kind.value_type)}
        case LiteralType():
            return {"enum": list(kind.values)}
        case UnionType():
            return _union_schema(kind)
        case StrType():
            return {"type": "string"}
        case BoolType():
            return _or_variable({"type": "boolean"})
        case IntType() | FloatType():
            return _or_variable(_number_schema(kind))
    raise TypeError(f"model.py uses a type that the schema has no words for: {kind}")


def _union_schema(kind: UnionType) -> dict[str, object]:
    members = [member for member in kind.types if not isinstance(member, NoneType)]
    if len(members) == 1:
        return _type_schema(members[0])
    if any(isinstance(member, StrType) for member in members):
        # Text stands for variables too.
        names = {StrType: "string", BoolType: "boolean", IntType: "integer", FloatType: "number"}
        return {
            "anyOf": [
                {"type": names[type(member)]} if type(member) in names else _type_schema(member)
                for member in members
            ]
        }
    return {"anyOf": [_type_schema(member) for member in members]}


def _number_schema(kind: IntType | FloatType) -> dict[str, object]:
    schema: dict[str, object] = {"type": "integer" if isinstance(kind, IntType) else "number"}
    if kind.ge is not None:
        schema["minimum"] = kind.ge
    if kind.le is not None:
        schema["maximum"] = kind.le
    return schema


def _or_variable(schema: dict[str, object]) -> dict[str, object]:
    return {"anyOf": [schema, {"$ref": "#/$defs/Variable"}]}


def _default(field: Field) -> object:
    """What a field is when it is left out, as a file would say it; None where it is unset."""
    if field.default is not NODEFAULT:
        value = field.default
        return format_duration(value) if isinstance(value, Duration) else value
    if field.default_factory in (list, dict):
        return field.default_factory()
    return None


# -- Markdown


def reference() -> str:
    """The whole of ``docs/configuration.md``."""
    told = descriptions()
    parts = [_HEAD, EXAMPLE, "```\n"]
    parts.extend(_section_text(kind, told[kind.cls.__name__]) for kind in structs())
    return "".join(parts)


def _section_text(kind: StructType, told: dict[str, str]) -> str:
    lines = [
        "",
        f"## {_title(kind)}",
        "",
        _purpose(kind),
        "",
        "| key | type | default | |",
        "|---|---|---|---|",
    ]
    for field in kind.fields:
        cells = (
            f"`{field.encode_name}`",
            _words(field.type),
            "required" if field.required else _default_words(field),
            told[field.name],
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _title(kind: StructType) -> str:
    """``ServerConfig`` as "Server", ``RateLimitConfig`` as "Rate limit"."""
    name = kind.cls.__name__
    if name == Config.__name__:
        return "The file"
    words = re.findall("[A-Z][a-z]*", name.removesuffix("Config"))
    lower = [words[0], *(word.lower() for word in words[1:])]
    return " ".join(_ACRONYMS.get(word.lower(), word) for word in lower)


def _purpose(kind: StructType) -> str:
    return " ".join((inspect.getdoc(kind.cls) or "").split())


def _words(kind: Type) -> str:
    """A type in plain words."""
    match kind:
        case StructType():
            title = _title(kind)
            return f"[{title}](#{title.lower().replace(' ', '-')})"
        case CustomType(cls=cls):
            return "duration" if cls is Duration else "secret"
        case ListType():
            return f"list of {_words(kind.item_type)}"
        case DictType():
            return f"mapping of names to {_words(kind.value_type)}"
        case LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in kind.values if value)
        case UnionType():
            members = [_words(m) for m in kind.types if not isinstance(m, NoneType)]
            last = members.pop()
            return f"{', '.join(members)} or {last}" if members else last
        case StrType():
            return "text"
        case BoolType():
            return "true or false"
        case IntType() | FloatType():
            return _number_words(kind)
    raise TypeError(f"model.py uses a type that the reference has no words for: {kind}")


def _number_words(kind: IntType | FloatType) -> str:
    name = "whole number" if isinstance(kind, IntType) else "number"
    if kind.ge is not None and kind.le is not None:
        return f"{name} from {kind.ge:g} to {kind.le:g}"
    return f"{name}, at least {kind.ge:g}" if kind.ge is not None else name


def _default_words(field: Field) -> str:
    if isinstance(field.type, StructType):
        return ""  # a section's defaults are in its own table
    default = _default(field)
    if default in (None, "", [], {}):
        return "none"
    shown = default if isinstance(default, str) else json.dumps(default)
    return f"`{shown}`"


def _files() -> dict[str, str]:
    return {
        _SCHEMA_FILE: json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        _REFERENCE_FILE: reference(),
    }


def main(arguments: list[str]) -> int:
    """``--write`` writes both files below ``docs``; nothing prints the schema."""
    if arguments == ["--write"]:
        for name, text in _files().items():
            (_DOCS / name).write_text(text, encoding="utf-8")
        return 0
    if arguments:
        sys.stderr.write("usage: python -m mcpx.config.schema [--write]\n")
        return 2
    sys.stdout.write(_files()[_SCHEMA_FILE])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
