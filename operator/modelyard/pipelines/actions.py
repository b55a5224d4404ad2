"""What a decision about a run asks for: plain values, which the handler turns into calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.pipelines.resolve import Resolved


@dataclass(frozen=True)
class CreateJob:
    """Make the Job of an attempt (:func:`modelyard.pipelines.jobs.build`); if it exists, that is it."""

    task: str
    attempt: int
    name: str
    resolved: Resolved


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job and its pods; if there is none, well."""

    name: str


@dataclass(frozen=True)
class Event:
    """Tell the user; ``type`` is Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Register:
    """Make the ModelVersion of this run, unless it has one."""

    task: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Remember:
    """Keep a cache record of a step (:func:`modelyard.pipelines.cache.build_record`)."""

    task: str
    key: str
    outputs: Mapping[str, Any]


Action = CreateJob | DeleteJob | Event | Register | Remember


@dataclass(frozen=True)
class Decision:
    """What to write, then what to do."""

    actions: tuple[Action, ...]
    status: dict[str, Any]
    requeue_after: float | None = None
    """Seconds until something is due that no watch will tell."""
    lookups: tuple[str, ...] = ()
    """Cache keys to look up; put them into ``Observed.cache`` (None for a miss) and decide again."""
