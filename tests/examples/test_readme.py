"""The README's commands are the demo's, and do what it says that they do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from support.processes import clean_environment, free_port, running

from examples.demo import __main__ as demo

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def block(mark):
    found = re.search(rf"<!-- demo: {mark} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found is not None, mark
    return found[1]


@pytest.fixture(scope="module")
def running_demo(tmp_path_factory):
    """The demo's two programs on free ports; gives a function that runs a command against them."""
    mock_port, gateway_port = free_port(), free_port()
    text = demo.CONFIG.read_text()
    for address, port in ((demo.MOCK_ADDRESS, mock_port), (demo.GATEWAY_ADDRESS, gateway_port)):
        assert text.count(address) == 1
        text = text.replace(address, f"127.0.0.1:{port}")
    config = tmp_path_factory.mktemp("demo") / "mcpx.yaml"
    config.write_text(text)
    mock = [sys.executable, "-m", "examples.mock_mcp", "--addr", f":{mock_port}"]
    gateway = [sys.executable, "-m", "mcpx", "-c", config]
    with ExitStack() as stack:
        mock_process = stack.enter_context(
            running(mock, name="the mock server", port=mock_port, cwd=ROOT)
        )
        stack.enter_context(running(gateway, name="the gateway", port=gateway_port, cwd=ROOT))

        def run(command):
            assert command.count("localhost:8080") == 1
            return subprocess.run(
                ["sh", "-c", command.replace("localhost:8080", f"localhost:{gateway_port}")],
                capture_output=True,
                check=True,
                timeout=30,
                env=clean_environment(),
            ).stdout.decode()

        run.mock = mock_process
        yield run


def test_the_commands_are_the_ones_that_the_demo_prints():
    assert block("list") == demo.LIST_TOOLS
    assert block("denied") == demo.CALL_DENIED_TOOL
    assert demo.LIST_TOOLS in demo.TO_TRY
    assert demo.CALL_DENIED_TOOL in demo.TO_TRY


def test_the_first_command_shows_two_tools(running_demo):
    text = running_demo(block("list"))
    reply = json.loads(text)
    assert "result" in reply, text
    assert reply["id"] == 1
    assert [tool["name"] for tool in reply["result"]["tools"]] == ["echo", "read_file"]


def test_the_second_command_is_refused_with_403_and_never_reaches_the_server(running_demo):
    head, _, body = running_demo(block("denied")).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 403 Forbidden\r\n")
    reply = json.loads(body)
    assert reply["id"] == 2
    assert reply["error"]["code"] == -32600
    assert "dangerous_delete" in reply["error"]["message"]
    assert "tools/call" not in running_demo.mock.stderr


def test_the_refusal_reads_as_the_readme_shows_it(running_demo):
    shown = re.search(r"```\nHTTP/1\.1 403 Forbidden\n.*?\n\n(\{.*?\})\n```", README, re.DOTALL)
    reply = json.loads(running_demo(block("denied")).partition("\r\n\r\n")[2])
    expected = json.loads(shown[1])
    assert len(reply["error"]["data"]["request_id"]) == len(expected["error"]["data"]["request_id"])
    reply["error"]["data"]["request_id"] = expected["error"]["data"]["request_id"]
    assert reply == expected


def test_the_configuration_in_the_readme_loads(tmp_path):
    from mcpx.config.load import load_snapshot

    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (variable,) = set(re.findall(r"\$\{(\w+)\}", text))
    assert f"export {variable}=" in README
    snapshot = load_snapshot(
        text.encode(),
        filename="README.md",
        environ={variable: "0123456789abcdef" * 4},
        generation=1,
    )
    assert list(snapshot.routes) == [server["name"] for server in yaml.safe_load(text)["servers"]]
    assert snapshot.warnings == ()
