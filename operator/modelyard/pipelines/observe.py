"""What the engine knows of a run's Jobs and pods: small records, and how they are read from Kubernetes' JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: The step's own container, and the one that publishes the outputs of an image that is not ours.
MAIN = "main"
PUBLISHER = "publisher"


@dataclass(frozen=True)
class ObservedPod:
    """One pod of an attempt."""

    name: str = ""
    phase: str = "Pending"
    """Pending, Running, Succeeded, Failed or Unknown."""
    exit_code: int | None = None
    """Of the step's own container, when it has ended."""
    reason: str = ""
    """Why the step's own container ended: ``OOMKilled``, ``Error``, ``ContainerStatusUnknown`` …"""
    message: str = ""
    """The termination message with the manifest: the publisher's where there is one."""
    pod_reason: str = ""
    """``status.reason``: ``Evicted``, ``NodeLost``, ``DeadlineExceeded`` …"""
    disrupted: str = ""
    """The reason of the condition DisruptionTarget, when it is true: ``PreemptionByScheduler`` …"""
    waiting_reason: str = ""
    """Why a container does not start: ``ImagePullBackOff``, ``CreateContainerConfigError`` …"""
    waiting_message: str = ""
    waiting_image: str = ""
    unschedulable: str = ""
    """The scheduler's message when it finds no node."""
    deleted: bool = False
    started_at: datetime | None = None
    image_id: str = ""
    index: int = 0
    """The rank among the pods of an Indexed Job."""


@dataclass(frozen=True)
class ObservedJob:
    """One Job, that is one attempt, and its pods."""

    name: str
    state: str = "Active"
    """Active, Complete or Failed."""
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    deleted: bool = False
    pods: tuple[ObservedPod, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it may still run something."""
        return self.state == "Active"


@dataclass(frozen=True)
class Published:
    """Outputs that were published before: a cache record, or a step of the run that this one resumes."""

    key: str
    outputs: Mapping[str, Any]
    run: str
    task: str
    created_at: datetime | None = None


@dataclass(frozen=True)
class Observed:
    """The world, as far as a run is concerned."""

    jobs: Mapping[str, ObservedJob] = field(default_factory=dict)
    """By name; those of this run only."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Job name → why it cannot be made: the API server's refusal, or ``PipelineError`` of ``jobs.build``."""
    cache: Mapping[str, Published | None] = field(default_factory=dict)
    """Key → record, None where there is none.  A key that is not here has not been looked up."""
    resume: Mapping[str, Published] = field(default_factory=dict)
    """Task → what the run named by ``resumeFrom`` published."""
    model_version: str | None = None
    """The ModelVersion that this run has registered."""
    register_error: str | None = None
    """Why the registry refuses this run's model, for good."""


def timestamp(text: str | None) -> datetime | None:
    """A time of Kubernetes'."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def observe_job(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> ObservedJob:
    """Read a Job and its pods, as the API server has them."""
    status = job.get("status") or {}
    state, reason, message = "Active", "", ""
    for condition in status.get("conditions") or []:
        # FailureTarget and SuccessCriteriaMet come first, while pods still end: not final yet.
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            state = condition["type"]
            reason, message = condition.get("reason") or "", condition.get("message") or ""
    read = sorted((observe_pod(pod) for pod in pods), key=lambda pod: (pod.index, pod.name))
    return ObservedJob(
        name=job["metadata"]["name"],
        state=state,
        reason=reason,
        message=message,
        started_at=timestamp(status.get("startTime")),
        deleted=bool(job["metadata"].get("deletionTimestamp")),
        pods=tuple(read),
    )


def observe_pod(pod: Mapping[str, Any]) -> ObservedPod:
    """Read a pod, as the API server has it."""
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    disruption = conditions.get("DisruptionTarget") or {}
    containers = {c["name"]: c for c in status.get("containerStatuses") or []}
    states: dict[str, dict[str, Any]] = {name: c.get("state") or {} for name, c in containers.items()}
    ended = (states.get(MAIN) or {}).get("terminated")
    publisher = (states.get(PUBLISHER) or {}).get("terminated")
    published = publisher if PUBLISHER in containers else ended
    if ended and ended.get("exitCode"):
        # The program failed: the end of its log says why, and what was published of it is of no interest.
        published = ended
    waits = [(name, state["waiting"]) for name, state in states.items() if state.get("waiting")]
    waiting_in, waiting = waits[0] if waits else ("", {})
    exit_code, reason = (ended.get("exitCode"), ended.get("reason") or "") if ended else (None, "")
    if ended and exit_code == 0 and publisher and publisher.get("exitCode"):
        # The program ended well and its outputs could not be published: the attempt failed all the same.
        exit_code, reason = publisher["exitCode"], publisher.get("reason") or "Error"
    images = {c["name"]: c.get("image") or "" for c in (pod.get("spec") or {}).get("containers") or []}
    index = (metadata.get("labels") or {}).get("batch.kubernetes.io/job-completion-index")
    return ObservedPod(
        name=metadata.get("name") or "",
        phase=status.get("phase") or "Pending",
        exit_code=exit_code,
        reason=reason,
        message=(published or {}).get("message") or "",
        pod_reason=status.get("reason") or "",
        disrupted=(disruption.get("reason") or "Disrupted") if disruption.get("status") == "True" else "",
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        waiting_image=images.get(waiting_in, ""),
        unschedulable=(scheduled.get("message") or "no node fits")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        else "",
        deleted=bool(metadata.get("deletionTimestamp")),
        started_at=timestamp(status.get("startTime")),
        image_id=(containers.get(MAIN) or {}).get("imageID") or "",
        index=int(index or 0),
    )
