"""What may be called, read and got: one decision for list, search and call alike.

What it is: a policy compiled from the configuration, asked with a method, the kind and
name of what it acts on, and the text of a tool's arguments. A policy has one layer, the
server's, or two, the server's and a client's; a request passes if each layer lets it.

A layer asks, in this order, and the first refusal is the one that is told:

1. the method: denied, or unknown to the protocol and not allowed;
2. the name: one that no server should have been given at all;
3. read-only mode, which stops ``tools/call`` and nothing else;
4. the deny list, which also matches look-alikes of what it names;
5. the allow list, if there is one, which matches exactly;
6. the rules about the tool's arguments.

What it must never do: allow what it can't judge. All but the last step depends on the
method, the kind and the name alone, so their outcome is remembered, with the rules that
the arguments must then satisfy: what was asked before costs one look-up and those rules.
A tool without rules about its arguments never has them read.

It is long because every step of the decision is in one file, to be read in one go.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar, final

from mcpx.core.argument_rules import (
    ArgumentFault,
    ArgumentRules,
    ArgumentRuleSource,
    Unreadable,
    Violation,
    read_arguments,
)
from mcpx.core.globs import (
    Glob,
    GlobFault,
    GlobSet,
    fold,
    is_literal,
    is_unicode,
    parse_glob,
    piles_marks,
)
from mcpx.core.name_lists import NameLists, ToolEntry, ToolRules
from mcpx.core.paths import LONGEST_URI, glob_readings, has_control
from mcpx.protocol.mcp import CLIENT_METHODS, TARGETS

__all__ = [
    "ALLOW",
    "LONGEST_NAME",
    "Decision",
    "Kind",
    "Policy",
    "PolicyFault",
    "PolicySource",
    "ToolRuleSource",
    "both",
    "compile_policy",
]

#: Characters of a tool's, a prompt's or a method's name. Longer ones are refused.
LONGEST_NAME: Final = 1024
#: Outcomes that a memory holds, and the longest name or method among them.
_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 256
#: Characters of a refused name that are repeated where it is too long or not readable.
_LONGEST_QUOTED: Final = 64


class Kind(enum.Enum):
    """What a name is the name of. A template's name is its ``uriTemplate``."""

    # Members are hashed with every request; an enum's own hash is written in Python.
    __hash__ = object.__hash__

    TOOL = "tool"
    RESOURCE = "resource"
    TEMPLATE = "resource template"
    PROMPT = "prompt"


class Decision(NamedTuple):
    """``reason`` is for the client and the audit, ``rule`` says which setting decided.

    ``rule`` is the setting's path in the policy, such as ``deny_tools`` or
    ``tool_rules.write.args.path.regex``. Both are empty when allowed.
    """

    allowed: bool
    reason: str
    rule: str


ALLOW: Final = Decision(True, "", "")


class PolicyFault(ValueError):
    """A policy that can't be compiled. ``path`` is relative to the policy's section."""

    def __init__(self, path: tuple[str | int, ...], message: str, hint: str) -> None:
        super().__init__(f"{'.'.join(map(str, path))}: {message}; {hint}")
        self.path = path
        self.message = message
        self.hint = hint


class ToolRuleSource(Protocol):
    """The rules about one tool's arguments as their author writes them."""

    @property
    def args(self) -> Mapping[str, ArgumentRuleSource]:
        """Argument path to rule."""
        ...


class PolicySource(Protocol):
    """One policy as its author writes it. Lists hold names and globs."""

    @property
    def read_only(self) -> bool:
        """Whether tools/call is refused."""
        ...

    @property
    def allow_tools(self) -> Sequence[str]:
        """Tools; every other one is refused."""
        ...

    @property
    def deny_tools(self) -> Sequence[str]:
        """Tools that are refused."""
        ...

    @property
    def tool_rules(self) -> Mapping[str, ToolRuleSource]:
        """Tool or glob to the rules about its arguments."""
        ...

    @property
    def allow_resources(self) -> Sequence[str]:
        """Resource URIs; every other one is refused."""
        ...

    @property
    def deny_resources(self) -> Sequence[str]:
        """Resource URIs that are refused."""
        ...

    @property
    def allow_prompts(self) -> Sequence[str]:
        """Prompts; every other one is refused."""
        ...

    @property
    def deny_prompts(self) -> Sequence[str]:
        """Prompts that are refused."""
        ...

    @property
    def allow_methods(self) -> Sequence[str]:
        """Methods outside the protocol that pass."""
        ...

    @property
    def deny_methods(self) -> Sequence[str]:
        """Methods that are refused."""
        ...


def _quoted(name: str) -> str:
    """A name as reasons show it: in quotes, on one line, with nothing invisible in it."""
    if len(name) > LONGEST_NAME:
        name = name[:_LONGEST_QUOTED] + "…"
    if name.isprintable() and '"' not in name and "\\" not in name:
        return f'"{name}"'
    return json.dumps(name)


def _is_name(name: str, longest: int) -> bool:
    """Whether any server could mean something by it: the same under every policy."""
    return (
        0 < len(name) <= longest
        and not has_control(name)
        and is_unicode(name)
        and not piles_marks(name)
    )


class _Verdict(NamedTuple):
    """What the name alone decides, and the rules that its arguments must then satisfy."""

    decision: Decision
    rules: tuple[tuple[str, ArgumentRules], ...]


_GRANTED: Final = _Verdict(ALLOW, ())
_TOOL: Final = Kind.TOOL
_RESOURCE: Final = Kind.RESOURCE
_TEMPLATE: Final = Kind.TEMPLATE
_PROMPT: Final = Kind.PROMPT
#: The kind of thing that a method must name.
_EXPECTED: Final = {method: Kind(target) for method, target in TARGETS.items()}
#: How a thing is used, and so what hides it when the method is denied.
_USES: Final = {
    _TOOL: "tools/call",
    _RESOURCE: "resources/read",
    _TEMPLATE: "resources/read",
    _PROMPT: "prompts/get",
}
#: What a careless server may take for a method of the protocol.
_FOLDED_METHODS: Final = {fold(method): method for method in CLIENT_METHODS}


_Question = TypeVar("_Question")
_Outcome = TypeVar("_Outcome")


class _Memory(Generic[_Question, _Outcome]):
    """Outcomes by question, of which the ones that are asked again stay.

    Clients choose the questions, so it is bounded: once half of the room is taken by new
    ones, what was not asked again meanwhile is forgotten. So a flood of new names pushes
    out no name that is in use, and costs each of them two look-ups.

    Several threads may use one: at worst an outcome is found anew.
    """

    __slots__ = ("_old", "recent")

    def __init__(self) -> None:
        #: Look here first.
        self.recent: dict[_Question, _Outcome] = {}
        self._old: dict[_Question, _Outcome] = {}

    def __len__(self) -> int:
        return len(self.recent) + len(self._old)

    def older(self, question: _Question) -> _Outcome | None:
        """The outcome of what was not asked recently."""
        outcome = self._old.get(question)
        if outcome is not None:
            self.keep(question, outcome)
        return outcome

    def keep(self, question: _Question, outcome: _Outcome) -> None:
        recent = self.recent
        if len(recent) >= _REMEMBERED // 2:
            self._old = recent
            self.recent = recent = {}
        recent[question] = outcome


class _Layer:
    """One policy section, of a server or of a client on a server."""

    __slots__ = (
        "_client",
        "_lists",
        "_methods",
        "_prefix",
        "_remembered_methods",
        "_server",
        "_tool_rules",
        "allow_tools",
        "deny_tools",
        "hidden",
        "read_only",
        "tool_names",
    )

    def __init__(self, server: str, source: PolicySource, client: str | None) -> None:
        self._server = _quoted(server)
        self._client = client
        self._prefix = "" if client is None else f"client {_quoted(client)}: "
        self.read_only = source.read_only
        self.allow_tools = tuple(source.allow_tools)
        self.deny_tools = tuple(source.deny_tools)
        self._methods = _compile_lists(source, "methods")
        self._lists = {
            _TOOL: _compile_lists(source, "tools"),
            _RESOURCE: _compile_lists(source, "resources"),
            _PROMPT: _compile_lists(source, "prompts"),
        }
        self._lists[_TEMPLATE] = self._lists[_RESOURCE]
        entries = _compile_tool_rules(source.tool_rules)
        self._tool_rules = ToolRules(entries)
        self.tool_names = frozenset(
            str(glob)
            for glob in (
                *map(parse_glob, (*self.allow_tools, *self.deny_tools)),
                *(entry.glob for entry in entries),
            )
            if is_literal(glob)
        )
        self._remembered_methods = _Memory[str, Decision]()
        #: Kinds of which nothing may be used, so that nothing is shown.
        self.hidden = frozenset(
            kind for kind, method in _USES.items() if not self.method(method).allowed
        )

    @property
    def restricts_lists(self) -> bool:
        """Whether something could be hidden that has a proper name."""
        return (
            self.read_only
            or bool(self.hidden)
            or any(lists.given for lists in self._lists.values())
        )

    def method(self, method: str) -> Decision:
        """Remembered by itself: names that come with it may be new each time."""
        memory = self._remembered_methods
        decision = memory.recent.get(method) or memory.older(method)
        if decision is None:
            decision = self._judge_method(method)
            if len(method) <= _LONGEST_REMEMBERED:
                memory.keep(method, decision)
        return decision

    def verdict(self, kind: Kind, name: str) -> _Verdict:
        if kind is _TOOL:
            return self._judge_tool(name)
        if kind is _PROMPT:
            return self._judge_prompt(name)
        lists = self._lists[_RESOURCE]
        return self._judge_uri(kind, name, lists.uri if kind is _RESOURCE else lists.template)

    def passage(self, what: str) -> Decision:
        """For what carries no method."""
        if self._methods.name(what) == "deny":
            return self._refuse_by("deny", what, "methods")
        return ALLOW

    def nameless(self, method: str, kind: Kind) -> Decision:
        """For a method that must name something of a kind and doesn't."""
        return self._refuse(f"method {_quoted(method)} names no {kind.value}", "name")

    def unreadable(self, tool: str, key: str) -> Decision:
        """For arguments that the rules under a key of ``tool_rules`` can't be held against."""
        said = f"tool {_quoted(tool)} has arguments that rules cannot evaluate"
        return self._refuse(said, f"tool_rules.{key}")

    def violated(self, tool: str, key: str, found: Violation) -> Decision:
        where = f"tool {_quoted(tool)}"
        argument = f"argument {_quoted(found.argument)} {found.says}"
        if found.missing:
            said = f"{where} on server {self._server}: required {argument}"
        else:
            said = f"{where} {argument}"
        place = f"tool_rules.{key}.args.{found.argument}"
        return self._refuse(said, f"{place}.{found.constraint}".rstrip("."))

    def _refuse(self, reason: str, rule: str) -> Decision:
        return Decision(False, self._prefix + reason, rule)

    def _refuse_by(self, list_name: str, what: str, setting: str) -> Decision:
        if list_name == "allow":
            said = f"{what} not in allow list for {self._server}"
        elif list_name == "deny":
            said = f"{what} is denied on server {self._server}"
        else:
            return self._refuse(
                f"{what} is encoded too often, or in a way that rules cannot evaluate", setting
            )
        return self._refuse(said, f"{list_name}_{setting}")

    def _judge_method(self, method: str) -> Decision:
        what = f"method {_quoted(method)}"
        if not _is_name(method, LONGEST_NAME):
            return self._refuse(f"{what} is not a valid name", "name")
        refusing = self._methods.name(method)
        if refusing == "deny":
            return self._refuse_by(refusing, what, "methods")
        if method in CLIENT_METHODS:
            return ALLOW
        alike = _FOLDED_METHODS.get(fold(method))
        if alike is not None:
            return self._refuse(f'{what} looks like "{alike}"', "allow_methods")
        # That a method must be allowed is the server's rule. A client's layer stands on
        # top of it and restricts by a list of its own, as with everything else.
        if refusing == "" and (self._client is not None or self._methods.allows):
            return ALLOW
        return self._refuse_by("allow", what, "methods")

    def _judge_tool(self, tool: str) -> _Verdict:
        what = f"tool {_quoted(tool)}"
        if not _is_name(tool, LONGEST_NAME):
            return _Verdict(self._refuse(f"{what} is not a valid name", "name"), ())
        if self.read_only:
            said = f"server {self._server} is in read-only mode: tools/call is blocked"
            return _Verdict(self._refuse(said, "read_only"), ())
        refusing = self._lists[_TOOL].name(tool)
        if refusing:
            return _Verdict(self._refuse_by(refusing, what, "tools"), ())
        rules = self._tool_rules.of(tool)
        return _Verdict(ALLOW, rules) if rules else _GRANTED

    def _judge_prompt(self, prompt: str) -> _Verdict:
        what = f"prompt {_quoted(prompt)}"
        if not _is_name(prompt, LONGEST_NAME):
            return _Verdict(self._refuse(f"{what} is not a valid name", "name"), ())
        refusing = self._lists[_PROMPT].name(prompt)
        return _Verdict(self._refuse_by(refusing, what, "prompts"), ()) if refusing else _GRANTED

    def _judge_uri(self, kind: Kind, uri: str, judge: Callable[[str], str]) -> _Verdict:
        what = f"{kind.value} {_quoted(uri)}"
        if not _is_name(uri, LONGEST_URI):
            return _Verdict(self._refuse(f"{what} is not a valid URI", "name"), ())
        refusing = judge(uri)
        return _Verdict(self._refuse_by(refusing, what, "resources"), ()) if refusing else _GRANTED


class _Course(NamedTuple):
    """How a decision goes on once the names are judged.

    Each layer's argument rules must hold, in this order; if they do, ``decision`` is it.
    """

    rules: tuple[tuple[_Layer, str, ArgumentRules], ...]
    decision: Decision


_PASSES: Final = _Course((), ALLOW)


@final
class Policy:
    """What one principal may do on one server. Made by ``compile_policy`` and ``both``."""

    __slots__ = ("_courses", "_shown", "layers", "restricts_lists", "tool_names")

    #: Whether ``visible`` could be false for something that has a proper name.
    restricts_lists: bool
    #: The tools that are mentioned by their name, not by a glob.
    tool_names: frozenset[str]

    def __init__(self, layers: tuple[_Layer, ...]) -> None:
        self.layers = layers
        self.restricts_lists = any(layer.restricts_lists for layer in layers)
        self.tool_names = frozenset[str]().union(*(layer.tool_names for layer in layers))
        self._courses = _Memory[tuple[str, Kind | None, str | None], _Course]()
        self._shown = _Memory[tuple[Kind, str], bool]()

    def decide(
        self, method: str, kind: Kind | None, name: str | None, arguments: bytes | None
    ) -> Decision:
        """Whether a message may pass.

        ``kind`` and ``name`` are what the method acts on; with None the method alone is
        judged, unless it is one that must name something. ``arguments`` is the JSON text
        of a tool's arguments, which the front door has accepted, or None.
        """
        memory = self._courses
        question = (method, kind, name)
        course = memory.recent.get(question) or memory.older(question)
        if course is None:
            course = self._course(method, kind, name)
            if len(method) <= _LONGEST_REMEMBERED and len(name or "") <= _LONGEST_REMEMBERED:
                memory.keep(question, course)
        rules, decision = course
        if not rules:
            return decision
        assert name is not None
        given = read_arguments(arguments)
        if given is None:
            layer, key, _ = rules[0]
            return layer.unreadable(name, key)
        for layer, key, rule in rules:
            try:
                found = rule.violation(given)
            except Unreadable:
                return layer.unreadable(name, key)
            if found is not None:
                return layer.violated(name, key, found)
        return decision

    def _course(self, method: str, kind: Kind | None, name: str | None) -> _Course:
        """What ``decide`` remembers: all that doesn't depend on the arguments."""
        expected = _EXPECTED.get(method)
        rules: list[tuple[_Layer, str, ArgumentRules]] = []
        for layer in self.layers:
            decision = layer.method(method)
            if not decision.allowed:
                return _Course(tuple(rules), decision)
            if expected is not None and (kind is not expected or name is None):
                return _Course(tuple(rules), layer.nameless(method, expected))
            if kind is None:
                continue
            if name is None:
                return _Course(tuple(rules), layer.nameless(method, kind))
            verdict = layer.verdict(kind, name)
            if not verdict.decision.allowed:
                return _Course(tuple(rules), verdict.decision)
            rules.extend((layer, key, rule) for key, rule in verdict.rules)
        return _Course(tuple(rules), ALLOW) if rules else _PASSES

    def decide_nameless(self, what: str) -> Decision:
        """Whether something may pass that carries no method: GET, DELETE, or a response.

        Such things belong to what was allowed before, so only ``deny_methods`` has a say.
        """
        for layer in self.layers:
            decision = layer.passage(what)
            if not decision.allowed:
                return decision
        return ALLOW

    def visible(self, kind: Kind, name: str) -> bool:
        """Whether it is shown in lists: false for what no arguments would make usable."""
        memory = self._shown
        question = (kind, name)
        shown = memory.recent.get(question)
        if shown is None:
            shown = memory.older(question)
        if shown is None:
            shown = self._is_shown(kind, name)
            if len(name) <= _LONGEST_REMEMBERED:
                memory.keep(question, shown)
        return shown

    def _is_shown(self, kind: Kind, name: str) -> bool:
        return all(
            not (layer.hidden and kind in layer.hidden)
            and layer.verdict(kind, name).decision.allowed
            for layer in self.layers
        )

    def describe(self) -> dict[str, object]:
        """The policy as ``/health`` shows it.

        Of two layers, either one's read-only mode, what both deny together, and the
        allow list of the first that has one.
        """
        allow = next((layer.allow_tools for layer in self.layers if layer.allow_tools), ())
        deny = dict.fromkeys(tool for layer in self.layers for tool in layer.deny_tools)
        return {
            "read_only": any(layer.read_only for layer in self.layers),
            "allow_tools": list(allow),
            "deny_tools": list(deny),
        }


def compile_policy(server: str, source: PolicySource, *, client: str | None = None) -> Policy:
    """The policy of a server, or with ``client`` what that client must satisfy as well.

    A client's policy is meant for ``both``: alone it does not ask for methods outside
    the protocol to be allowed. Raises ``PolicyFault`` for the first fault.
    """
    return Policy((_Layer(server, source, client),))


def both(server_policy: Policy, client_policy: Policy) -> Policy:
    """Allows what both allow; the server's reason comes first."""
    return Policy(server_policy.layers + client_policy.layers)


def _compile_lists(source: PolicySource, setting: str) -> NameLists:
    allow = _compile_globs(source, f"allow_{setting}")
    deny = _compile_globs(source, f"deny_{setting}")
    return NameLists(allow, deny, uris=setting == "resources")


def _compile_globs(source: PolicySource, setting: str) -> list[Glob]:
    patterns: Sequence[str] = getattr(source, setting)
    return [_compile_glob((setting, index), text) for index, text in enumerate(patterns)]


def _compile_glob(path: tuple[str | int, ...], pattern: str) -> Glob:
    try:
        glob = parse_glob(pattern)
        if len(pattern) > LONGEST_URI or piles_marks(pattern):
            raise GlobFault("is longer, or has more combining marks in a row, than any name")
        if path[0] in ("allow_resources", "deny_resources"):
            glob_readings(glob)
        if not is_literal(glob):
            GlobSet((glob,))
        return glob
    except GlobFault as fault:
        hint = "write a name, or a glob with `*` for any run and `?` for one character"
        raise PolicyFault(path, str(fault), hint) from None


def _compile_tool_rules(
    source: Mapping[str, ToolRuleSource],
) -> list[ToolEntry]:
    entries: list[ToolEntry] = []
    for key, rule in source.items():
        glob = _compile_glob(("tool_rules", key), key)
        try:
            entries.append(ToolEntry(glob, key, ArgumentRules(rule.args)))
        except ArgumentFault as fault:
            path = ("tool_rules", key, "args", *fault.path)
            raise PolicyFault(path, fault.message, fault.hint) from None
    return entries
