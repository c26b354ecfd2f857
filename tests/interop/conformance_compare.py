"""What the gateway loses of a server's conformance: the official suite, run twice.

``python tests/interop/conformance_compare.py`` runs ``@modelcontextprotocol/conformance``
against a server directly and through the gateway, for both revisions, and prints each
check that succeeds directly but not through the gateway. Its exit status is 1 when
there is one. The server is ``sdk_server.py`` unless ``--url`` names another, whose
fixtures may cover more of the suite; what a server fails itself does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_programs import HERE, node, program

sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from support.gateway import running_gateway  # noqa: E402 - found by the line above
from support.processes import clean_environment, free_port, running  # noqa: E402

REVISIONS = ("2025-11-25", "2026-07-28")
LIMIT_S = 300
# A folder is called after the scenario and the time at which it ran.
FOLDER = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")

Check = tuple[str, str]


def succeeding(url: str, revision: str) -> set[Check]:
    """Run the suite; the (scenario, check) pairs that succeed every time they are made.

    Raises:
        RuntimeError: The suite did not run to its end.
    """
    with tempfile.TemporaryDirectory(prefix="mcpx-conformance-") as folder:
        command = program("@modelcontextprotocol/conformance", "conformance")
        arguments = ["server", "--url", url, "--requirements", revision, "-o", folder]
        path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [str(part) for part in [*command, *arguments]],
            env=clean_environment({"PATH": path, "HOME": folder}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        # Status 1 says that some scenario failed, which is what is looked at here.
        if done.returncode not in (0, 1) or "Total:" not in done.stdout:
            raise RuntimeError(f"the suite ended with {done.returncode}: {done.stderr[-4000:]}")
        outcomes: dict[Check, set[str]] = {}
        for path_of_checks in Path(folder).glob("*/checks.json"):
            found = FOLDER.fullmatch(path_of_checks.parent.name)
            if found is None:
                raise RuntimeError(f"an unknown result: {path_of_checks.parent.name}")
            for check in json.loads(path_of_checks.read_text("utf-8")):
                key = (found["scenario"], check["id"])
                outcomes.setdefault(key, set()).add(check["status"])
        return {
            key
            for key, statuses in outcomes.items()
            if "SUCCESS" in statuses and "FAILURE" not in statuses
        }


def local(url: str) -> str:
    """The URL by the one name for which the suite tests the defence against DNS rebinding."""
    return url.replace("//127.0.0.1:", "//localhost:")


@contextmanager
def own_server() -> Iterator[str]:
    """The URL of ``sdk_server.py``, running."""
    port = free_port()
    command = [sys.executable, HERE / "sdk_server.py", "--port", str(port)]
    with running(command, name="the SDK server", port=port):
        yield f"http://127.0.0.1:{port}/mcp"


@contextmanager
def given_server(url: str) -> Iterator[str]:
    """A server that somebody else runs."""
    yield url


def main() -> int:
    """Compare, print, and return 1 when something is lost."""
    options = argparse.ArgumentParser(description="Compare conformance with and without mcpx.")
    options.add_argument("--url", help="a running server; sdk_server.py when not given")
    options.add_argument("--revision", choices=REVISIONS, action="append")
    chosen = options.parse_args()
    lost_any = False
    with (
        given_server(chosen.url) if chosen.url else own_server() as direct_url,
        running_gateway({"servers": [{"name": "upstream", "url": direct_url}]}) as gateway,
    ):
        for revision in chosen.revision or REVISIONS:
            direct = succeeding(local(direct_url), revision)
            through = succeeding(local(gateway.url("upstream")), revision)
            lost, gained = sorted(direct - through), sorted(through - direct)
            lost_any = lost_any or bool(lost)
            print(
                f"{revision}: {len(direct)} checks succeed directly, "
                f"{len(through)} through the gateway, {len(lost)} are lost"
            )
            for title, checks in (("lost", lost), ("gained", gained)):
                for scenario, check in checks:
                    print(f"  {title}: {scenario}: {check}")
    return int(lost_any)


if __name__ == "__main__":
    sys.exit(main())
