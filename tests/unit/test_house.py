"""The house keeps its shape: one way of imports, light start-up, generated files as generated."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("duckdb", "pyarrow", "sklearn", "onnxruntime", "numpy")


@pytest.mark.parametrize(
    "module", ["modelyard.handlers.app", "modelyard.features.definitions", "modelyard.registry.stages"]
)
def test_the_operator_imports_no_training_library(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["modelyard.steps", "modelyard.steps.train"])
def test_user_facing_processes_import_no_kubernetes_client(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('kopf', 'kubernetes') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
