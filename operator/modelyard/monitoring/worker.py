"""The monitor of a ServingDeployment: are served vectors what training would have seen, and are predictions any good?

``python -m modelyard.monitoring.worker`` with ``MODELYARD_MONITOR`` naming a JSON file::

    {"servingDeployment", "namespace", "model", "predictionLog", "views": {"[ns/]view": spec},
     "features": {"7": [{"view", "version", "names"}]},
     "label": {"uri", "format", "column", "availableAt", "id"} | null,
     "samplePerRound": 200, "intervalSeconds": 10, "seed": 0}

or, as the operator writes it, ``{"servingDeployment", "namespace", "monitoring": spec.monitoring, "versions":
[server.json of each version]}``.

Every round it reads the prediction-log files that are new.  *Parity*: a sample of each version's vectors is computed
again by the point-in-time join, as of the moment that was served; a null equals a null, a float may differ by one
part in a million.  A leaky feature cannot pass this: what it knew in training was not there to be served.
*Quality*: predictions are joined with the labels that were available by the newest event time seen, so a replay of
the past is judged by what was known then.

The file is read again when it changes, because versions come and go.  Memory is bounded: the newest
``MAX_PREDICTIONS`` of each version are kept.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from modelyard.features.definitions import View, view
from modelyard.features.errors import FeatureError
from modelyard.features.join import point_in_time_join
from modelyard.monitoring import quality

log = logging.getLogger("modelyard.monitor")

TOLERANCE = 1e-6
MAX_PREDICTIONS = 200_000
#: Fewer labels say nothing about an AUC.
MIN_LABELS = 50
_TIME = pa.timestamp("us", "UTC")


@dataclass
class Predictions:
    """What is kept of one version's predictions, oldest first."""

    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    joined: int = 0

    def add(self, ids: Iterable[str], scores: Iterable[float]) -> None:
        """Append, and forget the oldest beyond the bound."""
        self.ids += ids
        self.scores += scores
        del self.ids[:-MAX_PREDICTIONS], self.scores[:-MAX_PREDICTIONS]


class Monitor:
    """The monitor's state, and one round of its work."""

    def __init__(self, config: dict[str, Any], registry: CollectorRegistry) -> None:
        self.config = config
        self.seen: set[str] = set()
        self.newest: int | None = None
        self.predictions: dict[str, Predictions] = {}
        self.random = np.random.default_rng(int(config.get("seed") or 0))
        names = ["namespace", "serving_deployment", "version"]

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, [*names, *more], registry=registry)

        self.checked = counter("modelyard_parity_checked_total", "Served vectors computed again offline")
        self.mismatched = counter("modelyard_parity_mismatched_total", "Served vectors that were not the same")
        self.features = counter("modelyard_parity_mismatched_values_total", "Values that were not the same", "feature")
        self.joined = counter("modelyard_labels_joined_total", "Predictions whose label became available")
        self.quality = Gauge(
            "modelyard_quality",
            "Quality on the labels available so far",
            [*names, "metric"],
            registry=registry,
        )
        self.errors = Counter(
            "modelyard_monitor_errors_total", "Rounds or files that failed", names[:2], registry=registry
        )

    def labels(self, version: str) -> tuple[str, str, str]:
        """The values of the metrics' labels."""
        return self.config["namespace"], self.config["servingDeployment"], version

    def round(self) -> int:
        """Read what is new, check parity and quality; the number of new rows."""
        rows = 0
        fresh: dict[str, list[pa.Table]] = {}
        for path in self._new_files():
            try:
                table = pq.read_table(str(path), partitioning=None)
                versions = table["version"].unique().to_pylist()
            except (pa.ArrowInvalid, OSError, KeyError) as error:
                self._failed(f"{path}: {error}")
                continue
            rows += table.num_rows
            for version in versions:
                fresh.setdefault(str(version), []).append(table.filter(pc.equal(table["version"], version)))
        for version, parts in sorted(fresh.items()):
            self.checked.labels(*self.labels(version))  # a version that is only seen starts at 0
            self.mismatched.labels(*self.labels(version))
            table = pa.concat_tables(parts, promote_options="permissive")
            table = table.append_column("__time", moments(table))
            newest = pc.max(table["__time"].cast(pa.int64())).as_py()
            if newest is not None:
                self.newest = max(newest, self.newest or newest)
            served = table.filter(pc.and_(pc.is_valid(table["id"]), pc.is_valid(table["prediction"])))
            kept = self.predictions.setdefault(version, Predictions())
            kept.add(served["id"].cast(pa.string()).to_pylist(), served["prediction"].to_pylist())
            try:
                self.check_parity(version, table)
            except FeatureError as error:
                self._failed(f"version {version}: features cannot be computed offline: {error}")
        if rows and self.config.get("label"):
            try:
                self.check_quality()
            except (pa.ArrowInvalid, OSError, KeyError) as error:
                self._failed(f"labels of {self.config['label'].get('uri')}: {error}")
        return rows

    def _new_files(self) -> list[Path]:
        logs = self.config.get("predictionLogs") or [self.config["predictionLog"]]
        folders = [Path(name.removeprefix("file://")) for name in logs]
        every = {file for folder in folders if folder.exists() for file in folder.rglob("*.parquet")}
        found = sorted(file for file in every if not file.name.startswith((".", "_")))
        fresh = [path for path in found if str(path) not in self.seen]
        self.seen.update(map(str, fresh))
        return fresh

    def _failed(self, message: str) -> None:
        log.warning(message)
        self.errors.labels(self.config["namespace"], self.config["servingDeployment"]).inc()

    def check_parity(self, version: str, table: pa.Table) -> None:
        """Compute a sample of served vectors again, and count those that differ."""
        used = (self.config.get("features") or {}).get(version) or []
        entities = [name for name in table.column_names if name.startswith("entity__")]
        if not used or not entities:
            return  # requests that carry tensors have nothing to be compared with
        keyed = np.zeros(table.num_rows, bool)
        for name in entities:
            keyed |= np.asarray(table[name].is_valid().to_numpy(zero_copy_only=False), bool)
        places = np.flatnonzero(keyed & np.asarray(table["__time"].is_valid().to_numpy(zero_copy_only=False), bool))
        if not len(places):
            return
        ratio = self.config.get("sampleRatio")
        wished = math.ceil(ratio * len(places)) if ratio is not None else len(places)
        size = min(wished, int(self.config.get("samplePerRound") or 200))
        if not size:
            return
        sample = table.take(pa.array(np.sort(self.random.choice(places, size, replace=False))))
        views = self._views(used)
        spine = pa.table(
            {"event_timestamp": sample["__time"]} | {name.removeprefix("entity__"): sample[name] for name in entities}
        )
        for definition in views.values():  # an entity that no request named is a key without values
            for entity in definition.entities:
                if entity.name not in spine.column_names:
                    spine = spine.append_column(entity.name, pa.nulls(spine.num_rows, pa.string()))
        wanted = [(item["view"], name) for item in used for name in item["names"] if item["view"] in views]
        if not wanted:
            return
        answer = point_in_time_join(spine, views, [f"{key}:{name}" for key, name in wanted])
        computed = answer.column_names[len(spine.column_names) :]
        wrong = np.zeros(sample.num_rows, bool)
        for (key, name), column in zip(wanted, computed, strict=True):
            logged = f"feature__{key.replace('/', '__')}__{name}"
            served = sample[logged].to_pylist() if logged in sample.column_names else [None] * sample.num_rows
            expected = answer[column].to_pylist()
            differs = np.array([not same(a, b) for a, b in zip(served, expected, strict=True)], bool)
            if differs.any():
                self.features.labels(*self.labels(version), f"{key}:{name}").inc(int(differs.sum()))
                place = int(np.flatnonzero(differs)[0])
                log.info("%s:%s served %r, offline %r", key, name, served[place], expected[place])
            wrong |= differs
        self.checked.labels(*self.labels(version)).inc(sample.num_rows)
        self.mismatched.labels(*self.labels(version)).inc(int(wrong.sum()))

    def _views(self, used: list[dict[str, Any]]) -> dict[str, View]:
        """The definitions of the views in use; one that has changed since is left out: it computes something else."""
        found = {}
        for item in used:
            key = item["view"]
            spec = item.get("spec") or (self.config.get("views") or {}).get(key)
            if spec is None:
                continue
            namespace, _, name = key.rpartition("/")
            definition = view(name, spec, namespace=namespace or self.config["namespace"])
            if not item.get("version") or item["version"] == definition.version:
                found[key] = definition
        return found

    def check_quality(self) -> None:
        """Join labels that were available by the newest event time, and compute each version's quality."""
        label = self.config["label"]
        id_column, column, available = label.get("id") or "id", label["column"], label.get("availableAt")
        source = ds.dataset(label["uri"].removeprefix("file://"), format=label.get("format") or "parquet")
        columns = [id_column, column, *([available] if available else [])]
        known = pc.is_valid(ds.field(column))
        if available and self.newest is not None:
            known &= ds.field(available) <= pa.scalar(self.newest, _TIME)
        table = source.to_table(columns=columns, filter=known)
        ids = table[id_column].cast(pa.string()).combine_chunks()
        truths = np.asarray(table[column].cast(pa.float64()).to_numpy(zero_copy_only=False))
        for version, kept in self.predictions.items():
            places = pc.index_in(pa.array(kept.ids, pa.string()), value_set=ids)
            found = np.asarray(places.is_valid().to_numpy(zero_copy_only=False), bool)
            truth = truths[places.drop_null().to_numpy(zero_copy_only=False)] > 0.5
            scores = np.asarray(kept.scores, np.float64)[found]
            labels = self.labels(version)
            self.joined.labels(*labels).inc(max(len(truth) - kept.joined, 0))
            kept.joined = max(len(truth), kept.joined)
            if len(truth) < MIN_LABELS:
                continue
            measured = {
                "roc_auc": quality.roc_auc(truth, scores),
                "brier": quality.brier(truth, scores),
                "log_loss": quality.log_loss(truth, scores),
            }
            for name, value in measured.items():
                if math.isfinite(value):
                    self.quality.labels(*labels, name).set(value)


def moments(table: pa.Table) -> pa.ChunkedArray:
    """What time a request was about: its event timestamp, else when it was served."""
    served = table["served_at"].cast(_TIME)
    if "event_timestamp" not in table.column_names:
        return served
    return pc.coalesce(table["event_timestamp"].cast(_TIME), served)


def same(served: Any, expected: Any) -> bool:
    """Whether a served value is the offline one: null is null (and NaN), floats to one part in a million."""
    missing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (served, expected)]
    if any(missing):
        return all(missing)
    if isinstance(served, str) != isinstance(expected, str):
        return str(served) == str(expected)
    if isinstance(served, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(served, expected, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(served == expected)


def read_config(path: Path) -> dict[str, Any]:
    """The monitor's configuration; a missing key is named."""
    config = json.loads(path.read_text())
    for name in ("servingDeployment", "namespace"):
        if not config.get(name):
            raise SystemExit(f"{path}: {name} is missing")
    if "versions" not in config:
        return dict(config)
    monitoring = config.get("monitoring") or {}
    served = [one for one in config["versions"] if one.get("predictionLog")]
    return {
        **config,
        "predictionLogs": sorted({one["predictionLog"] for one in served}),
        "predictionLog": f"/artifacts/predictions/{config['servingDeployment']}/",
        "features": {str(one["version"]): one.get("features") or [] for one in config["versions"]},
        "label": monitoring.get("label"),
        # The server has thinned the log by `sampleRate` already: all of it is compared, up to what a round can take.
        "samplePerRound": 1000,
    }


def main() -> None:
    """Serve metrics and do rounds until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    path = os.environ.get("MODELYARD_MONITOR")
    if not path:
        raise SystemExit("MODELYARD_MONITOR must name the monitor's JSON file")
    file = Path(path)
    registry = CollectorRegistry()
    monitor = Monitor(read_config(file), registry)
    start_http_server(int(os.environ.get("MODELYARD_METRICS_PORT", "9090")), registry=registry)
    changed = file.stat().st_mtime
    while True:
        started = time.monotonic()
        try:
            if file.stat().st_mtime != changed:
                changed, monitor.config = file.stat().st_mtime, read_config(file)
            rows = monitor.round()
            if rows:
                log.info("%d new predictions in %.1f s", rows, time.monotonic() - started)
        except Exception:  # a monitor that dies watches nothing
            log.exception("the round failed")
            monitor.errors.labels(monitor.config["namespace"], monitor.config["servingDeployment"]).inc()
        time.sleep(max(0.5, float(monitor.config.get("intervalSeconds") or 10) - (time.monotonic() - started)))


if __name__ == "__main__":
    main()
