"""The words of a rollout: what it is told and remembers, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from modelyard.api.servingdeployment import Verdict
from modelyard.serving.analysis import Gauge, Judgement, Ledger, Metric, Reading
from modelyard.serving.pods import Health


@dataclass(frozen=True)
class Step:
    """A weight, how long it is kept at least, and whether a person must agree to leave it."""

    weight: int
    hold: timedelta = timedelta(0)
    approval: bool = False


@dataclass(frozen=True)
class Policy:
    """``spec`` of a ServingDeployment, as far as it decides the rollout."""

    version: int | None = None
    """A pinned version: it serves, and there are no rollouts."""
    replicas: int = 1
    promotes: bool = True
    paused: bool = False
    interval: timedelta = timedelta(seconds=30)
    steps: tuple[Step, ...] = (Step(100),)
    shadow: bool = False
    queue: bool = False
    """`onNewer: queue`; otherwise a newer candidate replaces the one under way."""
    deadline: timedelta | None = None
    promote_at_deadline: bool = False
    metrics: tuple[Metric, ...] = ()
    min_requests: int = 200
    confidence: float = 0.95
    failure_limit: int = 2
    retain: timedelta = timedelta(minutes=10)
    """How long a version that lost its traffic is kept: for a quick way back, and for inspection."""


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended; it stays until the Model shows it."""

    version: int
    promoted: bool
    reason: str
    before: int | None = None
    """What was stable."""


@dataclass(frozen=True)
class State:
    """``status`` of a ServingDeployment, as far as the rollout remembers it."""

    phase: str = "Pending"
    stable: int | None = None
    candidate: int | None = None
    weight: int = 0
    """The candidate's; the stable version has the rest."""
    step: int = 0
    """Counted from 1; 0 while the candidate is loading."""
    started_at: datetime | None = None
    step_at: datetime | None = None
    look_at: datetime | None = None
    look: Verdict | None = None
    """The verdict of the last look in this step."""
    failures: int = 0
    judged: int = 0
    """The newest version that this ServingDeployment has judged."""
    outcome: Outcome | None = None
    ledger: Ledger | None = None
    judgements: tuple[Judgement, ...] = ()
    retiring: tuple[tuple[int, datetime], ...] = ()

    @property
    def traffic(self) -> tuple[tuple[int, int], ...]:
        """(version, weight) of whatever has weight or may get it; empty before there is a stable version."""
        if self.stable is None:
            return ()
        if self.candidate is None:
            return ((self.stable, 100),)
        return ((self.stable, 100 - self.weight), (self.candidate, self.weight))


@dataclass(frozen=True)
class ModelView:
    """What the Model and its versions say."""

    production: int | None = None
    staging: int | None = None
    pinned: bool = False
    """Whether ``spec.production`` is there: then nobody else moves Production."""
    last_judged: int = 0
    versions: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Observed:
    """The world at `now`."""

    model: ModelView = field(default_factory=ModelView)
    pods: Mapping[int, Health] = field(default_factory=dict)
    approve: str = ""
    abort: str = ""
    by: str = "unverified"
    readings: Sequence[Reading] | None = None
    """Raw counters, at every decision if one likes; None where they were not asked for."""
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    unreachable: str = ""
    """Why Prometheus could not be asked."""


@dataclass(frozen=True)
class Promote:
    """The registry is to make `version` Production."""

    version: int
    reason: str


@dataclass(frozen=True)
class Reject:
    """The registry is to mark `version` Rejected."""

    version: int
    reason: str


@dataclass(frozen=True)
class Event:
    """Something to tell: `reason` is one of the typed reasons."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Said:
    """A condition."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


Action = Promote | Reject | Event


@dataclass(frozen=True)
class Decision:
    """What is to be so: write `state` first (guarded), then act; actions may be repeated without harm."""

    state: State
    actions: tuple[Action, ...] = ()
    conditions: tuple[Said, ...] = ()
    objects: Mapping[int, int] = field(default_factory=dict)
    """Versions whose objects must exist, with their replicas; all others are to be removed."""
    again: timedelta | None = None
    """When to decide again without being asked."""
