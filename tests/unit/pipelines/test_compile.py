"""Steps become KFP's IR, or an error that names the field."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.unit.pipelines.worlds import FLIGHT, diamond, frozen_of, shell

from modelyard.api.trainingpipeline import TrainingPipelineSpec
from modelyard.pipelines import ir
from modelyard.pipelines.compile import compile_pipeline
from modelyard.pipelines.errors import PipelineError


def test_the_flagship_compiles_to_what_kfp_reads() -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    # kfp-pipeline-spec imports google.rpc and does not require googleapis-common-protos itself.
    pytest.importorskip("google.rpc", reason="needs googleapis-common-protos")
    from kfp.pipeline_spec import pipeline_spec_pb2

    compiled = compile_pipeline(FLIGHT, "flight-delay")
    json_format.ParseDict(compiled.pipeline_spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(compiled.platform_spec, pipeline_spec_pb2.PlatformSpec())
    ir.check(compiled.pipeline_spec, compiled.platform_spec)


def test_a_model_and_its_document_compile_to_the_same() -> None:
    spec = TrainingPipelineSpec.model_validate(FLIGHT)
    assert compile_pipeline(spec, "p") == compile_pipeline(spec.to_dict(), "p")


def test_how_references_conditions_and_options_read() -> None:
    compiled = compile_pipeline(FLIGHT, "flight-delay")
    tasks = ir.tasks(compiled.pipeline_spec)
    train = tasks["train"]
    assert train["triggerPolicy"]["condition"] == (
        "inputs.parameter_values['pipelinechannel--validate-anomalies'] == 0"
    )
    assert train["dependentTasks"] == ["features", "validate"]
    assert train["retryPolicy"] == {
        "maxRetryCount": 2, "backoffDuration": "30s", "backoffFactor": 2.0, "backoffMaxDuration": "600s",
    }  # fmt: skip
    assert train["inputs"]["artifacts"]["data"]["taskOutputArtifact"]["producerTask"] == "features"
    container = ir.container(compiled.pipeline_spec, "train")
    assert container["command"][2:] == [
        "--data={{$.inputs.artifacts['data'].path}}", "--depth={{$.inputs.parameters['depth']}}",
        "--model={{$.outputs.artifacts['model'].path}}", "--score={{$.outputs.parameters['score'].output_file}}",
        "{{$.inputs.parameters['pipelinechannel--note']}}", "$(MASTER_ADDR)",
    ]  # fmt: skip
    assert container["resources"] == {
        "resourceMemoryLimit": "4Gi", "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
    }  # fmt: skip
    own = ir.options(compiled.platform_spec, "modelyard", "exec-train")
    assert own["workers"] == 4
    assert own["timeoutSeconds"] == 7200
    assert own["cacheMaxAgeSeconds"] == 604800
    assert own["resources"] == {"requests": {"ephemeral-storage": "1Gi"}}
    kubernetes = ir.options(compiled.platform_spec, "kubernetes", "exec-train")
    assert kubernetes["secretAsEnv"][0]["keyToEnv"] == [{"secretKey": "k", "envVar": "KEY"}]
    assert kubernetes["imagePullSecret"] == [{"secretName": "pull"}]
    assert "cachingOptions" not in tasks["register"]
    assert tasks["ingest"]["cachingOptions"] == {"enableCache": True}


def broken(index: int, **change: Any) -> dict[str, Any]:
    spec = copy.deepcopy(FLIGHT)
    spec["steps"][index].update(change)
    return spec


DATA = "$(steps.ingest.outputs.data)"


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"steps": []}, "spec.steps", "at least one"),
        ({"steps": [shell("a"), shell("a")]}, "spec.steps[1].name", "two steps 'a'"),
        (diamond(a={"after": ["d"]}), "spec.steps", "wait for each other"),
        (diamond(a={"after": ["x"]}), "spec.steps[0].after[0]", "no step 'x'"),
        (diamond(a={"inputs": {"n": "$(steps.x.outputs.n)"}}), "spec.steps[0].inputs.n", "no step 'x'"),
        (diamond(b={"inputs": {"n": "$(steps.a.outputs.m)"}}), "spec.steps[1].inputs.n", "no output 'm'"),
        (diamond(b={"command": ["$(steps.a.output.n)"]}), "spec.steps[1].command[0]", "is no reference"),
        (diamond(b={"command": ["$(inputs.zz)"]}), "spec.steps[1].command[0]", "declares no such thing"),
        (diamond(b={"command": ["$(params.zz)"]}), "spec.steps[1].command[0]", "no parameter 'zz'"),
        (diamond(b={"when": "steps.a.outputs.n =="}), "spec.steps[1].when", "parse"),
        (diamond(b={"when": "foo == 1"}), "spec.steps[1].when", "foo: not known"),
        (diamond(b={"outputs": {"n": "Banana"}}), "spec.steps[1].outputs.n", "neither an artifact type"),
        (diamond(b={"timeout": "soon"}), "spec.steps[1].timeout", "not a duration"),
        (diamond(b={"arguments": {"x": 1}}), "spec.steps[1].arguments", "has inputs"),
        (broken(0, component="inject"), "spec.steps[0].component", "'inject'"),
        (broken(0, arguments={"dta": 1}), "spec.steps[0].arguments.dta", "no such argument"),
        (broken(1, arguments={}), "spec.steps[1].arguments.data", "needs it"),
        (broken(1, arguments={"data": 3}), "spec.steps[1].arguments.data", "must be an artifact"),
        (broken(1, arguments={"data": "$(steps.train.outputs.model)"}), "spec.steps[1].arguments.data", "a Model"),
        (broken(1, arguments={"data": DATA, "checks": DATA}), "spec.steps[1].arguments.checks", "no such argument"),
        (broken(1, command=["sh"]), "spec.steps[1].command", "has its own"),
        (broken(1, when="steps.ingest.outputs.data == 1"), "spec.steps[1].when", "is an artifact"),
        (broken(3, component="train"), "spec.steps[3]", "either a component or an image"),
        (broken(4, component="register"), "spec.steps", "at most one"),
    ],
)  # fmt: skip
def test_errors_name_the_field_and_say_what_is_wrong(spec: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(PipelineError) as caught:
        compile_pipeline(spec, "p")
    assert caught.value.field == field
    assert words in caught.value.message


def test_a_cycle_is_named() -> None:
    steps = [shell("a", after=["c"]), shell("b", after=["a"]), shell("c", after=["b"])]
    with pytest.raises(PipelineError, match=r"(a → b → c → a|b → c → a → b|c → a → b → c)"):
        compile_pipeline({"steps": steps}, "p")


def test_parameters_of_a_run() -> None:
    spec = {"parameters": {"n": 1, "s": "x"}, "steps": [shell("a", inputs={"n": "$(params.n)"})]}
    assert frozen_of(spec, n=0.5).document["parameters"] == {"n": 0.5, "s": "x"}
    for wrong in ({"m": 1}, {"n": "one"}, {"s": 3}):
        with pytest.raises(PipelineError):
            frozen_of(spec, **wrong)


@pytest.mark.parametrize(
    ("change", "construct"),
    [
        ({"parameterIterator": {"itemInput": "x"}}, "ParallelFor"),
        ({"artifactIterator": {"itemInput": "x"}}, "ParallelFor over artifacts"),
        ({"triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}}, "exit handlers"),
        ({"inputs": {"parameters": {"x": {"taskFinalStatus": {"producerTask": "a"}}}}}, "taskFinalStatus"),
        ({"inputs": {"artifacts": {"x": {"componentInputArtifact": "y"}}}}, "componentInputArtifact"),
    ],
)
def test_what_the_engine_does_not_run_yet_is_refused_by_name(change: dict[str, Any], construct: str) -> None:
    compiled = compile_pipeline(diamond(), "p")
    compiled.pipeline_spec["root"]["dag"]["tasks"]["a"].update(change)
    with pytest.raises(PipelineError, match=f"not supported yet: {construct}"):
        ir.check(compiled.pipeline_spec, compiled.platform_spec)


def test_importers_nested_pipelines_and_placeholders_are_refused() -> None:
    def changed(path: str, value: Any) -> None:
        pipeline = compile_pipeline(diamond(), "p").pipeline_spec
        *parents, last = path.split("/")
        place = pipeline
        for key in parents:
            place = place[key]
        place[last] = value
        ir.check(pipeline, {})

    for path, value, words in (
        ("deploymentSpec/executors/exec-a", {"importer": {}}, "importer"),
        ("components/comp-a", {"dag": {"tasks": {}}}, "nested pipelines"),
        ("deploymentSpec/executors/exec-a/container/command", ["{{$}}"], "placeholder"),
        ("root/dag/outputs", {"parameters": {"x": {}}}, "pipeline outputs"),
    ):
        with pytest.raises(PipelineError, match=words):
            changed(path, value)
