import os
import shutil
import time
from types import SimpleNamespace

import prometheus_client
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from mcpx.config.model import MetricsConfig
from mcpx.services import metrics as module
from mcpx.services.metrics import CONTENT_TYPE, Metrics

NOBODY = SimpleNamespace(name="")


def exchange(server="files", **fields):
    """A finished exchange, as the pipeline leaves it."""
    return SimpleNamespace(
        **{
            "route": SimpleNamespace(name=server) if server else None,
            "principal": NOBODY,
            "policy": object() if server else None,
            "method": "ping",
            "tool": None,
            "cache": "",
            "status": 200,
            "outcome": "ok",
            "allowed": True,
            **fields,
        }
    )


def call(tool="read", client="", **fields):
    return exchange(
        method="tools/call", tool=tool, principal=SimpleNamespace(name=client), **fields
    )


def made(config=None, **more):
    metrics = Metrics(config, version="1.2.3", **more)
    metrics.set_servers(["files", "git"])
    metrics.set_clients(["alice"])
    metrics.learn_tools("files", ["read", "write"])
    return metrics


def count(metrics, ex, duration_s=0.01):
    metrics.begin()
    metrics.observe(ex, duration_s)


async def samples(metrics):
    """Series, written as in the page, to value."""
    metrics._page = module.Recent(0.0)
    found = {}
    for line in (await metrics.exposition()).decode().splitlines():
        if not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            found[series] = float(value)
    return found


def busy(config=None):
    """Metrics with something in every family."""
    metrics = made(config)
    for ex in (
        exchange(),
        exchange(method="GET"),
        exchange(None, method="made/up", outcome="unauthorized", status=401, allowed=False),
        exchange(outcome="limited", status=429, allowed=False),
        exchange(outcome="shed", status=503, allowed=False),
        exchange(outcome="upstream_error", status=502),
        exchange(outcome="timeout", status=504),
        exchange(outcome="http_error", status=500),
        call(client="alice"),
        call(outcome="denied", status=403, allowed=False),
    ):
        count(metrics, ex)
    metrics.reloaded(ok=True)
    metrics.reloaded(ok=False)
    metrics.audit_lost(3)
    count(metrics, call(cache="hit"))
    count(metrics, call(cache="miss"))
    metrics.tool_finding("files", "changed")
    metrics.pins_not_written("the disk is full")
    return metrics


async def test_the_page_passes_promtool_without_a_word():
    if os.environ.get("MCPX_TESTS_WITHOUT_PROMTOOL") == "1":
        return
    promtool = shutil.which("promtool")
    assert promtool, "install promtool, or set MCPX_TESTS_WITHOUT_PROMTOOL=1"
    for metrics in (busy(), Metrics(version="1")):
        done = await trio.run_process(
            [promtool, "check", "metrics"],
            stdin=await metrics.exposition(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_the_page_is_read_by_another_parser_and_has_every_family():
    families = {
        f.name for f in text_string_to_metric_families((await busy().exposition()).decode())
    }
    assert families == {
        "mcpx_info", "mcpx_uptime_seconds", "mcpx_active_connections", "mcpx_requests_in_flight",
        "mcpx_servers_registered", "mcpx_audit_queue", "mcpx_auth_failures",
        "mcpx_rate_limit_hits", "mcpx_overload", "mcpx_audit_lost", "mcpx_requests",
        "mcpx_tool_calls", "mcpx_policy_decisions", "mcpx_results", "mcpx_upstream_errors",
        "mcpx_reloads", "mcpx_request_duration_seconds", "mcpx_breaker_trips",
        "mcpx_cache_entries", "mcpx_cache_evictions", "mcpx_cache_lookups",
        "mcpx_pin_write_failures", "mcpx_tool_findings", "mcpx_spans_dropped", "mcpx_spans_exported",
    }  # fmt: skip


async def test_no_series_tells_when_it_was_created_and_no_global_is_touched():
    assert b"_created" not in await busy().exposition()
    assert prometheus_client.metrics._use_created
    assert b"mcpx_" not in prometheus_client.generate_latest()


def test_the_content_type_is_that_of_the_text_format():
    assert CONTENT_TYPE == b"text/plain; version=0.0.4; charset=utf-8"


async def test_gauges_are_asked_when_the_page_is_made():
    now = [10.0]
    metrics = made(clock=lambda: now[0])
    metrics.count_connections(lambda: 7)
    metrics.count_audit_queue(lambda: 5)
    metrics.begin()
    now[0] = 73.5
    found = await samples(metrics)
    assert found['mcpx_info{version="1.2.3"}'] == 1
    assert found["mcpx_uptime_seconds"] == 63.5
    assert found["mcpx_active_connections"] == 7
    assert found["mcpx_audit_queue"] == 5
    assert found["mcpx_servers_registered"] == 2
    assert found["mcpx_requests_in_flight"] == 1


async def test_requests_are_counted_by_server_method_and_class_of_status():
    metrics = made()
    for status in (200, 202, 302, 404, 500, 0, 101, 700):
        count(metrics, exchange(status=status))
    count(metrics, exchange("git", method="DELETE", status=204))
    found = await samples(metrics)
    assert {s: v for s, v in found.items() if s.startswith("mcpx_requests_total")} == {
        'mcpx_requests_total{method="ping",server="files",status_code="2xx"}': 2,
        'mcpx_requests_total{method="ping",server="files",status_code="3xx"}': 1,
        'mcpx_requests_total{method="ping",server="files",status_code="4xx"}': 1,
        'mcpx_requests_total{method="ping",server="files",status_code="5xx"}': 1,
        'mcpx_requests_total{method="ping",server="files",status_code="other"}': 3,
        'mcpx_requests_total{method="DELETE",server="git",status_code="2xx"}': 1,
    }


async def test_what_clients_make_up_becomes_other():
    metrics = made()
    for n in range(300):
        count(metrics, exchange(f"made-up-{n}"))
        count(
            metrics,
            exchange(None, method=f"made/up{n}", status=404, outcome="unknown", allowed=False),
        )
        count(metrics, call(f"tool-{n}", f"client-{n}"))
        count(metrics, call(f"tool-{n}", outcome="denied", status=403, allowed=False))
    found = await samples(metrics)
    assert len(found) < 80
    assert (
        found['mcpx_tool_calls_total{client="other",decision="allow",server="files",tool="other"}']
        == 300
    )
    assert (
        found['mcpx_tool_calls_total{client="",decision="deny",server="files",tool="other"}'] == 300
    )
    assert found['mcpx_requests_total{method="other",server="other",status_code="4xx"}'] == 300
    assert found['mcpx_requests_total{method="ping",server="other",status_code="2xx"}'] == 300


def test_what_clients_make_up_is_not_remembered():
    metrics = made()
    for n in range(300):
        count(metrics, exchange(f"made-up-{n}"))
        count(metrics, exchange(method=f"made/up{n}"))
        count(metrics, call(f"tool-{n}", f"client-{n}"))
    assert len(metrics._cells) == 3


async def test_many_kinds_of_exchanges_are_all_counted_and_few_of_them_remembered():
    metrics = made(MetricsConfig(max_tools=module.MAX_CELLS + 100))
    names = [f"t{n}" for n in range(module.MAX_CELLS + 50)]
    metrics.learn_tools("files", names)
    for name in names * 2:
        count(metrics, call(name))
        assert len(metrics._cells) <= module.MAX_CELLS
    found = await samples(metrics)
    calls = [found[f'mcpx_tool_calls_total{{client="",decision="allow",server="files",tool="{name}"}}']
             for name in names]  # fmt: skip
    assert set(calls) == {2}
    assert found['mcpx_request_duration_seconds_count{server="files"}'] == 2 * len(names)


async def test_names_that_are_taken_back_or_given_count_from_then_on():
    metrics = made()
    for _ in range(2):
        count(metrics, call("read", "alice"))
        count(metrics, call("later", "bob"))
    metrics.set_clients(["bob"])
    metrics.learn_tools("files", ["later"])
    for _ in range(3):
        count(metrics, call("read", "alice"))
        count(metrics, call("later", "bob"))
    found = await samples(metrics)
    assert {
        (s.split('"')[1], s.split('"')[7]): v
        for s, v in found.items()
        if s.startswith("mcpx_tool_calls")
    } == {
        ("alice", "read"): 2,
        ("other", "other"): 2,
        ("other", "read"): 3,
        ("bob", "later"): 3,
    }


async def test_the_page_may_be_made_between_two_exchanges():
    metrics = made()
    for n in range(1, 4):
        count(metrics, call("read", "alice"))
        found = await samples(metrics)
        assert found['mcpx_results_total{result="ok",server="files"}'] == n
        assert found['mcpx_request_duration_seconds_count{server="files"}'] == n


async def test_known_tools_and_clients_keep_their_names():
    metrics = made()
    count(metrics, call("read", "alice"))
    count(metrics, call("read", "default"))
    count(metrics, call("write"))
    found = await samples(metrics)
    assert (
        found['mcpx_tool_calls_total{client="alice",decision="allow",server="files",tool="read"}']
        == 1
    )
    assert (
        found['mcpx_tool_calls_total{client="default",decision="allow",server="files",tool="read"}']
        == 1
    )
    assert (
        found['mcpx_tool_calls_total{client="",decision="allow",server="files",tool="write"}'] == 1
    )


async def test_a_server_gets_no_more_tool_labels_than_configured():
    metrics = made(MetricsConfig(max_tools=3))
    metrics.learn_tools("files", [f"t{n}" for n in range(10_000)])
    metrics.learn_tools("git", ["x" * 129, "new\nline", "ok"])
    metrics.learn_tools("unknown", ["x"])
    for tool in ("read", "write", "t0", "t1", "t2"):
        count(metrics, call(tool))
    for tool in ("x" * 129, "new\nline", "ok"):
        count(metrics, call(tool, route=SimpleNamespace(name="git")))
    found = await samples(metrics)
    tools = {
        s.split('tool="')[1][:-2]: v for s, v in found.items() if s.startswith("mcpx_tool_calls")
    }
    assert {"read", "write", "t0", "ok", "other"} == set(tools)


async def test_decisions_are_those_about_messages():
    metrics = made()
    count(metrics, exchange())
    count(metrics, exchange(outcome="rpc_error"))
    count(metrics, exchange(outcome="denied", status=403, allowed=False))
    count(metrics, call(outcome="limited", status=429, allowed=False))
    count(metrics, exchange(method="GET"))
    count(metrics, exchange(None, outcome="unauthorized", status=401, allowed=False))
    found = await samples(metrics)
    assert found['mcpx_policy_decisions_total{decision="allow",server="files"}'] == 3
    assert found['mcpx_policy_decisions_total{decision="deny",server="files"}'] == 1
    assert not any(series.startswith("mcpx_tool_calls") for series in found)


async def test_refusals_of_the_gateway_and_statuses_of_servers_are_kept_apart():
    metrics = made()
    count(metrics, exchange(outcome="unauthorized", status=401, allowed=False))
    count(metrics, exchange(outcome="http_error", status=401))
    count(metrics, exchange(outcome="limited", status=429, allowed=False))
    count(metrics, exchange(outcome="http_error", status=429))
    count(metrics, exchange(outcome="shed", status=503, allowed=False))
    found = await samples(metrics)
    assert found["mcpx_auth_failures_total"] == 1
    assert found["mcpx_rate_limit_hits_total"] == 1
    assert found["mcpx_overload_total"] == 1
    assert found['mcpx_results_total{result="http_error",server="files"}'] == 2


async def test_results_tell_errors_that_a_status_hides():
    metrics = made()
    for outcome in (
        "ok",
        "rpc_error",
        "tool_error",
        "tool_error",
        "upstream_error",
        "timeout",
        "denied",
        "made up",
    ):
        count(metrics, exchange(outcome=outcome))
    count(metrics, exchange(outcome="http_error", status=503))
    found = await samples(metrics)
    assert {s.split('"')[1]: v for s, v in found.items() if s.startswith("mcpx_results")} == {
        "ok": 1, "rpc_error": 1, "tool_error": 2, "transport_error": 2, "http_error": 1,
    }  # fmt: skip
    assert {s.split('"')[1]: v for s, v in found.items() if s.startswith("mcpx_upstream_errors")} == {
        "error": 1, "timeout": 1, "http_5xx": 1,
    }  # fmt: skip


async def test_the_gateways_own_pages_are_not_counted():
    metrics = made()
    count(metrics, exchange(None, outcome="page"))
    found = await samples(metrics)
    assert not any(
        series.startswith(("mcpx_requests_total", "mcpx_request_duration")) for series in found
    )
    assert found["mcpx_requests_in_flight"] == 0


async def test_durations_fall_into_the_bucket_that_they_do_not_exceed():
    metrics = made(MetricsConfig(milliseconds=True))
    for duration_s in (0.0, 0.001, 0.0011, 0.005, 3.0, 10.0, 11.0):
        count(metrics, exchange(), duration_s)
    found = await samples(metrics)
    seconds = {
        s.split('le="')[1].split('"')[0]: v for s, v in found.items() if "seconds_bucket" in s
    }
    assert seconds == {
        "0.001": 2, "0.005": 4, "0.01": 4, "0.025": 4, "0.05": 4, "0.1": 4, "0.25": 4, "0.5": 4,
        "1.0": 4, "5.0": 5, "10.0": 6, "+Inf": 7,
    }  # fmt: skip
    milliseconds = {
        s.split('le="')[1].split('"')[0]: v for s, v in found.items() if "ms_bucket" in s
    }
    assert list(milliseconds) == [
        "1",
        "5",
        "10",
        "25",
        "50",
        "100",
        "250",
        "500",
        "1000",
        "5000",
        "10000",
        "+Inf",
    ]
    assert list(milliseconds.values()) == list(seconds.values())
    assert found['mcpx_request_duration_seconds_sum{server="files"}'] == pytest.approx(24.0071)
    assert found['mcpx_request_duration_ms_sum{server="files"}'] == pytest.approx(24007.1)
    assert found['mcpx_request_duration_ms_count{server="files"}'] == 7


async def test_milliseconds_are_shown_only_when_asked_for():
    metrics = busy()
    assert b"duration_ms" not in await metrics.exposition()
    metrics.configure(MetricsConfig(milliseconds=True))
    assert any("duration_ms" in series for series in await samples(metrics))


async def test_counters_survive_reloads():
    metrics = made()
    count(metrics, call("read"))
    metrics.set_servers(["git"])
    count(metrics, call("read"))
    metrics.set_servers(["files", "git"])
    count(metrics, call("read"))
    found = await samples(metrics)
    assert (
        found['mcpx_tool_calls_total{client="",decision="allow",server="files",tool="read"}'] == 2
    )
    assert (
        found['mcpx_tool_calls_total{client="",decision="allow",server="other",tool="other"}'] == 1
    )


async def test_names_that_are_long_gone_are_forgotten():
    metrics = made()
    for n in range(2000):
        metrics.set_servers([f"s{n}"])
        metrics.learn_tools(f"s{n}", ["t"])
        count(metrics, call("t", route=SimpleNamespace(name=f"s{n}")))
    assert len(metrics._durations) <= module.MAX_RETIRED + 1
    assert len(metrics._tools) <= module.MAX_RETIRED + 1
    assert len(metrics._tool_calls) <= module.MAX_RETIRED + 1


async def test_reloads_and_lost_records_are_counted_and_shown_from_the_start():
    found = await samples(made())
    assert (
        found['mcpx_reloads_total{result="ok"}']
        == found['mcpx_reloads_total{result="failed"}']
        == 0
    )
    assert found["mcpx_audit_lost_total"] == 0
    found = await samples(busy())
    assert (
        found['mcpx_reloads_total{result="ok"}']
        == found['mcpx_reloads_total{result="failed"}']
        == 1
    )
    assert found["mcpx_audit_lost_total"] == 3


async def test_the_page_is_made_once_a_second_whoever_asks(mock_clock, monkeypatch):
    made_pages = []
    real = module._page

    def spy(counted):
        made_pages.append(1)
        return real(counted)

    monkeypatch.setattr(module, "_page", spy)
    metrics = made()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(metrics.exposition)
    assert len(made_pages) == 1
    mock_clock.jump(0.9)
    await metrics.exposition()
    assert len(made_pages) == 1
    mock_clock.jump(0.2)
    await metrics.exposition()
    assert len(made_pages) == 2


async def test_labels_are_escaped():
    metrics = Metrics(version='a"b\\c\nd')
    page = await metrics.exposition()
    assert b'mcpx_info{version="a\\"b\\\\c\\nd"} 1.0\n' in page
    metrics.set_servers(["s"])
    metrics.learn_tools("s", ['q"\\'])
    count(metrics, call('q"\\', route=SimpleNamespace(name="s")))
    families = text_string_to_metric_families((await metrics.exposition()).decode())
    del families
    assert any('tool="q\\"\\\\"' in series for series in await samples(metrics))


async def test_counting_costs_microseconds():
    metrics, ex = made(), call("read", "alice")
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            metrics.observe(ex, 0.01)
        best = min(best, (time.perf_counter() - began) / 2000)
    assert best < 20e-6


async def test_looks_into_the_cache_are_counted_and_a_hit_is_no_answer_of_the_server():
    metrics = made()
    metrics.count_cache(lambda: (7, 2))
    for ex in (call(cache="hit"), call(cache="miss"), call("made up", cache="miss")):
        count(metrics, ex)
    found = await samples(metrics)
    lookups = "mcpx_cache_lookups_total"
    assert found[f'{lookups}{{result="hit",server="files",tool="read"}}'] == 1
    assert found[f'{lookups}{{result="miss",server="files",tool="read"}}'] == 1
    assert found[f'{lookups}{{result="miss",server="files",tool="other"}}'] == 1
    assert found['mcpx_results_total{result="ok",server="files"}'] == 2
    assert found["mcpx_cache_entries"] == 7
    assert found["mcpx_cache_evictions_total"] == 2


async def test_findings_about_tools_are_counted_by_server_and_change():
    metrics = made()
    metrics.tool_finding("files", "changed")
    metrics.tool_finding("nobody's", "added")
    metrics.pins_not_written("no room")
    found = await samples(metrics)
    assert found['mcpx_tool_findings_total{change="changed",server="files"}'] == 1
    assert found['mcpx_tool_findings_total{change="added",server="other"}'] == 1
    assert found["mcpx_pin_write_failures_total"] == 1
