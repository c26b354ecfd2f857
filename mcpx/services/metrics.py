"""What the gateway counts, and the page that shows it to Prometheus.

What it is: plain numbers in plain dicts, changed by the one thread that serves requests.
``services/exposition.py`` makes the page of a copy of them. What it must never do: let a client choose labels. A label is a
configured server, a known method, a tool that a policy names or a server listed, a
configured client, or ``other``; so the number of series is bounded by what the operator
wrote down.

Counting an exchange is one look for the cell of its kind, without a lock. A cell's name
consists of labels, so that clients can't make more of them either, and the series are made
of the cells when the page is, or the labels change. The numbers are copied in that thread (microseconds), and the text, which
costs about 15 microseconds a line, is made of the copy in a worker thread, at most once a
second, whoever asks.

Counters survive reloads, and so do those of a server that is no longer configured (new
requests for it are ``other``), until more than ``MAX_RETIRED`` names have been retired.

Durations are counted once, in seconds; the histogram in milliseconds is the same one with
other names for its bounds.

It is long because everything that is counted is in one file.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

import trio

from mcpx.config.model import MetricsConfig
from mcpx.protocol.mcp import CLIENT_METHODS
from mcpx.services.recent import Recent

__all__ = ["BOUNDS_MS", "CONTENT_TYPE", "Counted", "Metrics", "Observed"]

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
RENDER_TTL_S: Final = 1.0
MAX_RETIRED: Final = 256
MAX_TOOL_NAME: Final = 128
MAX_CELLS: Final = 1024

OTHER: Final = "other"
_VERBS: Final = frozenset({"GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH"})
_METHODS: Final = CLIENT_METHODS | _VERBS
_CLASSES: Final = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}

# Upper bounds as both units write them. The last bucket has none.
BOUNDS_MS: Final = ("1", "5", "10", "25", "50", "100", "250", "500", "1000", "5000", "10000")
_BOUNDS_S: Final = tuple(float(bound) / 1000 for bound in BOUNDS_MS)

#: An exchange's outcome to the result that a server gave. Others never reached a server.
_RESULTS: Final = {
    "ok": "ok",
    "rpc_error": "rpc_error",
    "tool_error": "tool_error",
    "http_error": "http_error",
    "unread": "unread",
    "upstream_error": "transport_error",
    "timeout": "transport_error",
}
_UPSTREAM_ERRORS: Final = {"upstream_error": "error", "timeout": "timeout"}


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Observed(Protocol):
    """A finished exchange; ``mcpx.gateway.exchange.Exchange`` is one.

    ``policy`` is set once the policies were asked. An ``outcome`` of ``page`` is one of
    the gateway's own pages, which are not counted.
    """

    @property
    def route(self) -> _Named | None:
        """The server that it was for, as far as that was found out."""
        ...

    @property
    def principal(self) -> _Named:
        """Who asked; an empty name is nobody in particular."""
        ...

    @property
    def policy(self) -> object | None:
        """What was asked whether it may happen."""
        ...

    @property
    def method(self) -> str:
        """The JSON-RPC method, or the HTTP method where there is no message."""
        ...

    @property
    def tool(self) -> str | None:
        """The tool that was called."""
        ...

    @property
    def cache(self) -> str:
        """``hit`` or ``miss`` where the cache was looked into, else empty."""
        ...

    @property
    def status(self) -> int:
        """The HTTP status that the client got."""
        ...

    @property
    def outcome(self) -> str:
        """One word for what became of it."""
        ...

    @property
    def allowed(self) -> bool:
        """Whether it was let through by all that could have stopped it."""
        ...


class _Durations:
    """The buckets of one server, each with its own count; ``total_s`` is their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.total_s = 0.0


class _Kind(NamedTuple):
    """What the series tell apart of exchanges; with labels, the name of a cell.

    ``hundreds`` is the first digit of the status, ``judged`` whether the policies were asked.
    """

    server: str
    method: str
    hundreds: int
    outcome: str
    tool: str | None
    client: str
    cache: str
    allowed: bool
    judged: bool


class _Cell:
    """How many exchanges of one kind there were, and where their durations go."""

    __slots__ = ("count", "durations")

    def __init__(self, durations: _Durations) -> None:
        self.count = 0
        self.durations = durations


# A plain tuple is made faster, and is equal.
_Cells = dict[tuple[str, str, int, str, str | None, str, str, bool, bool], _Cell]

Series = defaultdict[tuple[str, ...], int]
# Name, help, names of the labels, their values to the count.
_Counts = tuple[str, str, tuple[str, ...], dict[tuple[str, ...], int]]


class Counted(NamedTuple):
    """The numbers at one moment, which nobody changes any more.

    Gauges and totals are (name, help, value). ``durations`` has for each server the counts
    of its buckets and the sum in seconds, ``breakers`` the states as numbers.
    """

    version: str
    gauges: Iterable[tuple[str, str, float]]
    totals: Iterable[tuple[str, str, int]]
    series: Iterable[_Counts]
    durations: Mapping[str, tuple[tuple[int, ...], float]]
    breakers: Mapping[str, int]
    milliseconds: bool


class Metrics:
    """The gateway's counters. All but ``exposition`` are for the thread that runs trio.

    ``clock`` is monotonic, in seconds; the uptime counts from the construction.
    """

    def __init__(
        self,
        config: MetricsConfig | None = None,
        *,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config if config is not None else MetricsConfig()
        self._version = version
        self._clock = clock
        self._started = clock()
        self._servers: frozenset[str] = frozenset()
        self._retired: dict[str, None] = {}
        self._clients: frozenset[str] = frozenset()
        self._tools: dict[str, set[str]] = {}
        self._connections: Callable[[], int] = _none
        self._audit_queue: Callable[[], int] = _none
        self._breakers: Callable[[], Mapping[str, tuple[int, int]]] = dict
        self._cache: Callable[[], tuple[int, int]] = _nothing
        self._in_flight = 0
        #: What was counted since the series were brought up to date, by labels alone.
        self._cells: _Cells = {}
        # By server first wherever there is a server: `_forget` relies on it.
        self._requests = Series(int)
        self._tool_calls = Series(int)
        self._decisions = Series(int)
        self._results = Series(int)
        self._upstream_errors = Series(int)
        self._cache_lookups = Series(int)
        self._tool_findings = Series(int)
        self._pin_failures = 0
        self._durations: dict[str, _Durations] = {}
        self._auth_failures = 0
        self._rate_limit_hits = 0
        self._overloads = 0
        self._audit_lost = 0
        self._spans_exported = 0
        self._spans_dropped = 0
        self._reloads = {"ok": 0, "failed": 0}
        self._page: Recent[bytes] = Recent(RENDER_TTL_S)
        self._thread = trio.CapacityLimiter(1)

    # -- what labels there are --------------------------------------------------

    def configure(self, config: MetricsConfig) -> None:
        """Other settings, from the next page on. Tools that have a label keep it."""
        self._config = config

    def set_servers(self, names: Iterable[str]) -> None:
        """The servers that are configured now."""
        self._empty_cells()
        servers = frozenset(names)
        for name in sorted(self._servers - servers):
            self._retired[name] = None
        for name in servers:
            self._retired.pop(name, None)
        self._servers = servers
        while len(self._retired) > MAX_RETIRED:
            self._forget(next(iter(self._retired)))

    def _forget(self, server: str) -> None:
        del self._retired[server]
        self._tools.pop(server, None)
        self._durations.pop(server, None)
        for series in (
            self._requests,
            self._tool_calls,
            self._decisions,
            self._results,
            self._upstream_errors,
            self._cache_lookups,
            self._tool_findings,
        ):
            for labels in [labels for labels in series if labels[0] == server]:
                del series[labels]

    def set_clients(self, names: Iterable[str]) -> None:
        """The clients that are configured now."""
        self._empty_cells()
        # What the one shared token is called.
        self._clients = frozenset(names) | {"default"}

    def learn_tools(self, server: str, names: Iterable[str]) -> None:
        """Give tools of a server a label of their own, as many as the configuration allows."""
        if server not in self._servers:
            return
        known = self._tools.setdefault(server, set())
        for name in names:
            if len(known) >= self._config.max_tools:
                return
            if len(name) <= MAX_TOOL_NAME and name.isprintable():
                known.add(name)

    # -- counting ---------------------------------------------------------------

    def begin(self) -> None:
        """An exchange begins; ``observe`` ends it."""
        self._in_flight += 1

    def observe(self, ex: Observed, duration_s: float) -> None:
        """Count a finished exchange. About a microsecond."""
        self._in_flight -= 1
        outcome = ex.outcome
        if outcome == "page":
            return
        route = ex.route
        kind = (
            route.name if route is not None else OTHER,
            ex.method,
            ex.status // 100,
            outcome,
            ex.tool,
            ex.principal.name,
            ex.cache,
            ex.allowed,
            ex.policy is not None,
        )
        cell = self._cells.get(kind)
        if cell is None:
            cell = self._cell(_Kind(*kind))
        cell.count += 1
        durations = cell.durations
        durations.counts[bisect_left(_BOUNDS_S, duration_s)] += 1
        durations.total_s += duration_s

    def _cell(self, ex: _Kind) -> _Cell:
        """The cell of such exchanges: those that have the same labels share one."""
        server = ex.server if ex.server in self._servers else OTHER
        method = ex.method
        if method not in _METHODS:
            method = OTHER
        tool = None if ex.tool is None else self._label(server, ex.tool)
        client = ex.client
        if client and client not in self._clients:
            client = OTHER
        kind = ex._replace(server=server, method=method, tool=tool, client=client)
        cell = self._cells.get(kind)
        if cell is None:
            if len(self._cells) >= MAX_CELLS:
                self._empty_cells()
            durations = self._durations.get(server)
            if durations is None:
                durations = self._durations[server] = _Durations()
            cell = self._cells[kind] = _Cell(durations)
        return cell

    def _empty_cells(self) -> None:
        """Count what the cells hold, and forget them."""
        cells, self._cells = self._cells, {}
        for kind, cell in cells.items():
            self._count(_Kind(*kind), cell.count)

    def _count(self, ex: _Kind, count: int) -> None:
        """Add so many exchanges of one kind to the series."""
        server, outcome = ex.server, ex.outcome
        self._requests[server, ex.method, _CLASSES.get(ex.hundreds, OTHER)] += count
        result = _RESULTS.get(outcome)
        if ex.cache:
            tool = OTHER if ex.tool is None else ex.tool
            self._cache_lookups[server, tool, ex.cache] += count
        if result is None:
            self._refused(outcome, count)
        elif ex.cache != "hit":
            self._results[server, result] += count
            if result == "transport_error":
                self._upstream_errors[server, _UPSTREAM_ERRORS[outcome]] += count
            elif result == "http_error" and ex.hundreds >= 5:
                self._upstream_errors[server, "http_5xx"] += count
        if ex.judged:
            self._decided(ex, count)

    def _refused(self, outcome: str, count: int) -> None:
        if outcome == "unauthorized":
            self._auth_failures += count
        elif outcome == "limited":
            self._rate_limit_hits += count
        elif outcome == "shed":
            self._overloads += count

    def _decided(self, ex: _Kind, count: int) -> None:
        """Count what the policies said, where a message was judged."""
        denied = ex.outcome == "denied"
        decision = "deny" if denied else "allow"
        if ex.method not in _VERBS:
            self._decisions[ex.server, decision] += count
        # A call that was held up after the policies (by a limit, say) is none.
        if ex.tool is not None and (denied or ex.allowed):
            self._tool_calls[ex.server, ex.tool, decision, ex.client] += count

    def _label(self, server: str, tool: str) -> str:
        known = self._tools.get(server)
        return tool if known is not None and tool in known else OTHER

    def tool_finding(self, server: str, change: str, /) -> None:
        """A tool is not as it was pinned; ``change`` is one of a few words."""
        self._tool_findings[server if server in self._servers else OTHER, change] += 1

    def pins_not_written(self, _reason: str, /) -> None:
        """An attempt to write pins failed."""
        self._pin_failures += 1

    def count_cache(self, counts: Callable[[], tuple[int, int]], /) -> None:
        """Whom to ask how many results are kept, and how many had to go for others."""
        self._cache = counts

    def reloaded(self, *, ok: bool) -> None:
        """A reload succeeded, or changed nothing."""
        self._reloads["ok" if ok else "failed"] += 1

    def audit_lost(self, count: int, /) -> None:
        """So many records of the audit are lost."""
        self._audit_lost += count

    def spans_exported(self, count: int, /) -> None:
        """So many spans more have been exported."""
        self._spans_exported += count

    def spans_dropped(self, count: int, /) -> None:
        """So many spans more are lost."""
        self._spans_dropped += count

    def count_connections(self, connections: Callable[[], int], /) -> None:
        """Whom to ask for the number of client connections."""
        self._connections = connections

    def count_breakers(self, breakers: Callable[[], Mapping[str, tuple[int, int]]], /) -> None:
        """Whom to ask for each server's breaker: its state (0, 1, 2), how often it opened."""
        self._breakers = breakers

    def count_audit_queue(self, length: Callable[[], int], /) -> None:
        """Whom to ask for the number of records that wait to be written."""
        self._audit_queue = length

    # -- showing ----------------------------------------------------------------

    async def exposition(self) -> bytes:
        """The page, in Prometheus' text format 0.0.4; at most ``RENDER_TTL_S`` old."""
        return await self._page.get((), self._render)

    async def _render(self) -> bytes:
        # Abandoned if cancelled: it is made of a copy that nobody else has.
        return await trio.to_thread.run_sync(
            _page, self._copy(), abandon_on_cancel=True, limiter=self._thread
        )

    def _copy(self) -> Counted:
        self._empty_cells()
        breakers = dict(self._breakers())
        entries, evictions = self._cache()
        gauges = (
            ("mcpx_uptime_seconds", "Seconds since the gateway started.",
             self._clock() - self._started),
            ("mcpx_active_connections", "Client connections that are open.", self._connections()),
            ("mcpx_requests_in_flight", "Requests being served.", self._in_flight),
            ("mcpx_servers_registered", "Servers in the configuration.", len(self._servers)),
            ("mcpx_audit_queue", "Audit records that wait to be written.", self._audit_queue()),
            ("mcpx_cache_entries", "Results that are kept in the cache.", entries),
        )  # fmt: skip
        totals = (
            ("mcpx_auth_failures", "Requests without a valid credential.", self._auth_failures),
            ("mcpx_rate_limit_hits", "Requests refused by a rate limit.", self._rate_limit_hits),
            ("mcpx_overload", "Requests refused because there was no room.", self._overloads),
            ("mcpx_audit_lost", "Audit records that were not written.", self._audit_lost),
            ("mcpx_spans_exported", "Spans that the exporter took.", self._spans_exported),
            ("mcpx_spans_dropped", "Spans that were lost.", self._spans_dropped),
            ("mcpx_breaker_trips", "How often a breaker has opened.",
             sum(trips for _, trips in breakers.values())),
            ("mcpx_cache_evictions", "Results that had to go for others.", evictions),
            ("mcpx_pin_write_failures", "Attempts to write pinned tools that failed.",
             self._pin_failures),
        )  # fmt: skip
        series: tuple[_Counts, ...] = (
            ("mcpx_requests", "Requests, by what became of them.",
             ("server", "method", "status_code"), dict(self._requests)),
            ("mcpx_tool_calls", "Tool calls, by decision and client.",
             ("server", "tool", "decision", "client"), dict(self._tool_calls)),
            ("mcpx_policy_decisions", "Decisions of the policies about messages.",
             ("server", "decision"), dict(self._decisions)),
            ("mcpx_results", "Answers of servers, by what they say.",
             ("server", "result"), dict(self._results)),
            ("mcpx_upstream_errors", "Requests that a server failed to serve.",
             ("server", "reason"), dict(self._upstream_errors)),
            ("mcpx_cache_lookups", "Looks into the cache, by what was found.",
             ("server", "tool", "result"), dict(self._cache_lookups)),
            ("mcpx_tool_findings", "Tools that were not as they were pinned.",
             ("server", "change"), dict(self._tool_findings)),
            ("mcpx_reloads", "Reloads of the configuration.",
             ("result",), {(result,): count for result, count in self._reloads.items()}),
        )  # fmt: skip
        durations = {
            server: (tuple(found.counts), found.total_s)
            for server, found in self._durations.items()
        }
        return Counted(
            version=self._version,
            gauges=gauges,
            totals=totals,
            series=series,
            durations=durations,
            breakers={server: state for server, (state, _) in breakers.items()},
            milliseconds=self._config.milliseconds,
        )


def _page(counted: Counted) -> bytes:
    """On a worker thread. What writes the page is loaded when the first one is asked for."""
    from mcpx.services.exposition import page

    return page(counted)


def _none() -> int:
    return 0


def _nothing() -> tuple[int, int]:
    return 0, 0
