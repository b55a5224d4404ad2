"""The Kubernetes objects of serving, as pure builders; the handler applies what they return.

Everything of a version is named by the version and by nothing else: no object knows whether it is stable
or candidate, so a promotion touches none of them. Each builder returns whole objects for server-side
apply, without status.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.api.kubernetes import PodTemplate, ResourceRequirements
from modelyard.api.modelversion import ModelVersionSpec
from modelyard.api.names import child_name
from modelyard.api.servingdeployment import ServingDeploymentSpec

Object = dict[str, Any]

ROUTER = "modelyard-router"
FEATURES = "modelyard-features"
HTTP_PORT, METRICS_PORT, ROUTER_METRICS_PORT = 8080, 9090, 9102
CONFIG_FOLDER = "/etc/modelyard"
ARTIFACTS_CLAIM, ARTIFACTS = "modelyard-artifacts", "/artifacts"
ONLINE_SECRET = "modelyard-online-store"
DRAIN_SECONDS = 15
"""Between "stop" and stopping: routers learn of it in the meantime, and what is in flight is answered."""

_SERVER_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}
_SMALL = {"requests": {"cpu": "50m", "memory": "96Mi"}}


@dataclass(frozen=True)
class Images:
    """What pods of ours run."""

    runtime: str
    router: str
    pull_policy: str = "IfNotPresent"


@dataclass(frozen=True)
class Serving:
    """The ServingDeployment that objects are made for."""

    namespace: str
    name: str
    uid: str
    spec: ServingDeploymentSpec

    @property
    def owner(self) -> Object:
        """Its owner reference: what it owns goes with it."""
        return owner_reference(self.name, self.uid)


def owner_reference(name: str, uid: str) -> Object:
    """An owner reference to a ServingDeployment."""
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ServingDeployment", "name": name, "uid": uid}


def version_name(serving_deployment: str, version: int) -> str:
    """The name of a version's Deployment, Service and ConfigMap.

    >>> version_name("flight-delay", 7)
    'flight-delay-v7'
    """
    return child_name(serving_deployment, f"v{version}")


def server_config(
    serving: Serving, version: ModelVersionSpec, views: Mapping[str, Any], production_grid: Any = None
) -> Object:
    """``server.json``. `views` maps `view` to the FeatureView spec that the version was learnt with."""
    spec, dumped = serving.spec, version.to_dict()
    return {
        "name": version.model,
        "namespace": serving.namespace,
        "servingDeployment": serving.name,
        "version": version.version,
        "artifact": dumped["artifact"],
        "signature": dumped.get("signature"),
        "features": [{**feature.to_dict(), "spec": views.get(feature.view)} for feature in version.features],
        "baseline": dumped.get("baseline"),
        "allowEventTime": spec.allow_event_time,
        "onFeatureError": spec.on_feature_error,
        "latencyBudget": spec.latency_budget.seconds if spec.latency_budget else None,
        "predictionLog": f"file://{_predictions(serving, version.version)}/",
        "sampleRate": spec.monitoring.sample_ratio if spec.monitoring else 0.0,
        "productionGrid": production_grid,
    }


def version_objects(
    serving: Serving,
    version: ModelVersionSpec,
    replicas: int,
    images: Images,
    views: Mapping[str, Any],
    production_grid: Any = None,
) -> list[Object]:
    """ConfigMap, Deployment and headless Service of one version."""
    name = version_name(serving.name, version.version)
    labels = {
        **_labels("modelyard-server", name, serving.name),
        "modelyard.dev/serving-deployment": serving.name,
        "modelyard.dev/version": str(version.version),
    }
    selector = {key: labels[key] for key in ("modelyard.dev/serving-deployment", "modelyard.dev/version")}
    config = _json(server_config(serving, version, views, production_grid))
    log = _predictions(serving, version.version)
    custom = version.artifact.image
    container = {
        **_container("server", custom or images.runtime, images, serving.spec.resources, _SERVER_RESOURCES),
        **({} if custom else {"command": ["python", "-m", "modelyard.serving.server"]}),
        "env": [
            *_online_store(),
            {"name": "MODELYARD_SERVER", "value": f"{CONFIG_FOLDER}/server.json"},
        ],
        "ports": [_port("http", HTTP_PORT), _port("metrics", METRICS_PORT)],
        # A model may take minutes to load: liveness starts to count only when the start is over.
        "startupProbe": _probe("/v2/health/live", period=2, failures=300),
        "readinessProbe": _probe("/v2/health/ready", period=2, failures=2),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "artifacts", "mountPath": ARTIFACTS, "readOnly": True},
            {"name": "artifacts", "mountPath": log, "subPath": log.removeprefix(f"{ARTIFACTS}/")},
        ],
    }
    volumes = [_tmp(), _config(name), _artifacts()]
    pod = _pod(labels, container, volumes, METRICS_PORT, config, serving.spec.pod_template)
    return [
        _object(
            "v1", "ConfigMap", name, serving.namespace, labels, [serving.owner], data={"server.json": config}
        ),
        _deployment(name, serving.namespace, labels, selector, replicas, pod, [serving.owner]),
        _service(name, serving.namespace, labels, selector, HTTP_PORT, [serving.owner], headless=True),
    ]


def front_service(serving: Serving) -> Object:
    """The Service that clients know: it selects the routers, whatever version answers."""
    labels = _labels("modelyard-serving", serving.name, serving.name)
    selector = {"app.kubernetes.io/name": ROUTER}
    return _service(serving.name, serving.namespace, labels, selector, 80, [serving.owner])


def monitor_objects(serving: Serving, configs: Sequence[Mapping[str, Any]], images: Images) -> list[Object]:
    """ConfigMap and Deployment of the monitor; `configs` are the `server_config`s of what serves."""
    name = child_name(serving.name, "monitor")
    labels = {
        **_labels("modelyard-monitor", name, serving.name),
        "modelyard.dev/serving-deployment": serving.name,
    }
    selector = {key: labels[key] for key in ("app.kubernetes.io/name", "app.kubernetes.io/instance")}
    monitoring = serving.spec.monitoring.to_dict() if serving.spec.monitoring else {}
    config = _json(
        {
            "namespace": serving.namespace,
            "servingDeployment": serving.name,
            "monitoring": monitoring,
            "versions": list(configs),
        }
    )
    container = {
        **_container("monitor", images.runtime, images, None, _SMALL),
        "command": ["python", "-m", "modelyard.monitoring.worker"],
        "env": [{"name": "MODELYARD_MONITOR", "value": f"{CONFIG_FOLDER}/monitor.json"}],
        "ports": [_port("metrics", METRICS_PORT)],
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "artifacts", "mountPath": ARTIFACTS, "readOnly": True},
        ],
    }
    # The monitor reads its file anew when it changes: a rollout must not restart it and reset its counters.
    pod = _pod(
        labels, container, [_tmp(), _config(name), _artifacts()], METRICS_PORT, "", serving.spec.pod_template
    )
    return [
        _object(
            "v1", "ConfigMap", name, serving.namespace, labels, [serving.owner], data={"monitor.json": config}
        ),
        _deployment(name, serving.namespace, labels, selector, 1, pod, [serving.owner]),
    ]


def router_objects(
    namespace: str, owners: Sequence[Object], images: Images, replicas: int = 2
) -> list[Object]:
    """The namespace's routers with the rights of their agents: to watch ServingDeployments and endpoints.

    `owners` are the namespace's ServingDeployments: the routers go with the last of them.
    """
    labels = _labels(ROUTER, ROUTER, ROUTER)
    selector = {"app.kubernetes.io/name": ROUTER}
    rules = [
        {
            "apiGroups": ["modelyard.dev"],
            "resources": ["servingdeployments"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["get", "list", "watch"],
        },
    ]
    container = {
        **_container("router", images.router, images, None, _SMALL),
        "env": [
            {"name": "MODELYARD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "MODELYARD_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [_port("http", HTTP_PORT), _port("metrics", ROUTER_METRICS_PORT)],
        # The port opens when Envoy has its first configuration.
        "readinessProbe": {"tcpSocket": {"port": HTTP_PORT}, "periodSeconds": 2},
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS - 5}}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = _pod(labels, container, [_tmp()], ROUTER_METRICS_PORT, "", None)
    # The only pods of ours with a token: the agent watches, and may do nothing else.
    pod["spec"] |= {"serviceAccountName": ROUTER, "automountServiceAccountToken": True}
    rbac = "rbac.authorization.k8s.io"
    return [
        _object(
            "v1", "ServiceAccount", ROUTER, namespace, labels, owners, automountServiceAccountToken=False
        ),
        _object(f"{rbac}/v1", "Role", ROUTER, namespace, labels, owners, rules=rules),
        _object(
            f"{rbac}/v1",
            "RoleBinding",
            ROUTER,
            namespace,
            labels,
            owners,
            roleRef={"apiGroup": rbac, "kind": "Role", "name": ROUTER},
            subjects=[{"kind": "ServiceAccount", "name": ROUTER, "namespace": namespace}],
        ),
        _deployment(ROUTER, namespace, labels, selector, replicas, pod, owners),
    ]


def feature_server_objects(
    namespace: str,
    views: Mapping[str, Any],
    owners: Sequence[Object],
    images: Images,
    replicas: int = 1,
) -> list[Object]:
    """The namespace's feature server. `views` maps `view` or `namespace/view` to its spec plus `version`."""
    labels = _labels(FEATURES, FEATURES, FEATURES)
    selector = {"app.kubernetes.io/name": FEATURES}
    config = _json({"namespace": namespace, "views": dict(views)})
    container = {
        **_container("features", images.runtime, images, None, _SERVER_RESOURCES),
        "command": ["python", "-m", "modelyard.features.server"],
        "env": [
            *_online_store(),
            {"name": "MODELYARD_VIEWS", "value": f"{CONFIG_FOLDER}/features.json"},
        ],
        "ports": [_port("http", HTTP_PORT), _port("metrics", METRICS_PORT)],
        "readinessProbe": _probe("/health", period=2, failures=3),
        "livenessProbe": _probe("/health", period=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        ],
    }
    pod = _pod(labels, container, [_tmp(), _config(FEATURES)], METRICS_PORT, config, None)
    return [
        _object("v1", "ConfigMap", FEATURES, namespace, labels, owners, data={"features.json": config}),
        _deployment(FEATURES, namespace, labels, selector, replicas, pod, owners),
        _service(FEATURES, namespace, labels, selector, 80, owners),
    ]


def _labels(name: str, instance: str, part_of: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/part-of": part_of,
        "app.kubernetes.io/managed-by": "modelyard",
    }


def _object(
    api: str,
    kind: str,
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    owners: Sequence[Object],
    **body: Any,
) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels), "ownerReferences": list(owners)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def _deployment(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    selector: Mapping[str, str],
    replicas: int,
    pod: Object,
    owners: Sequence[Object],
) -> Object:
    spec = {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": dict(selector)},
        # A change of resources or settings replaces pods one by one, never below the number asked for.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": pod,
    }
    return _object("apps/v1", "Deployment", name, namespace, labels, owners, spec=spec)


def _service(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    selector: Mapping[str, str],
    port: int,
    owners: Sequence[Object],
    headless: bool = False,
) -> Object:
    spec: Object = {
        "selector": dict(selector),
        "ports": [{"name": "http", "port": port, "targetPort": HTTP_PORT, "protocol": "TCP"}],
    }
    if headless:
        spec["clusterIP"] = "None"
    return _object("v1", "Service", name, namespace, labels, owners, spec=spec)


def _pod(
    labels: Mapping[str, str],
    container: Object,
    volumes: list[Object],
    metrics_port: int,
    config: str,
    template: PodTemplate | None,
) -> Object:
    """A pod template: our labels and annotations win; the user's scheduling wishes are taken as they are."""
    wishes = template.to_dict() if template else {}
    annotations = {
        **wishes.pop("annotations", {}),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(metrics_port),
        "prometheus.io/path": "/metrics",
    }
    if config:
        # A changed ConfigMap alone restarts nothing, and a server reads it once.
        annotations["modelyard.dev/config"] = hashlib.sha256(config.encode()).hexdigest()[:16]
    spec = {
        **{key: value for key, value in wishes.items() if key not in {"labels", "volumes"} and value},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + 15,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [*wishes.get("volumes", []), *volumes],
    }
    return {
        "metadata": {"labels": {**wishes.get("labels", {}), **labels}, "annotations": annotations},
        "spec": spec,
    }


def _container(
    name: str, image: str, images: Images, resources: ResourceRequirements | None, default: Object
) -> Object:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": images.pull_policy,
        "resources": resources.to_dict() if resources else default,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # What the server says of its end, such as a digest that does not match, is read from here.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _online_store() -> list[Object]:
    reference = {"name": ONLINE_SECRET, "key": "url", "optional": True}
    return [{"name": "MODELYARD_ONLINE_URL", "valueFrom": {"secretKeyRef": reference}}]


def _probe(path: str, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _tmp() -> Object:
    return {"name": "tmp", "emptyDir": {}}


def _config(name: str) -> Object:
    return {"name": "config", "configMap": {"name": name}}


def _artifacts() -> Object:
    # Not read-only as a whole: a server's own folder of predictions is mounted from it for writing.
    return {"name": "artifacts", "persistentVolumeClaim": {"claimName": ARTIFACTS_CLAIM}}


def _predictions(serving: Serving, version: int) -> str:
    return f"{ARTIFACTS}/predictions/{serving.name}/{version}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
