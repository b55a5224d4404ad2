"""PipelineRun: one run of a TrainingPipeline, frozen at its creation."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.common import (
    Bool,
    FreeForm,
    Int,
    Items,
    Model,
    Name,
    PrinterColumn,
    Resource,
    Rule,
    Status,
    StatusModel,
    Time,
    immutable,
)


class RunPhase(StrEnum):
    """Where a run is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED)


class StepPhase(StrEnum):
    """Where a step is. A step taken from the cache is Succeeded, with `cached: true`."""

    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.SKIPPED, StepPhase.CANCELLED)


class Trigger(StrEnum):
    """Why a run was made."""

    MANUAL = "Manual"
    SCHEDULE = "Schedule"
    CHANGE = "Change"
    DRIFT = "Drift"


class PipelineRunSpec(Model):
    """Which pipeline, with what; only `suspend` and `cancel` may change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *immutable("pipeline", "parameters", "asOf", "resumeFrom", "trigger"),
        Rule("!oldSelf.cancel || self.cancel", "cancel cannot be taken back; make a run with resumeFrom"),
    )

    pipeline: Name
    """The TrainingPipeline."""
    parameters: FreeForm = Field(default_factory=dict)
    """Parameters that differ from the pipeline's."""
    as_of: Time | None = None
    """The logical time: the run sees what was known then. Left out: when it is created."""
    resume_from: Name | None = None
    """An earlier run, whose succeeded steps are taken over where nothing they depend on changed."""
    trigger: Trigger = Trigger.MANUAL
    """Why the run was made."""
    suspend: Bool = False
    """Whether no further step is started for now."""
    cancel: Bool = False
    """Whether the run is to end; what runs is stopped."""


class Frozen(StatusModel):
    """What was resolved when the run was made: pipeline, images, parameters."""

    uri: str
    """Where it is kept."""
    digest: str
    """Its SHA-256."""


class Attempt(StatusModel):
    """One attempt at a step."""

    number: Int
    """Counts from 1."""
    job: str | None = None
    """Its Job."""
    pod: str | None = None
    """Its pod."""
    node: str | None = None
    """The node it ran on."""
    started_at: Time | None = None
    """When its Job was made."""
    finished_at: Time | None = None
    """When it ended."""
    exit_code: Int | None = None
    """With what the container ended."""
    infrastructure: Bool = False
    """Whether it was lost to eviction, preemption or a node, which counts against another budget."""
    reason: str | None = None
    """Why it failed, as one word."""
    message: str | None = None
    """Why it failed."""


class StepStatus(StatusModel):
    """Where one step of the run is."""

    name: str
    """The step; inside loops and nested pipelines its path, as in `for-loop-1/0/train`."""
    phase: StepPhase
    """Where it is."""
    attempts: Annotated[tuple[Attempt, ...], Items(key="number")] = ()
    """What was tried."""
    cached: Bool = False
    """Whether outputs of an earlier step were taken."""
    cache_key: str | None = None
    """Hash of the component, its image digest, arguments and the digests of its inputs."""
    cached_from: str | None = None
    """The run whose outputs were taken."""
    job: str | None = None
    """The Job of the attempt under way, or the last."""
    pod: str | None = None
    """The pod of that attempt."""
    outputs: FreeForm = Field(default_factory=dict)
    """What was published: parameters and artifacts."""
    published_attempt: Int | None = None
    """The attempt whose outputs these are."""
    started_at: Time | None = None
    """When the first attempt started."""
    finished_at: Time | None = None
    """When the step ended."""
    retry_at: Time | None = None
    """When the next attempt starts."""
    exit_code: Int | None = None
    """With what the last attempt ended."""
    reason: str | None = None
    """Why it is in this phase, as one word."""
    message: str | None = None
    """Why it is in this phase."""


class PipelineRunStatus(Status):
    """Where the run is."""

    phase: RunPhase | None = None
    """Where it is."""
    progress: str | None = None
    """Steps done, of all: `4/7`."""
    as_of: Time | None = None
    """The logical time that was used."""
    started_at: Time | None = None
    """When it started."""
    finished_at: Time | None = None
    """When it ended."""
    frozen: Frozen | None = None
    """What was resolved when the run was made."""
    pipeline_digest: str | None = None
    """Hash of steps and parameters."""
    steps: Annotated[tuple[StepStatus, ...], Items(key="name")] = ()
    """Where each step is."""
    spilled: Frozen | None = None
    """Where finished steps of a large run are kept, which no longer fit into this object."""
    model_version: str | None = None
    """The ModelVersion that was registered."""
    reason: str | None = None
    """Why it is in this phase, as one word."""
    message: str | None = None
    """Why it is in this phase."""


class PipelineRun(Resource):
    """One run of a TrainingPipeline."""

    plural = "pipelineruns"
    short_name = "run"
    columns = (
        PrinterColumn("Pipeline", ".spec.pipeline"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Progress", ".status.progress"),
        PrinterColumn("Version", ".status.modelVersion"),
        PrinterColumn("Started", ".status.startedAt", "date"),
        PrinterColumn("Finished", ".status.finishedAt", "date"),
        PrinterColumn("Trigger", ".spec.trigger", priority=1),
        PrinterColumn("As Of", ".status.asOf", priority=1),
        PrinterColumn("Message", ".status.message", priority=1),
    )

    kind: Literal["PipelineRun"] = "PipelineRun"
    spec: PipelineRunSpec
    status: PipelineRunStatus = PipelineRunStatus()
