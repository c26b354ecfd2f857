"""The official Python client reaches the reference server as well through the gateway.

``@modelcontextprotocol/server-everything`` is written in TypeScript by the authors of
the protocol. It speaks the legacy era alone, numbers its events for resumption, keeps
a session for each client and asks the client back.
"""

from __future__ import annotations

import json
import re

import mcp_types
import pytest
import trio
from mcp.shared.exceptions import MCPError
from official_client import LEGACY, MODERN, PROBING, connected, plain

DOCUMENT = "demo://resource/static/document/architecture.md"
CLOCK = re.compile(r"\d{1,2}:\d\d:\d\d [AP]M")

STEADY = {
    "tools": lambda c: c.list_tools(),
    "echo": lambda c: c.call_tool("echo", {"message": "same"}),
    "sum": lambda c: c.call_tool("get-sum", {"a": 0.1, "b": 0.2}),
    "structure": lambda c: c.call_tool("get-structured-content", {"location": "Chicago"}),
    "picture": lambda c: c.call_tool("get-tiny-image", {}),
    "annotations": lambda c: c.call_tool(
        "get-annotated-message", {"messageType": "error", "includeImage": True}
    ),
    "links": lambda c: c.call_tool("get-resource-links", {"count": 4}),
    "reference": lambda c: c.call_tool(
        "get-resource-reference", {"resourceType": "Text", "resourceId": 3}
    ),
    "unknown tool": lambda c: c.call_tool("no-such-tool", {}),
    "wrong arguments": lambda c: c.call_tool("echo", {"message": 1}),
    "resources": lambda c: c.list_resources(),
    "templates": lambda c: c.list_resource_templates(),
    "document": lambda c: c.read_resource(DOCUMENT),
    "template": lambda c: c.read_resource("demo://resource/dynamic/text/7"),
    "unknown resource": lambda c: c.read_resource("demo://nowhere"),
    "prompts": lambda c: c.list_prompts(),
    "plain prompt": lambda c: c.get_prompt("simple-prompt"),
    "prompt": lambda c: c.get_prompt("args-prompt", {"city": "Oslo", "state": "Viken"}),
    "unknown prompt": lambda c: c.get_prompt("no-such-prompt"),
    "completion": lambda c: c.complete(
        mcp_types.PromptReference(name="completable-prompt"),
        {"name": "name", "value": ""},
        {"department": "Sales"},
    ),
    "completed template": lambda c: c.complete(
        mcp_types.ResourceTemplateReference(uri="demo://resource/dynamic/text/{resourceId}"),
        {"name": "resourceId", "value": "12"},
    ),
}


async def test_a_legacy_connection_is_opened_and_its_session_ended(endpoint, everything_process):
    process, _ = everything_process
    ended = process.stdout.count("Received session termination request")
    async with connected(endpoint("everything"), LEGACY) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info.name == "mcp-servers/everything"
        assert client.server_capabilities.tasks.cancel is not None
    assert process.stdout.count("Received session termination request") == ended + 1


async def test_a_client_that_probes_for_the_modern_era_falls_back_to_the_handshake(endpoint):
    async with connected(endpoint("everything"), PROBING) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info.name == "mcp-servers/everything"


async def test_a_client_that_insists_on_the_modern_era_is_refused(endpoint):
    async with connected(endpoint("everything"), MODERN) as client:
        with pytest.raises(MCPError):
            await client.list_tools()


async def test_tools_resources_prompts_and_completion_are_served(endpoint):
    async with connected(endpoint("everything"), LEGACY) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        structure = await STEADY["structure"](client)
        picture = await STEADY["picture"](client)
        document = await STEADY["document"](client)
        prompt = await STEADY["prompt"](client)
        completion = await STEADY["completion"](client)
    assert {"echo", "get-sum", "trigger-long-running-operation"} <= tools
    assert structure.structured_content["temperature"] == 36
    assert [block.type for block in picture.content][:2] == ["text", "image"]
    assert document.contents[0].text.startswith("# Everything Server")
    assert prompt.messages[0].content.text == "What's weather in Oslo, Viken?"
    assert completion.completion.values == ["David", "Eve", "Frank"]


async def test_an_error_keeps_its_code_and_its_message(endpoint):
    async with connected(endpoint("everything"), LEGACY) as client:
        with pytest.raises(MCPError) as missing:
            await client.read_resource("demo://nowhere")
        unknown = await client.call_tool("no-such-tool", {})
    assert missing.value.code == mcp_types.INVALID_PARAMS
    assert "demo://nowhere not found" in missing.value.message
    assert unknown.is_error
    assert "no-such-tool not found" in unknown.content[0].text


async def test_progress_arrives_long_before_the_operation_ends(endpoint):
    """The operation takes a minute; a few of its events must be here within seconds."""
    send, arrived = trio.open_memory_channel(200)

    async def note(progress, total, message):
        send.send_nowait((progress, total))

    async with connected(endpoint("everything"), LEGACY) as client, trio.open_nursery() as nursery:

        async def call():
            await client.call_tool(
                "trigger-long-running-operation",
                {"duration": 60, "steps": 120},
                progress_callback=note,
            )
            raise AssertionError("the operation ended before its first events were seen")

        nursery.start_soon(call)
        with trio.fail_after(20):
            assert [await arrived.receive() for _ in range(3)] == [(1, 120), (2, 120), (3, 120)]
        nursery.cancel_scope.cancel()


async def test_the_server_s_own_requests_reach_the_client_and_its_answers_the_server(endpoint):
    asked = []

    async def sample(context, params):
        asked.append(params.messages[0].content.text)
        return mcp_types.CreateMessageResult(
            role="assistant",
            content=mcp_types.TextContent(type="text", text="a sampled text"),
            model="none",
        )

    async def elicit(context, params):
        asked.append(params.message)
        return mcp_types.ElicitResult(action="decline")

    async with connected(
        endpoint("everything"), LEGACY, sampling_callback=sample, elicitation_callback=elicit
    ) as client:
        sampled = await client.call_tool(
            "trigger-sampling-request", {"prompt": "tides", "maxTokens": 10}
        )
        declined = await client.call_tool("trigger-elicitation-request", {})
    assert len(asked) == 2
    assert "tides" in asked[0]
    assert "a sampled text" in sampled.content[0].text
    assert '"action": "decline"' in declined.content[-1].text


async def test_a_subscribed_resource_s_changes_are_heard(endpoint):
    heard = trio.Event()

    async def note(message):
        if isinstance(message, mcp_types.ResourceUpdatedNotification):
            assert message.params.uri == DOCUMENT
            heard.set()

    async with connected(endpoint("everything"), LEGACY, message_handler=note) as client:
        await client.subscribe_resource(DOCUMENT)
        # Each toggle that turns the updates on sends one at once; those that come
        # before the client's event stream is open are lost.
        while not heard.is_set():
            await client.call_tool("toggle-subscriber-updates", {})
            with trio.move_on_after(0.2):
                await heard.wait()


async def test_every_answer_is_the_same_through_the_gateway(both_ways):
    direct, gateway = both_ways
    async with (
        connected(direct("everything"), LEGACY) as one,
        connected(gateway("everything"), LEGACY) as other,
    ):
        for name, ask in STEADY.items():
            assert (name, await answer_to(ask, other)) == (name, await answer_to(ask, one))


async def answer_to(ask, client):
    """What the server says, but for the time of day that it puts into some texts."""
    try:
        answer = plain(await ask(client))
    except MCPError as error:
        answer = ["error", error.code, error.message, error.data]
    return json.loads(CLOCK.sub("(now)", json.dumps(answer)))
