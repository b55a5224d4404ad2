"""ServingDeployment: a model served, its rollouts and its monitoring."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.common import (
    Bool,
    Column,
    FreeForm,
    Int,
    Items,
    KubeName,
    Label,
    Model,
    Name,
    Number,
    Percent,
    PrinterColumn,
    Ratio,
    Resource,
    Rule,
    Status,
    StatusModel,
    Time,
    VersionNumber,
    ordered,
)
from modelyard.api.duration import Duration, Latency, PositiveDuration
from modelyard.api.kubernetes import PodTemplate, ResourceRequirements

BUILT_IN_METRICS = "^(latency-p(50|90|95|99)|error-rate|feature-parity|prediction-drift)$"
"""Metrics that need no query of one's own."""

DriftTest = Literal["psi", "jensen-shannon", "kolmogorov-smirnov", "chi-squared", "wasserstein"]


class ServedModel(Model):
    """Which model."""

    name: Name
    """The Model; its Production is served, and its Staging rolled out."""
    version: VersionNumber | None = None
    """A pin: this version and no rollouts."""


class Replicas(Model):
    """How many pods each version has."""

    rules: ClassVar[tuple[Rule, ...]] = (ordered("min", "max"),)

    min: Annotated[int, Field(strict=True, ge=0, le=1000)] = 1
    """At least."""
    max: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None
    """At most. Left out: always `min`."""
    target_concurrency: Annotated[int, Field(strict=True, ge=1, le=10000)] = 8
    """Requests at once that a pod is to have."""


class RolloutStep(Model):
    """A share of the traffic, and what must happen before the next."""

    weight: Annotated[int, Field(strict=True, ge=1, le=100)]
    """Percent of the requests that go to the candidate."""
    hold: Duration = Duration("0s")
    """How long to stay at least, beside what the metrics need."""
    approval: Literal["manual"] | None = None
    """`manual`: wait for the annotation `modelyard.dev/approve: "VERSION/STEP"`."""


class Shadow(Model):
    """Requests that the candidate answers too, without anybody seeing its answers."""

    percent: Annotated[int, Field(strict=True, ge=1, le=100)] = 100
    """Percent of the requests."""
    hold: PositiveDuration = PositiveDuration("10m")
    """How long."""


class Compare(Model):
    """How much worse than the stable version the candidate may be."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.maxIncrease) || has(self.maxDecrease)",
            "compare needs maxIncrease or maxDecrease",
            lambda c: c.max_increase is not None or c.max_decrease is not None,
        ),
    )

    to: Literal["stable"] = "stable"
    """The version compared with."""
    max_increase: Annotated[float, Field(strict=True, ge=0)] | None = None
    """By how much it may be higher."""
    max_decrease: Annotated[float, Field(strict=True, ge=0)] | None = None
    """By how much it may be lower."""


class RolloutMetric(Model):
    """What the candidate is judged by."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.query) || self.name.matches('{BUILT_IN_METRICS}')",
            "name must be latency-p50, -p90, -p95 or -p99, error-rate, feature-parity or prediction-drift; "
            "any other metric needs query",
            lambda m: m.query is not None or m.is_built_in,
        ),
        Rule(
            "has(self.max) || has(self.min) || has(self.compare)",
            "a metric needs max, min or compare",
            lambda m: m.max is not None or m.min is not None or m.compare is not None,
        ),
        ordered("min", "max"),
    )

    name: Label
    """A built-in metric, or any name with `query`."""
    max: Number | None = None
    """At most: seconds, or a ratio."""
    min: Number | None = None
    """At least."""
    compare: Compare | None = None
    """Against the stable version."""
    query: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """PromQL with one number as its answer; with `$(version)`, `$(window)`; the namespace is added."""

    @property
    def is_built_in(self) -> bool:
        """Whether the name alone says what is measured."""
        return re.search(BUILT_IN_METRICS, self.name) is not None


DEFAULT_STEPS = tuple(RolloutStep(weight=weight) for weight in (5, 25, 50, 100))


def _weights_rise(rollout: "Rollout") -> bool:
    weights = [step.weight for step in rollout.steps]
    return weights == sorted(set(weights))


class Rollout(Model):
    """How a new version takes over."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.steps) || (self.steps.map(s, s.weight).isSorted() && "
            "self.steps.all(s, self.steps.exists_one(other, other.weight == s.weight)))",
            "steps[].weight must rise from step to step",
            _weights_rise,
        ),
        Rule(
            "!has(self.steps) || self.steps[size(self.steps) - 1].weight == 100",
            "the last of steps must have weight 100",
            lambda r: r.steps[-1].weight == 100,
        ),
    )

    promotes: Bool = True
    """Whether its outcome moves the Model's Production; of a model's ServingDeployments at most one may."""
    paused: Bool = False
    """Whether the weights stay as they are for now."""
    interval: PositiveDuration = PositiveDuration("30s")
    """How often the metrics are looked at."""
    steps: Annotated[tuple[RolloutStep, ...], Items(20, least=1)] = DEFAULT_STEPS
    """Shares of the traffic, rising to 100. Left out: 5, 25, 50, 100."""
    shadow: Shadow | None = None
    """Before the first step, requests that are only mirrored."""
    on_newer: Literal["replace", "queue"] = "replace"
    """What a newer candidate does: take the place of the one under way, or wait."""
    deadline: PositiveDuration = PositiveDuration("7d")
    """How long a rollout may take, holds included."""
    on_deadline: Literal["reject", "promote"] = "reject"
    """What becomes of the candidate then."""
    metrics: Annotated[tuple[RolloutMetric, ...], Items(32, key="name")] = ()
    """What the candidate is judged by."""
    min_requests: Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)] = 200
    """Requests that a version must have had over the rollout before it is judged."""
    confidence: Annotated[float, Field(strict=True, ge=0.5, lt=1)] = 0.95
    """1 - the probability that a good candidate is rolled back, over all metrics and looks."""
    failure_limit: Annotated[int, Field(strict=True, ge=1, le=100)] = 2
    """The fail that rolls back: with 2, the second."""


class DriftSpec(Model):
    """How drift is measured."""

    test: DriftTest = "psi"
    """The test, on binned counts."""
    max: Annotated[float, Field(strict=True, ge=0)] | None = None
    """The score above which a feature has drifted. Left out: what the training data's own windows reach."""


class OutcomeLabel(Model):
    """Where outcomes are found when they are known."""

    uri: Annotated[str, Field(pattern="^(file|s3|gs)://.+$", max_length=1024)]
    """A file, or a folder that ends with `/`."""
    format: Literal["parquet", "csv"] = "parquet"
    """Format of the files."""
    connection: Name | None = None
    """The Secret with endpoint and credentials of the store."""
    id: Column | None = None
    """The column that is the request's id. Left out: `id`."""
    column: Column
    """The column with the outcome."""
    available_at: Column | None = None
    """The column that says when it was known."""


class OnDrift(Model):
    """What drift sets off."""

    pipeline: Name
    """The TrainingPipeline to run."""
    cooldown: Duration = Duration("6h")
    """How long after such a run no other is made."""


class Monitoring(Model):
    """What is watched while the model serves."""

    window: PositiveDuration = PositiveDuration("1h")
    """The requests of how long are compared with the training data."""
    drift: DriftSpec = DriftSpec()
    """How drift is measured."""
    sample_ratio: Ratio = 0.1
    """Share of the requests whose features are computed again offline, to see whether they are the same."""
    label: OutcomeLabel | None = None
    """Where outcomes are found, for the model's quality."""
    on_drift: OnDrift | None = None
    """What drift sets off. Left out: a condition and an alert."""


class ParentRef(Model):
    """A Gateway that routes here."""

    group: Annotated[str, Field(max_length=253)] | None = None
    """Its API group; gateway.networking.k8s.io if left out."""
    kind: Annotated[str, Field(max_length=63)] | None = None
    """Its kind; Gateway if left out."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    """Its namespace; this one if left out."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Its name."""
    section_name: Annotated[str, Field(max_length=253)] | None = None
    """Its listener; all if left out."""
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    """Its port; all if left out."""


class GatewayApi(Model):
    """The HTTPRoute that is made instead of Envoy's configuration."""

    parent_refs: Annotated[tuple[ParentRef, ...], Items(32)] = ()
    """The Gateways."""
    hostnames: Annotated[tuple[KubeName, ...], Items(16, unique=True)] = ()
    """Host names to answer to. Left out: all of the Gateways'."""


class Router(Model):
    """What splits the traffic."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.type) || (self.type == 'gatewayAPI') == has(self.gatewayAPI)",
            "gatewayAPI goes with type: gatewayAPI, and must be given there",
            lambda r: r.type is None or (r.type == "gatewayAPI") == (r.gateway_api is not None),
        ),
    )

    type: Literal["envoy", "gatewayAPI"] | None = None
    """envoy: the namespace's routers; gatewayAPI: an HTTPRoute. Left out: what is filled in, else envoy."""
    gateway_api: Annotated[GatewayApi | None, Field(alias="gatewayAPI")] = None
    """The HTTPRoute."""

    @property
    def uses_gateway(self) -> bool:
        """Whether traffic is split by an HTTPRoute."""
        return self.gateway_api is not None


class ServingDeploymentSpec(Model):
    """What is served, how a new version takes over, and what is watched."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.model.version) || !has(self.rollout)",
            "model.version pins a version and rollout moves versions; give one of them",
            lambda s: s.model.version is None or s.rollout is None,
        ),
    )

    model: ServedModel
    """Which model."""
    replicas: Replicas = Replicas()
    """How many pods each version has."""
    resources: ResourceRequirements | None = None
    """Of a pod."""
    pod_template: PodTemplate | None = None
    """Of the pods."""
    latency_budget: Latency | None = None
    """How long a request may take in the server; what is not there by then counts as missing."""
    on_feature_error: Literal["default", "lastKnown", "reject"] = "default"
    """What a missing feature or store means for a request."""
    allow_event_time: Bool = False
    """Whether requests may say `event_timestamp`, for replays."""
    rollout: Rollout | None = None
    """How a new version takes over. Left out: a rollout with the defaults."""
    monitoring: Monitoring | None = None
    """What is watched. Left out: nothing beyond requests and latency."""
    router: Router = Router()
    """What splits the traffic."""

    @property
    def effective_rollout(self) -> Rollout | None:
        """The rollout to follow: as given, the defaults where none is, none where a version is pinned."""
        if self.model.version is not None:
            return None
        return self.rollout or Rollout()


class ServingPhase(StrEnum):
    """Where a ServingDeployment is."""

    PENDING = "Pending"
    STABLE = "Stable"
    SHADOWING = "Shadowing"
    PROGRESSING = "Progressing"
    HOLDING = "Holding"
    AWAITING_APPROVAL = "AwaitingApproval"
    PAUSED = "Paused"
    PROMOTING = "Promoting"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"


class Verdict(StrEnum):
    """What one look at one metric says."""

    PASS = "pass"
    FAIL = "fail"
    HOLD = "hold"


class WeightedVersion(StatusModel):
    """A version and its share of the traffic."""

    version: Int
    """The version."""
    weight: Percent
    """Percent of the requests."""


class AnalysisEntry(StatusModel):
    """The last look at one metric."""

    metric: str
    """The metric."""
    verdict: Verdict
    """pass, fail, or hold: nothing can be said yet."""
    value: Number | None = None
    """What was measured."""
    threshold: Number | None = None
    """What it is held against."""
    samples: Number | None = None
    """Requests it rests on."""
    message: str | None = None
    """Why, as a sentence."""


class DriftEntry(StatusModel):
    """The last look at one feature, or at the predictions."""

    feature: str
    """`view:name`, or `prediction`."""
    test: str
    """The test."""
    score: Number | None = None
    """Its score."""
    limit: Number | None = None
    """The score that is allowed."""
    drifted: Bool = False
    """Whether it is above."""
    samples: Number | None = None
    """Requests it rests on."""


class ServingDeploymentStatus(Status):
    """What serves, and where a rollout is."""

    phase: ServingPhase | None = None
    """Where it is."""
    stable: WeightedVersion | None = None
    """The version in Production."""
    candidate: WeightedVersion | None = None
    """The version being rolled out."""
    traffic: Annotated[tuple[WeightedVersion, ...], Items(key="version")] = ()
    """What the routers follow; weights sum to 100."""
    shadow: WeightedVersion | None = None
    """The version that requests are mirrored to."""
    step: Int | None = None
    """The step of the rollout, from 1; 0 before the first."""
    step_started_at: Time | None = None
    """When the step began."""
    rollout_started_at: Time | None = None
    """When the rollout began."""
    last_looked_at: Time | None = None
    """When the metrics were last looked at."""
    failures: Int | None = None
    """Looks with a fail in this rollout."""
    analysis: Annotated[tuple[AnalysisEntry, ...], Items(key="metric")] = ()
    """The last look at each metric."""
    counters: FreeForm = Field(default_factory=dict)
    """Counts of the rollout by version, with the raw values they were last advanced from."""
    drift: Annotated[tuple[DriftEntry, ...], Items(key="feature")] = ()
    """The last look at each feature."""
    last_drift_trigger: Time | None = None
    """When drift last started a run."""
    address: str | None = None
    """Where to send requests."""


class ServingDeployment(Resource):
    """A model served."""

    plural = "servingdeployments"
    short_name = "sd"
    columns = (
        PrinterColumn("Model", ".spec.model.name"),
        PrinterColumn("Phase", ".status.phase"),
        PrinterColumn("Stable", ".status.stable.version", "integer"),
        PrinterColumn("Candidate", ".status.candidate.version", "integer"),
        PrinterColumn("Weight", ".status.candidate.weight", "integer"),
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Drift", ".status.conditions[?(@.type=='Drifted')].status"),
        PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
        PrinterColumn("Address", ".status.address", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    kind: Literal["ServingDeployment"] = "ServingDeployment"
    spec: ServingDeploymentSpec
    status: ServingDeploymentStatus = ServingDeploymentStatus()
