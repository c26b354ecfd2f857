"""What lives longer than an exchange, and longer than a configuration.

What it is: the current snapshot, and beside it what a reload must keep: connections to
upstreams, the levels of the limits, counters, the audit's queue, the key of the session
ids. ``apply`` puts a new snapshot in place with one assignment; exchanges that are
under way go on with the one that they began with.

What it must never do: fail half-way. What can fail (certificates, files) is built by
``prepare`` before anything is replaced.
"""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Mapping
from typing import Final

import trio

from mcpx.config.model import LimitsConfig, ServerTls
from mcpx.config.snapshot import Route, Snapshot
from mcpx.core.breaker import Breaker
from mcpx.core.integrity import Baseline
from mcpx.core.limits import RateLimiter, Rates
from mcpx.core.response_cache import ResponseCache, Storable
from mcpx.core.sessions import SessionSealer, key_from_secret
from mcpx.errors import ConfigError
from mcpx.gateway.server_tools import Watcher
from mcpx.gateway.shares import Shares
from mcpx.gateway.single_flight import SingleFlight
from mcpx.gateway.trust import Trust
from mcpx.protocol.http1 import ResponseParser
from mcpx.services.audit import AuditLog
from mcpx.services.errand import Errands
from mcpx.services.metrics import Metrics
from mcpx.services.tracing import Tracer
from mcpx.transport.readiness import Readiness
from mcpx.transport.upstream import UpstreamPool

__all__ = ["LARGE_BYTES", "Prepared", "State"]

#: Requests that may wait for one answer, and how many of them go alone at one time if it
#: was for one only.
MAX_FOLLOWERS: Final = 100_000
MAX_ALONE: Final = 64
#: A text longer than this is read beside the loop: reading it takes the better part of a
#: tenth of a second, for which others would have to wait.
LARGE_BYTES: Final = 64 * 1024


class Prepared:
    """The parts of a new state that had to be built before it could be put in place."""

    __slots__ = ("audit", "baselines", "pools", "snapshot", "tracer", "trust")

    def __init__(
        self,
        snapshot: Snapshot,
        pools: dict[str, UpstreamPool],
        audit: AuditLog | None,
        trust: Trust,
    ) -> None:
        self.snapshot = snapshot
        self.pools = pools
        self.audit = audit
        self.tracer: Tracer | None = None
        self.trust = trust
        #: The pins as they stand in their file; ``None`` if that was not read.
        self.baselines: Mapping[str, Baseline] | None = None


class State:
    """The gateway's state; the pipeline reads it, ``app`` changes it."""

    def __init__(self, prepared: Prepared, metrics: Metrics) -> None:
        self.metrics = metrics
        self.snapshot = prepared.snapshot
        self.pools = prepared.pools
        self.audit = prepared.audit
        self.trust = prepared.trust
        self._begin_trust()
        config = prepared.snapshot.config
        self.limiter = RateLimiter(Rates.of(config.rate_limit))
        key = config.sessions.key
        self._own_key = secrets.token_bytes(32)
        self.sealer = SessionSealer(key_from_secret(key) if key else self._own_key)
        #: Streams without an end of their own; ``app`` cancels them when the gateway stops.
        self.open_streams: set[trio.CancelScope] = set()
        self.stopping = False
        #: Set by ``app``; ``None`` where nothing is traced.
        self.tracer: Tracer | None = None
        #: Results that are kept, and the calls that others wait for.
        self.cache: ResponseCache | None = None
        self.flight: SingleFlight[tuple[bytes, int], Storable] = SingleFlight(
            max_followers=MAX_FOLLOWERS, max_alone=MAX_ALONE
        )
        #: The servers' tools, and who lists them now.
        self.watcher = Watcher(metrics, lambda: self.audit, self._tool_changed)
        self.relisting: SingleFlight[tuple[str, int], float] = SingleFlight(
            max_followers=MAX_FOLLOWERS, max_alone=MAX_ALONE
        )
        self.shares = Shares()
        #: Server name to its breaker, where they are on.
        self.breakers: dict[str, Breaker] = {}
        self._set_breakers(None)
        self._set_tools(None, prepared.baselines)
        self._set_cache(None)
        #: Who may read a large text now. One at a time: they would share one interpreter,
        #: and what they hold meanwhile adds up.
        self.aside = trio.CapacityLimiter(1)
        self._announce()

    def apply(self, prepared: Prepared) -> list[UpstreamPool]:
        """Put a new state in place; gives the pools that nothing uses any more."""
        config = prepared.snapshot.config
        self.limiter = self.limiter.resized(Rates.of(config.rate_limit), trio.current_time())
        key = config.sessions.key
        self.sealer = SessionSealer(key_from_secret(key) if key else self._own_key)
        kept = {id(pool) for pool in prepared.pools.values()}
        dropped = [pool for pool in self.pools.values() if id(pool) not in kept]
        before = self.snapshot
        self.pools = prepared.pools
        self.audit = prepared.audit
        self.trust = prepared.trust
        self._begin_trust()
        self.snapshot = prepared.snapshot
        self._set_breakers(before)
        self._set_tools(before, prepared.baselines)
        self._set_cache(before)
        self._announce()
        return dropped

    def _set_tools(self, before: Snapshot | None, baselines: Mapping[str, Baseline] | None) -> None:
        snapshot = self.snapshot
        names = {
            name: before is None or _same_place(before.routes.get(name), route)
            for name, route in snapshot.routes.items()
        }
        self.watcher.configure(names, snapshot.config.inspection, baselines)

    def _set_cache(self, before: Snapshot | None) -> None:
        """A cache as the configuration wants it; what may have become wrong is forgotten."""
        settings = self.snapshot.config.cache
        sizes = (settings.max_entries, settings.max_bytes, settings.max_body_bytes)
        if not settings.enabled or not all(sizes):
            self.cache = None
            return
        if self.cache is None:
            self.cache = ResponseCache(*sizes)
            return
        self.cache.resize(*sizes)
        if settings.purge_on_reload or before is None:
            self.cache.purge()
            return
        for name, route in before.routes.items():
            now = self.snapshot.routes.get(name)
            if now is None or not _same_answers(route, now):
                self.cache.purge_server(name)

    def tools_changed(self, server: str) -> None:
        """The server says so: what was found out and kept of its tools counts no more."""
        self.watcher.expire(server)
        if self.cache is not None:
            self.cache.purge_server(server)

    def _tool_changed(self, server: str, tool: str) -> None:
        if self.cache is not None:
            self.cache.purge_tool(server, tool)

    def cache_counts(self) -> tuple[int, int]:
        """How many results are kept, and how many had to go for others."""
        if self.cache is None:
            return 0, 0
        found = self.cache.statistics
        return found.entries, found.evictions

    def _begin_trust(self) -> None:
        if self.trust.tokens is not None:
            self.trust.tokens.begin()

    def _set_breakers(self, before: Snapshot | None) -> None:
        """A breaker for each server; one whose server stays where it is keeps its state."""
        snapshot, old = self.snapshot, self.breakers
        config = snapshot.config.circuit_breaker
        breakers: dict[str, Breaker] = {}
        for name, route in snapshot.routes.items() if config.enabled else ():
            # What was given as 0 has always meant the default.
            settings = (
                config.failure_threshold or 5,
                config.cooldown or 30.0,
                config.half_open_max or 1,
                route.timeouts.total_s,
            )
            was = before.routes.get(name) if before is not None else None
            if name in old and _same_place(was, route):
                breakers[name] = old[name]
                breakers[name].resize(*settings)
            else:
                breakers[name] = Breaker(*settings)
        self.breakers = breakers

    def breaker_counts(self) -> dict[str, tuple[int, int]]:
        """Each server's breaker: its state as a number, and how often it has opened."""
        now = trio.current_time()
        return {
            name: (breaker.state(now).value, breaker.trips)
            for name, breaker in self.breakers.items()
        }

    def _announce(self) -> None:
        snapshot, metrics = self.snapshot, self.metrics
        metrics.set_servers(list(snapshot.routes))
        metrics.set_clients(snapshot.client_names)
        for route in snapshot.routes.values():
            names = set(route.policy.tool_names)
            for policy in route.client_policies.values():
                names |= policy.tool_names
            metrics.learn_tools(route.name, names)


def prepare(
    snapshot: Snapshot,
    audit: AuditLog | None,
    old: State | None,
    errands: Errands,
    readiness: Readiness | None = None,
) -> Prepared:
    """Build what ``snapshot`` needs, keeping of ``old`` what is the same. Blocks.

    ``readiness`` is how connections to upstreams wait.

    Raises:
        ConfigError: a file that it names can't be used.
    """
    pools: dict[str, UpstreamPool] = {}
    for route in snapshot.routes.values():
        if route.url is None:
            continue
        kept = _same_pool(route, snapshot.config.limits, old)
        pools[route.name] = kept or _pool(route, snapshot.config.limits, readiness)
    trust = Trust.of(snapshot, errands, old.trust if old is not None else None)
    return Prepared(snapshot, pools, audit, trust)


def _same_pool(route: Route, limits: LimitsConfig, old: State | None) -> UpstreamPool | None:
    before = old.snapshot.routes.get(route.name) if old is not None else None
    if old is None or before is None:
        return None
    a, b, was = before.server, route.server, old.snapshot.config.limits
    same = (
        (a.url, a.tls, a.max_connections) == (b.url, b.tls, b.max_connections)
        and before.timeouts == route.timeouts
        and (was.max_header_bytes, was.max_header_count)
        == (limits.max_header_bytes, limits.max_header_count)
    )
    pool = old.pools.get(route.name)
    return pool if same and pool is not None and pool.files == _versions(b.tls) else None


def _same_place(before: Route | None, now: Route) -> bool:
    return before is not None and before.server.url == now.server.url


def _same_answers(before: Route, now: Route) -> bool:
    """Whether what the server answered before may still be what it would answer."""
    return (before.server.url, before.forward_headers, before.server.auth) == (
        now.server.url,
        now.forward_headers,
        now.server.auth,
    )


def _versions(tls: ServerTls) -> tuple[object, ...]:
    """What tells whether the files of ``tls`` have changed since."""
    versions: list[object] = []
    for path in (tls.ca, tls.cert, tls.key):
        try:
            found = os.stat(path) if path is not None else None
        except OSError:
            found = None
        versions.append(found and (found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(versions)


def _pool(route: Route, limits: LimitsConfig, readiness: Readiness | None) -> UpstreamPool:
    assert route.url is not None
    tls = route.server.tls

    def parser() -> ResponseParser:
        return ResponseParser(
            max_header_bytes=limits.max_header_bytes, max_header_count=limits.max_header_count
        )

    return UpstreamPool(
        route.url,
        route.timeouts,
        max_connections=route.server.max_connections,
        tls=_client_context(route.name, tls) if route.url.scheme == "https" else None,
        server_name=tls.server_name or route.url.host,
        parser=parser,
        files=_versions(tls),
        readiness=readiness,
    )


def _client_context(name: str, tls: ServerTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError([f"servers: {name}: tls: {exc}; check the files it names"]) from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
