"""Conditions, and the guarded status write that every kind shares."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from modelyard.cluster.client import ClusterClient, Conflict, NotFound, Object


class Condition(NamedTuple):
    """What is to be said under one type; the transition time follows from what was said before."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


def rfc3339(moment: datetime.datetime) -> str:
    """The moment in UTC, to the second, as Kubernetes writes it."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge_conditions(
    before: Iterable[Mapping[str, Any]], said: Iterable[Condition], now: datetime.datetime
) -> list[Object]:
    """The list of conditions after `said`: others stay, a transition time moves only where the status does."""
    by_type: dict[str, Object] = {entry["type"]: dict(entry) for entry in before}
    for condition in said:
        status = {True: "True", False: "False", None: "Unknown"}[condition.status]
        old = by_type.get(condition.type)
        changed = old is None or old.get("status") != status
        by_type[condition.type] = {
            "type": condition.type,
            "status": status,
            "reason": condition.reason,
            "message": condition.message[:1024],
            "lastTransitionTime": rfc3339(now) if changed or not old else old.get("lastTransitionTime", rfc3339(now)),
        }
    return [by_type[key] for key in sorted(by_type)]


async def write_status(client: ClusterClient, obj: Object, status: Object, manager: str) -> Object | None:
    """Writes `status` if it says anything new; None where somebody else wrote first and the object must be read again.

    The write carries the resourceVersion that the decision was made on, so that no decision ever rests on a stale read.
    """
    if obj.get("status", {}) == status:
        return obj
    body = {**obj, "status": status}
    body["metadata"] = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    try:
        return await client.replace_status(body, manager)
    except (Conflict, NotFound):
        return None
