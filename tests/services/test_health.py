import pytest
import trio
import trio.testing

from mcpx.config.model import ServerConfig
from mcpx.services.health import Health, ProbeResult, duration_text, verdict


class Policy:
    def __init__(self, **described):
        self.described = {"read_only": False, "allow_tools": [], "deny_tools": [], **described}

    def describe(self):
        return self.described


class Route:
    def __init__(self, name, url="http://h/mcp", policy=None):
        self.name = name
        self.server = ServerConfig(name=name, url=url)
        self.policy = policy or Policy()


class Probes:
    """Answers by name: a text is an error, an exception is raised, an event is waited for."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []
        self.running = 0
        self.most = 0

    async def __call__(self, route):
        self.asked.append(route.name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = self.answers.get(route.name, "")
            if isinstance(answer, trio.Event):
                await answer.wait()
                answer = ""
            await trio.lowlevel.checkpoint()
            if isinstance(answer, BaseException):
                raise answer
            return answer if isinstance(answer, ProbeResult) else ProbeResult(answer)
        finally:
            self.running -= 1


def health_of(probes, **more):
    settings = {
        "cache_ttl_s": 5.0,
        "timeout_s": 2.0,
        "version": "9.9",
        "clock": lambda: 0.0,
        "now": lambda: 0.0,
    }
    return Health(probes, **{**settings, **more})


class Reasoned(Exception):
    reason = "connection refused by 10.0.0.7:443"


async def test_the_report_has_everything_about_every_server(autojump_clock):
    clock = iter([100.0, 100.0 + 93784])
    probes = Probes(a=ProbeResult("", 0.0125), b=Reasoned())
    health = health_of(probes, clock=lambda: next(clock), now=lambda: 1_700_000_000.5)
    routes = [
        Route("a", "https://h:8443/mcp?key=secret", Policy(deny_tools=["rm"])),
        Route("b"),
    ]
    assert await health.report(routes) == {
        "status": "degraded",
        "version": "9.9",
        "uptime": "1d 2h 3m 4s",
        "servers": [
            {
                "name": "a",
                "url": "https://h:8443/mcp?…",
                "healthy": True,
                "latency_ms": 12.5,
                "checked_at": "2023-11-14T22:13:20.500Z",
                "policy": {"read_only": False, "allow_tools": [], "deny_tools": ["rm"]},
            },
            {
                "name": "b",
                "url": "http://h/mcp",
                "healthy": False,
                "error": "unreachable: connection refused by 10.0.0.7:443",
                "checked_at": "2023-11-14T22:13:20.500Z",
            },
        ],
        "timestamp": "2023-11-14T22:13:20.500Z",
    }


async def test_the_public_report_is_one_word(autojump_clock):
    assert await health_of(Probes(a=Reasoned())).public_report([Route("a")]) == {
        "status": "unhealthy"
    }


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ({}, "healthy"),
        ({"a": ""}, "healthy"),
        ({"a": "", "b": "x"}, "degraded"),
        ({"a": "x", "b": "x"}, "unhealthy"),
    ],
)
async def test_the_status_follows_how_many_are_down(answers, status, autojump_clock):
    routes = [Route(name) for name in answers]
    assert (await health_of(Probes(**answers)).public_report(routes))["status"] == status


async def test_a_hundred_requests_probe_once(nursery):
    go = trio.Event()
    probes = Probes(a=go)
    health, routes, got = health_of(probes), [Route("a")], []

    async def ask():
        got.append((await health.report(list(routes)))["status"])

    for _ in range(100):
        nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert got == ["healthy"] * 100
    assert probes.asked == ["a"]


async def test_a_finding_is_given_again_until_it_is_too_old(autojump_clock):
    probes = Probes()
    health, routes = health_of(probes), [Route("a")]
    await health.report(routes)
    await health.public_report(list(routes))
    assert probes.asked == ["a"]
    await trio.sleep(5.1)
    await health.report(routes)
    assert probes.asked == ["a", "a"]


async def test_a_reload_asks_anew_and_settings_can_change(autojump_clock):
    probes = Probes()
    health = health_of(probes)
    await health.report([Route("a")])
    await health.report([Route("a")])
    assert probes.asked == ["a", "a"]
    health.configure(cache_ttl_s=0.0, timeout_s=1.0)
    routes = [Route("b")]
    await health.report(routes)
    await health.report(routes)
    assert probes.asked == ["a", "a", "b", "b"]


async def test_whoever_asks_first_may_leave(nursery):
    go = trio.Event()
    health, routes, got = health_of(Probes(a=go)), [Route("a")], []
    first = trio.CancelScope()

    async def ask(scope):
        with scope:
            got.append(await health.public_report(routes))

    nursery.start_soon(ask, first)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(ask, trio.CancelScope())
    await trio.testing.wait_all_tasks_blocked()
    first.cancel()
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert got == [{"status": "healthy"}]


async def test_servers_are_asked_at_the_same_time_but_not_all_of_many(nursery):
    go = trio.Event()
    routes = [Route(f"s{n}") for n in range(40)]
    probes = Probes(**{route.name: go for route in routes})
    nursery.start_soon(health_of(probes).report, routes)
    await trio.testing.wait_all_tasks_blocked()
    assert len(probes.asked) == 16
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(probes.asked) == sorted(route.name for route in routes)
    assert probes.most == 16


async def test_a_server_that_does_not_answer_is_not_waited_for_and_harms_no_other(autojump_clock):
    health = health_of(Probes(a=trio.Event()))
    began = trio.current_time()
    report = await health.report([Route("a"), Route("b")])
    assert trio.current_time() - began == pytest.approx(2.0)
    slow, quick = report["servers"]
    assert slow["error"] == "unreachable: no answer within 2 s"
    assert "latency_ms" not in slow
    assert quick["healthy"]


async def test_an_error_without_a_reason_is_told_by_its_kind_and_a_long_one_is_cut(autojump_clock):
    report = await health_of(Probes(a=OSError("10.0.0.1"), b="x" * 5000)).report(
        [Route("a"), Route("b")]
    )
    assert report["servers"][0]["error"] == "unreachable: OSError"
    assert len(report["servers"][1]["error"]) == 300


async def test_the_order_of_the_report_is_that_of_the_servers(autojump_clock):
    routes = [Route(f"s{n}") for n in range(30)]
    report = await health_of(Probes()).report(routes)
    assert [entry["name"] for entry in report["servers"]] == [route.name for route in routes]


RESULT = b'{"jsonrpc":"2.0","id":"health","result":{}}'
ERROR = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"no"}}'
JSON = b"application/json"
SSE = b"text/event-stream"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "said"),
    [
        (200, JSON, RESULT, ""),
        (200, b"application/json; charset=utf-8", ERROR, ""),
        (400, JSON, ERROR, ""),
        (404, JSON, ERROR, ""),
        (405, JSON, ERROR, ""),
        (403, JSON, ERROR, ""),
        (200, SSE, b"event: message\ndata: " + RESULT + b"\n\n", ""),
        (
            200,
            b"Text/Event-Stream; charset=utf-8",
            b": hi\n\nid: 1\ndata:\n\ndata: " + RESULT + b"\r\n\r\n",
            "",
        ),
        (200, SSE, b"data: " + RESULT, ""),
        (200, SSE, b"data: hello\n\n", "does not speak MCP"),
        (200, SSE, b"", "does not speak MCP"),
        (401, JSON, ERROR, "refuses the gateway's credentials"),
        (401, b"", b"", "refuses the gateway's credentials"),
        (403, b"text/html", b"<html>", "refuses the gateway's credentials"),
        (404, b"text/html", b"not found", "no MCP endpoint at this URL"),
        (405, b"", b"", "no MCP endpoint at this URL"),
        (302, b"", b"", "answers with a redirect"),
        (307, JSON, RESULT, "answers with a redirect"),
        (500, JSON, ERROR, "server error: 500"),
        (503, b"", b"", "server error: 503"),
        (200, b"text/html", b"<html>log in</html>", "does not speak MCP"),
        (200, JSON, b'{"status":"ok"}', "does not speak MCP"),
        (200, JSON, b'{"jsonrpc":"1.0","result":1}', "does not speak MCP"),
        (200, JSON, b'{"jsonrpc":"2.0","method":"ping"}', "does not speak MCP"),
        (200, JSON, b"[" + RESULT + b"]", "does not speak MCP"),
        (200, JSON, b"[" * 100_000, "does not speak MCP"),
        (200, JSON, b'{"jsonrpc":"2.0","result":"\xff"', "does not speak MCP"),
        (200, JSON, b"", "does not speak MCP"),
        (400, b"text/plain", b"bad", "does not speak MCP"),
        (100, b"", b"", "does not speak MCP"),
    ],
)
def test_the_verdict_about_an_answer(status, content_type, body, said):
    assert verdict(status, content_type, body) == said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (59.9, "59s"),
        (60, "1m 0s"),
        (3600, "1h 0m 0s"),
        (93784, "1d 2h 3m 4s"),
    ],
)
def test_an_uptime_begins_with_its_largest_unit(seconds, text):
    assert duration_text(seconds) == text
