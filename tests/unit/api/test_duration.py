"""Durations: what is one, how long it is, and what is said of what is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.duration import Availability, Duration, Latency, PositiveDuration, parse_duration

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("6h", 21600), ("7d", 604800), ("2w", 1209600), ("0s", 0), ("007s", 7)],
)
def test_table(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert Duration(text).timedelta == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6",
        "h",
        "-6h",
        "+6h",
        "6H",
        "1.5h",
        "6 h",
        " 6h",
        "6h ",
        "6h\n",
        "1h30m",
        "200ms",
        "1y",
        "٣s",
        None,
        5,
    ],
)
def test_refused_with_a_remedy(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration; write a whole number and a unit, as in 90s"):
        parse_duration(text)


@given(number=st.integers(0, 999_999_999), unit=st.sampled_from(sorted(UNITS)))
def test_length_is_number_times_unit(number: int, unit: str) -> None:
    assert Duration(f"{number}{unit}").seconds == number * UNITS[unit]


@given(st.text())
def test_anything_else_is_a_value_error_or_a_duration(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds == int(text[:-1]) * UNITS[text[-1]]


def test_a_duration_stays_what_was_written() -> None:
    assert Duration("90m") == "90m"
    assert Duration("90m") != Duration("5400s")


@pytest.mark.parametrize("text", ["0s", "0w", "00m"])
def test_positive(text: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        PositiveDuration(text)


def test_latency_and_availability() -> None:
    assert Latency("200ms").seconds == 0.2
    assert Latency("2s").seconds == 2
    assert Availability("atEvent").seconds == 0
    assert Availability("60m").seconds == 3600
    with pytest.raises(ValueError, match="200ms"):
        Latency("0ms")
    with pytest.raises(ValueError, match="atEvent"):
        Availability("atevent")
