"""The objects of serving: names, security and what must not depend on a version's role."""

import json

import pytest

from modelyard.api.modelversion import ModelVersionSpec
from modelyard.api.servingdeployment import ServingDeploymentSpec
from modelyard.serving import objects
from modelyard.serving.objects import Images, Serving

IMAGES = Images("runtime:1", "router:1")
VERSION = ModelVersionSpec.model_validate(
    {
        "model": "flight-delay",
        "version": 7,
        "artifact": {"uri": "file:///artifacts/m/", "digest": "sha256:" + "0" * 64, "format": "onnx"},
        "features": [{"view": "carrier-delays", "version": "3f9a1c", "names": ["mean_delay_6h"]}],
    }
)


def serving(**spec):
    return Serving(
        "flights",
        "flight-delay",
        "uid-1",
        ServingDeploymentSpec.model_validate({"model": {"name": "flight-delay"}, **spec}),
    )


def everything():
    made = serving(podTemplate={"nodeSelector": {"disk": "ssd"}, "labels": {"team": "ops"}})
    config = objects.server_config(made, VERSION, {})
    return [
        *objects.version_objects(made, VERSION, 2, IMAGES, {"carrier-delays": {"ttl": "24h"}}),
        objects.front_service(made),
        *objects.monitor_objects(made, [config], IMAGES),
        *objects.router_objects("flights", [made.owner], IMAGES),
        *objects.feature_server_objects("flights", {}, [made.owner], IMAGES),
    ]


@pytest.mark.parametrize(
    "deployment", [o for o in everything() if o["kind"] == "Deployment"], ids=lambda o: o["metadata"]["name"]
)
def test_every_pod_is_restricted(deployment):
    pod = deployment["spec"]["template"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is (
        deployment["metadata"]["name"] == "modelyard-router"
    )
    assert pod["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    for container in pod["spec"]["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    names = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for c in pod["spec"]["containers"] for mount in c["volumeMounts"]} <= names


def test_all_are_owned_and_labelled():
    for made in everything():
        assert made["metadata"]["ownerReferences"] == [objects.owner_reference("flight-delay", "uid-1")]
        assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "modelyard"


def test_a_version_is_named_by_its_number_and_writes_only_its_predictions():
    config_map, deployment, service = everything()[:3]
    assert {o["metadata"]["name"] for o in (config_map, deployment, service)} == {"flight-delay-v7"}
    assert service["spec"]["clusterIP"] == "None"
    pod = deployment["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "ssd"}
    writable = [m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/tmp", "/artifacts/predictions/flight-delay/7"]
    assert json.loads(config_map["data"]["server.json"])["features"] == [
        {"view": "carrier-delays", "version": "3f9a1c", "names": ["mean_delay_6h"], "spec": {"ttl": "24h"}}
    ]


def test_settings_restart_pods_and_rollouts_do_not():
    def template(**spec):
        return objects.version_objects(serving(**spec), VERSION, 1, IMAGES, {})[1]["spec"]["template"]

    assert template() == template(rollout={"paused": True})
    assert template() != template(allowEventTime=True)
    assert template(resources={"limits": {"memory": "512Mi"}})["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "512Mi"}
    }


def test_clients_reach_the_routers():
    service = objects.front_service(serving())
    assert service["metadata"]["name"] == "flight-delay"
    assert service["spec"]["selector"] == {"app.kubernetes.io/name": "modelyard-router"}
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
