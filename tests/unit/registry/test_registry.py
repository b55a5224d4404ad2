"""Stages, gates, numbers and manifests: tables, and properties over random histories."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.model import Approval, ModelSpec, ModelStatus
from modelyard.api.modelversion import ModelVersion, Stage
from modelyard.registry import stages
from modelyard.registry.numbering import KEPT, reserve
from modelyard.registry.version import RunFacts, build

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def version(number, rejected=False, **metrics):
    manifest = build(
        {
            "model": "m",
            "artifact": {"uri": "file:///artifacts/m/", "digest": DIGEST, "format": "onnx"},
            "metrics": metrics,
        },
        "flights",
        number,
        RunFacts("run-1", "uid-1"),
    )
    if rejected:
        condition = {"type": "Rejected", "status": "True", "reason": "RolloutFailed"}
        manifest["status"] = {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    return ModelVersion.parse(manifest)


def spec(**fields):
    return ModelSpec.model_validate(fields)


def said(decision, kind, number=None):
    return next(c for c in decision.conditions if c.type == kind and c.version == number)


def decide(model_spec, status, versions, **more):
    decision = stages.decide(model_spec, status, versions, NOW, **more)
    again = stages.decide(model_spec, decision.status, versions, NOW, **more)
    assert again.status == decision.status
    assert not again.events
    return decision


def test_the_first_version_that_passes_goes_to_production_at_once():
    gates = {"metrics": [{"name": "roc_auc", "min": 0.7}]}
    decision = decide(spec(gates=gates), ModelStatus(), [version(1, roc_auc=0.6), version(2, roc_auc=0.8)])
    assert (decision.status.production, decision.status.staging, decision.status.latest) == (2, None, 2)
    assert [(e.from_, e.to, e.by) for e in decision.status.history] == [(None, 2, "registry")]
    assert said(decision, "GatesPassed", 1).message == "roc_auc is 0.6, the gate asks for at least 0.7"
    assert decision.stages == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION}


def test_the_newest_that_passes_is_staged_if_it_was_not_judged():
    versions = [version(1), version(2), version(3)]
    decision = decide(spec(), ModelStatus(production=1, last_judged=1), versions)
    assert decision.status.staging == 3
    assert decision.stages == {1: Stage.PRODUCTION, 2: Stage.NONE, 3: Stage.STAGING}
    assert decide(spec(), ModelStatus(production=1, last_judged=3), versions).status.staging is None


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"metrics": [{"name": "auc", "min": 0.7}]}, "metric auc is missing from the version's metrics"),
        ({"metrics": [{"name": "brier", "max": 0.1}]}, "brier is 0.2, the gate asks for at most 0.1"),
        ({"approvals": 2}, "1 of 2 approvals"),
        ({"signature": True}, "gates.signature is not supported yet: set it to false"),
    ],
)
def test_gates_block_and_say_why(gates, message):
    status = ModelStatus(approvals=(Approval(version=1, by="ada"), Approval(version=1, by="ada")))
    decision = decide(spec(gates=gates), status, [version(1, brier=0.2)])
    assert decision.status.production is None
    assert said(decision, "GatesPassed", 1).message == message
    assert said(decision, "Ready").reason == "GateFailed"


def test_a_pin_moves_production_and_a_rollout_then_does_not():
    versions = [version(1), version(2)]
    pinned = spec(production=1)
    decision = decide(pinned, ModelStatus(production=2, last_judged=2), versions)
    assert decision.status.production == 1
    assert stages.promote(pinned, decision.status, 3, "passed", by="sd", now=NOW) == decision.status
    waiting = decide(pinned, decision.status, versions, passed=[stages.Passed("sd", 2)])
    assert said(waiting, "PromotionReady").status
    assert "set spec.production to 2 (now 1)" in said(waiting, "PromotionReady").message


@pytest.mark.parametrize("fields", [{"production": 9}, {"staging": 9}, {"aliases": {"holiday": 9}}])
def test_a_pin_to_nothing_moves_nothing(fields):
    status = ModelStatus(production=1, staging=2, latest=3)
    decision = decide(spec(**fields), status, [version(1), version(2), version(3)])
    assert decision.status == status
    ready = said(decision, "Ready")
    assert not ready.status
    assert f"spec.{next(iter(fields))}" in ready.message


def test_promotion_and_rejection_are_said_once():
    versions = [version(1), version(2)]
    status = decide(spec(), ModelStatus(production=1, last_judged=1), versions).status
    promoted = stages.promote(spec(), status, 2, "passed", by="sd", now=NOW)
    assert (promoted.production, promoted.staging, promoted.last_judged) == (2, None, 2)
    assert stages.promote(spec(), promoted, 2, "passed", by="sd", now=NOW) == promoted
    rejection = stages.reject(status, 2, "errors")
    assert (rejection.status.production, rejection.status.staging, rejection.condition.version) == (
        1,
        None,
        2,
    )
    assert decide(spec(), rejection.status, [version(1), version(2, rejected=True)]).status.staging is None


def test_a_rejected_version_never_comes_back():
    versions = [version(1), version(2, rejected=True)]
    status = ModelStatus(production=1, last_judged=1)
    assert decide(spec(), status, versions).status.staging is None
    assert decide(spec(staging=2), status, versions).status.staging is None
    refused = decide(spec(production=2), status, versions)
    assert refused.status.production == 1
    assert "which its rollout rejected" in said(refused, "Ready").message


def test_the_way_back():
    status = ModelStatus()
    for number in (1, 2, 3):
        status = stages.promote(spec(), status, number, "passed", by="sd", now=NOW)
    assert stages.rollback_target(status, [version(1), version(2), version(3)]) == 2
    assert stages.rollback_target(status, [version(1), version(2, rejected=True), version(3)]) == 1
    assert stages.rollback_target(status, [version(3)]) is None


def test_the_history_is_bounded_and_says_so():
    status = ModelStatus()
    for number in range(1, 160):
        status = stages.promote(spec(), status, number, "passed", by="sd", now=NOW)
    assert len(status.history) == stages.HISTORY
    assert status.history[0].to == 1
    assert status.history[1].reason == stages.OLDER + "passed"
    assert status.history[-1].to == 159


def test_a_deleted_production_is_said():
    decision = decide(spec(), ModelStatus(production=1, last_judged=1), [version(2)])
    assert "was deleted" in said(decision, "Ready").message
    assert decision.status.production == 1


@given(st.lists(st.integers(0, 30), max_size=300), st.lists(st.integers(1, 50), max_size=3))
def test_a_number_is_given_once(runs, made_by_hand):
    status, given_ = ModelStatus(), {}
    for run in runs:
        status, number = reserve(status, f"run-{run}", made_by_hand)
        assert given_.setdefault(run, number) == number
        assert number not in made_by_hand
    assert len(set(given_.values())) == len(given_)
    assert len(status.reservations) <= KEPT


def test_the_manifest_is_what_the_api_takes():
    manifest = build(
        {
            "model": "flight-delay",
            "artifact": {"uri": "file:///artifacts/m/", "digest": DIGEST, "format": "onnx"},
            "signature": {"inputs": [], "outputs": []},
            "features": [{"view": "v", "version": "3f9a1c", "names": ["a"]}],
            "baseline": {"uri": "file:///artifacts/p.json", "digest": DIGEST},
            "metrics": {"roc_auc": 0.73},
            "data": [{"uri": "file:///artifacts/d/", "digest": DIGEST, "rows": 3}],
            "asOf": "2013-10-31T00:00:00Z",
            "seed": 0,
        },
        "flights",
        7,
        RunFacts(
            "run-1", "uid-1", "flight-delay", "abc", None, {"train": "python@" + DIGEST}, {"depth": 6}, "ada"
        ),
    )
    parsed = ModelVersion.parse(manifest)
    assert parsed.metadata.name == "flight-delay-7"
    assert "ownerReferences" not in manifest["metadata"]
    assert parsed.spec.provenance.seed == 0
    assert parsed.spec.provenance.trained_by == "ada"


MOVES = st.lists(
    st.tuples(st.sampled_from(["new", "promote", "reject", "pin", "unpin", "delete"]), st.integers(1, 8)),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(MOVES)
def test_one_production_at_most_and_no_way_back_to_the_rejected(moves):
    pins, status, versions = {}, ModelStatus(), {}
    for move, number in moves:
        if move == "new":
            status, new = reserve(status, f"run-{len(versions)}-{status.latest}")
            versions[new] = version(new)
        elif move == "promote" and status.staging:
            status = stages.promote(spec(**pins), status, status.staging, "passed", by="sd", now=NOW)
        elif move == "reject" and status.staging in versions:
            candidate = status.staging
            versions[candidate] = version(candidate, rejected=True)
            status = stages.reject(status, candidate, "errors").status
        elif move == "pin":
            pins = {"production": number}
        elif move == "unpin":
            pins = {}
        elif move == "delete":
            versions.pop(number, None)
        decision = decide(spec(**pins), status, list(versions.values()))
        status = decision.status
        rejected = stages.rejected_versions(versions.values())
        assert list(decision.stages.values()).count(Stage.PRODUCTION) <= 1
        assert status.production not in rejected
        assert status.staging not in rejected
        assert stages.rollback_target(status, versions.values()) not in rejected
