"""A quick MCP server for the load tests: ``python fast_upstream.py PORT``.

It speaks just enough HTTP/1.1 and JSON-RPC to be asked through the gateway, and answers
every call with its own id and its own arguments, so that an answer given to the wrong
request shows. The arguments of a call say how it is to be answered:

    delay_s     after so many seconds
    stall       never
    blocks      followed by so many blocks of 64 kB of blanks

``GET /`` tells what it has seen: calls taken, and calls being answered now.
"""

import json
import sys

import trio

BLANKS = b" " * 65536
TOOLS = [{"name": "echo", "inputSchema": {"type": "object"}}]


class Upstream:
    def __init__(self):
        self.taken = 0
        self.answering = 0

    async def serve(self, stream):
        try:
            async with stream:
                await self._requests(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _requests(self, stream):
        data = b""
        while True:
            while (end := data.find(b"\r\n\r\n")) < 0:
                more = await stream.receive_some(65536)
                if not more:
                    return
                data += more
            head = data[:end].lower()
            data = data[end + 4 :]
            mark = head.find(b"\r\ncontent-length:")
            length = int(head[mark + 17 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            while len(data) < length:
                data += await stream.receive_some(65536)
            body, data = data[:length], data[length:]
            if head.startswith(b"get "):
                await respond(stream, {"taken": self.taken, "answering": self.answering})
            else:
                self.taken += 1
                self.answering += 1
                try:
                    await answer(stream, json.loads(body))
                finally:
                    self.answering -= 1


async def answer(stream, message):
    arguments = message.get("params", {}).get("arguments", {})
    if arguments.get("stall"):
        await trio.sleep_forever()
    if "delay_s" in arguments:
        await trio.sleep(arguments["delay_s"])
    if message["method"] == "tools/list":
        result = {"tools": TOOLS}
    else:
        result = {"content": [{"type": "text", "text": json.dumps(arguments)}]}
    await respond(
        stream,
        {"jsonrpc": "2.0", "id": message["id"], "result": result},
        blocks=arguments.get("blocks", 0),
    )


async def respond(stream, value, blocks=0):
    # A large answer ends in blanks, of which one block serves all.
    body = json.dumps(value).encode()
    await stream.send_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body) + blocks * len(BLANKS), body)
    )
    for _ in range(blocks):
        await stream.send_all(BLANKS)


if __name__ == "__main__":
    trio.run(
        lambda: trio.serve_tcp(Upstream().serve, int(sys.argv[1]), host="127.0.0.1", backlog=1024)
    )
