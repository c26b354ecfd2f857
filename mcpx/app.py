"""The composition root: what runs, who owns it, and how it starts, reloads and ends.

The tree of tasks; an arrow is "owned by", and nothing else starts tasks:

    run
    └─ services                      cancelled last
       ├─ Readiness                  wakes who waits for a socket (on Linux)
       ├─ Deadlines                  everything that waits too long
       ├─ AuditLog                   the record's writer (a new one where it changed)
       ├─ PinStore                   the writer of pinned tools, where they are pinned
       ├─ Errands                    keys and tokens that are fetched beside requests
       ├─ signals                    SIGHUP reloads; SIGINT and SIGTERM stop
       ├─ ConfigWatcher              with -watch
       └─ Listener (or Http2Listener)
          └─ a task per connection
             └─ a task per event stream, which sees the client leave

Starting: read and compile the configuration, then open the socket, then accept. What is
wrong is told before a byte is served.

Reloading: build the new state whole, beside the old one; swap; then close what nothing
uses any more. A configuration with a fault changes nothing.

Stopping: accept no more, let what is in flight end (``timeouts.drain``), cut the rest,
write every audit line, leave.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import trio

from mcpx import __version__, _speedups
from mcpx.config.describe import describe
from mcpx.config.load import load_snapshot, read_file
from mcpx.config.model import Config
from mcpx.config.snapshot import Snapshot
from mcpx.core.integrity import Mode
from mcpx.errors import ConfigError
from mcpx.gateway.endpoints import pages
from mcpx.gateway.pipeline import Pipeline
from mcpx.gateway.probe import probe
from mcpx.gateway.server_tools import mode_of
from mcpx.gateway.state import Prepared, State, prepare
from mcpx.protocol import http1
from mcpx.services.audit import AuditLog
from mcpx.services.errand import Errands
from mcpx.services.health import Health
from mcpx.services.log import configure as configure_log
from mcpx.services.log import event
from mcpx.services.metrics import Metrics
from mcpx.services.tracing import Tracer
from mcpx.services.watch import ConfigWatcher
from mcpx.store.pin_file import FILE_NAME, PinFile
from mcpx.store.pins import PinStore
from mcpx.transport.connection import Bounds
from mcpx.transport.deadlines import Deadlines
from mcpx.transport.http import Budget
from mcpx.transport.listener import Listener, open_socket, server_context
from mcpx.transport.readiness import Readiness

__all__ = ["App", "read_snapshot", "run"]

log = logging.getLogger("mcpx")

#: Read at start; changing one of these in a running gateway has no effect.
_NEEDS_RESTART: Final = ("listen", "http2", "data_dir")
AUDIT_DRAIN_S: Final = 10.0


def read_snapshot(path: str, environ: Mapping[str, str], generation: int) -> Snapshot:
    """The configuration at ``path``, compiled.

    Raises:
        ConfigError: it can't be read, or something in it is wrong.
    """
    return load_snapshot(read_file(path), filename=path, environ=environ, generation=generation)


def check_snapshot(path: str, environ: Mapping[str, str]) -> Snapshot:
    """``read_snapshot``, and whether the files that it names can be used.

    Raises:
        ConfigError: it can't be read, or something in it is wrong.
    """
    snapshot = read_snapshot(path, environ, 1)
    config = snapshot.config
    if config.tls is not None:
        server_context(config.tls.cert, config.tls.key, http2=config.http2)
    _listener_class(config)
    prepare(snapshot, None, None, Errands())
    if _pins_tools(config) and os.path.exists(os.path.join(config.data_dir, FILE_NAME)):
        with PinFile(config.data_dir, create=False) as pins:
            pins.load()
    return snapshot


class App:
    """One gateway.

    Args:
        path: the configuration file; read again at every reload.
        environ: what ``${NAME}`` in it refers to.
        watch_interval_s: how often to look for changes of the file; ``None`` not to.
        started: told the listener's address once connections are accepted.
    """

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        *,
        watch_interval_s: float | None = None,
        started: Callable[[str], None] | None = None,
    ) -> None:
        self._path = path
        self._environ = environ
        self._watch_interval_s = watch_interval_s
        self._started = started
        self._generation = 1
        self._deadlines = Deadlines()
        self._readiness = Readiness() if Readiness.here else None
        self._loaded = read_file(path)
        snapshot = load_snapshot(
            self._loaded, filename=path, environ=environ, generation=self._generation
        )
        self._http2 = snapshot.config.http2
        #: What the listener was opened with.
        self._opened = snapshot.config
        self._metrics = Metrics(snapshot.config.metrics, version=__version__)
        audit = AuditLog.of(snapshot.config.audit, snapshot.redactor, self._metrics)
        self._errands = Errands()
        prepared = prepare(snapshot, audit, None, self._errands, self._readiness)
        pins = self._open_pins(prepared) if _pins_tools(snapshot.config) else None
        self.state = State(prepared, self._metrics)
        self.state.tracer = Tracer.of(
            snapshot.config.tracing, version=__version__, counting=self._metrics
        )
        self.state.watcher.store = pins
        self._health = Health(
            lambda route: probe(self.state, route),
            cache_ttl_s=snapshot.config.health.cache_ttl,
            timeout_s=snapshot.config.health.timeout,
            version=__version__,
        )
        self.pipeline = Pipeline(self.state, pages(self.state, self._health))
        self._services: trio.Nursery | None = None
        self._listener: Listener | None = None
        self._stop = trio.Event()
        self._draining = trio.CancelScope()
        self._reload_lock = trio.Lock()

    def _open_pins(self, prepared: Prepared) -> PinStore:
        """The store of pinned tools, its pins read. Blocks. Raises ConfigError."""
        file = PinFile(prepared.snapshot.config.data_dir)
        try:
            prepared.baselines = file.load()
        except BaseException:
            file.close()
            raise
        return PinStore(file, failed=self._metrics.pins_not_written)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped by ``stop`` or a signal.

        Raises:
            ConfigError: the address or the certificate can't be had.
        """
        raise_descriptor_limit()
        config = self.state.snapshot.config
        listener = self._listener = self._open(config)
        self._metrics.count_connections(lambda: listener.connections)
        self._metrics.count_breakers(self.state.breaker_counts)
        self._metrics.count_cache(self.state.cache_counts)
        try:
            async with trio.open_nursery() as services:
                self._services = services
                if self._readiness is not None:
                    await services.start(self._readiness.run)
                    self._deadlines.every_tick(self._readiness.look)
                await services.start(self._deadlines.run)
                self._deadlines.every_tick(self._reap)
                await services.start(self._errands.run)
                if self.state.audit is not None:
                    await services.start(self.state.audit.run)
                if self.state.tracer is not None:
                    await services.start(self.state.tracer.run)
                if self.state.watcher.store is not None:
                    await services.start(self.state.watcher.store.run)
                await services.start(self._signals, services)
                if self._watch_interval_s is not None:
                    watcher = ConfigWatcher(
                        self._path, self._watch_interval_s, self._changed, loaded=self._loaded
                    )
                    await services.start(watcher.run)
                async with trio.open_nursery() as listening:
                    await listening.start(listener.run)
                    event(log, logging.INFO, "ready", listen=listener.address)
                    if self._started is not None:
                        self._started(listener.address)
                    task_status.started(listener.address)
                    await self._stop.wait()
                    await self._drain(listener, listening)
                await self._last_records()
                services.cancel_scope.cancel(reason="the gateway has stopped")
        finally:
            # However this ends: a connection that nobody uses is a descriptor lost.
            for pool in self.state.pools.values():
                pool.close()
            if self.state.watcher.store is not None:
                self.state.watcher.store.close()
        log.info("stopped")

    def stop(self) -> None:
        """Begin to stop. A second call ends at once what is in flight."""
        if self._stop.is_set():
            self._draining.cancel(reason="told twice to stop")
        self._stop.set()

    def _open(self, config: Config) -> Listener:
        tls = (
            server_context(config.tls.cert, config.tls.key, http2=config.http2)
            if config.tls
            else None
        )
        return _listener_class(config)(
            open_socket(config.listen),
            handler=self.pipeline.handle,
            admit=self.pipeline.admit,
            unread=self.pipeline.unread,
            bounds=_bounds(config),
            budget=Budget(config.limits.max_bodies_bytes),
            deadlines=self._deadlines,
            max_connections=config.limits.max_connections,
            tls=tls,
            readiness=self._readiness,
        )

    # -- stopping ---------------------------------------------------------------

    async def _drain(self, listener: Listener, listening: trio.Nursery) -> None:
        drain_s = self.state.snapshot.config.timeouts.drain
        self.state.stopping = True
        listener.stop()
        for stream in list(self.state.open_streams):
            stream.cancel(reason="the gateway stops")
        event(log, logging.INFO, "stopping", connections=listener.connections, drain_s=drain_s)
        with self._draining, trio.move_on_after(drain_s):
            await listener.ended.wait()
        if not listener.ended.is_set():
            log.warning("cutting what is still in flight")
        listening.cancel_scope.cancel(reason="the time to drain is over")

    async def _last_records(self) -> None:
        if self.state.audit is not None:
            await self.state.audit.drain(AUDIT_DRAIN_S)

    async def _signals(
        self,
        services: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with trio.open_signal_receiver(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                if number == signal.SIGHUP:
                    # As a task of its own: a signal to stop must not wait for it. One
                    # that waits for its turn will read what all that come now have to say.
                    if not self._reload_lock.statistics().tasks_waiting:
                        services.start_soon(self.reload, "SIGHUP")
                else:
                    self.stop()

    # -- reloading --------------------------------------------------------------

    async def _changed(self) -> None:
        await self.reload("the file changed")

    async def reload(self, why: str) -> bool:
        """Read the configuration again; whether it was put in place."""
        async with self._reload_lock:
            try:
                await self._replace()
            except ConfigError as exc:
                log.error("the configuration was not reloaded; the old one stays")  # noqa: TRY400
                for problem in exc.problems:
                    log.error(problem)  # noqa: TRY400
                self._metrics.reloaded(ok=False)
                return False
            except Exception:
                log.exception("the configuration was not reloaded, by a fault of the gateway")
                self._metrics.reloaded(ok=False)
                return False
        self._metrics.reloaded(ok=True)
        self._tell(why)
        return True

    def _tell(self, why: str) -> None:
        snapshot = self.state.snapshot
        event(
            log,
            logging.INFO,
            "configuration reloaded",
            why=why,
            generation=snapshot.generation,
            servers=len(snapshot.routes),
        )
        opened = self._opened
        for name in _NEEDS_RESTART:
            if (now := getattr(snapshot.config, name)) != (then := getattr(opened, name)):
                log.warning("`%s` is now %s; %s stays until a restart", name, now, then)
        if (opened.tls is None) != (snapshot.config.tls is None):
            log.warning("`tls` has come or gone: that needs a restart")
        for warning in snapshot.warnings:
            log.warning(warning)

    async def _replace(self) -> None:
        """Build the new state, then swap it in."""
        state, services, listener = self.state, self._services, self._listener
        assert services is not None
        assert listener is not None
        old_audit = state.audit
        # On a thread: certificates and files take tens of milliseconds.
        prepared, tls, pins = await trio.to_thread.run_sync(self._build)
        old_tracer, tracer = state.tracer, prepared.tracer
        store = state.watcher.store
        if store is not None and pins is None and _pins_tools(prepared.snapshot.config):
            # What was approved or reset meanwhile.
            prepared.baselines = await store.reload()
        # Nothing below can fail.
        config, audit = prepared.snapshot.config, prepared.audit
        self._generation += 1
        if audit is not None and audit is not old_audit:
            await services.start(audit.run)
        if pins is not None:
            await services.start(pins.run)
            state.watcher.store = pins
        if tracer is not None and tracer is not old_tracer:
            await services.start(tracer.run)
        for pool in state.apply(prepared):
            pool.close()
        state.tracer = tracer
        if old_tracer is not None and old_tracer is not tracer:
            old_tracer.stop()
        if audit is not None:
            audit.redactor = prepared.snapshot.redactor
        self._metrics.configure(config.metrics)
        configure_log(config.log)
        self._health.configure(cache_ttl_s=config.health.cache_ttl, timeout_s=config.health.timeout)
        listener.bounds = _bounds(config)
        listener.budget.resize(config.limits.max_bodies_bytes)
        listener.max_connections = config.limits.max_connections
        if tls is not None:
            listener.tls = tls
        if old_audit is not None and old_audit is not audit:
            # It may take its time: neither a next reload nor a stop waits for it.
            services.start_soon(old_audit.drain, AUDIT_DRAIN_S)

    def _build(self) -> tuple[Prepared, ssl.SSLContext | None, PinStore | None]:
        """All of a new state that can fail. Changes nothing.

        Raises:
            ConfigError: something in it is wrong, or a file that it names can't be used.
        """
        state = self.state
        snapshot = read_snapshot(self._path, self._environ, self._generation + 1)
        config = snapshot.config
        tls = None
        if config.tls is not None and state.snapshot.config.tls is not None:
            # What the listener can speak was settled when it was opened.
            tls = server_context(config.tls.cert, config.tls.key, http2=self._http2)
        audit = state.audit
        if audit is None or not audit.matches(config.audit):
            audit = AuditLog.of(config.audit, snapshot.redactor, self._metrics)
        prepared = prepare(snapshot, audit, state, self._errands, self._readiness)
        prepared.tracer = state.tracer
        if prepared.tracer is None or not prepared.tracer.matches(config.tracing):
            prepared.tracer = Tracer.of(config.tracing, version=__version__, counting=self._metrics)
        pins = None
        if state.watcher.store is None and _pins_tools(config):
            pins = self._open_pins(prepared)
        return prepared, tls, pins

    def _reap(self, now: float) -> None:
        for pool in self.state.pools.values():
            pool.reap(now)


def _pins_tools(config: Config) -> bool:
    return mode_of(config.inspection) is not Mode.OFF


def _listener_class(config: Config) -> type[Listener]:
    """Raises ConfigError where HTTP/2 is wanted and can't be had."""
    if not config.http2:
        return Listener
    try:
        from mcpx.transport.http2 import Http2Listener
    except ImportError as exc:
        hint = "pip install 'mcpx-gateway[http2]'"
        raise ConfigError([f"http2: a library for it is not installed; {hint}"]) from exc
    return Http2Listener


def _bounds(config: Config) -> Bounds:
    limits, timeouts = config.limits, config.timeouts
    return Bounds(
        header_bytes=limits.max_header_bytes,
        header_count=limits.max_header_count,
        body_bytes=limits.max_body_bytes,
        keep_alive_s=timeouts.keep_alive,
        read_s=timeouts.read,
        write_s=timeouts.write,
    )


def raise_descriptor_limit() -> None:
    """As many file descriptors as this process may have: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.debug("the limit of descriptors stays at %d", soft)


def run(path: str, *, watch_interval_s: float | None = None) -> None:
    """Run a gateway until it is stopped.

    Raises:
        ConfigError: it can't start; said so that its operator can mend it.
    """
    app = App(path, os.environ, watch_interval_s=watch_interval_s)
    snapshot = app.state.snapshot
    configure_log(snapshot.config.log)
    _announce(snapshot, watch=watch_interval_s is not None)
    trio.run(app.run)


def _announce(snapshot: Snapshot, *, watch: bool) -> None:
    """Say what runs: one line with the facts, then the description, then the warnings."""
    config = snapshot.config
    event(
        log,
        logging.INFO,
        "starting",
        version=__version__,
        pid=os.getpid(),
        listen=config.listen,
        servers=len(snapshot.routes),
        auth=", ".join(config.auth.types) or config.auth.type if config.auth.enabled else "off",
        rate_limit=config.rate_limit.enabled,
        audit=(config.audit.output or "stdout") if config.audit.enabled else "off",
        watch=watch,
        speedups=_speedups.BACKEND,
        parser=http1.BACKEND,
    )
    for twin, reason in _speedups.REASONS.items():
        log.debug("the compiled parser %s is not used: %s", twin, reason)
    for line in describe(snapshot, warnings=False).splitlines():
        log.info(line)
    for warning in snapshot.warnings:
        log.warning(warning)
