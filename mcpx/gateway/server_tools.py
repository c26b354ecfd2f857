"""What is known of a server's tools, from the lists that it gave.

What it is: for each server, whether its tools are still those that were pinned, and which
of them say that they only read. It outlives reloads. ``Watcher.listed`` is told of every
list of tools, whatever form it came in, and gives those that may not be shown.

What it must never do: wait for the file of pins, or take what a server says of its tools
for anything but what the server says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import trio

from mcpx.config.model import InspectionConfig
from mcpx.core.definition_diff import printable
from mcpx.core.definitions import Shadows
from mcpx.core.integrity import (
    MAX_NAME_CHARS,
    NOTHING_PINNED,
    REFUSED,
    RETRY_S,
    Baseline,
    Change,
    Entry,
    Finding,
    Mode,
    Report,
    ToolIntegrity,
)
from mcpx.core.listing import Listing
from mcpx.gateway.exchange import Exchange
from mcpx.services.audit import AuditLog, AuditRecord
from mcpx.services.log import Sparingly, event
from mcpx.services.metrics import Metrics
from mcpx.store.pins import PinStore

__all__ = ["Observed", "ServerTools", "Watcher", "mode_of"]

log = logging.getLogger("mcpx.tools")

#: Findings of a server within ``_SPELL_S`` that the log tells one by one, and that the audit
#: does. A server can list thousands of tools, and change them all, each time it is asked.
_TOLD: Final = 20
_RECORDED: Final = 500
_SPELL_S: Final = 60.0
_SHOWN_CHARS: Final = 128
_untold: Final = Sparingly(_SPELL_S)
_NO_TOOLS: Final[Mapping[str, str]] = {}


def mode_of(config: InspectionConfig) -> Mode:
    """What is done about tools that are not as they were pinned."""
    return Mode(config.tool_integrity or "off")


class _Spell:
    """How many findings of a server there were since ``began``."""

    __slots__ = ("began", "told")

    def __init__(self) -> None:
        self.began = 0.0
        self.told = 0

    def number(self, now: float) -> int:
        """The number of a finding that there is now, from 0."""
        if not 0 <= now - self.began < _SPELL_S:
            self.began = now
            self.told = 0
        self.told += 1
        return self.told - 1


class ServerTools:
    """One server's tools.

    ``integrity`` is ``None`` where nothing is pinned; ``read_only`` are the tools whose
    last definition says so.
    """

    __slots__ = ("integrity", "read_only", "spell")

    def __init__(self, integrity: ToolIntegrity | None) -> None:
        self.integrity = integrity
        self.read_only: set[str] = set()
        self.spell = _Spell()

    def learn(self, listed: Mapping[str, bool]) -> None:
        """A list of tools, and whether each only reads."""
        for tool, only_reads in listed.items():
            if only_reads:
                self.read_only.add(tool)
            else:
                self.read_only.discard(tool)

    def expire(self) -> None:
        """The server says that its tools are others now."""
        self.read_only.clear()
        if self.integrity is not None:
            self.integrity.expire()


class Observed:
    """The circumstances of one list of tools.

    ``cursor`` is what the page was asked for with. ``generation`` is the one in which it
    was asked for, ``None`` if nobody knows, as of a list that is replayed on a stream:
    such a list may add refusals, and takes none back. ``asked_at`` is when it was asked
    for by the watcher's clock, ``None`` to take the moment at which it is looked at.
    """

    __slots__ = ("asked_at", "cursor", "generation")

    def __init__(
        self, cursor: str | None, generation: int | None, asked_at: float | None = None
    ) -> None:
        self.cursor = cursor
        self.generation = generation
        self.asked_at = asked_at


class Watcher:
    """All servers' tools, and where what is found out about them goes.

    ``store`` is ``None`` where nothing is pinned; ``audit`` gives the log of the moment.
    ``changed`` is told of a tool whose definition is another now.
    """

    def __init__(
        self,
        metrics: Metrics,
        audit: Callable[[], AuditLog | None],
        changed: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.servers: dict[str, ServerTools] = {}
        self.store: PinStore | None = None
        self.clock = clock
        self._metrics = metrics
        self._audit = audit
        self._changed = changed
        self._shadows = Shadows()

    def configure(
        self,
        names: Mapping[str, bool],
        config: InspectionConfig,
        baselines: Mapping[str, Baseline] | None,
    ) -> None:
        """Other servers or settings; ``names`` says of each whether it is where it was.

        ``baselines`` are the pins as they stand in the file, ``None`` if that was not read.
        """
        mode = mode_of(config)
        old = self.servers
        for name, tools in old.items():
            if tools.integrity is not None and (mode is Mode.OFF or name not in names):
                tools.integrity.close()
        self.servers = {}
        for name, same in names.items():
            tools = old.get(name) or ServerTools(None)
            if mode is Mode.OFF:
                tools.integrity = None
            else:
                tools.integrity = self._integrity(name, mode, config, tools, baselines)
            if not same:
                tools.expire()
            self.servers[name] = tools

    def _integrity(
        self,
        name: str,
        mode: Mode,
        config: InspectionConfig,
        tools: ServerTools,
        baselines: Mapping[str, Baseline] | None,
    ) -> ToolIntegrity:
        refuse = set(REFUSED)
        if config.refuse_added:
            refuse.add(Change.ADDED)
        if config.refuse_shadowing:
            refuse.add(Change.SHADOWING)
        old = tools.integrity
        if baselines is not None:
            baseline = baselines.get(name, NOTHING_PINNED)
        else:
            baseline = old.baseline if old is not None else NOTHING_PINNED
        if old is not None and old.settings == (mode, frozenset(refuse), config.max_age):
            if baselines is not None:
                old.replace(baseline)
            return old
        if old is not None:
            old.close()
        return ToolIntegrity(
            name,
            mode,
            baseline=baseline,
            shadows=self._shadows,
            refuse=frozenset(refuse),
            max_age_s=config.max_age,
            # A definition that counts for a shorter time is looked at more often.
            retry_s=min(RETRY_S, config.max_age),
        )

    def expire(self, server: str) -> None:
        """The server says that its tools are others now."""
        tools = self.servers.get(server)
        if tools is not None:
            tools.expire()

    def listed(
        self, ex: Exchange, tools: ServerTools, listing: Listing, observed: Observed
    ) -> Mapping[str, str]:
        """The tools of a list that may not be shown or called, with the reasons.

        May be called on a worker thread of trio's: the definitions are read there, and
        what is made of them is decided in trio's own.
        """
        integrity = tools.integrity
        if integrity is None or not listing.has_tools:
            return _NO_TOOLS
        entries = listing.tools()
        if trio.lowlevel.in_trio_run():
            return self._observe(ex, tools, integrity, entries, None, listing, observed)
        read = integrity.read_ahead(entries)
        return trio.from_thread.run_sync(
            self._observe, ex, tools, integrity, entries, read, listing, observed
        )

    def _observe(
        self,
        ex: Exchange,
        tools: ServerTools,
        integrity: ToolIntegrity,
        entries: list[tuple[str, bytes]],
        read: list[Entry] | None,
        listing: Listing,
        observed: Observed,
    ) -> Mapping[str, str]:
        now = self.clock()
        # Not so where a reload has come in between: there it still refuses for this reader, and
        # nothing of it is kept.
        current = self.servers.get(integrity.server) is tools and tools.integrity is integrity
        generation = observed.generation if current else None
        report = integrity.observe(
            entries,
            now if observed.asked_at is None else observed.asked_at,
            cursor=observed.cursor,
            # Some servers end their lists with an empty cursor.
            next_cursor=listing.next_cursor or None,
            # A generation that never was makes it a late one.
            generation=generation if generation is not None else -1,
            read=read,
        )
        if not current:
            return report.refused
        if self.store is not None:
            self.store.put(integrity.server, report)
        if report.news:
            self._tell(ex, tools.spell, report, now)
        return report.refused

    def _tell(self, ex: Exchange, spell: _Spell, report: Report, now: float) -> None:
        """Findings go to the log, the audit and the metrics, each once."""
        untold = 0
        for finding in report.news:
            self._metrics.tool_finding(finding.server, finding.change.value)
            if finding.change is Change.CHANGED:
                self._changed(finding.server, finding.tool)
            refused = finding.tool in report.refused
            number = spell.number(now)
            if number < _RECORDED:
                self._record(ex, finding, now, refused=refused)
            if number < _TOLD:
                event(log, logging.WARNING, "a tool is not as it was pinned",
                      server=finding.server, tool=printable(finding.tool[:_SHOWN_CHARS]),
                      change=finding.change.value, reason=finding.reason,
                      **({"rival": finding.rival} if finding.rival else {}),
                      refused=refused)  # fmt: skip
            else:
                untold += 1
        if untold and _untold.turn(report.news[0].server, trio.current_time()) is not None:
            event(log, logging.WARNING, "more tools are not as they were pinned",
                  server=report.news[0].server, more=untold)  # fmt: skip

    def _record(self, ex: Exchange, finding: Finding, now: float, *, refused: bool) -> None:
        audit = self._audit()
        if audit is None:
            return
        rival = f" ({finding.rival})" if finding.rival else ""
        audit.put(
            AuditRecord(
                time=now,
                server=finding.server,
                method="tools/list",
                tool=finding.tool[:MAX_NAME_CHARS],
                client=ex.principal.name,
                client_ip=ex.client_ip,
                request_id=ex.request_id.decode("ascii"),
                allowed=not refused,
                reason=finding.reason + rival,
                rule="inspection.tool_integrity",
                outcome=f"integrity_{finding.change.value}",
            )
        )
