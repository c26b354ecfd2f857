"""What one client may hold at one time: calls that servers work on, and event streams.

What it is: two counts for each client that holds anything. A client that leaves a slow
call does not end it (the protocol says so for the older era), so without a bound one
client could take all connections to a server and keep them. What it must never do: wait.
"""

from __future__ import annotations

from typing import Self

from mcpx.config.model import LimitsConfig
from mcpx.errors import Overloaded

__all__ = ["Share", "Shares"]


class Shares:
    """The counts of all clients; one that holds nothing has no entry."""

    __slots__ = ("calls", "streams")

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.streams: dict[str, int] = {}

    def call(self, client: str, limits: LimitsConfig) -> Share:
        """A call of ``client`` begins; leave the block that this opens when it has ended.

        Raises:
            Overloaded: the client has as many under way as it may.
        """
        if self.calls.get(client, 0) >= limits.max_calls_per_client:
            raise Overloaded(
                f"more than {limits.max_calls_per_client} requests of this client are under way",
            )
        return Share(self, client, limits)


class Share:
    """One client's place; it is a call until it turns out to be a stream."""

    __slots__ = ("_client", "_counts", "_limits", "_shares")

    def __init__(self, shares: Shares, client: str, limits: LimitsConfig) -> None:
        self._shares = shares
        self._client = client
        self._limits = limits
        self._counts = shares.calls

    def __enter__(self) -> Self:
        self._counts[self._client] = self._counts.get(self._client, 0) + 1
        return self

    def __exit__(self, *_exc: object) -> None:
        left = self._counts[self._client] - 1
        if left:
            self._counts[self._client] = left
        else:
            del self._counts[self._client]

    def becomes_stream(self) -> None:
        """The answer is an event stream, which may last.

        Raises:
            Overloaded: the client has as many open as it may.
        """
        streams = self._shares.streams
        if streams.get(self._client, 0) >= self._limits.max_streams_per_client:
            raise Overloaded(
                f"more than {self._limits.max_streams_per_client} streams of this client are open",
            )
        self.__exit__()
        self._counts = streams
        self.__enter__()
