"""The rollout of a candidate, as a pure decision: ``decide(policy, state, observed, now) -> Decision``.

A ServingDeployment follows its Model. What the Model calls Production serves; what it calls Staging, if
newer than the last version judged, is the *candidate* and earns its weight step by step. The decision
ends in an `Outcome`, which the registry has to be told: the outcome stays in status, and `Promote` or
`Reject` is asked for again, until the Model shows it. So the operator may be killed between any two
writes.

The order of questions, the first that matters decides:

1. Has Production moved under us (a pin, a rollback, another ServingDeployment)? Load it, wait until
ready, switch. 2. Is the candidate still wanted? A newer one replaces it (or queues), a withdrawn one
goes. 3. Is it aborted, crashing, answering only errors? Weight 0 at once. 4. Is a look due? Then count
fails; at the limit, weight 0. 5. Is the deadline over? Then as `onDeadline` says. 6. May the step be
left? Hold over, last look passed, approved, not paused, pods ready.

Approval is given *at* a step's weight, to leave it: ``modelyard.dev/approve: "7/2"`` lets version 7 leave
step 2, counted from 1 as in `status.step`. Whatever keeps the weight where it is shows in the condition
`Progressing`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from modelyard.api.servingdeployment import Verdict
from modelyard.serving.analysis import REQUESTS, Ledger, judge, overall
from modelyard.serving.pods import Health
from modelyard.serving.words import (
    Action,
    Decision,
    Event,
    ModelView,
    Observed,
    Outcome,
    Policy,
    Promote,
    Reject,
    Said,
    State,
)

ONLY_ERRORS = 20
"""So many answers without one that is not a 5xx reject a candidate without further statistics."""


def wants_readings(policy: Policy, state: State, model: ModelView, now: datetime) -> bool:
    """Whether the next decision needs readings and gauges: for a look, or for the baseline of a start."""
    if state.candidate is None:
        return model.staging is not None and model.staging > max(model.last_judged, state.judged)
    return state.step == 0 or _look_due(policy, state, now)


def _look_due(policy: Policy, state: State, now: datetime) -> bool:
    return state.step > 0 and (state.look_at is None or now - state.look_at >= policy.interval)


def decide(policy: Policy, state: State, observed: Observed, now: datetime) -> Decision:
    """One decision. Deciding again with the state that came out and the same world changes nothing."""
    run = _Run(policy, state, observed, now)
    run.settle_outcome()
    run.follow_production()
    if not policy.shadow:
        run.choose_candidate()
    run.progress()
    return run.decision()


class _Run:
    """One decision under way: the state as it becomes, and what there is to do and say."""

    def __init__(self, policy: Policy, state: State, observed: Observed, now: datetime) -> None:
        self.policy, self.state, self.observed, self.now = policy, state, observed, now
        self.model = observed.model
        self.actions: list[Action] = []
        self.waits = ""
        self.incoming: int | None = None

    # 1. the registry and the way Production goes

    def settle_outcome(self) -> None:
        """Asks for the outcome until the Model shows it; one that the Model has overtaken is dropped."""
        outcome = self.state.outcome
        if outcome is None:
            return
        if outcome.promoted:
            # Production elsewhere than before or at the promoted version: somebody else has moved it since.
            if self.model.production != outcome.before or self.model.pinned:
                self.state = replace(self.state, outcome=None)
            else:
                self.actions.append(Promote(outcome.version, outcome.reason))
        elif (
            outcome.version in self.model.rejected
            or outcome.version not in self.model.versions
            # Somebody pinned it before the registry was told: a pin wins, and what is in Production is
            # not rejected.
            or outcome.version == self.model.production
        ):
            self.state = replace(self.state, outcome=None)
        else:
            self.actions.append(Reject(outcome.version, outcome.reason))

    def follow_production(self) -> None:
        """Switches to what the Model, or the pin of this ServingDeployment, wants in Production."""
        state = self.state
        target = self.policy.version if self.policy.version is not None else self.model.production
        if state.outcome is not None and state.outcome.promoted and self.policy.version is None:
            return  # the Model does not know yet
        if target is None or target == state.stable:
            return
        if target not in self.model.versions:
            self.waits = f"version {target} does not exist"
            return
        if state.stable is None:
            # Nothing serves yet: the route may as well be there before the pods are.
            self.state = replace(self._without_retiring(target), stable=target, phase="Pending")
            return
        self.incoming = target
        if not self._ready(target):
            self.waits = f"version {target} is to serve and is not ready{self._why(target)}"
            return
        before = state.stable
        self.state = self._retire(self._without_candidate(), before)
        if state.candidate not in {None, target}:
            self.state = self._retire(self.state, state.candidate)
        self.state = replace(self._without_retiring(target), stable=target, phase="Stable")
        self.actions.append(Event("PinApplied", f"version {target} serves instead of {before}"))
        self.incoming = None

    # 2. which candidate

    def choose_candidate(self) -> None:
        """Starts, replaces or drops the candidate."""
        state, wanted = self.state, self._wanted()
        if state.candidate is not None and state.candidate != wanted:
            keeps = self.policy.queue and wanted is not None and wanted > state.candidate
            if keeps and state.candidate in self.model.versions - self.model.rejected:
                return
            dropped = state.candidate
            self.state = replace(self._retire(self._without_candidate(), dropped), phase="Stable")
            self.actions.append(
                Event("RolloutReplaced", f"version {dropped} gives way to {wanted}")
                if wanted is not None
                else Event("RolloutReplaced", f"version {dropped} is no longer in Staging")
            )
        if wanted is None or self.state.candidate is not None or self.state.stable is None:
            return
        if self.state.outcome is not None or not self._serves(self.state.stable):
            return
        ledger = Ledger(wanted, self.state.stable).add(self.observed.readings or (), 0)
        self.state = replace(
            self._without_retiring(wanted),
            phase="Progressing",
            candidate=wanted,
            started_at=self.now,
            step_at=self.now,
            ledger=ledger,
            judgements=(),
        )
        self.actions.append(
            Event("RolloutStarted", f"version {wanted} is loading beside {self.state.stable}")
        )

    def _wanted(self) -> int | None:
        staging = self.model.staging
        if self.policy.version is not None or not self.policy.promotes or staging is None:
            return None
        newest = max(self.model.last_judged, self.state.judged)
        # What is to serve anyway, and only waits for its pods, needs no trial.
        serves = staging in {self.state.stable, self.model.production}
        if staging <= newest or serves or staging not in self.model.versions:
            return None
        return None if staging in self.model.rejected else staging

    # 3. to 6. how far it has come

    def progress(self) -> None:
        """Counts, judges and moves the candidate."""
        candidate = self.state.candidate
        if candidate is None:
            return
        if (
            self.observed.readings is not None
            and self.state.ledger is not None
            and not self.observed.unreachable
        ):
            self.state = replace(
                self.state, ledger=self.state.ledger.add(self.observed.readings, self.state.step)
            )
        if self.observed.abort == str(candidate):
            self._reject(f"aborted by {self.observed.by}")
        elif failure := self._failure(candidate):
            self._reject(failure)
        elif self._look():
            self._reject(
                "; ".join(
                    f"{j.metric}: {j.message}" for j in self.state.judgements if j.verdict is Verdict.FAIL
                )
            )
        elif (
            self._overdue()
            and not self._awaits_merge()
            and not (self.policy.promote_at_deadline and not self._may_take_all(candidate))
        ):
            if self.policy.promote_at_deadline:
                self._finish(f"the deadline of {self.policy.deadline} is over")
            else:
                self._reject(
                    f"the deadline of {self.policy.deadline} is over: {self._held() or 'not finished'}"
                )
        elif held := self._held():
            self.waits = self.waits or held
        else:
            self._advance()

    def _failure(self, candidate: int) -> str:
        """Why the candidate is bad beyond doubt, without statistics."""
        pods = self.observed.pods.get(candidate, Health())
        if pods.failure:
            return pods.failure
        counts = self.state.ledger.counts(REQUESTS, candidate) if self.state.ledger else None
        if counts is not None and counts.total >= ONLY_ERRORS and counts.bad == counts.total:
            return f"OnlyErrors: all of {counts.total:.0f} answers were errors"
        return ""

    def _look(self) -> bool:
        """Looks if a look is due; True where it was one fail too many."""
        state, policy = self.state, self.policy
        asked = self.observed.readings is not None or bool(self.observed.unreachable) or not policy.metrics
        if not _look_due(policy, state, self.now) or not asked or state.ledger is None:
            return False
        judgements = judge(
            policy.metrics,
            state.ledger,
            min_requests=policy.min_requests,
            confidence=policy.confidence,
            steps=len(policy.steps),
            gauges=self.observed.gauges,
            unreachable=self.observed.unreachable,
        )
        verdict = overall(judgements)
        failures = state.failures + (verdict is Verdict.FAIL)
        self.state = replace(
            state, judgements=tuple(judgements), look=verdict, look_at=self.now, failures=failures
        )
        if verdict is Verdict.FAIL and failures < policy.failure_limit:
            failed = "; ".join(f"{j.metric}: {j.message}" for j in judgements if j.verdict is Verdict.FAIL)
            self.actions.append(
                Event(
                    "RolloutHeld",
                    f"fail {failures} of {policy.failure_limit} of version {state.candidate}: {failed}",
                    True,
                )
            )
        return verdict is Verdict.FAIL and failures >= policy.failure_limit

    def _overdue(self) -> bool:
        started, deadline = self.state.started_at, self.policy.deadline
        return started is not None and deadline is not None and self.now - started >= deadline

    def _awaits_merge(self) -> bool:
        """Whether it has passed all that a pinned Production lets it try."""
        state, steps = self.state, self.policy.steps
        last = state.step >= len(steps) or steps[state.step].weight >= 100
        return self.model.pinned and state.step > 0 and last and state.look is Verdict.PASS

    def _may_take_all(self, candidate: int) -> bool:
        return self._ready(candidate) and not self.model.pinned and self.incoming is None

    def _held(self) -> str:
        """Why the candidate stays where it is; empty where it may move on."""
        state, policy = self.state, self.policy
        candidate = state.candidate
        assert candidate is not None
        if self.incoming is not None:
            return f"version {self.incoming} is about to serve"
        if not self._ready(candidate):
            return f"version {candidate} is not ready{self._why(candidate)}"
        if policy.paused:
            return "paused"
        if state.step == 0:
            return ""
        step = policy.steps[min(state.step, len(policy.steps)) - 1]
        if state.step_at is not None and self.now - state.step_at < step.hold:
            return f"step {state.step} is held until {(state.step_at + step.hold).isoformat()}"
        if state.look is not Verdict.PASS:
            open_ = [f"{j.metric}: {j.message}" for j in state.judgements if j.verdict is not Verdict.PASS]
            return "; ".join(open_) if state.look and open_ else "the next look is due"
        if step.approval and self.observed.approve != f"{candidate}/{state.step}":
            return (
                f'step {state.step} awaits the annotation modelyard.dev/approve: "{candidate}/{state.step}"'
            )
        if self._awaits_merge():
            return f"version {candidate} has passed; set the Model's spec.production to {candidate}"
        return ""

    def _advance(self) -> None:
        state = self.state
        if state.step >= len(self.policy.steps):
            self._finish(f"passed all {len(self.policy.steps)} steps")
            return
        step = self.policy.steps[state.step]
        # A pin says who has Production: a candidate may be tried beside it but never in its place.
        if self.model.pinned and step.weight >= 100:
            self.waits = "Production is pinned, and the next step would take all its traffic"
            return
        self.state = replace(
            state,
            phase="Progressing",
            step=state.step + 1,
            weight=step.weight,
            step_at=self.now,
            look_at=self.now,
            look=None,
        )
        self.actions.append(
            Event(
                "RolloutAdvanced", f"version {state.candidate} has {step.weight} % at step {state.step + 1}"
            )
        )

    def _finish(self, reason: str) -> None:
        """The candidate becomes stable: roles swap, no pod is touched."""
        state = self.state
        assert state.candidate is not None
        outcome = Outcome(state.candidate, True, reason, state.stable)
        done = self._retire(self._without_candidate(), state.stable)
        self.state = replace(
            done,
            phase="Stable",
            stable=state.candidate,
            judged=max(state.judged, state.candidate),
            outcome=outcome,
            judgements=state.judgements,
        )
        self.actions.append(Promote(outcome.version, reason))
        self.actions.append(
            Event("RolloutSucceeded", f"version {outcome.version} serves all requests: {reason}")
        )

    def _reject(self, reason: str) -> None:
        state = self.state
        assert state.candidate is not None
        self.state = replace(
            self._retire(self._without_candidate(), state.candidate),
            phase="RolledBack",
            judged=max(state.judged, state.candidate),
            outcome=Outcome(state.candidate, False, reason, state.stable),
            judgements=state.judgements,
        )
        self.actions.append(Reject(state.candidate, reason))
        self.actions.append(
            Event("RolledBack", f"version {state.candidate} has no more traffic: {reason}", True)
        )

    # helpers

    def _serves(self, version: int) -> bool:
        return self.observed.pods.get(version, Health()).ready > 0

    def _ready(self, version: int) -> bool:
        return self.observed.pods.get(version, Health()).ready >= max(self.policy.replicas, 1)

    def _why(self, version: int) -> str:
        pods = self.observed.pods.get(version, Health())
        why = pods.failure or pods.waiting
        return f": {why}" if why else ""

    def _without_candidate(self) -> State:
        return replace(
            self.state,
            candidate=None,
            weight=0,
            step=0,
            started_at=None,
            step_at=None,
            look_at=None,
            look=None,
            failures=0,
            ledger=None,
        )

    def _retire(self, state: State, version: int | None) -> State:
        if version is None:
            return state
        kept = tuple(entry for entry in state.retiring if entry[0] != version)
        return replace(state, retiring=(*kept, (version, self.now)))

    def _without_retiring(self, version: int) -> State:
        return replace(self.state, retiring=tuple(e for e in self.state.retiring if e[0] != version))

    def decision(self) -> Decision:
        """What has come out."""
        state = self.state
        serving = {state.stable, state.candidate, self.incoming}
        kept = tuple(
            (version, since)
            for version, since in state.retiring
            if version not in serving and self.now - since < self.policy.retain
        )
        state = replace(state, retiring=kept)
        stable_ready = state.stable is not None and self._serves(state.stable)
        state = replace(state, phase=self._phase(state, stable_ready))
        objects = {version: self.policy.replicas for version in serving if version is not None}
        for version, _ in kept:
            # A rejected one is kept for inspection only; the old stable one at its size, for a way back.
            objects[version] = 1 if version in self.model.rejected else self.policy.replicas
        return Decision(
            state, tuple(self._unique()), self._conditions(state, stable_ready), objects, self._again(state)
        )

    def _phase(self, state: State, stable_ready: bool) -> str:
        if state.candidate is None:
            if state.phase == "RolledBack":
                return state.phase
            return "Stable" if stable_ready else "Pending"
        if self.waits == "paused":
            return "Paused"
        if "modelyard.dev/approve" in self.waits:
            return "AwaitingApproval"
        return "Holding" if self.waits and state.look is Verdict.HOLD else "Progressing"

    def _unique(self) -> list[Action]:
        return list(dict.fromkeys(self.actions))

    def _again(self, state: State) -> timedelta | None:
        times = [since + self.policy.retain for _, since in state.retiring]
        if state.candidate is not None:
            times.append((state.look_at or self.now) + self.policy.interval)
            if state.started_at is not None and self.policy.deadline is not None:
                times.append(state.started_at + self.policy.deadline)
        return max(min(times) - self.now, timedelta(seconds=1)) if times else None

    def _conditions(self, state: State, stable_ready: bool) -> tuple[Said, ...]:
        said = []
        if state.stable is None:
            said.append(
                Said("Ready", False, "NoVersion", self.waits or "the Model has no version in Production")
            )
        elif not stable_ready:
            message = f"version {state.stable} is not ready{self._why(state.stable)}"
            said.append(Said("Ready", False, "Loading", message))
        elif self.incoming is not None or (self.waits and state.candidate is None):
            said.append(Said("Ready", True, "Loading", self.waits))
        else:
            said.append(Said("Ready", True, "Serving", f"version {state.stable} serves"))
        if self.policy.shadow:
            message = "spec.rollout.shadow is not supported yet: remove it, and rollouts start"
            said.append(Said("Progressing", False, "ShadowNotSupported", message))
        elif state.candidate is not None:
            held = self.waits
            reason = "Paused" if held == "paused" else "Holding" if held else "Advancing"
            said.append(Said("Progressing", not held, reason, held))
            said.append(Said("Holding", bool(held), self._hold_reason(state, held), held))
        elif state.phase == "RolledBack":
            said.append(Said("Progressing", False, "RolledBack", f"version {state.judged} was rejected"))
        else:
            said.append(Said("Progressing", False, "NoCandidate", ""))
        if state.candidate is None:
            said.append(Said("Holding", False, "Reconciled", ""))
        if self.observed.unreachable and state.candidate is not None:
            said.append(Said("MetricsAvailable", False, "PrometheusUnreachable", self.observed.unreachable))
        else:
            said.append(Said("MetricsAvailable", True, "Reconciled", ""))
        return tuple(said)

    def _hold_reason(self, state: State, held: str) -> str:
        candidate = state.candidate
        if not held:
            return "Reconciled"
        if held == "paused":
            return "Paused"
        if "modelyard.dev/approve" in held:
            return "AwaitingApproval"
        if candidate is not None and not self._ready(candidate):
            return "Loading"
        if self.observed.unreachable:
            return "PrometheusUnreachable"
        if state.look is Verdict.HOLD:
            return (
                "NoData"
                if "no data" in held
                else "TooFewRequests"
                if "of at least" in held
                else "Inconclusive"
            )
        return "Pending"
