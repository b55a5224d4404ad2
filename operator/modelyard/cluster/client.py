"""A small asynchronous client: JSON objects in and out, and the few verbs that level-triggered handlers need.

The official client's `aio` transport does authentication, TLS and connection pooling; its generated models are left
out, because the operator reads and writes plain objects and validates its own kinds by pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

Object = dict[str, Any]

REQUEST_TIMEOUT = 30.0

#: kind -> (apiVersion, plural). Only what the operator handles; anything else is a programming error.
RESOURCES: Mapping[str, tuple[str, str]] = {
    "FeatureView": ("modelyard.dev/v1alpha1", "featureviews"),
    "TrainingPipeline": ("modelyard.dev/v1alpha1", "trainingpipelines"),
    "PipelineRun": ("modelyard.dev/v1alpha1", "pipelineruns"),
    "Model": ("modelyard.dev/v1alpha1", "models"),
    "ModelVersion": ("modelyard.dev/v1alpha1", "modelversions"),
    "ServingDeployment": ("modelyard.dev/v1alpha1", "servingdeployments"),
    "Job": ("batch/v1", "jobs"),
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "ConfigMap": ("v1", "configmaps"),
    "Secret": ("v1", "secrets"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Event": ("v1", "events"),
    "Deployment": ("apps/v1", "deployments"),
    "ControllerRevision": ("apps/v1", "controllerrevisions"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
}


class ApiError(Exception):
    """An answer of the API server that is not a success.

    Attributes:
        status: the HTTP status code.
        reason: Kubernetes' own reason (`NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, ...).
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """The object is not there."""


class Conflict(ApiError):
    """Somebody wrote first (409 Conflict), or the object exists already (409 AlreadyExists)."""


def path_of(kind: str, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    """The API path of an object or a collection; a namespace of None lists over all of them."""
    api_version, plural = RESOURCES[kind]
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    parts = [root]
    if namespace:
        parts += ["namespaces", quote(namespace)]
    parts.append(plural)
    if name:
        parts.append(quote(name))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _raise(status: int, body: bytes) -> None:
    try:
        answer = json.loads(body)
        reason, message = answer.get("reason", ""), answer.get("message", "")
    except (ValueError, AttributeError):
        reason, message = "", body[:200].decode(errors="replace")
    error = {404: NotFound, 409: Conflict}.get(status, ApiError)
    raise error(status, reason, message)


class ClusterClient:
    """Requests against one API server; make it by :meth:`connect` and close it when done."""

    def __init__(self, api: kube.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> ClusterClient:
        """Connects by the pod's service account, or by a kubeconfig (its path, or the usual places)."""
        configuration = kube.Configuration()
        if kubeconfig is None:
            try:
                kube_config.load_incluster_config(client_configuration=configuration)
                return cls(kube.ApiClient(configuration))
            except kube_config.ConfigException:
                pass
        await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        return cls(kube.ApiClient(configuration))

    @property
    def api(self) -> kube.ApiClient:
        """The official client underneath, for what takes one (leader election)."""
        return self._api

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """One request; returns the decoded JSON, or text where the answer is none.

        Raises:
            NotFound, Conflict, ApiError: as the API server answers.
        """
        serialized = self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        if hasattr(serialized, "__await__"):
            serialized = await serialized
        response = await self._api.call_api(*serialized, _request_timeout=REQUEST_TIMEOUT)
        data: bytes = await response.read()
        if not 200 <= response.status <= 299:
            _raise(response.status, data)
        try:
            return json.loads(data)
        except ValueError:
            return data.decode(errors="replace")

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            found: Object = await self.request("GET", path_of(kind, namespace, name))
        except NotFound:
            return None
        return found

    async def list(self, kind: str, namespace: str | None, selector: str | None = None) -> list[Object]:
        """All objects of a kind (in a namespace, or everywhere), by label selector where given."""
        query = {"labelSelector": selector} if selector else None
        answer = await self.request("GET", path_of(kind, namespace), query=query)
        items: list[Object] = answer.get("items", [])
        api_version, _ = RESOURCES[kind]
        for item in items:
            item.setdefault("apiVersion", api_version)
            item.setdefault("kind", kind)
        return items

    async def create(self, obj: Object) -> Object:
        """Creates; raises Conflict where the name is taken."""
        namespace = obj["metadata"].get("namespace")
        created: Object = await self.request("POST", path_of(obj["kind"], namespace), body=obj)
        return created

    async def apply(self, obj: Object, manager: str, subresource: str | None = None) -> Object:
        """Server-side apply as `manager`; what another manager holds in these fields is taken over."""
        meta = obj["metadata"]
        applied: Object = await self.request(
            "PATCH",
            path_of(obj["kind"], meta.get("namespace"), meta["name"], subresource),
            body=obj,
            query={"fieldManager": manager, "force": "true"},
            content_type="application/apply-patch+yaml",
        )
        return applied

    async def replace_status(self, obj: Object, manager: str) -> Object:
        """Writes the whole status, guarded by the resourceVersion that the object carries; raises Conflict."""
        meta = obj["metadata"]
        written: Object = await self.request(
            "PUT",
            path_of(obj["kind"], meta.get("namespace"), meta["name"], "status"),
            body=obj,
            query={"fieldManager": manager},
        )
        return written

    async def merge(self, kind: str, namespace: str | None, name: str, patch: Object) -> Object:
        """A JSON merge patch, for the command line, where a user changes a field of their own."""
        patched: Object = await self.request(
            "PATCH",
            path_of(kind, namespace, name),
            body=patch,
            query={"fieldManager": "modelyard-cli"},
            content_type="application/merge-patch+json",
        )
        return patched

    async def delete(self, kind: str, namespace: str | None, name: str, uid: str | None = None) -> bool:
        """Deletes in the background (children go too); False where it was gone already.

        With `uid`, only the object that bears it: a later one of the same name is left alone.
        """
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path_of(kind, namespace, name), body=body)
        except (NotFound, Conflict):
            return False
        return True

    async def log(self, namespace: str, pod: str, container: str | None = None, tail: int = 20) -> str:
        """The last lines of a pod's log."""
        query = {"tailLines": str(tail)}
        if container:
            query["container"] = container
        text = await self.request("GET", path_of("Pod", namespace, pod, "log"), query=query)
        return text if isinstance(text, str) else json.dumps(text)
