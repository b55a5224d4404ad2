"""One step of a run's life: ``decide(frozen, run_spec, status, observed, now)``.

The caller does two things with a :class:`~modelyard.pipelines.actions.Decision`, in this order: it writes
the status, guarded by the ``resourceVersion`` it was read with, and then it carries out the actions.  So an
operator whose view is out of date does nothing, and one that is killed between the two repeats: every
action can be told again from the status that asked for it.  An attempt that status speaks of and that has
no Job yet gets one; a Job that should not be there is deleted as long as it is there; a model is registered
until there is a version.  Events alone may be lost.

*Publication* is the status write that makes a step Succeeded and names the attempt.  Nothing is read of an attempt
after that, nor after it was counted as failed: its late success changes nothing.

A Job is the attempt: its name follows from run, step and number, so that creating it twice is creating it
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any

from modelyard.api.names import child_name
from modelyard.api.pipelinerun import RunPhase, StepPhase
from modelyard.api.reasons import EventReason
from modelyard.pipelines import cache, ir
from modelyard.pipelines.actions import Action, CreateJob, Decision, DeleteJob, Event, Register, Remember
from modelyard.pipelines.compile import Dumps, as_document
from modelyard.pipelines.freeze import Frozen
from modelyard.pipelines.observe import Observed, ObservedJob
from modelyard.pipelines.outcome import TIMEOUT_GRACE, Expectations, Kind, Outcome, judge
from modelyard.pipelines.resolve import ResolveError, publish, resolve
from modelyard.pipelines.status import Attempt, StepState, condition, read_steps, rfc3339

__all__ = [
    "Action",
    "CreateJob",
    "Decision",
    "DeleteJob",
    "Event",
    "Register",
    "Remember",
    "decide",
    "expectations",
    "job_name",
]

#: How often a step may be lost to the infrastructure.
INFRASTRUCTURE_BUDGET = 5
#: How long a container may be unable to start, for want of its image or a Secret.
START_LIMIT = timedelta(minutes=10)
#: How long a Job that was there must be missing before it counts as lost; the view may be out of date.
MISSING_GRACE = timedelta(seconds=15)

#: An Indexed Job's pods are called after it and their index, and must be host names.
MAX_JOB_NAME = 57

_MISSING = "JobMissing"


def job_name(run: str, task: str, attempt: int) -> str:
    """The name of the Job that is this attempt."""
    return child_name(run, task, attempt, limit=MAX_JOB_NAME)


def expectations(frozen: Frozen, task: str) -> Expectations:
    """What is known of a task's attempts before there is one."""
    label = ir.executor_label(frozen.ir, task)
    options = ir.options(frozen.platforms, "modelyard", label)
    kubernetes = ir.options(frozen.platforms, "kubernetes", label)
    timeout = options.get("timeoutSeconds") or kubernetes.get("activeDeadlineSeconds")
    parameters, artifacts = ir.outputs(frozen.ir, task)
    container = ir.container(frozen.ir, task)
    return Expectations(
        built_in=bool(options.get("component")),
        wants_manifest=bool(options.get("component") or parameters or artifacts),
        timeout=int(timeout) if timeout else None,
        workers=int(options.get("workers") or 1),
        memory_limit=ir.resources(container.get("resources") or {}).get("limits", {}).get("memory", ""),
        image=frozen.image(task),
    )


def decide(
    frozen: Frozen,
    run_spec: Mapping[str, Any] | Dumps,
    status: Mapping[str, Any],
    observed: Observed,
    now: datetime,
) -> Decision:
    """What a run in this state, in this world, needs next.  Pure: the same arguments give the same decision."""
    return _Run(frozen, as_document(run_spec), status, observed, now.replace(microsecond=0)).decide()


class _Run:
    """One decision about one run."""

    def __init__(
        self,
        frozen: Frozen,
        spec: Mapping[str, Any],
        status: Mapping[str, Any],
        observed: Observed,
        now: datetime,
    ) -> None:
        self.frozen, self.spec, self.before, self.observed, self.now = frozen, spec, status, observed, now
        tasks = ir.tasks(frozen.ir)
        self.upstream = {name: ir.dependencies(task) for name, task in tasks.items()}
        self.order = list(TopologicalSorter({name: sorted(up) for name, up in self.upstream.items()}).static_order())
        self.steps = read_steps(status, tasks)
        self.actions: list[Action] = []
        self.lookups: list[str] = []
        self.wake: list[datetime] = []
        self.phase = RunPhase(status.get("phase") or "Pending")
        self.reason = self.message = ""
        self.started: str = status.get("startedAt") or rfc3339(now)
        self.config = ir.config(frozen.platforms)

    def decide(self) -> Decision:
        if self.phase.finished:
            self._clean_up()
            return Decision(tuple(self.actions), dict(self.before))
        if not self.before.get("startedAt"):
            self._event("Normal", EventReason.RUN_STARTED, f"{len(self.steps)} steps, as of "
                        f"{self.frozen.document['asOf']}")  # fmt: skip
        if self.spec.get("cancel"):
            return self._stop(RunPhase.CANCELLED, "Cancelled", "cancelled", EventReason.RUN_CANCELLED)
        for name in self.order:
            self._observe(self.steps[name])
        if self._timed_out():
            message = f"took longer than its timeout of {self.config['timeoutSeconds']} s"
            return self._stop(RunPhase.FAILED, "TimedOut", message, EventReason.RUN_FAILED)
        for name in self.order:
            self._start(self.steps[name])
        self._clean_up()
        self._sum_up()
        return self._decision()

    # what became of what was started ------------------------------------------------------------------------

    def _observe(self, step: StepState) -> None:
        attempt = step.current
        if attempt is None or step.phase.finished:
            return
        name = job_name(self.frozen.run, step.name, attempt.number)
        job = self.observed.jobs.get(name)
        if job is None:
            self._unseen(step, attempt, name)
            return
        if step.reason == _MISSING:
            step.retry_at, step.reason, step.message = None, "", ""
        attempt.job = name
        expected = expectations(self.frozen, step.name)
        outcome = judge(job, expected, self.now)
        attempt.pod = outcome.pod or attempt.pod
        attempt.exit_code = next((p.exit_code for p in job.pods if p.exit_code is not None), None)
        if outcome.kind is Kind.SUCCEEDED:
            self._publish(step, attempt, outcome)
        elif outcome.kind in (Kind.APPLICATION, Kind.REFUSED, Kind.INFRASTRUCTURE):
            self._failed(step, attempt, outcome)
        elif outcome.kind is Kind.BLOCKED:
            self._blocked(step, attempt, outcome, job)
        else:
            if outcome.kind is Kind.UNSCHEDULABLE and step.reason != "Unschedulable":
                self._event("Warning", "Unschedulable", f"step {step.name}: {outcome.message}")
            step.phase = StepPhase.RUNNING if outcome.kind is Kind.RUNNING else StepPhase.PENDING
            step.reason, step.message = outcome.reason, outcome.message
            begun = [pod.started_at for pod in job.pods if pod.started_at]
            if expected.timeout and begun:
                self.wake.append(min(begun) + timedelta(seconds=expected.timeout) + TIMEOUT_GRACE)

    def _unseen(self, step: StepState, attempt: Attempt, name: str) -> None:
        """There is no Job for the attempt: it was not made yet, or it is gone."""
        if attempt.job:
            if step.reason != _MISSING or step.retry_at is None:
                step.reason, step.message = _MISSING, f"Job {name} is not there"
                step.retry_at = self.now + MISSING_GRACE
            if self.now < step.retry_at:
                self.wake.append(step.retry_at)
                return
            step.retry_at = None
            self._failed(step, attempt, Outcome(Kind.INFRASTRUCTURE, "JobDeleted", f"Job {name} is gone"))
            return
        if self._failing() is not None:
            # It may have been made a moment ago: deleting what is not there does no harm.
            attempt.finished = self.now
            self.actions.append(DeleteJob(name))
            step.end(StepPhase.SKIPPED, self.now, "RunFailed", "not started: the run failed before")
        elif name in self.observed.refused:
            attempt.finished, attempt.reason = self.now, "JobRefused"
            self._fail(step, "JobRefused", self.observed.refused[name])
        elif not self.spec.get("suspend"):
            try:
                resolved = resolve(self.frozen, step.name, self._published())
            except ResolveError as error:
                # It could be resolved when the attempt was decided on; only a damaged status comes here.
                attempt.finished, attempt.reason = self.now, "InvalidArguments"
                self._fail(step, "InvalidArguments", str(error))
                return
            self.actions.append(CreateJob(step.name, attempt.number, name, resolved))

    def _publish(self, step: StepState, attempt: Attempt, outcome: Outcome) -> None:
        assert outcome.manifest is not None
        try:
            outputs = publish(self.frozen, step.name, attempt.number, outcome.manifest)
        except ResolveError as error:
            self._failed(step, attempt, Outcome(Kind.APPLICATION, "InvalidOutputs", str(error), outcome.pod))
            return
        attempt.finished = self.now
        step.outputs, step.published_attempt = outputs, attempt.number
        step.end(StepPhase.SUCCEEDED, self.now)
        self._event("Normal", EventReason.STEP_SUCCEEDED, f"step {step.name} succeeded")
        if step.cache_key and cache.enabled(self.frozen, step.name):
            self.actions.append(Remember(step.name, step.cache_key, outputs))

    def _failed(self, step: StepState, attempt: Attempt, outcome: Outcome) -> None:
        """Count the attempt, and decide whether there is another."""
        attempt.finished, attempt.reason, attempt.message = self.now, outcome.reason, outcome.message
        attempt.infrastructure = lost = outcome.kind is Kind.INFRASTRUCTURE
        attempt.pod = outcome.pod or attempt.pod
        policy = ir.tasks(self.frozen.ir)[step.name].get("retryPolicy") or {}
        failures = step.failures(lost)
        limit = INFRASTRUCTURE_BUDGET if lost else int(policy.get("maxRetryCount") or 0)
        said = f"attempt {attempt.number}: {outcome.message or outcome.reason}"
        if outcome.kind is Kind.REFUSED or failures > limit or self._failing() is not None:
            self._fail(step, outcome.reason, said)
            return
        wait = min(300.0, 10 * 2.0 ** (failures - 1)) if lost else _backoff(policy, failures)
        step.phase, step.retry_at = StepPhase.RETRYING, self.now + timedelta(seconds=wait)
        step.reason, step.message = outcome.reason, f"{said}; tries again"
        event = EventReason.STEP_LOST if lost else EventReason.STEP_RETRIED
        self._event("Warning", event, f"step {step.name}, {said}; attempt {attempt.number + 1} in {wait:g} s")

    def _fail(self, step: StepState, reason: str, message: str) -> None:
        step.end(StepPhase.FAILED, self.now, reason, message)
        self._event("Warning", EventReason.STEP_FAILED, f"step {step.name}, {reason}: {message}")

    def _blocked(self, step: StepState, attempt: Attempt, outcome: Outcome, job: ObservedJob) -> None:
        """A container that cannot start is worth waiting for (a registry that is down), but not for ever."""
        begun = [pod.started_at for pod in job.pods if pod.started_at] + [attempt.started or self.now]
        limit = max(begun) + START_LIMIT
        waiting = next((pod.waiting_reason for pod in job.pods if pod.waiting_reason), "")
        if self.now >= limit or waiting == "InvalidImageName":
            attempt.finished, attempt.reason, attempt.message = self.now, outcome.reason, outcome.message
            self._fail(step, outcome.reason, outcome.message)
            return
        if step.reason != outcome.reason:
            self._event("Warning", outcome.reason, f"step {step.name}: {outcome.message}")
        step.phase, step.reason, step.message = StepPhase.PENDING, outcome.reason, outcome.message
        self.wake.append(limit)

    # what can start -----------------------------------------------------------------------------------------

    def _start(self, step: StepState) -> None:
        if step.phase.finished or step.current is not None:
            return
        failing = self._failing()
        if failing is not None:
            # A step that waits for its next attempt has failed; one that never began is left out.
            if step.attempts:
                self._fail(step, step.reason, step.message.removesuffix("; tries again"))
            else:
                step.end(StepPhase.SKIPPED, self.now, "RunFailed", f"not started: step {failing} failed")
            return
        phases = [self.steps[name].phase for name in sorted(self.upstream[step.name])]
        if any(phase in (StepPhase.SKIPPED, StepPhase.CANCELLED) for phase in phases):
            skipped = next(n for n in sorted(self.upstream[step.name]) if self.steps[n].phase.finished
                           and self.steps[n].phase is not StepPhase.SUCCEEDED)  # fmt: skip
            self._skip(step, "UpstreamSkipped", f"step {skipped} was skipped")
        elif all(phase is StepPhase.SUCCEEDED for phase in phases):
            if self.spec.get("suspend"):
                return
            if step.retry_at is not None and self.now < step.retry_at:
                self.wake.append(step.retry_at)
                return
            self._ready(step)

    def _ready(self, step: StepState) -> None:
        try:
            resolved = resolve(self.frozen, step.name, self._published())
        except ResolveError as error:
            self._fail(step, "InvalidArguments", str(error))
            return
        if not resolved.runs:
            self._skip(step, "ConditionFalse", "its condition is false")
            return
        if not step.attempts:
            key = cache.cache_key(self.frozen, step.name, resolved)
            step.cache_key = key or ""
            if key and self._reuse(step, key):
                return
        former = [self._job(step, attempt.number) for attempt in step.attempts]
        if any(job is not None and job.active for job in former):
            step.message = "waits for its former attempt to end"
            return
        active = sum(1 for other in self.steps.values() if other.current and not other.phase.finished)
        if active >= int(self.config.get("parallelism") or 8):
            step.reason, step.message = "Parallelism", f"waits: {active} steps run at once already"
            return
        attempt = Attempt(len(step.attempts) + 1, started=self.now)
        step.attempts.append(attempt)
        step.phase, step.retry_at, step.reason, step.message = StepPhase.PENDING, None, "", ""
        step.started = step.started or self.now
        name = job_name(self.frozen.run, step.name, attempt.number)
        if name in self.observed.jobs:
            attempt.job = name
        else:
            self.actions.append(CreateJob(step.name, attempt.number, name, resolved))
        self._event("Normal", EventReason.STEP_STARTED, f"step {step.name}, attempt {attempt.number}")

    def _reuse(self, step: StepState, key: str) -> bool:
        """Take what was published under the key before; also true while it is still to be looked up."""
        found = self.observed.resume.get(step.name) if self.spec.get("resumeFrom") else None
        if found is None or found.key != key:
            found = None
            if cache.enabled(self.frozen, step.name):
                if key not in self.observed.cache:
                    self.lookups.append(key)
                    return True
                found = self.observed.cache[key]
                if found is not None and not cache.fresh(self.frozen, step.name, found, self.now):
                    found = None
        if found is None:
            return False
        step.outputs, step.cached, step.cached_from = found.outputs, True, found.run
        step.started = self.now
        step.end(StepPhase.SUCCEEDED, self.now, "Cached", f"taken from step {found.task} of run {found.run}")
        self._event("Normal", EventReason.STEP_CACHED, f"step {step.name}: {step.message}")
        return True

    def _skip(self, step: StepState, reason: str, message: str) -> None:
        step.end(StepPhase.SKIPPED, self.now, reason, message)
        self._event("Normal", EventReason.STEP_SKIPPED, f"step {step.name} is skipped: {message}")

    # the run as a whole -------------------------------------------------------------------------------------

    def _timed_out(self) -> bool:
        limit = self.config.get("timeoutSeconds")
        if not limit:
            return False
        ends = datetime.fromisoformat(self.started.replace("Z", "+00:00")) + timedelta(seconds=int(limit))
        self.wake.append(ends)
        return self.now >= ends and not all(step.phase.finished for step in self.steps.values())

    def _stop(self, phase: RunPhase, reason: str, message: str, event: str) -> Decision:
        """End the run now; what runs is deleted, and nothing of it is published."""
        for step in self.steps.values():
            if not step.phase.finished:
                if attempt := step.current:
                    attempt.finished, attempt.reason = self.now, reason
                step.end(StepPhase.CANCELLED, self.now, reason, f"the run was stopped: {message}")
        self._clean_up()
        self.phase, self.reason, self.message = phase, reason, message
        self._event("Normal" if phase is RunPhase.CANCELLED else "Warning", event, message)
        return self._decision()

    def _clean_up(self) -> None:
        """Delete Jobs that still run and that nobody waits for: those of attempts that have ended otherwise.

        This looks at what is there and not at what was just decided, so it is repeated until they are gone.
        """
        planned = {action.name for action in self.actions if isinstance(action, DeleteJob)}
        for step in self.steps.values():
            for attempt in step.attempts:
                job = self._job(step, attempt.number)
                over = attempt.finished is not None and attempt.number != step.published_attempt
                if job is not None and over and job.active and not job.deleted and job.name not in planned:
                    self.actions.append(DeleteJob(job.name))

    def _sum_up(self) -> None:
        steps = list(self.steps.values())
        waiting = [step for step in steps if not step.phase.finished and step.message]
        if not all(step.phase.finished for step in steps):
            begun = any(step.attempts or step.phase.finished for step in steps)
            self.phase = RunPhase.RUNNING if begun else RunPhase.PENDING
            if self.spec.get("suspend"):
                self.phase = RunPhase.SUSPENDED
            if self.phase is not RunPhase(self.before.get("phase") or "Pending"):
                if self.phase is RunPhase.SUSPENDED:
                    self._event("Normal", EventReason.RUN_SUSPENDED, "no further step is started")
                elif self.before.get("phase") == RunPhase.SUSPENDED:
                    self._event("Normal", EventReason.RUN_RESUMED, "steps are started again")
            self.reason = str(self.phase)
            urgent = [s for s in waiting if s.reason in ("Unschedulable", "ImagePullFailed") or "Create" in s.reason]
            if urgent and self.phase is not RunPhase.SUSPENDED:
                self.reason = urgent[0].reason
            first = urgent or waiting
            self.message = f"step {first[0].name}: {first[0].message}" if first else ""
            return
        failed = [step for step in steps if step.phase is StepPhase.FAILED]
        if failed:
            first_failure = min(failed, key=lambda step: (step.finished or self.now, step.name))
            self.phase, self.reason = RunPhase.FAILED, "Failed"
            self.message = f"step {first_failure.name}, {first_failure.reason}: {first_failure.message}"
            self._event("Warning", EventReason.RUN_FAILED, self.message)
        elif not self._registered():
            return
        else:
            self.phase, self.reason, self.message = RunPhase.SUCCEEDED, "Succeeded", ""
            self._event("Normal", EventReason.RUN_SUCCEEDED, f"{len(steps)} steps")

    def _registered(self) -> bool:
        """Whether there is nothing to register, or it has been.  Asked last: a run that fails registers nothing."""
        for name, step in self.steps.items():
            label = ir.executor_label(self.frozen.ir, name)
            if ir.options(self.frozen.platforms, "modelyard", label).get("component") != "register":
                continue
            if step.phase is not StepPhase.SUCCEEDED or self.observed.model_version:
                continue
            self.phase, self.reason, self.message = (
                RunPhase.RUNNING,
                "Registering",
                "the model is being registered",
            )
            if self.observed.register_error:
                self.phase, self.reason = RunPhase.FAILED, "RegistrationRefused"
                self.message = self.observed.register_error
                self._event("Warning", EventReason.RUN_FAILED, self.message)
            else:
                self.actions.append(Register(name, self._registration(step)))
            return False
        return True

    def _registration(self, step: StepState) -> dict[str, Any]:
        document = self.frozen.document
        return {
            "registration": (step.outputs or {}).get("parameters", {}).get("registration"),
            "provenance": {
                "run": self.frozen.run,
                "pipelineDigest": self.frozen.digest,
                "images": sorted({self.frozen.image(name) for name in self.steps}),
                "parameters": document["parameters"],
                "asOf": document["asOf"],
                "seed": document["seed"],
                "code": document["code"],
            },
        }

    def _decision(self) -> Decision:
        done = (StepPhase.SUCCEEDED, StepPhase.SKIPPED)
        steps = list(self.steps.values())
        status = dict(self.before)
        status["phase"] = str(self.phase)
        status["progress"] = f"{sum(1 for step in steps if step.phase in done)}/{len(steps)}"
        status["asOf"], status["startedAt"] = self.frozen.document["asOf"], self.started
        status["steps"] = [step.to_dict() for step in steps]
        if self.observed.model_version:
            status["modelVersion"] = self.observed.model_version
        if self.phase.finished:
            status.setdefault("finishedAt", rfc3339(self.now))
        for key, value in (("reason", self.reason), ("message", self.message)):
            status.pop(key, None)
            if value:
                status[key] = value
        ready = "True" if self.phase is RunPhase.SUCCEEDED else "False"
        conditions = list(self.before.get("conditions") or [])
        others = [item for item in conditions if item.get("type") != "Ready"]
        reason = self.reason or str(self.phase)
        status["conditions"] = [
            *others,
            condition(conditions, "Ready", ready, reason, self.message, self.now),
        ]
        wait = None
        if self.wake and not self.phase.finished:
            wait = max(0.0, (min(self.wake) - self.now).total_seconds())
        return Decision(tuple(self.actions), status, 0.0 if self.lookups else wait, tuple(self.lookups))

    def _failing(self) -> str | None:
        return next((n for n in self.order if self.steps[n].phase is StepPhase.FAILED), None)

    def _published(self) -> dict[str, Mapping[str, Any]]:
        return {n: s.outputs for n, s in self.steps.items() if s.phase is StepPhase.SUCCEEDED and s.outputs is not None}

    def _job(self, step: StepState, attempt: int) -> ObservedJob | None:
        return self.observed.jobs.get(job_name(self.frozen.run, step.name, attempt))

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.actions.append(Event(kind, str(reason), message))


def _backoff(policy: Mapping[str, Any], failures: int) -> float:
    """Seconds before the next attempt after so many failures of the application."""
    base = float(str(policy.get("backoffDuration") or "10s").removesuffix("s"))
    most = float(str(policy.get("backoffMaxDuration") or "3600s").removesuffix("s"))
    # The exponent is bounded, since floats are: 2.0 ** 1024 is an error.
    return float(min(most, base * float(policy.get("backoffFactor") or 2) ** min(failures - 1, 64)))
