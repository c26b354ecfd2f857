"""The MCP server behind every contender, as quick as one can be.

What it is: nginx, which answers the calls that the benchmark makes with fixed results,
and behind it a small MCP server of ours (``mcp_server.py``) for whatever else gateways
ask on their own account: ``initialize``, ``tools/list``, pings. nginx can't read bodies;
it knows a call of the benchmark by its length, and by the path which result is wanted.

What it must never do: be what limits a measurement. nginx's share of CPU is reported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from perf.bench.processes import Program, free_port

__all__ = ["CALL", "PATHS", "REQUEST_SIZES", "Backend", "Passthrough", "call_of", "result_of"]

HOST = "127.0.0.1"


def call_of(size: int) -> bytes:
    """A ``tools/call`` of exactly ``size`` bytes (at least 128)."""
    head = (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo",'
        '"arguments":{"path":"/srv/shared/notes.txt","text":"'
    )
    tail = '"}}}'
    fill = size - len(head) - len(tail)
    if fill < 0:
        raise ValueError(f"a call has at least {len(head) + len(tail)} bytes")
    return (head + "x" * fill + tail).encode()


def result_of(size: int) -> bytes:
    """Its answer, of exactly ``size`` bytes."""
    head = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"'
    tail = '"}],"isError":false}}'
    fill = size - len(head) - len(tail)
    if fill < 0:
        raise ValueError(f"a result has at least {len(head) + len(tail)} bytes")
    return (head + "x" * fill + tail).encode()


#: The usual call, and larger ones.
CALL = call_of(150)
REQUEST_SIZES = (150, 10_000, 1_000_000)

#: Path to (bytes of the result, whether it comes as an event stream).
PATHS: dict[str, tuple[int, bool]] = {
    "/json150": (150, False),
    "/json10k": (10_000, False),
    "/json1m": (1_000_000, False),
    "/json10m": (10_000_000, False),
    "/sse150": (150, True),
    "/sse10k": (10_000, True),
    "/sse1m": (1_000_000, True),
}


def _common(folder: Path, *, worker_connections: int) -> str:
    # The files of the answers are in a folder of this user's alone.
    user = "user root;\n" if os.getuid() == 0 else ""
    return f"""\
{user}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections {worker_connections}; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 64m;
  client_body_buffer_size 2m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  tcp_nodelay on;
  sendfile on;
"""


def _quoted(text: bytes) -> list[str]:
    """Parts for a configuration; nginx takes none over 4 kB."""
    plain = text.decode().replace("\\", "\\\\").replace("$", "${dollar}").replace("'", "\\'")
    return [plain[at : at + 3000] for at in range(0, len(plain), 3000)]


class Backend:
    """nginx and the MCP server behind it, running until ``close``."""

    def __init__(self, folder: Path, cpu: int | None) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        rest = free_port()
        (folder / "files").mkdir()
        lines = [_common(folder, worker_connections=16384)]
        lengths = "".join(f"    {size} 1;\n" for size in REQUEST_SIZES)
        lines.append(f"  map $content_length $is_call {{\n    default 0;\n{lengths}  }}\n")
        lines.append(f"  upstream rest {{ server {HOST}:{rest}; keepalive 64; }}\n")
        lines.append(f"  server {{\n    listen {HOST}:{self.port} backlog=4096;\n")
        lines.append(
            "    location @rest {\n      proxy_pass http://rest;\n"
            "      proxy_http_version 1.1;\n      proxy_set_header Connection '';\n    }\n"
        )
        for path, (size, stream) in PATHS.items():
            result = result_of(size)
            body = b"event: message\ndata: %b\n\n" % result if stream else result
            kind = "text/event-stream" if stream else "application/json"
            lines.append(f"    location = {path} {{\n      default_type {kind};\n")
            lines.append("      error_page 418 = @rest;\n")
            lines.append("      if ($is_call = 0) { return 418; }\n")
            if len(body) <= 12_000:
                if stream:
                    parts = [part.replace("\n", "\\n") for part in _quoted(body)]
                else:
                    parts = _quoted(body)
                names = []
                for number, part in enumerate(parts):
                    names.append(f"$part{number}")
                    lines.append(f"      set $part{number} '{part}';\n")
                lines.append(f"      return 200 '{''.join(names)}';\n    }}\n")
            else:
                (folder / "files" / path[1:]).write_bytes(body)
                # A static file refuses POST; the refusal is turned into the file.
                lines.append(
                    f"      error_page 405 =200 /files{path};\n      return 405;\n    }}\n"
                )
                lines.append(
                    f"    location = /files{path} {{\n      internal;\n"
                    f"      types {{ }}\n      default_type {kind};\n"
                    f"      alias {folder}/files{path};\n    }}\n"
                )
        lines.append(
            "    location / { proxy_pass http://rest; proxy_http_version 1.1;"
            " proxy_set_header Connection ''; }\n  }\n}\n"
        )
        (folder / "nginx.conf").write_text("".join(lines))
        self._rest = Program(
            [sys.executable, Path(__file__).with_name("mcp_server.py"), str(rest)],
            name="the MCP server",
            cpu=cpu,
        )
        self._rest.wait_for_port(rest)
        self.nginx = Program(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], name="nginx", cpu=cpu
        )
        self.nginx.wait_for_port(self.port)

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"

    def close(self) -> None:
        self.nginx.close()
        self._rest.close()


class Passthrough:
    """nginx as a plain reverse proxy before the backend: what a gateway is measured by.

    Its buffers are such that large answers go through quickest; it would hold back the
    events of a slow stream with them, which nothing here measures.
    """

    def __init__(self, folder: Path, backend: Backend, cpu: int | None) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        (folder / "nginx.conf").write_text(
            _common(folder, worker_connections=32768)
            + f"""\
  upstream backend {{ server {HOST}:{backend.port}; keepalive 512; }}
  server {{
    listen {HOST}:{self.port} backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_max_temp_file_size 0;
      proxy_buffer_size 64k;
      proxy_buffers 8 64k;
    }}
  }}
}}
"""
        )
        self.program = Program(
            ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)],
            name="nginx pass-through",
            cpu=cpu,
        )
        self.program.wait_for_port(self.port)
