"""Images into the cluster, the chart on it, and the flights' data onto its volume: what tests and demo begin with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
TAG = "dev"
RELEASE = SYSTEM = "modelyard"
TENANT = "flights"
IMAGES = ("operator", "runtime", "router")
STOCK = ("python:3.11-slim", "docker.io/prom/prometheus:v2.42.0", "docker.io/valkey/valkey:8.1")

Object = dict[str, Any]


def say(text: str) -> None:
    """A line of progress."""
    print(f"== {text}", flush=True)


class Kubectl:
    """kubectl and helm on one cluster, with the few things that tests say often."""

    def __init__(self, cluster: Cluster, namespace: str = TENANT) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def __call__(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl in the namespace and returns what it printed."""
        return self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, check=check)

    def apply(self, manifest: str | Path | Object) -> str:
        """Applies a file, a folder, or an object."""
        if isinstance(manifest, dict):
            return self("apply", "-f", "-", stdin=json.dumps(manifest))
        return self("apply", "-f", str(manifest))

    def get(self, kind: str, name: str) -> Object | None:
        """The object, or None."""
        text = self("get", kind, name, "-o", "json", "--ignore-not-found")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """All objects of a kind, by label."""
        items: list[Object] = json.loads(self("get", kind, "-o", "json", *(["-l", selector] if selector else [])))[
            "items"
        ]
        return items

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = 180.0, period: float = 1.0) -> Any:
        """Waits until `condition` gives something true, and returns it; says what was waited for if it does not."""
        end = time.monotonic() + timeout
        while True:
            if found := condition():
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {timeout:.0f} s\n{self.describe()}")
            time.sleep(period)

    def condition(self, kind: str, name: str, type_: str = "Ready") -> Object:
        """One condition of an object; empty where it has none."""
        found = self.get(kind, name) or {}
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == type_:
                return dict(condition)
        return {}

    def describe(self) -> str:
        """What there is to see when something went wrong."""
        parts = [self("get", "modelyard,pods", "-o", "wide", check=False)]
        parts.append(self("get", "events", "--sort-by=.lastTimestamp", check=False)[-3000:])
        parts.append(
            self.cluster.kubectl("-n", SYSTEM, "logs", f"deploy/{RELEASE}-operator", "--tail=30", check=False)[-4000:]
        )
        return "\n".join(parts)

    def helm(self, *args: str) -> str:
        """Runs helm against the cluster."""
        env = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(
            [str(self.cluster.bin / "helm"), *args], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"helm {' '.join(args)}: {done.stderr or done.stdout}")
        return done.stdout


def images(cluster: Cluster) -> None:
    """Builds what changed and loads what the node has not."""
    for name in STOCK:
        cluster.load(name)
    for name in IMAGES:
        say(f"image {name}")
        cluster.load(
            cluster.build(ROOT, f"modelyard/{name}:{TAG}", dockerfile=ROOT / "containers" / name / "Dockerfile")
        )
    say("image flights-data")
    flights = ROOT / "manifests" / "flights" / "data"
    cluster.load(cluster.build(flights, f"modelyard/flights-data:{TAG}", dockerfile=flights / "Dockerfile"))


def install(cluster: Cluster, **values: str) -> Kubectl:
    """The chart in namespace `modelyard`, with one tenant, `flights`."""
    kubectl = Kubectl(cluster)
    for namespace in (SYSTEM, TENANT):
        created = cluster.kubectl("create", "namespace", namespace, "--dry-run=client", "-o", "yaml")
        cluster.kubectl("apply", "-f", "-", stdin=created)
    level = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", SYSTEM, TENANT, level, "--overwrite")
    settings = {
        "tenants[0]": TENANT,
        "prometheus.scrapeInterval": "5s",
        # A year of flights, each a key of its own, and of arrivals in three views.
        "valkey.maxMemory": "1gb",
        "valkey.resources.limits.memory": "1536Mi",
        # The stand-in for Prometheus is Debian's, which is built without Kubernetes' discovery.
        **({"prometheus.discovery": "file"} if cluster.kind == "local" else {}),
        **{f"images.{name}.tag": TAG for name in IMAGES},
        **values,
    }
    args = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    say("helm upgrade --install")
    kubectl.helm(
        "upgrade", "--install", RELEASE, str(ROOT / "helm" / "modelyard"), "-n", SYSTEM, *args, "--timeout", "5m"
    )
    # The tag is the same whatever was built: what runs must be what was loaded.
    cluster.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/modelyard-operator")
    # Not helm's --wait: the tenant's claim is bound by its first pod, and Helm would wait for it before there is one.
    for workload in (
        "deployment/modelyard-operator",
        "statefulset/modelyard-prometheus",
        "statefulset/modelyard-valkey",
    ):
        cluster.kubectl("-n", SYSTEM, "rollout", "status", workload, "--timeout=180s")
    return kubectl


if __name__ == "__main__":
    if sys.argv[1:] != ["images"]:
        raise SystemExit("usage: python -m tests.e2e.install images")
    images(Cluster())
