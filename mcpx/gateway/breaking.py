"""Leaving a failing server alone for a while: the breaker around one exchange.

What it is: a block around the exchange with the upstream. It asks the server's breaker
for leave, and tells it afterwards how the server fared. What it must never do: count
against a server what its client did: one that leaves or stalls says nothing about it,
nor does a lack of room in the gateway.
"""

from __future__ import annotations

from typing import Final, Self

import trio

from mcpx.core.breaker import Breaker, Outcome, Refusal, Ticket, outcome_of_status
from mcpx.core.limits import retry_after
from mcpx.errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from mcpx.transport.deadlines import Watch

__all__ = ["Trial"]

# Members of an enumeration are slow to look up.
_SUCCESS: Final = Outcome.SUCCESS
_NEUTRAL: Final = Outcome.NEUTRAL


class Trial:
    """One exchange under a breaker; without one (``None``) it does nothing.

    Raises, on entering:
        UpstreamUnavailable: the server is left alone now; ``Retry-After`` says how long.
    """

    __slots__ = ("_breaker", "_generation", "_outcome", "_server", "_ticket", "_watch")

    def __init__(self, breaker: Breaker | None, server: str, watch: Watch) -> None:
        self._breaker = breaker
        self._server = server
        self._watch = watch
        #: Where everybody is admitted; where not, there is a ticket.
        self._generation: object | None = None
        self._ticket: Ticket | None = None
        self._outcome = _NEUTRAL

    def __enter__(self) -> Self:
        breaker = self._breaker
        if breaker is None:
            return self
        self._generation = breaker.everybody
        if self._generation is None:
            admitted = breaker.admit(trio.current_time())
            if isinstance(admitted, Refusal):
                after = str(retry_after(admitted.wait_s)).encode()
                raise UpstreamUnavailable(
                    f'server "{self._server}" temporarily unavailable (circuit open)',
                    headers=((b"retry-after", after),),
                )
            self._ticket = admitted
        return self

    def answered(self, status: int) -> None:
        """The head of an answer has come."""
        self._outcome = outcome_of_status(status)

    def streams(self) -> None:
        """The answer is a stream that may last: its head has said what there is to know."""
        self._settle()

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self._failed(error)
        self._settle()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, UpstreamBroken | UpstreamTimeout):
            self._outcome = Outcome.FAILURE
        elif isinstance(error, UpstreamError):
            # It answered, and we don't pass that on: its head has said how it fares.
            pass
        elif isinstance(error, trio.Cancelled):
            # Its deadline, if it was the server that was waited for.
            late = self._watch.expired and self._watch.phase.startswith("upstream")
            self._outcome = Outcome.FAILURE if late else Outcome.NEUTRAL
        else:
            self._outcome = Outcome.NEUTRAL

    def _settle(self) -> None:
        breaker = self._breaker
        if breaker is None:
            return
        generation, ticket = self._generation, self._ticket
        # Once.
        self._generation = self._ticket = None
        if generation is not None:
            if self._outcome is _SUCCESS:
                breaker.succeeded(generation)
                return
            ticket = Ticket(generation, 0.0)
        if ticket is not None:
            breaker.settle(ticket, self._outcome, trio.current_time())
