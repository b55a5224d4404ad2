"""A run in a hostile world: pods are lost, programs fail, the operator is killed and sees yesterday's Jobs.

Whatever happens: the run ends; a step that was published never runs again and never changes; what is published is
what a succeeded attempt wrote; there is at most one Job for an attempt (``World.do`` asserts that).
"""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pipelines.worlds import World, diamond, frozen_of, shell

from modelyard.pipelines.observe import ObservedJob
from modelyard.pipelines.state import job_name

RETRIES = {"retries": {"limit": 3, "backoff": "5s"}}


class Hostile(World):
    """A world that keeps count of what really happened."""

    def __init__(self, dice: random.Random) -> None:
        spec = diamond(
            a=RETRIES, b=RETRIES | {"timeout": "5m"}, c=RETRIES | {"when": "steps.a.outputs.n < 3"},
            parallelism=dice.choice([1, 2, 8]),
        )  # fmt: skip
        spec["steps"].append(shell("lonely", **RETRIES))
        super().__init__(frozen_of(spec))
        self.dice = dice
        self.truth: dict[tuple[str, int], str] = {}
        self.published: dict[str, str] = {}
        self.past: list[dict[str, ObservedJob]] = [{}]

    def happens(self, kinds: str) -> None:
        """Something becomes of a random active attempt."""
        active = [(t, n) for t, n in self.created if (job := self.job(t, n)) and job.active]
        if not active:
            return
        task, attempt = self.dice.choice(active)
        kind = self.dice.choice(kinds.split())
        if kind == "run":
            self.pod(task, attempt, phase="Running")
            return
        if kind == "unpulled":
            self.pod(task, attempt, waiting_reason="ErrImagePull", started_at=self.now)
            return
        if kind == "delete":
            if any(a["number"] == attempt and a.get("job") for a in self.of(task).get("attempts", [])):
                del self.jobs[job_name("r1", task, attempt)]
                self.truth[task, attempt] = "lost"
            return
        self.truth[task, attempt] = kind
        if kind == "ok":
            self.succeed(task, attempt)
        elif kind == "crash":
            # Its manifest is there, and must not be used.
            self.fail(task, attempt, message='{"outputs": {"parameters": {"n": -1}}}')
        elif kind == "evicted":
            self.fail(task, attempt, pod_reason="Evicted", exit_code=None)
        elif kind == "gone":
            name = job_name("r1", task, attempt)
            self.jobs[name] = replace(self.jobs[name], state="Failed", pods=())

    def job(self, task: str, attempt: int) -> ObservedJob | None:
        return self.jobs.get(job_name("r1", task, attempt))

    def operator(self, stale: bool, killed: bool) -> None:
        """The operator decides on what it sees, writes, and does some or all of what it decided."""
        self.past = [*self.past[-4:], dict(self.jobs)]
        seen = self.dice.choice(self.past) if stale else self.jobs
        decision = self.look(seen)
        again = self.look(seen)
        assert again == decision, "the same arguments give the same decision"
        self.status = json.loads(json.dumps(decision.status))
        actions = list(decision.actions)
        for action in actions[: self.dice.randrange(len(actions) + 1) if killed else len(actions)]:
            self.do(action)
        self.check()

    def check(self) -> None:
        before = dict(self.published)
        for step in self.status["steps"]:
            if step["phase"] == "Succeeded":
                number = step["publishedAttempt"]
                assert self.truth[step["name"], number] == "ok"
                assert step["outputs"]["parameters"] == {"n": number}
                self.published[step["name"]] = json.dumps([step["outputs"], step["attempts"]])
            else:
                assert "outputs" not in step
        for name, outputs in before.items():
            assert self.published[name] == outputs, "published once, and not changed"


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_run_ends_and_keeps_its_promises(seed: int, cancels: bool, calm: bool) -> None:
    dice = random.Random(seed)
    w = Hostile(dice)
    cancelled_at = dice.randrange(20) if cancels else None
    for turn in range(dice.randrange(60)):
        w.operator(stale=dice.random() < 0.3, killed=dice.random() < 0.4)
        for _ in range(dice.randrange(3)):
            w.happens("ok run crash evicted gone delete unpulled" if not calm else "ok run evicted gone delete")
        w.now += timedelta(seconds=dice.choice([0, 1, 20, 120]))
        if turn == cancelled_at:
            w.spec = {"cancel": True}
        if dice.random() < 0.05:
            w.spec = {**w.spec, "suspend": dice.random() < 0.5}
    w.spec = {**w.spec, "suspend": False}
    for _ in range(200):
        if w.status.get("phase") in ("Succeeded", "Failed", "Cancelled"):
            break
        w.happens("ok")
        w.now += timedelta(seconds=60)
        w.operator(stale=False, killed=False)
    assert w.status["phase"] in ("Succeeded", "Failed", "Cancelled")
    # Nothing goes on running that nobody waits for, and nothing happens any more.
    w.operator(stale=False, killed=False)
    w.operator(stale=False, killed=False)
    wanted = {job_name("r1", n, s["publishedAttempt"]) for s in w.status["steps"]
              if s["phase"] == "Succeeded" for n in [s["name"]]}  # fmt: skip
    assert not [job for job in w.jobs.values() if job.active and job.name not in wanted]
    final = copy.deepcopy(w.status)
    assert not w.look().actions
    assert w.look().status == final
