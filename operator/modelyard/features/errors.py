"""What can go wrong with features, by who has to mend it. Messages name the view and the column."""

from __future__ import annotations


class FeatureError(ValueError):
    """Anything a user can mend; ``reason`` is the machine-readable CamelCase kind."""

    reason = "FeatureError"


class DefinitionError(FeatureError):
    """The FeatureView, or a reference to it, is wrong."""

    reason = "InvalidDefinition"


class RequestError(FeatureError):
    """An online request or a push is malformed: the caller's fault (HTTP 400)."""

    reason = "InvalidRequest"


class SourceError(FeatureError):
    """The source cannot be read at all: missing, not Parquet, a scheme that is not supported (exit 65)."""

    reason = "SourceUnreadable"


class TransformError(FeatureError):
    """The view's SQL does not run; the message keeps DuckDB's position."""

    reason = "TransformFailed"


class SchemaError(FeatureError):
    """A column is missing or holds what its declared type cannot (exit 64)."""

    reason = "SchemaViolation"


class CheckError(FeatureError):
    """A feature's own check (min, max, maxNullRatio) failed; nothing was written (exit 64)."""

    reason = "CheckFailed"


class StoreUnreachable(RuntimeError):
    """The online store did not answer; the caller may retry or apply ``onFeatureError``."""

    reason = "OnlineStoreUnreachable"
