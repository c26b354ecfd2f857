"""The socket that clients connect to, and a task for each of their connections.

What it is: opening a TCP or Unix socket, the accept loop, the hand-over to
``Connection``, and the end: no new connections, idle ones closed, busy ones given time.
What it must never do: read a byte of a request.

At its bound (``limits.max_connections``) it ends the oldest connection without a request
for each one that it accepts. Where all are in use it stops accepting: further clients
wait in the kernel's queue, and those that are served notice nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from typing import Final, Protocol

import trio

from mcpx.errors import ConfigError
from mcpx.transport.connection import Bounds, Connection
from mcpx.transport.deadlines import Deadlines
from mcpx.transport.http import Admit, Budget, Handler, Unread
from mcpx.transport.readiness import Readiness
from mcpx.transport.wire import PlainWire, TlsWire, Wire

__all__ = ["Listener", "Served", "open_socket", "server_context"]

log = logging.getLogger("mcpx.listener")

BACKLOG: Final = 4096
#: The kernel is out of descriptors or memory: wait for some to be given back.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
HANDSHAKE_S: Final = 10.0


def open_socket(listen: str) -> socket.socket:
    """A listening socket for ``host:port``, ``:port`` or ``unix:/path``.

    A Unix socket left over by a gateway that is gone is replaced; it is made for its
    owner and group alone.

    Raises:
        ConfigError: the address can't be had, with what to do.
    """
    try:
        if listen.startswith("unix:"):
            return _open_unix(listen.removeprefix("unix:"))
        host, _, port = listen.rpartition(":")
        return _open_tcp(host.strip("[]"), int(port))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            hint = "another program listens there; stop it, or choose another `listen`"
        elif exc.errno in (errno.EACCES, errno.EPERM):
            hint = "this user may not listen there; ports below 1024 need a privilege"
        else:
            hint = "check `listen`"
        raise ConfigError([f"listen: {listen}: {exc.strerror or exc}; {hint}"]) from exc


def _open_tcp(host: str, port: int) -> socket.socket:
    if not host:
        # Every interface, IPv4 and IPv6 through one socket where the machine has both.
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
                )
            except OSError as exc:
                if exc.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        return socket.create_server(("", port), backlog=BACKLOG)
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _open_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
        before = os.umask(0o117)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def server_context(cert: str, key: str, *, http2: bool = False) -> ssl.SSLContext:
    """TLS 1.2 and newer with the certificate of the listener.

    Raises:
        ConfigError: the files can't be read or don't belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: a key that needs one is refused, not asked for on a terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError([f"tls: {cert}, {key}: {exc}; give a PEM chain and its key"]) from exc
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


class Served(Protocol):
    """A connection that is being served."""

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        ...

    @property
    def closing(self) -> bool:
        """Whether it takes no further request."""
        ...

    async def run(self, deadlines: Deadlines) -> None:
        """Serve it to its end."""
        ...

    def retire(self) -> None:
        """Take no further request, and end after those that have come."""
        ...


class Listener:
    """Accepts connections on ``sock`` until it is told to ``stop``.

    ``run`` returns when the last connection has ended; cancel it to end them all.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        handler: Handler,
        admit: Admit,
        unread: Unread,
        bounds: Bounds,
        budget: Budget,
        deadlines: Deadlines,
        max_connections: int,
        tls: ssl.SSLContext | None = None,
        readiness: Readiness | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._handler = handler
        self._admit = admit
        self._unread = unread
        self.bounds = bounds
        self.budget = budget
        self.max_connections = max_connections
        self.tls = tls
        self._readiness = readiness
        self._deadlines = deadlines
        self._unix = sock.family == socket.AF_UNIX
        # In the order in which they were accepted.
        self._connections: dict[Served, None] = {}
        self._opening = 0
        self._room = trio.Event()
        self._stopping = False
        self._accepting = trio.CancelScope()
        #: Set when the last connection has ended.
        self.ended = trio.Event()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections) + self._opening

    @property
    def address(self) -> str:
        """Where it listens, as clients would write it."""
        name = self._socket.getsockname()
        if self._unix:
            return f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            try:
                with self._accepting:
                    await self._accept(nursery)
            finally:
                self._close()
        self.ended.set()

    def stop(self) -> None:
        """Accept no more; end idle connections, and busy ones after their request."""
        self._stopping = True
        self._accepting.cancel()
        for connection in list(self._connections):
            connection.retire()

    def _close(self) -> None:
        path = self._socket.getsockname() if self._unix else None
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        if path:
            try:
                os.unlink(path)
            except OSError:
                pass

    async def _accept(self, nursery: trio.Nursery) -> None:
        sock = self._socket
        while True:
            await trio.lowlevel.wait_readable(sock)
            # Somebody waits: only now is room to be made.
            while self.connections >= self.max_connections:
                self._room = trio.Event()
                self._end_an_idle_one()
                await self._room.wait()
            while self.connections < self.max_connections:
                try:
                    accepted, address = sock.accept()
                except BlockingIOError:
                    break
                except OSError as exc:
                    if exc.errno in _EXHAUSTED:
                        log.warning("no descriptors left: accepting again in 0.1 s")
                        await trio.sleep(0.1)
                    # Other errors are of the connection that was to be accepted: it is gone.
                    break
                self._opening += 1
                nursery.start_soon(self._serve, accepted, self._peer(address))

    def _end_an_idle_one(self) -> None:
        """Make room: who holds connections without using them must not keep others out."""
        for connection in self._connections:
            if not connection.busy and not connection.closing:
                connection.retire()
                return

    def _peer(self, address: tuple[str, int] | str) -> str:
        if self._unix or not address:
            return "unix"
        return address[0].removeprefix("::ffff:")

    async def _serve(self, sock: socket.socket, peer: str) -> None:
        connection: Served | None = None
        try:
            wire = await self._wire(sock)
            if wire is None:
                return
            connection = self._connection(wire, peer)
            self._connections[connection] = None
            self._opening -= 1
            if self._stopping:
                connection.retire()
            await connection.run(self._deadlines)
        except* Exception:
            # A fault here is ours; it must not end the connections of others.
            log.exception("a connection failed by a fault of the gateway")
        finally:
            if connection is None:
                sock.close()
                self._opening -= 1
            else:
                del self._connections[connection]
            self._room.set()

    def _connection(self, wire: Wire, peer: str) -> Served:
        return Connection(
            wire,
            peer=peer,
            scheme="http" if self.tls is None else "https",
            bounds=self.bounds,
            budget=self.budget,
            handler=self._handler,
            admit=self._admit,
            unread=self._unread,
        )

    async def _wire(self, sock: socket.socket) -> Wire | None:
        sock.setblocking(False)
        if not self._unix:
            with contextlib.suppress(OSError):  # it may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is None:
            return PlainWire(sock, self._readiness)
        stream = trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)),
            self.tls,
            server_side=True,
            https_compatible=True,
        )
        with trio.move_on_after(HANDSHAKE_S):
            try:
                await stream.do_handshake()
            except trio.BrokenResourceError:
                return None
            return TlsWire(stream, sock)
        return None
