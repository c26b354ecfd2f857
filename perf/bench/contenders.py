"""Who is measured: the backend itself, nginx before it, mcpx in its forms, and peers.

What it is: how each is started, pinned and asked. What it must never do: give one of
them an easier call. Peers that take MCP apart are asked the same call, and are answered
by the small MCP server instead of nginx, for they send a message of their own making.

A peer is measured if it is found: its command on the PATH, in ``~/.cache/mcpx-peers``
(where ``make bench-peers`` puts those of PyPI), or named by ``PEERS``.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perf.bench import gateways
from perf.bench.backend import CALL, HOST, PATHS, Backend, Passthrough
from perf.bench.openloop import FIRST_ID
from perf.bench.processes import Failed, Program, free_port

__all__ = ["Contender", "contenders", "found_peers"]

VERSION = "2025-06-18"
CACHE = Path.home() / ".cache" / "mcpx-peers"


class Contender:
    """One that can be asked.

    Attributes:
        name: what results call it.
        program: the process to measure, with all that it started.
        port: where it listens on 127.0.0.1.
        kinds: the answers that it can be asked for: path at the backend to its own path.
        headers: what the call must carry.
        call: the body of the usual call.
    """

    def __init__(
        self,
        name: str,
        program: Program,
        port: int,
        kinds: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        call: bytes = CALL,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.program = program
        self.port = port
        self.kinds = kinds
        self.headers = {
            "Host": f"{HOST}:{port}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            **(headers or {}),
        }
        self.call = call
        self.close = close or program.close

    def request(self, kind: str, body: bytes | None = None) -> bytes:
        """The bytes of one request."""
        body = self.call if body is None else body
        lines = [f"POST {self.kinds[kind]} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def ask(self, kind: str = "/json150", body: bytes | None = None) -> bytes:
        """Ask once and give the answer's body. Raises Failed if it is no result."""
        status, _, answer = _post(self.port, self.kinds[kind], body or self.call, self.headers)
        if status != 200 or b'"result"' not in answer:
            raise Failed(
                f"{self.name} answers a call with {status}: {answer[:300]!r}\n"
                f"{self.program.output()[-2000:]}"
            )
        return answer


def _post(
    port: int, path: str, body: bytes, headers: dict[str, str], limit_s: float = 30
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=limit_s)
    try:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, told, answer.read()
    finally:
        connection.close()


# -- ours, and nginx -------------------------------------------------------------------


def direct(folder: Path, backend: Backend, cpu: int) -> Contender:
    """No gateway at all."""
    del folder, cpu
    kinds = {path: path for path in PATHS}
    return Contender("direct", backend.nginx, backend.port, kinds, close=lambda: None)


def nginx(folder: Path, backend: Backend, cpu: int) -> Contender:
    """nginx as a reverse proxy that looks at nothing."""
    proxy = Passthrough(folder, backend, cpu)
    return Contender("nginx", proxy.program, proxy.port, {path: path for path in PATHS})


def _mcpx(name: str, gateway: gateways.Gateway) -> Contender:
    gateway.program.wait_for_port(gateway.port)
    kinds = {path: f"/mcp{path}" for path in PATHS}
    headers = {"Authorization": f"Bearer {gateways.TOKEN}"}
    contender = Contender(name, gateway.program, gateway.port, kinds, headers=headers)
    contender.ask()
    return contender


def bare(folder: Path, backend: Backend, cpu: int) -> Contender:
    """mcpx with no section but its servers."""
    return _mcpx("mcpx bare", gateways.Gateway(folder, gateways.bare(backend), cpu))


def protected(folder: Path, backend: Backend, cpu: int) -> Contender:
    """mcpx with all that it has to protect with."""
    config = gateways.protected(backend, folder, integrity=integrity())
    return _mcpx("mcpx protected", gateways.Gateway(folder, config, cpu))


def pure(folder: Path, backend: Backend, cpu: int) -> Contender:
    """The same without compiled parts."""
    config = gateways.protected(backend, folder, integrity=integrity())
    env = {"MCPX_NO_EXTENSIONS": "1"}
    return _mcpx("mcpx pure Python", gateways.Gateway(folder, config, cpu, env=env))


def integrity() -> str:
    """The mode of tool integrity: ``INTEGRITY``, ``enforce`` when not given."""
    return os.environ.get("INTEGRITY", "enforce")


# -- peers -----------------------------------------------------------------------------


def _session(
    name: str, program: Program, port: int, path: str, *, headers: dict[str, str] | None = None
) -> Contender:
    """Begin a session, find the tool, and make the call of it. Raises Failed."""
    contender = Contender(name, program, port, {"/json150": path}, headers=headers)

    def post(message: dict[str, object]) -> tuple[dict[str, str], dict[str, object]]:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        status, told, answer = _post(port, path, body, contender.headers)
        if status >= 300:
            raise Failed(f"{name}: {message['method']}: {status} {answer[:300]!r}")
        for line in answer.decode().splitlines():
            text = line.removeprefix("data:").strip()
            if text.startswith("{") and '"id"' in text:
                return told, json.loads(text)
        return told, {}

    client = {"name": "bench", "version": "1"}
    told, _ = post(
        {
            "id": 1,
            "method": "initialize",
            "params": {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": client},
        }
    )
    if "mcp-session-id" in told:
        contender.headers["Mcp-Session-Id"] = told["mcp-session-id"]
    post({"method": "notifications/initialized"})
    _, listed = post({"id": 2, "method": "tools/list"})
    result = listed.get("result")
    tools = result["tools"] if isinstance(result, dict) else []
    names = [tool["name"] for tool in tools if "echo" in tool["name"]]
    if not names:
        raise Failed(f"{name} lists no echo: {listed}")
    call = CALL.replace(b'"name":"echo"', b'"name":"%b"' % names[0].encode())
    contender.call = call.replace(b'"id":1,', b'"id":%d,' % FIRST_ID)
    contender.ask()
    return contender


def _go_mcpx(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    port = free_port()
    policy = {"deny_tools": gateways.POLICY["deny_tools"]}
    config = {
        "listen": f"{HOST}:{port}",
        "servers": [{"name": p[1:], "url": backend.url(p), "policy": policy} for p in PATHS],
        "auth": {
            "enabled": True,
            "type": "bearer",
            "clients": [{"name": "bench", "token": gateways.TOKEN}],
        },
        "rate_limit": {"enabled": True, "rps": 1e6, "burst": 1_000_000},
        "audit": {"enabled": True, "output": "file", "path": str(folder / "audit.jsonl")},
    }
    # JSON is YAML, too.
    (folder / "mcpx.yaml").write_text(json.dumps(config))
    program = Program([command, "-c", folder / "mcpx.yaml"], name="go-mcpx", cpu=cpu)
    program.wait_for_port(port)
    headers = {"Authorization": f"Bearer {gateways.TOKEN}"}
    contender = Contender("Go mcpx", program, port, {p: f"/mcp{p}" for p in PATHS}, headers=headers)
    contender.ask()
    return contender


def _agentgateway(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    port = free_port()
    config = {
        "mcp": {
            "port": port,
            "targets": [{"name": "h", "mcp": {"host": backend.url("/json150")}}],
        }
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    program = Program([command, "-f", folder / "config.yaml"], name="agentgateway", cpu=cpu)
    program.wait_for_port(port)
    return _session("agentgateway", program, port, "/mcp")


def _fastmcp(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    port = free_port()
    config = {"mcpServers": {"h": {"url": backend.url("/json150"), "transport": "http"}}}
    (folder / "mcp.json").write_text(json.dumps(config))
    program = Program(
        [
            command,
            "run",
            folder / "mcp.json",
            "--transport",
            "http",
            "--host",
            HOST,
            "--port",
            str(port),
            "--log-level",
            "ERROR",
        ],
        name="FastMCP",
        cpu=cpu,
        cwd=folder,
        env={"FASTMCP_CHECK_FOR_UPDATES": "off"},
    )
    program.wait_for_port(port, 60)
    return _session("FastMCP proxy", program, port, "/mcp")


def _mcp_proxy(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    del backend
    # Its servers are programs: the same small server, speaking over stdio.
    port = free_port()
    server = Path(__file__).with_name("mcp_server.py")
    config = {"mcpServers": {"h": {"command": sys.executable, "args": [str(server), "stdio"]}}}
    (folder / "config.json").write_text(json.dumps(config))
    program = Program(
        [
            command,
            "--host",
            HOST,
            "--port",
            str(port),
            "--log-level",
            "ERROR",
            "--named-server-config",
            folder / "config.json",
        ],
        name="mcp-proxy",
        cpu=cpu,
        cwd=folder,
    )
    program.wait_for_port(port, 60)
    return _session("mcp-proxy (stdio)", program, port, "/servers/h/mcp")


def _tbxark(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    port = free_port()
    config = {
        "mcpProxy": {
            "baseURL": f"http://{HOST}:{port}",
            "addr": f"{HOST}:{port}",
            "name": "bench",
            "version": "1",
            "type": "streamable-http",
        },
        "mcpServers": {"h": {"url": backend.url("/json150"), "transportType": "streamable-http"}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    program = Program([command, "--config", folder / "config.json"], name="TBXark", cpu=cpu)
    program.wait_for_port(port)
    return _session("TBXark mcp-proxy", program, port, "/h/mcp")


def _contextforge(command: str, folder: Path, backend: Backend, cpu: int) -> Contender:
    port = free_port()
    python = Path(command).with_name("python")
    env = {
        "PLATFORM_ADMIN_EMAIL": "admin@example.com",
        "DATABASE_URL": f"sqlite:///{folder}/forge.db",
        "SSRF_ALLOW_LOCALHOST": "true",
        "RATE_LIMITING_ENABLED": "false",
        "LOG_LEVEL": "ERROR",
        "PLUGINS_ENABLED": "false",
    }
    secrets = Program(
        [python, "-m", "mcpgateway.scripts.init_secrets", "--stdout"],
        name="init_secrets",
        cpu=cpu,
        env=env,
        cwd=folder,
    )
    secrets.process.wait(60)
    for line in secrets.output().splitlines():
        name, mark, value = line.removeprefix("export ").partition("=")
        if mark and name.isidentifier():
            env[name] = value.strip("'\"")
    secrets.close()
    program = Program(
        [command, "--host", HOST, "--port", str(port)],
        name="ContextForge",
        cpu=cpu,
        env=env,
        cwd=folder,
    )
    try:
        program.wait_for_port(port, 120)
        made = Program(
            [
                python,
                "-m",
                "mcpgateway.utils.create_jwt_token",
                "--username",
                env["PLATFORM_ADMIN_EMAIL"],
                "--exp",
                "60",
                "--admin",
                "--secret",
                env.get("JWT_SECRET_KEY", ""),
            ],
            name="create_jwt_token",
            cpu=cpu,
            env=env,
            cwd=folder,
        )
        made.process.wait(60)
        token = [word for word in made.output().split() if word.count(".") == 2][-1]
        made.close()
        headers = {"Authorization": f"Bearer {token}"}
        body = {"name": "h", "url": backend.url("/json150"), "transport": "STREAMABLEHTTP"}
        status, _, answer = _post(
            port,
            "/gateways",
            json.dumps(body).encode(),
            {**headers, "Content-Type": "application/json"},
        )
        if status >= 300:
            raise Failed(f"ContextForge takes no gateway: {status} {answer[:300]!r}")
        return _session("ContextForge", program, port, "/mcp", headers=headers)
    except BaseException:
        program.close()
        raise


Start = Callable[[str, Path, Backend, int], Contender]

#: Name in PEERS to how it is started and what its command is called.
PEERS: dict[str, tuple[Start, str]] = {
    "go-mcpx": (_go_mcpx, "go-mcpx"),
    "agentgateway": (_agentgateway, "agentgateway"),
    "tbxark": (_tbxark, "tbxark-mcp-proxy"),
    "fastmcp": (_fastmcp, "fastmcp"),
    "mcp-proxy": (_mcp_proxy, "mcp-proxy"),
    "contextforge": (_contextforge, "mcpgateway"),
}


def found_peers(named: str | None) -> dict[str, str]:
    """Peer to command. ``named`` is the value of PEERS: ``fastmcp=/path,agentgateway``, or
    ``none``; all that are found when it is empty.

    Raises:
        Failed: one that is named is not known, or its command is not there.
    """
    if named == "none":
        return {}
    found = {}
    if named:
        for part in named.replace(",", " ").split():
            name, _, command = part.partition("=")
            if name not in PEERS:
                raise Failed(f"no such peer: {name}; known: {', '.join(PEERS)}")
            where = _command(command or PEERS[name][1], name)
            if where is None:
                raise Failed(f"{name}: no command {command or PEERS[name][1]}")
            found[name] = where
        return found
    for name, (_, command) in PEERS.items():
        where = _command(command, name)
        if where is not None:
            found[name] = where
    return found


def _command(command: str, name: str) -> str | None:
    return shutil.which(command) or shutil.which(str(CACHE / name / "bin" / command))


@contextmanager
def contenders(
    folder: Path, backend: Backend, cpu: int, *, peers: dict[str, str], extensions: bool
) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """All of them, running; and who could not be started, with the reason."""
    running: list[Contender] = []
    missing: dict[str, str] = {}
    ours: list[Callable[[Path, Backend, int], Contender]] = [direct, nginx, bare, protected]
    if extensions:
        ours.append(pure)
    else:
        missing["mcpx pure Python"] = "no compiled part is there: mcpx itself is pure Python"
    try:
        # One by one: those that run are to be ended if the next does not start.
        for start in ours:
            running.append(start(folder / start.__name__, backend, cpu))  # noqa: PERF401
        for name, command in peers.items():
            own = folder / name
            own.mkdir(parents=True)
            try:
                running.append(PEERS[name][0](command, own, backend, cpu))
            except (Failed, OSError, ValueError, LookupError) as problem:
                missing[name] = str(problem)[-400:]
        for name in PEERS:
            if name not in peers:
                missing[name] = "not found"
        yield running, missing
    finally:
        for contender in reversed(running):
            contender.close()
