"""Every example of the design parses; everything that must be refused is, with a message that says where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.unit.api.api_server import broken_rules
from tests.unit.api.cases import Object, Refused, examples, refused

from modelyard.api import BY_KIND, KINDS, Model, PipelineRun, ServingDeployment, TrainingPipeline, problems
from modelyard.api.crd import schema
from modelyard.api.manifests import parse

SCHEMAS = {kind.__name__: schema(kind) for kind in KINDS}


def ids(case: Any) -> str:
    return case.name if isinstance(case, Refused) else f"{case['kind']}/{case['metadata']['name']}"


@pytest.mark.parametrize("example", examples(), ids=ids)
def test_examples_parse(example: Object) -> None:
    resource = parse(example)
    assert resource.metadata.name == example["metadata"]["name"]
    assert broken_rules(SCHEMAS[example["kind"]], example) == []


@pytest.mark.parametrize("example", examples(), ids=ids)
def test_what_was_parsed_can_be_written_and_parsed_again(example: Object) -> None:
    resource = parse(example)
    assert parse(resource.to_dict()) == resource


@pytest.mark.parametrize("example", examples(), ids=ids)
def test_nothing_written_is_lost_or_changed(example: Object) -> None:
    _assert_within(example["spec"], parse(example).to_dict()["spec"])


def _assert_within(written: Any, read: Any) -> None:
    if isinstance(written, dict):
        assert written.keys() <= read.keys()
        for key, value in written.items():
            _assert_within(value, read[key])
    elif isinstance(written, list):
        assert len(written) == len(read)
        for one, other in zip(written, read, strict=True):
            _assert_within(one, other)
    else:
        assert (written, type(written) is bool) == (read, type(read) is bool)


@pytest.mark.parametrize("case", refused(), ids=ids)
def test_refused(case: Refused) -> None:
    if case.before is None:
        with pytest.raises(ValidationError) as caught:
            parse(case.object)
        assert case.says in "\n".join(problems(caught.value))
    if case.by_rule:
        broken = broken_rules(SCHEMAS[case.object["kind"]], case.object, case.before)
        assert any(case.says in message for message in broken)


def test_every_rule_has_a_case() -> None:
    said = [case.says for case in refused() if case.by_rule]
    unproved = {m for s in SCHEMAS.values() for m in _messages(s) if not any(text in m for text in said)}
    # Immutable fields share one rule, tried on some of them.
    assert {m for m in unproved if "cannot be" not in m and "needs connection" not in m} == set()


def _messages(node: Any) -> list[str]:
    if isinstance(node, list):
        return [message for child in node for message in _messages(child)]
    if not isinstance(node, dict):
        return []
    own = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
    return own + [message for child in node.values() for message in _messages(child)]


@settings(max_examples=300, deadline=None)
@given(example=st.sampled_from(examples()), data=st.data())
def test_cel_and_python_agree_when_fields_are_missing(example: Object, data: st.DataObject) -> None:
    thinned = _thinned(example["spec"], data)
    document = {**example, "spec": thinned}
    said: list[str] = []
    try:
        parse(document)
    except ValidationError as error:
        if any(each["type"] != "rule" for each in error.errors()):
            return  # refused by the schema, whatever the rules say
        said = [each["msg"] for each in error.errors()]
    broken = broken_rules(SCHEMAS[example["kind"]], document)
    # Python stops at the innermost object that is wrong; CEL judges all of them.
    assert set(said) <= set(broken)
    assert bool(said) == bool(broken)


def _thinned(node: Any, data: st.DataObject) -> Any:
    if isinstance(node, list):
        return [_thinned(item, data) for item in node]
    if not isinstance(node, dict):
        return node
    kept = [key for key in node if data.draw(st.integers(0, 9)) > 0]
    return {key: _thinned(node[key], data) for key in kept}


def test_a_status_from_a_newer_operator_can_be_read() -> None:
    run = PipelineRun.parse(
        {
            "metadata": {"name": "a", "namespace": "team", "managedFields": []},
            "spec": {"pipeline": "p"},
            "status": {"phase": "Running", "steps": [{"name": "s", "phase": "Running", "new": 1}], "new": {}},
        }
    )
    assert run.key == "team/a"
    assert run.status.steps[0].name == "s"


def test_models_are_frozen() -> None:
    model = Model.parse({"metadata": {"name": "m"}})
    with pytest.raises(ValidationError):
        model.spec.owner = "somebody"  # type: ignore[misc]


def test_snake_case_builds_too_and_python_values_are_typed() -> None:
    sd = next(
        e for e in examples() if e["metadata"]["name"] == "flight-delay" and e["kind"] == "ServingDeployment"
    )
    spec = ServingDeployment.parse(sd).spec
    assert spec.latency_budget is not None
    assert spec.latency_budget.seconds == 0.2
    assert spec.rollout is not None
    assert spec.rollout.deadline.seconds == 7 * 86400
    assert spec.rollout.steps[1].hold.seconds == 600
    assert spec.model_copy(update={"rollout": None}).effective_rollout is not None


def test_defaults_of_the_server_are_those_of_the_models() -> None:
    pipeline = {"metadata": {"name": "p"}, "spec": {"steps": [{"name": "s", "image": "i", "retries": {}}]}}
    retries = (TrainingPipeline.parse(pipeline).spec.steps or ())[0].retries
    assert retries is not None
    assert (retries.limit, retries.backoff.seconds, retries.factor, retries.max.seconds) == (0, 30, 2, 600)


def test_numbers_are_not_read_from_text() -> None:
    with pytest.raises(ValidationError):
        Model.parse({"metadata": {"name": "m"}, "spec": {"production": "6"}})
    with pytest.raises(ValidationError):
        Model.parse({"metadata": {"name": "m"}, "spec": {"gates": {"signature": "yes"}}})


def test_every_kind_is_listed() -> None:
    assert set(BY_KIND) == {
        "FeatureView",
        "TrainingPipeline",
        "PipelineRun",
        "Model",
        "ModelVersion",
        "ServingDeployment",
    }
