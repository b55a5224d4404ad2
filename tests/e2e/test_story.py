"""The flights example on a real cluster: features, training, registry, and what happens when things break."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.e2e.install import ROOT, SYSTEM, TENANT, Kubectl

pytestmark = pytest.mark.e2e

FLIGHTS = ROOT / "manifests" / "flights"
AS_OF = "2013-11-01T00:00:00Z"
FINISHED = ("Succeeded", "Failed", "Cancelled")


def run(name: str, pipeline: str = "flight-delay", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "PipelineRun",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {"pipeline": pipeline, "asOf": AS_OF, **spec},
    }


def pipeline(name: str, *steps: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "TrainingPipeline",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {"steps": list(steps), **spec},
    }


def ended(kubectl: Kubectl, name: str, timeout: float = 300) -> dict[str, Any]:
    """The run, once it has ended."""

    def done() -> dict[str, Any] | None:
        found = kubectl.get("pipelinerun", name) or {}
        return found if found.get("status", {}).get("phase") in FINISHED else None

    found: dict[str, Any] = kubectl.wait(f"run {name}", done, timeout)
    return found


def steps(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in found["status"]["steps"]}


def test_views_are_materialised(kubectl: Kubectl) -> None:
    kubectl.apply(FLIGHTS / "features.yaml")
    views = [d["metadata"]["name"] for d in yaml.safe_load_all((FLIGHTS / "features.yaml").read_text())]
    for view in views:
        kubectl.wait(view, lambda view=view: kubectl.condition("fv", view).get("status") == "True", 240)  # type: ignore[misc]
    status = (kubectl.get("fv", "carrier-delays") or {})["status"]
    assert status["onlineKeys"] == 16
    assert status["rows"] == 327346


def test_version_one_trains_and_goes_to_production(kubectl: Kubectl) -> None:
    kubectl.apply(FLIGHTS / "model.yaml")
    kubectl.apply(FLIGHTS / "pipeline-v1.yaml")
    kubectl.apply(run("fd-v1"))
    found = ended(kubectl, "fd-v1")
    assert found["status"]["phase"] == "Succeeded", found["status"].get("message")
    assert found["status"]["modelVersion"] == "flight-delay-1"
    version = kubectl.get("mv", "flight-delay-1") or {}
    assert version["spec"]["artifact"]["digest"].startswith("sha256:")
    assert version["spec"]["provenance"]["run"] == "fd-v1"
    assert 0.6 < version["spec"]["metrics"]["roc_auc"] < 0.75
    kubectl.wait("Production", lambda: (kubectl.get("mdl", "flight-delay") or {})["status"].get("production") == 1, 30)
    kubectl.wait(
        "stage", lambda: (kubectl.get("mv", "flight-delay-1") or {})["status"].get("stage") == "Production", 30
    )


def test_an_unchanged_step_starts_no_pod(kubectl: Kubectl) -> None:
    """All but the registration is reused: the same data as of the same time, the same code, the same arguments."""
    plain = yaml.safe_load((FLIGHTS / "pipeline-v1.yaml").read_text())
    plain["metadata"]["name"] = "reuse"
    plain["spec"]["steps"] = plain["spec"]["steps"][:4]
    for step in plain["spec"]["steps"]:
        step["cache"] = {"enabled": True}
    kubectl.apply(plain)
    kubectl.apply(run("reuse-1", "reuse"))
    assert ended(kubectl, "reuse-1")["status"]["phase"] == "Succeeded"
    kubectl.apply(run("reuse-2", "reuse"))
    found = ended(kubectl, "reuse-2")
    assert all(step.get("cached") for step in found["status"]["steps"]), steps(found)
    assert not kubectl.list("pods", "modelyard.dev/run=reuse-2")


def test_killed_operator_loses_and_doubles_nothing(kubectl: Kubectl) -> None:
    kubectl.apply(FLIGHTS / "pipeline-v2.yaml")
    kubectl.apply(run("fd-v2"))
    for step in ("ingest", "features"):
        kubectl.wait(step, lambda step=step: running(kubectl, "fd-v2", step), 120, 0.3)  # type: ignore[misc]
        pods = "app.kubernetes.io/component=operator"
        kubectl.cluster.kubectl("-n", SYSTEM, "delete", "pod", "-l", pods, "--grace-period=0", "--force")
    found = ended(kubectl, "fd-v2", 400)
    assert found["status"]["phase"] == "Succeeded", found["status"].get("message")
    assert all(len(step["attempts"]) == 1 for step in found["status"]["steps"]), steps(found)
    made = [v for v in kubectl.list("mv") if v["spec"]["provenance"]["run"] == "fd-v2"]
    assert [v["metadata"]["name"] for v in made] == ["flight-delay-2"]
    metrics = made[0]["spec"]["metrics"]
    assert metrics["auc_gain_lower"] > 0, "the honest aggregates are an honest gain"


def running(kubectl: Kubectl, name: str, step: str) -> bool:
    found = kubectl.get("pipelinerun", name) or {}
    return any(s["name"] == step and s.get("job") for s in found.get("status", {}).get("steps", []))


def test_any_image_with_code_outputs_gpu_and_retries(kubectl: Kubectl) -> None:
    """A stock image: code from a ConfigMap, parameters and artifacts between steps, a GPU, one failure retried."""
    code = {
        "a.py": "import sys; open(sys.argv[1], 'w').write('41'); open(sys.argv[2], 'w').write('hello')",
        "b.py": "import sys; assert int(sys.argv[1]) == 41 and open(sys.argv[2]).read() == 'hello'; print('fine')",
    }
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": code})
    first = {
        "name": "a",
        "image": "python:3.11-slim",
        "outputs": {"number": "Integer", "text": "Artifact"},
        "command": ["python", "/code/a.py", "$(outputs.number.path)", "$(outputs.text.path)"],
        "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "128Mi"}},
    }
    second = {
        "name": "b",
        "image": "python:3.11-slim",
        "inputs": {"number": "$(steps.a.outputs.number)", "text": "$(steps.a.outputs.text)"},
        "command": ["python", "/code/b.py", "$(inputs.number)", "$(inputs.text.path)"],
    }
    flaky = {
        "name": "flaky",
        "image": "python:3.11-slim",
        "command": ["python", "-c", "raise SystemExit(3)"],
        "retries": {"limit": 1, "backoff": "1s"},
        "when": "steps.b.outputs == null",
    }
    del flaky["when"]
    kubectl.apply(pipeline("stock", first, second, code={"configMap": "code"}))
    kubectl.apply(run("stock-1", "stock"))
    found = ended(kubectl, "stock-1")
    assert found["status"]["phase"] == "Succeeded", json.dumps(found["status"], indent=1)
    assert steps(found)["a"]["outputs"]["parameters"]["number"] == 41
    assert steps(found)["a"]["outputs"]["artifacts"]["text"]["digest"].startswith("sha256:")
    kubectl.apply(pipeline("flaky", flaky))
    kubectl.apply(run("flaky-1", "flaky"))
    found = ended(kubectl, "flaky-1")
    assert found["status"]["phase"] == "Failed"
    assert [a["exitCode"] for a in steps(found)["flaky"]["attempts"]] == [3, 3]


def test_what_is_wrong_is_said_where_one_looks(kubectl: Kubectl) -> None:
    cycle = pipeline(
        "cycle",
        {"name": "a", "image": "x", "command": ["true"], "after": ["b"]},
        {"name": "b", "image": "x", "command": ["true"], "after": ["a"]},
    )
    kubectl.apply(cycle)
    kubectl.wait("cycle", lambda: "wait for each other" in kubectl.condition("tp", "cycle").get("message", ""), 30)

    strict = yaml.safe_load((FLIGHTS / "pipeline-v1.yaml").read_text())
    strict["metadata"]["name"] = "strict"
    strict["spec"]["steps"][1]["arguments"]["checks"] = {"rows": {"min": 10_000_000}}
    kubectl.apply(strict)
    kubectl.apply(run("strict-1", "strict"))
    found = ended(kubectl, "strict-1")
    assert found["status"]["phase"] == "Failed"
    assert "rows" in found["status"]["message"]
    assert steps(found)["train"]["phase"] == "Skipped"
    assert not found["status"].get("modelVersion")

    greedy = {
        "name": "greedy",
        "image": "python:3.11-slim",
        "command": ["true"],
        "resources": {"limits": {"nvidia.com/gpu": "99"}},
    }
    kubectl.apply(pipeline("greedy", greedy))
    kubectl.apply(run("greedy-1", "greedy"))
    kubectl.wait("no GPU", lambda: kubectl.condition("run", "greedy-1").get("reason") == "Unschedulable", 60)
    assert "nvidia.com/gpu" in kubectl.condition("run", "greedy-1")["message"]
    kubectl("patch", "run", "greedy-1", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert ended(kubectl, "greedy-1")["status"]["phase"] == "Cancelled"
    kubectl.wait("its pod goes", lambda: not kubectl.list("pods", "modelyard.dev/run=greedy-1"), 60)

    missing = {"name": "gone", "image": "docker.io/library/no-such-image:1", "command": ["true"]}
    kubectl.apply(pipeline("missing", missing))
    kubectl.apply(run("missing-1", "missing"))
    kubectl.wait("no image", lambda: "no-such-image" in kubectl.condition("run", "missing-1").get("message", ""), 90)
    kubectl("patch", "run", "missing-1", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    assert ended(kubectl, "missing-1")["status"]["phase"] == "Cancelled"


def test_a_second_apply_changes_nothing(kubectl: Kubectl) -> None:
    for name in ("features.yaml", "model.yaml", "pipeline-v2.yaml"):
        assert kubectl("diff", "-f", str(FLIGHTS / name), check=False).strip() == ""
    for kind in ("fv", "tp", "mdl", "mv", "run"):
        for found in kubectl.list(kind):
            assert "finalizers" not in found["metadata"], found["metadata"]["name"]
