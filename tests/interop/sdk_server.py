"""An MCP server on the official Python SDK, with one feature of each kind that a gateway relays.

It serves both eras over Streamable HTTP, as the SDK does, and is started as a
program of its own::

    python tests/interop/sdk_server.py --port 4000

Nothing it says depends on time or chance, so that two answers to the same request
can be compared whole. Its two tools ``count_up`` and ``release`` make a handshake:
a step's progress is sent only after ``release`` was called for the step before, so
a client that waits for an event before it releases the next proves that events
arrive when they are sent.
"""

from __future__ import annotations

import argparse
import base64
from collections import defaultdict
from typing import Annotated, Any

import anyio
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import (
    Annotations,
    Completion,
    CompletionArgument,
    CompletionContext,
    EmptyResult,
    PromptReference,
    ResourceTemplateReference,
    SetLevelRequestParams,
    SubscribeRequestParams,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

HANDSHAKE_LIMIT_S = 60
REJECTION_CODE = 1017
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOPICS = ("tides", "timber", "towns")
LENGTHS = {"tides": ("short", "shorter"), "timber": ("short", "long")}

server = MCPServer(
    "interop",
    title="Interoperability server",
    version="1.2.3",
    instructions="Call anything. Nothing here changes the world.",
    log_level="WARNING",
)


class Sum(BaseModel):
    """What ``add`` answers."""

    total: int
    terms: list[int]


class Name(BaseModel):
    """What ``greet`` asks its user for."""

    name: str = Field(description="How the user wants to be called")


# Tools


@server.tool(
    title="Echo",
    annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True),
    meta={"example.org/shade": {"deep": [1, 2, {"deeper": None}]}},
)
def echo(text: str) -> str:
    """Say the same again."""
    return text


@server.tool()
def add(a: int, b: int) -> Sum:
    """Add two numbers of any size."""
    return Sum(total=a + b, terms=[a, b])


@server.tool(structured_output=False)
def big(kilobytes: int) -> str:
    """A long text in which every kilobyte is different."""
    return "".join(f"{number:08d}" + "é" * 508 for number in range(kilobytes))


@server.tool(structured_output=False)
def fail(reason: str) -> str:
    """Fail, as tools do: with a result that says so."""
    raise ToolError(f"it failed: {reason}")


@server.tool(structured_output=False)
def reject(reason: str) -> str:
    """Fail with an error of the protocol, which carries a code and data."""
    raise MCPError(REJECTION_CODE, f"rejected: {reason}", data={"reason": reason, "retry": False})


@server.tool(structured_output=False)
def seen_headers(
    colour: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Colour"})], ctx: Context
) -> str:
    """The headers of this very call, one in a line; modern clients put the colour into one."""
    return "\n".join(sorted(f"{name}: {value}" for name, value in (ctx.headers or {}).items()))


@server.tool(structured_output=False)
async def talk(lines: int, ctx: Context) -> str:
    """Log a few lines while working."""
    for number in range(lines):
        await ctx.session.send_log_message(
            level="info", data={"line": number}, logger="talk", related_request_id=ctx.request_id
        )
    return f"said {lines} lines"


released: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(0))
outcomes: dict[str, str] = {}


@server.tool(structured_output=False)
async def count_up(run: str, steps: int, ctx: Context) -> str:
    """Report ``steps`` steps, each once the one before it was released."""
    outcomes[run] = "running"
    try:
        with anyio.fail_after(HANDSHAKE_LIMIT_S):
            for step in range(1, steps + 1):
                await ctx.report_progress(step, steps, f"step {step} of {run}")
                await released[run].acquire()
    except anyio.get_cancelled_exc_class():
        outcomes[run] = "cancelled"
        raise
    outcomes[run] = "done"
    return f"{run} took {steps} steps"


@server.tool(structured_output=False)
async def outcome_of(run: str) -> str:
    """Whether a run of ``count_up`` is running, done, cancelled or unknown."""
    return outcomes.get(run, "unknown")


@server.tool(structured_output=False)
async def release(run: str) -> str:
    """Let ``count_up`` take its next step."""
    released[run].release()
    return "released"


def who() -> Elicit[Name]:
    """The question that ``greet`` has its client ask."""
    return Elicit("What is your name?", Name)


@server.tool(structured_output=False)
def greet(person: Annotated[Name, Resolve(who)]) -> str:
    """Ask the user for a name, then greet them by it."""
    return f"Hello {person.name}"


@server.tool(structured_output=False)
async def touch(uri: str, ctx: Context) -> str:
    """Tell subscribers of either era that a resource has changed."""
    await ctx.notify_resource_updated(uri)
    if uri in subscribed:
        await ctx.session.send_resource_updated(uri)
    return f"touched {uri}"


# Resources


@server.resource(
    "note://static",
    name="static",
    title="A note",
    mime_type="text/plain",
    annotations=Annotations(audience=["user"], priority=0.5),
)
def static_note() -> str:
    """A text that never changes."""
    return "The tide waits for no one.\n"


@server.resource("image://pixel", name="pixel", mime_type="image/png")
def pixel() -> bytes:
    """A picture of one pixel."""
    return PIXEL


@server.resource("note://about/{topic}", name="about", mime_type="text/markdown")
def about(topic: str) -> str:
    """A note about any topic."""
    return f"# About {topic}\n"


# The legacy subscription, which the SDK's high-level server leaves to its owner.
subscribed: set[str] = set()


async def subscribe(ctx: ServerRequestContext[Any], params: SubscribeRequestParams) -> EmptyResult:
    subscribed.add(str(params.uri))
    return EmptyResult()


async def unsubscribe(
    ctx: ServerRequestContext[Any], params: UnsubscribeRequestParams
) -> EmptyResult:
    subscribed.discard(str(params.uri))
    return EmptyResult()


async def set_level(ctx: ServerRequestContext[Any], params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()


lowlevel = server._lowlevel_server
lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)


# Prompts and completion


@server.prompt(title="Summarise")
def summarise(topic: str, length: str = "short") -> str:
    """Ask for a summary."""
    return f"Write a {length} summary about {topic}."


@server.completion()
async def complete(
    ref: PromptReference | ResourceTemplateReference,
    argument: CompletionArgument,
    context: CompletionContext | None,
) -> Completion | None:
    """Topics by their beginning; lengths by the topic that was chosen before."""
    if argument.name == "topic":
        candidates = TOPICS
    elif argument.name == "length" and context is not None and context.arguments:
        candidates = LENGTHS.get(context.arguments.get("topic", ""), ())
    else:
        return None
    values = [value for value in candidates if value.startswith(argument.value)]
    return Completion(values=values, total=len(values), has_more=False)


def main() -> None:
    """Serve on 127.0.0.1 until a signal ends it."""
    options = argparse.ArgumentParser()
    options.add_argument("--port", type=int, required=True)
    arguments = options.parse_args()
    app = server.streamable_http_app(host="127.0.0.1")
    # Event streams stay open for as long as their clients like; the end must not wait for them.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
