"""The rollout's decision: a small world that is moved by hand, and properties over random worlds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.servingdeployment import ServingDeploymentSpec, ServingDeploymentStatus
from modelyard.serving.analysis import Metric, Reading
from modelyard.serving.pods import Health
from modelyard.serving.rollout import decide, wants_readings
from modelyard.serving.status import policy_of, state_of, status_of
from modelyard.serving.words import ModelView, Observed, Policy, Promote, Reject, State, Step

START = datetime(2026, 1, 1, tzinfo=UTC)
ERRORS = Metric("error-rate", max=0.01)
POLICY = Policy(
    steps=(Step(5), Step(50, timedelta(minutes=10)), Step(100)),
    metrics=(ERRORS,),
    deadline=timedelta(days=7),
)


class World:
    """A Model, pods and counters around one ServingDeployment; decisions go through status and back."""

    def __init__(self, policy=POLICY, staging=7, **model):
        self.policy, self.now = policy, START
        self.model = ModelView(production=6, staging=staging, versions=frozenset({5, 6, 7, 8}), **model)
        self.pods = {version: Health(ready=1) for version in (5, 6, 7, 8)}
        self.state = State()
        self.totals = {6: [0, 0], 7: [0, 0], 8: [0, 0]}
        self.notes = {}
        self.decision = None
        self.actions = []

    def decide(self, registry=True, **more):
        readings = [Reading("error-rate", v, "router", bad, total) for v, (bad, total) in self.totals.items()]
        observed = Observed(self.model, self.pods, **{"readings": readings, **self.notes, **more})
        self.decision = decide(self.policy, self.state, observed, self.now)
        again = decide(self.policy, self.decision.state, observed, self.now)
        assert again.state == self.decision.state, "deciding again changed something"
        status = ServingDeploymentStatus.model_validate(
            {key: value for key, value in status_of(self.decision.state).items() if value is not None}
        )
        self.state = state_of(status)
        assert replace(self.state, judgements=()) == replace(self.decision.state, judgements=())
        assert sum(weight for _, weight in self.state.traffic) in {0, 100}
        self.actions += self.decision.actions
        if registry:
            for action in self.decision.actions:
                self.apply(action)
        return self

    def apply(self, action):
        if isinstance(action, Promote) and not self.model.pinned:
            self.model = replace(
                self.model, production=action.version, staging=None, last_judged=action.version
            )
        if isinstance(action, Reject):
            self.model = replace(
                self.model,
                rejected=self.model.rejected | {action.version},
                staging=None,
                last_judged=action.version,
            )

    def look(self, requests=500, bad=0, version=7, times=1, seconds=30):
        for _ in range(times):
            self.now += timedelta(seconds=seconds)
            self.totals[version][0] += bad
            self.totals[version][1] += requests
            self.totals[6][1] += 500
            self.decide()
        return self

    def progressing(self):
        return next(said for said in self.decision.conditions if said.type == "Progressing")


def test_the_first_version_takes_all_traffic():
    world = World(staging=None).decide()
    assert world.state.traffic == ((6, 100),)
    assert world.decision.objects == {6: 1}


def test_a_good_candidate_goes_step_by_step_to_production_and_swaps_roles():
    world = World().decide().decide()
    assert (world.state.step, world.state.weight) == (1, 5)
    world.look()
    assert (world.state.step, world.state.weight) == (2, 50)
    world.look(times=3)
    assert world.state.weight == 50
    assert "is held until" in world.progressing().message
    world.look(seconds=600)
    assert world.state.weight == 100
    world.look()
    assert world.state.traffic == ((7, 100),)
    assert world.model.production == 7
    assert world.decision.objects == {7: 1, 6: 1}, "the old stable version is kept for a while"
    world.now += timedelta(minutes=11)
    world.decide()
    assert world.decision.objects == {7: 1}
    assert world.state.phase == "Stable"


def test_errors_roll_back_at_the_second_fail_and_at_once():
    world = World().decide().decide().look(bad=100)
    assert world.state.failures == 1
    assert world.state.weight == 5
    world.look(bad=100)
    assert world.state.traffic == ((6, 100),)
    assert world.state.phase == "RolledBack"
    assert world.model.rejected == {7}
    assert "error-rate: 20 % errors" in world.actions[-1].message
    world.model = replace(world.model, staging=7)
    assert world.decide().state.candidate is None, "a rejected version comes back"


def test_silence_and_an_unreachable_prometheus_hold():
    world = World().decide().decide()
    for more in ({"readings": None, "unreachable": "connection refused"}, {"readings": []}):
        for _ in range(50):
            world.now += timedelta(seconds=30)
            world.decide(**more)
            assert world.state.weight == 5
            assert world.state.failures == 0
    world.now += timedelta(seconds=30)
    world.decide(readings=None, unreachable="connection refused")
    assert world.state.phase == "Holding"
    assert "connection refused" in world.progressing().message


def test_too_few_requests_hold():
    world = World().decide().decide().look(requests=10, bad=5)
    assert world.state.weight == 5
    assert "10 of at least 200 requests" in world.progressing().message


def test_a_hold_shows_in_conditions_with_its_reason():
    world = World().decide().decide().look(requests=10)
    holding = next(said for said in world.decision.conditions if said.type == "Holding")
    assert (holding.status, holding.reason) == (True, "TooFewRequests")


def test_an_observed_excess_that_may_be_chance_holds():
    world = World().decide().decide().look(requests=300, bad=4)
    assert world.state.weight == 5
    assert "may be chance" in world.progressing().message


@pytest.mark.parametrize("failure", ["CrashLoopBackOff: exit code 1", "DigestMismatch: other bytes"])
def test_what_the_pods_know_rejects_at_once(failure):
    world = World().decide()
    world.pods[7] = Health(failure=failure)
    world.decide()
    assert world.state.phase == "RolledBack"
    assert world.model.rejected == {7}


def test_only_errors_reject_before_any_statistics():
    world = World().decide().decide()
    world.totals[7] = [20, 20]
    assert world.decide().state.phase == "RolledBack"


def test_a_pod_without_a_node_holds_at_weight_zero():
    world = World()
    world.pods[7] = Health(waiting="scheduling: no node has 4Gi")
    world.decide().decide()
    assert (world.state.candidate, world.state.weight) == (7, 0)
    assert "no node has 4Gi" in world.progressing().message


def test_approval_names_version_and_step():
    world = World(replace(POLICY, steps=(Step(5), Step(25, approval=True), Step(100)))).decide().decide()
    world.look().look()
    assert (world.state.step, world.state.phase) == (2, "AwaitingApproval")
    world.notes = {"approve": "6/2"}
    assert world.look().state.step == 2
    world.notes = {"approve": "7/2"}
    assert world.look().state.step == 3


def test_abort_and_its_stale_namesake():
    world = World().decide().decide()
    world.notes = {"abort": "6", "by": "ada"}
    assert world.decide().state.weight == 5
    world.notes = {"abort": "7", "by": "ada"}
    assert world.decide().state.traffic == ((6, 100),)
    assert Reject(7, "aborted by ada") in world.actions


def test_paused_keeps_the_weight_but_not_a_bad_version():
    world = World().decide().decide()
    world.policy = replace(POLICY, paused=True)
    assert world.look(times=5).state.weight == 5
    assert world.state.phase == "Paused"
    assert world.look(bad=300, times=3).state.phase == "RolledBack"


def test_the_deadline():
    for promote, production in ((False, 6), (True, 7)):
        world = World(replace(POLICY, promote_at_deadline=promote)).decide().decide()
        world.look(requests=0, seconds=8 * 86400)
        assert world.model.production == production
        assert world.state.candidate is None


def test_a_newer_version_replaces_or_queues():
    world = World().decide().decide()
    world.model = replace(world.model, staging=8)
    queued = World(replace(POLICY, queue=True)).decide().decide()
    queued.model = replace(queued.model, staging=8)
    assert world.decide().state.candidate == 8
    assert 7 in world.decision.objects
    assert queued.decide().state.candidate == 7


def test_a_pin_switches_when_ready_whatever_is_under_way():
    world = World().decide().decide()
    world.model = replace(world.model, production=5, pinned=True)
    world.pods[5] = Health(waiting="ContainerCreating")
    world.decide()
    assert world.state.traffic == ((6, 95), (7, 5))
    assert 5 in world.decision.objects
    world.pods[5] = Health(ready=1)
    world.decide()
    assert world.state.stable == 5


def test_a_pinned_production_awaits_a_merge():
    world = World(pinned=True).decide().decide().look().look(seconds=700).look(times=3)
    assert world.state.weight == 50
    assert world.progressing().message.endswith("set the Model's spec.production to 7")
    world.look(seconds=8 * 86400)
    assert world.state.candidate == 7, "a version that passed is not rejected for waiting"
    world.model = replace(world.model, production=7)
    assert world.decide().state.traffic == ((7, 100),)


def test_a_serving_deployment_that_does_not_promote_follows():
    world = World(replace(POLICY, promotes=False)).decide().decide()
    assert world.state.candidate is None
    world.model = replace(world.model, production=7)
    assert world.decide().state.traffic == ((7, 100),)


def test_shadow_is_refused_clearly():
    world = World(replace(POLICY, shadow=True)).decide()
    assert world.state.candidate is None
    assert world.progressing().reason == "ShadowNotSupported"


def test_an_operator_killed_before_the_registry_was_told_tells_it_later():
    world = World().decide().decide().look(bad=100)
    world.now += timedelta(seconds=30)
    world.totals[7][0] += 100
    world.totals[7][1] += 500
    world.decide(registry=False)
    assert world.model.rejected == frozenset()
    assert world.state.weight == 0
    world.decide()
    assert world.model.rejected == {7}
    world.decide()
    assert world.state.outcome is None


def test_a_restarted_router_is_a_reset_and_not_a_loss():
    world = World().decide().decide().look(requests=150)
    world.totals[7] = [0, 60]
    world.now += timedelta(seconds=30)
    world.decide()
    assert world.state.weight == 50, "150 + 60 requests are enough"


def test_readings_are_wanted_for_the_baseline_and_for_looks():
    world = World().decide(readings=None)
    assert not wants_readings(POLICY, world.state, world.model, world.now)
    assert wants_readings(POLICY, world.state, world.model, world.now + timedelta(seconds=30))
    assert wants_readings(POLICY, State(stable=6), world.model, world.now)


def test_the_policy_from_a_spec():
    spec = ServingDeploymentSpec.model_validate(
        {
            "model": {"name": "m"},
            "rollout": {"steps": [{"weight": 50, "approval": "manual", "hold": "1m"}, {"weight": 100}]},
        }
    )
    assert policy_of(spec).steps == (Step(50, timedelta(minutes=1), True), Step(100))
    assert (
        policy_of(ServingDeploymentSpec.model_validate({"model": {"name": "m", "version": 7}})).version == 7
    )


EVENTS = st.one_of(
    st.tuples(st.just("look"), st.sampled_from([0, 10, 500]), st.sampled_from([0.0, 0.01, 0.5, 1.0])),
    st.tuples(st.just("model"), st.sampled_from([None, 5, 6, 7, 8]), st.booleans()),
    st.tuples(st.just("staging"), st.sampled_from([None, 5, 7, 8]), st.none()),
    st.tuples(
        st.just("pods"), st.sampled_from([5, 6, 7, 8]), st.sampled_from(["ready", "waiting", "failure"])
    ),
    st.tuples(st.just("silence"), st.none(), st.none()),
    st.tuples(st.just("killed"), st.none(), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_whatever_happens_weights_sum_to_100_and_the_rejected_get_none(events):
    world = World()
    for kind, a, b in events:
        world.now += timedelta(seconds=30)
        if kind == "look":
            version = world.state.candidate or 7
            world.totals.setdefault(version, [0, 0])
            world.totals[version][0] += int(a * b)
            world.totals[version][1] += a
        elif kind == "model" and a not in world.model.rejected:
            world.model = replace(world.model, production=a or world.model.production, pinned=b)
        elif kind == "staging":
            world.model = replace(world.model, staging=a)
        elif kind == "pods":
            world.pods[a] = Health(**({"ready": 1} if b == "ready" else {b: "why"}))
        world.decide(registry=kind != "killed", **({"readings": []} if kind == "silence" else {}))
        traffic = dict(world.state.traffic)
        assert not any(weight for version, weight in traffic.items() if version in world.model.rejected)
        assert set(traffic) <= set(world.decision.objects)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["unreachable", "empty", "none"]), max_size=40))
def test_no_data_never_rolls_back(looks):
    world = World().decide().decide()
    for kind in looks:
        world.now += timedelta(seconds=30)
        world.decide(
            readings=[] if kind == "empty" else None, unreachable="down" if kind == "unreachable" else ""
        )
        assert world.state.candidate == 7
        assert not world.model.rejected
