"""What a listener hands to the pipeline: a request, and a way to answer it.

What it is: the two shapes between the surfaces (our HTTP/1.1 listener, the ASGI
application) and the pipeline. What it must never do: know of MCP, or wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from mcpx.transport.deadlines import Watch

__all__ = ["Admit", "Budget", "Handler", "Headers", "Reply", "Request", "Unread"]

Headers = list[tuple[bytes, bytes]]


class Request:
    """One whole request. Header names are in lower case; ``body`` is complete.

    ``peer`` is the address of the connection's other end, ``"unix"`` for a Unix socket.
    ``scheme`` is ``http`` or ``https``.
    """

    __slots__ = ("body", "headers", "method", "peer", "scheme", "target")

    def __init__(
        self, method: str, target: bytes, headers: Headers, body: bytes, peer: str, scheme: str
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.peer = peer
        self.scheme = scheme

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Budget:
    """Bytes that bodies on their way may take up together, over all connections.

    Each body has a bound of its own; this bounds how many of them come at one time.
    """

    __slots__ = ("_left", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._left = limit_bytes

    def take(self, count: int) -> bool:
        """Set ``count`` bytes aside; whether they were there."""
        if count > self._left:
            return False
        self._left -= count
        return True

    def give(self, count: int) -> None:
        """They are free again."""
        self._left += count

    def resize(self, limit_bytes: int) -> None:
        """Another bound; what is taken stays taken."""
        self._left += limit_bytes - self.limit_bytes
        self.limit_bytes = limit_bytes


class Reply(Protocol):
    """How a request is answered: once with ``answer``, or in parts.

    A write raises ``transport.wire.Broken`` when the client has gone.
    """

    watch: Watch
    started: bool

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer, in one write."""
        ...

    async def start(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows; ``length`` where it is known."""
        ...

    async def write(self, data: bytes) -> None:
        """A part of the body."""
        ...

    async def finish(self) -> None:
        """The body is whole."""
        ...

    def abort(self) -> None:
        """The body can't be finished: end the connection so that the client sees it."""
        ...

    def last_words(self, status: int, headers: Headers, body: bytes) -> None:
        """What to answer if the exchange is cancelled before an answer has started."""
        ...

    async def until_gone(self) -> None:
        """Return when the client has left."""
        ...

    def hung_up(self) -> bool:
        """Whether the client has left; waits for nothing."""
        ...


#: Serves one request; never raises but for cancellation.
Handler = Callable[[Request, Reply], Awaitable[None]]

#: Asked once when a head is there and its body (of so many bytes, if declared) is not:
#: ``None`` to go on, or an answer (status, headers, body) to refuse with.
Admit = Callable[[Request, Reply, "int | None"], Awaitable["tuple[int, Headers, bytes] | None"]]

#: Told of what could not be read as a request: its sender's address, the scheme, the
#: reply that it gets, the status and the words of the refusal. Gives headers and body.
Unread = Callable[[str, str, Reply, int, str], "tuple[Headers, bytes]"]
