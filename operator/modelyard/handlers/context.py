"""What every handler is given."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.cluster.client import ApiError, ClusterClient, Object
from modelyard.cluster.events import emit
from modelyard.cluster.queue import Key, WorkQueue
from modelyard.cluster.status import Condition, merge_conditions, write_status
from modelyard.handlers.prometheus import Prometheus
from modelyard.handlers.settings import Settings
from modelyard.handlers.store import Store

log = logging.getLogger(__name__)


@dataclass
class Context:
    """The operator's world: the API server, what the watches saw, Prometheus, and the queue."""

    client: ClusterClient
    store: Store
    settings: Settings
    prometheus: Prometheus
    queue: WorkQueue | None = None

    def now(self) -> datetime.datetime:
        """The current time, in UTC."""
        return datetime.datetime.now(datetime.UTC)

    async def wake(self, key: Key) -> None:
        """Has a key looked at soon."""
        if self.queue is not None:
            await self.queue.add(key)

    async def write_status(
        self, obj: Object, status: Object, conditions: Sequence[Condition], manager: str
    ) -> Object | None:
        """Writes a status with its conditions and observedGeneration; None where the object must be read again."""
        before = obj.get("status", {}).get("conditions", [])
        status = {
            **status,
            "observedGeneration": obj["metadata"].get("generation", 0),
            "conditions": merge_conditions(before, conditions, self.now()),
        }
        written = await write_status(self.client, obj, status, manager)
        if written is not None:
            written.setdefault("apiVersion", obj["apiVersion"])
            written.setdefault("kind", obj["kind"])
            self.store.put(written)
        return written

    async def event(self, obj: Object, type_: str, reason: str, message: str) -> None:
        """An event about `obj`."""
        await emit(self.client, obj, type_, reason, message)

    async def apply(self, obj: Object, manager: str) -> Object:
        """Server-side apply, remembered at once."""
        applied = await self.client.apply(obj, manager)
        applied.setdefault("apiVersion", obj["apiVersion"])
        applied.setdefault("kind", obj["kind"])
        self.store.put(applied)
        return applied

    async def fresh(self, key: Key) -> Object | None:
        """The object as the API server has it now."""
        obj = await self.client.get(key.kind, key.namespace, key.name)
        if obj is not None:
            self.store.put(obj)
        return obj


def owner_reference(obj: Object) -> Object:
    """An owner reference that does not block the owner's deletion."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


__all__ = ["ApiError", "Condition", "Context", "Key", "Object", "owner_reference"]
