"""What the watches have seen: the latest state of every object that the operator looks at.

Decisions read from here and write with the resourceVersion they read, so a stale entry costs a retry and no error. A
write of our own is put in at once, so that the next decision does not rest on what was there before it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]


def _version(obj: Object) -> int:
    try:
        return int(obj["metadata"].get("resourceVersion", "0"))
    except ValueError:
        return 0


class Store:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = defaultdict(dict)

    def put(self, obj: Object) -> bool:
        """Takes a state in, unless a later one of the same object is known; says whether it was taken."""
        meta = obj["metadata"]
        slot = self._objects[obj["kind"]]
        key = (meta["namespace"], meta["name"])
        known = slot.get(key)
        if known and known["metadata"].get("uid") == meta.get("uid") and _version(known) > _version(obj):
            return False
        slot[key] = obj
        return True

    def drop(self, obj: Object) -> None:
        """The object was deleted."""
        meta = obj["metadata"]
        known = self._objects[obj["kind"]].get((meta["namespace"], meta["name"]))
        if known is not None and known["metadata"].get("uid") == meta.get("uid"):
            del self._objects[obj["kind"]][(meta["namespace"], meta["name"])]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The latest known state, or None."""
        return self._objects[kind].get((namespace, name))

    def list(self, kind: str, namespace: str | None = None) -> Iterator[Object]:
        """All known objects of a kind, in a namespace or everywhere."""
        for (ns, _), obj in list(self._objects[kind].items()):
            if namespace is None or ns == namespace:
                yield obj

    def select(self, kind: str, namespace: str, labels: dict[str, str]) -> Iterator[Object]:
        """The objects of a kind in a namespace that bear all these labels."""
        for obj in self.list(kind, namespace):
            have = obj["metadata"].get("labels") or {}
            if all(have.get(k) == v for k, v in labels.items()):
                yield obj
