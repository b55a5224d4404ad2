"""FeatureView: a set of features of an entity, where their values come from, and when they could be known."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from modelyard.api.common import (
    Bool,
    Column,
    Cron,
    Int,
    Items,
    Model,
    Name,
    Number,
    PrinterColumn,
    Ratio,
    Resource,
    Rule,
    Scalar,
    Status,
    StatusModel,
    Text,
    Time,
    exactly_one,
    given,
    ordered,
)
from modelyard.api.duration import Availability, PositiveDuration
from modelyard.api.kubernetes import PodTemplate, ResourceRequirements

FeatureType = Literal["bool", "int32", "int64", "float32", "float64", "string", "timestamp"]
AggregationFunction = Literal[
    "count", "countDistinct", "sum", "mean", "min", "max", "std", "var", "first", "last"
]


class Entity(Model):
    """A key of the view: what the features are about."""

    name: Column
    """The column that holds the key."""
    type: Literal["string", "int32", "int64"] = "string"
    """Type of the key."""


class BatchSource(Model):
    """Rows at rest: files, or a query of a database."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(("uri", "uri"), ("sql", "sql")),
        Rule(
            "!has(self.sql) || has(self.connection)",
            "sql needs connection: the Secret that says which database to ask",
            lambda s: s.sql is None or s.connection is not None,
        ),
    )

    uri: Annotated[str, Field(pattern="^(file|s3|gs)://.+$", max_length=1024)] | None = None
    """A file, or a folder that ends with `/`: `file://`, `s3://` or `gs://`."""
    format: Literal["parquet", "csv"] = "parquet"
    """Format of the files."""
    sql: Annotated[str, Field(max_length=16384)] | None = None
    """A query of the database that `connection` names, instead of files."""
    connection: Name | None = None
    """The Secret with endpoint and credentials of the store, or `url` of the database."""


class KafkaSource(Model):
    """A topic of JSON rows."""

    bootstrap_servers: Annotated[str, Field(min_length=1, max_length=1024)]
    """Brokers, as `host:port`, with commas between."""
    topic: Annotated[str, Field(min_length=1, max_length=249)]
    """Name of the topic."""
    connection: Name | None = None
    """The Secret with credentials."""


class StreamSource(Model):
    """Rows as they come."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.kafka) || (has(self.push) && self.push)",
            "stream needs push: true or kafka",
            lambda s: s.kafka is not None or s.push,
        ),
    )

    push: Bool = False
    """Whether rows may be pushed to the feature server over HTTP."""
    kafka: KafkaSource | None = None
    """A Kafka topic to read."""


class Source(Model):
    """Where rows come from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.batch) || has(self.stream)",
            "source needs batch or stream",
            lambda s: s.batch is not None or s.stream is not None,
        ),
    )

    batch: BatchSource | None = None
    """Rows at rest; what training and back-fills read."""
    stream: StreamSource | None = None
    """Rows as they come, for the online store and, kept, for training."""


class Transform(Model):
    """What is done to rows before anything else."""

    sql: Annotated[str, Field(min_length=1, max_length=16384)]
    """One SELECT over the table `source`; it sees no file, no network and no clock."""


class Checks(Model):
    """Limits that values must keep; rows outside fail validation."""

    rules: ClassVar[tuple[Rule, ...]] = (ordered("min", "max"),)

    min: Number | None = None
    """Least value."""
    max: Number | None = None
    """Greatest value."""
    max_null_ratio: Ratio | None = None
    """Greatest share of nulls."""
    values: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Items(256, unique=True)] = ()
    """The only values allowed, of a string."""


class Feature(Model):
    """A column that is a feature as it stands."""

    name: Column
    """The column."""
    type: FeatureType
    """Its type."""
    description: Text | None = None
    """What it means, with its unit."""
    checks: Checks | None = None
    """Limits that its values must keep."""
    default: Scalar | None = None
    """What a request gets for a missing value, where `onFeatureError` is `default`."""


class Aggregation(Model):
    """A feature computed over the rows of a window."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.input) || self.function == 'count'",
            "input must be given, but for the function count",
            lambda a: a.input is not None or a.function == "count",
        ),
    )

    name: Column
    """Name of the feature."""
    input: Column | None = None
    """The column that is aggregated; `count` may do without."""
    function: AggregationFunction
    """What is computed."""
    window: PositiveDuration
    """The rows of how long: at T those with T - window < timestamp <= T that could be known at T."""
    description: Text | None = None
    """What it means, with its unit."""
    checks: Checks | None = None
    """Limits that its values must keep."""
    default: Scalar | None = None
    """What a request gets for a missing value, where `onFeatureError` is `default`."""


class Grant(Model):
    """Another namespace that may read the view."""

    namespace: Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
    """The namespace; it writes `this-namespace/view`."""


class FeatureViewSpec(Model):
    """What the features are, where they come from, and when they could be known."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(("features", "features"), ("aggregations", "aggregations")),
        Rule(
            "!has(self.createdTimestampField) || !has(self.availability)",
            "createdTimestampField and availability both say when a row could be known; give one of them",
            lambda s: s.created_timestamp_field is None or s.availability is None,
        ),
        Rule(
            "!has(self.aggregations) || has(self.createdTimestampField) || has(self.availability)",
            "aggregations need createdTimestampField or availability: unless it is said when a row could be "
            "known, training sees rows that serving cannot have had; availability: atEvent means at once",
            lambda s: not s.aggregations or given(s.created_timestamp_field) or given(s.availability),
        ),
        Rule(
            "!has(self.schedule) || has(self.source.batch)",
            "schedule needs source.batch: a stream is not materialised on a schedule",
            lambda s: s.schedule is None or s.source.batch is not None,
        ),
    )

    description: Text | None = None
    """What the features are about."""
    owner: Annotated[str, Field(max_length=253)] | None = None
    """Who answers for them."""
    entities: Annotated[tuple[Entity, ...], Items(8, least=1, key="name")]
    """The keys of the view."""
    timestamp_field: Column
    """The column that says when it happened."""
    created_timestamp_field: Column | None = None
    """The column that says when it could be known. Left out: see `availability`."""
    availability: Availability | None = None
    """When a row could be known where no column says: `atEvent`, or so long after the event (`60m`)."""
    ttl: PositiveDuration | None = None
    """How old a value may be to be used, offline and online alike. Left out: no limit."""
    source: Source
    """Where rows come from."""
    transform: Transform | None = None
    """What is done to rows first."""
    features: Annotated[tuple[Feature, ...], Items(256, least=1, key="name")] | None = None
    """Columns that are features as they stand."""
    aggregations: Annotated[tuple[Aggregation, ...], Items(256, least=1, key="name")] | None = None
    """Features computed over windows. A view has features or aggregations, not both."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What computes: duckdb inside one pod, spark for what outgrows one machine."""
    online: Bool = False
    """Whether the values are kept in the online store."""
    schedule: Cron | None = None
    """When to materialise, in UTC. Left out: only when the view changes."""
    grants: Annotated[tuple[Grant, ...], Items(64, key="namespace")] = ()
    """Who else may read it."""
    resources: ResourceRequirements | None = None
    """Of the pod that materialises."""
    pod_template: PodTemplate | None = None
    """Of the pod that materialises."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features, in the order of the view."""
        return tuple(f.name for f in (self.features or self.aggregations or ()))


class ViewVersion(StatusModel):
    """One definition that the view has or had."""

    version: str
    """First ten digits of the definition's SHA-256."""
    revision: Int
    """Counts definitions, from 1."""
    used_by: Annotated[tuple[str, ...], Items(unique=True)] = ()
    """ModelVersions learnt from it; while there are any, it stays materialised."""
    materialized_through: Time | None = None
    """The online store has what could be known until then."""


class FeatureViewStatus(Status):
    """What there is of the view."""

    versions: Annotated[tuple[ViewVersion, ...], Items(key="version")] = ()
    """Definitions in use, newest last."""
    rows: Int | None = None
    """Rows read by the last materialisation."""
    online_keys: Int | None = None
    """Keys in the online store."""
    last_materialized: Time | None = None
    """When the last materialisation ended well."""
    job: str | None = None
    """The Job that materialises now."""
    failures: Int | None = None
    """Materialisations that failed one after the other."""
    retry_at: Time | None = None
    """When the next one is tried."""


class FeatureView(Resource):
    """Features of an entity: where they come from and when they could be known."""

    plural = "featureviews"
    short_name = "fv"
    columns = (
        PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        PrinterColumn("Online", ".spec.online", "boolean"),
        PrinterColumn("Rows", ".status.rows", "integer"),
        PrinterColumn("Keys", ".status.onlineKeys", "integer"),
        PrinterColumn("Materialized", ".status.lastMaterialized", "date"),
        PrinterColumn("Owner", ".spec.owner", priority=1),
        PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
    )

    kind: Literal["FeatureView"] = "FeatureView"
    spec: FeatureViewSpec
    status: FeatureViewStatus = FeatureViewStatus()
