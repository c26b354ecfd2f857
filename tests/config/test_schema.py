"""The generated schema and reference."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from mcpx.config import schema
from mcpx.config.example import EXAMPLE

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"

# These load, in a form that the schema does not recommend.
LENIENT = {
    "booleans_as_text",
    "sections_with_nothing_in_them",
    "stdio_and_what_is_not_active",
    "empty",
    "numbers_that_fit",
    "variables",
}


class Text(yaml.SafeLoader):
    """YAML as an editor with YAML 1.2 reads it: no other truth values than true and false."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Text.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def validator():
    made = schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def errors(text):
    return [error.message for error in validator().iter_errors(yaml.load(text, Text))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mcpx.schema.json", json.dumps(schema.json_schema(), indent=2, ensure_ascii=False) + "\n"),
        ("configuration.md", schema.reference()),
    ],
)
def test_the_written_files_are_current(name, text):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, (
        "run: python -m mcpx.config.schema --write"
    )


def test_every_field_of_every_struct_has_a_docstring():
    told = schema.descriptions()
    missing = [
        f"{kind.cls.__name__}.{field.name}"
        for kind in schema.structs()
        for field in kind.fields
        if not told[kind.cls.__name__].get(field.name)
    ]
    assert missing == []


def test_every_struct_says_what_it_is():
    for kind in schema.structs():
        own = kind.cls.__dict__.get("__doc__")
        assert own
        assert own.strip().endswith(".")


def test_the_example_satisfies_the_schema():
    assert errors(EXAMPLE) == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted(GOLDEN.glob("*.yaml"))
        if path.with_suffix(".txt").read_text().startswith("ok") and path.stem not in LENIENT
    ],
    ids=lambda path: path.stem,
)
def test_what_loads_satisfies_the_schema(path):
    assert errors(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "lisen: ':1'",
        "auth: {enabled: yes}",
        "servers: {}",
        "servers: [{url: 'http://h/'}]",
        "limits: {max_depth: 0}",
        "timeouts: {read: soon}",
        "auth: {type: magic}",
        "auth: {token: ''}",
        "tls: {cert: x}",
    ],
)
def test_what_does_not_load_does_not_satisfy_it(text):
    assert errors(text)


@pytest.mark.parametrize(
    "text",
    [
        "timeouts: {read: 30s, write: 1h30m, drain: 2.5}",
        "auth: {enabled: '${ON}'}",
        "rate_limit: {rps: '${RPS:-5}'}",
        "servers: [{name: a, policy: {tool_rules: {t: {args: {a: {equals: 5}, b: {path_within: [/x]}}}}}}]",
    ],
)
def test_durations_variables_and_alternatives_satisfy_it(text):
    assert errors(text) == []


def test_defaults_are_shown_as_a_file_would_say_them():
    defs = schema.json_schema()["$defs"]
    assert defs["TimeoutsConfig"]["properties"]["stream_idle"]["default"] == "1h"
    assert defs["AuthConfig"]["properties"]["enabled"]["default"] is False
    assert "default" not in defs["ServerConfig"]["properties"]["url"]
    assert defs["ServerConfig"]["required"] == ["name"]


def test_the_reference_names_every_key_and_its_links_lead_somewhere():
    text = schema.reference()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("## ")
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= anchors
    for kind in schema.structs():
        for field in kind.fields:
            assert f"| `{field.encode_name}` | " in text


def test_the_reference_titles_are_unique():
    titles = [line for line in schema.reference().splitlines() if line.startswith("## ")]
    assert len(titles) == len(set(titles))


def test_the_command_prints_the_schema_and_writes_nothing_by_itself(capsys):
    assert schema.main([]) == 0
    assert json.loads(capsys.readouterr().out) == schema.json_schema()
    assert schema.main(["--help"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_command_writes_both_files(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_DOCS", tmp_path)
    assert schema.main(["--write"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mcpx.schema.json", "configuration.md"}
