"""A small MCP server on one epoll loop: ``python mcp_server.py PORT``, or ``stdio``.

It answers what gateways ask on their own account, and calls with their own ids, for
peers that take a session apart and put it together again. The standard library alone.
"""

import json
import select
import socket
import sys

TOOLS = [
    {
        "name": "echo",
        "description": "Give back what it is given.",
        "inputSchema": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        },
    },
    *(
        {
            "name": f"tool_{number}",
            "description": f"Tool number {number}, which is there to be listed.",
            "inputSchema": {"type": "object", "properties": {"x": {"type": "integer"}}},
        }
        for number in range(19)
    ),
]
VERSION = "2025-06-18"
VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
INFO = {"name": "bench", "version": "1"}
TEXT = "x" * 60


def result_of(message):
    method, params = message["method"], message.get("params") or {}
    modern = "io.modelcontextprotocol/protocolVersion" in (params.get("_meta") or {})
    extra = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
    if method == "initialize":
        asked = params.get("protocolVersion")
        return {
            "protocolVersion": asked if asked in VERSIONS else VERSION,
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": INFO,
        }
    if method == "tools/list":
        return {"tools": TOOLS, **extra}
    if method == "tools/call":
        return {
            "content": [{"type": "text", "text": TEXT}],
            "isError": False,
            **({"resultType": "complete"} if modern else {}),
        }
    if method == "prompts/list":
        return {"prompts": []}
    if method == "resources/list":
        return {"resources": []}
    if method == "resources/templates/list":
        return {"resourceTemplates": []}
    return {}


def text_of(message):
    """The answer to a request; None for what needs none."""
    if "id" not in message or "method" not in message:
        return None
    if message["method"] == "server/discover":
        value = {"error": {"code": -32601, "message": "no such method"}}
    else:
        value = {"result": result_of(message)}
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], **value}).encode()


def answer(method, body):
    """The bytes of the answer to one HTTP request."""
    if method != b"POST":
        return b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
    text = text_of(json.loads(body))
    if text is None:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(text),
        text,
    )


def taken(data):
    """One whole request at the start of ``data``: method, body, what is left; or None."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    mark = head.find(b"\r\ncontent-length:")
    if mark >= 0:
        length = int(head[mark + 17 :].split(b"\r\n", 1)[0])
        whole = end + 4 + length
        if len(data) < whole:
            return None
        return bytes(data[: data.index(b" ")]), bytes(data[end + 4 : whole]), data[whole:]
    if b"\r\ntransfer-encoding:" not in head:
        return bytes(data[: data.index(b" ")]), b"", data[end + 4 :]
    body, at = b"", end + 4
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        if len(data) < line + 2 + size + 2:
            return None
        body += data[line + 2 : line + 2 + size]
        at = line + 2 + size + 2
        if size == 0:
            return bytes(data[: data.index(b" ")]), bytes(body), data[at:]


def serve(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients = {}
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[sock.fileno()] = [sock, b""]
                poll.register(sock, select.EPOLLIN)
                continue
            client = clients[number]
            sock = client[0]
            try:
                data = sock.recv(262144)
                client[1] += data
                while data and (request := taken(client[1])):
                    method, body, client[1] = request
                    sock.sendall(answer(method, body))
            except (OSError, ValueError, KeyError):
                data = b""
            if not data:
                poll.unregister(sock)
                sock.close()
                del clients[number]


def serve_stdio():
    for line in sys.stdin.buffer:
        text = text_of(json.loads(line))
        if text is not None:
            sys.stdout.buffer.write(text + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        if sys.argv[1] == "stdio":
            serve_stdio()
        else:
            serve(int(sys.argv[1]))
    except KeyboardInterrupt:
        pass
