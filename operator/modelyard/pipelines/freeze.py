"""A run's frozen document: all that decides what the run does, resolved once, at creation.

A pipeline may be edited, a view may get a new version, production may move while a run is under way.  The run
goes by this document and by nothing else, so what it did can be said, and done again.  It is stored in an
immutable ConfigMap; ``status.frozen.digest`` says which document it was, and :func:`load` refuses any
other.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard.api.names import child_name
from modelyard.pipelines import ir
from modelyard.pipelines.compile import (
    RUNTIME_IMAGE,
    Dumps,
    as_document,
    canonical,
    compile_pipeline,
    merge_parameters,
)
from modelyard.pipelines.errors import PipelineError

#: etcd refuses objects beyond 1.5 MiB; the rest of the ConfigMap wants room too.
MAX_STORED = 900_000


@dataclass(frozen=True)
class RunRef:
    """What freezing has to know of a PipelineRun."""

    name: str
    namespace: str
    pipeline: str
    created_at: datetime
    parameters: Mapping[str, Any]
    as_of: datetime | None = None


@dataclass(frozen=True)
class Frozen:
    """The frozen document and its digest."""

    document: Mapping[str, Any]
    digest: str

    @property
    def run(self) -> str:
        """The run's name."""
        return str(self.document["run"])

    @property
    def namespace(self) -> str:
        """The run's namespace."""
        return str(self.document["namespace"])

    @property
    def ir(self) -> Mapping[str, Any]:
        """KFP's PipelineSpec."""
        found: Mapping[str, Any] = self.document["ir"]
        return found

    @property
    def platforms(self) -> Mapping[str, Any]:
        """KFP's PlatformSpec."""
        found: Mapping[str, Any] = self.document["platforms"]
        return found

    def image(self, task: str) -> str:
        """The image that a task's container runs, by digest where that is known."""
        image = self.document["images"][ir.executor_label(self.ir, task)]
        return pinned(image["image"], image.get("digest"))


def pinned(image: str, digest: str | None) -> str:
    """An image reference by digest: the tag goes, since the digest says more.

    >>> pinned("registry:5000/team/train:v1", "sha256:ab")
    'registry:5000/team/train@sha256:ab'
    """
    if not digest or "@" in image:
        return image
    head, slash, tail = image.rpartition("/")
    return head + slash + tail.partition(":")[0] + "@" + digest


def freeze(
    pipeline_spec: Mapping[str, Any] | Dumps,
    run: RunRef,
    views: Mapping[str, Mapping[str, Any]],
    production: Mapping[str, Any] | None,
    code_digest: str | None,
    *,
    runtime_image: str = RUNTIME_IMAGE,
    image_digests: Mapping[str, str] | None = None,
    code_config_map: str | None = None,
) -> Frozen:
    """Resolve everything that a run depends on.

    ``views`` are the FeatureViews' specs plus ``version``, by ``[namespace/]name``; ``production`` the
    version in Production as a step sees it; ``code_config_map`` the immutable copy of the code that the run
    mounts; ``image_digests`` what is known of images, by reference.
    """
    spec = as_document(pipeline_spec)
    if spec.get("code") and not code_digest:
        raise PipelineError("spec.code", "the code's digest is not known")
    compiled = compile_pipeline(spec, run.pipeline, run.parameters)
    ir.check(compiled.pipeline_spec, compiled.platform_spec)
    known = image_digests or {}
    images = {}
    for task in ir.tasks(compiled.pipeline_spec):
        label = ir.executor_label(compiled.pipeline_spec, task)
        image = str(ir.container(compiled.pipeline_spec, task)["image"])
        if ir.options(compiled.platform_spec, "modelyard", label).get("component"):
            image = runtime_image
        images[label] = {"image": image} | ({"digest": known[image]} if image in known else {})
    for view, content in views.items():
        if not content.get("version"):
            raise PipelineError("spec.dataset.features", f"the version of view {view} is not known")
    code = {**spec["code"], "digest": code_digest} if spec.get("code") else None
    if code and code_config_map:
        code["mounted"] = code_config_map
    if code and not (code_config_map or code.get("configMap")):
        raise PipelineError("spec.code.git", "must be fetched first, into a ConfigMap given as code_config_map")
    document = {
        "run": run.name,
        "namespace": run.namespace,
        "pipeline": run.pipeline,
        "model": spec.get("model"),
        "asOf": _rfc3339(run.as_of or run.created_at),
        "parameters": _parameters(spec, run, compiled.pipeline_spec),
        "dataset": spec.get("dataset"),
        "views": {name: dict(views[name]) for name in sorted(views)},
        "production": dict(production) if production else None,
        "images": images,
        "code": code,
        "seed": int(spec.get("seed") or 0),
        "runtimeImage": runtime_image,
        "ir": compiled.pipeline_spec,
        "platforms": compiled.platform_spec,
    }
    # Through JSON and back: what is used now is exactly what is stored, and shares nothing with the
    # arguments.
    text = canonical(document)
    return Frozen(json.loads(text), _digest(text))


def _parameters(spec: Mapping[str, Any], run: RunRef, compiled: Mapping[str, Any]) -> dict[str, Any]:
    """The run's parameters: the resource's defaults or the IR's, overridden by the run's."""
    definitions = (compiled["root"].get("inputDefinitions") or {}).get("parameters") or {}
    if not spec.get("pipelineSpec"):
        return merge_parameters(spec.get("parameters") or {}, run.parameters)
    given = {**(spec.get("parameters") or {}), **run.parameters}
    for name in given:
        if name not in definitions:
            raise PipelineError(f"spec.parameters.{name}", "the pipeline has no such parameter")
    for name, definition in definitions.items():
        if name not in given and "defaultValue" in definition:
            given[name] = definition["defaultValue"]
        elif name not in given and not definition.get("isOptional"):
            raise PipelineError(f"spec.parameters.{name}", "the pipeline needs a value for it")
    return given


def _rfc3339(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise PipelineError("spec.asOf", "a time needs its zone")
    return moment.isoformat().replace("+00:00", "Z")


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def config_map(frozen: Frozen, owner: Mapping[str, Any]) -> dict[str, Any]:
    """The immutable ConfigMap that keeps the document as long as its run."""
    packed = gzip.compress(canonical(frozen.document).encode(), mtime=0)
    encoded = base64.b64encode(packed).decode()
    if len(encoded) > MAX_STORED:
        raise PipelineError("spec.steps", f"the pipeline takes {len(encoded)} bytes, and {MAX_STORED} fit")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": child_name(frozen.run, "frozen"),
            "namespace": frozen.namespace,
            "labels": {"app.kubernetes.io/managed-by": "modelyard", "modelyard.dev/run": frozen.run},
            "annotations": {"modelyard.dev/digest": frozen.digest},
            "ownerReferences": [dict(owner)],
        },
        "immutable": True,
        "binaryData": {"frozen.json.gz": encoded},
    }


def load(stored: Mapping[str, Any], digest: str) -> Frozen:
    """The document in a ConfigMap, if it is the one that ``digest`` names."""
    text = gzip.decompress(base64.b64decode(stored["binaryData"]["frozen.json.gz"])).decode()
    if _digest(text) != digest:
        raise PipelineError("status.frozen", f"the stored document is {_digest(text)}, and the run's is {digest}")
    return Frozen(json.loads(text), digest)
