"""A finished request as OpenTelemetry's spans, and where they go.

What it is: what the pipeline notes of a request (``Trace``, ``Facts``), the spans that
are made of it afterwards, and two exporters. The only module that imports OpenTelemetry,
and only when a ``SpanMaker`` or an exporter is made. What it must never do: put an
argument, a credential, a query or an internal address into a span, follow a redirect, or
hold anything that a collector answers without a bound.

    mcpx.request      server    the whole exchange
    ├─ mcpx.policy    internal  while the policies judged
    └─ mcpx.proxy     client    from sending to the last byte; its id is what the server
                                gets as its parent

**The environment has no say.** ``OTEL_*``, ``*_proxy``, ``REQUESTS_CA_BUNDLE`` and netrc
are not followed: what leaves the gateway, and where to, is in its configuration alone.
OpenTelemetry's exporter would read some of them by itself, so the session that it is
given puts in what is configured and takes nothing else. Which certificates are trusted
is the system's to say, as for every other connection of the gateway (``SSL_CERT_FILE``
and ``SSL_CERT_DIR`` belong to that). Redirects are failures.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
import trio

from mcpx.config.model import TracingConfig
from mcpx.core.trace_context import Parent, chosen, from_meta, new_id, write_traceparent
from mcpx.errors import McpxError
from mcpx.services.audit_sink import DescriptorSink

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

__all__ = [
    "Exporter",
    "Facts",
    "Finished",
    "SpanMaker",
    "Trace",
    "Unusable",
    "exporter_for",
]

#: One export, with its repetitions.
EXPORT_S: Final = 5.0
#: Texts are cut here, in characters.
MAX_TEXT: Final = 256
MAX_ANSWER_BYTES: Final = 64 * 1024

#: Outcomes that are failures whatever status had already left.
_FAILED: Final = frozenset({"error", "timeout", "upstream_error"})
_AT_THE_SERVER: Final = frozenset({"timeout", "upstream_error"})

Headers = list[tuple[bytes, bytes]]


class Unusable(McpxError):
    """The settings of the exporter can't work. The message names no header's value."""


class Trace:
    """Where a request stands in its trace, and when its phases changed.

    ``sampled``: it is recorded. ``span_id`` is the id that its server gets. Moments are
    trio's, in seconds, ``None`` where a phase was not reached; the methods that note them
    do nothing for a request that is not recorded.
    """

    __slots__ = (
        "link",
        "parent",
        "policy_from_s",
        "policy_to_s",
        "proxy_from_s",
        "proxy_to_s",
        "sampled",
        "span_id",
        "stream_from_s",
        "trace_id",
    )

    def __init__(
        self, trace_id: bytes, span_id: bytes, parent: Parent | None, *, sampled: bool
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.sampled = sampled
        #: The caller's context in another trace.
        self.link: Parent | None = None
        self.policy_from_s: float | None = None
        self.policy_to_s: float | None = None
        self.proxy_from_s: float | None = None
        self.proxy_to_s: float | None = None
        self.stream_from_s: float | None = None

    def adopt(self, traceparent: str | bytes | None, tracestate: str | bytes | None = None) -> None:
        """Take into account what the message's ``_meta`` says, once it was understood.

        Before any phase has begun: the request may change its trace, and become recorded
        or not.
        """
        if traceparent is None:
            return
        meta = from_meta(traceparent, tracestate)
        parent, self.link = chosen(self.parent, meta)
        if parent is not None and parent is not self.parent:
            self.parent = parent
            self.trace_id = parent.trace_id
            self.sampled = parent.sampled

    def policy_begins(self) -> None:
        """The policies are asked."""
        if self.sampled:
            self.policy_from_s = trio.current_time()

    def policy_ends(self) -> None:
        """The policies let it pass. What they refuse ends with the refusal."""
        if self.sampled:
            self.policy_to_s = trio.current_time()

    def proxy_begins(self) -> None:
        """The request goes to its server."""
        if self.sampled:
            self.proxy_from_s = trio.current_time()

    def proxy_ends(self) -> None:
        """The server's answer is with the client, or there will be none."""
        if self.sampled:
            self.proxy_to_s = trio.current_time()

    def stream_begins(self) -> None:
        """The answer is an event stream."""
        if self.sampled:
            self.stream_from_s = trio.current_time()

    def outgoing(self) -> Headers:
        """The header fields with which the server learns of its place in the trace."""
        own = write_traceparent(self.trace_id, self.span_id, sampled=self.sampled)
        headers = [(b"traceparent", own)]
        if self.parent is not None and self.parent.state:
            headers.append((b"tracestate", self.parent.state))
        return headers

    @property
    def spans(self) -> int:
        """How many spans will be made of it."""
        return 1 + (self.policy_from_s is not None) + (self.proxy_from_s is not None)


class Facts(msgspec.Struct, gc=False, kw_only=True):
    """What is to be said about a finished request. Empty texts mean absent.

    ``started_s`` and ``ended_s`` are trio's moments, ``status`` is 0 where none was sent.
    ``outcome`` is the audit's word. Long texts are cut here, before they are kept.
    """

    started_s: float
    ended_s: float
    http_method: str
    path: bytes
    status: int
    outcome: str
    allowed: bool
    request_id: bytes = b""
    server: str = ""
    method: str = ""
    tool: str = ""
    client: str = ""

    def __post_init__(self) -> None:
        """Keep no more of a client's texts than a span will show."""
        if len(self.path) > MAX_TEXT:
            self.path = self.path[:MAX_TEXT]
        if len(self.tool) > MAX_TEXT:
            self.tool = self.tool[:MAX_TEXT]
        if len(self.method) > MAX_TEXT:
            self.method = self.method[:MAX_TEXT]
        if len(self.http_method) > MAX_TEXT:
            self.http_method = self.http_method[:MAX_TEXT]

    @property
    def failed(self) -> bool:
        """Whether the request's span is an error's."""
        return not self.allowed or self.status >= 500 or self.outcome in _FAILED


#: A trace, its facts, and the end in nanoseconds since the epoch.
Finished = tuple[Trace, Facts, int]


class Exporter(Protocol):
    """Where spans go. Called on a worker thread, one call at a time."""

    def export(self, spans: Sequence[ReadableSpan], /) -> str | None:
        """Send spans; what went wrong, in words for the log, or ``None``."""
        ...

    def close(self) -> None:
        """Let go of connections. Does not wait."""
        ...


class SpanMaker:
    """Makes OpenTelemetry's spans of what was noted. Raises ImportError without it."""

    def __init__(self, service_name: str, version: str, getrandbits: Callable[[int], int]) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk import trace as sdk
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.sdk.version import __version__ as sdk_version

        self._api = trace
        self._sdk = sdk
        self._getrandbits = getrandbits
        # Not `Resource.create`, which asks the environment.
        self._resource = Resource(
            {
                "service.name": _text(service_name),
                "service.version": version,
                "telemetry.sdk.language": "python",
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.version": sdk_version,
            }
        )
        self._scope = InstrumentationScope("mcpx", version)

    def all(self, batch: Sequence[Finished]) -> list[ReadableSpan]:
        """The spans of several requests."""
        return [span for finished in batch for span in self.spans(finished)]

    def spans(self, finished: Finished) -> list[ReadableSpan]:
        """The spans of one request, the whole first."""
        trace, facts, ended_ns = finished
        api, ended_s = self._api, facts.ended_s
        parent = self._context(trace.parent) if trace.parent is not None else None
        state = parent.trace_state if parent is not None else None
        trace_id = int(trace.trace_id, 16)
        flags = api.TraceFlags(api.TraceFlags.SAMPLED)

        def at(moment_s: float | None) -> int:
            """A moment of trio's since the epoch; the end where it was not reached."""
            return ended_ns if moment_s is None else ended_ns - round((ended_s - moment_s) * 1e9)

        def span(name: str, span_id: bytes, *, failed: bool, **more: Any) -> ReadableSpan:
            # An error is described by its outcome, which names no address.
            code = api.StatusCode.ERROR if failed else api.StatusCode.UNSET
            made: ReadableSpan = self._sdk.ReadableSpan(
                name,
                context=api.SpanContext(
                    trace_id, int(span_id, 16), False, trace_flags=flags, trace_state=state
                ),
                resource=self._resource,
                instrumentation_scope=self._scope,
                status=api.Status(code, facts.outcome if failed else None),
                **more,
            )
            return made

        began = trace.stream_from_s
        whole = span(
            "mcpx.request",
            new_id(self._getrandbits),
            failed=facts.failed,
            parent=parent,
            kind=api.SpanKind.SERVER,
            attributes=_attributes(trace, facts),
            events=() if began is None else (self._sdk.Event("stream.start", timestamp=at(began)),),
            links=() if trace.link is None else (api.Link(self._context(trace.link)),),
            start_time=at(facts.started_s),
            end_time=ended_ns,
        )
        spans = [whole]
        if trace.policy_from_s is not None:
            denied = facts.outcome == "denied"
            # Nothing where they were not heard to the end.
            heard = denied or trace.policy_to_s is not None
            spans.append(
                span(
                    "mcpx.policy",
                    new_id(self._getrandbits),
                    failed=denied,
                    parent=whole.context,
                    attributes={"mcpx.decision": "deny" if denied else "allow"} if heard else {},
                    start_time=at(trace.policy_from_s),
                    end_time=at(trace.policy_to_s),
                )
            )
        if trace.proxy_from_s is not None:
            spans.append(
                span(
                    "mcpx.proxy",
                    trace.span_id,
                    failed=facts.status >= 500 or facts.outcome in _AT_THE_SERVER,
                    parent=whole.context,
                    kind=api.SpanKind.CLIENT,
                    attributes={"mcpx.transport": "http", "mcpx.server": _text(facts.server)},
                    start_time=at(trace.proxy_from_s),
                    end_time=at(trace.proxy_to_s),
                )
            )
        return spans

    def _context(self, parent: Parent) -> SpanContext:
        """What somebody else told of itself."""
        api = self._api
        state = api.TraceState.from_header([parent.state.decode()]) if parent.state else None
        context: SpanContext = api.SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=api.TraceFlags(parent.sampled),
            trace_state=state,
        )
        return context


def _attributes(trace: Trace, facts: Facts) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {
        "http.request.method": _text(facts.http_method),
        "url.path": _text(facts.path.decode("utf-8", "replace")),
        "mcpx.decision": "allow" if facts.allowed else "deny",
        "mcpx.outcome": facts.outcome,
    }
    if facts.status:
        found["http.response.status_code"] = facts.status
    for name, value in (
        ("mcpx.server", facts.server),
        ("mcpx.method", facts.method),
        ("mcpx.tool", facts.tool),
        ("mcpx.client", facts.client),
        ("mcpx.request_id", facts.request_id.decode("ascii", "replace")),
    ):
        if value:
            found[name] = _text(value)
    if trace.stream_from_s is not None:
        found["mcpx.streaming"] = True
    if facts.failed:
        found["error.type"] = facts.outcome
    return found


def _text(value: str) -> str:
    """A text that any exporter can write: not long, and without half characters."""
    cut = value[:MAX_TEXT]
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode("utf-8")


def exporter_for(config: TracingConfig, version: str) -> Exporter:
    """The exporter that a configuration asks for; nothing is connected yet.

    Raises:
        ImportError: a library for it is not installed.
        Unusable, OSError: it can't work.
    """
    return _Stdout() if config.exporter == "stdout" else _Otlp(config, version)


class _Stdout:
    """Spans as indented JSON on standard output, each in one write."""

    def __init__(self) -> None:
        self._sink = DescriptorSink(1)
        self._sink.open()

    def export(self, spans: Sequence[ReadableSpan], /) -> str | None:
        """See ``Exporter``."""
        texts = [(span.to_json(indent=2) + "\n").encode() for span in spans]
        until = time.monotonic() + EXPORT_S
        while texts or self._sink.torn:
            written = self._sink.write(texts)
            if written.error is not None:
                return written.error.strerror or type(written.error).__name__
            del texts[: written.lines]
            if time.monotonic() > until:
                return "nobody reads the output"
        return None

    def close(self) -> None:
        """See ``Exporter``."""


class _Otlp:
    """Spans to a collector: OTLP over HTTP, protobuf."""

    def __init__(self, config: TracingConfig, version: str) -> None:
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.metrics import NoOpMeterProvider
        from opentelemetry.sdk.trace.export import SpanExportResult

        url = _url(config)
        paths = ssl.get_default_verify_paths()
        trusted: str | bool = paths.cafile or paths.capath or True
        own_headers = _collector_headers(config, version)

        class Session(requests.Session):
            """Sends what is configured, whatever the exporter or the environment adds."""

            failure = ""

            def merge_environment_settings(self, *_: object) -> dict[str, Any]:
                return {"proxies": {}, "stream": True, "verify": trusted, "cert": None}

            def request(
                self, method: str, url: str | bytes, *_: Any, **asked: Any
            ) -> requests.Response:
                try:
                    answer = super().request(
                        method,
                        url,
                        data=asked.get("data"),
                        timeout=asked.get("timeout"),
                        allow_redirects=False,
                    )
                    self.failure = f"status {answer.status_code}"
                    # The end of a short answer gives the connection back for the next one.
                    if len(answer.raw.read(MAX_ANSWER_BYTES)) >= MAX_ANSWER_BYTES:
                        answer.close()
                except Exception as exc:
                    self.failure = type(exc).__name__
                    raise
                if 300 <= answer.status_code < 400:
                    raise requests.RequestException("redirected")
                return answer

        # Failures are told here, and seldom; the library would tell each of them.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._success = SpanExportResult.SUCCESS
        self._session = Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update(own_headers)
        self._exporter = OTLPSpanExporter(
            endpoint=url,
            headers={},
            timeout=EXPORT_S,
            compression=Compression.NoCompression,
            session=self._session,
            meter_provider=NoOpMeterProvider(),
        )

    def export(self, spans: Sequence[ReadableSpan], /) -> str | None:
        """See ``Exporter``."""
        self._session.failure = "the spans can't be encoded"
        if self._exporter.export(spans) is self._success:
            return None
        return self._session.failure

    def close(self) -> None:
        """See ``Exporter``."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _url(config: TracingConfig) -> str:
    """The collector's address. Raises Unusable."""
    url = f"{'http' if config.insecure else 'https'}://{config.endpoint or ''}"
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port and parts.netloc == config.endpoint
    except ValueError:
        usable = False
    if not usable or "@" in url:
        raise Unusable("tracing.endpoint is no host:port")
    return url + "/v1/traces"


def _collector_headers(config: TracingConfig, version: str) -> dict[str, str]:
    """The header fields of an export. Raises Unusable."""
    found = {"user-agent": f"mcpx/{version}"}
    for name, value in config.headers.items():
        try:
            name.encode("ascii")
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise Unusable(f"tracing.headers: {name!a} can't be sent in HTTP") from None
        found[name.lower()] = value
    found["content-type"] = "application/x-protobuf"
    return found
