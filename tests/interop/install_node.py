"""Install the programs of ``package.json`` with the Node.js that comes from PyPI.

Run it as ``python tests/interop/install_node.py``; it does nothing when what is
there already fits the lock file. Packages are taken as the lock file names them,
checked against its hashes, and none of their install scripts is run.
"""

from __future__ import annotations

import os
import subprocess
import sys

from node_programs import HERE, STAMP, MissingProgramsError, installed, node, npm_script, wanted


def main() -> int:
    """Install, or find that it is done. Returns the exit status."""
    if installed():
        return 0
    try:
        executable, script = node(), npm_script()
    except MissingProgramsError as error:
        print(error, file=sys.stderr)
        return 1
    # npm starts `node` by its name for some of its work: let it be the same one.
    environ = {**os.environ, "PATH": f"{executable.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [
        str(executable),
        str(script),
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]
    status = subprocess.run(command, cwd=HERE, env=environ, check=False).returncode
    if status == 0:
        STAMP.write_text(wanted(), "ascii")
    return status


if __name__ == "__main__":
    sys.exit(main())
