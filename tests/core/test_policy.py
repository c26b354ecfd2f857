"""What may be called: every list and rule, each through the one function that decides.

It is long because the remembered way and the long way are held to the same tables.
"""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.steps import steps

from mcpx.config.model import PolicyConfig
from mcpx.core import policy as module
from mcpx.core.argument_rules import Unreadable, read_arguments
from mcpx.core.policy import ALLOW, LONGEST_NAME, Kind, PolicyFault, both, compile_policy
from mcpx.protocol.mcp import CLIENT_METHODS, TARGETS


def policy(client=None, server="s", **source):
    return compile_policy(server, msgspec.convert(source, PolicyConfig), client=client)


def call(judge, tool, arguments=None):
    raw = arguments if arguments is None or isinstance(arguments, bytes) else json.dumps(arguments)
    raw = raw.encode() if isinstance(raw, str) else raw
    return judge.decide("tools/call", Kind.TOOL, tool, raw)


def read(judge, uri):
    return judge.decide("resources/read", Kind.RESOURCE, uri, None)


def rule(**args):
    return {"args": args}


# Order and reasons


def test_a_policy_that_says_nothing_allows_the_protocol():
    empty = policy()
    assert call(empty, "t", {"a": 1}) == ALLOW
    assert read(empty, "file:///etc/passwd") == ALLOW
    assert empty.decide("prompts/get", Kind.PROMPT, "p", None) == ALLOW
    for method in CLIENT_METHODS - TARGETS.keys():
        assert empty.decide(method, None, None, None) == ALLOW
    assert not empty.restricts_lists


def test_each_refusal_names_the_tool_the_server_and_the_rule():
    judge = policy(
        allow_tools=["t", "denied"],
        deny_tools=["denied"],
        tool_rules={"t": rule(a={"required": True, "prefix": "x"})},
    )
    for found, reason, setting in (
        (call(policy(read_only=True), "t"),
         'server "s" is in read-only mode: tools/call is blocked', "read_only"),
        (call(judge, "denied"), 'tool "denied" is denied on server "s"', "deny_tools"),
        (call(judge, "u"), 'tool "u" not in allow list for "s"', "allow_tools"),
        (call(judge, "t"), 'tool "t" on server "s": required argument "a" is missing',
         "tool_rules.t.args.a.required"),
        (call(judge, "t", {"a": []}),
         'tool "t" argument "a" has a non-scalar value, which rules cannot evaluate',
         "tool_rules.t.args.a"),
        (call(judge, "t", {"a": "y"}), 'tool "t" argument "a" violates prefix rule',
         "tool_rules.t.args.a.prefix"),
        (call(judge, "t", {"a": "x", "A": "x"}), 'tool "t" argument "a" has a look-alike key',
         "tool_rules.t.args.a"),
        (call(judge, "t", b"[]"), 'tool "t" has arguments that rules cannot evaluate',
         "tool_rules.t"),
    ):  # fmt: skip
        assert found == (False, reason, setting)
    assert call(judge, "t", {"a": "xy"}) == ALLOW


@pytest.mark.parametrize(
    ("constraint", "value"),
    [("equals", "x"), ("one_of", ["x"]), ("prefix", "x"), ("suffix", "x"), ("regex", "x"),
     ("full_match", "x"), ("path_within", "/x")],
)  # fmt: skip
def test_a_violated_rule_is_named(constraint, value):
    found = call(policy(tool_rules={"t": rule(a={constraint: value})}), "t", {"a": "q"})
    assert found.reason == f'tool "t" argument "a" violates {constraint} rule'


def test_read_only_comes_before_the_deny_list_and_deny_before_allow_and_allow_before_arguments():
    rules = {"t": rule(a={"required": True})}
    assert call(policy(read_only=True, deny_tools=["t"]), "t").rule == "read_only"
    assert call(policy(deny_tools=["t"], allow_tools=["u"]), "t").rule == "deny_tools"
    assert call(policy(allow_tools=["u"], tool_rules=rules), "t").rule == "allow_tools"
    assert call(policy(deny_methods=["tools/*"], read_only=True), "t").rule == "deny_methods"


def test_read_only_blocks_tool_calls_and_nothing_else():
    judge = policy(read_only=True)
    assert not call(judge, "t").allowed
    assert read(judge, "file:///x").allowed
    assert judge.decide("prompts/get", Kind.PROMPT, "p", None).allowed
    assert judge.decide("tools/list", None, None, None).allowed


def test_a_clients_reason_says_that_it_is_the_clients():
    judge = policy(client="c", deny_tools=["t"], allow_prompts=["p"])
    assert call(judge, "t").reason == 'client "c": tool "t" is denied on server "s"'
    refused = judge.decide("prompts/get", Kind.PROMPT, "q", None)
    assert refused.reason == 'client "c": prompt "q" not in allow list for "s"'


def test_resources_and_prompts_have_lists_of_their_own():
    judge = policy(
        deny_resources=["file:///etc/*"], allow_resources=["file:///*"], deny_prompts=["p"]
    )
    assert read(judge, "file:///data/x") == ALLOW
    assert read(judge, "file:///etc/x") == (
        False, 'resource "file:///etc/x" is denied on server "s"', "deny_resources",
    )  # fmt: skip
    assert read(judge, "http://h/").reason == 'resource "http://h/" not in allow list for "s"'
    found = judge.decide("completion/complete", Kind.TEMPLATE, "file:///etc/{x}", None)
    assert found.reason == 'resource template "file:///etc/{x}" is denied on server "s"'
    found = judge.decide("completion/complete", Kind.PROMPT, "P", None)
    assert found == (False, 'prompt "P" is denied on server "s"', "deny_prompts")


def test_a_uri_that_can_not_be_judged_is_denied_where_there_is_something_to_judge():
    uri = "file:///%" + "25" * 20 + "41"
    assert read(policy(), uri) == ALLOW
    found = read(policy(deny_resources=["x"]), uri)
    assert not found.allowed
    assert "encoded too often" in found.reason


def test_a_subscription_is_judged_like_a_read():
    judge = policy(deny_resources=["file:///etc/*"])
    for method in ("resources/subscribe", "resources/unsubscribe", "subscriptions/listen"):
        assert not judge.decide(method, Kind.RESOURCE, "file:///a/../etc/x", None).allowed
        assert judge.decide(method, Kind.RESOURCE, "file:///data/x", None).allowed


# Names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * (LONGEST_NAME + 1),
        "a\nb",
        "a\x00",
        "\x7f",
        "a\x85",
        "a\ud800",
        "e" + "\u0301" * 31,
    ],
)
def test_an_improper_name_is_denied_whatever_the_policy(name):
    for judge in (policy(), policy(allow_tools=["*"])):
        found = call(judge, name)
        assert not found.allowed
        assert found.reason.endswith(" is not a valid name")
        assert found.reason.isprintable()
        assert len(found.reason) < 300
        assert not judge.visible(Kind.TOOL, name)
        assert not judge.decide("prompts/get", Kind.PROMPT, name, None).allowed
        assert not judge.decide(name, None, None, None).allowed


def test_a_name_of_the_greatest_length_is_proper():
    assert call(policy(), "a" * LONGEST_NAME).allowed


def test_an_improper_uri_is_denied_whatever_the_policy():
    for uri in ("", "file:///a\n", "x" * 8193):
        assert read(policy(), uri).reason.endswith(" is not a valid URI")


def test_a_name_can_not_disguise_itself_in_a_reason():
    found = call(policy(deny_tools=["*"]), 'x" is allowed\u202e')
    assert found.reason == 'tool "x\\" is allowed\\u202e" is denied on server "s"'


@pytest.mark.parametrize("name", ["Delete", "delete ", "ｄelete", "dele\u200bte", "DELETE"])
def test_a_look_alike_of_a_denied_tool_is_denied_and_of_an_allowed_one_is_not_allowed(name):
    assert call(policy(deny_tools=["delete"]), name).rule == "deny_tools"
    assert call(policy(deny_tools=["del*"]), name).rule == "deny_tools"
    assert call(policy(allow_tools=["delete"]), name).rule == "allow_tools"
    rules = {"delete": rule(a={"required": True})}
    assert not call(policy(tool_rules=rules), name, {}).allowed


def test_all_rules_whose_glob_matches_a_tool_apply():
    judge = policy(
        tool_rules={
            "*": rule(a={"prefix": "x"}),
            "w*": rule(a={"suffix": "y"}),
            "r": rule(b={"equals": 1}),
        }
    )
    assert call(judge, "w", {"a": "xy"}).allowed
    assert call(judge, "w", {"a": "x"}).rule == "tool_rules.w*.args.a.suffix"
    assert call(judge, "r", {"a": "q"}).rule == "tool_rules.*.args.a.prefix"
    assert call(judge, "r", {"a": "x", "b": 2}).rule == "tool_rules.r.args.b.equals"


def test_a_tool_without_argument_rules_has_its_arguments_left_unread():
    judge = policy(tool_rules={"t": rule(a={"equals": 1})}, deny_tools=["x"])
    assert call(judge, "u", b"\xff not json") == ALLOW
    assert not call(judge, "t", b"\xff not json").allowed


def test_arguments_that_can_not_be_decoded_are_refused():
    judge = policy(tool_rules={"t": rule(a={"equals": 1}), "*": rule(b={"required": True})})
    said = 'tool "t" has arguments that rules cannot evaluate'
    for raw in (b"[]", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        assert call(judge, "t", raw) == (False, said, "tool_rules.t")


def test_a_memory_that_overflows_changes_no_decision():
    judge = policy(deny_tools=["n7*"])
    for _ in range(2):
        for number in range(9_000):
            name = f"n{number}"
            assert call(judge, name).allowed is not name.startswith("n7")


@pytest.fixture
def judged(monkeypatch):
    """The names that are judged, and not remembered."""
    names = []
    course = module.Policy._course

    def noticed(self, method, kind, name):
        names.append(name)
        return course(self, method, kind, name)

    monkeypatch.setattr(module.Policy, "_course", noticed)
    return names


def test_a_name_in_use_outlasts_a_flood_of_new_ones(judged):
    judge = policy(deny_tools=["d*"], tool_rules={"hot": rule(a={"equals": 1})})
    for number in range(20_000):
        if number % 1_000 == 0:
            assert call(judge, "hot", {"a": 1}) == ALLOW
            assert not call(judge, "hot", {"a": 2}).allowed
        assert call(judge, f"n{number}").allowed
        assert len(judge._courses) <= 4096
    assert judged.count("hot") == 1


def test_what_is_not_in_use_is_forgotten_and_judged_anew(judged):
    judge = policy(deny_tools=["cold"])
    for _ in range(2):
        assert not call(judge, "cold").allowed
        for number in range(5_000):
            call(judge, f"n{number}")
    assert judged.count("cold") == 2


def test_long_names_and_methods_are_not_kept(judged):
    judge = policy(allow_methods=["*"])
    for _ in range(2):
        call(judge, "x" * 257)
        judge.decide("m" * 257, None, None, None)
        judge.visible(Kind.TOOL, "x" * 257)
    assert judged == ["x" * 257, None] * 2
    assert len(judge._courses) == len(judge._shown) == 0
    assert not any("m" * 257 in layer._remembered_methods.recent for layer in judge.layers)


def test_no_memory_grows_without_end():
    judge = policy(allow_methods=["*"])
    for number in range(10_000):
        judge.decide(f"m{number}", None, None, None)
        judge.visible(Kind.TOOL, f"n{number}")
    memories = [judge._courses, judge._shown, judge.layers[0]._remembered_methods]
    assert all(len(memory) <= 4096 for memory in memories)


# Methods


@pytest.mark.parametrize(
    "method", ["acme/steal", "rpc.discover", "sampling/createMessage", "Ping2"]
)
def test_a_method_outside_the_protocol_is_denied_unless_it_is_allowed(method):
    found = policy().decide(method, None, None, None)
    assert found == (False, f'method "{method}" not in allow list for "s"', "allow_methods")
    assert policy(allow_methods=[method]).decide(method, None, None, None).allowed
    assert policy(allow_methods=["*"]).decide(method, None, None, None).allowed


@pytest.mark.parametrize(
    "method", ["Tools/Call", "tools/call ", "tools/call\u200b", "TOOLS/CALL", "tool\u017f/call"]
)
def test_a_look_alike_of_a_method_of_the_protocol_can_not_be_allowed(method):
    found = policy(allow_methods=["*", method]).decide(method, None, None, None)
    assert not found.allowed
    assert found.reason.endswith('looks like "tools/call"')


def test_denied_methods_are_denied_whatever_else_holds():
    judge = policy(
        deny_methods=["logging/*", "initialize", "acme/x"], allow_methods=["acme/*", "logging/*"]
    )
    for method in ("logging/setLevel", "initialize", "acme/x", "ACME/X"):
        found = judge.decide(method, None, None, None)
        assert found.rule == "deny_methods"
        assert found.reason.endswith(' is denied on server "s"')
    assert judge.decide("acme/y", None, None, None).allowed
    assert judge.decide("ping", None, None, None).allowed


@pytest.mark.parametrize("method", sorted(TARGETS))
def test_a_method_that_must_name_something_is_denied_without_a_name(method):
    kind = Kind(TARGETS[method])
    assert policy().decide(method, kind, "x:y", None).allowed
    for wrong, name in ((None, None), (None, "x"), (kind, None), (Kind.TEMPLATE, "x")):
        found = policy().decide(method, wrong, name, None)
        assert found.reason == f'method "{method}" names no {kind.value}'


def test_a_client_need_not_repeat_the_methods_that_the_server_allows():
    server, client = policy(allow_methods=["acme/*"]), policy(client="c", deny_tools=["t"])
    assert both(server, client).decide("acme/x", None, None, None).allowed
    assert not both(policy(), client).decide("acme/x", None, None, None).allowed
    strict = policy(client="c", allow_methods=["acme/y"])
    found = both(server, strict).decide("acme/x", None, None, None)
    assert found.reason == 'client "c": method "acme/x" not in allow list for "s"'


# Lists


def test_what_may_not_be_called_is_not_seen():
    judge = policy(
        allow_tools=["a*"], deny_tools=["ab"], tool_rules={"a": rule(x={"required": True})}
    )
    assert judge.visible(Kind.TOOL, "a")
    assert not judge.visible(Kind.TOOL, "ab")
    assert not judge.visible(Kind.TOOL, "b")
    assert judge.restricts_lists


def test_read_only_hides_all_tools():
    judge = policy(read_only=True)
    assert not judge.visible(Kind.TOOL, "a")
    assert judge.visible(Kind.PROMPT, "a")
    assert judge.restricts_lists


def test_argument_rules_hide_nothing():
    judge = policy(tool_rules={"*": rule(x={"required": True})})
    assert judge.visible(Kind.TOOL, "a")
    assert not judge.restricts_lists


def test_a_denied_method_hides_what_it_would_use():
    judge = policy(deny_methods=["tools/call", "resources/read"])
    assert judge.restricts_lists
    assert not judge.visible(Kind.TOOL, "a")
    assert not judge.visible(Kind.RESOURCE, "a:b")
    assert not judge.visible(Kind.TEMPLATE, "a:{b}")
    assert judge.visible(Kind.PROMPT, "a")
    assert not policy(deny_methods=["logging/*"]).restricts_lists


@pytest.mark.parametrize(
    "setting",
    [
        "allow_tools",
        "deny_tools",
        "allow_resources",
        "deny_resources",
        "allow_prompts",
        "deny_prompts",
    ],
)
def test_each_list_restricts_what_is_listed(setting):
    assert policy(**{setting: ["x"]}).restricts_lists


def test_the_literal_names_of_tools_are_known():
    judge = policy(
        allow_tools=["a", "b*"],
        deny_tools=["c", "?"],
        tool_rules={"d": rule(x={"equals": 1}), "*": {}},
    )
    assert judge.tool_names == {"a", "c", "d"}
    assert both(judge, policy(client="c", deny_tools=["e"])).tool_names == {"a", "c", "d", "e"}


def test_a_policy_describes_itself_for_health():
    judge = policy(allow_tools=["a", "b*"], deny_tools=["c"])
    assert judge.describe() == {"read_only": False, "allow_tools": ["a", "b*"], "deny_tools": ["c"]}
    combined = both(judge, policy(client="c", read_only=True, deny_tools=["c", "d"])).describe()
    assert combined == {"read_only": True, "allow_tools": ["a", "b*"], "deny_tools": ["c", "d"]}


# Two layers


def test_both_must_allow_and_the_servers_reason_comes_first():
    judge = both(
        policy(deny_tools=["t"]), policy(client="c", deny_tools=["t", "u"], read_only=False)
    )
    assert call(judge, "t").reason == 'tool "t" is denied on server "s"'
    assert call(judge, "u").reason == 'client "c": tool "u" is denied on server "s"'
    assert call(judge, "v") == ALLOW
    assert not judge.visible(Kind.TOOL, "u")
    assert judge.restricts_lists


def test_the_argument_rules_of_both_hold():
    judge = both(
        policy(tool_rules={"t": rule(a={"prefix": "x"})}),
        policy(client="c", tool_rules={"t": rule(a={"suffix": "y"})}),
    )
    assert call(judge, "t", {"a": "xy"}) == ALLOW
    assert call(judge, "t", {"a": "y"}).reason == 'tool "t" argument "a" violates prefix rule'
    refused = call(judge, "t", {"a": "x"})
    assert refused.reason == 'client "c": tool "t" argument "a" violates suffix rule'


# Faults


def unchecked(source):
    """The settings as they are, texts that no YAML file could hold included."""
    rules = msgspec.convert({"tool_rules": source.get("tool_rules", {})}, PolicyConfig)
    return PolicyConfig(**{**source, "tool_rules": rules.tool_rules})


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"allow_tools": ["a", ""]}, ("allow_tools", 1)),
        ({"deny_tools": [""]}, ("deny_tools", 0)),
        ({"deny_resources": ["\ufdd0"]}, ("deny_resources", 0)),
        ({"allow_resources": ["file:///%" + "25" * 20 + "41"]}, ("allow_resources", 0)),
        ({"deny_prompts": ["x" * 10_000]}, ("deny_prompts", 0)),
        ({"allow_methods": [""]}, ("allow_methods", 0)),
        ({"deny_methods": ["a\ud800"]}, ("deny_methods", 0)),
        ({"tool_rules": {"": rule(a={"equals": 1})}}, ("tool_rules", "")),
        ({"tool_rules": {"write": rule(path={"regex": "("})}},
         ("tool_rules", "write", "args", "path", "regex")),
        ({"tool_rules": {"w": rule(p={"path_within": ["/a", "b"]})}},
         ("tool_rules", "w", "args", "p", "path_within", 1)),
        ({"tool_rules": {"write": rule(path={})}}, ("tool_rules", "write", "args", "path")),
    ],
)  # fmt: skip
def test_a_policy_that_can_not_be_compiled_says_where_why_and_what_to_do(source, path):
    with pytest.raises(PolicyFault) as raised:
        compile_policy("s", unchecked(source))
    assert raised.value.path == path
    assert raised.value.message
    assert raised.value.hint


def test_ten_thousand_rules_find_each_name():
    names = [f"tool_{number}" for number in range(10_000)]
    judge = policy(
        allow_tools=[*names, *(f"a{n}*x" for n in range(2_000))],
        deny_tools=[f"tool_{number}_*" for number in range(10_000)],
        tool_rules={name: rule(a={"equals": 1}) for name in names[:2_000]},
    )
    assert call(judge, "tool_9999").allowed
    assert call(judge, "tool_1999", {"a": 1}).allowed
    assert not call(judge, "tool_1999", {"a": 2}).allowed
    assert call(judge, "a1999_x").allowed
    assert not call(judge, "tool_9999_x").allowed
    assert not call(judge, "tool_10000").allowed


SHAPES = ("n{}", "n{}_*", "*_n{}", "a*_n{}", "n{}?x", "*n{}_*", "b?{}_*")
SEEN = ("n3", "n3_x", "x_n3", "a_n3", "n3_x", "x_n3_x", "bx3_y", "free", "Free")


@pytest.fixture(scope="module", params=["deny", "allow", "rules", "all"])
def policies_of_ten_and_of_ten_thousand(request):
    def of(count):
        names = [SHAPES[i % len(SHAPES)].format(i // len(SHAPES)) for i in range(count)]
        ruled = {"path": {"path_within": "/data"}, "n": {"equals": 1}}
        parts = {
            "deny": {"deny_tools": names},
            "allow": {"allow_tools": [*names, "free"]},
            "rules": {"tool_rules": {name: rule(**ruled) for name in names}},
        }
        parts["all"] = parts["deny"] | parts["allow"] | parts["rules"]
        return policy(**parts[request.param])

    return of(30), of(10_000)


@pytest.mark.parametrize("tool", SEEN)
def test_ten_thousand_rules_cost_no_more_than_twice_what_ten_cost(
    policies_of_ten_and_of_ten_thousand, tool
):
    raw = b'{"path":"/data/x","n":1}'

    def opcodes(judge):
        """At first sight, and once it is remembered."""
        judge._courses = module._Memory()
        counts = []
        for _ in range(2):
            with steps() as taken:
                judge.decide("tools/call", Kind.TOOL, tool, raw)
            counts.append(taken())
        return counts

    (few_first, few_known), (many_first, many_known) = map(
        opcodes, policies_of_ten_and_of_ten_thousand
    )
    assert many_first <= 2 * few_first
    assert many_known == few_known < few_first


# Properties

words = st.sampled_from(
    ["a", "A", "ab", "a*", "*b", "?", "*", "b", "ａ", "tools/call", "tools/*", "file:///a", "file:///*",
     "file:///a/%2e%2e/b", "acme/x", "a b", "file:///{x}", "ba"]
)  # fmt: skip
names = words | st.text(max_size=4)
lists = st.lists(words, max_size=3)
constraints = st.sampled_from(
    [{"equals": "a"}, {"required": True}, {"regex": "a"}, {"path_within": "/a", "required": True}]
)
sources = st.fixed_dictionaries(
    {},
    optional={
        "read_only": st.booleans(),
        **{
            f"{verb}_{noun}": lists
            for verb in ("allow", "deny")
            for noun in ("tools", "resources", "prompts", "methods")
        },
        "tool_rules": st.dictionaries(
            words,
            st.dictionaries(st.sampled_from(["a", "b.*", "a.b", "*"]), constraints, max_size=2).map(
                lambda args: {"args": args}
            ),
            max_size=2,
        ),
    },
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.just("/a"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b", "A", "a.b"]) | st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(
    st.sampled_from(["a", "b", "A", "a.b"]) | st.text(max_size=3), json_values, max_size=3
)
USES = {
    Kind.TOOL: "tools/call",
    Kind.RESOURCE: "resources/read",
    Kind.TEMPLATE: "completion/complete",
    Kind.PROMPT: "prompts/get",
}
questions = st.tuples(
    st.sampled_from([*USES, None]),
    names,
    objects,
    st.sampled_from(["ping", "acme/x", "tools/list"]),
)


def ask(judge, question):
    kind, name, arguments, method = question
    raw = json.dumps(arguments).encode()
    if kind is None:
        return judge.decide(method, None, None, raw)
    return judge.decide(USES[kind], kind, name, raw)


@settings(max_examples=300)
@given(sources, questions)
def test_deciding_never_raises_and_a_refusal_always_says_why(source, question):
    found = ask(policy(**source), question)
    assert found == ALLOW or (not found.allowed and found.reason and found.rule)


@settings(max_examples=300)
@given(sources, names, objects, st.sampled_from([Kind.TOOL, Kind.RESOURCE, Kind.PROMPT]))
def test_what_is_not_visible_is_denied_with_any_arguments(source, name, arguments, kind):
    judge = policy(**source)
    if not judge.visible(kind, name):
        assert not ask(judge, (kind, name, arguments, "")).allowed
        assert judge.restricts_lists or not policy().visible(kind, name)


def _allowed(judge, question):
    return ask(judge, question).allowed


@settings(max_examples=300)
@given(
    sources,
    questions,
    st.sampled_from(["deny_tools", "deny_resources", "deny_prompts", "deny_methods"]),
    words,
)
def test_denying_more_never_allows_more(source, question, setting, pattern):
    more = {**source, setting: [*source.get(setting, []), pattern]}
    if _allowed(policy(**more), question):
        assert _allowed(policy(**source), question)


@settings(max_examples=300)
@given(sources, sources, questions)
def test_both_never_allow_more_than_either(server, client, question):
    first, second = policy(**server), policy(client="c", **client)
    joined = both(first, second)
    assert _allowed(joined, question) == (_allowed(first, question) and _allowed(second, question))
    kind, name, _, _ = question
    if kind is not None:
        seen = first.visible(kind, name) and second.visible(kind, name)
        assert joined.visible(kind, name) == seen


@settings(max_examples=200)
@given(sources, questions)
def test_the_same_question_has_the_same_answer(source, question):
    judge = policy(**source)
    assert ask(judge, question) == ask(judge, question) == ask(policy(**source), question)


def unremembered(judge, method, kind, name, raw):
    """The same decision, layer by layer, each step when it is due."""
    for layer in judge.layers:
        decision = layer._judge_method(method)
        if not decision.allowed:
            return decision
        expected = TARGETS.get(method)
        if expected is not None and (kind is None or kind.value != expected or name is None):
            return layer.nameless(method, Kind(expected))
        if kind is None:
            continue
        if name is None:
            return layer.nameless(method, kind)
        decision, rules = layer.verdict(kind, name)
        if not decision.allowed:
            return decision
        for key, rule in rules:
            try:
                found = rule.violation(read_arguments(raw))
            except Unreadable:
                return layer.unreadable(name, key)
            if found is not None:
                return layer.violated(name, key, found)
    return ALLOW


@settings(max_examples=500)
@given(
    sources,
    sources,
    st.lists(
        st.tuples(
            st.sampled_from(
                [*USES.values(), "resources/subscribe", "ping", "acme/x", "ＰＩＮＧ", ""]
            ),
            st.sampled_from([*Kind, None]),
            names | st.none(),
            objects,
        ),
        max_size=6,
    ),
)
def test_what_is_remembered_is_what_would_be_decided_anew(server, client, asked):
    judges = [policy(**server), both(policy(**server), policy(client="c", **client))]
    for judge in judges:
        for method, kind, name, arguments in asked * 2:
            raw = json.dumps(arguments).encode()
            anew = unremembered(judge, method, kind, name, raw)
            assert judge.decide(method, kind, name, raw) == anew
            if kind is not None and name is not None:
                shown = all(
                    layer._judge_method(module._USES[kind]).allowed
                    and layer.verdict(kind, name).decision.allowed
                    for layer in judge.layers
                )
                assert judge.visible(kind, name) is shown
