"""``python -m examples.mock_mcp [--addr HOST:PORT] [--quiet]``."""

from __future__ import annotations

import argparse
import signal
import sys

from examples.mock_mcp.server import MockServer, parse_address


def main() -> int:
    """Serve until interrupted; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="mock_mcp", description="An MCP server with three tools that do nothing."
    )
    parser.add_argument(
        "--addr",
        "-addr",
        default=":3001",
        metavar="HOST:PORT",
        help="where to listen; the loopback address when HOST is left out (default: :3001)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log messages")
    options = parser.parse_args()
    try:
        host, port = parse_address(options.addr)
        server = MockServer(host, port, quiet=options.quiet)
    except (ValueError, OSError) as fault:
        print(f"mock server: can't listen on {options.addr}: {fault}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"mock server: listening on http://{host}:{server.port}", file=sys.stderr, flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
