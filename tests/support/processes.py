"""Programs that a test starts: a server on a free port, watched, heard and always ended.

A program gets a process group of its own, so that whatever it starts ends with it.
Its output goes into unnamed temporary files instead of pipes: nothing has to be
read for the program to go on, and everything it said is there when it fails.

Waiting is always for something (a port that accepts, the end of the program) and
always bounded; whoever waits in vain is told what the program has printed. All of
it is blocking: an async test whose own nursery serves the program calls these
through ``trio.to_thread.run_sync``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ProgramFailedError", "ServerProcess", "clean_environment", "free_port", "running"]

POLL_S = 0.02
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0

# Passed on from the environment of the tests. Everything else stays out: a proxy
# setting or a credential of whoever runs the tests must not change what they find.
INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "MCPX_NO_EXTENSIONS", "MCPX_REQUIRE_EXTENSIONS")


class ProgramFailedError(AssertionError):
    """A program ended early, or did not do in time what the test waits for."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago.

    For programs that cannot be given a socket and do not tell which port they
    took. Another process may take it in between; the program then fails to start
    and its output says why.
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a program under test: the little that it needs, and ``extra``."""
    environ = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environ["PYTHONUNBUFFERED"] = "1"
    environ.update(extra or {})
    return environ


class ServerProcess:
    """One started program.

    Args:
        command: Program and arguments.
        name: What messages call it.
        env: Its whole environment; ``clean_environment()`` when not given.
        cwd: Its working folder.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the program
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            env=dict(clean_environment() if env is None else env),
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs; negative when a signal ended it."""
        return self.process.poll()

    @property
    def stdout(self) -> str:
        """All that it has written to its standard output until now."""
        return _text_of(self._stdout)

    @property
    def stderr(self) -> str:
        """All that it has written to its standard error until now."""
        return _text_of(self._stderr)

    def describe(self) -> str:
        """Its state and the end of what it printed, for the message of a failed test."""
        status = self.returncode
        state = f"runs as {self.pid}" if status is None else f"ended with status {status}"
        lines = [f"{self.name} {state}"]
        for title, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text.strip():
                lines += [f"its {title} ends with:", text[-8000:].rstrip()]
        return "\n".join(lines)

    def wait_until_listening(
        self, port: int, *, host: str = "127.0.0.1", limit_s: float = START_LIMIT_S
    ) -> None:
        """Return once ``host:port`` accepts connections and the program still runs."""
        deadline = time.monotonic() + limit_s
        while True:
            accepted = _accepts(host, port)
            if self.ended_within(0 if accepted else POLL_S):
                raise ProgramFailedError(
                    f"it ended before it listened on port {port}\n{self.describe()}"
                )
            if accepted:
                return
            if time.monotonic() > deadline:
                raise ProgramFailedError(
                    f"nothing listens on port {port} after {limit_s} s\n{self.describe()}"
                )

    def send(self, signum: signal.Signals) -> None:
        """Signal the program itself, not what it started."""
        self.process.send_signal(signum)

    def wait(self, limit_s: float = STOP_LIMIT_S) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise ProgramFailedError(
                f"it still runs after {limit_s} s\n{self.describe()}"
            ) from None

    def stop(self, limit_s: float = STOP_LIMIT_S) -> int:
        """End it with SIGTERM and return its exit status. Ending in time is part of the test."""
        if self.returncode is None:
            self.send(signal.SIGTERM)
        return self.wait(limit_s)

    def close(self) -> None:
        """End whatever is left of its process group, politely first, and drop the output."""
        if self.returncode is None:
            self.send(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._stdout.close()
        self._stderr.close()

    def ended_within(self, limit_s: float) -> bool:
        """Whether it ends within this time: a pause that is over when there is nothing to wait for."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    name: str,
    port: int,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limit_s: float = START_LIMIT_S,
) -> Iterator[ServerProcess]:
    """The program, listening on ``port`` for as long as the block lasts."""
    server = ServerProcess(command, name=name, env=env, cwd=cwd)
    try:
        server.wait_until_listening(port, limit_s=limit_s)
        yield server
    finally:
        server.close()


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def _text_of(file) -> str:
    # pread leaves alone the position at which the program goes on writing.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")
