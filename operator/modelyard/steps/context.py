"""A step's input, as the engine passes it in ``MODELYARD_STEP`` (docs/decisions/0001), and how a step fails.

What a user did wrong ends in a :class:`StepError`: a reason, a message that names what to change, and an exit code
that tells the engine not to try again.  Anything else that is raised is a crash, and is retried.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from modelyard.pipelines.manifest import EXIT_REFUSED, EXIT_UNREADABLE, Artifact

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


class StepError(Exception):
    """The step refuses: what the user sees in the run's status."""

    def __init__(self, reason: str, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.exit_code = exit_code


class Unreadable(StepError):
    """Data that is not there or cannot be read."""

    def __init__(self, message: str, reason: str = "UnreadableData") -> None:
        super().__init__(reason, message, EXIT_UNREADABLE)


@dataclass(frozen=True)
class Feature:
    """``view:name``, and what its column is called."""

    view: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Feature:
        """Read ``view:name`` or ``namespace/view:name``."""
        view, colon, name = text.rpartition(":")
        if not colon or not view or not name:
            raise StepError("InvalidDataset", f"dataset.features: {text!r} is not VIEW:NAME")
        return cls(view, name)

    @property
    def column(self) -> str:
        """The column in our tables and in profiles: unambiguous whatever else is joined."""
        return f"{self.view.replace('/', '__')}__{self.name}"

    def __str__(self) -> str:
        return f"{self.view}:{self.name}"


def input_names(features: list[Feature]) -> dict[str, str]:
    """What a model calls its inputs, by column: the feature's name; ``VIEW__NAME`` where two views share one.

    >>> input_names([Feature("weather", "temp"), Feature("a", "n"), Feature("b", "n")])
    {'weather__temp': 'temp', 'a__n': 'a__n', 'b__n': 'b__n'}
    """
    names = [feature.name for feature in features]
    return {f.column: f.name if names.count(f.name) == 1 else f.column for f in features}


@dataclass(frozen=True)
class Dataset:
    """``spec.dataset``: what is learnt from what, and as of when."""

    uri: str
    event_timestamp: str
    format: str | None = None
    id: str | None = None
    label: str | None = None
    available_at: str | None = None
    features: tuple[Feature, ...] = ()
    window: timedelta | None = None
    holdout: timedelta | None = None
    embargo: timedelta = timedelta(0)

    @classmethod
    def read(cls, spec: Mapping[str, Any]) -> Dataset:
        """Read ``spec.dataset``; admission has judged it, so this only guards against other callers."""
        spine = spec.get("spine") or {}
        label = spec.get("label") or {}
        split = spec.get("split") or {}
        for name in ("uri", "eventTimestamp"):
            if not spine.get(name):
                raise StepError("InvalidDataset", f"dataset.spine.{name} is missing")
        window = (spec.get("window") or {}).get("last")
        return cls(
            uri=spine["uri"],
            event_timestamp=spine["eventTimestamp"],
            format=spine.get("format"),
            id=spine.get("id"),
            label=label.get("column"),
            available_at=label.get("availableAt"),
            features=tuple(Feature.parse(text) for text in spec.get("features") or ()),
            window=duration(window, "dataset.window.last") if window else None,
            holdout=duration(split["holdout"], "dataset.split.holdout") if split.get("holdout") else None,
            embargo=duration(split.get("embargo") or "0s", "dataset.split.embargo"),
        )

    def labelled(self) -> str:
        """The label's column, or a refusal."""
        if not self.label:
            raise StepError("InvalidDataset", "dataset.label.column is missing: there is nothing to learn")
        return self.label


@dataclass(frozen=True)
class Step:
    """The whole input of a built-in component."""

    component: str
    prefix: Path
    run: str = ""
    namespace: str = ""
    task: str = ""
    as_of: datetime | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    spec: Mapping[str, Any] | None = None
    views: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    production: Mapping[str, Any] | None = None
    model: str = ""
    seed: int = 0
    code: str | None = None

    @classmethod
    def read(cls, text: str | None = None) -> Step:
        """Read ``MODELYARD_STEP``."""
        text = os.environ.get("MODELYARD_STEP") if text is None else text
        if not text:
            raise StepError("InvalidStep", "MODELYARD_STEP is not set: steps are started by a run")
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise StepError("InvalidStep", f"MODELYARD_STEP is not JSON: {error}") from error
        if not isinstance(raw, dict):
            raise StepError("InvalidStep", "MODELYARD_STEP is not an object")
        outputs = raw.get("outputs") or {}
        artifacts = (raw.get("inputs") or {}).get("artifacts") or {}
        return cls(
            component=str(raw.get("component", "")),
            prefix=path_of(outputs.get("prefix") or "/tmp/outputs"),
            run=raw.get("run") or "",
            namespace=raw.get("namespace") or "",
            task=raw.get("task") or "",
            as_of=instant(raw["asOf"], "asOf") if raw.get("asOf") else None,
            arguments=raw.get("arguments") or {},
            inputs={
                name: Artifact(a["uri"], a.get("digest") or "", a.get("type") or "Artifact", a.get("metadata") or {})
                for name, a in artifacts.items()
            },
            spec=raw.get("dataset"),
            views=raw.get("views") or {},
            production=raw.get("production"),
            model=raw.get("model") or "",
            seed=int(raw.get("seed") or 0),
            code=raw.get("code"),
        )

    @property
    def dataset(self) -> Dataset:
        """The pipeline's dataset, or a refusal."""
        if not self.spec:
            raise StepError("InvalidDataset", f"component {self.component} needs the pipeline's spec.dataset")
        return Dataset.read(self.spec)

    def moment(self) -> datetime:
        """The run's logical time; now, where a step is run by hand without one."""
        return self.as_of or datetime.now(UTC)

    def input(self, name: str) -> Path:
        """The local path of an input artifact."""
        if name not in self.inputs:
            there = ", ".join(sorted(self.inputs)) or "none"
            raise StepError(
                "MissingInput",
                f"component {self.component} needs the artifact {name!r}, e.g. arguments: "
                f"{{{name}: $(steps.<step>.outputs.{name})}}; given: {there}",
            )
        path = path_of(self.inputs[name].uri)
        if not path.exists():
            raise Unreadable(f"input {name}: {self.inputs[name].uri} does not exist")
        return path

    def argument(self, name: str, kind: type, default: Any = None) -> Any:
        """An argument of a type; numbers and JSON may come as strings, as KFP passes them."""
        value = self.arguments.get(name, default)
        if value is None:
            return default
        if isinstance(value, str) and kind is not str:
            with contextlib.suppress(ValueError):
                value = json.loads(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # KFP has one number type
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise StepError("InvalidArgument", f"argument {name}: {value!r} is not of type {kind.__name__}")
        return value


@dataclass
class Outputs:
    """What a component has made: parameters, and artifacts as path, type and metadata."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, tuple[Path, str, dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, path: Path, type: str, **metadata: Any) -> None:
        """Publish a file or folder."""
        self.artifacts[name] = (path, type, metadata)


def duration(text: str, where: str) -> timedelta:
    """``90s``, ``15m``, ``6h``, ``7d``, ``2w``, or several in a row."""
    parts = _DURATION.findall(str(text))
    if not parts or "".join(number + unit for number, unit in parts) != str(text):
        raise StepError("InvalidDataset", f"{where}: {text!r} is not a duration such as 90s, 15m, 6h, 7d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def instant(text: str, where: str) -> datetime:
    """An RFC 3339 time, in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise StepError("InvalidStep", f"{where}: {text!r} is not a time such as 2013-10-31T00:00:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def path_of(uri: str) -> Path:
    """The local path of a ``file://`` URI or a plain path."""
    parts = urlsplit(str(uri))
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path) if parts.scheme else str(uri))
    raise Unreadable(f"{uri}: steps read file:// only, so far; mount the data on the artifact volume")
