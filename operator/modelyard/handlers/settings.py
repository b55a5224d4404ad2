"""What the operator is told from outside: environment variables, set by the chart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The operator's configuration.

    Attributes:
        namespace: where the operator itself runs, and where its Lease is.
        watch: namespaces it serves; empty: all of them.
        runtime_image, router_image: what steps, servers and routers run.
        pull_policy: for these images.
        prometheus_url: base address of the Prometheus that is asked; None: nothing is measured, and rollouts hold.
        port: of /healthz, /readyz and /metrics.
    """

    namespace: str
    watch: tuple[str, ...]
    runtime_image: str
    router_image: str
    pull_policy: str = "IfNotPresent"
    prometheus_url: str | None = None
    port: int = 8080

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads `MODELYARD_*`; raises SystemExit with a plain sentence where something is missing."""

        def needed(name: str) -> str:
            value = environ.get(name, "")
            if not value:
                raise SystemExit(f"modelyard: the environment variable {name} is not set; the chart sets it")
            return value

        return cls(
            namespace=needed("MODELYARD_NAMESPACE"),
            watch=tuple(filter(None, (n.strip() for n in environ.get("MODELYARD_WATCH_NAMESPACES", "").split(",")))),
            runtime_image=needed("MODELYARD_RUNTIME_IMAGE"),
            router_image=needed("MODELYARD_ROUTER_IMAGE"),
            pull_policy=environ.get("MODELYARD_IMAGE_PULL_POLICY", "IfNotPresent"),
            prometheus_url=environ.get("MODELYARD_PROMETHEUS_URL") or None,
            port=int(environ.get("MODELYARD_PORT", "8080")),
        )
