"""Looking at an answer on its way to the client.

What it is: a filter over the bytes of an answer. It leaves out of lists what the client
may not use, learns the names of tools, and finds out what the answer says (a result, a
tool's error, a JSON-RPC error). An event stream is looked at event by event and passed
on as it comes.

What it must never do: let an entry of a list through unread when something is to be
hidden. What can't be read there ends the answer, or, on a stream where a list may only
be replayed, is left out of it.
"""

from __future__ import annotations

import logging
import time

from mcpx.core.listing import filter_listing, listed_tools
from mcpx.core.outcome import classify
from mcpx.core.policy import Kind, Policy
from mcpx.errors import FrameError, RemoteProtocolError, UpstreamError
from mcpx.gateway.state import State
from mcpx.protocol.sse import EventParser, replace_data
from mcpx.services.log import Sparingly

__all__ = ["Inspection"]

log = logging.getLogger("mcpx.inspection")

#: One line a minute for each server is enough to go and look.
_withheld = Sparingly(60)

#: A stream that is only watched is not watched past an event of this size.
WATCHED_EVENT_BYTES = 1024 * 1024


class Inspection:
    """The inspection of one answer.

    Args:
        policy: what the client may see; ``None`` to hide nothing.
        listing: whether the answer is one to a list request, or a stream on which such
            an answer may be replayed.
        replayed: whether it is only the latter. What can't be read on such a stream is
            left out of it, and the stream goes on: ending it would have the client
            resume it, and meet the same event again.
        limit_bytes: the largest message that is held to be filtered.
    """

    __slots__ = (
        "_events",
        "_filters",
        "_limit",
        "_listing",
        "_policy",
        "_replayed",
        "_server",
        "_state",
        "_status",
        "_tools",
        "outcome",
    )  # fmt: skip

    def __init__(
        self,
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
        self._filters = listing and policy is not None
        self._events: EventParser | None = None
        self._tools: list[str] = []
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
        """Tell the metrics which tools were listed; the rest may run on another thread."""
        if self._tools:
            self._state.metrics.learn_tools(self._server, self._tools)
            self._tools = []

    def message(self, body: bytes) -> bytes:
        """A whole JSON answer; gives what the client gets.

        Raises:
            UpstreamError: it can't be read, and something in it might have to be hidden.
        """
        if self._listing:
            body = self._list(body)
        outcome = classify(body, self._status)
        if outcome is not None:
            self.outcome = outcome
        return body

    def _list(self, body: bytes) -> bytes:
        if not body:
            return body
        if not self._filters:
            self._tools += listed_tools(body)
            return body
        try:
            listing = filter_listing(body, self._visible)
        except FrameError as exc:
            # A refusal keeps its status: 404, say, tells the client to begin a new session.
            raise UpstreamError(
                "the server's answer can't be read, so that what it lists can't be filtered",
                reason=f"unreadable list: {exc.message}",
                status=self._status if self._status >= 400 else None,
            ) from exc
        self._tools += listing.tools
        return listing.body

    def _visible(self, kind: Kind, name: str) -> bool:
        return self._policy is None or self._policy.visible(kind, name)

    def events(self, data: bytes) -> bytes:
        """Bytes of an event stream; gives those that the client gets now.

        Raises:
            UpstreamError: as ``message``, or an event is too large to be filtered.
        """
        if self._events is None:
            self._events = EventParser(self._limit if self._filters else WATCHED_EVENT_BYTES)
        try:
            events = self._events.feed(data)
        except RemoteProtocolError as exc:
            if not self._filters:
                self._listing = False
                self._events = _NOTHING
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


class _Nothing(EventParser):
    """What watches a stream that is no longer watched."""

    def __init__(self) -> None:
        super().__init__(1)

    def feed(self, data: bytes | memoryview) -> list:  # type: ignore[type-arg]
        del data
        return []


_NOTHING = _Nothing()
