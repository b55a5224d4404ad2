"""Which version is in Production and in Staging: ``decide(name, spec, status, versions, now) -> Decision``.

`Model.status` is the fact, and the only place where it is. A version's own stage and its gates are
derived here for people to read.

Production moves in four ways, and each leaves an entry in the history: a pin in `spec.production`, a
model's first version that passes its gates, a rollout that succeeds (`promote`), and a version that does
not exist any more never moves it. Rejected is what a rollout says of a version (`reject`); it is a
condition of the ModelVersion, written before `lastJudged` moves past it, and there is no way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from modelyard.api.model import HistoryEntry, Model, ModelSpec, ModelStatus
from modelyard.api.modelversion import ModelVersion, Stage

HISTORY = 100
"""Entries kept; the oldest but the first gives way, and the entry after the gap says so."""
OLDER = "(older entries were dropped) "


@dataclass(frozen=True)
class Said:
    """A condition; `version` says whose, None the Model's own."""

    type: str
    status: bool
    reason: str
    message: str = ""
    version: int | None = None


@dataclass(frozen=True)
class Event:
    """Something to tell about the Model; `reason` is one of the typed reasons."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Passed:
    """A rollout that a pin keeps from ending: `version` has passed all it may try in `serving_deployment`."""

    serving_deployment: str
    version: int


@dataclass(frozen=True)
class Decision:
    """The new status (without conditions), what to say, and each version's stage."""

    status: ModelStatus
    conditions: tuple[Said, ...] = ()
    events: tuple[Event, ...] = ()
    stages: Mapping[int, Stage] = field(default_factory=dict)


def decide(
    spec: ModelSpec,
    status: ModelStatus,
    versions: Iterable[ModelVersion],
    now: datetime,
    passed: Sequence[Passed] = (),
) -> Decision:
    """Where everything is. `versions` are the Model's own ModelVersions; deciding again changes nothing."""
    by_number = {version.spec.version: version for version in versions}
    rejected = rejected_versions(by_number.values())
    blocked = {number: gate_problem(spec, status, version) for number, version in by_number.items()}
    fit = [number for number in sorted(by_number) if not blocked[number] and number not in rejected]
    ready = _missing_pin(spec, by_number)
    events: list[Event] = []
    latest = max([status.latest or 0, *by_number])
    if latest and latest != status.latest:
        status = status.model_copy(update={"latest": latest})
    if ready is None:
        before = status
        status = _production(spec, status, fit, now)
        if status.production != before.production and status.production is not None:
            reason = status.history[-1].reason
            events.append(Event("VersionPromoted", f"version {status.production} is in Production: {reason}"))
        staging = _staging(spec, status, fit, rejected)
        if staging != status.staging:
            status = status.model_copy(update={"staging": staging})
            if staging is not None:
                events.append(Event("VersionStaged", f"version {staging} is in Staging"))
        ready = _ready(status, by_number, blocked)
    said = [ready, _promotion_ready(spec, passed)]
    for number in sorted(by_number):
        why = blocked[number]
        said.append(Said("GatesPassed", not why, "GateFailed" if why else "GatesPassed", why, number))
    return Decision(status, tuple(said), tuple(events), stages(status, by_number))


def gate_problem(spec: ModelSpec, status: ModelStatus, version: ModelVersion) -> str:
    """Why a version may not be rolled out; empty if it may. A metric that was not measured has not passed."""
    problems = []
    for gate in spec.gates.metrics:
        value = version.spec.metrics.get(gate.name)
        if value is None:
            problems.append(f"metric {gate.name} is missing from the version's metrics")
        elif gate.min is not None and value < gate.min:
            problems.append(f"{gate.name} is {value:g}, the gate asks for at least {gate.min:g}")
        elif gate.max is not None and value > gate.max:
            problems.append(f"{gate.name} is {value:g}, the gate asks for at most {gate.max:g}")
    if spec.gates.approvals:
        people = {approval.by for approval in status.approvals if approval.version == version.spec.version}
        if len(people) < spec.gates.approvals:
            problems.append(f"{len(people)} of {spec.gates.approvals} approvals")
    if spec.gates.signature:
        problems.append("gates.signature is not supported yet: set it to false")
    return "; ".join(problems)


def rejected_versions(versions: Iterable[ModelVersion]) -> frozenset[int]:
    """The versions that a rollout rejected."""
    return frozenset(version.spec.version for version in versions if version.status.is_true("Rejected"))


def promote(
    spec: ModelSpec, status: ModelStatus, version: int, reason: str, *, by: str, now: datetime
) -> ModelStatus:
    """The status after a rollout succeeded; unchanged where a pin holds Production or it is there."""
    if spec.production is not None or version == status.production or version <= (status.last_judged or 0):
        return status
    moved = _move(status, version, by, reason, now)
    return moved.model_copy(update=_judged(moved, version))


@dataclass(frozen=True)
class Rejection:
    """What a rejection writes: first the version's condition, then the Model's status."""

    condition: Said
    status: ModelStatus


def reject(status: ModelStatus, version: int, reason: str) -> Rejection:
    """The version is marked, for good, and leaves Staging; Production never was the candidate's."""
    return Rejection(
        Said("Rejected", True, "RolloutFailed", reason, version),
        status.model_copy(update=_judged(status, version)),
    )


def rollback_target(status: ModelStatus, versions: Iterable[ModelVersion]) -> int | None:
    """The last version that was in Production before this one, exists, and was not rejected."""
    versions = list(versions)
    rejected = rejected_versions(versions)
    there = {version.spec.version for version in versions} - rejected - {status.production}
    for entry in reversed(status.history):
        for number in (entry.to, entry.from_):
            if number in there:
                return number
    return None


def stages(status: ModelStatus, versions: Iterable[int]) -> dict[int, Stage]:
    """Each version's stage, derived: what was in Production once and is not now is Archived."""
    served = {entry.to for entry in status.history} | {entry.from_ for entry in status.history}
    judged = status.last_judged or 0

    def stage(number: int) -> Stage:
        if number == status.production:
            return Stage.PRODUCTION
        if number == status.staging:
            return Stage.STAGING
        return Stage.ARCHIVED if number in served or number <= judged else Stage.NONE

    return {number: stage(number) for number in versions}


def owns(model: Model, version: ModelVersion) -> bool:
    """Whether the version is the Model's."""
    return (
        version.spec.model == model.metadata.name and version.metadata.namespace == model.metadata.namespace
    )


def _missing_pin(spec: ModelSpec, versions: Mapping[int, ModelVersion]) -> Said | None:
    for name, pin in (("production", spec.production), ("staging", spec.staging)):
        if pin is not None and pin not in versions:
            message = f"spec.{name} is {pin}, and there is no such version; nothing moves"
            return Said("Ready", False, "VersionNotFound", message)
    if spec.production is not None and versions[spec.production].status.is_true("Rejected"):
        message = f"spec.production is {spec.production}, which its rollout rejected; nothing moves"
        return Said("Ready", False, "RolloutFailed", message)
    for alias, number in spec.aliases.items():
        if number not in versions:
            message = f"spec.aliases.{alias} is {number}, and there is no such version; nothing moves"
            return Said("Ready", False, "VersionNotFound", message)
    return None


def _production(spec: ModelSpec, status: ModelStatus, fit: Sequence[int], now: datetime) -> ModelStatus:
    if spec.production is not None:
        if spec.production == status.production:
            return status
        return _move(status, spec.production, "spec.production", "pinned", now)
    if status.production is None and fit:
        moved = _move(status, fit[0], "registry", "the first version that passed its gates", now)
        return moved.model_copy(update={"last_judged": max(moved.last_judged or 0, fit[0])})
    return status


def _staging(
    spec: ModelSpec, status: ModelStatus, fit: Sequence[int], rejected: frozenset[int]
) -> int | None:
    judged = status.last_judged or 0
    if spec.staging is not None:
        usable = spec.staging not in rejected and spec.staging != status.production
        return spec.staging if usable and spec.staging > judged else None
    newest = fit[-1] if fit else None
    return newest if newest is not None and newest > judged and newest != status.production else None


def _ready(status: ModelStatus, versions: Mapping[int, ModelVersion], blocked: Mapping[int, str]) -> Said:
    if status.production is not None:
        if status.production not in versions:
            message = f"version {status.production} is in Production and its ModelVersion was deleted"
            return Said("Ready", False, "VersionNotFound", message)
        return Said("Ready", True, "Reconciled", f"version {status.production} is in Production")
    if not versions:
        return Said("Ready", False, "NoVersion", "no version is registered yet")
    newest = max(versions)
    return Said("Ready", False, "GateFailed", f"version {newest}: {blocked[newest] or 'rejected'}")


def _promotion_ready(spec: ModelSpec, passed: Sequence[Passed]) -> Said:
    kind: Literal["PromotionReady"] = "PromotionReady"
    if spec.production is None:
        return Said(kind, False, "Pending", "Production is not pinned: rollouts move it")
    waiting = [p for p in passed if p.version != spec.production]
    if not waiting:
        return Said(kind, False, "Pinned", f"Production is pinned to version {spec.production}")
    best = max(waiting, key=lambda p: p.version)
    message = (
        f"version {best.version} has passed its rollout in {best.serving_deployment}: "
        f"set spec.production to {best.version} (now {spec.production})"
    )
    return Said(kind, True, "AwaitingMerge", message)


def _judged(status: ModelStatus, version: int) -> dict[str, int | None]:
    staging = None if status.staging == version else status.staging
    return {"last_judged": max(status.last_judged or 0, version), "staging": staging}


def _move(status: ModelStatus, to: int, by: str, reason: str, now: datetime) -> ModelStatus:
    entry = HistoryEntry.model_validate(
        {"at": now, "by": by, "from": status.production, "to": to, "reason": reason}
    )
    history = [*status.history, entry]
    if len(history) > HISTORY:
        oldest = history[len(history) - HISTORY + 1]
        if not oldest.reason.startswith(OLDER):
            oldest = oldest.model_copy(update={"reason": OLDER + oldest.reason})
        history = [history[0], oldest, *history[len(history) - HISTORY + 2 :]]
    staging = None if status.staging == to else status.staging
    return status.model_copy(update={"production": to, "staging": staging, "history": tuple(history)})
