"""Whether the tools of a server are still those that were first seen.

What it is: a tool's *definition* is its whole object in a listing, in canonical form. The
first complete listing of a server is its baseline: it is pinned without a word. Every
later listing is held against the pins, and these are told apart: a tool that was added, was
removed, has changed, stands twice in one listing with two definitions, bears the name or
the description of another server's tool, or can't be judged. ``judge`` does that for one
listing; ``ToolIntegrity`` keeps what is known of one server and decides about its calls.

What it must never do: replace a pin because the server says something else now; take a
part of a listing for the whole, and so report what stands on its other pages as removed;
let a tool be called in ``enforce`` whose definition was not looked at.

Listings and pages. A page that is asked for with the cursor of a page that was seen
continues it. When a page has no next cursor and all before it were seen, the listing is
complete; only then is anything removed, and only then is a baseline established. Each page
is judged as it comes, though, so that a changed tool is refused at once.

Generations. What was seen holds until ``expire``: the server said that its list changed,
its process or session is another one, or the pins were replaced. A listing that was asked
for before that and comes after it may add refusals; it takes none back and pins nothing.

Shadowing (``core/definitions.py``) is not refused unless the caller asks for that: many
servers rightly have a ``search``.

Everything is bounded: ``MAX_TOOLS`` tools a server and ``MAX_PATHS`` pagings at one time.
Definitions after the first ``MAX_KEPT_BYTES`` of a server, of those that are pinned and of
those that wait, are kept as their digests alone: compared as strictly, only not shown. So
much is also kept of what was read and of pages whose listing has not ended. A name of more
than ``MAX_NAME_CHARS`` is told of and refused, and not kept.

It is one long file because a listing, the verdict about it and what is remembered of it
are read together.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from mcpx.core.definition_diff import Differences, differences
from mcpx.core.definitions import Definition, Shadows, read_definition
from mcpx.errors import FrameError

__all__ = [
    "CHANGED_REASON",
    "LISTING_NEEDED",
    "Baseline",
    "Change",
    "Finding",
    "Judgement",
    "Mode",
    "Report",
    "ToolIntegrity",
    "judge",
]

CHANGED_REASON: Final = "tool schema changed since pinned baseline (possible rug-pull/mutation)"
ADDED_REASON: Final = "tool was added after the server's tools were pinned"
REMOVED_REASON: Final = "tool is no longer listed by its server"
DUPLICATE_REASON: Final = "tool is listed twice with different definitions"
UNREADABLE_REASON: Final = "tool definition can't be read, so it can't be compared"
TOO_MANY_REASON: Final = "server lists more tools than are pinned, so it can't be compared"
NOT_LISTED_REASON: Final = "tool is not listed by its server, so its definition can't be compared"
UNVERIFIED_REASON: Final = "the server's tools could not be listed, so they can't be compared"
#: What ``decide_call`` says when the caller has to list the server's tools first.
LISTING_NEEDED: Final = "listing needed"

MAX_TOOLS: Final = 10_000
MAX_NAME_CHARS: Final = 1024
MAX_KEPT_BYTES: Final = 32 * 1024 * 1024
MAX_PATHS: Final = 16
RETRY_S: Final = 5.0
#: What is remembered of a tool in pages whose listing never ends.
MAX_TOLD: Final = 16
#: By how much a time may lie ahead of the clock before the clock is taken to have been put
#: back. Two who wait for one listing read the clock at different moments.
SLACK_S: Final = 5.0
#: No two of a process are the same, whatever server, settings or pins they are of.
_generations: Final = itertools.count(1)


class Mode(enum.Enum):
    """What a finding leads to: nothing is looked at, it is reported, the tool is refused."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


class Change(enum.Enum):
    """What there is to say of a tool. The value is the word for it in audit and metrics."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    DUPLICATE = "duplicate"
    SHADOWING = "shadowing"
    UNJUDGED = "unjudged"


#: What ``enforce`` refuses.
REFUSED: Final = frozenset({Change.CHANGED, Change.DUPLICATE, Change.UNJUDGED})


#: A tool's name and definition as listed; ``None`` for one that can't be read.
Entry = tuple[str, Definition | None]


class Baseline(NamedTuple):
    """What is pinned of a server, as a store keeps it.

    ``since`` says when each tool was first seen (epoch seconds), ``established`` whether
    a whole listing was ever seen, so that what comes now is an addition. ``pending`` holds
    the digests of the definitions that wait for approval.
    """

    pins: Mapping[str, Definition]
    since: Mapping[str, float]
    established: bool
    pending: Mapping[str, bytes]


NOTHING_PINNED: Final = Baseline({}, {}, established=False, pending={})


class Finding(NamedTuple):
    """Something to report of a tool. ``rival`` is the other server of a shadowing."""

    change: Change
    server: str
    tool: str
    reason: str
    old: Definition | None = None
    new: Definition | None = None
    rival: str = ""

    def differences(self) -> Differences | None:
        """Field by field, what changed; ``None`` where there is nothing to compare.

        Takes time in proportion to the definitions: not for the request path.
        """
        if self.old is None or self.new is None:
            return None
        if not self.old.canonical or not self.new.canonical:
            return None
        return differences(self.old.canonical, self.new.canonical)


class Judgement(NamedTuple):
    """What a listing says: findings, and the tools that no pin is held against."""

    findings: tuple[Finding, ...]
    unpinned: dict[str, Definition]


class Report(NamedTuple):
    """What ``ToolIntegrity.observe`` found, and what a store has to keep.

    ``news`` are those of ``findings`` that the listing before did not have. ``refused``
    are the listed tools that may not be called or shown, with the reasons. To be kept:
    ``pinned`` and ``pending`` definitions (the latter wait for approval), ``settled``
    tools (they match their pins again), and ``established`` if the baseline is so now.
    """

    findings: tuple[Finding, ...] = ()
    news: tuple[Finding, ...] = ()
    refused: Mapping[str, str] = {}
    pinned: Mapping[str, Definition] = {}
    pending: Mapping[str, Definition] = {}
    settled: tuple[str, ...] = ()
    established: bool = False


NOTHING_FOUND: Final = Report()


def judge(
    server: str,
    baseline: Baseline,
    entries: Iterable[Entry],
    *,
    complete: bool,
    shadows: Shadows | None = None,
) -> Judgement:
    """Hold ``entries`` against ``baseline``; ``complete`` if they are the whole listing."""
    listed: dict[str, list[Definition | None]] = {}
    for name, definition in entries:
        listed.setdefault(name, []).append(definition)
    findings: list[Finding] = []
    unpinned: dict[str, Definition] = {}
    pins = baseline.pins
    room = MAX_TOOLS - len(pins)
    for tool, definitions in listed.items():
        first = definitions[0]
        if first is None or None in definitions or len(tool) > MAX_NAME_CHARS:
            findings.append(Finding(Change.UNJUDGED, server, tool, UNREADABLE_REASON))
            continue
        other = next((d for d in definitions if d is not None and d.digest != first.digest), None)
        pin = pins.get(tool)
        if other is not None:
            findings.append(Finding(Change.DUPLICATE, server, tool, DUPLICATE_REASON, first, other))
            continue
        if pin is None:
            if len(unpinned) >= room:
                findings.append(Finding(Change.UNJUDGED, server, tool, TOO_MANY_REASON, new=first))
                continue
            unpinned[tool] = first
            if baseline.established:
                findings.append(Finding(Change.ADDED, server, tool, ADDED_REASON, new=first))
        elif not pin.digest:
            unpinned[tool] = first
        elif pin.digest != first.digest:
            findings.append(Finding(Change.CHANGED, server, tool, CHANGED_REASON, pin, first))
        if shadows is not None:
            findings += [
                Finding(Change.SHADOWING, server, tool, reason, new=first, rival=rival)
                for reason, rival in shadows.rivals(server, tool, first)
            ]
    if complete:
        findings += [
            Finding(Change.REMOVED, server, tool, REMOVED_REASON, old=pin)
            for tool, pin in pins.items()
            if pin.digest and tool not in listed
        ]
    return Judgement(tuple(findings), unpinned)


class ToolIntegrity:
    """What is known of one server's tools, and whether they may be called.

    Args:
        baseline: what a store has pinned; nothing for a server never seen.
        shadows: shared with the other servers, to find shadowing.
        refuse: what ``enforce`` refuses. An addition or a shadowing that is refused is
            not pinned, and waits for approval.
        max_age_s: how long a tool's definition counts as seen; a call after that needs
            another listing. Infinite: until ``expire``.
        retry_s: how long after a listing, or a failed attempt, the next one is asked for.
    """

    __slots__ = ("_definitions", "_kept_bytes", "_max_age_s", "_next_listing", "_path",
                 "_path_bytes", "_paths", "_pending", "_pending_bytes",
                 "_pending_sizes", "_pins", "_read_bytes", "_refuse", "_refused", "_retry_s", "_seen", "_shadows", "_since", "_told",
                 "_whole", "established", "generation", "mode", "server")  # fmt: skip

    def __init__(
        self,
        server: str,
        mode: Mode,
        *,
        baseline: Baseline = NOTHING_PINNED,
        shadows: Shadows | None = None,
        refuse: frozenset[Change] = REFUSED,
        max_age_s: float = math.inf,
        retry_s: float = RETRY_S,
    ) -> None:
        self.server = server
        self.mode = mode
        #: Another with each ``expire``; note it when a listing is asked for.
        self.generation = 0
        self._shadows = shadows if shadows is not None else Shadows()
        self._refuse = refuse
        self._max_age_s = max_age_s
        self._retry_s = retry_s
        # Raw texts (as SHA-256) that were read before: most listings are the last one again.
        self._definitions: dict[bytes, Definition] = {}
        self._read_bytes = 0
        self._told: dict[str, set[tuple[str, bytes, str]]] = {}
        # The number of the newest paging, and what each cursor that was given out continues.
        self._path = 0
        self.replace(baseline)

    def replace(self, baseline: Baseline) -> None:
        """Take other pins (approved, reset, read again); everything is looked at anew."""
        self._shadows.drop(self.server)
        self._pins = dict(baseline.pins)
        self._since = dict(baseline.since)
        self._pending = dict(baseline.pending)
        # Of the texts that were put to be kept since then; how long those before are is not known.
        self._pending_sizes: dict[str, int] = {}
        self._pending_bytes = 0
        self._kept_bytes = 0
        #: Whether a whole listing was ever seen.
        self.established = baseline.established
        for tool, pin in self._pins.items():
            if pin.digest:
                self._kept_bytes += len(pin.canonical)
                self._shadows.claim(self.server, tool, pin, self._since.get(tool, 0.0))
        self._refused: dict[str, str] = {}
        self.expire()

    @property
    def settings(self) -> tuple[Mode, frozenset[Change], float]:
        """What it was made with: the mode, what is refused, how long it counts as seen."""
        return self.mode, self._refuse, self._max_age_s

    @property
    def baseline(self) -> Baseline:
        """What is pinned now; the mappings are this object's own, not to be changed."""
        return Baseline(self._pins, self._since, self.established, self._pending)

    def expire(self) -> None:
        """What was seen counts no more: the next call needs a listing."""
        self.generation = next(_generations)
        self._seen: dict[str, float] = {}
        self._paths: dict[str, tuple[int, list[Entry], int]] = {}
        self._path_bytes = 0
        self._next_listing = -math.inf
        self._whole = False

    def close(self) -> None:
        """The server is no longer configured: its tools shadow nothing any more."""
        self._shadows.drop(self.server)

    # -- calls ------------------------------------------------------------------

    def knows(self, tool: str) -> bool:
        """Whether the tool's definition was seen in this generation."""
        return tool in self._seen

    def refused(self, tool: str) -> str | None:
        """Why the tool may not be called as it was last seen; ``None`` if it may."""
        return self._refused.get(tool)

    def decide_call(self, tool: str, now: float) -> str | None:
        """``None`` to go on, ``LISTING_NEEDED``, or the reason why the tool is refused.

        After ``LISTING_NEEDED`` the caller lists the tools (all pages), gives them to
        ``observe`` or tells ``listing_failed``, and asks ``decide_listed``. Of a tool that
        was never pinned, and after a failure, it asks for that once within ``retry_s``.
        ``warn`` asks for listings too, and never refuses.
        """
        if self.mode is Mode.OFF:
            return None
        if self._is_fresh(tool, now):
            return self._refused.get(tool)
        waits_s = self._next_listing - now
        if waits_s <= 0 or waits_s > self._retry_s + SLACK_S:
            return LISTING_NEEDED
        if self.mode is Mode.ENFORCE and self._whole and self._is_elsewhere(tool):
            # The last listing may be of another session, which has other tools.
            return LISTING_NEEDED
        return self.decide_listed(tool, now)

    def decide_listed(self, tool: str, now: float) -> str | None:
        """As ``decide_call``, for who has listed the tools just now: what there is decides.

        ``now`` is when that listing was asked for.
        """
        if self.mode is Mode.OFF:
            return None
        if self._is_fresh(tool, now):
            return self._refused.get(tool)
        if self.mode is Mode.WARN:
            return None
        reason = self._refused.get(tool)
        if reason is not None:
            return reason
        return NOT_LISTED_REASON if self._whole and tool not in self._seen else UNVERIFIED_REASON

    def _is_elsewhere(self, tool: str) -> bool:
        return tool in self._pins and tool not in self._seen

    def _is_fresh(self, tool: str, now: float) -> bool:
        seen = self._seen.get(tool)
        # A clock that was put back must not make it younger.
        return seen is not None and -SLACK_S <= now - seen <= self._max_age_s

    def listing_failed(self, now: float, *, retry_s: float | None = None) -> None:
        """The tools could not be listed; not to be tried again before ``retry_s`` seconds."""
        self._whole = False
        self._next_listing = now + (self._retry_s if retry_s is None else retry_s)

    # -- listings ---------------------------------------------------------------

    def observe(
        self,
        entries: Sequence[tuple[str, bytes]],
        now: float,
        *,
        cursor: str | None = None,
        next_cursor: str | None = None,
        generation: int | None = None,
        read: list[Entry] | None = None,
    ) -> Report:
        """A page of a listing: the tools' names with their objects' JSON texts.

        Args:
            entries: of no use where they were ``read`` before, by ``read_ahead``.
            now: epoch seconds, by the same clock as for ``decide_call``: when the page was
                asked for, or came.
            cursor: what the page was asked for with; ``None`` for the first.
            next_cursor: what the page says the next one is; ``None`` for the last.
            generation: that of the time when the listing was asked for.
        """
        if self.mode is Mode.OFF:
            return NOTHING_FOUND
        page = self.read_ahead(entries) if read is None else read
        if generation is not None and generation != self.generation:
            return self._observe_late(page)
        path, whole, overflow = self._continue(page, cursor, next_cursor)
        verdict = judge(
            self.server,
            self.baseline,
            page if whole is None else whole,
            complete=whole is not None,
            shadows=self._shadows,
        )
        refused = self._refusals(verdict)
        if whole is not None and path == self._path:
            self._take_whole(whole, refused, now)
        else:
            # Of an older paging only this page is news.
            self._take_page(page, refused, now)
        if next_cursor is None:
            self._next_listing = now + self._retry_s
        news = self._news(verdict.findings, whole=whole is not None)
        pending, settled = self._weigh(verdict, refused, page if whole is None else whole)
        pinned = self._pin(verdict, refused, now)
        established = (whole is not None or overflow) and not self.established
        self.established = self.established or established
        return Report(verdict.findings, news, refused, pinned, pending, settled, established)

    def read_ahead(self, entries: Sequence[tuple[str, bytes]]) -> list[Entry]:
        """Read the definitions that ``observe`` will want, which takes the longest.

        The one method that may run on another thread, beside all others.
        """
        return [(name, self._definition(name, raw)) for name, raw in entries]

    def _observe_late(self, page: list[Entry]) -> Report:
        verdict = judge(self.server, self.baseline, page, complete=False, shadows=self._shadows)
        refused = self._refusals(verdict)
        for tool, reason in refused.items():
            if len(self._refused) < MAX_TOOLS and len(tool) <= MAX_NAME_CHARS:
                self._refused.setdefault(tool, reason)
        return Report(verdict.findings, self._news(verdict.findings, whole=False), refused)

    def _definition(self, tool: str, raw: bytes) -> Definition | None:
        name = hashlib.sha256(raw).digest()
        known = self._definitions.get(name)
        if known is not None:
            return known
        try:
            definition = read_definition(raw)
        except FrameError:
            return None
        pin = self._pins.get(tool)
        if pin is not None and pin.digest == definition.digest:
            definition = pin
        self._read_bytes += len(definition.canonical)
        if len(self._definitions) >= MAX_TOOLS or self._read_bytes > MAX_KEPT_BYTES:
            self._definitions.clear()
            self._read_bytes = len(definition.canonical)
        self._definitions[name] = definition
        return definition

    def _continue(
        self, page: list[Entry], cursor: str | None, next_cursor: str | None
    ) -> tuple[int, list[Entry] | None, bool]:
        """(number of the paging, the whole listing if this ends it, whether it is too long)."""
        size = sum(len(definition.canonical) for _, definition in page if definition is not None)
        if cursor is None:
            self._path += 1
            path, listed = self._path, page
        else:
            path, before, before_bytes = self._paths.get(cursor, (0, [], 0))
            if not path:
                return 0, None, False
            listed = before + page
            size += before_bytes
        if len(listed) > MAX_TOOLS or size > MAX_KEPT_BYTES:
            return path, None, True
        if next_cursor is None:
            return path, listed, False
        self._forget_path(next_cursor)
        while self._paths and (
            len(self._paths) >= MAX_PATHS or self._path_bytes + size > MAX_KEPT_BYTES
        ):
            self._forget_path(next(iter(self._paths)))
        self._paths[next_cursor] = (path, listed, size)
        self._path_bytes += size
        return path, None, False

    def _forget_path(self, cursor: str) -> None:
        _, _, size = self._paths.pop(cursor, (0, [], 0))
        self._path_bytes -= size

    def _refusals(self, verdict: Judgement) -> dict[str, str]:
        refused: dict[str, str] = {}
        if self.mode is not Mode.ENFORCE:
            return refused
        for finding in verdict.findings:
            if finding.change not in self._refuse or finding.change is Change.REMOVED:
                continue
            # Whoever pinned a tool has approved of its being there and of its name.
            arrives = finding.change in (Change.ADDED, Change.SHADOWING)
            if not arrives or finding.tool in verdict.unpinned:
                refused.setdefault(finding.tool, finding.reason)
        return refused

    def _take_whole(self, listed: list[Entry], refused: dict[str, str], now: float) -> None:
        self._seen = {tool: now for tool, _ in listed if len(tool) <= MAX_NAME_CHARS}
        self._refused = {tool: refused[tool] for tool in self._seen.keys() & refused.keys()}
        self._whole = True

    def _take_page(self, page: list[Entry], refused: dict[str, str], now: float) -> None:
        for tool, _ in page:
            if len(tool) > MAX_NAME_CHARS:
                continue
            reason = refused.get(tool)
            known = tool in self._seen
            if reason is None:
                # The page may hold one of two definitions of a tool that stands twice.
                if self._refused.get(tool) != DUPLICATE_REASON:
                    self._refused.pop(tool, None)
            elif tool in self._refused or len(self._refused) < MAX_TOOLS:
                self._refused[tool] = reason
            else:
                # No room to remember the refusal: unseen, it can't be called either.
                self._seen.pop(tool, None)
                continue
            if known or len(self._seen) < MAX_TOOLS:
                self._seen[tool] = now

    def _weigh(
        self, verdict: Judgement, refused: Mapping[str, str], listed: list[Entry]
    ) -> tuple[dict[str, Definition], tuple[str, ...]]:
        """The definitions that now wait for approval, and the tools that need none any more."""
        pending: dict[str, Definition] = {}
        for finding in verdict.findings:
            waits = finding.change is Change.CHANGED or (
                finding.change in (Change.ADDED, Change.SHADOWING)
                and finding.tool in refused
                and finding.tool in verdict.unpinned
            )
            new = finding.new
            if not waits or new is None or self._pending.get(finding.tool) == new.digest:
                continue
            if finding.tool in self._pending or len(self._pending) < MAX_TOOLS:
                self._pending[finding.tool] = new.digest
                pending[finding.tool] = self._kept_pending(finding.tool, new)
        settled: list[str] = []
        if self._pending:
            found = {finding.tool for finding in verdict.findings if finding.new is not None}
            for tool, definition in listed:
                pin = self._pins.get(tool)
                if (
                    tool in self._pending
                    and tool not in found
                    and pin is not None
                    and definition is not None
                    and pin.digest == definition.digest
                ):
                    del self._pending[tool]
                    self._pending_bytes -= self._pending_sizes.pop(tool, 0)
                    settled.append(tool)
        return pending, tuple(settled)

    def _kept_pending(self, tool: str, new: Definition) -> Definition:
        self._pending_bytes -= self._pending_sizes.pop(tool, 0)
        size = len(new.canonical)
        if self._pending_bytes + size > MAX_KEPT_BYTES:
            return Definition(new.digest, b"")
        self._pending_sizes[tool] = size
        self._pending_bytes += size
        return new

    def _pin(
        self, verdict: Judgement, refused: Mapping[str, str], now: float
    ) -> dict[str, Definition]:
        pinned: dict[str, Definition] = {}
        for tool, definition in verdict.unpinned.items():
            if tool in refused:
                continue
            self._shadows.claim(self.server, tool, definition, self._since.setdefault(tool, now))
            if self._kept_bytes + len(definition.canonical) > MAX_KEPT_BYTES:
                definition = Definition(definition.digest, b"")
            self._kept_bytes += len(definition.canonical)
            self._pins[tool] = pinned[tool] = definition
        return pinned

    def _news(self, findings: tuple[Finding, ...], *, whole: bool) -> tuple[Finding, ...]:
        told = self._told
        if whole:
            self._told = {}
        news = []
        for finding in findings:
            digest = finding.new.digest if finding.new is not None else b""
            what = (finding.reason, digest, finding.rival)
            # All names that are too long to be kept are told of as one.
            name = finding.tool if len(finding.tool) <= MAX_NAME_CHARS else ""
            if what not in told.get(name, ()):
                news.append(finding)
            if name in self._told or len(self._told) < 2 * MAX_TOOLS:
                before = self._told.setdefault(name, set())
                if len(before) >= MAX_TOLD:
                    before.clear()
                before.add(what)
        return tuple(news)
