"""``python -m examples.demo``: the mock server and the gateway in one terminal.

Starts both, says what to try once the gateway answers, and stops both on Ctrl-C or
when one of them ends. Each runs in a process group of its own, so that Ctrl-C
reaches this process alone and each child gets exactly one signal.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from pathlib import Path

MOCK_ADDRESS = "127.0.0.1:3001"
GATEWAY_ADDRESS = "127.0.0.1:8080"
CONFIG = Path(__file__).with_name("mcpx.yaml")
START_LIMIT_S = 20.0
STOP_LIMIT_S = 15.0
POLL_S = 0.1

LIST_TOOLS = """\
curl -s http://localhost:8080/mcp/demo \\
  -H 'Content-Type: application/json' \\
  -d '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
"""
CALL_DENIED_TOOL = """\
curl -si http://localhost:8080/mcp/demo \\
  -H 'Content-Type: application/json' \\
  -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"dangerous_delete","arguments":{"path":"/"}}}'
"""
TO_TRY = f"""
The gateway listens on http://localhost:8080, a mock MCP server stands behind it.
In another terminal, list the tools. The server has three, the gateway shows two:

{LIST_TOOLS}
Call the third all the same. The gateway refuses it (HTTP 403), the server never sees it:

{CALL_DENIED_TOOL}
Ctrl-C stops both.
"""


def answers(address: str) -> bool:
    """Whether anything speaks HTTP there."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/health/live")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask each to end, and end those that do not."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(processes: list[subprocess.Popen[bytes]]) -> int:
    """Say what to try once the gateway answers; return when a process has ended."""
    told = False
    give_up_at = time.monotonic() + START_LIMIT_S
    while True:
        for process in processes:
            status = process.poll()
            if status is not None:
                print(f"demo: {process.args!r} ended with status {status}", file=sys.stderr)
                return status or 1
        if not told and answers(GATEWAY_ADDRESS):
            told = True
            print(TO_TRY, flush=True)
        if not told and time.monotonic() > give_up_at:
            print(f"demo: no answer on {GATEWAY_ADDRESS}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)


def main() -> int:
    """Run the demo; return the exit status."""
    for address in (MOCK_ADDRESS, GATEWAY_ADDRESS):
        if answers(address):  # a stranger's answers must not pass for the demo's
            print(f"demo: {address} is in use; stop what listens there first", file=sys.stderr)
            return 1
    # All three, also where a shell started us with one of them ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    commands = [
        [sys.executable, "-m", "examples.mock_mcp", "--addr", MOCK_ADDRESS],
        [sys.executable, "-m", "mcpx", "-c", str(CONFIG)],
    ]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes.extend(subprocess.Popen(command, process_group=0) for command in commands)
        return watch(processes)
    except KeyboardInterrupt:
        return 0
    finally:
        stop(processes)


if __name__ == "__main__":
    sys.exit(main())
