"""What a version's pods say about the version, and what they only say about the cluster.

A model that cannot start is known to be bad without a single request; a node without room says nothing
about it. The first rejects a candidate at once, the second holds its rollout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

DIGEST_MISMATCH = 66
CANNOT_LOAD = 67
STORE_UNAVAILABLE = 69
"""The server's own exit codes: other bytes than were registered; they do not load; no answer of the store."""

_VERDICTS = {
    DIGEST_MISMATCH: "DigestMismatch: the artifact is not the one that was registered",
    CANNOT_LOAD: "CannotLoad: the server cannot load the model",
}


@dataclass(frozen=True)
class Health:
    """A version's pods: how many are ready, why the version is bad, or what it waits for."""

    ready: int = 0
    failure: str = ""
    waiting: str = ""


def health(pods: Iterable[Mapping[str, Any]]) -> Health:
    """The health of one version from its Pod objects; those being deleted say nothing."""
    ready, failure, waiting = 0, "", ""
    for pod in pods:
        if pod.get("metadata", {}).get("deletionTimestamp"):
            continue
        status = pod.get("status", {})
        conditions = {entry["type"]: entry for entry in status.get("conditions", ())}
        if conditions.get("Ready", {}).get("status") == "True":
            ready += 1
            continue
        scheduled = conditions.get("PodScheduled", {})
        if scheduled.get("status") == "False":
            waiting = waiting or f"scheduling: {scheduled.get('message') or scheduled.get('reason', '')}"
        for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
            bad, slow = _container(container)
            failure, waiting = failure or bad, waiting or slow
    return Health(ready, failure, waiting)


def _container(status: Mapping[str, Any]) -> tuple[str, str]:
    state = status.get("state", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated") or {}
    code = ended.get("exitCode", 0)
    if code in _VERDICTS:
        return f"{_VERDICTS[code]}{_detail(ended)}", ""
    if code == STORE_UNAVAILABLE:
        return "", f"the store did not answer{_detail(ended)}"
    reason = state.get("waiting", {}).get("reason", "")
    if reason == "CrashLoopBackOff":
        why = "out of memory" if ended.get("reason") == "OOMKilled" else f"exit code {code}"
        return f"CrashLoopBackOff: {why}, {status.get('restartCount', 0)} restarts{_detail(ended)}", ""
    if reason:
        return "", f"{reason}: {state['waiting'].get('message', '')}".rstrip(": ")
    return "", ""


def _detail(ended: Mapping[str, Any]) -> str:
    message = str(ended.get("message") or "").strip()
    return f" ({message[:200]})" if message else ""
