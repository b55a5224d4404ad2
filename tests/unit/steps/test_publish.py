"""The publisher: waits for processes that are not its own, and publishes what was declared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from modelyard.pipelines.manifest import decode
from modelyard.steps import publish

from .conftest import ROOT


def process(proc, pid, state="S"):
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "stat").write_text(f"{pid} (a) name) {state} 0 0")


def test_it_waits_for_others_and_not_for_zombies(tmp_path):
    process(tmp_path, 1)
    process(tmp_path, os.getpid())
    process(tmp_path, 999_999, "Z")
    assert publish.others(tmp_path) == set()
    process(tmp_path, 999_998)
    assert publish.others(tmp_path) == {999_998}
    threading.Timer(0.3, process, (tmp_path, 999_998, "Z")).start()
    started = time.monotonic()
    publish.wait([], grace=5, proc=tmp_path)
    assert 0.25 < time.monotonic() - started < 2


def test_a_step_that_was_over_before(tmp_path):
    (tmp_path / "out").write_text("x")
    started = time.monotonic()
    publish.wait([tmp_path / "out"], grace=5, proc=tmp_path)
    assert time.monotonic() - started < 1


def test_outputs_are_collected(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("1")
    (tmp_path / "rows").write_text("3\n")
    (tmp_path / "name").write_text("x\n")
    step = {"outputs": {"prefix": str(tmp_path), "artifacts": {"model": "Model"}}}
    step["outputs"]["parameters"] = {"rows": "NUMBER_INTEGER", "name": "STRING"}
    log = tmp_path / "log"
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), "MODELYARD_STEP": json.dumps(step),
        "MODELYARD_TERMINATION_LOG": str(log),
    }  # fmt: skip
    code = (
        "import sys, modelyard.steps.publish as p; p.wait = lambda *a: None; code = p.main();"
        "heavy = {'numpy', 'pyarrow', 'pydantic', 'duckdb'} & set(sys.modules); sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = decode(log.read_text())
    assert manifest.parameters == {"rows": 3, "name": "x\n"}
    assert manifest.artifacts["model"].type == "Model"
    assert manifest.artifacts["model"].digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("outputs", "word"),
    [
        ({"artifacts": {"gone": "Model"}}, "gone"),
        ({"parameters": {"gone": "int"}}, "gone"),
        ({"parameters": {"rows": "Integer"}}, "not of type Integer"),
    ],
)
def test_what_is_missing_is_named(tmp_path, outputs, word):
    (tmp_path / "rows").write_text("many")
    with pytest.raises(publish.OutputError, match=word):
        publish.collect({"prefix": str(tmp_path)} | outputs)
