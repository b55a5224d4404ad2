"""The manifest: what a step says of itself survives the way through the termination message."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.pipelines import manifest as m

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.floats(allow_nan=False))


@given(st.dictionaries(st.text(min_size=1, max_size=10), VALUES, max_size=8))
def test_what_is_written_is_read(parameters: dict[str, object]) -> None:
    text = m.encode({"outputs": {"parameters": parameters}})
    read = dict(m.decode(text).parameters)
    finite = {k: None if isinstance(v, float) and abs(v) == float("inf") else v for k, v in parameters.items()}
    assert read == finite
    assert len(text.encode()) <= m.LIMIT


def test_a_long_manifest_is_gzipped_and_one_too_long_is_refused() -> None:
    text = m.encode({"outputs": {"parameters": {"report": "x" * 20_000}}})
    assert text.startswith("gz:")
    assert len(text) <= m.LIMIT
    assert m.decode(text).parameters["report"] == "x" * 20_000
    noise = random.Random(0).randbytes(8000).hex()
    with pytest.raises(m.ManifestError, match="output artifact"):
        m.encode({"outputs": {"parameters": {"report": noise}}})


def test_an_error_always_fits() -> None:
    error = m.decode(m.encode_error("SchemaViolation", random.Random(0).randbytes(20_000).hex())).error
    assert error is not None
    assert error.reason == "SchemaViolation"


def test_nan_becomes_null() -> None:
    assert m.decode(m.encode({"outputs": {"parameters": {"auc": float("nan")}}})).parameters == {"auc": None}


@pytest.mark.parametrize(
    "text",
    [
        "", "Killed", "[]", '{"outputs": 3}', '{"outputs": {"artifacts": {"a": {}}}}', '{"error": "no"}',
        "gz:!", "gz:" + base64.b64encode(b"no gzip").decode(),
        "gz:" + base64.b64encode(gzip.compress(b"{}")[:-9]).decode(),
        "gz:" + base64.b64encode(gzip.compress(b" " * 10_000_000)).decode(),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_an_error_of_its_own(text: str) -> None:
    with pytest.raises(m.ManifestError):
        m.decode(text)


def test_artifacts_and_errors_are_read() -> None:
    document = {
        "outputs": {"artifacts": {"data": {"uri": "file:///artifacts/x", "digest": "sha256:1", "type": "Dataset"}}},
        "error": {"reason": "DataUnreadable", "message": "no such bucket"},
    }
    read = m.decode(json.dumps(document))
    assert read.artifacts["data"] == m.Artifact("file:///artifacts/x", "sha256:1", "Dataset", {})
    assert read.error == m.StepError("DataUnreadable", "no such bucket")
    assert m.from_dict(read.as_dict()) == read


def test_digest_of_a_file_and_of_a_directory(tmp_path: os.PathLike[str]) -> None:
    root = m.Path(tmp_path) / "model"
    (root / "b").mkdir(parents=True)
    (root / "b" / "z.txt").write_bytes(b"z")
    (root / "a.txt").write_bytes(b"a")
    assert m.digest_path(root / "a.txt") == "sha256:" + hashlib.sha256(b"a").hexdigest()
    a, z = hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"z").hexdigest()
    lines = f"a.txt\0{a}\nb/z.txt\0{z}\n"
    assert m.digest_path(root) == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    (root / "loop").symlink_to(root)
    with pytest.raises(m.ManifestError, match="link"):
        m.digest_path(root)
    with pytest.raises(m.ManifestError):
        m.digest_path(root / "absent")
