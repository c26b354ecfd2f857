"""HTTP/2 is treated as HTTP/1.1 is, and one bad connection or stream harms no other."""

import contextlib
import json

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
import trio
import trio.testing
from support.client import Client, call, message
from support.inprocess import running
from support.recorder import plain_mcp, result

from mcpx.errors import RemoteProtocolError
from mcpx.transport import http2
from mcpx.transport.connection import Bounds
from mcpx.transport.http2 import MAX_GIVEN_UP, MAX_STREAMS, read_head


class Answer:
    def __init__(self):
        self.headers = None
        self.body = b""
        self.ended = False
        self.reset = None
        self.interim = []

    @property
    def status(self):
        return int(dict(self.headers)[b":status"])

    @property
    def json(self):
        return json.loads(self.body)


class H2Client:
    """A client that sends the frames that a test tells it to."""

    def __init__(self, stream):
        self.stream = stream
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.answers = {}
        self.settings = None
        self.goaway = None
        self.closed = False

    async def flush(self):
        await self.stream.send_all(self.h2.data_to_send())

    def begin(self, body=None, path="/mcp/demo", headers=(), method="POST", end=True):
        stream = self.h2.get_next_available_stream_id()
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        usual = {
            ":method": method,
            ":scheme": "https",
            ":authority": "localhost",
            ":path": path,
            "content-type": "application/json",
        }
        usual.update(headers)
        pairs = [(name, value) for name, value in usual.items() if value is not None]
        self.h2.send_headers(stream, pairs, end_stream=end and not body)
        self.answers[stream] = Answer()
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    async def request(self, body=None, **kwargs):
        stream = self.begin(body, **kwargs)
        return await self.answer(stream)

    async def answer(self, stream):
        answer = self.answers[stream]
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until(self, satisfied):
        with trio.fail_after(10):
            if not self.ended:
                await self.flush()
            while not satisfied() and not self.ended:
                await self.pump()

    @property
    def ended(self):
        """Whether the gateway has said that nothing more will come, or has closed."""
        return self.closed or self.goaway is not None

    async def pump(self):
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._note(event)
        with contextlib.suppress(trio.BrokenResourceError):
            await self.flush()

    def _note(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings = event.changed_settings
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
        elif answer is None:
            return
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.ResponseReceived):
            answer.headers = event.headers
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code


@pytest.fixture
def serving(tmp_path, certificate):
    """``serving(config)`` is a gateway with HTTP/2."""

    def start(config=None):
        both = {"tls": certificate.config, "http2": True, **(config or {})}
        return running(tmp_path, both)

    return start


@pytest.fixture
async def connect(certificate):
    """``connect(gateway)`` is an HTTP/2 client, or with another protocol a bare stream."""
    opened = []

    async def connected(gateway, *alpn):
        stream = trio.SSLStream(
            await trio.open_tcp_stream(gateway.host, gateway.port),
            certificate.client(*(alpn or ("h2",))),
            server_hostname="localhost",
            https_compatible=True,
        )
        opened.append(stream)
        await stream.do_handshake()
        if alpn:
            return stream
        assert stream.selected_alpn_protocol() == "h2"
        return H2Client(stream)

    yield connected
    for stream in opened:
        await trio.aclose_forcefully(stream)


async def test_a_common_client_calls_a_tool_and_is_denied_another(serving, certificate):
    config = {"servers": [{"name": "demo", "policy": {"deny_tools": ["dangerous_delete"]}}]}
    async with serving(config) as gateway:
        url = f"https://localhost:{gateway.port}/mcp/demo"
        async with httpx.AsyncClient(http2=True, verify=certificate.client()) as client:
            answer = await client.post(url, json=call("echo", {"text": "hello"}))
            assert answer.http_version == "HTTP/2"
            assert answer.status_code == 200
            assert "hello" in answer.json()["result"]["content"][0]["text"]
            denied = await client.post(url, json=call("dangerous_delete", id=7))
            assert denied.status_code == 403
            assert (denied.json()["id"], denied.json()["error"]["code"]) == (7, -32600)
            listed = await client.post(url, json=message("tools/list"))
            assert [tool["name"] for tool in listed.json()["result"]["tools"]] == [
                "echo",
                "read_file",
            ]
        assert [seen.message["method"] for seen in gateway.upstream.seen] == [
            "tools/call",
            "tools/list",
        ]
        assert gateway.upstream.seen[0].header("x-forwarded-proto") == "https"
        assert gateway.upstream.seen[0].header("x-forwarded-host") == f"localhost:{gateway.port}"
        lines = await gateway.audit(3)
        assert [line["status"] for line in lines] == [200, 403, 200]


async def test_http_1_is_served_on_the_same_port(serving, connect):
    async with serving() as gateway:
        stream = await connect(gateway, "http/1.1")
        async with Client(stream, "localhost") as client:
            for _ in range(2):
                assert (await client.post(call("echo"))).status == 200


async def test_events_arrive_one_by_one(serving, connect):
    steps = [trio.Event() for _ in range(3)]

    async def answer(seen, reply):
        await reply.start_events()
        for number, step in enumerate(steps):
            await step.wait()
            await reply.event({"jsonrpc": "2.0", "method": "notifications/message",
                               "params": {"n": number}})  # fmt: skip
        await reply.event(result(seen, {"content": []}))
        await reply.end()

    async with serving() as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        stream = client.begin(call("slow"))
        got = client.answers[stream]
        for number, step in enumerate(steps):
            step.set()
            await client.until(lambda number=number: f'"n": {number}'.encode() in got.body)
        await client.answer(stream)
        assert got.ended
        assert b'"content"' in got.body
        assert (await gateway.audit(1))[0]["outcome"] == "ok"


async def test_many_streams_are_served_at_once_on_one_connection(serving, connect):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    async with serving() as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        streams = [client.begin(call("echo", id=number)) for number in range(60)]
        await client.flush()
        with trio.fail_after(5):
            while len(gateway.upstream.seen) < 60:
                await trio.sleep(0.01)
        release.set()
        for number, stream in enumerate(streams):
            assert (await client.answer(stream)).json["id"] == number


async def test_a_body_past_the_bound_is_a_413_and_the_connection_lives_on(serving, connect):
    async with serving({"limits": {"max_body_bytes": 10_000}}) as gateway:
        client = await connect(gateway)
        declared = await client.request(b"", end=False, headers={"content-length": "20000"})
        assert declared.status == 413
        stream = client.begin(b"", end=False)
        for _ in range(15):
            client.h2.send_data(stream, b" " * 1000)
        answer = await client.answer(stream)
        assert answer.status == 413
        assert answer.json["error"]["code"] == -32600
        # What is still under way for a stream that was answered does no harm.
        with contextlib.suppress(h2.exceptions.ProtocolError):
            client.h2.send_data(stream, b" " * 1000)
        assert (await client.request(call("echo"))).status == 200
        assert len(gateway.upstream.seen) == 1
        assert [line["status"] for line in await gateway.audit(3)] == [413, 413, 200]


async def test_data_that_follows_an_early_answer_does_not_end_the_connection(serving, connect):
    config = {"auth": {"enabled": True, "type": "bearer", "token": "t" * 20}}
    async with serving(config) as gateway:
        client = await connect(gateway)
        stream = client.begin(b" " * 10, end=False, headers={"content-length": "1000000"})
        # Sent without waiting for the answer, as a client does.
        for _ in range(4):
            client.h2.send_data(stream, b" " * 10_000)
        refused = await client.answer(stream)
        assert refused.status == 401
        assert dict(refused.headers)[b"www-authenticate"].startswith(b"Bearer")
        answer = await client.request(call("echo"), headers={"authorization": "Bearer " + "t" * 20})
        assert answer.status == 200


async def test_a_large_body_and_a_large_answer_pass_whole(serving, connect):
    async with serving() as gateway:
        client = await connect(gateway)
        text = "y" * 500_000
        body = json.dumps(call("echo", {"text": text})).encode()
        stream = client.begin(b"", end=False)
        while body:
            size = min(client.h2.local_flow_control_window(stream), 16384, len(body))
            if not size:
                await client.flush()
                await client.pump()
                continue
            client.h2.send_data(stream, body[:size], end_stream=size == len(body))
            body = body[size:]
        answer = await client.answer(stream)
        assert text in answer.json["result"]["content"][0]["text"]


async def test_a_client_that_asks_before_it_sends_is_told_to_go_on(serving, connect):
    async with serving() as gateway:
        client = await connect(gateway)
        body = json.dumps(call("echo")).encode()
        headers = {"expect": "100-continue", "content-length": str(len(body))}
        stream = client.begin(b"", end=False, headers=headers)
        await client.until(lambda: client.answers[stream].interim)
        assert client.answers[stream].interim == [b"100"]
        client.h2.send_data(stream, body, end_stream=True)
        assert (await client.answer(stream)).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({":path": "/mcp/demo x"}, 400),
        ({":path": "*"}, 400),
        ({":path": "http://other/mcp/demo"}, 400),
        ({":path": "/mcp/demo\xe4".encode("latin-1")}, 400),
        ({":method": "BREW"}, 501),
        ({":method": "TRACE"}, 405),
        ({":method": "PUT"}, 405),
        ({"content-length": "1, 1"}, None),
        ({"expect": "200-ok"}, 417),
        ({"x-long": "a" * 70_000}, None),
        ({f"x-{number}": "a" for number in range(500)}, 431),
        ({"content-type": "text/plain"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"mcp-method": "ping"}, 400),
        ({":path": "/mcp/other"}, 404),
        ({":authority": "rebound.example"}, 403),
    ],
)
async def test_what_is_refused_there_is_refused_here(serving, connect, headers, status):
    async with serving() as gateway:
        client = await connect(gateway)
        with contextlib.suppress(trio.BrokenResourceError):
            answer = await client.request(call("echo"), headers=headers)
        if status is None:
            # Not HTTP/2, or past what may be said at all: the connection ends.
            assert client.ended or answer.reset is not None
        else:
            assert answer.status == status
        assert gateway.upstream.seen == []
        other = await connect(gateway)
        assert (await other.request(call("echo"))).status == 200


async def test_a_field_that_stands_twice_is_refused(serving, connect):
    async with serving() as gateway:
        client = await connect(gateway)
        stream = client.h2.get_next_available_stream_id()
        client.answers[stream] = Answer()
        head = [(":method", "POST"), (":scheme", "https"), (":authority", "localhost"),
                (":path", "/mcp/demo"), ("content-type", "application/json"),
                ("origin", "https://a"), ("origin", "https://b")]  # fmt: skip
        client.h2.send_headers(stream, head)
        client.h2.send_data(stream, json.dumps(call("echo")).encode(), end_stream=True)
        answer = await client.answer(stream)
        assert answer.status == 400
        assert "origin" in answer.json["error"]["message"]


async def test_head_has_no_body_and_pages_are_served(serving, connect):
    async with serving() as gateway:
        client = await connect(gateway)
        answer = await client.request(method="HEAD", path="/health/live")
        assert (answer.status, answer.body) == (200, b"")
        assert dict(answer.headers)[b"content-length"] == b"18"
        assert (await client.request(method="GET", path="/health/live")).json == {"status": "alive"}


async def test_names_of_headers_are_in_lower_case_whoever_wrote_them(serving, connect):
    cors = {"enabled": True, "allowed_origins": ["https://a.example"]}
    async with serving({"cors": cors}) as gateway:
        client = await connect(gateway)
        answer = await client.request(call("echo"), headers={"origin": "https://a.example"})
        assert answer.status == 200
        assert dict(answer.headers)[b"access-control-allow-origin"] == b"https://a.example"
        assert all(name == name.lower() for name, _ in answer.headers)


async def test_a_stream_that_a_modern_client_gives_up_is_cancelled(serving, connect):
    async def answer(seen, reply):
        await trio.sleep_forever()

    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    async with serving() as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        arrived = gateway.upstream.arrived
        stream = client.begin(message("tools/list", meta))
        await client.flush()
        await arrived.wait()
        client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        await client.flush()
        assert (await gateway.audit(1))[0]["outcome"] == "client_gone"
        assert gateway.app.state.pools["demo"].in_use == 0
        gateway.upstream.answer = plain_mcp
        assert (await client.request(call("echo"))).status == 200


async def test_an_event_stream_ends_upstream_when_its_client_leaves(serving, connect):
    async def answer(seen, reply):
        await reply.start_events()
        await reply.event(b": open\n\n", raw=True)
        await trio.sleep_forever()

    async with serving() as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        stream = client.begin(method="GET")
        await client.until(lambda: client.answers[stream].body)
        assert gateway.app.state.pools["demo"].in_use == 1
        await trio.aclose_forcefully(client.stream)
        assert (await gateway.audit(1))[0]["outcome"] == "client_gone"
        assert gateway.app.state.pools["demo"].in_use == 0


async def test_an_answer_that_is_cut_resets_its_stream_alone(serving, connect):
    async def answer(seen, reply):
        await reply.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        b"Content-Length: 100000\r\n\r\n" + b"x" * 1000)  # fmt: skip
        await trio.sleep(0.05)
        await reply.hang_up()

    async with serving() as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        cut = await client.request(call("echo"))
        assert cut.reset is not None
        assert not cut.ended
        gateway.upstream.answer = plain_mcp
        assert (await client.request(call("echo"))).status == 200


async def test_a_slow_server_and_a_slow_body_are_told_with_their_status(serving, connect):
    async def answer(seen, reply):
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "timeouts": {"head": "200ms"}}],
              "timeouts": {"read": "200ms"}}  # fmt: skip
    async with serving(config) as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        slow = client.begin(call("echo", id="s"))
        late = client.begin(b'{"jsonrpc"', end=False)
        assert (await client.answer(slow)).status == 504
        assert client.answers[slow].json["id"] == "s"
        assert (await client.answer(late)).status == 408
        assert sorted(line["status"] for line in await gateway.audit(2)) == [408, 504]


async def test_the_settings_say_what_the_bounds_are(serving, connect):
    async with serving({"limits": {"max_header_bytes": 20_000}}) as gateway:
        client = await connect(gateway)
        await client.until(lambda: client.settings)
        told = {code: changed.new_value for code, changed in client.settings.items()}
        codes = h2.settings.SettingCodes
        assert told[codes.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
        assert told[codes.MAX_HEADER_LIST_SIZE] == 20_000
        with contextlib.suppress(trio.BrokenResourceError):
            await client.request(call("echo"), headers={"x-long": "a" * 21_000})
        assert client.ended
        assert gateway.upstream.seen == []


async def test_more_streams_than_the_bound_end_the_connection_and_no_other(serving, connect):
    async def answer(seen, reply):
        await trio.sleep_forever()

    async with serving() as gateway:
        other = await connect(gateway)
        assert (await other.request(call("echo"))).status == 200
        gateway.upstream.answer = answer
        client = await connect(gateway)
        await client.until(lambda: client.settings)
        # A client that does not keep to what it was told.
        client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 10**6
        client.h2.remote_settings.acknowledge()
        for number in range(MAX_STREAMS + 1):
            client.begin(call("echo", id=number))
        await client.until(lambda: client.goaway is not None)
        assert client.goaway == h2.errors.ErrorCodes.PROTOCOL_ERROR
        assert len(gateway.upstream.seen) <= MAX_STREAMS
        gateway.upstream.answer = plain_mcp
        assert (await other.request(call("echo"))).status == 200


async def test_streams_that_are_given_up_still_count_until_they_have_ended(serving, connect):
    # A legacy call goes on when its client leaves, so a reset makes no room.
    async def answer(seen, reply):
        await trio.sleep_forever()

    config = {"servers": [{"name": "demo", "max_connections": 300}]}
    async with serving(config) as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        for number in range(MAX_STREAMS):
            client.begin(call("echo", id=number))
        await client.flush()
        with trio.fail_after(5):
            while len(gateway.upstream.seen) < MAX_STREAMS:
                await trio.sleep(0.01)
        for stream in list(client.answers):
            client.h2.reset_stream(stream)
        refused = await client.request(call("echo"))
        assert refused.reset == h2.errors.ErrorCodes.REFUSED_STREAM
        assert len(gateway.upstream.seen) == MAX_STREAMS


async def test_opening_and_resetting_without_end_ends_the_connection(serving, connect):
    async with serving() as gateway:
        client = await connect(gateway)
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(MAX_GIVEN_UP + 10):
                stream = client.begin(b"", end=False)
                client.h2.reset_stream(stream)
            await client.until(lambda: client.goaway is not None)
        assert client.goaway == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
        assert gateway.upstream.seen == []
        assert (await (await connect(gateway)).request(call("echo"))).status == 200


async def test_who_makes_us_answer_and_reads_nothing_is_held_up_and_cut(serving, connect):
    async with serving({"timeouts": {"write": "600ms"}}) as gateway:
        client = await connect(gateway)
        await client.flush()
        ping = client.h2
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            while True:
                for _ in range(1000):
                    ping.ping(b"\0" * 8)
                await client.flush()
        with trio.fail_after(5):
            while gateway.app._listener.connections:
                await trio.sleep(0.02)


async def test_who_takes_nothing_of_an_answer_is_cut(serving, connect):
    async def answer(seen, reply):
        await reply.json(b'{"x":"' + b"y" * 1_000_000 + b'"}')

    async with serving({"timeouts": {"write": "300ms"}}) as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        stream = client.begin(call("echo"))
        await client.flush()
        # Its window is full after 64 KiB, and it gives none back.
        assert (await gateway.audit(1))[0]["outcome"] == "client_stalled"
        got = client.answers[stream]
        await client.until(lambda: got.reset is not None)
        assert len(got.body) < 1_000_000


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
NOISE = {
    "zeros": b"\0" * 100,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a frame of 16 MiB": PREFACE + SETTINGS + b"\xff" * 150_000,
    "a head that can't be decoded": PREFACE + SETTINGS + b"\0\0\1\1\5\0\0\0\1\xff",
    "a body without a head": PREFACE + SETTINGS + b"\0\0\5\0\0\0\0\0\1hello",
    "a head without an end": PREFACE + SETTINGS + b"\0\0\0\1\0\0\0\0\1" + b"\0\0\0\x09\0\0\0\0\1" * 100,
}  # fmt: skip


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
async def test_noise_ends_its_own_connection_alone(serving, connect, noise):
    async with serving() as gateway:
        stream = await connect(gateway, "h2")
        with trio.fail_after(5):
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(noise)
                received = b""
                # Something is said about it, and then nothing more is taken.
                while not any(kind == 7 for kind, _, _ in frames_in(received)):
                    received += await stream.receive_some(65536)
        assert (await (await connect(gateway)).request(call("echo"))).status == 200


async def test_a_connection_without_a_stream_is_ended_with_a_goodbye(serving, connect):
    async with serving({"timeouts": {"keep_alive": "300ms"}}) as gateway:
        client = await connect(gateway)
        await client.until(lambda: client.ended)
        assert client.goaway == h2.errors.ErrorCodes.NO_ERROR


async def test_a_reload_changes_policy_and_certificate_and_keeps_connections(
    serving, connect, tmp_path, certificate
):
    async with serving() as gateway:
        client = await connect(gateway)
        assert (await client.request(call("echo"))).status == 200
        denied = {"servers": [{"name": "demo", "policy": {"deny_tools": ["echo"]}}]}
        config = {"tls": certificate.config, "http2": True, **denied}
        assert await gateway.reload(config)
        assert (await client.request(call("echo"))).status == 403
        # What the listener speaks is settled at its start.
        assert await gateway.reload({**config, "http2": False})
        assert (await (await connect(gateway)).request(call("echo"))).status == 403


async def test_stopping_lets_open_streams_end_and_takes_no_new_ones(serving, connect):
    release = trio.Event()

    async def answer(seen, reply):
        await release.wait()
        await plain_mcp(seen, reply)

    async with serving() as gateway:
        gateway.upstream.answer = answer
        client, idle = await connect(gateway), await connect(gateway)
        await idle.until(lambda: idle.settings)
        arrived = gateway.upstream.arrived
        stream = client.begin(call("echo", id=1))
        await client.flush()
        await arrived.wait()
        gateway.app.stop()
        await idle.until(lambda: idle.ended)
        assert idle.goaway == h2.errors.ErrorCodes.NO_ERROR
        release.set()
        # h2's client takes a goodbye for the end, so its frames are read by hand.
        received = bytearray()
        with trio.fail_after(5):
            while data := await client.stream.receive_some(65536):
                received += data
        frames = list(frames_in(bytes(received)))
        assert (7, 0) in [(kind, at) for kind, at, _ in frames]
        bodies = b"".join(body for kind, at, body in frames if kind == 0 and at == stream)
        assert json.loads(bodies)["id"] == 1


async def test_what_the_time_to_drain_cuts_is_told_so(serving, connect):
    async def answer(seen, reply):
        await trio.sleep_forever()

    async with serving({"timeouts": {"drain": "200ms"}}) as gateway:
        gateway.upstream.answer = answer
        client = await connect(gateway)
        arrived = gateway.upstream.arrived
        client.begin(call("echo", id=1))
        await client.flush()
        await arrived.wait()
        gateway.app.stop()
        received = bytearray()
        with trio.fail_after(5):
            while data := await client.stream.receive_some(65536):
                received += data
        bodies = b"".join(body for kind, _, body in frames_in(bytes(received)) if kind == 0)
        assert json.loads(bodies)["error"]["data"]["code"] == "overloaded"


def frames_in(data):
    """(kind, stream, payload) of each frame."""
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        yield data[3], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
        data = data[9 + length :]


async def test_a_fault_of_the_gateway_ends_one_connection_and_is_logged(
    serving, connect, monkeypatch, caplog
):
    async with serving() as gateway:
        other = await connect(gateway)
        assert (await other.request(call("echo"))).status == 200

        def fail(*_):
            raise KeyError("a bug")

        with monkeypatch.context() as patched:
            patched.setattr(http2, "read_head", fail)
            client = await connect(gateway)
            await client.request(call("echo"))
            assert client.closed
        assert "a fault of the gateway" in caplog.text
        assert (await other.request(call("echo"))).status == 200


def bounds(**changes):
    values = {"header_bytes": 1000, "header_count": 10, "body_bytes": 100,
              "keep_alive_s": 1, "read_s": 1, "write_s": 1, **changes}  # fmt: skip
    return Bounds(**values)


HEAD = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/x?y")]


def test_the_head_is_read_as_http_1_reads_it():
    head = read_head([*HEAD, (b"content-length", b"3")], bounds())
    assert (head.method, head.target, head.content_length) == ("POST", b"/x?y", 3)
    assert head.headers == [(b"host", b"a"), (b"content-length", b"3")]


def test_a_host_beside_the_same_authority_is_one():
    head = read_head([*HEAD, (b"host", b"a")], bounds())
    assert head.headers == [(b"host", b"a")]
    with pytest.raises(RemoteProtocolError, match="host"):
        read_head([*HEAD, (b"host", b"b")], bounds())


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ([(b"a", b"x\r\nb: c")], 400),
        ([(b"a", b"x\nb: c")], 400),
        ([(b"a b", b"x")], 400),
        ([(b"a", b"\0")], 400),
        ([(b"a", b"x" * 1000)], 431),
        ([(b"a%d" % number, b"") for number in range(10)], 431),
        ([(b"content-length", b"101")], 413),
        ([(b"content-length", b"-1")], 400),
        ([(b"expect", b"other")], 417),
    ],
)
def test_a_head_that_http_1_would_refuse_is_refused(extra, status):
    with pytest.raises(RemoteProtocolError) as refused:
        read_head([*HEAD, *extra], bounds())
    assert refused.value.status == status
