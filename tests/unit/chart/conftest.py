"""Helm and promtool, wherever this machine has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "modelyard"
VALUES = Path(__file__).parent / "values"

Manifest = Mapping[str, Any]
Render = Callable[..., list[dict[str, Any]]]


def tool(name: str) -> str | None:
    """A program from its own variable (HELM, PROMTOOL), PATH, or the local cluster's cache."""
    cache = os.environ.get("MODELYARD_CACHE")
    parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(cache) if cache else parent / "modelyard"
    here = os.environ.get(name.upper()) or shutil.which(name)
    if here:
        return here
    cached = base / "cluster" / "bin" / name
    return str(cached) if cached.exists() else None


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Helm; the tests that need it are skipped where it is not."""
    program = tool("helm")
    if program is None:
        pytest.skip("helm: not on PATH, not in $HELM, not in the local cluster's cache")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The chart's objects for a values file and further arguments; a failure shows Helm's words."""

    def run(values: Path | None = None, *arguments: str) -> list[dict[str, Any]]:
        done = helm(
            "template", "modelyard", str(CHART), "--namespace", "modelyard", "--kube-version", "1.34.0",
            *(["--values", str(values)] if values else []), *arguments,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run
