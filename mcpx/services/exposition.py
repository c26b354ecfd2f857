"""The page of metrics, in the text that Prometheus reads.

What it is: a copy of the numbers as ``prometheus_client``'s families, and their text. The
only module that imports that library, which takes a sixth of the gateway's start: it is
loaded for the first page. What it must never do: count, or keep a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mcpx.services.metrics import BOUNDS_MS, Counted

__all__ = ["page"]

_LE_S: Final = (*(str(float(bound) / 1000) for bound in BOUNDS_MS), "+Inf")
_LE_MS: Final = (*BOUNDS_MS, "+Inf")


def page(counted: Counted) -> bytes:
    """The page, in the text format 0.0.4. Costs about 15 microseconds a line."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(counted))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        """Every family that has a sample."""
        counted = self._counted
        info = GaugeMetricFamily("mcpx_info", "The version that runs.", labels=["version"])
        info.add_metric([counted.version], 1)
        yield info
        for name, text, value in counted.gauges:
            yield GaugeMetricFamily(name, text, value)
        for name, text, count in counted.totals:
            yield CounterMetricFamily(name, text, count)
        for name, text, labels, counts in counted.series:
            if counts:
                family = CounterMetricFamily(name, text, labels=labels)
                for values, count in sorted(counts.items()):
                    family.add_metric(values, count)
                yield family
        if counted.breakers:
            text = "A server's breaker: 0 closed, 1 open, 2 half open."
            states = GaugeMetricFamily("mcpx_breaker_state", text, labels=["server"])
            for server, state in sorted(counted.breakers.items()):
                states.add_metric([server], state)
            yield states
        durations = counted.durations
        if durations:
            yield _histogram("mcpx_request_duration_seconds", "Seconds", durations, _LE_S, 1)
        if durations and counted.milliseconds:
            yield _histogram("mcpx_request_duration_ms", "Milliseconds", durations, _LE_MS, 1000)


def _histogram(
    name: str,
    unit: str,
    durations: Mapping[str, tuple[tuple[int, ...], float]],
    bounds: tuple[str, ...],
    factor: int,
) -> Metric:
    text = f"{unit} from a request's arrival to the last byte of its answer."
    family = HistogramMetricFamily(name, text, labels=["server"])
    for server, (counts, total_s) in sorted(durations.items()):
        below = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(bounds, counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric([server], buckets, round(total_s * factor, 6 if factor == 1 else 3))
    return family
