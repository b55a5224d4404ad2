"""The Job that materialises a view, and the pure decision when there has to be one."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from modelyard.api.names import child_name

Object = dict[str, Any]

VIEW_LABEL = "modelyard.dev/feature-view"
USER = 65532


def rfc3339(moment: datetime.datetime) -> str:
    """The moment in UTC, to the second."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job_name(view: str, version: str, slot: str) -> str:
    """Named by view, definition and occasion, so that an occasion is served once, whoever asks."""
    return child_name(view, "materialize", version, slot)


def materialize_job(
    view: Mapping[str, Any],
    version: str,
    slot: str,
    through: datetime.datetime,
    image: str,
    pull_policy: str,
) -> Object:
    """The Job of one materialisation: one container of the runtime image, without an API token.

    Args:
        view: the FeatureView object.
        version: its definition's version.
        slot: the occasion, a scheduled minute or an attempt's number.
        through: the moment up to which rows count as known.
    """
    meta = view["metadata"]
    step = {
        "component": "materialize",
        "namespace": meta["namespace"],
        "view": meta["name"],
        "spec": view["spec"],
        "version": version,
        "through": rfc3339(through),
    }
    labels = {
        "app.kubernetes.io/managed-by": "modelyard",
        "app.kubernetes.io/component": "materialize",
        VIEW_LABEL: meta["name"],
    }
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": image,
                "imagePullPolicy": pull_policy,
                "command": ["python", "-m", "modelyard.steps", "materialize"],
                "env": [
                    {"name": "MODELYARD_STEP", "value": json.dumps(step, sort_keys=True)},
                    {
                        "name": "MODELYARD_ONLINE_URL",
                        "valueFrom": {"secretKeyRef": {"name": "modelyard-online-store", "key": "url"}},
                    },
                ],
                "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "artifacts", "mountPath": "/artifacts", "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "artifacts", "persistentVolumeClaim": {"claimName": "modelyard-artifacts"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(meta["name"], version, slot),
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": view["apiVersion"],
                    "kind": view["kind"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 3600,
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def retry_delay(failures: int) -> datetime.timedelta:
    """30 s after the first failure, doubling, at most 30 min."""
    return datetime.timedelta(seconds=min(30 * 2.0 ** max(failures - 1, 0), 1800))
