#!/usr/bin/env python3
"""The flights example without a cluster: the built-in components on the lake, and the AUCs of each version.

    PYTHONPATH=operator python tests/bench/flights_offline.py --work /tmp/flights

Runs ingest, features, train and evaluate as the engine would (a process each, by ``python -m modelyard.steps``) on
the manifests of ``manifests/flights``, with October held out; then scores the same models on November.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LAKE = "file:///artifacts/lake/flights/"
AS_OF = "2013-11-01T04:00:00Z"


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a manifest."""
    return [d for d in yaml.safe_load_all((ROOT / "manifests/flights" / name).read_text()) if d]


def step(component: str, prefix: Path, verbose: bool = True, **given: Any) -> dict[str, Any]:
    """Run one component as the engine does, and give its outputs."""
    prefix.mkdir(parents=True, exist_ok=True)
    log = prefix / "termination-log"
    given = {"run": "local", "namespace": "flights", "attempt": 0, "seed": 0, "model": "flight-delay"} | given
    given |= {"component": component, "task": component, "outputs": {"prefix": str(prefix)}}
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "operator"),
        "MODELYARD_STEP": json.dumps(given),
        "MODELYARD_TERMINATION_LOG": str(log),
    }
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "modelyard.steps", component], env=environment, capture_output=True)
    from modelyard.pipelines.manifest import decode

    manifest = decode(log.read_text())
    if done.returncode:
        raise SystemExit(f"{component}: {manifest.error or done.stderr.decode()}")
    if verbose:
        print(f"  {component:<9}{time.monotonic() - started:6.1f} s  {done.stdout.decode().strip()}", flush=True)
    return manifest.outputs()


def main() -> None:
    """Measure all versions."""
    parser = argparse.ArgumentParser(description="AUCs of the flights example's versions, offline")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--versions", default="v1,v2,v3")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    if not (work / "lake").exists():
        subprocess.run([sys.executable, str(ROOT / "manifests/flights/data/build.py"), str(work / "lake")], check=True)
    here = lambda text: json.loads(text.replace(LAKE, f"file://{work}/lake/"))  # noqa: E731
    views = {
        d["metadata"]["name"]: here(json.dumps(d["spec"]))
        for name in ("features.yaml", "leak.yaml")
        for d in documents(name)
    }
    from modelyard.features.definitions import version

    for spec in views.values():
        spec["version"] = version(spec)
    results: dict[str, Any] = {}
    production = None
    for name in options.versions.split(","):
        pipeline = here(json.dumps(documents(f"pipeline-{name}.yaml")[0]["spec"]))
        dataset = pipeline["dataset"]
        arguments = {s["name"]: s.get("arguments") or {} for s in pipeline["steps"]}
        train = {k: v for k, v in arguments["train"].items() if not str(v).startswith("$(steps")}
        common = {"asOf": AS_OF, "dataset": dataset, "views": views, "production": production}
        print(f"{name}: {len(dataset['features'])} features")
        base = work / "runs" / name
        data = step("ingest", base / "ingest", **common)["artifacts"]["data"]
        made = step("features", base / "features", inputs={"artifacts": {"data": data}}, **common)["artifacts"]
        inputs = {"artifacts": {"train": made["train"]}}
        model = step("train", base / "train", inputs=inputs, arguments=train, **common)["artifacts"]["model"]
        inputs = {"artifacts": {"test": made["test"], "model": model}}
        october = step("evaluate", base / "october", inputs=inputs, **common)["parameters"]

        # November reports: the same model, on the month after, with labels as of the end of it.
        later = common | {"asOf": "2013-12-01T05:00:00Z", "dataset": dataset | {"window": {"last": "30d"}}}
        later["dataset"]["split"] = {"by": "time", "holdout": "29d", "embargo": "0s"}
        data = step("ingest", base / "ingest-11", verbose=False, **later)["artifacts"]["data"]
        inputs = {"artifacts": {"data": data}}
        made11 = step("features", base / "features-11", verbose=False, inputs=inputs, **later)["artifacts"]
        inputs = {"artifacts": {"test": made11["test"], "model": model}}
        november = step("evaluate", base / "november", inputs=inputs, **later)["parameters"]
        results[name] = {"october": october, "november": november}
        if name == "v3":  # the same model and the same aggregates, but of arrivals that were known by then
            honest = {k: v for k, v in views["leaky-delays"].items() if k != "availability"}
            seen = views | {"leaky-delays": honest | {"createdTimestampField": "known_at"}}
            for month, given, rows in (("october", common, "ingest"), ("november", later, "ingest-11")):
                given = given | {"views": seen}
                where = base / f"honest-{month}"
                path = f"file://{base / rows / 'data'}"
                inputs = {"artifacts": {"data": {"uri": path}}}
                test = step("features", where, verbose=False, inputs=inputs, **given)["artifacts"]["test"]
                inputs = {"artifacts": {"test": test, "model": model}}
                scored = step("evaluate", where / "evaluate", inputs=inputs, **given)["parameters"]
                results.setdefault("v3-honest", {})[month] = scored
        if name != "v3":
            described = json.loads(Path(model["uri"].removeprefix("file://"), "model.json").read_text())
            production = {"version": int(name[1:]), "artifact": model | {"format": "onnx"}} | described
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps(results, indent=1))
    print(f"peak memory of any step: {peak:.0f} MiB")
    (work / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
