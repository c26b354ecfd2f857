"""Durations, as Go writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpx.config.durations import DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("250ms", 0.25),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("10μs", 1e-5),
        ("7ns", 7e-9),
        ("0", 0.0),
        ("-0", 0.0),
        ("+0", 0.0),
        ("0s", 0.0),
        ("+5s", 5.0),
        ("-5s", -5.0),
        ("-1m30s", -90.0),
        ("1s1s", 2.0),
        ("1m1h", 3660.0),
        ("0.1s", 0.1),
        ("0.0000000001s", 0.0),
        ("1h0.5m", 3630.0),
        ("2562047h47m16.854775807s", 9223372036.854775807),
    ],
)
def test_what_go_reads_is_read_alike(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no duration"),
        ("-", "no duration"),
        ("+", "no duration"),
        ("30", "no unit after 30; write 30s"),
        ("1h30", "no unit after 30"),
        ("1.5", "no unit"),
        ("s", "not a number with a unit"),
        (".s", "not a number with a unit"),
        ("abc", "not a number with a unit"),
        ("1d", 'unknown unit "d"'),
        ("1 s", 'unknown unit " s"'),
        ("1S", 'unknown unit "S"'),
        (" 1s", "not a number with a unit"),
        ("1s ", 'unknown unit "s "'),
        ("1h-1m", "not a number with a unit"),
        ("--1s", "not a number with a unit"),
        ("1..5s", "no unit after 1."),
        ("1e3s", "unknown unit"),
        ("１s", "not a number with a unit"),
        ("inf", "not a number with a unit"),
        ("2562047h47m16.854775808s", "longer than 292 years"),
        ("9999999999h", "longer than 292 years"),
        ("1s" * 100, "too long"),
        ("9" * 5000 + "s", "too long"),
    ],
)
def test_what_go_refuses_is_refused_and_explained(text, reason):
    with pytest.raises(DurationError) as refused:
        parse_duration(text)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (30, "30s"),
        (60, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (5400, "1h30m"),
        (86400, "24h"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (0.000010, "10us"),
        (7e-9, "7ns"),
        (-90, "-1m30s"),
    ],
)
def test_a_duration_is_written_as_shortly_as_it_is_read(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(0, 10**15))
def test_what_is_written_is_read_back(microseconds):
    seconds = microseconds / 1e6
    # To the nanosecond, as far as a float of so many seconds tells nanoseconds apart.
    read = parse_duration(format_duration(seconds))
    assert abs(read - seconds) <= max(1e-9, math.ulp(seconds))


@given(st.text(max_size=80) | st.text("0123456789.+-smhuµn", max_size=20))
def test_any_text_is_a_finite_number_or_a_duration_error(text):
    try:
        seconds = parse_duration(text)
    except DurationError:
        return
    assert abs(seconds) < 1e10
