"""Between the API's words and the rollout's: and the way back by `status_of`.

What users read has fields of its own in status; what only the rollout needs to remember lies in
`status.counters`: the ledger, how the last rollout ended, which versions are kept for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from modelyard.api.model import Model
from modelyard.api.modelversion import ModelVersion
from modelyard.api.servingdeployment import Rollout, ServingDeploymentSpec, ServingDeploymentStatus, Verdict
from modelyard.serving.analysis import Judgement, Ledger, Metric
from modelyard.serving.words import ModelView, Outcome, Policy, State, Step


def policy_of(spec: ServingDeploymentSpec) -> Policy:
    """The rollout's part of a spec."""
    rollout = spec.effective_rollout
    if rollout is None:
        return Policy(version=spec.model.version, replicas=spec.replicas.min)
    return Policy(
        replicas=spec.replicas.min,
        promotes=rollout.promotes,
        paused=rollout.paused,
        interval=rollout.interval.timedelta,
        steps=tuple(Step(s.weight, s.hold.timedelta, s.approval == "manual") for s in rollout.steps),
        shadow=rollout.shadow is not None,
        queue=rollout.on_newer == "queue",
        deadline=rollout.deadline.timedelta,
        promote_at_deadline=rollout.on_deadline == "promote",
        metrics=metrics_of(rollout),
        min_requests=rollout.min_requests,
        confidence=rollout.confidence,
        failure_limit=rollout.failure_limit,
    )


def metrics_of(rollout: Rollout) -> tuple[Metric, ...]:
    """The metrics to judge by."""
    return tuple(
        Metric(
            m.name,
            m.min,
            m.max,
            m.query,
            m.compare.max_increase if m.compare else None,
            m.compare.max_decrease if m.compare else None,
        )
        for m in rollout.metrics
    )


def model_view(model: Model, versions: Iterable[ModelVersion]) -> ModelView:
    """What a rollout sees of a Model and its versions."""
    own = [v for v in versions if v.spec.model == model.metadata.name]
    return ModelView(
        production=model.status.production,
        staging=model.status.staging,
        pinned=model.spec.production is not None,
        last_judged=model.status.last_judged or 0,
        versions=frozenset(v.spec.version for v in own),
        rejected=frozenset(v.spec.version for v in own if v.status.is_true("Rejected")),
    )


def state_of(status: ServingDeploymentStatus) -> State:
    """What the rollout remembers, from status."""
    memory: Mapping[str, Any] = status.counters
    outcome, look = memory.get("outcome"), memory.get("look")
    return State(
        phase=str(status.phase or "Pending"),
        stable=status.stable.version if status.stable else None,
        candidate=status.candidate.version if status.candidate else None,
        weight=status.candidate.weight if status.candidate else 0,
        step=status.step or 0,
        started_at=status.rollout_started_at,
        step_at=status.step_started_at,
        look_at=status.last_looked_at,
        look=Verdict(look) if look else None,
        failures=status.failures or 0,
        judged=memory.get("judged", 0),
        outcome=Outcome(outcome["version"], outcome["promoted"], outcome["reason"], outcome.get("before"))
        if outcome
        else None,
        ledger=Ledger.from_json(memory["ledger"]) if memory.get("ledger") else None,
        judgements=tuple(
            Judgement(
                a.metric,
                a.verdict,
                a.message or "",
                a.value,
                limit=a.threshold,
                samples=round(a.samples or 0),
            )
            for a in status.analysis
        ),
        retiring=tuple(
            (r["version"], datetime.fromisoformat(r["since"])) for r in memory.get("retiring", ())
        ),
    )


def status_of(state: State) -> dict[str, Any]:
    """The fields of status that the rollout owns, as JSON; fields without a value are None, to be removed."""
    outcome = state.outcome
    memory: dict[str, Any] = {
        "judged": state.judged,
        "look": state.look.value if state.look else None,
        "outcome": {
            "version": outcome.version,
            "promoted": outcome.promoted,
            "reason": outcome.reason,
            "before": outcome.before,
        }
        if outcome
        else None,
        "ledger": state.ledger.to_json() if state.ledger else None,
        "retiring": [{"version": v, "since": since.isoformat()} for v, since in state.retiring],
    }
    traffic = [{"version": version, "weight": weight} for version, weight in state.traffic]
    return {
        "phase": state.phase,
        "stable": traffic[0] if traffic else None,
        "candidate": {"version": state.candidate, "weight": state.weight} if state.candidate else None,
        "traffic": traffic,
        "step": state.step if state.candidate else None,
        "stepStartedAt": _time(state.step_at),
        "rolloutStartedAt": _time(state.started_at),
        "lastLookedAt": _time(state.look_at),
        "failures": state.failures if state.candidate else None,
        "analysis": [_entry(judgement) for judgement in state.judgements],
        "counters": {key: value for key, value in memory.items() if value},
    }


def whole_second(now: datetime) -> datetime:
    """The moment as status can hold it: what is read back then equals what was decided."""
    return now - timedelta(microseconds=now.microsecond)


def _entry(judgement: Judgement) -> dict[str, Any]:
    entry = {
        "metric": judgement.metric,
        "verdict": judgement.verdict.value,
        "value": judgement.value,
        "threshold": judgement.limit,
        "samples": judgement.samples,
        "message": judgement.message,
    }
    return {key: value for key, value in entry.items() if value is not None}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None
