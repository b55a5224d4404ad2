"""Kubernetes events with typed reasons, deduplicated by name so that a repeated decision says a thing once."""

from __future__ import annotations

import datetime
import hashlib
import logging

from modelyard.cluster.client import ApiError, ClusterClient, Object
from modelyard.cluster.status import rfc3339

log = logging.getLogger(__name__)


def event_name(obj: Object, reason: str, message: str) -> str:
    """Deterministic: the same words about the same object are the same event."""
    meta = obj["metadata"]
    digest = hashlib.sha256(f"{meta['uid']}|{reason}|{message}".encode()).hexdigest()[:12]
    return f"{meta['name'][:40]}.{digest}"


async def emit(client: ClusterClient, obj: Object, type_: str, reason: str, message: str) -> None:
    """Writes one event about `obj`; a failure to do so is logged and harms nothing else."""
    meta = obj["metadata"]
    now = rfc3339(datetime.datetime.now(datetime.UTC))
    event: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(obj, reason, message), "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": type_,
        "reason": reason,
        "message": message[:1024],
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "modelyard"},
        "reportingComponent": "modelyard.dev/operator",
    }
    try:
        await client.apply(event, "modelyard-events")
    except ApiError as error:
        log.warning("event %s about %s/%s was not written: %s", reason, meta["namespace"], meta["name"], error)
