"""What the CRD hook applies, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.cluster import crds

from .conftest import ROOT


def test_loads_every_generated_definition() -> None:
    names = [each["metadata"]["name"] for each in crds.load(ROOT / "crds")]
    assert len(names) == 6
    assert names == sorted(names)


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\nmetadata: {name: a}\n",
        "kind: CustomResourceDefinition\nmetadata: {name: a.other.io}\nspec: {group: other.io}\n",
        "",
    ],
)
def test_refuses_anything_else(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(crds.NotACustomResourceDefinition):
        crds.load(tmp_path)
    assert crds.main(["apply", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_established() -> None:
    assert not crds.established({})
    assert not crds.established({"status": {"conditions": [{"type": "Established", "status": "False"}]}})
    assert crds.established({"status": {"conditions": [{"type": "Established", "status": "True"}]}})
