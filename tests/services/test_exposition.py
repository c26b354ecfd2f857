"""The page is what Prometheus reads; what is on it is tested with what is counted."""

import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from mcpx.services.exposition import page
from mcpx.services.metrics import BOUNDS_MS, Counted


def counted(**more):
    values = {
        "version": "1",
        "gauges": (("mcpx_a_gauge", "Help.", 1.5),),
        "totals": (("mcpx_a_total_of", "Help.", 2),),
        "series": (("mcpx_a_series", "Help.", ("server",), {("b",): 1, ("a",): 2}),),
        "durations": {"a": ((1,) * (len(BOUNDS_MS) + 1), 3.0)},
        "breakers": {"a": 1},
        "milliseconds": False,
        **more,
    }
    return Counted(**values)


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def test_every_number_is_on_the_page():
    found = families(page(counted()))
    assert found["mcpx_a_gauge"].samples[0].value == 1.5
    assert found["mcpx_a_total_of"].samples[0].value == 2
    assert [sample.labels["server"] for sample in found["mcpx_a_series"].samples] == ["a", "b"]
    assert found["mcpx_breaker_state"].samples[0].value == 1
    buckets = [s for s in found["mcpx_request_duration_seconds"].samples if "le" in s.labels]
    assert [bucket.value for bucket in buckets] == list(range(1, len(BOUNDS_MS) + 2))
    assert "mcpx_request_duration_ms" not in found
    assert "mcpx_request_duration_ms" in families(page(counted(milliseconds=True)))


def test_what_has_no_sample_is_left_out():
    found = families(page(counted(series=(), durations={}, breakers={})))
    assert set(found) == {"mcpx_info", "mcpx_a_gauge", "mcpx_a_total_of"}


def test_a_start_does_not_load_what_writes_the_page():
    code = "import sys, mcpx.app; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
