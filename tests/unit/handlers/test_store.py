"""The store keeps the latest state, whatever order it is told in."""

from __future__ import annotations

from typing import Any

from modelyard.handlers.routes import keys_of
from modelyard.handlers.store import Store


def obj(kind: str, name: str, version: int, uid: str = "u", **rest: Any) -> dict[str, Any]:
    meta = {
        "namespace": "n",
        "name": name,
        "resourceVersion": str(version),
        "uid": uid,
        **rest.pop("meta", {}),
    }
    return {"kind": kind, "metadata": meta, **rest}


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    store = Store()
    store.put(obj("Model", "m", 5))
    assert not store.put(obj("Model", "m", 4))
    found = store.get("Model", "n", "m")
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "5"


def test_a_recreated_object_is_another() -> None:
    store = Store()
    store.put(obj("Model", "m", 5, uid="old"))
    store.put(obj("Model", "m", 9, uid="new"))
    store.drop(obj("Model", "m", 8, uid="old"))
    assert store.get("Model", "n", "m") is not None


def test_routes() -> None:
    store = Store()
    serving = obj("ServingDeployment", "sd", 1, spec={"model": {"name": "m"}})
    store.put(serving)
    keys = set(keys_of(obj("Model", "m", 1, spec={}), store))
    assert ("ServingDeployment", "n", "sd") in keys
    pod = obj("Pod", "p", 1, meta={"labels": {"modelyard.dev/run": "r"}})
    assert list(keys_of(pod, store)) == [("PipelineRun", "n", "r")]
