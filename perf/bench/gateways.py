"""mcpx as the benchmark runs it: its configurations, and a started one.

What it is: the settings of "bare" and of "all protections", written to a folder that is
removed afterwards. What it must never do: weaken a protection that the name promises.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import yaml

from perf.bench.backend import HOST, PATHS, Backend
from perf.bench.processes import Program, free_port

__all__ = ["TOKEN", "Gateway", "protected", "servers"]

TOKEN = "bench-0123456789abcdef0123456789abcdef"

#: Twenty rules: what a careful operator would write, none of which the call breaks.
POLICY: dict[str, Any] = {
    "allow_tools": ["echo", "tool_*", "read_*", "list_*", "search_*", "get_status"],
    "deny_tools": ["drop_*", "delete_*", "*_admin", "exec", "shell", "truncate_table", "write_raw"],
    "deny_resources": ["db://secrets/*", "file:///etc/*"],
    "deny_prompts": ["internal_*"],
    "deny_methods": ["logging/setLevel", "acme/*"],
    "tool_rules": {
        "echo": {"args": {"path": {"required": True, "path_within": "/srv/shared"}}},
        "search_*": {"args": {"query": {"full_match": "[^;]*"}}},
    },
}


def servers(backend: Backend, policy: dict[str, Any] | None = None, extra: int = 0) -> list[Any]:
    """A server for each kind of answer, and ``extra`` ones that nobody asks."""
    own = {"policy": policy} if policy else {}
    named = [{"name": path[1:], "url": backend.url(path), **own} for path in PATHS]
    more = [
        {"name": f"spare{number}", "url": backend.url(f"/spare{number}"), **own}
        for number in range(extra)
    ]
    return named + more


def bare(backend: Backend, extra: int = 0) -> dict[str, Any]:
    """Nothing asked for: no credential, no limit, no policy, no audit."""
    return {"servers": servers(backend, None, extra), **_QUIET}


def protected(
    backend: Backend, folder: Path, *, integrity: str = "enforce", extra: int = 0
) -> dict[str, Any]:
    """Credential, limits of all kinds, policy with an argument rule, integrity, audit."""
    return {
        "servers": servers(backend, POLICY, extra),
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [{"name": "bench", "token": TOKEN}, {"name": "other", "token": TOKEN[::-1]}],
        },
        "rate_limit": {
            "enabled": True,
            "rps": 1e6,
            "burst": 1_000_000,
            "client_rps": 1e6,
            "client_burst": 1_000_000,
            "per_tool": True,
            "tool_rps": 1e6,
            "tool_burst": 1_000_000,
        },
        "audit": {
            "enabled": True,
            "output": "file",
            "path": str(folder / "audit.jsonl"),
            "arguments": True,
        },
        "inspection": {"tool_integrity": integrity},
        "circuit_breaker": {"enabled": True},
        "data_dir": str(folder / "data"),
        **_QUIET,
    }


#: The benchmark's one client may hold more than a real one.
_QUIET: dict[str, Any] = {
    "limits": {"max_calls_per_client": 4096, "max_connections": 20_000},
    "timeouts": {"keep_alive": "10m"},
    "log": {"level": "warning"},
}


class Gateway:
    """A running mcpx; ``program`` is what is measured."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        cpu: int | None,
        *,
        env: dict[str, str] | None = None,
        python: str = sys.executable,
        wrapper: list[str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.path = folder / "mcpx.yaml"
        self.write(config)
        root = Path(__file__).resolve().parents[2]
        self.program = Program(
            [python, "-m", "mcpx", "-c", str(self.path)],
            name="mcpx",
            cpu=cpu,
            env={"PYTHONPATH": str(root), **(env or {})},
            cwd=folder,
            wrapper=wrapper or (),
        )

    def write(self, config: dict[str, Any]) -> None:
        """Replace the configuration, whole."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.dump({**config, "listen": f"{HOST}:{self.port}"}, Dumper=_Dumper))
        os.replace(fresh, self.path)

    def reload(self) -> None:
        self.program.send(signal.SIGHUP)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True
