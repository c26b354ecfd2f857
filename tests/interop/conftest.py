"""The servers, and the two ways to them: straight, and through the gateway.

A test that takes ``endpoint`` runs twice. ``endpoint("sdk")`` is the URL of our
server on the official SDK, ``endpoint("everything")`` that of the reference server
of the protocol's authors, each either direct (which proves the test itself) or by
way of one gateway that has both behind it. Everything is started once a session.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from node_programs import program
from support.gateway import Gateway, running_gateway
from support.processes import ServerProcess, clean_environment, free_port, running

HERE = Path(__file__).resolve().parent

Endpoint = Callable[[str], str]


@pytest.fixture(scope="session")
def sdk_server() -> Iterator[str]:
    """The URL of ``sdk_server.py``."""
    port = free_port()
    command = [sys.executable, HERE / "sdk_server.py", "--port", str(port)]
    with running(command, name="the SDK server", port=port):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="session")
def everything_process() -> Iterator[tuple[ServerProcess, str]]:
    """``@modelcontextprotocol/server-everything``, which is legacy only, and its URL."""
    port = free_port()
    command = program("@modelcontextprotocol/server-everything", "mcp-server-everything")
    environ = clean_environment({"PORT": str(port)})
    with running(
        [*command, "streamableHttp"], name="server-everything", port=port, env=environ
    ) as started:
        yield started, f"http://127.0.0.1:{port}/mcp"


@pytest.fixture(scope="session")
def everything_server(everything_process: tuple[ServerProcess, str]) -> str:
    """The URL of server-everything."""
    return everything_process[1]


@pytest.fixture(scope="session")
def gateway(sdk_server: str, everything_server: str) -> Iterator[Gateway]:
    """A gateway in front of both servers that refuses nothing."""
    config = {
        "servers": [
            {"name": "sdk", "url": sdk_server},
            {"name": "everything", "url": everything_server},
        ]
    }
    with running_gateway(config) as started:
        yield started


@pytest.fixture(params=["direct", "gateway"])
def via(request: pytest.FixtureRequest) -> str:
    """Which of the two ways this run of the test takes."""
    way: str = request.param
    return way


@pytest.fixture
def endpoint(via: str, request: pytest.FixtureRequest) -> Endpoint:
    """Server name to URL, on this run's way. A server is started when it is first asked for."""
    return direct_endpoint(request) if via == "direct" else gateway_endpoint(request)


@pytest.fixture
def both_ways(request: pytest.FixtureRequest) -> tuple[Endpoint, Endpoint]:
    """The direct way and the gateway's, for tests that compare them."""
    return direct_endpoint(request), gateway_endpoint(request)


def direct_endpoint(request: pytest.FixtureRequest) -> Endpoint:
    return lambda server: request.getfixturevalue(f"{server}_server")


def gateway_endpoint(request: pytest.FixtureRequest) -> Endpoint:
    return lambda server: request.getfixturevalue("gateway").url(server)


def pytest_collection_modifyitems(items):
    """The official client may leave a stream half read until its garbage is collected.

    A log record can hold it past the block in which that is forgiven, to the end of the test.
    """
    here = Path(__file__).parent
    forgiven = pytest.mark.filterwarnings(r"ignore:Async generator 'http:ResourceWarning")
    for item in items:
        if here in item.path.parents:
            item.add_marker(forgiven)
