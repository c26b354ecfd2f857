"""Values against the structs' types, without any field known by name."""

from __future__ import annotations

import pytest
from msgspec.inspect import StructType, type_info

from mcpx.config.expand import expand
from mcpx.config.model import Config, Duration
from mcpx.config.schema import structs
from mcpx.config.shape import Shape
from mcpx.config.yaml_text import read_yaml
from mcpx.secret import Secret


def shape(text, environ=None):
    document = read_yaml(text)
    return Shape(document, expand(document.value, environ or {}))


def problems(text, environ=None):
    return [(fault.path, fault.message, fault.hint) for fault in shape(text, environ).faults]


def path_to(kind):
    """A path from the root to a section, through list items and names."""
    from msgspec.inspect import DictType, ListType, UnionType

    def visit(at, path):
        if isinstance(at, StructType):
            if at.cls is kind.cls:
                return path
            for field in at.fields:
                found = visit(field.type, (*path, field.encode_name))
                if found is not None:
                    return found
        elif isinstance(at, ListType):
            return visit(at.item_type, (*path, 0))
        elif isinstance(at, DictType):
            return visit(at.value_type, (*path, "name"))
        elif isinstance(at, UnionType):
            return next((f for m in at.types if (f := visit(m, path)) is not None), None)
        return None

    return visit(type_info(Config), ())


def tree_at(path, leaf):
    for step in reversed(path):
        leaf = [leaf] if step == 0 else {step: leaf}
    return leaf


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.cls.__name__)
def test_an_unknown_key_of_any_section_is_told_with_its_path(kind):
    import json

    path = path_to(kind)
    found = problems(json.dumps(tree_at(path, {"no_such_key_": 1})))
    assert ((*path, "no_such_key_"), "unknown key") in [entry[:2] for entry in found]


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.cls.__name__)
def test_a_section_that_is_no_mapping_is_told_without_its_text(kind):
    import json

    path = path_to(kind)
    found = problems(json.dumps(tree_at(path, "hidden")))
    assert (path, "expected a mapping of settings, found text", "") in found
    assert "hidden" not in str(found)


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.cls.__name__)
def test_every_field_of_every_section_refuses_a_value_of_another_shape(kind):
    import json

    for field in kind.fields:
        path = (*path_to(kind), field.encode_name)
        for wrong in ([[[]]], {"a": {"b": {"c": []}}}):
            found = problems(json.dumps(tree_at(path, wrong)))
            assert any(entry[0][: len(path)] == path for entry in found)


def test_everything_wrong_is_told_at_once():
    found = problems("listen: []\nservers: [{nam: x}]\nhttp2: 1\nzzz: 1\n")
    assert [entry[0] for entry in found] == [
        ("listen",),
        ("servers", 0, "nam"),
        ("servers", 0, "name"),
        ("http2",),
        ("zzz",),
    ]


def test_a_key_of_the_section_below_is_told_where_it_belongs():
    assert problems("servers: [{name: a, deny_tools: [x]}]\n") == [
        (("servers", 0, "deny_tools"), "unknown key", "did you mean policy.deny_tools?")
    ]


def test_text_takes_numbers_and_truth_values_as_they_were_written():
    config = shape(
        "servers: [{name: 1.10, args: [8080, true, 0x1F, 1e3], env: {3000: 007}}]\n"
        "auth: {token: 0123456789}\n"
    ).config
    server = config.servers[0]
    assert (server.name, server.args, server.env) == (
        "1.10", ["8080", "true", "0x1F", "1e3"], {"3000": "007"},
    )  # fmt: skip
    assert config.auth.token == Secret("0123456789")


def test_scalars_of_rules_keep_their_type():
    config = shape(
        "servers: [{name: a, policy: {tool_rules: {t: {args: {"
        "x: {one_of: [1, 1.5, true, '1', yes, 9007199254740993]}, y: {equals: 5}}}}}}]\n"
    ).config
    args = config.servers[0].policy.tool_rules["t"].args
    assert args["x"].one_of == [1, 1.5, True, "1", "yes", 9007199254740993]
    assert [type(value) for value in args["x"].one_of] == [int, float, bool, str, str, int]
    assert args["y"].equals == 5


def test_a_text_or_a_list_is_either():
    for written, read in (("/a", "/a"), ("[/a, /b]", ["/a", "/b"])):
        config = shape(
            f"servers: [{{name: a, policy: {{tool_rules: {{t: {{args: {{x: {{path_within: {written}}}}}}}}}}}}}]\n"
        ).config
        assert config.servers[0].policy.tool_rules["t"].args["x"].path_within == read


def test_durations_and_secrets_have_their_types():
    config = shape("timeouts: {read: 1m, write: 2.5}\nsessions: {key: abc}\n").config
    assert config.timeouts.read == Duration(60)
    assert type(config.timeouts.read) is Duration
    assert config.timeouts.write == 2.5
    assert repr(config.sessions.key) == "***"


def test_variables_may_be_numbers_and_truth_values_where_these_are_wanted():
    environ = {"ON": "True", "N": "5", "F": "2.5"}
    config = shape(
        "http2: ${ON}\nrate_limit: {burst: '${N}', rps: '${F}'}\nallowed_hosts: ['${N}']\n", environ
    ).config
    assert config.http2 is True
    assert config.rate_limit.burst == 5
    assert config.rate_limit.rps == 2.5
    assert config.allowed_hosts == ["5"]


@pytest.mark.parametrize("value", ["yes", "1", "", "hidden", "0x10", "1e400", "nan", "９"])
def test_a_variable_of_another_type_is_refused_and_not_shown(value):
    found = problems(
        "http2: '${V}'\ntimeouts: {read: '${V}'}\nlog: {level: '${V}'}\n", {"V": value}
    )
    assert {entry[0] for entry in found} == {("http2",), ("timeouts", "read"), ("log", "level")}
    assert "hidden" not in str(found)


def test_a_section_with_nothing_in_it_is_empty_and_a_list_or_value_is_a_fault():
    assert shape("auth:\naudit: ~\nclients:\n").config is not None
    assert [entry[0] for entry in problems("allowed_hosts:\nlisten:\nauth: {enabled: }\n")] == [
        ("allowed_hosts",),
        ("listen",),
        ("auth", "enabled"),
    ]


@pytest.mark.parametrize("text", ["''", "[hidden]", "{a: hidden}", "~"])
def test_a_secret_that_is_none_is_refused_and_not_shown(text):
    found = problems(f"auth: {{token: {text}}}\n")
    assert [entry[0] for entry in found] == [("auth", "token")]
    assert "hidden" not in str(found)


def test_whole_numbers_have_bounds():
    assert problems("limits: {max_depth: 9223372036854775808}\n")
    assert problems("limits: {max_depth: -9223372036854775809}\n")
    assert problems("limits: {max_depth: 1.5}\n")
    assert shape("limits: {max_depth: 64.0}\n").config.limits.max_depth == 64


def test_a_duration_as_a_number_has_a_bound():
    assert problems("timeouts: {read: 1e300}\n")
    assert problems("timeouts: {read: true}\n")
