"""What the load tests ask with, and what they see of the processes under load.

``Asking`` is one keep-alive connection. It does no more than it must, so that the
gateway and not the test is what is busy; every answer is checked against its question.
"""

import contextlib
import json
import math
import os
import shutil
import sys
from pathlib import Path

import trio
from support.gateway import running_gateway
from support.processes import free_port, running

HOST = "127.0.0.1"
UPSTREAM = Path(__file__).with_name("fast_upstream.py")


class Cut(Exception):
    """The connection ended before an answer was whole; ``received`` is what came of it."""

    def __init__(self, received):
        super().__init__(bytes(received[:300]))
        self.received = received


class Answer:
    __slots__ = ("body", "head", "status")

    def __init__(self, status, head, body):
        self.status = status
        self.head = head
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def echoed(self):
        """The arguments that the upstream saw."""
        return json.loads(self.json["result"]["content"][0]["text"])

    @property
    def closes(self):
        return b"\r\nconnection: close" in self.head.lower()


class Asking:
    """One connection to the gateway, one question at a time."""

    __slots__ = ("_head", "socket")

    def __init__(self, sock, port, headers=()):
        self.socket = sock
        lines = [f"Host: {HOST}:{port}", "Content-Type: application/json",
                 "Accept: application/json, text/event-stream", *headers]  # fmt: skip
        self._head = ("POST /mcp/demo HTTP/1.1\r\n" + "\r\n".join(lines)).encode()

    @classmethod
    async def to(cls, port, headers=(), *, receive_buffer=None):
        sock = trio.socket.socket()
        try:
            if receive_buffer is not None:
                sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
            await sock.connect((HOST, port))
            sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return cls(sock, port, headers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def rendered(self, number, arguments, request_id=None):
        """The bytes of a call, with ``number`` as its id."""
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call",
                           "params": {"name": "echo", "arguments": arguments}}).encode()  # fmt: skip
        named = b"\r\nX-Request-Id: " + request_id.encode() if request_id is not None else b""
        return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, named, len(body), body)

    async def send(self, data):
        rest = memoryview(data)
        while rest:
            rest = rest[await self.socket.send(rest) :]

    async def ask(self, number, arguments, request_id=None):
        """Ask, and give the answer. Raises Cut if the connection ends without one."""
        try:
            await self.send(self.rendered(number, arguments, request_id))
        except OSError:
            raise Cut(b"") from None
        return await self.answer()

    async def answer(self):
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += await self._more(data)
        head = data[:end]
        mark = head.lower().index(b"\r\ncontent-length:") + 17
        whole = end + 4 + int(head[mark:].split(b"\r\n", 1)[0])
        while len(data) < whole:
            data += await self._more(data)
        assert len(data) == whole, "more came than was asked for"
        return Answer(int(data[9:12]), head, data[end + 4 :])

    async def _more(self, so_far):
        try:
            more = await self.socket.recv(65536)
        except OSError:
            more = b""
        if not more:
            raise Cut(so_far)
        return more

    async def rest(self):
        """All that still comes until the gateway closes."""
        data = b""
        with contextlib.suppress(OSError):
            while more := await self.socket.recv(65536):
                data += more
        return data


async def until(condition, limit_s=20.0, every_s=0.02):
    """Wait for what another process does: until ``condition()`` holds, which it gives."""
    with trio.fail_after(limit_s):
        while not (found := condition()):
            await trio.sleep(every_s)
        return found


# -- the processes -------------------------------------------------------------


class Upstream:
    """``fast_upstream`` as a process on a port of its own, which it keeps when restarted."""

    def __init__(self):
        self.port = free_port(HOST)
        self.url = f"http://{HOST}:{self.port}/mcp"

    def running(self):
        return running(
            [sys.executable, UPSTREAM, str(self.port)], name="the upstream", port=self.port
        )

    async def seen(self):
        """What it tells of itself."""
        async with await trio.open_tcp_stream(HOST, self.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            data = b""
            while b"}" not in data:
                data += await stream.receive_some(4096)
        return json.loads(data.partition(b"\r\n\r\n")[2])

    async def answering(self, count, limit_s=20.0):
        """Wait until so many calls are being answered."""
        with trio.fail_after(limit_s):
            while (await self.seen())["answering"] != count:
                await trio.sleep(0.02)


@contextlib.contextmanager
def gateway_before(upstream, **sections):
    """A gateway process in front of ``upstream``, with these sections of its configuration."""
    sections.setdefault("servers", [{"name": "demo", "url": upstream.url}])
    with running_gateway(sections) as gateway:
        yield gateway


@contextlib.contextmanager
def both(**sections):
    """The upstream and the gateway before it."""
    upstream = Upstream()
    with upstream.running(), gateway_before(upstream, **sections) as gateway:
        yield gateway, upstream


def complaints(gateway):
    """The lines of its log that are warnings or errors."""
    return [
        line
        for line in gateway.process.stderr.splitlines()
        if "level=info" not in line and "level=debug" not in line
    ]


def rss_bytes(pid):
    """Memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    """How many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# -- load ----------------------------------------------------------------------


class Load:
    """Questions on many connections at once, until told to stop.

    Every question has a number and a request id of its own. ``answered`` holds the
    status of each by its request id, ``numbers`` by its number, and ``wrong`` all that was not as it must be.
    ``unanswered`` are those whose connection ended before anything came of an answer.
    """

    def __init__(self, port, *, arguments=None, headers=(), connects_again=False):
        self._port = port
        self._arguments = arguments or {}
        self._headers = headers
        self._connects_again = connects_again
        self.asked = 0
        self.stopped = False
        self.answered = {}
        self.numbers = {}
        self.unanswered = []
        self.wrong = []

    async def on(self, connections):
        """Run on so many connections; returns once each has had its last answer."""
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._one)

    async def _one(self):
        while not self.stopped:
            with await Asking.to(self._port, self._headers) as asking:
                while not self.stopped:
                    if not await self._question(asking):
                        break
            if not self._connects_again:
                return

    async def _question(self, asking):
        """Ask once; whether the connection can go on."""
        self.asked += 1
        number = self.asked
        request_id = f"load-{number}"
        arguments = {"n": number, "text": f"question {number}", **self._arguments}
        try:
            answer = await asking.ask(number, arguments, request_id)
        except Cut as cut:
            (self.wrong if cut.received else self.unanswered).append(request_id)
            return False
        self.answered[request_id] = self.numbers[number] = answer.status
        own = answer.json["id"] == number and request_id.encode() in answer.head
        if not own or (answer.status == 200 and answer.echoed != arguments):
            self.wrong.append((request_id, answer.head, answer.body))
        return not answer.closes


async def metrics_of(gateway):
    """The text of ``/metrics`` as it is now."""
    async with await trio.open_tcp_stream(HOST, gateway.port) as stream:
        await stream.send_all(
            b"GET /metrics HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n\r\n"
            % (HOST.encode(), gateway.port)
        )
        data = b""
        while more := await stream.receive_some(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return body.decode()


async def sample(gateway, name, at_least=0.0, at_most=math.inf):
    """The value of a sample of ``/metrics``, once it is within these bounds.

    The page is rendered once a second at the most, so what has just happened may not be
    on it yet.
    """
    with trio.fail_after(10):
        while True:
            for line in (await metrics_of(gateway)).splitlines():
                if line.startswith(name + " "):
                    value = float(line.split()[1])
                    if at_least <= value <= at_most:
                        return value
            await trio.sleep(0.1)


async def promtool_accepts(gateway):
    """``promtool check metrics`` has nothing to say about the live page."""
    if os.environ.get("MCPX_TESTS_WITHOUT_PROMTOOL") == "1":
        return
    promtool = shutil.which("promtool")
    assert promtool, "install promtool, or set MCPX_TESTS_WITHOUT_PROMTOOL=1"
    done = await trio.run_process(
        [promtool, "check", "metrics"],
        stdin=(await metrics_of(gateway)).encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
