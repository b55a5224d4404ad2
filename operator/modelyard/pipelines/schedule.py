"""Which scheduled runs are due, and what they are called.

A schedule is judged by the minutes it names, not by timers: from the last minute that was dealt with to
now.  An operator that was away finds what it missed, and ``catchUp`` says what becomes of it.  A run is
named by its minute in UTC, so the same minute never makes two.

Daylight saving: a local minute that does not exist on that day runs when the clock has jumped (02:30 at
03:00 or 03:30); one that exists twice runs once, the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from modelyard.api.names import change_run_name, scheduled_run_name
from modelyard.pipelines.compile import Dumps, as_document, canonical
from modelyard.pipelines.errors import PipelineError

#: How many missed minutes ``catchUp: all`` makes up for; more would be a flood after a long absence.
MAX_CATCH_UP = 100
#: Times are searched at most so far back.
MAX_LOOK_BACK = timedelta(days=400)


@dataclass(frozen=True)
class DueRun:
    """A run to be made: its name, and its minute, which is also its logical time."""

    name: str
    at: datetime


@dataclass(frozen=True)
class Plan:
    """What the schedules ask for now."""

    create: tuple[DueRun, ...] = ()
    replace: tuple[str, ...] = ()
    """Active runs to cancel first (concurrency Replace)."""
    skipped: tuple[DueRun, ...] = ()
    """Due, and not made: missed (catchUp), or another run is under way (concurrency Forbid)."""
    handled: datetime | None = None
    """The last minute that was dealt with; to be kept in status."""
    next: datetime | None = None
    """When to look again."""


def plan(
    pipeline: str,
    triggers: Mapping[str, Any] | Dumps,
    since: datetime,
    now: datetime,
    active: Sequence[str] = (),
) -> Plan:
    """What is due after ``since`` (the last minute dealt with, or the pipeline's creation) up to ``now``."""
    document = as_document(triggers)
    schedules: Sequence[Mapping[str, Any]] = document.get("schedules") or []
    if not schedules:
        return Plan(handled=since)
    concurrency, catch_up = document.get("concurrency") or "Forbid", document.get("catchUp") or "latest"
    start = max(since, now - MAX_LOOK_BACK)
    found: set[datetime] = set()
    upcoming: list[datetime] = []
    for index, schedule in enumerate(schedules):
        at = f"spec.triggers.schedules[{index}]"
        past, following = times(str(schedule["cron"]), str(schedule.get("timeZone") or "Etc/UTC"), start, now, at)
        found.update(past)
        upcoming += [following] if following else []
    due = [DueRun(scheduled_run_name(pipeline, minute), minute) for minute in sorted(found)]
    handled = due[-1].at if due else since
    wanted, missed = _catch_up(due, str(catch_up), now)
    create, replace, skipped = _concurrency(wanted, str(concurrency), active)
    following = min(upcoming) if upcoming else None
    if skipped and concurrency == "Forbid" and catch_up == "all":
        # These wait for their turn instead of being lost: only what was made counts as dealt with.
        handled = create[-1].at if create else (missed[-1].at if missed else since)
        skipped = ()
    return Plan(tuple(create), tuple(replace), (*missed, *skipped), handled, following)


def _catch_up(due: list[DueRun], policy: str, now: datetime) -> tuple[list[DueRun], list[DueRun]]:
    """Those to make, and those that are let go."""
    if not due:
        return [], []
    if policy == "all":
        return due[-MAX_CATCH_UP:], due[:-MAX_CATCH_UP]
    if policy == "none":
        # A minute counts as missed when it has passed a minute ago: no operator is quicker to the second.
        on_time = [run for run in due if now - run.at < timedelta(minutes=1)]
        return on_time[-1:], [run for run in due if run not in on_time[-1:]]
    return due[-1:], due[:-1]


def _concurrency(
    wanted: list[DueRun], policy: str, active: Sequence[str]
) -> tuple[list[DueRun], list[str], tuple[DueRun, ...]]:
    """Those to make, the active runs to cancel, and those that give way."""
    new = [run for run in wanted if run.name not in active]
    if policy == "Allow" or not new:
        return new, [], ()
    if policy == "Replace":
        return new[-1:], list(active), tuple(new[:-1])
    if active:
        return [], [], tuple(new)
    return new[:1], [], tuple(new[1:])


def times(
    cron: str, zone: str, after: datetime, until: datetime, at: str = "spec.triggers.schedules"
) -> tuple[list[datetime], datetime | None]:
    """The minutes (UTC) of a schedule in ``(after, until]``, and the first one later.

    Minutes are found in local time without a zone and then put into the zone, so that the two days a year
    on which clocks jump have an answer that does not depend on the library.
    """
    try:
        tz = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PipelineError(f"{at}.timeZone", f"there is no time zone {zone!r}") from None
    # Local time is at most a day off, and a jump at most a few hours: begin early, and drop what is before.
    begin = (after.astimezone(tz) - timedelta(hours=4)).replace(tzinfo=None)
    try:
        if len(cron.split()) != 5:
            raise ValueError("write minute, hour, day of the month, month and day of the week")
        ticks = croniter(cron, begin, ret_type=datetime)
    except (ValueError, KeyError) as error:
        raise PipelineError(f"{at}.cron", f"{cron!r} is no schedule: {error}") from None
    # A schedule of every hour goes on through the hour that comes twice; one of a certain hour runs once.
    folds = (0, 1) if cron.split()[1].startswith("*") else (0,)
    found: set[datetime] = set()
    beyond: set[datetime] = set()
    while True:
        try:
            local = ticks.get_next()
        except (ValueError, KeyError):
            break  # 30 February: it never comes
        moments = {local.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in folds}
        found.update(moment for moment in moments if after < moment <= until)
        beyond.update(moment for moment in moments if moment > until)
        # Around a jump, local order is not the order of time: look a little further than the first one
        # beyond.
        if min(moments) > until + timedelta(hours=4):
            break
    return sorted(found), min(beyond, default=None)


def pipeline_digest(spec: Mapping[str, Any] | Dumps, code_digest: str | None = None) -> str:
    """The hash of what a change of means another model: steps, parameters, dataset and code."""
    document = as_document(spec)
    fields = ("steps", "pipelineSpec", "platformSpec", "pipelineFrom", "parameters", "dataset", "model")
    covered = {name: document.get(name) for name in fields} | {
        "code": document.get("code"),
        "digest": code_digest,
    }
    return "sha256:" + hashlib.sha256(canonical(covered).encode()).hexdigest()


def change_run(pipeline: str, digest: str) -> str:
    """The name of the run for this state of the pipeline: the same state gives no second run."""
    return change_run_name(pipeline, digest)


def prune(runs: Iterable[tuple[str, str, datetime]], succeeded: int, failed: int) -> list[str]:
    """The finished runs, as (name, phase, finished at), beyond a pipeline's ``historyLimit``."""
    ordered = sorted(runs, key=lambda run: (run[2], run[0]), reverse=True)
    good = [name for name, phase, _ in ordered if phase == "Succeeded"]
    bad = [name for name, phase, _ in ordered if phase in ("Failed", "Cancelled")]
    return [*good[succeeded:], *bad[failed:]]
