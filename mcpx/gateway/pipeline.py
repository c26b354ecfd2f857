"""What happens to a request, on one screen.

What it is: the order in which the parts meet. Each step fills in the exchange or raises
the answer to give; ``handle`` writes the one answer and the one record, whatever
happened. What it must never do: let a step be skipped, or end without a record.

    request
      │  origin       Host and Origin are ours                    403
      │  identity     the credential is known, or verified        401
      │  rate limit   of the client, of all                       429
      │  front door   the message is understood                   400 405 413 415
      │  route        the path names a server                     404
      │  scopes       the token has those that this needs         403
      │  policy       the server's and the client's               403
      │  rate limit   of the tool                                 429
      │  session      the session id is this client's             404
      │  share        of what one client may hold                 503
      │  integrity    the tool is the one that was pinned         403
      │  cache        its result is known, or on its way
      │  breaker      the server is not left alone now            503
      │  upstream     sent as it was judged                       502 503 504
      │  inspection   lists without what may not be used
      ▼
    answer, audit line, metrics

Reading a message is the dearest of these steps, so it comes after the two that say
whether its sender may have us do it. A refusal before it still carries the message's id
where the message is small enough to be read for that alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import trio

from mcpx.core.addresses import client_address
from mcpx.core.identity import Principal
from mcpx.core.limits import retry_after
from mcpx.core.oauth import WELL_KNOWN, KeysUnavailable, ProtectedResource
from mcpx.errors import (
    BadRequest,
    GatewayError,
    MethodNotFound,
    Overloaded,
    PolicyDenied,
    RateLimited,
    Unauthorized,
    UpstreamError,
    UpstreamTimeout,
)
from mcpx.gateway.answers import refusal
from mcpx.gateway.breaking import Trial
from mcpx.gateway.caching import answered, caching_of
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.forward import forward, open_session
from mcpx.gateway.front_door import find_route, more_targets, named_route, read_message
from mcpx.gateway.recording import record, trace_of_message
from mcpx.gateway.relay import relay
from mcpx.gateway.relisting import WAITING, check_tool
from mcpx.gateway.shares import Share
from mcpx.gateway.state import LARGE_BYTES, State
from mcpx.protocol.mcp import CLIENT_METHODS
from mcpx.services.credentials import Credential
from mcpx.services.log import Sparingly, event
from mcpx.transport.http import Headers, Reply, Request
from mcpx.transport.wire import Broken

__all__ = ["Pipeline"]

log = logging.getLogger("mcpx.pipeline")

Endpoint = Callable[[Exchange], Awaitable[None]]
T = TypeVar("T")

#: How long a large request waits for its turn to be read.
TURN_S: Final = 10.0
#: A failing server is told of so often, in seconds.
_troubles: Final = Sparingly(30.0)
#: The page that shows each resource's metadata, wherever it is asked for.
METADATA: Final = WELL_KNOWN.encode()
#: A message of this size is read for its id alone.
SMALL_BYTES: Final = 4096


class Pipeline:
    """Serves exchanges on ``state``; ``endpoints`` are the gateway's own pages."""

    def __init__(self, state: State, endpoints: dict[bytes, Endpoint]) -> None:
        self.state = state
        self.endpoints = endpoints

    async def handle(self, request: Request, reply: Reply) -> None:
        """Serve one request: one answer, one record."""
        ex = self._exchange(request, reply)
        self.state.metrics.begin()
        try:
            await self._steps(ex)
        except GatewayError as error:
            _identify_message(ex)
            if ex.route is None:
                ex.route = named_route(ex)
            await self._refuse(ex, error)
        except Broken:
            _left(ex)
        except trio.Cancelled:
            self._cancelled(ex)
            raise
        except Exception:
            log.exception("request %s failed by a fault of the gateway", ex.request_id.decode())
            await self._refuse(ex, GatewayError("a fault of the gateway; its log tells more"))
        finally:
            record(ex, self.state)

    def _exchange(self, request: Request, reply: Reply) -> Exchange:
        state = self.state
        ex = Exchange(request, reply, state.snapshot, trio.current_time())
        # Of one moment with the snapshot: a reload may come before they are used.
        ex.pools = state.pools
        ex.client_ip = client_address(
            request.peer, _forwarded_for(ex), ex.snapshot.trusted_networks
        )
        if state.tracer is not None:
            ex.trace = state.tracer.begin(ex.headers, request.headers)
        return ex

    async def _steps(self, ex: Exchange) -> None:
        ex.snapshot.origins.check(ex.headers.get(b"host"), ex.headers.get(b"origin"))
        if ex.request.method == "OPTIONS":
            await preflight(ex)
            return
        endpoint = self.endpoints.get(ex.path)
        if endpoint is None and (oauth := ex.snapshot.oauth) and ex.path in oauth.documents:
            endpoint = self.endpoints[METADATA]
        if endpoint is not None:
            await endpoint(ex)
            return
        await identify(ex, self.state)
        limit(ex, self.state)
        large = len(ex.request.body) > LARGE_BYTES
        if large:
            await self._aside(read_message, ex)
        else:
            read_message(ex)
        trace = ex.trace
        if trace is not None:
            trace.adopt(*trace_of_message(ex))
        find_route(ex)
        check_scopes(ex)
        if trace is not None:
            trace.policy_begins()
        if large:
            await self._aside(judge, ex)
        else:
            judge(ex)
        if trace is not None:
            trace.policy_ends()
        limit_tool(ex, self.state)
        open_session(ex, self.state)
        audit = self.state.audit
        if audit is not None and audit.full:
            # Nothing is done that can't be recorded (unless `audit.on_full` is `shed`).
            ex.reply.watch.within(5, "audit")
            await audit.room()
        client = ex.principal.name or ex.client_ip
        with self.state.shares.call(client, ex.snapshot.config.limits) as share:
            await check_tool(ex, self.state)
            ex.allowed = True
            caching = caching_of(ex, self.state)
            if caching is None:
                await self._upstream(ex, share)
            else:
                await answered(ex, self.state, caching, partial(self._upstream, ex, share))

    async def _upstream(self, ex: Exchange, share: Share) -> None:
        """The exchange with the server."""
        if ex.method == "tools/list":
            ex.generation = self._generation(ex)
        trace = ex.trace
        if trace is not None:
            trace.proxy_begins()
        with self._trial(ex) as trial, await forward(ex, self._credential(ex)) as answer:
            trial.answered(answer.head.status)
            await relay(ex, self.state, answer, share, trial)
        if trace is not None:
            trace.proxy_ends()

    def _generation(self, ex: Exchange) -> int | None:
        assert ex.route is not None
        tools = self.state.watcher.servers.get(ex.route.name)
        return tools.integrity.generation if tools is not None and tools.integrity else None

    def _trial(self, ex: Exchange) -> Trial:
        assert ex.route is not None
        return Trial(self.state.breakers.get(ex.route.name), ex.route.name, ex.reply.watch)

    def _credential(self, ex: Exchange) -> Credential | None:
        assert ex.route is not None
        return self.state.trust.credentials.get(ex.route.name)

    async def _aside(self, step: Callable[[Exchange], T], ex: Exchange) -> T:
        """Take a step that reads a large body on a thread: others are served meanwhile."""
        ex.reply.watch.within(TURN_S, "turn")
        result = await trio.to_thread.run_sync(step, ex, limiter=self.state.aside)
        # A turn that came too late is told as that, and not after the request was sent.
        await trio.lowlevel.checkpoint_if_cancelled()
        return result

    async def admit(
        self, request: Request, reply: Reply, length: int | None
    ) -> tuple[int, Headers, bytes] | None:
        """Whether a body that is still to come may come; the refusal if not.

        Who has no credential can make the gateway hold little.
        """
        state = self.state
        limits = state.snapshot.config.limits
        if length is not None and length <= limits.max_unauthenticated_bytes:
            return None
        ex = self._exchange(request, reply)
        try:
            await identify(ex, state)
        except GatewayError as error:
            ex.outcome, ex.reason = error.outcome, error.reason
            ex.status, headers, body = refusal(ex, error)
            state.metrics.begin()
            record(ex, self.state)
            return ex.status, headers, body
        return None

    def unread(
        self, peer: str, scheme: str, reply: Reply, status: int, message: str
    ) -> tuple[Headers, bytes]:
        """The refusal of what is no HTTP request, or none that is accepted; recorded too.

        It has no method, no path and no sender's credential that could be relied on.
        """
        state = self.state
        request = Request("POST", b"", [], b"", peer, scheme)
        ex = self._exchange(request, reply)
        ex.method = "unread"
        error = BadRequest(message, status=status)
        ex.outcome, ex.reason = error.outcome, error.reason
        ex.status, headers, body = refusal(ex, error)
        state.metrics.begin()
        record(ex, self.state)
        return headers, body

    async def _refuse(self, ex: Exchange, error: GatewayError) -> None:
        ex.outcome, ex.reason = error.outcome, error.reason
        if isinstance(error, UpstreamError | UpstreamTimeout) and ex.route is not None:
            # In the gateway's own log too, but not for every request.
            turn = _troubles.turn(ex.route.name, trio.current_time())
            if turn is not None:
                event(log, logging.WARNING, "a server fails", server=ex.route.name,
                      reason=error.reason, also=turn)  # fmt: skip
        if ex.reply.started:
            # Half an answer is out: the end of the connection tells the client.
            ex.reply.abort()
            return
        ex.status, headers, body = refusal(ex, error)
        try:
            await ex.reply.answer(ex.status, headers, body)
        except Broken:
            _left(ex)

    def _cancelled(self, ex: Exchange) -> None:
        """The exchange ran out of time, its client left, or the gateway stops."""
        watch = ex.reply.watch
        if not watch.expired:
            if self.state.stopping:
                error: GatewayError = Overloaded("the gateway stops")
            else:
                return _left(ex)
        elif watch.phase == "client":
            ex.outcome, ex.reason = "client_stalled", "the client took nothing of its answer"
            return None
        elif watch.phase == "upstream connection":
            error = UpstreamError("the server can't be reached in time", status=504)
        elif watch.phase == "the answer to a like call":
            error = UpstreamTimeout(
                "the server did not answer a like call in time; this one was not sent"
            )
        elif watch.phase == WAITING:
            error = UpstreamTimeout(
                "the server's tools could not be listed in time, so the call was not made"
            )
        elif watch.phase == "turn":
            error = Overloaded(
                "too many large requests wait to be read; nothing was done",
            )
        elif watch.phase == "a free connection":
            error = Overloaded(
                "all connections to this server are busy; nothing reached it",
            )
        elif watch.phase == "a credential":
            error = UpstreamError(
                "the gateway could not get a credential for this server in time", status=504
            )
        elif watch.phase == "audit":
            error = Overloaded(
                "the audit log has no room; nothing was done",
            )
        else:
            error = UpstreamTimeout(
                "the server did not answer in time; the request may have been executed",
                reason=f"timeout: {watch.phase}",
            )
        ex.outcome, ex.reason = error.outcome, error.reason
        if not ex.reply.started:
            ex.status, headers, body = refusal(ex, error)
            ex.reply.last_words(ex.status, headers, body)
        return None


async def identify(ex: Exchange, state: State) -> None:
    """Who asks. Raises Unauthorized; RateLimited for who keeps asking without success.

    Also KeysUnavailable, where a token can't be verified at the moment.
    """
    authenticator = ex.snapshot.authenticator
    if authenticator is None:
        return
    try:
        found = authenticator.identify(ex.request.headers)
        if isinstance(found, Principal):
            ex.principal = found
            return
        assert state.trust.tokens is not None
        ex.claims = await state.trust.tokens.claims(found, resource_of(ex))
        ex.principal = Principal(ex.claims.name, authenticated=True)
    except KeysUnavailable:
        limit_stranger(ex, state)
        raise
    except Unauthorized as error:
        limit_stranger(ex, state)
        if ex.snapshot.oauth is not None and not any(
            b"resource_metadata" in value for _, value in error.headers
        ):
            # Who could come with a token is told where to get one.
            raise resource_of(ex).missing(error.message) from error
        raise


def resource_of(ex: Exchange) -> ProtectedResource:
    """The resource that the request's path is of: a server's endpoint, else the gateway."""
    oauth = ex.snapshot.oauth
    assert oauth is not None
    route = named_route(ex)
    return oauth.gateway if route is None else oauth.servers[route.name]


def check_scopes(ex: Exchange) -> None:
    """Whether the token has the scopes that this operation needs. Raises InsufficientScope."""
    if ex.claims is None:
        return
    oauth, route = ex.snapshot.oauth, ex.route
    assert oauth is not None
    assert route is not None
    needed = oauth.scopes.required(route.name, ex.method, ex.tool)
    if not oauth.scopes.satisfied(ex.claims.scopes, needed):
        raise oauth.servers[route.name].insufficient(needed)


def limit(ex: Exchange, state: State) -> None:
    """The limits of the client and of all. Raises RateLimited."""
    wait_s = state.limiter.request(ex.principal.name or ex.client_ip, trio.current_time())
    if wait_s:
        raise _limited("too many requests", "rate limit exceeded", wait_s)


def limit_stranger(ex: Exchange, state: State) -> None:
    """The limit of an address, which costs the others nothing. Raises RateLimited."""
    wait_s = state.limiter.stranger(ex.client_ip, trio.current_time())
    if wait_s:
        raise _limited("too many requests", "rate limit exceeded", wait_s)


def limit_tool(ex: Exchange, state: State) -> None:
    """The limit of a tool. Raises RateLimited."""
    tool = ex.tool
    if tool is not None and ex.method == "tools/call":
        assert ex.route is not None
        wait_s = state.limiter.tool(ex.route.name, tool, trio.current_time())
        if wait_s:
            said = f"rate limit exceeded for tool: {tool}"
            raise _limited(said, said, wait_s)


def _limited(message: str, reason: str, wait_s: float) -> RateLimited:
    after = str(retry_after(wait_s)).encode()
    return RateLimited(message, reason=reason, headers=((b"retry-after", after),))


def judge(ex: Exchange) -> None:
    """What the policies say. Raises PolicyDenied."""
    assert ex.route is not None
    ex.policy = policy = ex.route.policy_for(ex.principal.name)
    frame = ex.frame
    if frame is None or frame.method is None:
        # GET and DELETE carry no message; a response answers a request of the server's.
        decision = policy.decide_nameless(ex.method)
        if not decision.allowed:
            ex.rule = decision.rule
            raise PolicyDenied(decision.reason)
        return
    span = frame.arguments
    arguments = ex.request.body[span[0] : span[1]] if span is not None else None
    decision = policy.decide(frame.method, ex.kind, ex.name, arguments)
    if decision.allowed and ex.kind is None:
        for kind, name in more_targets(ex):
            decision = policy.decide(frame.method, kind, name, None)
            if not decision.allowed:
                break
    if not decision.allowed:
        ex.rule = decision.rule
        if ex.modern and frame.method not in CLIENT_METHODS:
            # To a modern client a method is either there or not: anything but 404 with
            # -32601 would be an answer of a method that exists.
            raise MethodNotFound("there is no such method here", reason=decision.reason)
        raise PolicyDenied(decision.reason)


async def preflight(ex: Exchange) -> None:
    """A browser asks whether it may ask. Raises OriginRefused, BadRequest."""
    told = ex.snapshot.origins.preflight(
        ex.headers.get(b"origin"),
        ex.headers.get(b"access-control-request-method"),
        ex.headers.get(b"access-control-request-headers"),
    )
    if told is None:
        raise BadRequest("OPTIONS is served to browsers alone, where `cors` is on", status=405,
                         headers=((b"allow", b"GET, POST, DELETE"),))  # fmt: skip
    ex.outcome, ex.status, ex.allowed = "page", 204, True
    await ex.reply.answer(204, [(b"x-request-id", ex.request_id), *told], b"")


def _forwarded_for(ex: Exchange) -> bytes | None:
    """What the request's ``X-Forwarded-For`` headers say together, if anybody may say it."""
    if not ex.snapshot.trusted_networks or b"x-forwarded-for" not in ex.headers:
        return None
    return b",".join(value for name, value in ex.request.headers if name == b"x-forwarded-for")


def _identify_message(ex: Exchange) -> None:
    """Find the id of a message that is refused unread, if it costs little."""
    request = ex.request
    if ex.frame is None and request.method == "POST" and 0 < len(request.body) <= SMALL_BYTES:
        try:
            read_message(ex)
        except GatewayError as fault:
            if ex.refused_id is None:
                ex.refused_id = fault.id


def _left(ex: Exchange) -> None:
    ex.outcome, ex.reason = "client_gone", "the client left before its answer was whole"
    ex.reply.abort()
