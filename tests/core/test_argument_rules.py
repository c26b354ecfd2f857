import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steps import steps

from mcpx._speedups.frames import members
from mcpx.config.model import ArgumentRule
from mcpx.core import argument_rules
from mcpx.core.argument_rules import (
    ArgumentFault,
    ArgumentRules,
    Unreadable,
    Violation,
    read_arguments,
)
from mcpx.core.globs import fold


def rules(source):
    return ArgumentRules(msgspec.convert(source, dict[str, ArgumentRule]))


def says(source, arguments):
    """What the rules say about arguments: JSON text or a value; "" when they comply."""
    raw = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
    given = read_arguments(raw)
    assert given is not None
    found = rules(source).violation(given)
    return "" if found is None else f"{found.argument} {found.says}"


def complies(source, arguments):
    return not says(source, arguments)


NON_SCALAR = "a has a non-scalar value, which rules cannot evaluate"


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"equals": "x"}, "x", "xx"),
        ({"equals": ""}, "", " "),
        ({"equals": True}, True, False),
        ({"equals": 5}, 5, 6),
        ({"equals": 1.5}, 1.5, 1.25),
        ({"one_of": ["a", 2, False]}, 2, 3),
        ({"prefix": "ab"}, "abc", "xab"),
        ({"suffix": "yz"}, "xyz", "yzx"),
        ({"regex": "b+"}, "abba", "aca"),
        ({"full_match": "[a-z]+"}, "abc", "abc1"),
        ({"path_within": "/data"}, "/data/x", "/database"),
        ({"path_within": ["/data", "/tmp"]}, "/tmp/x", "/var"),
    ],
)
def test_a_constraint_admits_what_complies_and_names_itself_otherwise(rule, good, bad):
    (constraint,) = rule
    assert complies({"a": rule}, {"a": good})
    assert says({"a": rule}, {"a": bad}) == f"a violates {constraint} rule"


def test_all_constraints_must_hold_and_the_first_in_order_is_told():
    rule = {
        "a": {"full_match": "[a-z]+", "suffix": "z", "prefix": "a", "one_of": ["abz", "b", "ay"]}
    }
    assert complies(rule, {"a": "abz"})
    assert says(rule, {"a": "q"}) == "a violates one_of rule"
    assert says(rule, {"a": "b"}) == "a violates prefix rule"
    assert says(rule, {"a": "ay"}) == "a violates suffix rule"


def test_a_prefix_is_literal_and_a_regex_is_unanchored_and_a_full_match_is_not():
    assert not complies({"a": {"prefix": "a.c"}}, {"a": "abc"})
    assert complies({"a": {"regex": "SELECT "}}, {"a": "1; SELECT 2"})
    assert not complies({"a": {"full_match": "SELECT [a-z]+"}}, {"a": "SELECT a; DROP TABLE b"})
    assert not complies({"a": {"full_match": "a|ab"}}, {"a": "abc"})
    assert complies({"a": {"full_match": "a|ab"}}, {"a": "ab"})


def test_an_expression_ends_where_the_text_ends_and_not_at_a_line():
    for text in ("a\n", "a\nb", "b\na"):
        assert not complies({"a": {"regex": "^a$"}}, {"a": text})
        assert not complies({"a": {"full_match": "a.*"}}, {"a": text})


def test_an_absent_argument_passes_unless_it_is_required():
    assert complies({"a": {"equals": "x"}}, {})
    assert says({"a": {"equals": "x", "required": True}}, {}) == "a is missing"
    found = rules({"a": {"required": True}}).violation(read_arguments(b"{}"))
    assert found is not None
    assert (found.missing, found.constraint) == (True, "required")


def test_a_rule_may_require_and_nothing_else():
    assert complies({"a": {"required": True}}, {"a": "anything"})


@pytest.mark.parametrize("value", [{}, [], None, {"b": 1}, ["x"]])
def test_what_is_no_scalar_is_refused(value):
    assert says({"a": {"equals": "x"}}, {"a": value}) == NON_SCALAR


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("1", "1"), ("1.0", "1"), ("1e2", "100"), ("10e-1", "1"), ("1E+2", "100"), ("-0", "0"),
        ("-0.0", "0"), ("0e999999999999", "0"), ("1.50", "1.5"), ("-1.5e-3", "-0.0015"),
        ("9007199254740993", "9007199254740993"), ("0.1", "0.1"), ("1.25e1", "12.5"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1e-7", "0.0000001"), ("0.000001e6", "1"), ("100e-2", "1"),
    ],
)  # fmt: skip
def test_a_number_is_its_exact_decimal_text(number, text):
    raw = b'{"a":' + number.encode() + b"}"
    assert complies({"a": {"equals": text}}, raw)
    assert complies({"a": {"one_of": [text]}}, raw)


def test_neighbouring_large_numbers_are_told_apart():
    for rule in ({"equals": "9007199254740992"}, {"equals": 9007199254740992}):
        assert complies({"a": rule}, b'{"a":9007199254740992}')
        assert not complies({"a": rule}, b'{"a":9007199254740993}')
        assert complies({"a": rule}, b'{"a":9007199254740992.0}')
    assert not complies({"a": {"equals": 0.1}}, b'{"a":0.1000000000000000055511151231257827}')


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
)
def test_a_number_is_the_text_that_decimal_arithmetic_gives(number):
    exact = Decimal(number)
    text = format(exact, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    text = "0" if exact == 0 else text
    assert complies({"a": {"equals": text}}, b'{"a":' + number.encode() + b"}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_configured_float_equals_the_same_float(value):
    assert complies({"a": {"equals": value}}, {"a": value})


@pytest.mark.parametrize(
    "number",
    ["1e1200", "1e-1200", "1e999999999", "1e99999999999999999999", "7" * 5000, "0." + "7" * 5000],
)
def test_a_number_of_too_many_digits_is_refused_and_costs_nothing(number):
    text = says({"a": {"regex": "."}}, b'{"a":' + number.encode() + b"}")
    assert text == "a has a number of too many digits, which rules cannot evaluate"


def test_half_a_surrogate_pair_is_refused():
    # The front door accepts none; past it, none may be taken for something else.
    for source, text in (
        ({"a": {"regex": "."}}, b'{"a":"x\\ud800"}'),
        ({"a.b": {"regex": "."}}, b'{"a":{"b":"x\\ud800"}}'),
    ):
        try:
            assert says(source, text).endswith("not valid Unicode, which rules cannot evaluate")
        except Unreadable:
            pass
    assert complies({"a": {"equals": "😀"}}, b'{"a":"\\ud83d\\ude00"}')


@pytest.mark.parametrize(
    "key",
    [
        "PATH",
        "Path",
        "path ",
        " path",
        "ｐath",
        "pa\u200bth",
        "path\x00",
        "\ufeffpath",
        "paTh\u00ad",
    ],
)
def test_a_look_alike_of_a_ruled_key_is_refused_even_beside_the_key(key):
    rule = {"path": {"prefix": "/"}}
    assert says(rule, {key: "x"}) == "path has a look-alike key"
    assert says(rule, {"path": "/x", key: "x"}) == "path has a look-alike key"


def test_a_look_alike_is_noticed_at_every_depth():
    rule = {"o.path": {"prefix": "/"}}
    for arguments in ({"O": {}}, {"o": {"PATH": "/x"}}, {"O.path": 1}, {"o.PATH": 1}):
        assert says(rule, arguments) == "o.path has a look-alike key"


def test_a_key_too_long_to_be_folded_is_refused():
    assert not complies({"path": {"prefix": "/"}}, {"path" + "\u200b" * 2_000: 1})
    assert not complies({"path": {"prefix": "/"}}, {"path" + "\u0300\u0327" * 400: 1})
    assert complies({"path": {"prefix": "/"}}, {"p" * 100_000: 1})


def test_a_key_that_another_rule_names_is_no_look_alike():
    both = {"id": {"equals": "1"}, "ID": {"equals": "2"}}
    assert complies(both, {"id": 1, "ID": 2})
    assert says(both, {"id": 1, "ID": 1}) == "ID violates equals rule"
    assert not complies({"id": {"equals": "1"}, "x.ID": {"equals": "2"}}, {"ID": 1})


def test_more_keys_than_are_looked_through_are_refused():
    rule = {"a": {"equals": "x"}}
    many = {f"k{number}": 1 for number in range(10_000)}
    assert complies(rule, many)
    assert says(rule, {**many, "a": "x"}) == "a is among more keys than rules look through"
    assert complies({"*": {"regex": "1"}}, {**many, "a": 1})


def test_other_keys_are_left_alone():
    assert complies({"a": {"equals": "x"}}, {"a": "x", "b": [], "schlüssel": {}, "A1": 1, "é": 2})


def test_a_dotted_name_reaches_into_objects():
    rule = {"a.b.c": {"equals": "x"}}
    assert complies(rule, {"a": {"b": {"c": "x"}}})
    assert says(rule, {"a": {"b": {"c": "y"}}}) == "a.b.c violates equals rule"


def test_a_key_written_with_the_dots_is_judged_as_well():
    rule = {"a.b.c": {"equals": "x", "required": True}}
    assert complies(rule, {"a.b.c": "x"})
    for arguments in (
        {"a.b.c": "y"},
        {"a": {"b": {"c": "x"}}, "a.b.c": "y"},
        {"a.b.c": "x", "a": {"b": {"c": "y"}}},
        {"a.b": {"c": "y"}},
        {"a": {"b.c": "y"}},
    ):
        assert says(rule, arguments) == "a.b.c violates equals rule"


def test_a_star_is_every_element_and_every_member():
    rule = {"a.*": {"prefix": "/"}}
    assert complies(rule, {"a": ["/x", "/y"]})
    assert complies(rule, {"a": {"p": "/x", "q": "/y"}})
    assert not complies(rule, {"a": ["/x", "y"]})
    assert not complies(rule, {"a": {"p": "/x", "q": "y"}})
    assert not complies(rule, {"a": ["/x", ["/y"]]})
    deep = {"*.p": {"prefix": "/"}}
    assert complies(deep, {"a": [{"p": "x"}], "b": 1, "c": {"p": "/x"}}) is False
    assert complies(deep, {"b": 1, "c": {"p": "/x"}})


def test_with_a_star_a_required_argument_must_be_in_every_element():
    rule = {"a.*.p": {"prefix": "/", "required": True}}
    assert complies(rule, {"a": [{"p": "/x"}, {"p": "/y"}]})
    for arguments in ({}, {"a": []}, {"a": {}}, {"a": [{"p": "/x"}, {}]}, {"a": [{"p": "/x"}, 1]}):
        assert says(rule, arguments) == "a.*.p is missing"
    assert says(rule, {"a": [{}, {"p": "y"}]}) == "a.*.p violates prefix rule"


def test_an_array_without_a_star_is_refused():
    assert not complies({"a.b": {"prefix": "/"}}, {"a": [{"b": "/x"}]})
    assert not complies({"a.b": {"prefix": "/"}}, {"a": []})
    assert not complies({"a.0": {"prefix": "/"}}, {"a": ["x"]})


@pytest.mark.parametrize("value", [1, True, None, "text", ""])
def test_below_a_scalar_the_argument_is_absent(value):
    assert complies({"a.b": {"prefix": "/"}}, {"a": value})
    rule = {"a.b": {"prefix": "/", "required": True}}
    assert says(rule, {"a": value}) == "a.b is missing"


@pytest.mark.parametrize("value", ['{"b":"etc"}', ' \n["x"]', "{"])
def test_text_that_a_server_might_parse_as_an_object_is_refused(value):
    text = says({"a.b": {"prefix": "/"}}, {"a": value})
    assert text == "a.b has text where the rule expects an object, which rules cannot evaluate"
    assert not complies({"a.*": {"prefix": "/"}}, {"a": value})


def test_rules_are_asked_in_the_order_of_the_configuration():
    source = {"b": {"equals": "1"}, "a": {"equals": "1"}}
    assert says(source, {"a": 2, "b": 2}) == "b violates equals rule"


@pytest.mark.parametrize(
    "raw", [b"[]", b'"x"', b"1", b"null", b"", b"\xff", b'{"a":NaN}', b"[" * 100_000]
)
def test_what_is_no_object_can_not_be_read(raw):
    assert read_arguments(raw) is None


@pytest.mark.parametrize(
    "value", [b"[NaN]", b"[1}", b'{"b":\xff}', b"[" * 100_000 + b"]" * 100_000]
)
def test_a_value_that_can_not_be_decoded_is_unreadable_to_a_rule_about_it(value):
    given = read_arguments(b'{"x":1,"a":' + value + b"}")
    assert rules({"x": {"equals": 1}}).violation(given) is None
    with pytest.raises(Unreadable):
        rules({"a.b": {"equals": 1}}).violation(given)


def test_absent_arguments_are_an_empty_object():
    given = read_arguments(None)
    assert rules({"a": {"equals": 1}}).violation(given) is None
    assert rules({"a": {"required": True}}).violation(given).missing


def test_only_what_a_rule_names_is_decoded_and_once(monkeypatch):
    decoded = []
    decode = argument_rules._decode

    def noticed(text):
        decoded.append(text)
        return decode(text)

    monkeypatch.setattr(argument_rules, "_decode", noticed)
    given = read_arguments(b'{"a":{"b":1},"c":{"d":[1,2,3]},"e":5}')
    for _ in range(2):
        assert rules({"a.b": {"equals": 1}, "z": {"equals": 1}}).violation(given) is None
    assert decoded == [b'{"b":1}']


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ({"a": {}}, ("a",), "has no constraint"),
        ({"a": {"required": False}}, ("a",), "has no constraint"),
        ({"a": {"regex": "(?=x)"}}, ("a", "regex"), "is no RE2 expression: invalid perl operator: (?="),
        ({"a": {"full_match": "a("}}, ("a", "full_match"), "is no RE2 expression: missing ): a("),
        ({"a": {"regex": "a\ud800"}}, ("a", "regex"), "is not valid Unicode"),
        ({"a": {"regex": ""}}, ("a", "regex"), "is empty"),
        ({"a": {"prefix": ""}}, ("a", "prefix"), "is empty"),
        ({"a": {"suffix": ""}}, ("a", "suffix"), "is empty"),
        ({"a": {"one_of": []}}, ("a", "one_of"), "is empty"),
        ({"a": {"path_within": []}}, ("a", "path_within"), "is empty"),
        ({"a": {"path_within": "data"}}, ("a", "path_within"), "is not absolute"),
        ({"a": {"path_within": ["/a", "b"]}}, ("a", "path_within", 1), "is not absolute"),
        ({"a": {"equals": float("inf")}}, ("a", "equals"), "is not a finite number of bearable length"),
        ({"a": {"equals": float("nan")}}, ("a", "equals"), "is not a finite number of bearable length"),
        ({"a": {"one_of": [1, 10**5000]}}, ("a", "one_of", 1), "is not a finite number of bearable length"),
        ({"": {"equals": 1}}, ("",), "has an empty part"),
        ({"a..b": {"equals": 1}}, ("a..b",), "has an empty part"),
        ({"a.b*": {"equals": 1}}, ("a.b*",), "has `*` within a part"),
        ({".".join("a" * 33): {"equals": 1}}, (".".join("a" * 33),), "has more than 32 parts"),
    ],
)  # fmt: skip
def test_a_rule_that_can_not_be_compiled_says_where_and_why(source, path, message):
    with pytest.raises(ArgumentFault) as raised:
        ArgumentRules({name: ArgumentRule(**rule) for name, rule in source.items()})
    assert raised.value.path == path
    assert raised.value.message == message
    assert raised.value.hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6) | st.sampled_from(["/data/x", "{", "a"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "A", "a.b", "*", "é", "a.*.b"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "A", "a.b", "a.*.b", "x"]), json_values, max_size=4)
)
def test_no_arguments_raise_and_what_complies_holds_only_complying_texts(arguments):
    source = {
        "a": {"regex": "^[a-z/]*$"},
        "a.b": {"path_within": "/data", "required": True},
        "a.*.b": {"equals": "a"},
        "*.b": {"suffix": "x"},
    }
    for name, rule in source.items():
        if complies({name: rule}, arguments):
            value = arguments.get(name, "a")
            if name == "a":
                assert isinstance(value, (str, bool, int, float))
                if isinstance(value, str):
                    assert set(value) <= set("abcdefghijklmnopqrstuvwxyz/")


def test_a_wide_text_is_walked_to_its_end():
    arguments = {"a": [{"b": i} for i in range(20_000)]}
    rule = {"a.*.b": {"full_match": "[0-9]+"}}
    assert complies(rule, arguments)
    arguments["a"].append({"b": "x"})
    assert not complies(rule, arguments)


# The walk of all rules at once against each rule by itself

ABSENT = object()


def alone(name, rule, known, arguments):
    """What one rule says, by the words of the module's head and nothing quicker."""
    path = name.split(".")
    whole = ArgumentRules({"v": ArgumentRule(**rule)}) if set(rule) - {"required"} else None

    class Found(Exception):
        pass

    def judge(value):
        if isinstance(value, (dict, list)) or value is None:
            raise Found("", "has a non-scalar value, which rules cannot evaluate")
        if whole is not None:
            found = whole.violation(read_arguments(json.dumps({"v": value}).encode()))
            if found is not None:
                raise Found(found.constraint, found.says)
        return

    def every(values, depth):
        findings = [look(value, depth) for value in values]
        return ABSENT if not findings or ABSENT in findings else None

    def look(value, depth):
        if depth == len(path):
            return judge(value)
        star = path[depth] == "*"
        if isinstance(value, dict) and star:
            return every(value.values(), depth + 1)
        if isinstance(value, dict):
            keys = {".".join(path[depth:end]): end for end in range(depth + 1, len(path) + 1)}
            finding = ABSENT
            for key, member in value.items():
                if key in keys:
                    if look(member, keys[key]) is None:
                        finding = None
                elif key not in known[tuple(path[:depth])] and fold(key) in set(map(fold, keys)):
                    raise Found("", "has a look-alike key")
            return finding
        if isinstance(value, list):
            if star:
                return every(value, depth + 1)
            raise Found("", "has a non-scalar value, which rules cannot evaluate")
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            raise Found(
                "", "has text where the rule expects an object, which rules cannot evaluate"
            )
        return ABSENT

    try:
        finding = look(arguments, 0)
    except Found as found:
        return Violation(name, *found.args)
    if finding is ABSENT and rule.get("required"):
        return Violation(name, "required", "is missing", missing=True)
    return None


def one_by_one(source, arguments):
    known = {}
    for name in source:
        path = name.split(".")
        for depth in range(len(path)):
            if path[depth] != "*":
                for end in range(depth + 1, len(path) + 1):
                    known.setdefault(tuple(path[:depth]), set()).add(".".join(path[depth:end]))
            known.setdefault(tuple(path[:depth]), set())
    for name, rule in source.items():
        found = alone(name, rule, known, arguments)
        if found is not None:
            return found
    return None


rule_sets = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "A", "c", "*"]), min_size=1, max_size=3).map(".".join),
    st.sampled_from(
        [
            {"equals": 1},
            {"equals": "a", "required": True},
            {"required": True},
            {"prefix": "/"},
            {"path_within": "/data"},
        ]
    ),
    min_size=1,
    max_size=5,
)
ruled_keys = st.sampled_from(["a", "b", "A", "c", "a.b", "B.a", "*", "a.*", "ａ", "x", "b.c.a"])
ruled_values = st.recursive(
    st.sampled_from([1, 2, True, None, "a", "/data/x", "/", "{", "[1]", 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ruled_keys, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=1500)
@given(rule_sets, st.dictionaries(ruled_keys, ruled_values, max_size=4))
def test_all_rules_at_once_say_what_the_first_violated_one_says_alone(source, arguments):
    raw = json.dumps(arguments).encode()
    assert rules(source).violation(read_arguments(raw)) == one_by_one(source, arguments)


def test_the_walk_costs_what_the_arguments_hold_and_not_what_the_rules_are():
    def opcodes(count):
        tool = rules(
            {
                **{f"k{number}": {"equals": 1} for number in range(count)},
                **{f"deep.k{number}.x": {"equals": 1} for number in range(count)},
                **{f"*.z{number}": {"equals": 1} for number in range(count)},
            }
        )
        raw = b'{"k3":1,"deep":{"k4":{"x":1},"y":[1]},"other":{"z5":1}}'
        with steps() as taken:
            assert tool.violation(read_arguments(raw)) is None
        return taken()

    assert opcodes(3_000) == opcodes(10)


@pytest.mark.parametrize("raw", [b"{}", b'{"a":1}', b'{"a":1,"b":"x","c":[{}]}'])
def test_the_members_are_those_of_the_text(raw):
    assert read_arguments(raw).members == members(raw, 0)
