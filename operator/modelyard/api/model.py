"""Model: the registry's one mutable object per model. It says which version is in Production."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api import common
from modelyard.api.common import (
    Bool,
    Int,
    Items,
    Number,
    PrinterColumn,
    Resource,
    Rule,
    Status,
    StatusModel,
    Text,
    Time,
    VersionNumber,
    ordered,
)


class MetricGate(common.Model):
    """What a metric of a version must reach."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.min) || has(self.max)",
            "a gate needs min or max",
            lambda g: g.min is not None or g.max is not None,
        ),
        ordered("min", "max"),
    )

    name: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.:@/-]*$", max_length=63)]
    """A key of the version's `metrics`."""
    min: Number | None = None
    """At least."""
    max: Number | None = None
    """At most."""


class Gates(common.Model):
    """What a version must pass before it is rolled out."""

    metrics: Annotated[tuple[MetricGate, ...], Items(64, key="name")] = ()
    """Limits of its metrics."""
    approvals: Annotated[int, Field(strict=True, ge=0, le=10)] = 0
    """How many people must have approved."""
    signature: Bool = False
    """Whether the artifact must be signed."""


class ModelSpec(common.Model):
    """Who owns the model, what its versions must pass, and which are pinned."""

    description: Text | None = None
    """What the model predicts."""
    owner: Annotated[str, Field(max_length=253)] | None = None
    """Who answers for it."""
    production: VersionNumber | None = None
    """A pin: this version, at once. Left out: rollouts move it."""
    staging: VersionNumber | None = None
    """A pin: roll this version out. Left out: the newest that passed its gates."""
    aliases: Annotated[dict[str, VersionNumber], Field(max_length=64)] = Field(default_factory=dict)
    """Names for versions."""
    gates: Gates = Gates()
    """What a version must pass. Left out: nothing."""


class Reservation(StatusModel):
    """A version number that was given to a run."""

    run: str
    """The run."""
    version: Int
    """The number; given once and never again."""


class Approval(StatusModel):
    """Somebody's approval of a version."""

    version: Int
    """The version."""
    by: str
    """Who approved."""
    at: Time | None = None
    """When it was seen."""


class HistoryEntry(StatusModel):
    """A change of what is in Production."""

    at: Time
    """When."""
    by: str
    """Who: a person, or a ServingDeployment's rollout."""
    from_: Annotated[int | None, Field(alias="from")] = None
    """The version before; none at first."""
    to: Int
    """The version after."""
    reason: str
    """Why."""


class ModelStatus(Status):
    """The fact: what is where."""

    production: Int | None = None
    """The version in Production."""
    staging: Int | None = None
    """The version in Staging: the next to be rolled out."""
    latest: Int | None = None
    """The last number given."""
    last_judged: Int | None = None
    """The last version that a rollout decided about."""
    reservations: Annotated[tuple[Reservation, ...], Items(key="run")] = ()
    """Numbers given to runs that have not registered yet."""
    approvals: Annotated[tuple[Approval, ...], Items()] = ()
    """Approvals of versions that are not in Production yet."""
    history: Annotated[tuple[HistoryEntry, ...], Items()] = ()
    """What was in Production, oldest first."""


class Model(Resource):
    """A model and its versions' stages."""

    plural = "models"
    short_name = "mdl"
    columns = (
        PrinterColumn("Production", ".status.production", "integer"),
        PrinterColumn("Staging", ".status.staging", "integer"),
        PrinterColumn("Latest", ".status.latest", "integer"),
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        PrinterColumn("Pin", ".spec.production", "integer", priority=1),
        PrinterColumn("Owner", ".spec.owner", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    kind: Literal["Model"] = "Model"
    spec: ModelSpec = ModelSpec()
    status: ModelStatus = ModelStatus()
