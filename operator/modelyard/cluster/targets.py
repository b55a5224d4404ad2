"""Pods as a file of Prometheus targets, for a Prometheus that cannot ask Kubernetes itself.

Some distributions build Prometheus without its Kubernetes discovery. `python -m
modelyard.cluster.targets FILE` runs beside such a one: it lists the running pods that carry
`prometheus.io/scrape: "true"` every few seconds and writes them for `file_sd_configs`, with the very
`__meta_kubernetes_*` labels that Kubernetes discovery gives, so that one set of relabelling rules serves
both. It needs the standard library only and no more than a few megabytes; when the API server does not
answer, the last file stays, and Prometheus goes on with it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EVERY = 5.0
SCRAPE = "prometheus.io/scrape"

Pod = Mapping[str, Any]


def label_name(prefix: str, key: str) -> str:
    """The label in which Kubernetes discovery gives an annotation or a label."""
    return f"__meta_kubernetes_pod_{prefix}_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)


def groups(pods: Iterable[Pod]) -> list[dict[str, Any]]:
    """A target group for each container port of each pod that asks to be scraped, in a stable order."""
    found: list[dict[str, Any]] = []
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status", {})
        annotations = metadata.get("annotations") or {}
        address = status.get("podIP")
        if annotations.get(SCRAPE) != "true" or not address or status.get("phase") != "Running":
            continue
        labels = {
            "__meta_kubernetes_namespace": metadata["namespace"],
            "__meta_kubernetes_pod_name": metadata["name"],
            "__meta_kubernetes_pod_ip": address,
            "__meta_kubernetes_pod_phase": status["phase"],
        }
        labels |= {
            label_name("annotation", key): value
            for key, value in annotations.items()
            if key.startswith("prometheus.io/")
        }
        labels |= {label_name("label", key): value for key, value in (metadata.get("labels") or {}).items()}
        host = f"[{address}]" if ":" in address else address
        ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
        for port in ports or [{"containerPort": 80}]:
            found.append(
                {
                    "targets": [f"{host}:{port['containerPort']}"],
                    "labels": {**labels, "__meta_kubernetes_pod_container_port_name": port.get("name", "")},
                }
            )
    return sorted(found, key=lambda group: json.dumps(group, sort_keys=True))


def write(path: Path, content: Sequence[Mapping[str, Any]]) -> bool:
    """Replaces the file in one step, if it would change; Prometheus watches it."""
    text = json.dumps(content, indent=1, sort_keys=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return True


def running(namespace: str = "") -> list[Pod]:
    """The running pods of a namespace, or of all, from the API server's cache."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    where = f"namespaces/{namespace}/pods" if namespace else "pods"
    query = urllib.parse.urlencode({"resourceVersion": "0", "fieldSelector": "status.phase=Running"})
    token = (ACCOUNT / "token").read_text(encoding="utf-8")  # read each time: it is renewed
    request = urllib.request.Request(
        f"https://{host}:{port}/api/v1/{where}?{query}", headers={"Authorization": f"Bearer {token}"}
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        items: list[Pod] = json.load(answer)["items"]
        return items


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modelyard.cluster.targets", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--namespace", action="append", default=[], help="may be repeated; none: all")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two looks")
    options = parser.parse_args(arguments)
    while True:
        try:
            write(options.file, groups(pod for name in options.namespace or [""] for pod in running(name)))
        except (OSError, ValueError, KeyError) as error:
            print(f"the last targets stay: {error!r}", file=sys.stderr, flush=True)
        time.sleep(options.every)


if __name__ == "__main__":
    sys.exit(main())
