"""The inspector's command line works as well through the gateway as without it.

``@modelcontextprotocol/inspector --cli`` makes one request a run and prints the
answer. What it prints must be right, and the same on both ways.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from node_programs import program
from support.processes import clean_environment

LIMIT_S = 60

SDK = [
    (["tools/list"], lambda r: {"echo", "add"} <= {tool["name"] for tool in r["tools"]}),
    (
        ["tools/call", "--tool-name", "add", "--tool-arg", "a=2", "b=40"],
        lambda r: r["structuredContent"] == {"total": 42, "terms": [2, 40]},
    ),
    (["resources/list"], lambda r: {"note://static", "image://pixel"} == uris(r["resources"])),
    (["resources/templates/list"], lambda r: len(r["resourceTemplates"]) == 1),
    (
        ["resources/read", "--uri", "note://static"],
        lambda r: r["contents"][0]["text"] == "The tide waits for no one.\n",
    ),
    (["prompts/list"], lambda r: [prompt["name"] for prompt in r["prompts"]] == ["summarise"]),
    (
        ["prompts/get", "--prompt-name", "summarise", "--prompt-args", "topic=tides"],
        lambda r: r["messages"][0]["content"]["text"] == "Write a short summary about tides.",
    ),
]
EVERYTHING = [
    (["tools/list"], lambda r: {"echo", "get-sum"} <= {tool["name"] for tool in r["tools"]}),
    (
        ["tools/call", "--tool-name", "get-sum", "--tool-args-json", '{"a": 2, "b": 40}'],
        lambda r: r["content"][0]["text"] == "The sum of 2 and 40 is 42.",
    ),
    (
        ["tools/call", "--tool-name", "trigger-long-running-operation"]
        + ["--tool-arg", "duration=0.2", "steps=4"],
        lambda r: r["content"][0]["text"].startswith("Long running operation completed"),
    ),
    (
        ["resources/list"],
        lambda r: "demo://resource/static/document/features.md" in uris(r["resources"]),
    ),
    (
        ["resources/read", "--uri", "demo://resource/static/document/features.md"],
        lambda r: r["contents"][0]["mimeType"] == "text/markdown",
    ),
    (["prompts/list"], lambda r: "args-prompt" in {prompt["name"] for prompt in r["prompts"]}),
    (
        ["prompts/get", "--prompt-name", "args-prompt", "--prompt-args", "city=Oslo"],
        lambda r: r["messages"][0]["content"]["text"] == "What's weather in Oslo?",
    ),
]
RUNS = [
    *(("sdk", "legacy", *question) for question in SDK),
    *(("sdk", "modern", *question) for question in SDK),
    *(("everything", "legacy", *question) for question in EVERYTHING),
]


@pytest.fixture(scope="session")
def inspect(tmp_path_factory):
    """A function that makes one run and gives its exit status, its result and its error."""
    home = tmp_path_factory.mktemp("inspector-home")
    command = [*program("@modelcontextprotocol/inspector", "mcp-inspector"), "--cli"]
    environ = clean_environment({"HOME": str(home)})

    def run(url: str, era: str, method: str, *arguments: str):
        done = subprocess.run(
            [*command, url, "--transport", "http", "--protocol-era", era, "--format", "json"]
            + ["--method", method, *arguments],
            env=environ,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        result = printed[0]["result"] if printed else None
        return done.returncode, result, done.stderr

    return run


@pytest.fixture(scope="session")
def direct_results():
    """What the runs straight to a server printed, by server, era and request."""
    return {}


def uris(resources):
    return {resource["uri"] for resource in resources}


@pytest.mark.parametrize(
    ("server", "era", "question", "right"),
    RUNS,
    ids=[f"{server}-{era}-{'-'.join(question[:3])}" for server, era, question, _ in RUNS],
)
def test_the_inspector_lists_and_calls(
    inspect, both_ways, via, direct_results, server, era, question, right
):
    direct, gateway = both_ways
    run = (server, era, *question)
    if run not in direct_results:
        direct_results[run] = inspect(direct(server), era, *question)
    status, result, error = direct_results[run]
    if via == "gateway":
        status, result, error = inspect(gateway(server), era, *question)
    assert status == 0, error
    assert right(result), result
    assert result == direct_results[run][1]


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_tells_of_a_tool_that_failed(inspect, endpoint, era):
    status, result, error = inspect(
        endpoint("sdk"), era, "tools/call", "--tool-name", "fail", "--tool-arg", "reason=calm"
    )
    assert status != 0
    assert result["isError"]
    assert result["content"][0]["text"].endswith("it failed: calm")
    assert "tool_is_error" in error


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_tells_of_an_error_of_the_protocol(inspect, endpoint, era):
    status, result, error = inspect(
        endpoint("sdk"), era, "tools/call", "--tool-name", "reject", "--tool-arg", "reason=calm"
    )
    assert status != 0
    assert result is None
    assert "rejected: calm" in error
