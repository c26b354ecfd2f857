"""From the records of a run: a table in Markdown, a plot in SVG, and the targets.

What it is: medians over the rounds, ratios taken within a round. What it must never do:
leave out a contender that failed, or a figure that the client was too late for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from perf.bench.measure import Record

__all__ = ["write_reports"]

Value = dict[str, Any]
BEGIN, END = "<!-- targets: written by make bench -->", "<!-- end of targets -->"


class Results:
    """The records, asked by contender and scenario."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.records: list[Record] = value["records"]

    @property
    def names(self) -> list[str]:
        """Contenders of the main part, in the order in which they were measured."""
        return list(
            dict.fromkeys(
                r["contender"]
                for r in self.of(None, "closed 32")
                if " servers" not in r["contender"]
            )
        )

    def of(self, contender: str | None, scenario: str) -> list[Record]:
        return [
            r
            for r in self.records
            if r["scenario"] == scenario and contender in (None, r["contender"])
        ]

    def median(self, contender: str, scenario: str, key: str) -> float | None:
        values = [r[key] for r in self.of(contender, scenario) if key in r]
        return statistics.median(values) if values else None

    def ratio(self, one: str, other: str, scenario: str, key: str) -> float | None:
        """The median over rounds of one's figure divided by the other's of that round."""
        others = {r["round"]: r[key] for r in self.of(other, scenario)}
        values = [
            r[key] / others[r["round"]] for r in self.of(one, scenario) if others.get(r["round"])
        ]
        return statistics.median(values) if values else None


def write_reports(value: Value, folder: Path) -> list[Path]:
    """Write ``bench.md`` and ``bench.svg``, and the targets in ``RESULTS.md`` beside the
    folder after a full run; gives the files."""
    results = Results(value)
    table, plot = folder / "bench.md", folder / "bench.svg"
    table.write_text(_markdown(results))
    plot.write_text(_svg(results))
    written = [table, plot]
    page = folder.parent / "RESULTS.md"
    if value["mode"] == "full" and page.exists() and BEGIN in (text := page.read_text()):
        head, _, rest = text.partition(BEGIN)
        tail = rest.partition(END)[2]
        page.write_text(
            f"{head}{BEGIN}\n\n{_conditions(results)}\n\n{_targets(results)}\n{END}{tail}"
        )
        written.append(page)
    return written


# -- Markdown ----------------------------------------------------------------------------


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _conditions(results: Results) -> str:
    value = results.value
    told = value["machine"]
    compiled = "compiled" if value["extensions"] else "pure Python"
    return (
        f"{told['cpu']}, {told['cores']} cores, Linux {told['kernel']}, Python {told['python']},"
        f" {told['time'][:10]}; `BENCH={value['mode']}`, mcpx {compiled}, tool integrity"
        f" `{value['integrity']}`. Load generator and backend share CPU"
        f" {value['cpus']['load and backend']}, each gateway has CPU {value['cpus']['gateway']} to"
        f" itself. Load average {told['load_before']:.1f} before the run, {told['load_after']:.1f}"
        " after."
    )


def _markdown(results: Results) -> str:
    value = results.value
    parts = ["# Benchmark\n", _conditions(results) + "\n"]
    parts.append(
        "A call of 150 B and its answer of 150 B as JSON, closed loop (wrk); CPU is"
        " user and system time of all processes of the contender.\n"
    )
    rows = []
    for name in results.names:
        cells = [
            name,
            *(_number(results.median(name, f"closed {n}", "rps")) for n in (1, 32, 256)),
            *(
                _number(results.median(name, "closed 32", key), 1)
                for key in ("cpu_us", "user_us", "system_us")
            ),
        ]
        ratio = results.ratio(name, "nginx", "closed 32", "cpu_us")
        cells.append(_number(ratio, 1) if name != "direct" else "")
        cells += [
            _number(results.median(name, "closed 32", key))
            for key in ("p50_us", "p99_us", "p999_us")
        ]
        memory = results.median(name, "memory after", "memory")
        cells.append(_number(memory / 1e6 if memory else None, 1))
        rows.append(cells)
    parts.append(
        _table(
            (
                "",
                "req/s on 1",
                "on 32",
                "on 256 connections",
                "CPU µs/request",
                "user",
                "system",
                "of nginx's",
                "p50 µs on 32",
                "p99",
                "p99.9",
                "memory MB",
            ),
            rows,
        )
    )
    parts.append(
        "\nOpen loop: requests leave on a timetable, and latency counts from the time at"
        " which they were to leave. `late` are those that the client itself sent more"
        f" than {value['late_us']} µs late.\n"
    )
    rows = []
    for scenario in dict.fromkeys(
        r["scenario"] for r in results.records if r.get("loop") == "open"
    ):
        for name in dict.fromkeys(r["contender"] for r in results.of(None, scenario)):
            if name == "open-loop client":
                continue
            one = results.of(name, scenario)
            rows.append(
                [scenario, name, _number(results.median(name, scenario, "rate"))]
                + [
                    _number(results.median(name, scenario, key))
                    for key in ("p50_us", "p99_us", "p999_us", "max_us")
                ]
                + [
                    _number(results.median(name, scenario, "cpu_us"), 1),
                    str(sum(r["missed"] for r in one)),
                    str(sum(r["failed"] + r["unanswered"] for r in one)),
                ]
            )
    parts.append(
        _table(
            ("", "", "req/s", "p50 µs", "p99", "p99.9", "max", "CPU µs/request", "late", "failed"),
            rows,
        )
    )
    parts.append(
        f"\nThe client alone can ask {value['client_max_rps']:,.0f} times a second"
        " (backend on the same CPU); it is asked for a third of that at the most.\n"
    )
    parts.append("\nOther sizes, closed loop.\n")
    rows = []
    for record in results.records:
        if record["scenario"].startswith(("answer ", "request ")):
            rows.append(
                [
                    record["scenario"],
                    record["contender"],
                    str(record["connections"]),
                    _number(record["rps"]),
                    _number(record["mb_per_s"]),
                    _number(record["cpu_us"], 1),
                    _number(record["p99_us"]),
                    _number(record["memory_growth"] / 1e6, 1),
                    str(record["failed"]),
                ]
            )
    parts.append(
        _table(
            (
                "",
                "",
                "connections",
                "req/s",
                "MB/s",
                "CPU µs/request",
                "p99 µs",
                "memory growth MB",
                "failed",
            ),
            rows,
        )
    )
    parts.append("\n## Targets\n")
    parts.append(_targets(results))
    parts.append("\n## Not measured\n")
    parts += [f"- {name}: {_line(why)}" for name, why in value["missing"].items()]
    parts += [f"- {_line(text)}" for text in dict.fromkeys(value["skipped"])]
    return "\n".join(parts) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]


def _targets(results: Results) -> str:
    ours, closed = "mcpx protected", "closed 32"
    rows: list[list[str]] = []

    def at_most(
        what: str, limit: float, value: float | None, unit: str, digits: int = 1, note: str = ""
    ) -> None:
        if value is None:
            rows.append([what, f"≤ {limit:g} {unit}", "", "not measured"])
        else:
            reached = f"{_number(value, digits)} {unit}{note}"
            rows.append([what, f"≤ {limit:g} {unit}", reached, _held(value <= limit)])

    def added(scenario: str) -> float | None:
        with_it = results.median(ours, scenario, "p50_us")
        without = results.median("direct", scenario, "p50_us")
        return None if with_it is None or without is None else with_it - without

    cpu = results.median(ours, closed, "cpu_us")
    nginx = results.median("nginx", closed, "cpu_us")
    if cpu is not None and nginx is not None:
        # The target is told for a machine on which nginx takes 16 microseconds.
        at_most(
            "CPU a request, all protections, were nginx's 16 µs",
            60,
            cpu * 16 / nginx,
            "µs",
            note=f" (measured: {cpu:.1f}, nginx {nginx:.1f})",
        )
    ratio = results.ratio(ours, "nginx", closed, "cpu_us")
    at_most("CPU a request, all protections, of nginx's", 3.7, ratio, "×", 2)
    ratio = results.ratio(ours, "Go mcpx", closed, "cpu_us")
    at_most("CPU a request, all protections, of the Go gateway's", 0.36, ratio, "×", 2)
    ratio = results.ratio("mcpx bare", "nginx", closed, "cpu_us")
    at_most("CPU a request, bare, of nginx's", 2.6, ratio, "×", 2)
    at_most("p50 added at one connection, open loop", 120, added("open 500/s on 1"), "µs", 0)
    at_most("p50 added at one connection, closed loop", 120, added("closed 1"), "µs", 0)
    half = results.median(ours, "open at half its maximum", "p99_us")
    at_most("p99 at half of its maximum rate", 2, _scaled(half, 1e-3), "ms", 2)
    share = results.ratio(ours, "nginx", "answer json10m", "mb_per_s")
    reached = "" if share is None else f"{share:.2f} ×"
    held = "not measured" if share is None else _held(share >= 0.5)
    rows.append(["10 MB answers, throughput of nginx's", "≥ 0.5 ×", reached, held])
    growth = results.median(ours, "answer json10m", "memory_growth")
    at_most("10 MB answers, memory growth", 2, _scaled(growth, 1e-6), "MB")
    each = results.median(ours, "idle connections", "bytes_each")
    at_most("10,000 idle connections, each", 20, _scaled(each, 1e-3), "KB")
    took = results.median(ours, "start-up, 20 servers", "first_answer_ms")
    at_most("start-up to the first answer, 20 servers", 300, took, "ms", 0)
    more = results.ratio("mcpx, 1000 servers", "mcpx, 7 servers", closed, "cpu_us")
    at_most(
        "1,000 servers against 7, CPU a request",
        5,
        None if more is None else abs(more - 1) * 100,
        "%",
    )
    return _table(("", "target", "reached", "held"), rows)


def _held(yes: bool) -> str:  # noqa: FBT001 - it is the question itself
    return "yes" if yes else "**no**"


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


# -- SVG ---------------------------------------------------------------------------------

_STYLE = (
    "text{font:13px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;fill:#1f2933}"
    ".t{font-size:15px;font-weight:600}.s{font-size:11px;fill:#616e7c}.e{text-anchor:end}"
    ".m{text-anchor:middle}.g{stroke:#e4e7eb;stroke-width:1}"
)
_OURS, _OTHERS, _PALE = "#2563eb", "#94a3b8", 0.55
_LEFT, _BAR, _GAP, _WIDTH = 150, 18, 10, 860


def _svg(results: Results) -> str:
    """Two panels: CPU a request (logarithmic, user and system), and latency in the open loop."""
    names = [name for name in results.names if name != "direct"]
    parts: list[str] = []
    y = 28.0
    parts.append(_text(16, y, "CPU time a request (µs, logarithmic; less is better)", "t"))
    parts.append(
        _text(_WIDTH - 16, y, "150 B call, 32 connections, as fast as answers come", "s e")
    )
    values = {name: results.median(name, "closed 32", "cpu_us") for name in names}
    y = _bars(
        parts,
        y + 14,
        [(name, value, _colour(name)) for name, value in values.items() if value is not None],
        "µs",
    )
    y += 34
    parts.append(_text(16, y, "Latency: p50, p99, p99.9 (µs, logarithmic)", "t"))
    parts.append(
        _text(_WIDTH - 16, y, "open loop: 1,000 requests a second on 32 connections", "s e")
    )
    dots = []
    for name in results.names:
        three = [
            results.median(name, "open 1000/s on 32", key)
            for key in ("p50_us", "p99_us", "p999_us")
        ]
        if None not in three:
            dots.append((name, [value for value in three if value is not None]))
    y = _dots(parts, y + 14, dots)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 8:.0f}"'
        f' width="{_WIDTH}" height="{y + 8:.0f}" role="img" aria-label="CPU time a request and'
        f' latency of each gateway"><style>{_STYLE}</style>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _colour(name: str) -> str:
    return _OURS if name.startswith("mcpx") and "proxy" not in name else _OTHERS


def _bars(parts: list[str], y: float, rows: list[tuple[str, float, str]], unit: str) -> float:
    if not rows:
        return y
    scale = _Log([value for _, value, _ in rows])
    foot = y + len(rows) * (_BAR + _GAP) + 4
    _grid(parts, scale, y, foot)
    for name, value, colour in rows:
        x = scale.at(value)
        parts.append(_text(_LEFT - 10, y + _GAP / 2 + _BAR - 5, name, "e"))
        parts.append(
            f'<rect x="{_LEFT}" y="{y + _GAP / 2:.1f}" width="{x - _LEFT:.1f}"'
            f' height="{_BAR}" rx="2" fill="{colour}"/>'
        )
        parts.append(_text(x + 6, y + _GAP / 2 + _BAR - 5, f"{_short(value)} {unit}", ""))
        y += _BAR + _GAP
    return foot + 18


def _dots(parts: list[str], y: float, rows: list[tuple[str, list[float]]]) -> float:
    if not rows:
        return y
    scale = _Log([value for _, values in rows for value in values])
    foot = y + len(rows) * (_BAR + _GAP) + 4
    _grid(parts, scale, y, foot)
    for name, values in rows:
        middle = y + _GAP / 2 + _BAR / 2
        xs = [scale.at(value) for value in values]
        colour = _colour(name)
        parts.append(_text(_LEFT - 10, middle + 4, name, "e"))
        parts.append(
            f'<line x1="{xs[0]:.1f}" x2="{xs[-1]:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"'
            f' stroke="{colour}" stroke-width="3" opacity="{_PALE}"/>'
        )
        for x, radius in zip(xs, (6, 4.5, 3), strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="{radius}" fill="{colour}"/>')
        told = " · ".join(_short(value) for value in values)
        parts.append(_text(xs[-1] + 10, middle + 4, told, "s"))
        y += _BAR + _GAP
    return foot + 18


class _Log:
    """A logarithmic scale that leaves room for labels on its right."""

    def __init__(self, values: list[float]) -> None:
        self.low = 10 ** math.floor(math.log10(min(values)) - 0.15)
        self.high = max(values) * 1.1

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return _LEFT + max(0.0, share) * (_WIDTH - _LEFT - 150)

    def ticks(self) -> list[float]:
        found, tick = [], float(self.low)
        while tick <= self.high:
            found.append(tick)
            tick *= 10
        return found


def _grid(parts: list[str], scale: _Log, top: float, foot: float) -> None:
    for tick in scale.ticks():
        x = scale.at(tick)
        parts.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{foot:.1f}"/>')
        parts.append(_text(x, foot + 13, f"{tick:,.0f}", "s m"))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
