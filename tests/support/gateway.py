"""The gateway as its users run it: a configuration file, a process, a port.

``running_gateway`` writes a configuration, starts ``python -m mcpx -c FILE`` and
waits until it accepts connections. The audit log goes to a file that ``audit()``
reads back, unless the configuration says something else about it.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import mcpx

from .processes import (
    POLL_S,
    START_LIMIT_S,
    STOP_LIMIT_S,
    ProgramFailedError,
    ServerProcess,
    clean_environment,
    free_port,
)

__all__ = ["Gateway", "running_gateway"]

HOST = "127.0.0.1"


class Gateway:
    """A running gateway.

    Attributes:
        base_url: ``http://host:port``, without a slash at the end.
        process: The program, with its output.
        config_path: The configuration file that it reads.
        audit_path: The file that its audit log goes to.
    """

    def __init__(
        self, *, port: int, process: ServerProcess, config_path: Path, audit_path: Path
    ) -> None:
        self.port = port
        self.base_url = f"http://{HOST}:{port}"
        self.process = process
        self.config_path = config_path
        self.audit_path = audit_path

    def url(self, server: str) -> str:
        """The endpoint of one configured server."""
        return f"{self.base_url}/mcp/{server}"

    def audit(self) -> list[dict[str, Any]]:
        """The complete lines of the audit log so far. It is written behind the requests."""
        if not self.audit_path.exists():
            return []
        *lines, _unfinished = self.audit_path.read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines]

    def audit_until(
        self, satisfied: Callable[[list[dict[str, Any]]], bool], *, limit_s: float = 10.0
    ) -> list[dict[str, Any]]:
        """The audit log, as soon as ``satisfied`` says that what is waited for is in it."""
        deadline = time.monotonic() + limit_s
        while True:
            records = self.audit()
            if satisfied(records):
                return records
            if time.monotonic() > deadline:
                raise ProgramFailedError(
                    f"the audit log lacks what the test waits for; it has {records}\n"
                    f"{self.process.describe()}"
                )
            self.process.ended_within(POLL_S)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration file; SIGHUP makes the gateway read it."""
        complete = dict(config)
        complete["listen"] = f"{HOST}:{self.port}"
        complete.setdefault("audit", _audit_section(self.audit_path))
        _write(self.config_path, complete)

    def reload(self) -> None:
        """Send SIGHUP. Nothing is waited for."""
        self.process.send(signal.SIGHUP)

    def stop(self, limit_s: float = STOP_LIMIT_S) -> int:
        """End it with SIGTERM and return its exit status, once it has drained."""
        return self.process.stop(limit_s)


@contextmanager
def running_gateway(
    config: Mapping[str, Any],
    *,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    limit_s: float = START_LIMIT_S,
) -> Iterator[Gateway]:
    """A gateway with this configuration, accepting connections for as long as the block lasts.

    Args:
        config: The file's content. ``listen`` is set here, to a free port of
            127.0.0.1; ``audit`` goes to a file of its own unless it is given.
        env: Variables added to ``clean_environment()``.
        arguments: Put on the command line after ``-c FILE``.
        limit_s: How long it may take to listen.

    Raises:
        ProgramFailedError: It ended, or did not listen in time; says what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="mcpx-test-") as name:
        folder = Path(name)
        port = free_port(HOST)
        config_path = folder / "mcpx.yaml"
        audit_path = folder / "audit.jsonl"
        complete = {"audit": _audit_section(audit_path), **config, "listen": f"{HOST}:{port}"}
        _write(config_path, complete)
        process = ServerProcess(
            [sys.executable, "-m", "mcpx", "-c", config_path, *arguments],
            name="the gateway",
            # The very code that the tests import, wherever it is installed.
            env=clean_environment(
                {"PYTHONPATH": str(Path(mcpx.__file__).parent.parent), **(env or {})}
            ),
            cwd=folder,
        )
        try:
            process.wait_until_listening(port, limit_s=limit_s)
            yield Gateway(
                port=port, process=process, config_path=config_path, audit_path=audit_path
            )
        finally:
            process.close()


def _audit_section(path: Path) -> dict[str, Any]:
    return {"enabled": True, "output": "file", "path": str(path), "arguments": True}


def _write(path: Path, config: Mapping[str, Any]) -> None:
    # Renamed into place: a gateway that watches the file never sees half of it.
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(dict(config), sort_keys=False), "utf-8")
    fresh.rename(path)
