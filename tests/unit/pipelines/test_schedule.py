"""Which runs are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.schedule import pipeline_digest, plan, prune, times

DAY = datetime(2026, 1, 5, tzinfo=UTC)


def triggers(cron: str = "0 3 * * *", zone: str = "Etc/UTC", **more: Any) -> dict[str, Any]:
    return {"schedules": [{"cron": cron, "timeZone": zone}], **more}


def test_a_run_is_due_once_and_named_by_its_minute() -> None:
    now = DAY + timedelta(hours=3)
    found = plan("p", triggers(), DAY, now)
    assert [run.name for run in found.create] == ["p-202601050300"]
    assert found.handled == now
    again = plan("p", triggers(), found.handled, now + timedelta(minutes=5))
    assert again.create == ()
    assert again.next == now + timedelta(days=1)


@pytest.mark.parametrize(("policy", "made", "missed"), [("latest", 1, 2), ("none", 0, 3), ("all", 3, 0)])
def test_what_was_missed(policy: str, made: int, missed: int) -> None:
    found = plan("p", triggers(catchUp=policy, concurrency="Allow"), DAY, DAY + timedelta(days=3))
    assert (len(found.create), len(found.skipped)) == (made, missed)


def test_concurrency() -> None:
    now = DAY + timedelta(hours=3)
    forbid = plan("p", triggers(), DAY, now, ["other"])
    assert not forbid.create
    assert len(forbid.skipped) == 1
    assert forbid.handled == now
    replace = plan("p", triggers(concurrency="Replace"), DAY, now, ["other"])
    assert len(replace.create) == 1
    assert replace.replace == ("other",)
    allow = plan("p", triggers(concurrency="Allow"), DAY, now, ["other"])
    assert len(allow.create) == 1
    assert not allow.replace


def test_all_that_was_missed_runs_one_after_the_other() -> None:
    since, until, made = DAY, DAY + timedelta(days=3), []
    for _ in range(10):
        busy = plan("p", triggers(catchUp="all"), since, until, ["other"])
        assert not busy.create
        assert busy.handled == since
        found = plan("p", triggers(catchUp="all"), since, until)
        made += [run.at.day for run in found.create]
        assert found.handled is not None
        since = found.handled
    assert made == [5, 6, 7]


def local(cron: str, zone: str, day: datetime) -> list[str]:
    found, _ = times(cron, zone, day, day + timedelta(hours=30))
    return [f"{moment:%d %H:%M}" for moment in found]


def test_the_day_on_which_an_hour_is_missing() -> None:
    day = datetime(2026, 3, 28, 23, tzinfo=UTC)  # midnight of the 29th in Berlin; 02:00 becomes 03:00
    assert local("30 2 * * *", "Europe/Berlin", day)[:1] == ["29 01:30"]
    hourly = local("0 * * * *", "Europe/Berlin", day)
    assert len(hourly) == len(set(hourly)) == 30
    assert hourly == sorted(hourly)


def test_the_day_on_which_an_hour_comes_twice() -> None:
    day = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight of the 25th in Berlin; 03:00 becomes 02:00
    assert [t for t in local("30 2 * * *", "Europe/Berlin", day) if t.startswith("25")] == ["25 00:30"]
    halves = local("*/30 * * * *", "Europe/Berlin", day)
    assert len(halves) == len(set(halves)) == 60


def test_schedules_that_make_no_sense() -> None:
    with pytest.raises(PipelineError, match="timeZone"):
        plan("p", triggers(zone="Mars/Base"), DAY, DAY)
    with pytest.raises(PipelineError, match="cron"):
        plan("p", triggers("61 * * * *"), DAY, DAY)
    assert plan("p", triggers("0 0 30 2 *"), DAY, DAY + timedelta(days=1)).create == ()
    assert plan("p", {}, DAY, DAY).next is None


def test_a_pipeline_is_known_by_what_changes_the_model() -> None:
    spec = {"steps": [{"name": "a"}], "parameters": {"x": 1}, "triggers": {"onChange": True}}
    assert pipeline_digest(spec) == pipeline_digest({**spec, "triggers": {}})
    assert pipeline_digest(spec) != pipeline_digest({**spec, "parameters": {"x": 2}})
    assert pipeline_digest(spec) != pipeline_digest(spec, "sha256:code")


def test_history() -> None:
    runs = [(f"r{i}", "Succeeded" if i % 2 else "Failed", DAY + timedelta(days=i)) for i in range(6)]
    assert sorted(prune(runs, 1, 2)) == ["r0", "r1", "r3"]
