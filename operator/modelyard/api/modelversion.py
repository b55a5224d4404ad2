"""ModelVersion: one registered version of a model, immutable but for description and tags."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.common import (
    Column,
    Digest,
    FreeForm,
    Int,
    Items,
    Model,
    Name,
    Number,
    PrinterColumn,
    Resource,
    Rule,
    Status,
    StatusModel,
    Text,
    Time,
    Uri,
    VersionNumber,
    ViewRef,
    immutable,
)


class Stage(StrEnum):
    """Where a version stands, as the Model says."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"


class Artifact(Model):
    """The model's bytes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.image) == (self.format == 'image')",
            "image goes with format: image, and must be given there",
            lambda a: (a.image is not None) == (a.format == "image"),
        ),
    )

    uri: Uri
    """Where they are: a file, or a folder that ends with `/`."""
    digest: Digest
    """SHA-256; a server refuses to load anything else."""
    format: Literal["onnx", "sklearn", "xgboost", "lightgbm", "mlflow", "image"]
    """How to load them; `sklearn` is skops, `image` a container of one's own that speaks the protocol."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The container, for the format `image`."""


class Tensor(Model):
    """A tensor that goes in or comes out, as in the Open Inference Protocol."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the tensor."""
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BF16",
        "BYTES",
    ]
    """Type of its elements."""
    shape: Annotated[tuple[Annotated[int, Field(strict=True, ge=-1)], ...], Items(8)] = (-1,)
    """Its dimensions; -1 is any."""


class Signature(Model):
    """What goes into the model and what comes out."""

    inputs: Annotated[tuple[Tensor, ...], Items(1024, key="name")] = ()
    """What goes in."""
    outputs: Annotated[tuple[Tensor, ...], Items(64, key="name")] = ()
    """What comes out."""


class UsedFeatures(Model):
    """Features that the model was learnt from."""

    view: ViewRef
    """The FeatureView."""
    version: Annotated[str, Field(pattern="^[0-9a-f]{6,64}$", max_length=64)]
    """Its definition then."""
    names: Annotated[tuple[Column, ...], Items(256, least=1, unique=True)]
    """Which of its features."""


class Baseline(Model):
    """The training data's profile."""

    uri: Uri
    """Where it is."""
    digest: Digest | None = None
    """Its SHA-256."""


class DataReference(Model):
    """Data that the model was learnt from."""

    uri: Uri
    """Where they are."""
    digest: Digest | None = None
    """Their SHA-256."""
    rows: Annotated[int, Field(strict=True, ge=0)] | None = None
    """How many rows."""


class Provenance(Model):
    """Where the version comes from: enough to make it again."""

    pipeline: Name | None = None
    """The TrainingPipeline."""
    run: Name | None = None
    """The PipelineRun."""
    pipeline_digest: Annotated[str, Field(max_length=128)] | None = None
    """Hash of steps and parameters."""
    git_revision: Annotated[str, Field(max_length=128)] | None = None
    """Commit of the code."""
    images: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=256)] = Field(
        default_factory=dict
    )
    """Image with digest, by step."""
    parameters: FreeForm = Field(default_factory=dict)
    """Parameters of the run."""
    data: Annotated[tuple[DataReference, ...], Items(64)] = ()
    """What it was learnt from."""
    as_of: Time | None = None
    """The logical time of the run."""
    trained_by: Annotated[str, Field(max_length=253)] | None = None
    """Who or what started the run."""
    seed: Int | None = None
    """Seed of its random numbers."""


class ModelVersionSpec(Model):
    """The version; only `description` and `tags` may change."""

    rules: ClassVar[tuple[Rule, ...]] = immutable(
        "model",
        "version",
        "artifact",
        "signature",
        "features",
        "baseline",
        "provenance",
        "metrics",
    )

    model: Name
    """The Model."""
    version: VersionNumber
    """Its number."""
    description: Text | None = None
    """What is to be said of it."""
    tags: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """What it is to be found by."""
    artifact: Artifact
    """The model's bytes."""
    signature: Signature | None = None
    """What goes in and what comes out."""
    features: Annotated[tuple[UsedFeatures, ...], Items(64, key="view")] = ()
    """Features that a server looks up for it."""
    baseline: Baseline | None = None
    """The training data's profile, which drift is measured against."""
    provenance: Provenance | None = None
    """Where it comes from."""
    metrics: Annotated[dict[str, Number], Field(max_length=128)] = Field(default_factory=dict)
    """How good it is."""


class MlflowLink(StatusModel):
    """The version's copy in MLflow."""

    model: str | None = None
    """Its registered model."""
    version: str | None = None
    """Its number there."""
    run_id: str | None = None
    """Its run."""
    url: str | None = None
    """Its page."""
    synced_at: Time | None = None
    """When it was last brought up to date."""


class ModelVersionStatus(Status):
    """What is done with the version."""

    stage: Stage | None = None
    """Where it stands: None, Staging, Production or Archived, derived from the Model."""
    served_by: Annotated[tuple[str, ...], Items(unique=True)] = ()
    """ServingDeployments that have it loaded."""
    mlflow: MlflowLink | None = None
    """Its copy in MLflow."""


class ModelVersion(Resource):
    """One registered version of a model."""

    plural = "modelversions"
    short_name = "mv"
    columns = (
        PrinterColumn("Model", ".spec.model"),
        PrinterColumn("Version", ".spec.version", "integer"),
        PrinterColumn("Stage", ".status.stage"),
        PrinterColumn("Rejected", ".status.conditions[?(@.type=='Rejected')].status"),
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Run", ".spec.provenance.run", priority=1),
        PrinterColumn("Format", ".spec.artifact.format", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )
    rules = (
        Rule(
            # Not put together by '+': the API server prices string(…) as if it were without end.
            "self.metadata.name.startsWith(self.spec.model + '-') && "
            "self.metadata.name.substring(size(self.spec.model) + 1) == string(self.spec.version)",
            "metadata.name must be spec.model, '-', spec.version",
            lambda mv: not mv.metadata.name or mv.metadata.name == f"{mv.spec.model}-{mv.spec.version}",
        ),
    )

    kind: Literal["ModelVersion"] = "ModelVersion"
    spec: ModelVersionSpec
    status: ModelVersionStatus = ModelVersionStatus()
