"""Names: deterministic, always names, and different for what is different."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.common import NAME_PATTERN
from modelyard.api.names import (
    change_run_name,
    child_name,
    drift_run_name,
    model_version_name,
    scheduled_run_name,
    short_hash,
)

LABEL = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
object_names = st.from_regex(NAME_PATTERN, fullmatch=True).map(str.strip)
parts = st.lists(st.text(min_size=1, max_size=80), max_size=4)


@pytest.mark.parametrize(
    ("given_parts", "name"),
    [
        (("flight-delay", "v7"), "flight-delay-v7"),
        (("run", "train", 1), "run-train-1"),
        (("flight-delay",), "flight-delay"),
    ],
)
def test_plain_where_it_will_do(given_parts: tuple[object, ...], name: str) -> None:
    assert child_name(str(given_parts[0]), *given_parts[1:]) == name


def test_a_hash_where_it_will_not() -> None:
    assert re.fullmatch("run-train-model-1-[a-z2-7]{10}", child_name("run", "train-model", 1))
    assert re.fullmatch("run-for-loop-1-0-train-1-[a-z2-7]{10}", child_name("run", "for-loop-1/0/Train", 1))
    assert len(child_name("a" * 40, "b" * 63, 1)) == 63


def test_what_reads_alike_is_told_apart() -> None:
    assert child_name("r", "a-b", 1) != child_name("r-a", "b", 1)
    assert child_name("r", "a/b", 1) != child_name("r", "a-b", 1)
    assert child_name("r" * 40, "s" * 60, 1) != child_name("r" * 40, "s" * 60, 2)


@given(prefix=object_names, rest=parts)
def test_always_a_name_and_always_the_same(prefix: str, rest: list[str]) -> None:
    name = child_name(prefix, *rest)
    assert re.fullmatch(LABEL, name)
    assert name == child_name(prefix, *rest)


@given(prefix=object_names, one=parts, other=parts)
def test_different_parts_have_different_names(prefix: str, one: list[str], other: list[str]) -> None:
    assert (child_name(prefix, *one) == child_name(prefix, *other)) == (one == other)


@given(pipeline=object_names, minute=st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)))
def test_run_names_are_names_of_runs(pipeline: str, minute: datetime) -> None:
    for name in (
        scheduled_run_name(pipeline, minute),
        change_run_name(pipeline, "sha256:abc"),
        drift_run_name(pipeline, "sd", 7, minute),
    ):
        assert re.fullmatch(NAME_PATTERN, name)


def test_a_minute_has_one_run_in_whatever_zone() -> None:
    here = datetime(2013, 10, 31, 5, 0, tzinfo=timezone(timedelta(hours=2)))
    assert scheduled_run_name("flight-delay", here) == "flight-delay-201310310300"


def test_the_rest() -> None:
    assert model_version_name("flight-delay", 7) == "flight-delay-7"
    assert re.fullmatch("[a-z2-7]{10}", short_hash("x"))
    assert short_hash("a", "b") != short_hash("ab")
