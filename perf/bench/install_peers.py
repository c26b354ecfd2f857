"""Install the peers that PyPI has: ``python install_peers.py``, or ``make bench-peers``.

Each gets an environment of its own in ``~/.cache/mcpx-peers``, where the benchmark looks.
Nothing of them comes into this project's environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path.home() / ".cache" / "mcpx-peers"
#: Peer to (what to install, the Python that it needs; this one when None).
PACKAGES: dict[str, tuple[str, str | None]] = {
    "fastmcp": ("fastmcp==4.1.2", None),
    "mcp-proxy": ("mcp-proxy==0.13.0", None),
    "contextforge": ("mcp-contextforge-gateway==1.1.0", "python3.12"),
}


def main() -> int:
    failed = []
    for name, (package, python) in PACKAGES.items():
        folder = CACHE / name
        stamp = folder / f".installed-{package}"
        if stamp.exists():
            continue
        command = sys.executable if python is None else shutil.which(python)
        if command is None:
            failed.append(f"{name}: it needs {python}")
            continue
        print(f"Installing {package} in {folder}.", flush=True)
        try:
            subprocess.run([command, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(folder / "bin" / "pip"), "install", "-q", package], check=True)
        except subprocess.CalledProcessError as problem:
            failed.append(f"{name}: {problem}")
            continue
        stamp.touch()
    for text in failed:
        print(f"not installed: {text}", file=sys.stderr)
    return 1 if len(failed) == len(PACKAGES) else 0


if __name__ == "__main__":
    sys.exit(main())
