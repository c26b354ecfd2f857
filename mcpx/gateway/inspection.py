"""Looking at an answer on its way to the client.

What it is: a filter over the bytes of an answer. It leaves out of lists what the client
may not use, has the tools in them held against those that were pinned, and finds out what
the answer says (a result, a tool's error, a JSON-RPC error, that the tools changed). An
event stream is looked at event by event and passed on as it comes.

What it must never do: let an entry of a list through unread when something is to be
hidden. What can't be read there ends the answer, or, on a stream where a list may only
be replayed, is left out of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import trio

from mcpx._speedups.frames import scan
from mcpx.core.integrity import Mode
from mcpx.core.listing import MAX_DEPTH, listed_tools, member_text, read_listing
from mcpx.core.outcome import read_answer
from mcpx.core.policy import Kind, Policy
from mcpx.errors import FrameError, RemoteProtocolError, UpstreamError
from mcpx.gateway.exchange import Exchange
from mcpx.gateway.server_tools import Observed
from mcpx.gateway.state import State
from mcpx.protocol.sse import EventParser, replace_data
from mcpx.services.log import Sparingly

__all__ = ["Inspection", "answers_another"]

log = logging.getLogger("mcpx.inspection")

#: One line a minute for each server is enough to go and look.
_withheld = Sparingly(60)

#: What a message has in it that says that tools changed, however its text is escaped by
#: who means it well; a server that hides it is found out by the next list.
_CHANGED: Final = b"list_changed"

#: A stream that is only watched is not watched past an event of this size.
WATCHED_EVENT_BYTES = 1024 * 1024


class Inspection:
    """The inspection of one answer.

    Args:
        ex: the exchange, and ``server`` its server.
        policy: what the client may see; ``None`` to hide nothing.
        listing: whether the answer is one to a list request, or a stream on which such
            an answer may be replayed.
        replayed: whether it is only the latter. What can't be read on such a stream is
            left out of it, and the stream goes on: ending it would have the client
            resume it, and meet the same event again.
        limit_bytes: the largest message that is held to be filtered.
    """

    __slots__ = (
        "_caching",
        "_enforces",
        "_events",
        "_ex",
        "_filters",
        "_limit",
        "_listing",
        "_observed",
        "_policy",
        "_post",
        "_replayed",
        "_server",
        "_state",
        "_status",
        "_tools",
        "_unwatched",
        "outcome",
    )  # fmt: skip

    def __init__(
        self,
        ex: Exchange,
        state: State,
        server: str,
        status: int,
        *,
        policy: Policy | None,
        listing: bool,
        replayed: bool = False,
        limit_bytes: int,
    ) -> None:
        self._state = state
        self._server = server
        self._status = status
        self._policy = policy
        self._listing = listing
        self._replayed = replayed
        self._limit = limit_bytes
        tools = state.watcher.servers.get(server)
        integrity = tools.integrity if tools is not None else None
        self._ex = ex
        self._caching = ex.caching
        # A stream that was opened with GET may replay answers to earlier requests.
        self._post = ex.request.method == "POST" and b"last-event-id" not in ex.headers
        self._enforces = integrity is not None and integrity.mode is Mode.ENFORCE
        pinned = integrity is not None and (replayed or ex.method == "tools/list")
        self._filters = listing and (policy is not None or pinned)
        #: What of a list is to be known to hold its tools against the pins.
        self._observed = Observed(None if replayed else _cursor(ex), ex.generation)
        self._events: EventParser | None = None
        #: An event was too large to be watched; the stream passes as it comes.
        self._unwatched = False
        self._tools: dict[str, bool] = {}
        #: What the answer said, once it has said it.
        self.outcome: str | None = None

    @property
    def filters(self) -> bool:
        """Whether the answer must be read whole before any of it is passed on."""
        return self._filters

    @property
    def held(self) -> int:
        """How many bytes of an event that is to be filtered have come before."""
        return self._events.held if self._filters and self._events is not None else 0

    def learn(self) -> None:
        """Note which tools were listed; the rest may run on another thread."""
        if self._tools:
            self._state.metrics.learn_tools(self._server, self._tools)
            tools = self._state.watcher.servers.get(self._server)
            if tools is not None and not self._replayed:
                tools.learn(self._tools)
            self._tools = {}

    def ends(self) -> None:
        """The answer has been read to its end."""
        if self._caching is not None:
            self._caching.ends(self._ex, self._status)

    def message(self, body: bytes) -> bytes:
        """A whole JSON answer; gives what the client gets.

        Raises:
            UpstreamError: it can't be read, and something in it might have to be hidden.
        """
        if self._listing:
            body = self._list(body)
        outcome, astray = read_answer(body, self._status, self._ex.id)
        if astray and self._post:
            raise answers_another()
        if outcome is not None:
            self.outcome = outcome
        elif _CHANGED in body:
            self._notified(body)
        if self._caching is not None:
            self._caching.message(body)
        return body

    def _notified(self, body: bytes) -> None:
        """A message of the server's that may say that its tools changed."""
        try:
            method = scan(body, MAX_DEPTH, of_server=True).method
        except FrameError:
            return
        if method == "notifications/tools/list_changed":
            if trio.lowlevel.in_trio_run():
                self._state.tools_changed(self._server)
            else:
                trio.from_thread.run_sync(self._state.tools_changed, self._server)

    def _list(self, body: bytes) -> bytes:
        if not body:
            return body
        listed = listed_tools(body)
        if not self._filters:
            self._tools.update(listed)
            return body
        try:
            listing = read_listing(body)
        except FrameError as exc:
            if self._policy is None and not self._enforces:
                # It is only reported on, and there is nothing that could be.
                return body
            # A refusal keeps its status: 404, say, tells the client to begin a new session.
            raise UpstreamError(
                "the server's answer can't be read, so that what it lists can't be filtered",
                reason=f"unreadable list: {exc.message}",
                status=self._status if self._status >= 400 else None,
            ) from exc
        tools = self._state.watcher.servers.get(self._server)
        refused: Mapping[str, str] = {}
        if tools is not None:
            refused = self._state.watcher.listed(self._ex, tools, listing, self._observed)

        def seen(kind: Kind, name: str | None) -> bool:
            if kind is Kind.TOOL and self._enforces and (name is None or name in refused):
                return False
            if self._policy is None:
                return True
            return name is not None and self._policy.visible(kind, name)

        self._tools.update((name, reads) for name, reads in listed.items() if seen(Kind.TOOL, name))
        return listing.only(seen)

    def events(self, data: bytes) -> bytes:
        """Bytes of an event stream; gives those that the client gets now.

        Raises:
            UpstreamError: as ``message``, or an event is too large to be filtered.
        """
        if self._unwatched:
            return data
        if self._events is None:
            self._events = EventParser(self._limit if self._filters else WATCHED_EVENT_BYTES)
        try:
            events = self._events.feed(data)
        except RemoteProtocolError as exc:
            if not self._filters:
                self._listing = False
                self._unwatched = True
                return data
            raise UpstreamError(
                "the server's list is too large to be filtered",
                reason=f"event too large: {exc.message}",
            ) from exc
        if not self._filters:
            for event in events:
                if event.data:
                    self.message(event.data)
            return data
        passed = []
        for event in events:
            if not event.data:
                passed.append(event.raw)
                continue
            try:
                body = self.message(event.data)
            except UpstreamError as exc:
                if not self._replayed:
                    raise
                turn = _withheld.turn(self._server, time.monotonic())
                if turn is not None:
                    log.warning("an event of %s was withheld: %s", self._server, exc.reason)
                continue
            passed.append(event.raw if body is event.data else replace_data(event, body))
        return b"".join(passed)


def answers_another() -> UpstreamError:
    """What there is to say of a result that nobody here has asked for.

    A client goes by the id alone: under another one a server could bring a list that
    nobody looked at, or the answer to what the client asked elsewhere.
    """
    return UpstreamError(
        "the server answered another request than this one", reason="answer to another request"
    )


def _cursor(ex: Exchange) -> str | None:
    """What page of a list was asked for."""
    frame, body = ex.frame, ex.request.body
    if frame is None or frame.params is None or ex.method != "tools/list":
        return None
    return member_text(body, frame.params[0], "cursor")
