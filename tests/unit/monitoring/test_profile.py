"""Buckets, reference ratios, and how much the reference varies by itself."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.monitoring import profile as pf

numbers = st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=200)


@given(numbers)
def test_numeric_profiles_add_up(values):
    feature = pf.profile_feature(values, categorical=False)
    assert len(feature["edges"]) <= 9
    assert feature["edges"] == sorted(set(feature["edges"]))
    assert sum(feature["ratios"].values()) == pytest.approx(1)
    assert feature["count"] + feature["nulls"] == len(values)
    encoder = pf.Encoder.of(feature)
    assert encoder.encode(values).tolist() == [encoder.code(value) for value in values]
    json.dumps(feature, allow_nan=False)


@given(st.lists(st.none() | st.text(max_size=3), max_size=200))
def test_categories_are_at_most_twenty_and_other(values):
    feature = pf.profile_feature(values, categorical=True)
    assert len(feature["ratios"]) <= 22
    encoder = pf.Encoder.of(feature)
    assert list(pf.bucket_of(feature, values)) == [encoder.bucket(value) for value in values]
    assert feature["nulls"] == values.count(None)


def test_a_constant_shows_drift_to_either_side():
    feature = pf.profile_feature([7.0] * 100, categorical=False)
    encoder = pf.Encoder.of(feature)
    assert len({encoder.bucket(6.9), encoder.bucket(7.0), encoder.bucket(7.1)}) == 3


def test_a_column_of_nulls_has_a_profile():
    feature = pf.profile_feature([None, None], categorical=False)
    assert feature["ratios"] == {"0": 0.0, "null": 1.0}


def test_season_inside_the_reference_raises_the_limit():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, 280 * pf.DAY, 20_000))
    seasonal = 50 + 30 * np.sin(times / (365 * pf.DAY) * 2 * np.pi) + rng.normal(0, 5, len(times))
    steady = rng.normal(0, 1, len(times))
    assert pf.profile_feature(steady, categorical=False, times=times)["limit"] == pf.LIMIT_FLOOR
    assert pf.profile_feature(seasonal, categorical=False, times=times)["limit"] > 1


def test_a_day_varies_more_than_a_week():
    times = np.arange(0, 56 * pf.DAY, 600.0)
    feature = pf.profile_feature(times // pf.DAY % 7, categorical=False, times=times)
    assert feature["limit"] == pf.limit_for(feature, 7 * pf.DAY) == pf.LIMIT_FLOOR
    assert pf.limit_for(feature, 3600) == pf.limit_for(feature, pf.DAY) == 0.2  # 144 rows a day are too few
    times = np.arange(0, 56 * pf.DAY, 300.0)
    feature = pf.profile_feature(times // pf.DAY % 7, categorical=False, times=times)
    assert pf.limit_for(feature, 3600) > 1
    assert feature["limit"] > 1  # Monday is no drift


def test_the_server_needs_numpy_only():
    code = (
        "import sys, modelyard.monitoring.profile; "
        "bad = {'duckdb', 'sklearn', 'pyarrow', 'pandas', 'scipy', 'onnxruntime'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_predictions_have_one_grid():
    encoder = pf.prediction_encoder()
    assert len(encoder.labels) == 21
    assert encoder.encode([0.0, 0.05, 0.051, 1.0, float("nan")]).tolist() == [0, 0, 1, 19, 20]


def test_a_file_that_is_no_profile_is_refused(tmp_path):
    (tmp_path / "p").write_text("{}")
    with pytest.raises(ValueError, match="not a profile"):
        pf.load(tmp_path / "p")
