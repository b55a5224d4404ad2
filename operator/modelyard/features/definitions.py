"""A FeatureView as everything else wants to see it: normalised, hashable, times in microseconds.

The operator's image uses this module, so it imports neither DuckDB, PyArrow nor NumPy. ``View`` is what
the API object means, without Kubernetes around it; the rule of what joins what is stated here once, as
``known_us``:

    a row is *known* at   max(feature_ts, created_ts, feature_ts + availability)
    and joins at T if     known <= T  and  feature_ts >= T - ttl
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from modelyard.api.duration import Availability, Duration
from modelyard.api.featureview import Checks as ApiChecks
from modelyard.api.featureview import FeatureViewSpec
from modelyard.features.errors import DefinitionError

COUNTING: Final = frozenset({"count", "countDistinct"})
"""Functions that are 0, not null, over no rows."""

_REFERENCE: Final = re.compile(r"^(?:([a-z0-9]([-a-z0-9]*[a-z0-9])?)/)?([a-z0-9]([-a-z0-9_]*[a-z0-9])?):([^:/\s]+)$")


@dataclass(frozen=True)
class Column:
    """A named, typed column; ``type`` is the API's FeatureType, or ``any`` for an aggregation's
    undeclared input.
    """

    name: str
    type: str


@dataclass(frozen=True)
class Checks:
    """What a materialisation refuses to publish; limits are inclusive, the ratio is nulls per row."""

    min: float | None = None
    max: float | None = None
    max_null_ratio: float | None = None
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """A column served as it is."""

    name: str
    type: str
    default: Any = None
    checks: Checks = field(default_factory=Checks)


@dataclass(frozen=True)
class Aggregation:
    """``function`` of ``input`` over rows with ``T - window < feature_ts <= T``; ``count`` may do
    without input.
    """

    name: str
    input: str | None
    function: str
    window_us: int
    default: Any = None
    checks: Checks = field(default_factory=Checks)


@dataclass(frozen=True)
class View:
    """A FeatureView's meaning. Times are microseconds; ``None`` means undeclared."""

    name: str
    namespace: str
    version: str
    entities: tuple[Column, ...]
    timestamp: str
    created: str | None = None
    availability_us: int | None = None
    ttl_us: int | None = None
    uri: str | None = None
    format: str | None = None
    sql: str | None = None
    features: tuple[Feature, ...] = ()
    aggregations: tuple[Aggregation, ...] = ()
    push: bool = False

    @property
    def stored(self) -> tuple[Column, ...]:
        """The columns whose values are kept per row: the features, or the aggregations' distinct inputs,
        in order.
        """
        if self.features:
            return tuple(Column(f.name, f.type) for f in self.features)
        inputs = dict.fromkeys(a.input for a in self.aggregations if a.input is not None)
        return tuple(Column(name, "any") for name in inputs)

    @property
    def outputs(self) -> tuple[Column, ...]:
        """The features the view gives, with their types; ``any`` has the type of the aggregation's input."""
        if self.features:
            return tuple(Column(f.name, f.type) for f in self.features)
        return tuple(Column(a.name, _output_type(a.function)) for a in self.aggregations)

    @property
    def max_window_us(self) -> int:
        """The widest aggregation window; 0 without aggregations."""
        return max((a.window_us for a in self.aggregations), default=0)

    def known_us(self, feature_us: int, created_us: int | None) -> int:
        """When a row could be known; ``created_us`` is ignored where no created timestamp is declared."""
        known = feature_us + (self.availability_us or 0)
        return max(known, created_us) if self.created is not None and created_us is not None else known

    def default(self, feature: str) -> Any:
        """The declared default of a feature, applied by serving only where ``onFeatureError`` says so."""
        every: tuple[Feature | Aggregation, ...] = (*self.features, *self.aggregations)
        return next((f.default for f in every if f.name == feature), None)


@dataclass(frozen=True)
class Reference:
    """``[namespace/]view:feature``; ``namespace`` is empty for the reader's own."""

    namespace: str
    view: str
    feature: str

    @property
    def view_key(self) -> str:
        """``[namespace/]view``, the key under which MODELYARD_STEP and server.json carry views."""
        return f"{self.namespace}/{self.view}" if self.namespace else self.view


def _output_type(function: str) -> str:
    if function in COUNTING:
        return "int64"
    return "any" if function in ("min", "max", "first", "last") else "float64"


def _model(spec: FeatureViewSpec | Mapping[str, Any], what: str) -> tuple[FeatureViewSpec, str | None]:
    """The validated spec, and the version that came with it (steps get ``spec plus version``)."""
    if isinstance(spec, FeatureViewSpec):
        return spec, None
    plain = dict(spec)
    given = plain.pop("version", None)
    try:
        return FeatureViewSpec.model_validate(plain), given
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise DefinitionError(f"{what}: {where}: {first['msg']}") from None


def _us(duration: Duration | Availability | None) -> int | None:
    return None if duration is None else duration.seconds * 1_000_000


def version(spec: FeatureViewSpec | Mapping[str, Any]) -> str:
    """The first 10 hex digits of SHA-256 over the canonical JSON of everything that changes a value.

    Descriptions and checks change no value and are left out; durations count as durations (60m is 1h).
    ``spec`` is a FeatureViewSpec or its camelCase mapping; raises DefinitionError where it is not valid.
    """
    model, _ = _model(spec, "view")
    batch = model.source.batch
    canonical = {
        "entities": [[e.name, e.type] for e in model.entities],
        "timestampField": model.timestamp_field,
        "createdTimestampField": model.created_timestamp_field,
        "availability": _us(model.availability),
        "ttl": _us(model.ttl),
        "uri": batch and (batch.uri or batch.sql),
        "transform": model.transform and model.transform.sql,
        "features": [[f.name, f.type, f.default] for f in model.features or ()],
        "aggregations": [[a.name, a.input, a.function, _us(a.window), a.default] for a in model.aggregations or ()],
    }
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _checks(checks: ApiChecks | None) -> Checks:
    if checks is None:
        return Checks()
    return Checks(checks.min, checks.max, checks.max_null_ratio, checks.values)


def view(
    name: str, spec: FeatureViewSpec | Mapping[str, Any], *, namespace: str = "", version_: str | None = None
) -> View:
    """Read a FeatureView's spec (model, or camelCase mapping with or without ``version``).

    Raises DefinitionError naming the view and the field.
    """
    what = f"view {name}"
    model, given = _model(spec, what)
    features = tuple(Feature(f.name, f.type, f.default, _checks(f.checks)) for f in model.features or ())
    aggregations = tuple(
        Aggregation(a.name, a.input, a.function, a.window.seconds * 1_000_000, a.default, _checks(a.checks))
        for a in model.aggregations or ()
    )
    clash = sorted({f.name for f in features} & {e.name for e in model.entities})
    if clash:
        raise DefinitionError(f"{what}: {clash[0]!r} is both an entity and a feature")
    batch, stream = model.source.batch, model.source.stream
    return View(
        name=name,
        namespace=namespace,
        version=version_ or given or version(model),
        entities=tuple(Column(e.name, e.type) for e in model.entities),
        timestamp=model.timestamp_field,
        created=model.created_timestamp_field,
        availability_us=_us(model.availability),
        ttl_us=_us(model.ttl),
        uri=batch.uri if batch else None,
        format=batch.format if batch else None,
        sql=model.transform.sql if model.transform else None,
        features=features,
        aggregations=aggregations,
        push=bool(stream and stream.push),
    )


def parse_reference(text: str) -> Reference:
    """``[namespace/]view:feature``; raises DefinitionError on anything else."""
    found = _REFERENCE.match(text.strip())
    if found is None:
        raise DefinitionError(f"{text!r} is no feature reference; write [namespace/]view:feature")
    return Reference(found.group(1) or "", found.group(3), found.group(5))


def resolve(references: Iterable[str | Reference], views: Mapping[str, View]) -> list[tuple[Reference, View, str]]:
    """Each reference with its view (by ``[namespace/]view``) and output column; DefinitionError where
    one is unknown.

    A column is the feature's name, ``VIEW__NAME`` where two views share it, ``NAMESPACE__VIEW__NAME``
    where even the views' names are the same.
    """
    found: list[tuple[Reference, View]] = []
    for item in references:
        reference = parse_reference(item) if isinstance(item, str) else item
        target = views.get(reference.view_key)
        if target is None:
            known = ", ".join(sorted(views)) or "none"
            raise DefinitionError(f"unknown view {reference.view_key!r}; known are {known}")
        names = [c.name for c in target.outputs]
        if reference.feature not in names:
            raise DefinitionError(
                f"view {reference.view_key} has no feature {reference.feature!r}; it has {', '.join(names)}"
            )
        if (reference, target) not in found:
            found.append((reference, target))
    return [(r, v, _column(r, [o for o, _ in found])) for r, v in found]


def _column(reference: Reference, others: Sequence[Reference]) -> str:
    same = {o.view_key for o in others if o.feature == reference.feature} - {reference.view_key}
    if not same:
        return reference.feature
    full = f"{reference.view}__{reference.feature}"
    if any(key.rpartition("/")[2] == reference.view for key in same) and reference.namespace:
        return f"{reference.namespace}__{full}"
    return full
