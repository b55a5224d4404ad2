"""A run's status while a decision is made: the API's ``PipelineRunStatus``, read, changed and written back.

The engine keeps no state of its own.  What it has to remember stands in the fields that users read: an
attempt has a ``job`` once that Job has been seen, a step has ``retryAt`` while it waits,
``publishedAttempt`` says whose outputs are the step's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from modelyard.api.pipelinerun import StepPhase
from modelyard.pipelines.observe import timestamp


def rfc3339(moment: datetime) -> str:
    """A time as status has it."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass
class Attempt:
    """One attempt of a step; it has ended when it has ``finished``."""

    number: int
    job: str = ""
    pod: str = ""
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = None
    infrastructure: bool = False
    reason: str = ""
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in ``status.steps[].attempts[]``."""
        return _present(
            {
                "number": self.number, "job": self.job, "pod": self.pod, "startedAt": _time(self.started),
                "finishedAt": _time(self.finished), "exitCode": self.exit_code,
                "infrastructure": self.infrastructure or None, "reason": self.reason, "message": self.message,
            }
        )  # fmt: skip


@dataclass
class StepState:
    """One step."""

    name: str
    phase: StepPhase = StepPhase.PENDING
    attempts: list[Attempt] = field(default_factory=list)
    cached: bool = False
    cached_from: str = ""
    cache_key: str = ""
    outputs: Mapping[str, Any] | None = None
    published_attempt: int | None = None
    started: datetime | None = None
    finished: datetime | None = None
    retry_at: datetime | None = None
    reason: str = ""
    message: str = ""

    @property
    def current(self) -> Attempt | None:
        """The attempt under way."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].finished is None else None

    def failures(self, infrastructure: bool) -> int:
        """How many attempts failed, of one kind."""
        return sum(1 for a in self.attempts if a.finished and a.reason and a.infrastructure is infrastructure)

    def end(self, phase: StepPhase, now: datetime, reason: str = "", message: str = "") -> None:
        """The step's last change."""
        self.phase, self.finished, self.retry_at = phase, now, None
        self.reason, self.message = reason, message

    def to_dict(self) -> dict[str, Any]:
        """As in ``status.steps[]``."""
        last = self.attempts[-1] if self.attempts else None
        return _present(
            {
                "name": self.name, "phase": str(self.phase), "attempts": [a.to_dict() for a in self.attempts],
                "cached": self.cached, "cacheKey": self.cache_key, "cachedFrom": self.cached_from,
                "job": last.job if last else "", "pod": last.pod if last else "",
                "outputs": dict(self.outputs) if self.outputs is not None else None,
                "publishedAttempt": self.published_attempt, "startedAt": _time(self.started),
                "finishedAt": _time(self.finished), "retryAt": _time(self.retry_at),
                "exitCode": last.exit_code if last else None, "reason": self.reason, "message": self.message,
            }
        )  # fmt: skip


def read_steps(status: Mapping[str, Any], names: Iterable[str]) -> dict[str, StepState]:
    """The steps in ``status``, with those added that it does not have yet, in the order of ``names``."""
    stored = {step["name"]: step for step in status.get("steps") or []}
    return {name: _step(stored[name]) if name in stored else StepState(name) for name in names}


def _step(stored: Mapping[str, Any]) -> StepState:
    return StepState(
        name=stored["name"],
        phase=StepPhase(stored.get("phase") or "Pending"),
        attempts=[_attempt(item) for item in stored.get("attempts") or []],
        cached=bool(stored.get("cached")),
        cached_from=stored.get("cachedFrom") or "",
        cache_key=stored.get("cacheKey") or "",
        outputs=stored.get("outputs") if stored.get("phase") == "Succeeded" else None,
        published_attempt=stored.get("publishedAttempt"),
        started=timestamp(stored.get("startedAt")),
        finished=timestamp(stored.get("finishedAt")),
        retry_at=timestamp(stored.get("retryAt")),
        reason=stored.get("reason") or "",
        message=stored.get("message") or "",
    )


def _attempt(stored: Mapping[str, Any]) -> Attempt:
    return Attempt(
        number=int(stored["number"]),
        job=stored.get("job") or "",
        pod=stored.get("pod") or "",
        started=timestamp(stored.get("startedAt")),
        finished=timestamp(stored.get("finishedAt")),
        exit_code=stored.get("exitCode"),
        infrastructure=bool(stored.get("infrastructure")),
        reason=stored.get("reason") or "",
        message=stored.get("message") or "",
    )


def _time(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, "")}


def condition(
    previous: Iterable[Mapping[str, Any]], kind: str, value: str, reason: str, message: str, now: datetime
) -> dict[str, Any]:
    """A condition; its transition time moves only when its status does."""
    since = rfc3339(now)
    for item in previous:
        if item.get("type") == kind and item.get("status") == value:
            since = item.get("lastTransitionTime") or since
    return {
        "type": kind, "status": value, "reason": reason, "message": message[:1024], "lastTransitionTime":
        since,
    }  # fmt: skip
