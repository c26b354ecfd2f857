"""The command line takes flags as it always did, and says what is wrong with an exit code."""

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from support.processes import ServerProcess, clean_environment, free_port

import mcpx
from mcpx import _speedups, app
from mcpx.cli.main import cli, go_flags

GOOD = "listen: 127.0.0.1:0\nservers:\n  - {name: demo, url: 'http://127.0.0.1:9/mcp'}\n"
BAD = "servers:\n  - {name: demo, url: 'ftp://x', polcy: {}}\n"


@pytest.fixture
def ran(monkeypatch):
    """What ``app.run`` was called with, instead of a gateway."""
    calls = []
    monkeypatch.setattr(
        app, "run", lambda path, *, watch_interval_s=None: calls.append((path, watch_interval_s))
    )
    return calls


def invoke(*arguments):
    return CliRunner().invoke(cli, go_flags(list(arguments)), prog_name="mcpx")


@pytest.mark.parametrize("flag", ["-version", "--version", "-v", "--v", "-version=true"])
def test_the_version_is_told(ran, flag):
    result = invoke(flag)
    assert (result.exit_code, result.stdout) == (0, f"mcpx v{mcpx.__version__}\n")
    assert result.stderr == f"{_speedups.described()}\n"
    assert ran == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "x.yaml"],
        ["-c=x.yaml"],
        ["--c=x.yaml"],
        ["-config", "x.yaml"],
        ["-config=x.yaml"],
        ["--config", "x.yaml"],
        ["--config=x.yaml"],
    ],
)
def test_the_file_is_named_in_every_way(ran, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert ran == [("x.yaml", None)]


def test_without_a_name_the_file_is_mcpx_yaml(ran):
    assert invoke().exit_code == 0
    assert ran == [("mcpx.yaml", None)]


@pytest.mark.parametrize(
    ("arguments", "interval_s"),
    [
        (["-watch"], 2.0),
        (["--watch"], 2.0),
        (["-watch=true"], 2.0),
        (["-watch=false"], None),
        (["-watch", "-watch-interval", "500ms"], 0.5),
        (["-watch", "-watch-interval=1m30s"], 90.0),
        (["--watch", "--watch-interval", "0s"], 2.0),
        (["-watch-interval", "500ms"], None),
    ],
)
def test_watching_has_an_interval(ran, arguments, interval_s):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert ran == [("mcpx.yaml", interval_s)]


@pytest.mark.parametrize(
    "arguments",
    [["-nonsense"], ["-watch-interval", "soon"], ["-watch-interval", "-1s"], ["-c"], ["unknown"]],
)
def test_a_wrong_command_line_is_exit_code_2(ran, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert ran == []


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_tells_every_flag_and_command(flag):
    result = invoke(flag)
    assert result.exit_code == 0
    for word in ("--config", "-c", "--watch", "--watch-interval", "--version", "-v", "check",
                 "SIGHUP", "SIGTERM"):  # fmt: skip
        assert word in result.output


def test_a_sound_configuration_is_described(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_text(GOOD)
    for arguments in (["check", "-c", str(path)], ["-c", str(path), "check"]):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert "demo" in result.output


def test_a_configuration_with_faults_is_exit_code_1_with_every_fault_and_its_place(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_text(BAD)
    for arguments in (["check", "-c", str(path)], ["-c", str(path)]):
        result = CliRunner().invoke(cli, go_flags(arguments))
        assert result.exit_code == 1
        assert result.stdout == ""
        assert f"{path} can't be used" in result.stderr
        assert re.search(r"mcpx\.yaml:2:\d+: .*polcy", result.stderr)


def test_a_file_that_is_not_there_is_exit_code_1(tmp_path):
    result = invoke("check", "-c", str(tmp_path / "none.yaml"))
    assert result.exit_code == 1
    assert "can't be read" in result.output


def test_check_looks_at_the_files_that_are_named(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_text(GOOD + "tls: {cert: /no/such.pem, key: /no/such.pem}\n")
    result = invoke("check", "-c", str(path))
    assert result.exit_code == 1
    assert "/no/such.pem" in result.output


def test_no_secret_is_shown_by_check(tmp_path):
    path = tmp_path / "mcpx.yaml"
    path.write_text(GOOD + "auth: {enabled: true, type: bearer, token: correct-horse-battery}\n")
    result = invoke("check", "-c", str(path))
    assert result.exit_code == 0
    assert "correct-horse-battery" not in result.output


def test_the_command_is_there_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "mcpx", "-version"],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"mcpx v{mcpx.__version__}\n"


def test_an_interrupted_gateway_stops_in_order(tmp_path):
    import signal

    port = free_port()
    path = tmp_path / "mcpx.yaml"
    path.write_text(GOOD.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    gateway = ServerProcess(
        [sys.executable, "-m", "mcpx", f"-c={path}"], name="the gateway",
        env=clean_environment({"PYTHONPATH": ":".join(sys.path)}),
    )  # fmt: skip
    try:
        gateway.wait_until_listening(port)
        gateway.send(signal.SIGINT)
        assert gateway.wait() == 0, gateway.describe()
        assert "Traceback" not in gateway.stderr
    finally:
        gateway.close()
