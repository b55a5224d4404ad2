"""The chart renders whatever the install, refuses what it does not know, asks for no more than it needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import CHART, ROOT, VALUES, Render, tool

EVERY_WAY = sorted(VALUES.glob("*.yaml"))
Helm = Callable[..., subprocess.CompletedProcess[str]]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"]["name"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def rules(objects: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for each in of_kind(objects, kind):
        yield from each["rules"]


def cores(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def environment(objects: list[dict[str, Any]]) -> dict[str, str]:
    deployment = named(objects, "Deployment", "modelyard-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


@pytest.mark.parametrize("values", EVERY_WAY, ids=lambda path: path.stem)
def test_lint(helm: Helm, values: Path) -> None:
    done = helm("lint", "--strict", "--kube-version", "1.34.0", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", EVERY_WAY, ids=lambda path: path.stem)
def test_every_object_has_a_place_and_a_name_of_its_own(render: Render, values: Path) -> None:
    objects = render(values)
    keys = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
    assert len(keys) == len(set(keys))
    for each in objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize("values", EVERY_WAY, ids=lambda path: path.stem)
def test_every_pod_is_restricted(render: Render, values: Path) -> None:
    for name, spec in pods(render(values)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 65532, name
        assert security["fsGroup"] == 65532, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert "automountServiceAccountToken" in spec, name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name


def test_fits_beside_everything_else_on_two_cores(render: Render) -> None:
    asked = sum(
        cores(container["resources"]["requests"]["cpu"])
        for each in of_kind(render(VALUES / "defaults.yaml"), "Deployment", "StatefulSet")
        for container in each["spec"]["template"]["spec"]["containers"]
    )
    assert asked <= 0.3


@pytest.mark.parametrize(
    "setting",
    [
        "operatr.replicas=1",
        "operator.replica=1",
        "valkey.persistence.sise=1Gi",
        "images.operator.name=x",
        "operator.replicas=two",
        "artifactStore.type=disk",
        "artifactStore.type=s3",
        "prometheus.url=prometheus:9090",
        "prometheus.scrapeInterval=15",
        "tenants={Not_A_Name}",
        "imagePullPolicy=Sometimes",
    ],
)
def test_the_schema_refuses(helm: Helm, setting: str) -> None:
    done = helm("template", "modelyard", str(CHART), "--kube-version", "1.34.0", "--set", setting)
    assert done.returncode != 0
    assert "schema" in done.stderr, done.stderr


def test_cluster_wide(render: Render) -> None:
    objects = render(VALUES / "defaults.yaml")
    assert environment(objects)["MODELYARD_WATCH_NAMESPACES"] == ""
    assert named(objects, "ClusterRole", "modelyard-operator")
    assert {each["metadata"]["namespace"] for each in of_kind(objects, "Role")} == {"modelyard"}


def test_namespaced_gives_no_right_elsewhere(render: Render) -> None:
    objects = render(VALUES / "namespaced.yaml")
    assert environment(objects)["MODELYARD_WATCH_NAMESPACES"] == "team-a,team-b"
    subjects = {"modelyard-operator", "modelyard-prometheus"}
    bound = {
        each["roleRef"]["name"]
        for each in of_kind(objects, "ClusterRoleBinding")
        if any(subject["name"] in subjects for subject in each["subjects"])
    }
    assert bound == {"modelyard-discovery"}
    (rule,) = named(objects, "ClusterRole", "modelyard-discovery")["rules"]
    assert rule["resources"] == ["customresourcedefinitions"]
    roles = [each["metadata"] for each in of_kind(objects, "Role")]
    where = {each["namespace"] for each in roles if each["name"] == "modelyard-operator"}
    assert where == {"team-a", "team-b"}
    assert of_kind(objects, "PodDisruptionBudget")


@pytest.mark.parametrize("values", EVERY_WAY, ids=lambda path: path.stem)
def test_least_privilege(render: Render, values: Path) -> None:
    objects = render(values)
    for rule in [*rules(objects, "ClusterRole"), *rules(objects, "Role")]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_the_operator_never_writes_a_spec_that_is_not_its_own_to_make(render: Render) -> None:
    role = named(render(), "ClusterRole", "modelyard-operator")
    writes: dict[str, set[str]] = {}
    for rule in role["rules"]:
        if rule["apiGroups"] == ["modelyard.dev"]:
            for resource in rule["resources"]:
                writes.setdefault(resource, set()).update(set(rule["verbs"]) - {"get", "list", "watch"})
    for theirs in ("featureviews", "trainingpipelines", "servingdeployments"):
        assert writes[theirs] == set()
    assert writes["models"] == {"create"}
    assert writes["modelversions"] == {"create", "patch"}
    assert writes["pipelineruns"] == {"create", "patch", "delete"}


def test_tenants_get_a_claim_that_outlives_the_release(render: Render) -> None:
    objects = render(VALUES / "defaults.yaml")
    claim = named(objects, "PersistentVolumeClaim", "modelyard-artifacts")
    assert claim["metadata"]["namespace"] == "demo"
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    url = named(objects, "Secret", "modelyard-online-store")["stringData"]["url"]
    assert url.startswith("redis://:")
    assert url.endswith("@modelyard-valkey.modelyard.svc.cluster.local:6379/0")


def test_one_password_in_one_rendering(render: Render) -> None:
    import base64

    objects = render(None, "--set", "tenants={a,b}")
    password = base64.b64decode(named(objects, "Secret", "modelyard-valkey")["data"]["password"]).decode()
    assert len(password) >= 32
    urls = [o["stringData"]["url"] for o in of_kind(objects, "Secret") if "url" in o.get("stringData", {})]
    assert len(urls) == 2
    assert all(f":{password}@" in url for url in urls)


def test_s3_and_a_store_of_ones_own(render: Render) -> None:
    objects = render(VALUES / "s3.yaml")
    assert not of_kind(objects, "PersistentVolumeClaim")
    store = named(objects, "Secret", "modelyard-artifact-store")["stringData"]
    assert store["MODELYARD_ARTIFACT_STORE"] == "s3://models/modelyard/demo"
    assert store["AWS_ENDPOINT_URL"] == "http://s3.storage.svc:8333"
    assert named(objects, "Secret", "modelyard-online-store")["stringData"]["url"].startswith("redis://:secret@redis")
    assert "modelyard-valkey" not in {each["metadata"]["name"] for each in objects}
    assert environment(objects)["MODELYARD_ARTIFACT_STORE"] == "s3://models/modelyard"


def test_ones_own_prometheus(render: Render) -> None:
    objects = render(VALUES / "own-prometheus.yaml")
    assert environment(objects)["MODELYARD_PROMETHEUS_URL"] == "http://prometheus.monitoring.svc:9090"
    assert not [each for each in objects if each["metadata"]["name"] == "modelyard-prometheus"]
    assert not of_kind(objects, "ServiceMonitor", "PodMonitor", "PrometheusRule")
    crds = [f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]
    there = render(VALUES / "own-prometheus.yaml", *(f"--api-versions={each}" for each in crds))
    monitors = of_kind(there, "ServiceMonitor", "PodMonitor", "PrometheusRule")
    assert len(monitors) == 3
    assert all(each["metadata"]["labels"]["release"] == "kube-prometheus-stack" for each in monitors)


@pytest.mark.parametrize("discovery", ["kubernetes", "file"])
def test_prometheus_finds_pods(render: Render, discovery: str) -> None:
    objects = render(VALUES / "namespaced.yaml", "--set", f"prometheus.discovery={discovery}")
    config = yaml.safe_load(named(objects, "ConfigMap", "modelyard-prometheus")["data"]["prometheus.yml"])
    for each in config["scrape_configs"]:
        assert f"{discovery}_sd_configs" in each
        assert each["honor_labels"]
    (spec,) = [spec for name, spec in pods(objects) if name == "modelyard-prometheus"]
    beside = ["targets"] if discovery == "file" else []
    assert [each["name"] for each in spec["containers"]] == ["prometheus", *beside]


def test_a_tenant_cannot_speak_of_another_namespace(render: Render) -> None:
    config = yaml.safe_load(named(render(), "ConfigMap", "modelyard-prometheus")["data"]["prometheus.yml"])
    (tenants,) = [each for each in config["scrape_configs"] if each["job_name"] == "modelyard-pods"]
    written = {each.get("target_label") for each in tenants["metric_relabel_configs"]}
    assert {"namespace", "namespace_name"} <= written


def test_images(render: Render) -> None:
    setting = "images.runtime.repository=local/runtime,images.runtime.tag=abc"
    ours = environment(render(None, "--set", setting))
    assert ours["MODELYARD_RUNTIME_IMAGE"] == "local/runtime:abc"
    (container,) = named(render(VALUES / "own-prometheus.yaml"), "Deployment", "modelyard-operator")["spec"][
        "template"
    ]["spec"]["containers"]
    assert container["image"] == "registry.example/modelyard/operator@sha256:" + 64 * "0"


def test_approvals_are_held_to_their_author(render: Render) -> None:
    objects = render()
    policy = named(objects, "ValidatingAdmissionPolicy", "modelyard-approvals")
    expressions = " ".join(each["expression"] for each in policy["spec"]["validations"])
    assert "request.userInfo.username" in expressions
    assert "check('approve')" in expressions
    assert environment(objects)["MODELYARD_APPROVALS_VERIFIED"] == "true"
    off = render(None, "--set", "approvals.policy=false")
    assert not of_kind(off, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    assert environment(off)["MODELYARD_APPROVALS_VERIFIED"] == "false"


def test_the_charts_crds_are_the_generated_ones() -> None:
    generated = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
    packaged = {path.name: path.read_text() for path in (CHART / "crds").glob("*.yaml")}
    assert packaged == generated, "make crds"
    assert generated


def test_the_crd_hook_names_every_kind(render: Render) -> None:
    (rule, _) = named(render(), "ClusterRole", "modelyard-crds")["rules"]
    names = {yaml.safe_load(path.read_text())["metadata"]["name"] for path in (CHART / "crds").glob("*.yaml")}
    assert set(rule["resourceNames"]) == names


def promtool(*arguments: str) -> None:
    program = tool("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_rules() -> None:
    promtool("check", "rules", str(CHART / "files" / "rules.yaml"))


def test_rules_do_what_they_say() -> None:
    promtool("test", "rules", str(Path(__file__).parent / "rules_test.yaml"))


@pytest.mark.parametrize("values", ["defaults", "namespaced"])
def test_promtool_accepts_the_configuration(render: Render, values: str, tmp_path: Path) -> None:
    # With targets from a file, since Debian's promtool knows no Kubernetes discovery; the rest is the same.
    objects = render(VALUES / f"{values}.yaml", "--set", "prometheus.discovery=file")
    data = named(objects, "ConfigMap", "modelyard-prometheus")["data"]
    shutil.copy(CHART / "files" / "rules.yaml", tmp_path / "rules.yaml")
    (tmp_path / "prometheus.yml").write_text(data["prometheus.yml"])
    assert yaml.safe_load(data["rules.yaml"]) == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    promtool("check", "config", "--syntax-only", str(tmp_path / "prometheus.yml"))
