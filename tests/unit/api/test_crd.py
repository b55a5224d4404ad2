"""The CRDs: up to date, structural, small, and explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from modelyard.api import KINDS, Resource
from modelyard.api.common import Model
from modelyard.api.crd import NotStructural, definition, main, render_all, schema, structural

ROOT = Path(__file__).parents[3]
CONTRACT = {
    "FeatureView": ("featureviews", "fv"),
    "TrainingPipeline": ("trainingpipelines", "tp"),
    "PipelineRun": ("pipelineruns", "run"),
    "Model": ("models", "mdl"),
    "ModelVersion": ("modelversions", "mv"),
    "ServingDeployment": ("servingdeployments", "sd"),
}
FREE_FORM = {
    "parameters", "arguments", "inputs", "outputs", "pipelineSpec", "platformSpec", "default",
    "counters", "affinity", "volumes[]",
}  # fmt: skip


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_files_are_as_the_models_say() -> None:
    assert main(["--out", str(ROOT / "crds"), "--docs", str(ROOT / "docs/reference"), "--check"]) == 0


def test_check_notices_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    assert main(["--out", str(tmp_path), "--check"]) == 0
    (tmp_path / "models.yaml").write_text("edited by hand")
    assert main(["--out", str(tmp_path), "--check"]) == 1
    assert "models.yaml" in capsys.readouterr().err


def test_the_same_bytes_in_another_process() -> None:
    code = "from modelyard.api.crd import render_all; print(hash(''.join(render_all().values())))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT / "operator"), "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@by_kind
def test_names(kind: type[Resource]) -> None:
    spec = definition(kind)["spec"]
    plural, short = CONTRACT[kind.__name__]
    assert (spec["group"], spec["scope"]) == ("modelyard.dev", "Namespaced")
    assert spec["names"]["plural"] == plural
    assert spec["names"]["shortNames"] == [short]
    assert spec["names"]["categories"] == ["modelyard"]
    version = spec["versions"][0]
    assert (version["name"], version["subresources"]) == ("v1alpha1", {"status": {}})


@by_kind
def test_small_enough_for_client_side_apply(kind: type[Resource]) -> None:
    # kubectl keeps the last-applied object in an annotation of at most 256 KiB.
    assert len(render_all()[f"{kind.plural}.yaml"]) < 60 * 1024


@by_kind
def test_every_node_has_one_type(kind: type[Resource]) -> None:
    for path, node in nodes(schema(kind)):
        assert not node.keys() & {"anyOf", "oneOf", "allOf", "$ref", "nullable"}, path
        if "type" not in node:
            assert node.get("x-kubernetes-int-or-string") or node.get(
                "x-kubernetes-preserve-unknown-fields"
            ), path


@by_kind
def test_free_form_is_only_what_the_design_says(kind: type[Resource]) -> None:
    for path, node in nodes(schema(kind)):
        if node.get("x-kubernetes-preserve-unknown-fields"):
            assert path.rpartition(".")[2] in FREE_FORM, path
        if node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
            assert "properties" in node or "additionalProperties" in node, path


@by_kind
def test_every_field_is_explained(kind: type[Resource]) -> None:
    for path, node in nodes(schema(kind)):
        named = (
            path
            and not path.endswith(("[]", "{}"))
            and not path.startswith((".metadata", ".apiVersion", ".kind"))
        )
        assert not named or node.get("description"), path


@by_kind
def test_lists_and_texts_of_a_spec_have_an_end(kind: type[Resource]) -> None:
    for path, node in nodes(schema(kind)["properties"]["spec"]):
        match node.get("type"):
            case "array":
                assert "maxItems" in node, path
            case "string" if "enum" not in node and node.get("format") != "date-time":
                assert "maxLength" in node, path
            case "object" if "additionalProperties" in node and not path.endswith("metrics"):
                assert "maxProperties" in node, path


@by_kind
def test_list_maps_have_their_keys(kind: type[Resource]) -> None:
    for path, node in nodes(schema(kind)):
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"], path


@by_kind
def test_every_status_has_conditions_by_type(kind: type[Resource]) -> None:
    status = schema(kind)["properties"]["status"]["properties"]
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert status["observedGeneration"]["type"] == "integer"


@by_kind
def test_columns_point_at_fields(kind: type[Resource]) -> None:
    paths = {path for path, _ in nodes(schema(kind))}
    for column in kind.columns:
        known = column.path.startswith((".metadata.creationTimestamp", ".status.conditions[?("))
        assert known or column.path in paths, column


@by_kind
def test_the_reference_names_every_field_of_the_spec(kind: type[Resource]) -> None:
    text = (ROOT / f"docs/reference/{kind.__name__.lower()}.md").read_text()
    for name in schema(kind)["properties"]["spec"]["properties"]:
        assert f"`{name}" in text


def test_yaml_is_read_back_as_it_was_meant() -> None:
    for kind in KINDS:
        assert yaml.safe_load(render_all()[f"{kind.plural}.yaml"]) == definition(kind)


def test_what_has_no_structural_form_is_an_error() -> None:
    class TwoTypes(Model):
        value: int | str = Field(default=0, description="either")

    generated = TwoTypes.model_json_schema()
    with pytest.raises(NotStructural, match="more than one type"):
        structural(generated, generated.get("$defs", {}))
