"""What became of an attempt: the one place where pods' states are given a meaning.

Two kinds of failure are kept apart.  The *application* failed when the step's own program did: its exit
code, its memory, its time.  The *infrastructure* failed when the pod was taken away: evicted, preempted,
lost with its node.  A user's ``retries`` are for the first kind only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from modelyard.pipelines import manifest
from modelyard.pipelines.manifest import EXIT_REFUSED, EXIT_UNREADABLE, Manifest, ManifestError
from modelyard.pipelines.observe import ObservedJob, ObservedPod

#: How long the engine waits, beyond a step's timeout, for the kubelet to end it.
TIMEOUT_GRACE = timedelta(seconds=30)

#: Reasons of a pod that failed through no fault of its program.
_INFRASTRUCTURE = frozenset(
    {
        "Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "NodeAffinity", "Shutdown", "Terminated",
        "UnexpectedAdmissionError", "ContainerStatusUnknown", "OutOfcpu", "OutOfmemory", "OutOfpods",
    }
)  # fmt: skip

_CANNOT_START = frozenset(
    {
        "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError",
        "RegistryUnavailable", "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
    }
)  # fmt: skip


class Kind(StrEnum):
    """What can be said of an attempt."""

    WAITING = "Waiting"
    UNSCHEDULABLE = "Unschedulable"
    BLOCKED = "Blocked"
    """A container cannot start: its image, its secrets."""
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    APPLICATION = "ApplicationFailure"
    REFUSED = "Refused"
    """The step says itself that to try again is of no use."""
    INFRASTRUCTURE = "InfrastructureFailure"


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt, and the words for it."""

    kind: Kind
    reason: str = ""
    message: str = ""
    pod: str = ""
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Expectations:
    """What the engine knows of a step apart from its Job."""

    built_in: bool = False
    wants_manifest: bool = True
    """False for a user's image without outputs: it has one container, which owes us no manifest."""
    timeout: int | None = None
    workers: int = 1
    memory_limit: str = ""
    image: str = ""


def judge(job: ObservedJob, expected: Expectations, now: datetime) -> Outcome:
    """What became of the attempt that ``job`` is."""
    failed = [pod for pod in job.pods if pod.phase == "Failed"]
    done = [pod for pod in job.pods if pod.phase == "Succeeded"]
    indices = {pod.index for pod in done}
    if len(indices) >= expected.workers:
        return _succeeded(next(pod for pod in done if pod.index == min(indices)), expected)
    # With several workers one lost pod makes the others fail: the loss is the cause, their exit codes are
    # not.
    for pod in failed:
        if lost := _lost(pod):
            return lost
    if failed:
        return _failed(failed[0], expected)
    if job.state == "Failed" and job.reason == "DeadlineExceeded":
        return _timed_out(job.pods[0].name if job.pods else "", expected)
    if job.state != "Active":
        # The Job has ended and its pod is gone, or was taken while it ran: nobody can say what it published.
        name = job.pods[0].name if job.pods else ""
        return Outcome(Kind.INFRASTRUCTURE, "PodLost", f"the pod is gone ({job.reason or job.state})", name)
    if job.deleted:
        return Outcome(Kind.INFRASTRUCTURE, "JobDeleted", "the Job was deleted while it ran")
    return _unfinished(job, expected, now)


def _succeeded(pod: ObservedPod, expected: Expectations) -> Outcome:
    if not expected.wants_manifest:
        return Outcome(Kind.SUCCEEDED, pod=pod.name, manifest=Manifest())
    try:
        read = manifest.decode(pod.message)
    except ManifestError as error:
        return Outcome(Kind.APPLICATION, "InvalidManifest", str(error), pod.name)
    if read.error is not None:
        return Outcome(Kind.APPLICATION, read.error.reason, read.error.message, pod.name)
    return Outcome(Kind.SUCCEEDED, pod=pod.name, manifest=read)


def _lost(pod: ObservedPod) -> Outcome | None:
    for reason in (pod.disrupted, pod.pod_reason, pod.reason):
        if reason and (reason == pod.disrupted or reason in _INFRASTRUCTURE):
            return Outcome(Kind.INFRASTRUCTURE, reason, f"pod {pod.name} was lost: {reason}", pod.name)
    if pod.deleted and pod.reason != "OOMKilled" and pod.exit_code in (None, 137, 143):
        return Outcome(Kind.INFRASTRUCTURE, "PodDeleted", f"pod {pod.name} was deleted while it ran", pod.name)
    if pod.exit_code is None and pod.pod_reason != "DeadlineExceeded":
        # No container of it ended, so no program failed.
        reason = pod.pod_reason or "PodFailed"
        return Outcome(Kind.INFRASTRUCTURE, reason, f"pod {pod.name} failed before its program ended", pod.name)
    return None


def _failed(pod: ObservedPod, expected: Expectations) -> Outcome:
    if pod.pod_reason == "DeadlineExceeded":
        return _timed_out(pod.name, expected)
    if pod.reason == "OOMKilled":
        limit = f" of {expected.memory_limit}" if expected.memory_limit else ""
        return Outcome(
            Kind.APPLICATION, "OOMKilled",
            f"the container used more than its memory limit{limit}: raise resources.limits.memory", pod.name,
        )  # fmt: skip
    try:
        error = manifest.decode(pod.message).error if pod.message else None
    except ManifestError:
        error = None
    kind = Kind.APPLICATION
    if expected.built_in and pod.exit_code in (EXIT_REFUSED, EXIT_UNREADABLE):
        kind = Kind.REFUSED
    if error is not None:
        return Outcome(kind, error.reason, error.message, pod.name)
    reason = "DataUnreadable" if kind is Kind.REFUSED and pod.exit_code == EXIT_UNREADABLE else "ExitCode"
    message = f"exit code {pod.exit_code}"
    # Without a manifest the message is the end of the log, by terminationMessagePolicy.
    if tail := pod.message.strip():
        message += ": " + tail.splitlines()[-1][:300]
    return Outcome(kind, reason, message, pod.name)


def _timed_out(pod: str, expected: Expectations) -> Outcome:
    return Outcome(Kind.APPLICATION, "Timeout", f"took longer than its timeout of {expected.timeout} s", pod)


def _unfinished(job: ObservedJob, expected: Expectations, now: datetime) -> Outcome:
    for pod in job.pods:
        if pod.waiting_reason in _CANNOT_START:
            return _blocked(pod, expected)
    for pod in job.pods:
        if pod.unschedulable and pod.phase == "Pending":
            return Outcome(Kind.UNSCHEDULABLE, "Unschedulable", pod.unschedulable, pod.name)
    begun = [pod.started_at for pod in job.pods if pod.started_at]
    if expected.timeout and begun and now >= min(begun) + timedelta(seconds=expected.timeout) + TIMEOUT_GRACE:
        return _timed_out(job.pods[0].name, expected)
    running = [pod for pod in job.pods if pod.phase == "Running"]
    if running:
        return Outcome(Kind.RUNNING, pod=running[0].name)
    return Outcome(Kind.WAITING, pod=job.pods[0].name if job.pods else "")


def _blocked(pod: ObservedPod, expected: Expectations) -> Outcome:
    image = pod.waiting_image or expected.image
    why = pod.waiting_message or pod.waiting_reason
    if pod.waiting_reason.startswith(("CreateContainer", "RunContainer")):
        return Outcome(Kind.BLOCKED, pod.waiting_reason, f"the container cannot start: {why}", pod.name)
    return Outcome(Kind.BLOCKED, "ImagePullFailed", f"image {image} cannot be pulled: {why}", pod.name)
