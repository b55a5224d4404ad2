"""TrainingPipeline: the steps that make a model, what they learn from, and when they run."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.common import (
    Bool,
    Column,
    Cron,
    FeatureRef,
    FreeForm,
    Int,
    Items,
    KubeName,
    Label,
    Model,
    Name,
    PrinterColumn,
    Resource,
    Rule,
    Status,
    StatusModel,
    Text,
    Time,
    Uri,
    exactly_one,
)
from modelyard.api.duration import Duration, PositiveDuration
from modelyard.api.kubernetes import (
    EnvFromSource,
    EnvVar,
    PodTemplate,
    ResourceRequirements,
    StringMap,
    Toleration,
    VolumeMount,
)

Component = Literal["ingest", "validate", "features", "train", "evaluate", "register", "predict"]
"""The built-in components."""

ArtifactType = Literal[
    "Artifact",
    "Dataset",
    "Model",
    "Metrics",
    "ClassificationMetrics",
    "SlicedClassificationMetrics",
    "HTML",
    "Markdown",
]
ParameterType = Literal["String", "Integer", "Float", "Boolean", "List", "Dict"]
OutputType = Literal[ArtifactType, ParameterType]


class Schedule(Model):
    """One time to run at."""

    cron: Cron
    """Minute, hour, day of the month, month, day of the week."""
    time_zone: Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_+/-]*$", max_length=63)] = "Etc/UTC"
    """Name in the time-zone database."""


class Triggers(Model):
    """When runs are made."""

    on_change: Bool = False
    """Run when steps or parameters change."""
    schedules: Annotated[tuple[Schedule, ...], Items(16)] = ()
    """Run at these times."""
    concurrency: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """While a run is under way: start another, skip the new one, or cancel the old one."""
    catch_up: Literal["latest", "all", "none"] = "latest"
    """Which of the scheduled times to make up for that passed while the operator was away."""
    on_drift: Bool = False
    """Whether a ServingDeployment's `monitoring.onDrift` may start a run."""


class Spine(Model):
    """The rows to learn from: one for each prediction that would have been made."""

    uri: Annotated[str, Field(pattern="^(file|s3|gs)://.+$", max_length=1024)]
    """A file, or a folder that ends with `/`."""
    format: Literal["parquet", "csv"] = "parquet"
    """Format of the files."""
    connection: Name | None = None
    """The Secret with endpoint and credentials of the store."""
    event_timestamp: Column
    """The column with the time of the prediction."""
    id: Column | None = None
    """The column that identifies a row; later predictions are joined to their outcome by it."""


class TrainingLabel(Model):
    """What is to be predicted."""

    column: Column
    """The column with the outcome."""
    available_at: Column | None = None
    """The column that says when the outcome was known. Left out: at the time of the prediction."""


class Window(Model):
    """Which rows of the spine."""

    last: PositiveDuration | None = None
    """Rows whose label became available within so long before `run.asOf`. Left out: all before it."""


class Split(Model):
    """What is kept from training to judge the model by."""

    by: Literal["time"] = "time"
    """`time`: the newest rows."""
    holdout: PositiveDuration
    """How much of the window's end is for the test."""
    embargo: Duration = Duration("0s")
    """Rows so long before the holdout are used for neither."""


class Dataset(Model):
    """What is learnt from what, and as of when."""

    spine: Spine
    """The rows."""
    label: TrainingLabel | None = None
    """The outcome."""
    features: Annotated[tuple[FeatureRef, ...], Items(512, unique=True)] = ()
    """Features as `view:name`, or `namespace/view:name`; joined as they were known at each row's time."""
    window: Window | None = None
    """Which rows. Left out: all whose label was available at `run.asOf`."""
    split: Split | None = None
    """Training and test."""


class GitSource(Model):
    """A folder of a Git repository."""

    url: Annotated[str, Field(pattern="^(https?|ssh|git|file)://.+|^[^/@]+@[^:]+:.+$", max_length=1024)]
    """The repository."""
    ref: Annotated[str, Field(min_length=1, max_length=255)] = "HEAD"
    """Branch, tag or commit; a run keeps the commit it found."""
    path: Annotated[str, Field(max_length=1024)] = "."
    """The folder."""


class Code(Model):
    """Files mounted at /code in every step."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one(("config_map", "configMap"), ("git", "git")),)

    config_map: KubeName | None = None
    """A ConfigMap; its keys are the file names."""
    git: GitSource | None = None
    """A Git repository."""


class HistoryLimit(Model):
    """How many finished runs are kept."""

    succeeded: Annotated[int, Field(strict=True, ge=0, le=1000)] = 10
    """Runs that succeeded."""
    failed: Annotated[int, Field(strict=True, ge=0, le=1000)] = 10
    """Runs that failed or were cancelled."""


class Retries(Model):
    """What is done when a step's own code fails; lost nodes and evictions have a budget of their own."""

    limit: Annotated[int, Field(strict=True, ge=0, le=100)] = 0
    """Attempts after the first."""
    backoff: Duration = Duration("30s")
    """Before the second attempt."""
    factor: Annotated[float, Field(strict=True, ge=1, le=100)] = 2
    """What each further wait is multiplied by."""
    max: Duration = Duration("10m")
    """The longest wait."""


class CacheOptions(Model):
    """Whether the outputs of an earlier, equal step are taken instead of running it."""

    enabled: Bool = True
    """Whether to look."""
    max_age: PositiveDuration | None = None
    """How old such outputs may be. Left out: any age."""


class Step(Model):
    """One step: a built-in component, or any image."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(("component", "component"), ("image", "image")),
        Rule(
            "!has(self.after) || !(self.name in self.after)",
            "after cannot name the step itself",
            lambda s: s.name not in s.after,
        ),
    )

    name: Label
    """Name of the step, by which others refer to it: `$(steps.NAME.outputs.OUTPUT)`."""
    component: Component | None = None
    """A built-in component."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A container image; nothing is required of it."""
    after: Annotated[tuple[Label, ...], Items(32, unique=True)] = ()
    """Steps that must have succeeded before; those whose outputs are used need not be named."""
    arguments: FreeForm = Field(default_factory=dict)
    """Arguments of a component: values, or references such as `$(steps.ingest.outputs.data)`."""
    inputs: FreeForm = Field(default_factory=dict)
    """Inputs of an image: values or references; `$(inputs.NAME)`, `$(inputs.NAME.path)` in the command."""
    outputs: Annotated[dict[str, OutputType], Field(max_length=64)] = Field(default_factory=dict)
    """Outputs of an image and their types; the command writes them to `$(outputs.NAME.path)`."""
    command: Annotated[tuple[Annotated[str, Field(max_length=65536)], ...], Items(256)] = ()
    """As in a container, with references filled in. Left out: the image's own."""
    args: Annotated[tuple[Annotated[str, Field(max_length=65536)], ...], Items(256)] = ()
    """As in a container, with references filled in."""
    working_dir: Annotated[str, Field(max_length=1024)] | None = None
    """As in a container."""
    env: Annotated[tuple[EnvVar, ...], Items(256, key="name")] = ()
    """As in a container, with references filled in."""
    env_from: Annotated[tuple[EnvFromSource, ...], Items(64)] = ()
    """As in a container."""
    volume_mounts: Annotated[tuple[VolumeMount, ...], Items(64, key="mount_path")] = ()
    """As in a container; the volumes are in `podTemplate`."""
    resources: ResourceRequirements | None = None
    """As in a container."""
    node_selector: StringMap = Field(default_factory=dict)
    """Labels that the node of this step must have, beside the `podTemplate`'s."""
    tolerations: Annotated[tuple[Toleration, ...], Items(32)] = ()
    """Taints that this step puts up with, beside the `podTemplate`'s."""
    workers: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    """Pods that work together; more than one find each other by rendezvous variables."""
    timeout: PositiveDuration | None = None
    """How long one attempt may take."""
    retries: Retries | None = None
    """What is done when it fails. Left out: nothing."""
    cache: CacheOptions | None = None
    """Whether to take the outputs of an earlier, equal step. Left out: yes, of any age."""
    when: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A CEL condition over earlier outputs; where it is false, the step is skipped."""


class PipelineFrom(Model):
    """Where a compiled pipeline is kept."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one(("config_map", "configMap"), ("uri", "uri")),)

    config_map: KubeName | None = None
    """A ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "pipeline.yaml"
    """Its key with the compiled YAML."""
    uri: Uri | None = None
    """A file in object storage."""


def _after_is_known(spec: "TrainingPipelineSpec") -> bool:
    names = {step.name for step in spec.steps or ()}
    return all(other in names for step in spec.steps or () for other in step.after)


class TrainingPipelineSpec(Model):
    """The steps, what they learn from, and when they run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(("steps", "steps"), ("pipeline_spec", "pipelineSpec"), ("pipeline_from", "pipelineFrom")),
        Rule(
            "!has(self.steps) || [self.steps.map(s, s.name)].all(names, "
            "self.steps.all(s, !has(s.after) || s.after.all(other, other in names)))",
            "steps[].after must name steps of this pipeline",
            _after_is_known,
        ),
        Rule(
            "!has(self.platformSpec) || has(self.pipelineSpec)",
            "platformSpec goes with pipelineSpec",
            lambda s: s.platform_spec is None or s.pipeline_spec is not None,
        ),
    )

    description: Text | None = None
    """What the pipeline is for."""
    model: Name | None = None
    """The Model that the runs register versions of."""
    triggers: Triggers = Triggers()
    """When runs are made. Left out: only by hand."""
    suspend: Bool = False
    """Whether triggers are ignored for now."""
    parameters: FreeForm = Field(default_factory=dict)
    """Values that steps refer to as `$(parameters.NAME)`; a run may give others."""
    dataset: Dataset | None = None
    """What is learnt from what, and as of when."""
    code: Code | None = None
    """Files mounted at /code in every step, so that a stock image will do."""
    pod_template: PodTemplate | None = None
    """What the steps' pods have in common."""
    parallelism: Annotated[int, Field(strict=True, ge=1, le=1000)] = 8
    """How many steps of a run may run at once."""
    timeout: PositiveDuration | None = None
    """How long a run may take."""
    history_limit: HistoryLimit = HistoryLimit()
    """How many finished runs are kept."""
    steps: Annotated[tuple[Step, ...], Items(200, least=1, key="name")] | None = None
    """The steps; or pipelineSpec, or pipelineFrom."""
    pipeline_spec: FreeForm | None = None
    """A compiled KFP pipeline (PipelineSpec)."""
    platform_spec: FreeForm | None = None
    """The compiled pipeline's platform configuration (its second document)."""
    pipeline_from: PipelineFrom | None = None
    """Where a compiled pipeline is kept."""


class ScheduleStatus(StatusModel):
    """How far a schedule has come."""

    cron: str
    """The schedule."""
    time_zone: str
    """Its time zone."""
    last: Time | None = None
    """The last scheduled time that was dealt with."""
    next: Time | None = None
    """The next one."""


class RunSummary(StatusModel):
    """A run in short."""

    name: str
    """Name of the PipelineRun."""
    phase: str
    """Its phase."""
    started_at: Time | None = None
    """When it started."""
    finished_at: Time | None = None
    """When it finished."""
    model_version: str | None = None
    """What it registered."""


class TrainingPipelineStatus(Status):
    """What the pipeline has done."""

    pipeline_digest: str | None = None
    """Hash of steps and parameters; a run on change is named by it."""
    active: Annotated[tuple[str, ...], Items(unique=True)] = ()
    """Runs under way."""
    last_run: RunSummary | None = None
    """The newest run."""
    last_succeeded: RunSummary | None = None
    """The newest run that succeeded."""
    schedules: Annotated[tuple[ScheduleStatus, ...], Items()] = ()
    """How far each schedule has come."""
    succeeded: Int | None = None
    """Runs kept that succeeded."""
    failed: Int | None = None
    """Runs kept that failed or were cancelled."""


class TrainingPipeline(Resource):
    """The steps that make a model, what they learn from, and when they run."""

    plural = "trainingpipelines"
    short_name = "tp"
    columns = (
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Model", ".spec.model"),
        PrinterColumn("Last Run", ".status.lastRun.name"),
        PrinterColumn("Phase", ".status.lastRun.phase"),
        PrinterColumn("Started", ".status.lastRun.startedAt", "date"),
        PrinterColumn("Version", ".status.lastSucceeded.modelVersion"),
        PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
        PrinterColumn("Suspended", ".spec.suspend", "boolean", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    kind: Literal["TrainingPipeline"] = "TrainingPipeline"
    spec: TrainingPipelineSpec
    status: TrainingPipelineStatus = TrainingPipelineStatus()
