"""The objects that run an attempt."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.pipelines.worlds import FLIGHT, OWNER, frozen_of, shell

from modelyard.pipelines import cache
from modelyard.pipelines.errors import PipelineError
from modelyard.pipelines.freeze import config_map, load, pinned
from modelyard.pipelines.jobs import build
from modelyard.pipelines.resolve import Resolved, ResolveError, convert, resolve

DATA = {
    "uri": "file:///artifacts/runs/r1/features/1/train",
    "digest": "sha256:d",
    "type": "Dataset",
    "metadata": {},
}
TRAIN = Resolved(
    {"depth": 6, "pipelinechannel--note": "pay $(HOME) $5", "pipelinechannel--late_minutes": 15},
    {"data": DATA},
)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def test_a_users_image_with_outputs_and_workers() -> None:
    service, job = build(frozen_of(FLIGHT), "train", 2, TRAIN, OWNER)
    assert job["spec"] | {"template": None} == {
        "backoffLimit": 0, "completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "podReplacementPolicy": "Failed", "template": None,
    }  # fmt: skip
    name = job["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == name
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    pod = pod_of(job)
    main, publisher = pod["containers"]
    assert pod["shareProcessNamespace"]
    assert pod["subdomain"] == name
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "train"
    assert pod["activeDeadlineSeconds"] == 7200
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["fsGroup"] == 65532
    prefix = "/artifacts/runs/r1/train/2"
    assert main["command"] == [
        "python", "/code/train.py", "--data=/artifacts/runs/r1/features/1/train", "--depth=6",
        f"--model={prefix}/model", f"--score={prefix}/score", "pay $$(HOME) $$5", "$(MASTER_ADDR)",
    ]  # fmt: skip
    env = {item["name"]: item.get("value", item.get("valueFrom")) for item in main["env"]}
    assert env["WORLD_SIZE"] == "4"
    assert env["MASTER_ADDR"] == f"{name}-0.{name}"
    assert "fieldRef" in env["RANK"]
    assert env["LATE"] == "15 min"
    assert env["KEY"]["secretKeyRef"] == {"name": "s", "key": "k"}
    assert main["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}
    assert main["securityContext"]["readOnlyRootFilesystem"] is False
    mounts = {mount["mountPath"]: mount for mount in main["volumeMounts"]}
    assert mounts["/artifacts"]["readOnly"]
    assert mounts[prefix]["subPath"] == "runs/r1/train/2"
    assert mounts["/code"]["readOnly"]
    assert "/scratch" in mounts
    assert "/tmp" in mounts
    assert publisher["command"][-1] == "publish"
    assert publisher["securityContext"]["readOnlyRootFilesystem"]
    assert publisher["image"] == "runtime:1"
    step = json.loads(publisher["env"][0]["value"].replace("$$", "$"))
    assert step["outputs"] == {
        "prefix": prefix, "artifacts": {"model": "Model", "report": "Metrics"},
        "parameters": {"score": "NUMBER_DOUBLE"},
    }  # fmt: skip


def test_a_component_is_one_container_with_its_input_in_the_environment() -> None:
    (job,) = build(frozen_of(FLIGHT), "ingest", 1, Resolved({}, {}), OWNER)
    (main,) = pod_of(job)["containers"]
    assert main["command"] == ["python", "-m", "modelyard.steps", "ingest"]
    assert main["image"] == "runtime:1"
    step = json.loads(next(e["value"] for e in main["env"] if e["name"] == "MODELYARD_STEP"))
    assert step["component"] == "ingest"
    assert step["asOf"] == "2026-01-01T00:00:00Z"
    assert step["code"] == "/code"
    assert step["views"]["carrier"]["version"] == "3f9a1c"
    assert step["outputs"]["artifacts"] == {"data": "Dataset"}
    assert set(step) == {
        "run", "namespace", "task", "attempt", "asOf", "component", "arguments", "inputs", "outputs", "dataset",
        "views", "production", "model", "seed", "code",
    }  # fmt: skip
    assert main["securityContext"]["readOnlyRootFilesystem"]
    assert "shareProcessNamespace" not in pod_of(job)
    assert any(mount["mountPath"] == "/connections/lake" for mount in main["volumeMounts"])
    assert job["metadata"]["ownerReferences"] == [OWNER]


def test_an_image_without_outputs_is_one_container() -> None:
    frozen = frozen_of({"steps": [shell("a", outputs={})]})
    (job,) = build(frozen, "a", 1, Resolved({}, {}), OWNER)
    assert len(pod_of(job)["containers"]) == 1
    assert "shareProcessNamespace" not in pod_of(job)


def test_mounts_over_the_engines_own_are_refused() -> None:
    frozen = frozen_of({"steps": [shell("a", volumeMounts=[{"name": "v", "mountPath": "/artifacts/runs"}])]})
    with pytest.raises(PipelineError, match="mounted by the engine"):
        build(frozen, "a", 1, Resolved({}, {}), OWNER)


def test_arguments_are_typed_and_nested_references_keep_their_type() -> None:
    artifact = {"uri": "file:///artifacts/x", "digest": "sha256:1"}
    published = {
        "train": {"artifacts": {"model": artifact}},
        "features": {"artifacts": {"profile": artifact}},
        "evaluate": {"parameters": {"roc_auc": 0.73}},
    }
    found = resolve(frozen_of(FLIGHT), "register", published)
    assert found.parameters["metrics"] == {"roc_auc": 0.73, "text": "auc 0.73"}
    assert found.artifacts["model"] == artifact
    with pytest.raises(ResolveError, match="evaluate has published no"):
        resolve(frozen_of(FLIGHT), "register", published | {"evaluate": {}})


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        ("6", "NUMBER_INTEGER", 6), (6.0, "NUMBER_INTEGER", 6), (" 0.5\n", "NUMBER_DOUBLE", 0.5),
        (1, "NUMBER_DOUBLE", 1.0),
        ("True", "BOOLEAN", True), ("[1]", "LIST", [1]), ({"a": 1}, "STRUCT", {"a": 1}), (6, "STRING", "6"),
        (None, "NUMBER_INTEGER", None),
    ],
)  # fmt: skip
def test_values_are_converted_where_nothing_is_lost(value: Any, kind: str, result: Any) -> None:
    assert convert(value, kind, "x") == result


@pytest.mark.parametrize(
    ("value", "kind"), [("6.5", "NUMBER_INTEGER"), (6.5, "NUMBER_INTEGER"), (True, "NUMBER_INTEGER"),
                        ("yes", "BOOLEAN"),
                        ("{", "STRUCT"), ([], "STRUCT"), (1, "BOOLEAN")],
)  # fmt: skip
def test_values_of_another_type_are_refused(value: Any, kind: str) -> None:
    with pytest.raises(ResolveError):
        convert(value, kind, "x")


def test_the_cache_key_covers_what_matters_and_nothing_else() -> None:
    def key(spec: dict[str, Any] = FLIGHT, resolved: Resolved = TRAIN, task: str = "train", **run: Any) -> str | None:
        return cache.cache_key(frozen_of(spec, **run), task, resolved)

    base = key()
    assert base == key(run="another")
    assert base is not None
    moved = {**DATA, "uri": "file:///artifacts/runs/r0/features/1/train"}
    assert base == key(resolved=Resolved(TRAIN.parameters, {"data": moved}))
    assert base != key(resolved=Resolved(TRAIN.parameters, {"data": {**DATA, "digest": "sha256:e"}}))
    assert base != key(resolved=Resolved({**TRAIN.parameters, "depth": 7}, TRAIN.artifacts))
    other_image = {
        **FLIGHT,
        "steps": [{**s, "image": "python:3.12"} if "image" in s else s for s in FLIGHT["steps"]],
    }
    assert base != key(other_image)
    assert key(resolved=Resolved({}, {"data": {"uri": "file:///x"}})) is None
    assert key(task="register", resolved=Resolved({}, {})) is None


def test_the_frozen_document_is_what_its_digest_says() -> None:
    frozen = frozen_of(FLIGHT)
    stored = config_map(frozen, OWNER)
    assert stored["immutable"]
    assert load(stored, frozen.digest).document == frozen.document
    assert frozen_of(FLIGHT).digest == frozen.digest != frozen_of(FLIGHT, late_minutes=20).digest
    with pytest.raises(PipelineError, match="the run's is"):
        load(stored, "sha256:other")


def test_images_by_digest() -> None:
    assert pinned("python:3.11", "sha256:a") == "python@sha256:a"
    assert pinned("host:5000/x", "sha256:a") == "host:5000/x@sha256:a"
    assert pinned("x@sha256:b", "sha256:a") == "x@sha256:b"
