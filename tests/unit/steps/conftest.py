"""A small world: a spine, weather, and the components as processes, just as the engine starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.pipelines.manifest import Manifest, decode
from modelyard.steps import __main__ as steps

ROOT = Path(__file__).resolve().parents[3]
DAY = 86_400_000_000
START = 1_380_000_000_000_000  # microseconds; 2013-09-24


def micros(values: Any) -> pa.Array:
    return pa.array(np.asarray(values, np.int64), pa.int64()).cast(pa.timestamp("us", "UTC"))


def spine(rows: int = 3000, days: int = 60, **columns: Any) -> pa.Table:
    """Bookings over 60 days whose delay depends on the hour and on the weather of their origin."""
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, days * DAY, rows)) + START
    origin = rng.choice(["EWR", "JFK"], rows)
    bad = weather_at(origin, at)
    late = (rng.random(rows) < 1 / (1 + np.exp(2 - 3 * bad))).astype(np.int64)
    cancelled = rng.random(rows) < 0.03
    arrived = at + rng.integers(2, 8, rows) * 3_600_000_000
    data = {
        "flight_id": pa.array([f"f{i}" for i in range(rows)]),
        "predict_at": micros(at),
        "origin": pa.array(origin),
        "late": pa.array(late, mask=cancelled),
        "arrived_at": pa.array(arrived, mask=cancelled).cast(pa.timestamp("us", "UTC")),
    }
    return pa.table(data | columns)


def weather_at(origin: Any, at: Any) -> Any:
    """0 or 1 by origin and six-hour block."""
    return ((at // (DAY // 4) * 7 + (origin == "JFK") * 3) % 5 < 2).astype(float)


def weather(days: int = 61) -> pa.Table:
    blocks = np.repeat((np.arange(-4, days * 4) * (DAY // 4) + START) // (DAY // 4) * (DAY // 4), 2)
    origin = np.tile(["EWR", "JFK"], len(blocks) // 2)
    sky = np.where(weather_at(origin, blocks) > 0, "bad", "good")
    return pa.table(
        {
            "origin": origin,
            "observed_at": micros(blocks),
            "storm": pa.array(weather_at(origin, blocks), mask=np.arange(len(blocks)) % 50 == 0),
            "sky": pa.array(sky),
        }
    )


@dataclass
class World:
    """Where the data are, and how to run a component on them."""

    folder: Path

    def dataset(self, **changes: Any) -> dict[str, Any]:
        return {
            "spine": {
                "uri": f"file://{self.folder}/spine/",
                "format": "parquet",
                "eventTimestamp": "predict_at",
                "id": "flight_id",
            },
            "label": {"column": "late", "availableAt": "arrived_at"},
            "features": ["weather:storm", "weather:sky"],
            "window": {"last": "60d"},
            "split": {"by": "time", "holdout": "15d", "embargo": "24h"},
        } | changes

    @property
    def views(self) -> dict[str, Any]:
        return {
            "weather": {
                "entities": [{"name": "origin", "type": "string"}],
                "timestampField": "observed_at",
                "ttl": "1d",
                "source": {"batch": {"uri": f"file://{self.folder}/weather.parquet", "format": "parquet"}},
                "features": [{"name": "storm", "type": "float64"}, {"name": "sky", "type": "string"}],
            }
        }

    def step(self, component: str, inputs: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        prefix = self.folder / "runs" / given.pop("where", component)
        return {
            "run": "r", "namespace": "n", "task": component, "attempt": 0, "component": component,
            "asOf": "2013-11-23T05:00:00Z", "arguments": {}, "inputs": {"artifacts": inputs or {}},
            "outputs": {"prefix": str(prefix), "artifacts": {}}, "dataset": self.dataset(), "views": self.views,
            "production": None, "model": "flight-delay", "seed": 0, "code": None,
        } | given  # fmt: skip

    def run(
        self, component: str, *, process: bool = False, monkeypatch: Any = None, **given: Any
    ) -> tuple[int, Manifest, str]:
        """Exit code, manifest and stderr; in a process of its own where asked."""
        log = self.folder / "termination-log"
        log.unlink(missing_ok=True)
        env = {
            "MODELYARD_STEP": json.dumps(self.step(component, **given)),
            "MODELYARD_TERMINATION_LOG": str(log),
        }
        if process:
            done = subprocess.run(
                [sys.executable, "-m", "modelyard.steps", component],
                env=os.environ | env | {"PYTHONPATH": str(ROOT / "operator")},
                capture_output=True,
                text=True,
                check=False,
            )
            return done.returncode, decode(log.read_text()), done.stderr
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
        try:
            code = steps.run(component)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        return code, decode(log.read_text()), ""

    def made(self, component: str, **given: Any) -> dict[str, Any]:
        """The artifacts of a component that must succeed."""
        code, manifest, stderr = self.run(component, **given)
        assert code == 0, (manifest.error, stderr)
        return {name: artifact.as_dict() for name, artifact in manifest.artifacts.items()}


def build(folder: Path, table: pa.Table | None = None) -> World:
    (folder / "spine").mkdir(parents=True)
    pq.write_table(spine() if table is None else table, folder / "spine" / "part.parquet")
    pq.write_table(weather(), folder / "weather.parquet")
    return World(folder)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world of one's own, to spoil."""
    return build(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, Any]]:
    """The artifacts of one pass through all components, each as a process; read only."""
    world = build(tmp_path_factory.mktemp("world"))
    found: dict[str, Any] = {}
    found |= world.made("ingest", process=True)
    found |= world.made("validate", process=True, inputs={"data": found["data"]})
    found |= world.made("features", process=True, inputs={"data": found["data"]})
    arguments = {"parameters": {"max_iter": 40}}
    found |= world.made("train", process=True, inputs={"train": found["train"]}, arguments=arguments)
    return world, found
