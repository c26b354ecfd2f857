"""The official Python client works as well through the gateway as without it.

Against our server on the same SDK, in both eras. Each test runs once straight to
the server, which shows that the test is right, and once through the gateway.
"""

from __future__ import annotations

import base64

import mcp_types
import pytest
import trio
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from official_client import LEGACY, MODERN, PROBING, connected, plain
from sdk_server import PIXEL, REJECTION_CODE

TOOLS = {
    "echo", "add", "big", "fail", "reject", "seen_headers", "talk", "count_up", "outcome_of",
    "release", "greet", "touch",
}  # fmt: skip


@pytest.fixture(params=[LEGACY, MODERN])
def mode(request):
    """The client's era."""
    return request.param


@pytest.mark.parametrize(
    ("opening", "version"),
    [(LEGACY, "2025-11-25"), (MODERN, "2026-07-28"), (PROBING, "2026-07-28")],
)
async def test_a_connection_is_opened_in_each_mode_of_the_client(endpoint, opening, version):
    async with connected(endpoint("sdk"), opening) as client:
        assert client.protocol_version == version
        # A client that is told the version asks the server for nothing when it opens.
        if opening != MODERN:
            assert client.server_info.name == "interop"
            assert client.instructions.startswith("Call anything")
            assert client.server_capabilities.completions is not None
            assert client.server_capabilities.resources.subscribe
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS


async def test_a_tool_s_definition_arrives_with_its_annotations_schema_and_meta(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    echo = tools["echo"]
    assert (echo.title, echo.description) == ("Echo", "Say the same again.")
    assert echo.annotations.read_only_hint
    assert echo.meta == {"example.org/shade": {"deep": [1, 2, {"deeper": None}]}}
    assert echo.input_schema["required"] == ["text"]
    colour = tools["seen_headers"].input_schema["properties"]["colour"]
    assert colour["x-mcp-header"] == "Colour"


async def test_tools_are_called_and_their_structured_results_are_exact(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        said = await client.call_tool("echo", {"text": 'æøå \u2028 \U0001f30a \\ " \x00'})
        assert said.structured_content == {"result": 'æøå \u2028 \U0001f30a \\ " \x00'}
        assert not said.is_error
        # No double holds these.
        added = await client.call_tool("add", {"a": 2**63 + 1, "b": -(10**30)})
        assert added.structured_content == {
            "total": 2**63 + 1 - 10**30,
            "terms": [2**63 + 1, -(10**30)],
        }


async def test_a_large_result_arrives_whole(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        result = await client.call_tool("big", {"kilobytes": 900})
    text = result.content[0].text
    assert text == "".join(f"{number:08d}" + "é" * 508 for number in range(900))


async def test_a_large_request_arrives_whole(endpoint, mode):
    text = "".join(f"{number:08d}" for number in range(25_000))
    async with connected(endpoint("sdk"), mode) as client:
        assert (await client.call_tool("echo", {"text": text})).structured_content == {
            "result": text
        }


async def test_a_tool_s_failure_is_a_result_that_says_so(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        failed = await client.call_tool("fail", {"reason": "no wind"})
        unknown = await client.call_tool("no_such_tool", {})
        misused = await client.call_tool("echo", {"words": 1})
    assert (failed.is_error, unknown.is_error, misused.is_error) == (True, True, True)
    assert failed.content[0].text.endswith("it failed: no wind")
    assert unknown.content[0].text == "Unknown tool: no_such_tool"
    assert "Field required" in misused.content[0].text


async def test_an_error_keeps_its_code_its_message_and_its_data(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        with pytest.raises(MCPError) as rejected:
            await client.call_tool("reject", {"reason": "no tide"})
        with pytest.raises(MCPError) as missing:
            await client.read_resource("note://nowhere")
        with pytest.raises(MCPError) as unprompted:
            await client.get_prompt("no_such_prompt")
    assert rejected.value.code == REJECTION_CODE
    assert rejected.value.message == "rejected: no tide"
    assert rejected.value.data == {"reason": "no tide", "retry": False}
    assert missing.value.code == mcp_types.INVALID_PARAMS
    assert missing.value.data == {"uri": "note://nowhere"}
    # The SDK's server says no more about a prompt that it does not know.
    assert unprompted.value.code == (0 if mode == LEGACY else mcp_types.INTERNAL_ERROR)


async def test_each_progress_event_arrives_when_it_is_sent(endpoint, mode):
    """The server sends an event only after the client has confirmed the one before it."""
    run = f"steps of {endpoint('sdk')} {mode}"
    seen: list[tuple[float, float, str]] = []
    send, arrived = trio.open_memory_channel(10)

    async def note(progress, total, message):
        seen.append((progress, total, message))
        await send.send(progress)

    async with connected(endpoint("sdk"), mode) as client, trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(
                await client.call_tool("count_up", {"run": run, "steps": 4}, progress_callback=note)
            )

        nursery.start_soon(call)
        for step in range(1, 5):
            assert await arrived.receive() == step
            assert not results
            await client.call_tool("release", {"run": run})
    assert seen == [(step, 4, f"step {step} of {run}") for step in range(1, 5)]
    assert results[0].content[0].text == f"{run} took 4 steps"


async def test_a_call_that_its_client_gives_up_is_cancelled_at_the_server(endpoint, mode):
    run = f"given up {endpoint('sdk')} {mode}"
    started = trio.Event()

    async def note(progress, total, message):
        started.set()

    async def outcome(client):
        return (await client.call_tool("outcome_of", {"run": run})).content[0].text

    async with connected(endpoint("sdk"), mode) as client:
        async with trio.open_nursery() as nursery:

            async def call():
                await client.call_tool("count_up", {"run": run, "steps": 1}, progress_callback=note)

            nursery.start_soon(call)
            await started.wait()
            assert await outcome(client) == "running"
            nursery.cancel_scope.cancel()
        while (found := await outcome(client)) == "running":
            pass
        assert found == "cancelled"


async def test_log_messages_arrive_with_the_call_that_wrote_them(endpoint, mode):
    lines = []

    async def note(message):
        lines.append((message.level, message.logger, message.data))

    async with connected(endpoint("sdk"), mode, logging_callback=note, log_level="info") as client:
        if mode == LEGACY:
            await client.set_logging_level("debug")
        result = await client.call_tool("talk", {"lines": 3})
    assert result.content[0].text == "said 3 lines"
    assert lines == [("info", "talk", {"line": number}) for number in range(3)]


async def test_a_tool_that_asks_its_user_gets_the_answer(endpoint, mode):
    """A request of the server's on the legacy wire, another round of the call on the modern one."""
    questions = []

    async def answer(context, params):
        questions.append(params.message)
        return mcp_types.ElicitResult(action="accept", content={"name": "Ada"})

    async with connected(endpoint("sdk"), mode, elicitation_callback=answer) as client:
        result = await client.call_tool("greet", {})
    assert questions == ["What is your name?"]
    assert result.content[0].text == "Hello Ada"


async def test_a_client_that_cannot_be_asked_is_told_what_it_lacks(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        with pytest.raises(MCPError) as refusal:
            await client.call_tool("greet", {})
    assert refusal.value.code == mcp_types.MISSING_REQUIRED_CLIENT_CAPABILITY
    assert refusal.value.data == {"requiredCapabilities": {"elicitation": {"form": {}}}}


async def test_resources_are_listed_and_read_as_text_and_as_bytes(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        listed = {resource.uri: resource for resource in (await client.list_resources()).resources}
        templates = (await client.list_resource_templates()).resource_templates
        note = await client.read_resource("note://static")
        pixel = await client.read_resource("image://pixel")
        about = await client.read_resource("note://about/high%20tides")
    assert set(listed) == {"note://static", "image://pixel"}
    assert listed["note://static"].annotations.audience == ["user"]
    assert [template.uri_template for template in templates] == ["note://about/{topic}"]
    assert note.contents[0].text == "The tide waits for no one.\n"
    assert base64.b64decode(pixel.contents[0].blob) == PIXEL
    assert about.contents[0].text == "# About high tides\n"


async def test_prompts_are_listed_got_and_completed(endpoint, mode):
    async with connected(endpoint("sdk"), mode) as client:
        listed = (await client.list_prompts()).prompts
        got = await client.get_prompt("summarise", {"topic": "tides", "length": "long"})
        topics = await client.complete(
            mcp_types.PromptReference(name="summarise"), {"name": "topic", "value": "ti"}
        )
        lengths = await client.complete(
            mcp_types.PromptReference(name="summarise"),
            {"name": "length", "value": "sh"},
            {"topic": "tides"},
        )
        uris = await client.complete(
            mcp_types.ResourceTemplateReference(uri="note://about/{topic}"),
            {"name": "topic", "value": "to"},
        )
    assert [(prompt.name, len(prompt.arguments)) for prompt in listed] == [("summarise", 2)]
    assert got.messages[0].content.text == "Write a long summary about tides."
    assert topics.completion.values == ["tides", "timber"]
    assert lengths.completion.values == ["short", "shorter"]
    assert uris.completion.values == ["towns"]


async def test_a_subscribed_resource_s_change_is_heard_on_the_legacy_event_stream(endpoint):
    uri = "note://static"
    heard = trio.Event()

    async def note(message):
        if isinstance(message, mcp_types.ResourceUpdatedNotification) and message.params.uri == uri:
            heard.set()

    async with connected(endpoint("sdk"), LEGACY, message_handler=note) as client:
        await client.subscribe_resource(uri)
        # The stream is opened behind the handshake; what is sent before that is lost.
        while not heard.is_set():
            await client.call_tool("touch", {"uri": uri})
            with trio.move_on_after(0.2):
                await heard.wait()
        await client.unsubscribe_resource(uri)


async def test_a_subscribed_resource_s_change_is_heard_on_a_modern_listen_stream(endpoint):
    uri = "note://static"
    async with connected(endpoint("sdk"), MODERN) as client:
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            assert subscription.honored.resource_subscriptions == [uri]
            await client.call_tool("touch", {"uri": uri})
            async for event in subscription:
                assert event == ResourceUpdated(uri=uri)
                break


async def test_many_calls_at_one_time_get_their_own_answers(endpoint, mode):
    answers = {}
    async with connected(endpoint("sdk"), mode) as client, trio.open_nursery() as nursery:

        async def call(number):
            result = await client.call_tool("add", {"a": number, "b": 1000})
            answers[number] = result.structured_content["total"]

        for number in range(32):
            nursery.start_soon(call, number)
    assert answers == {number: number + 1000 for number in range(32)}


async def test_the_server_sees_the_client_s_mcp_headers_and_no_credentials_through_the_gateway(
    endpoint, mode, via
):
    credentials = {"authorization": "Bearer of-the-client", "cookie": "a=b", "x-api-key": "key"}
    async with connected(endpoint("sdk"), mode, headers=credentials) as client:
        # The client learns from the list which arguments it has to put into headers.
        await client.list_tools()
        result = await client.call_tool("seen_headers", {"colour": "blå "})
    lines = result.content[0].text.split("\n")
    seen = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    mcp = {name: value for name, value in seen.items() if name.startswith("mcp-")}
    if mode == LEGACY:
        session = mcp.pop("mcp-session-id")
        assert session
        assert mcp == {"mcp-protocol-version": "2025-11-25"}
    else:
        encoded = base64.b64encode("blå ".encode()).decode()
        assert mcp == {
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "seen_headers",
            "mcp-param-colour": f"=?base64?{encoded}?=",
        }
    assert seen["content-type"] == "application/json"
    # Straight to the server they do arrive, so their absence is the gateway's doing.
    assert set(credentials) & set(seen) == (set(credentials) if via == "direct" else set())


async def test_every_answer_is_the_same_through_the_gateway(both_ways, mode):
    direct, gateway = both_ways
    async with connected(direct("sdk"), mode) as one, connected(gateway("sdk"), mode) as other:
        for client in (one, other):
            await client.list_tools()
        for name, ask in QUESTIONS.items():
            assert (name, await answer_to(ask, other)) == (name, await answer_to(ask, one))


QUESTIONS = {
    "tools": lambda c: c.list_tools(),
    "echo": lambda c: c.call_tool("echo", {"text": "same"}),
    "add": lambda c: c.call_tool("add", {"a": 2**53 + 1, "b": 0}),
    "big": lambda c: c.call_tool("big", {"kilobytes": 64}),
    "fail": lambda c: c.call_tool("fail", {"reason": "again"}),
    "reject": lambda c: c.call_tool("reject", {"reason": "again"}),
    "unknown tool": lambda c: c.call_tool("no_such_tool", {}),
    "wrong arguments": lambda c: c.call_tool("add", {"a": "one"}),
    "resources": lambda c: c.list_resources(),
    "templates": lambda c: c.list_resource_templates(),
    "text": lambda c: c.read_resource("note://static"),
    "bytes": lambda c: c.read_resource("image://pixel"),
    "template": lambda c: c.read_resource("note://about/x"),
    "unknown resource": lambda c: c.read_resource("note://nowhere"),
    "prompts": lambda c: c.list_prompts(),
    "prompt": lambda c: c.get_prompt("summarise", {"topic": "x"}),
    "unknown prompt": lambda c: c.get_prompt("no_such_prompt"),
    "completion": lambda c: c.complete(
        mcp_types.PromptReference(name="summarise"), {"name": "topic", "value": "t"}
    ),
    "no completion": lambda c: c.complete(
        mcp_types.PromptReference(name="summarise"), {"name": "other", "value": ""}
    ),
}


async def answer_to(ask, client):
    try:
        return plain(await ask(client))
    except MCPError as error:
        return ("error", error.code, error.message, error.data)
