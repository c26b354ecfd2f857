"""One request after the other through a gateway under observation.

What it is: the gateway's process (``gateway.py``) started under a tool, and client and
server around it, both in this thread: a request is sent, taken by the server, answered,
and read. Nothing is ever sent at the same time as something else, so what the gateway
does is the same every time.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import yaml

from perf.bench import gateways
from perf.bench.backend import CALL, result_of
from perf.bench.mcp_server import answer, taken
from perf.bench.processes import Failed

__all__ = ["BATCH", "CONFIGURATIONS", "Observed"]

CONFIGURATIONS = ("bare", "protected")
#: Requests between two marks.
BATCH = 256
#: So often time passes at a mark, so that what the requests left to be done is done.
TICKS = 4
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 150\r\n\r\n"
    + result_of(150)
)
LIMIT_S = 300


class _Address:
    """What the configurations ask of a backend."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


class Observed:
    """A gateway under ``tool``, asked by ``ask`` and measured between two ``mark``s.

    Use it as a context manager.
    """

    def __init__(
        self,
        configuration: str,
        root: Path,
        *,
        tool: list[str] | None = None,
        mode: str = "",
        env: dict[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mcpx-guard-")
        folder = Path(self._folder.name)
        self._listener = socket.create_server(("127.0.0.1", 0))
        backend: Any = _Address(self._listener.getsockname()[1])
        if configuration == "bare":
            config = gateways.bare(backend)
        else:
            config = gateways.protected(
                backend, folder, integrity=os.environ.get("INTEGRITY", "enforce")
            )
        path = folder / "mcpx.yaml"
        listen = f"unix:{folder}/socket"
        path.write_text(yaml.safe_dump({**config, "listen": listen}))
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    *(tool or ()),
                    sys.executable,
                    str(Path(__file__).with_name("gateway.py")),
                    str(path),
                    mode,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(root),
                    "PYTHONHASHSEED": "0",
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **(env or {}),
                },
            )
        self._client: socket.socket | None = None
        self._server: socket.socket | None = None
        lines = [
            "POST /mcp/json150 HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
            "MCP-Protocol-Version: 2025-06-18",
            f"Authorization: Bearer {gateways.TOKEN}",
            "X-Request-ID: guard-0123456789",
            f"Content-Length: {len(CALL)}",
        ]
        self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + CALL
        self._listen = f"{folder}/socket"

    def __enter__(self) -> Self:
        try:
            self._heard()
            self._client = socket.socket(socket.AF_UNIX)
            self._client.settimeout(LIMIT_S)
            self._client.connect(self._listen)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._client, self._server, self._listener):
            if sock is not None:
                sock.close()
        try:
            self.process.communicate(b"stop\n", timeout=60)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    def mark(self) -> dict[str, Any]:
        """What was counted until now; see ``gateway.py``."""
        assert self.process.stdin is not None
        for word in [b"tick\n"] * TICKS + [b"mark\n"]:
            self._settle()
            self.process.stdin.write(word)
            self.process.stdin.flush()
        return self._heard()

    def ask(self, times: int) -> None:
        """So many requests, one after the other. Raises Failed on any other answer than 200."""
        for _ in range(times):
            self._ask()

    def _ask(self) -> None:
        assert self._client is not None
        self._client.sendall(self._request)
        answered = False
        while True:
            watched = [self._client, self._server or self._listener]
            ready, _, _ = select.select(watched, [], [], LIMIT_S)
            if not ready:
                raise Failed(f"the gateway says nothing: {self.errors.read_text()[-2000:]}")
            if self._listener in ready:
                self._server, _ = self._listener.accept()
                continue
            if self._server in ready and not self._serve():
                continue
            if self._client in ready:
                data = self._client.recv(65536)
                if data[9:12] != b"200":
                    raise Failed(f"an answer: {data!r} {self.errors.read_text()[-2000:]}")
                answered = True
            if answered:
                return

    def _serve(self) -> bool:
        """Answer what came to the server; False if its connection ended."""
        assert self._server is not None
        data = b""
        while (request := taken(data)) is None:
            more = self._server.recv(65536)
            if not more:
                self._server.close()
                self._server = None
                return False
            data += more
        method, body, _ = request
        self._server.sendall(ANSWER if body == CALL else answer(method, body))
        return True

    def _settle(self, limit_s: float = 60.0) -> None:
        """Wait until no thread of the process runs: there is nothing else to be seen of them."""
        deadline = time.monotonic() + limit_s
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            states = []
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                text = Path(f"/proc/{self.process.pid}/task/{task}/stat").read_text()
                states.append(text.rpartition(")")[2].split()[0])
            quiet = quiet + 1 if "R" not in states else 0
            time.sleep(0.02)

    def _heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            raise Failed(f"the gateway did not start: {self.errors.read_text()[-3000:]}")
        value: dict[str, Any] = json.loads(line)
        return value
