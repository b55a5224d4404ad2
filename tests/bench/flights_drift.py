#!/usr/bin/env python3
"""Does a feed in Celsius pass the drift limit, and does an unchanged November not? After flights_offline.py.

PYTHONPATH=operator python tests/bench/flights_drift.py --work /tmp/flights
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.monitoring import drift
from modelyard.monitoring import profile as pf
from modelyard.steps import features, tables
from modelyard.steps.context import Feature

NOVEMBER = 1_383_364_800.0  # 2013-11-02T04:00:00Z
CELSIUS = ("origin-weather__temp", "origin-weather__dewp")


def main() -> None:
    """Score weeks and shorter windows of November, as they were and with a share of the weather in Celsius."""
    parser = argparse.ArgumentParser(description="Drift scores of November against the limits of version 2")
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work / "runs" / "v2"
    train, november = tables.load(work / "features/train"), tables.load(work / "features-11/test")
    used = [Feature(*name.split("__", 1)) for name in train.column_names[3:]]
    profile = features.profile(train, used, "predict_at")
    times = tables.seconds(november["predict_at"])

    def show(name: str, start: float, days: float, celsius: float = 0.0) -> None:
        rows = (times >= NOVEMBER + start * pf.DAY) & (times < NOVEMBER + (start + days) * pf.DAY)
        judged = []
        for column, feature in profile["features"].items():
            values: Any = november[column].filter(pa.array(rows))
            values = values.to_pylist() if feature["type"] == "categorical" else tables.floats(values)
            if column in CELSIUS and celsius:
                turned = np.random.default_rng(0).random(len(values)) < celsius
                values = np.where(turned, (values - 32) * 5 / 9, values)
            counts = pf.Encoder.of(feature).counts(values)
            judged.append(drift.judge(column, feature["ratios"], counts, limit=feature["limit"]))
        judged.sort(key=lambda one: -(one.score or 0) / one.limit)
        found = [one.feature.split("__")[1] for one in judged if one.verdict == "drifted"]
        top = ", ".join(f"{j.feature.split('__')[1]} {j.score or 0:.2f}/{j.limit:.2f}" for j in judged[:3])
        print(f"{name:<22}{int(rows.sum()):>6} rows  {'drift: ' + ', '.join(found) if found else 'ok':<14} {top}")

    for week in range(4):
        show(f"week {week + 1}", week * 7, 7)
    for days in (1, 2, 3):
        alarms = range(0, 28, days)
        for start in alarms:
            show(f"{days} d from day {start}", start, days)
    for share in (0.5, 0.8, 0.9, 0.95, 1.0):
        show(f"week 3, {share:.0%} Celsius", 14, 7, share)
    for start in (14, 18, 22):
        show(f"day {start}, Celsius", start, 1, 1.0)


if __name__ == "__main__":
    main()
