"""The tools of the other tests: a program that fails is reported with its own words."""

import os
import signal
import sys

import pytest

from support.processes import (
    ProgramFailedError,
    ServerProcess,
    clean_environment,
    free_port,
    running,
)

LISTEN = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    s.accept()[0].close()
"""


def test_a_program_is_waited_for_until_it_listens_and_its_group_is_ended():
    port = free_port()
    with running([sys.executable, "-c", LISTEN, str(port)], name="listener", port=port) as server:
        assert server.stdout == "ready\n"
        assert server.returncode is None
    assert server.process.returncode == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)


def test_a_program_that_dies_before_it_listens_is_reported_with_its_output():
    command = [sys.executable, "-c", "import sys; sys.exit('no configuration')"]
    with pytest.raises(ProgramFailedError, match="status 1") as failure:
        with running(command, name="listener", port=free_port()):
            pass
    assert "no configuration" in str(failure.value)


def test_a_program_that_never_listens_is_given_up_with_its_output():
    command = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
    with pytest.raises(ProgramFailedError, match="nothing listens"):
        with running(command, name="sleeper", port=free_port(), limit_s=0.2):
            pass


def test_a_program_that_ignores_sigterm_fails_the_stop_and_is_ended_anyway():
    port = free_port()
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + LISTEN
    server = ServerProcess([sys.executable, "-c", ignoring, str(port)], name="deaf listener")
    try:
        server.wait_until_listening(port)
        with pytest.raises(ProgramFailedError, match="still runs"):
            server.stop(limit_s=0.1)
    finally:
        server.send(signal.SIGKILL)
        server.close()
    assert server.process.returncode == -signal.SIGKILL


def test_the_tester_s_own_environment_does_not_reach_the_program(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    environ = clean_environment({"WANTED": "yes"})
    assert "HTTPS_PROXY" not in environ
    assert "SOME_TOKEN" not in environ
    assert environ["WANTED"] == "yes"
