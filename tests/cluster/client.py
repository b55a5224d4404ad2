"""kubectl against the cluster."""

from __future__ import annotations

import subprocess

from .paths import Paths
from .shell import ClusterError, run


def kubectl(
    paths: Paths, *args: str, stdin: str | None = None, check: bool = True, timeout: float | None = None
) -> str:
    """Runs kubectl as the administrator and returns what it printed."""
    command = [str(paths.bin / "kubectl"), "--kubeconfig", str(paths.kubeconfig), *args]
    return run(command, stdin=stdin, check=check, timeout=timeout)


def asks(paths: Paths, *args: str) -> str:
    """What kubectl says, or nothing where the API server does not answer (yet)."""
    try:
        return kubectl(paths, "--request-timeout=5s", *args, timeout=15).strip()
    except (ClusterError, OSError, subprocess.TimeoutExpired):
        return ""
