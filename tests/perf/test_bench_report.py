"""The table, the plot and the targets of a benchmark's results."""

import xml.etree.ElementTree as ET

from perf.bench.report import BEGIN, END, write_reports


def closed(contender, connections, cpu_us, number=0):
    return {
        "contender": contender, "scenario": f"closed {connections}", "round": number,
        "loop": "closed", "rps": 1e6 / cpu_us, "cpu_us": cpu_us, "user_us": cpu_us / 2,
        "system_us": cpu_us / 2, "p50_us": 100, "p99_us": 300, "p999_us": 900, "failed": 0,
    }  # fmt: skip


def opened(contender, scenario, p50_us):
    return {
        "contender": contender, "scenario": scenario, "round": 0, "loop": "open", "rate": 1000,
        "p50_us": p50_us, "p99_us": p50_us * 3, "p999_us": p50_us * 9, "max_us": p50_us * 10,
        "cpu_us": 50.0, "missed": 0, "failed": 0, "unanswered": 0,
    }  # fmt: skip


def value(mode="full"):
    records = [
        *(closed("nginx", 32, cpu, number) for number, cpu in enumerate((10, 20, 30))),
        *(closed("mcpx protected", 32, cpu, number) for number, cpu in enumerate((30, 40, 120))),
        closed("mcpx <bare>", 32, 25),
        opened("direct", "open 500/s on 1", 60),
        opened("mcpx protected", "open 500/s on 1", 250),
        opened("mcpx protected", "open 1000/s on 32", 200),
    ]
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "kernel": "6", "python": "3.11", "time": "2026-01-01T",
                    "load_before": 0.1, "load_after": 0.2},
        "mode": mode, "extensions": True, "integrity": "enforce", "late_us": 500,
        "cpus": {"load and backend": 0, "gateway": 1}, "client_max_rps": 70_000.0,
        "missing": {"go-mcpx": "not found"}, "skipped": [], "records": records,
    }  # fmt: skip


def test_ratios_are_taken_within_a_round_and_targets_say_what_was_not_measured(tmp_path):
    table, _ = write_reports(value(), tmp_path)
    lines = table.read_text().splitlines()

    def row(begin):
        return next(line for line in lines if line.startswith(begin))

    # 3, 2 and 4 times: the median of the ratios, not the ratio of the medians.
    assert row("| CPU a request, all protections, of nginx's") == (
        "| CPU a request, all protections, of nginx's | ≤ 3.7 × | 3.00 × | yes |"
    )
    assert "| 190 µs | **no** |" in row("| p50 added at one connection, open loop")
    assert "not measured" in row("| 10,000 idle connections")
    assert any("go-mcpx: not found" in line for line in lines)


def test_the_plot_is_whole_xml_with_every_contender(tmp_path):
    _, plot = write_reports(value(), tmp_path)
    text = "".join(ET.fromstring(plot.read_text()).itertext())
    for name in ("nginx", "mcpx protected", "mcpx <bare>"):
        assert name in text


def test_the_targets_are_written_into_the_page_after_a_full_run_alone(tmp_path):
    page, folder = tmp_path / "RESULTS.md", tmp_path / "results"
    folder.mkdir()
    before = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    page.write_text(before)
    write_reports(value("quick"), folder)
    assert page.read_text() == before
    write_reports(value("full"), folder)
    text = page.read_text()
    assert text.startswith("head\n")
    assert text.endswith("tail\n")
    assert "old" not in text
    assert "| target |" in text
