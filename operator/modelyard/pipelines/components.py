"""The built-in components: what each takes and gives, as ``docs/decisions/0001`` fixes it.

The table is what the compiler checks arguments against, and what says which parts of a frozen run a
component may see.  What it does not see cannot change its result, so it need not be in its cache key:
``production`` and ``asOf`` are given to the components that need them, and cost the others no cache hit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: KFP's artifact types (``system.<name>``), by the names users write.
ARTIFACT_TYPES = (
    "Artifact", "Dataset", "Model", "Metrics", "ClassificationMetrics", "SlicedClassificationMetrics",
    "HTML", "Markdown",
)  # fmt: skip

#: KFP's parameter types, by the names users write: Python's, KFP's and JSON's.
PARAMETER_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("str", "String", "string", "STRING"), "STRING"),
    **dict.fromkeys(("int", "Integer", "integer", "NUMBER_INTEGER"), "NUMBER_INTEGER"),
    **dict.fromkeys(("float", "Float", "double", "Double", "number", "NUMBER_DOUBLE"), "NUMBER_DOUBLE"),
    **dict.fromkeys(("bool", "Bool", "Boolean", "boolean", "BOOLEAN"), "BOOLEAN"),
    **dict.fromkeys(("list", "List", "JsonArray", "LIST"), "LIST"),
    **dict.fromkeys(("dict", "Dict", "JsonObject", "Struct", "STRUCT"), "STRUCT"),
}


@dataclass(frozen=True)
class Component:
    """One built-in component."""

    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Artifacts it takes: name → type.  All are required but those in ``optional``."""
    optional: Mapping[str, str] = field(default_factory=dict)
    arguments: frozenset[str] = frozenset()
    """Parameters it takes."""
    open: bool = False
    """Whether it takes parameters of any name besides: hyperparameters, metrics."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    sees_production: bool = False
    sees_as_of: bool = False
    cacheable: bool = True


COMPONENTS: Mapping[str, Component] = {
    "ingest": Component(
        arguments=frozenset({"limit"}),
        outputs={"data": "Dataset", "rows": "int", "digest": "str"},
        sees_as_of=True,
    ),
    "validate": Component(
        artifacts={"data": "Dataset"},
        arguments=frozenset({"checks", "failOnAnomalies"}),
        outputs={"report": "Artifact", "anomalies": "int"},
    ),
    "features": Component(
        artifacts={"data": "Dataset"},
        arguments=frozenset({"holdout", "embargo"}),
        outputs={
            "train": "Dataset", "test": "Dataset", "profile": "Artifact", "rows_train": "int", "rows_test": "int",
        },
        sees_production=True,
        sees_as_of=True,
    ),
    "train": Component(
        artifacts={"train": "Dataset"}, optional={"test": "Dataset"}, open=True, outputs={"model": "Model"}
    ),
    "evaluate": Component(
        artifacts={"model": "Model", "test": "Dataset"},
        open=True,
        outputs={
            "report": "Metrics", "roc_auc": "float", "brier": "float", "log_loss": "float", "auc_gain": "float",
            "auc_gain_lower": "float", "better": "bool",
        },
        sees_production=True,
    ),
    "register": Component(
        artifacts={"model": "Model", "profile": "Artifact"},
        optional={"data": "Dataset", "train": "Dataset", "test": "Dataset", "report": "Metrics"},
        open=True,
        outputs={"registration": "dict"},
        sees_production=True,
        sees_as_of=True,
        # It has an effect, a new version; a run that finds it in the cache would register nothing of its own.
        cacheable=False,
    ),
    "predict": Component(
        artifacts={"data": "Dataset"},
        optional={"model": "Model"},
        open=True,
        outputs={"predictions": "Dataset", "rows": "int"},
        sees_production=True,
        sees_as_of=True,
    ),
}  # fmt: skip
