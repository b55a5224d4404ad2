"""The state machine, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.pipelines.worlds import FLIGHT, NOW, World, diamond, frozen_of, shell

from modelyard.api.pipelinerun import PipelineRunStatus
from modelyard.pipelines import cache
from modelyard.pipelines.observe import Observed, Published, observe_job, observe_pod
from modelyard.pipelines.state import CreateJob, DeleteJob, Register, job_name


def world(spec: dict[str, Any] | None = None, **run: Any) -> World:
    return World(frozen_of(spec or diamond()), run)


def test_steps_run_in_order_and_in_parallel_and_the_run_succeeds() -> None:
    w = world()
    w.step()
    assert w.created == [("a", 1)]
    assert w.status["phase"] == "Running"
    assert w.status["progress"] == "0/4"
    w.succeed("a")
    w.step()
    assert w.created[1:] == [("b", 1), ("c", 1)]
    assert w.status["progress"] == "1/4"
    w.succeed("b")
    w.step()
    assert len(w.created) == 3
    w.succeed("c")
    w.step()
    w.succeed("d")
    w.step()
    assert w.status["phase"] == "Succeeded"
    assert w.status["progress"] == "4/4"
    assert w.status["finishedAt"]
    assert w.of("d")["publishedAttempt"] == 1
    assert w.of("d")["outputs"]["parameters"] == {"n": 1}
    ready = w.status["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "Succeeded")
    PipelineRunStatus.model_validate(w.status)


def test_the_status_is_one_that_the_api_keeps() -> None:
    w = world()
    w.step()
    w.fail("a")
    w.step()
    kept = PipelineRunStatus.model_validate(w.status).model_dump(mode="json", by_alias=True, exclude_none=True)
    for stored, mine in zip(kept["steps"], w.status["steps"], strict=True):
        assert set(mine) <= set(stored), "a field that the API does not know would be pruned"
        for one, other in zip(mine.get("attempts", []), stored.get("attempts", []), strict=True):
            assert set(one) <= set(other)


def test_deciding_twice_on_the_same_world_changes_nothing() -> None:
    w = world()
    w.step()
    before = w.status
    decision = w.step()
    assert not [a for a in decision.actions if isinstance(a, (CreateJob, DeleteJob))]
    assert len(w.created) == 1
    again = w.step()
    assert again.status == decision.status
    assert before["steps"][0]["attempts"][0]["number"] == 1


def test_a_job_that_was_not_made_is_made_and_one_that_exists_is_adopted() -> None:
    w = world()
    w.status = w.look().status  # killed between the write and the action
    decision = w.look()
    assert [a.name for a in decision.actions if isinstance(a, CreateJob)] == [job_name("r1", "a", 1)]
    w.succeed("a")  # and it exists, and has finished already
    w.step()
    assert w.of("a")["phase"] == "Succeeded"
    assert ("a", 1) not in w.created


def test_parallelism_limits_jobs() -> None:
    w = world({"steps": [shell(f"s{i}") for i in range(5)], "parallelism": 2})
    w.step()
    assert len(w.created) == 2
    w.succeed("s0")
    w.step()
    assert len(w.created) == 3
    assert "waits" in w.of("s4")["message"]


def test_application_failures_are_retried_with_backoff_and_then_fail_the_run() -> None:
    w = world(diamond(a={"retries": {"limit": 2, "backoff": "30s", "factor": 2, "max": "10m"}}))
    w.step()
    w.fail("a", message="Traceback\nValueError: no")
    assert w.step().requeue_after is None or True
    assert w.of("a")["phase"] == "Retrying"
    assert "ValueError: no" in w.of("a")["message"]
    assert w.step(29).requeue_after == 1
    assert len(w.created) == 1
    w.step(1)
    assert w.created == [("a", 1), ("a", 2)]
    w.fail("a", 2)
    w.step()
    w.step(59)
    assert len(w.created) == 2
    w.step(1)
    w.fail("a", 3)
    w.step()
    assert w.status["phase"] == "Failed"
    assert "step a" in w.status["message"]
    assert "exit code 1" in w.status["message"]
    assert w.phases() == "a:Failed b:Skipped c:Skipped d:Skipped"
    assert [x.get("infrastructure", False) for x in w.of("a")["attempts"]] == [False] * 3


@pytest.mark.parametrize(
    "lost",
    [
        {"pod_reason": "Evicted", "exit_code": None},
        {"disrupted": "PreemptionByScheduler", "exit_code": 137},
        {"disrupted": "DeletionByTaintManager", "exit_code": 143},
        {"pod_reason": "NodeLost", "exit_code": None},
        {"reason": "ContainerStatusUnknown", "exit_code": 137},
        {"deleted": True, "exit_code": 137},
        {"exit_code": None},
    ],
)
def test_lost_pods_have_their_own_budget_of_five(lost: dict[str, Any]) -> None:
    w = world({"steps": [shell("a")]})
    w.step()
    for attempt in range(1, 7):
        assert w.of("a")["phase"] in ("Pending", "Running")
        w.fail("a", attempt, **lost)
        w.step()
        w.step(400)
    assert w.created == [("a", n) for n in range(1, 7)]
    assert w.status["phase"] == "Failed"
    assert all(item["infrastructure"] for item in w.of("a")["attempts"])


def test_losses_do_not_use_up_retries() -> None:
    w = world({"steps": [shell("a", retries={"limit": 1, "backoff": "1s"})]})
    w.step()
    for attempt in (1, 2):
        w.fail("a", attempt, pod_reason="Evicted", exit_code=None)
        w.step()
        w.step(400)
    w.fail("a", 3)
    w.step()
    assert w.of("a")["phase"] == "Retrying"
    w.step(400)
    w.succeed("a", 4)
    w.step()
    assert w.status["phase"] == "Succeeded"
    assert w.of("a")["outputs"]["parameters"] == {"n": 4}


def test_a_missing_job_is_lost_only_after_a_while() -> None:
    w = world()
    w.step()
    w.pod("a", phase="Running")
    w.step()
    kept = dict(w.jobs)
    w.jobs.clear()
    assert w.step().requeue_after == 15
    assert w.of("a")["reason"] == "JobMissing"
    w.jobs = kept
    w.step()
    assert w.of("a")["phase"] == "Running"
    assert "retryAt" not in w.of("a")
    w.jobs = {}
    w.step()
    w.step(15)
    assert w.of("a")["phase"] == "Retrying"
    assert w.of("a")["attempts"][0]["infrastructure"]


def test_an_attempt_counted_as_lost_is_never_used_and_is_deleted_when_it_reappears() -> None:
    w = world()
    w.step()
    w.pod("a", phase="Running")
    w.step()
    kept = w.jobs.pop(job_name("r1", "a", 1))
    w.step()
    w.step(15)
    w.jobs[kept.name] = kept
    decision = w.step(60)
    assert DeleteJob(kept.name) in decision.actions
    assert len(w.created) == 1, "not both at once"
    w.step()
    assert w.created[-1] == ("a", 2)
    w.succeed("a", 1, value=99)
    w.step()
    assert w.of("a")["phase"] in ("Pending", "Running")
    w.succeed("a", 2)
    w.step()
    assert w.of("a")["outputs"]["parameters"] == {"n": 2}


@pytest.mark.parametrize(
    ("code", "manifest", "reason"),
    [
        (64, '{"error": {"reason": "SchemaViolation", "message": "column temp: no"}}', "SchemaViolation"),
        (65, '{"error": {"reason": "DataUnreadable", "message": "no bucket"}}', "DataUnreadable"),
        (65, "", "DataUnreadable"),
    ],
)
def test_what_a_component_refuses_is_not_retried(code: int, manifest: str, reason: str) -> None:
    w = world({"steps": [{"name": "ingest", "component": "ingest", "retries": {"limit": 5}}], "dataset": {}})
    w.step()
    w.fail("ingest", exit_code=code, message=manifest)
    w.step()
    assert w.of("ingest")["phase"] == "Failed"
    assert w.of("ingest")["reason"] == reason


def test_a_users_64_is_an_exit_code_like_others() -> None:
    w = world({"steps": [shell("a", retries={"limit": 1})]})
    w.step()
    w.fail("a", exit_code=64)
    w.step()
    assert w.of("a")["phase"] == "Retrying"


def test_out_of_memory_says_so() -> None:
    w = world({"steps": [shell("a", resources={"limits": {"memory": "4Gi"}})]})
    w.step()
    w.fail("a", exit_code=137, reason="OOMKilled")
    w.step()
    assert w.of("a")["reason"] == "OOMKilled"
    assert "4Gi" in w.of("a")["message"]
    assert w.status["phase"] == "Failed"


def test_an_image_that_cannot_be_pulled_is_waited_for_ten_minutes() -> None:
    w = world({"steps": [shell("a", retries={"limit": 3})]})
    w.step()
    begun = w.now
    blocked = {"waiting_reason": "ImagePullBackOff", "waiting_message": "no such tag", "waiting_image": "busybox",
               "started_at": begun}  # fmt: skip
    w.pod("a", **blocked)
    assert w.step(60).requeue_after == 540
    assert w.of("a")["phase"] == "Pending"
    assert w.of("a")["message"] == "image busybox cannot be pulled: no such tag"
    assert w.status["conditions"][0]["reason"] == "ImagePullFailed"
    assert w.events.count("ImagePullFailed") == 1
    w.pod("a", phase="Running")
    w.step(5)
    assert w.of("a")["phase"] == "Running"
    assert "reason" not in w.of("a")
    w.pod("a", **blocked)
    w.step(535)
    assert w.of("a")["phase"] == "Failed"
    assert w.status["phase"] == "Failed"
    assert not w.jobs


def test_a_step_without_a_node_says_what_the_scheduler_says() -> None:
    w = world()
    w.step()
    w.pod("a", unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", started_at=None)
    w.step(9999)
    assert w.of("a")["phase"] == "Pending"
    assert "nvidia.com/gpu" in w.of("a")["message"]
    ready = w.status["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "Unschedulable")
    assert "gpu" in ready["message"]


def test_timeouts_by_the_kubelet_and_by_the_engine() -> None:
    w = world({"steps": [shell("a", timeout="1m", retries={"limit": 1})]})
    w.step()
    w.fail("a", pod_reason="DeadlineExceeded", exit_code=None)
    w.step()
    assert w.of("a")["reason"] == "Timeout"
    assert w.of("a")["phase"] == "Retrying"
    w.step(30)
    w.pod("a", 2, phase="Running")
    assert w.step().requeue_after == 90
    w.step(90)
    assert w.of("a")["phase"] == "Failed"
    assert job_name("r1", "a", 2) not in w.jobs


def test_a_false_condition_skips_the_step_and_what_depends_on_it() -> None:
    w = world(diamond(b={"when": "steps.a.outputs.n > 5"}))
    w.step()
    w.succeed("a")
    w.step()
    assert w.phases() == "a:Succeeded b:Skipped c:Pending d:Skipped"
    w.succeed("c")
    w.step()
    assert w.status["phase"] == "Succeeded"
    assert w.status["progress"] == "4/4"


def test_a_condition_that_cannot_be_evaluated_fails_the_step() -> None:
    w = world(diamond(b={"when": "steps.a.outputs.n + 1"}))
    w.step()
    w.succeed("a")
    w.step()
    assert w.of("b")["phase"] == "Failed"
    assert "neither true nor false" in w.of("b")["message"]


def test_when_a_step_fails_its_siblings_finish_and_nothing_new_starts() -> None:
    w = world()
    w.step()
    w.succeed("a")
    w.step()
    w.fail("b")
    w.pod("c", phase="Running")
    w.step()
    assert w.status["phase"] == "Running"
    assert w.of("c")["phase"] == "Running"
    assert w.of("d")["phase"] == "Skipped"
    w.succeed("c")
    w.step()
    assert w.status["phase"] == "Failed"
    assert w.of("c")["phase"] == "Succeeded"
    assert len(w.created) == 3


def test_cancel_deletes_jobs_and_publishes_nothing() -> None:
    w = world()
    w.step()
    w.succeed("a")
    w.step()
    w.succeed("b")
    w.pod("c", phase="Running")
    w.step()
    w.spec = {"cancel": True}
    decision = w.look()
    w.status = decision.status  # and killed before the action
    w.step()
    assert not [job for job in w.jobs.values() if job.active]
    assert w.status["phase"] == "Cancelled"
    assert w.of("c")["phase"] == "Cancelled"
    assert "outputs" not in w.of("c")
    w.succeed("c")
    assert not w.step().actions
    assert "outputs" not in w.of("c")


def test_suspend_starts_nothing_and_keeps_what_runs() -> None:
    w = world(suspend=True)
    w.step()
    assert w.status["phase"] == "Suspended"
    assert not w.created
    w.spec = {}
    w.step()
    w.spec = {"suspend": True}
    w.succeed("a")
    w.step()
    assert w.of("a")["phase"] == "Succeeded"
    assert w.created == [("a", 1)]
    assert w.status["phase"] == "Suspended"
    w.spec = {"suspend": False}
    w.step()
    assert len(w.created) == 3
    assert "RunResumed" in w.events


def test_a_run_has_a_timeout_too() -> None:
    w = world(diamond(timeout="10m"))
    assert w.step().requeue_after == 600
    w.step(600)
    assert w.status["phase"] == "Failed"
    assert w.status["reason"] == "TimedOut"
    assert not w.jobs


def test_a_cached_step_starts_no_pod() -> None:
    w = world()
    key = w.look().status["steps"][0]["cacheKey"]
    old = Published(key, {"parameters": {"n": 7}, "artifacts": {}}, "earlier", "a", NOW)
    w.observed = Observed(cache={key: old})
    w.step()
    assert w.of("a")["cached"]
    assert w.of("a")["cachedFrom"] == "earlier"
    assert w.created == [("b", 1), ("c", 1)]
    assert "attempts" not in w.of("a") or w.of("a")["attempts"] == []


def test_an_old_record_is_no_hit() -> None:
    w = world(diamond(a={"cache": {"enabled": True, "maxAge": "1h"}}))
    key = w.look().status["steps"][0]["cacheKey"]
    record = Published(key, {"parameters": {"n": 7}, "artifacts": {}}, "earlier", "a", NOW - timedelta(hours=2))
    w.observed = Observed(cache={key: record})
    w.step()
    assert w.created == [("a", 1)]


def test_lookups_come_before_starting_and_not_where_caching_is_off() -> None:
    from modelyard.pipelines.state import decide

    on = decide(frozen_of(diamond()), {}, {}, Observed(), NOW)
    assert len(on.lookups) == 1
    assert on.requeue_after == 0
    assert not [a for a in on.actions if isinstance(a, CreateJob)]
    off = decide(frozen_of(diamond(a={"cache": {"enabled": False}})), {}, {}, Observed(), NOW)
    assert not off.lookups
    assert [a for a in off.actions if isinstance(a, CreateJob)]


def test_resume_takes_over_steps_with_equal_keys() -> None:
    w = world(diamond(a={"cache": {"enabled": False}}), resumeFrom="r0")
    key = w.look().status["steps"][0]["cacheKey"]
    taken = Published(key, {"parameters": {"n": 5}, "artifacts": {}}, "r0", "a")
    other = Published("another", {"parameters": {"n": 5}, "artifacts": {}}, "r0", "b")
    w.observed = Observed(resume={"a": taken, "b": other})
    w.step()
    assert w.of("a")["cachedFrom"] == "r0"
    assert ("b", 1) in w.created
    assert ("a", 1) not in w.created


def test_registering_comes_last_and_until_there_is_a_version() -> None:
    w = World(frozen_of(FLIGHT))
    w.observed = Observed()
    for task in ("ingest", "validate", "features", "train", "evaluate", "register"):
        w.step()
        value = 0 if task == "validate" else None
        for name in [t for t, _ in w.created if w.of(t)["phase"] != "Succeeded"]:
            if name == "train":
                text = w.frozen
                from tests.unit.pipelines.worlds import manifest

                from modelyard.pipelines.observe import ObservedPod

                job = job_name("r1", "train", 1)
                pods = tuple(
                    ObservedPod(f"p{i}", "Succeeded", 0, message=manifest(text, "train", 1), index=i) for i in range(4)
                )
                w.jobs[job] = replace(w.jobs[job], state="Complete", pods=pods)
            else:
                w.succeed(name, value=0 if name == "validate" else value)
    for _ in range(4):
        w.step()
        for name, _n in w.created:
            if w.of(name)["phase"] in ("Pending", "Running"):
                w.succeed(name)
    decision = w.step()
    (register,) = [a for a in decision.actions if isinstance(a, Register)]
    assert register.payload["registration"] == {"model": "m"}
    assert register.payload["provenance"]["run"] == "r1"
    assert w.status["phase"] == "Running"
    assert w.status["reason"] == "Registering"
    assert w.status["progress"] == "6/6"
    w.observed = Observed(model_version="flight-delay-7")
    w.step()
    assert w.status["phase"] == "Succeeded"
    assert w.status["modelVersion"] == "flight-delay-7"


def test_a_manifest_is_not_believed() -> None:
    w = world({"steps": [shell("a", outputs={"model": "Model"})]})
    w.step()
    text = '{"outputs": {"artifacts": {"model": {"uri": "file:///artifacts/runs/r0/a/1/model"}}}}'
    w.pod("a", state="Complete", phase="Succeeded", exit_code=0, message=text)
    w.step()
    assert w.of("a")["reason"] == "InvalidOutputs"
    assert w.status["phase"] == "Failed"


def test_cache_records_are_read_as_written() -> None:
    frozen = frozen_of(diamond())
    record = cache.build_record(frozen, "a", "k" * 64, {"parameters": {"n": 1}}, NOW)
    read = cache.parse_record(record, "k" * 64)
    assert read is not None
    assert read.outputs == {"parameters": {"n": 1}}
    assert read.created_at == NOW
    assert cache.parse_record(record, "other") is None
    assert cache.parse_record({}, "k") is None
    assert "ownerReferences" not in record["metadata"]


def test_a_job_that_the_api_server_refuses_fails_the_step() -> None:
    w = world()
    w.status = w.look().status
    w.observed = Observed(refused={job_name("r1", "a", 1): "exceeded quota: no pods allowed"})
    w.step()
    assert w.of("a")["reason"] == "JobRefused"
    assert "quota" in w.status["message"]
    assert w.status["phase"] == "Failed"


def test_pods_are_read_as_kubernetes_has_them() -> None:
    ended = {"terminated": {"exitCode": 0, "message": "log"}}
    published = {"terminated": {"exitCode": 0, "message": "{}"}}
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-completion-index": "3"}},
        "spec": {"containers": [{"name": "main", "image": "busybox"}, {"name": "publisher", "image": "runtime"}]},
        "status": {
            "phase": "Succeeded",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}],
            "containerStatuses": [{"name": "main", "state": ended}, {"name": "publisher", "state": published}],
        },
    }
    read = observe_pod(pod)
    assert (read.message, read.exit_code, read.index, read.started_at) == ("{}", 0, 3, NOW)
    assert read.disrupted == "EvictionByEvictionAPI"
    pod["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 2, "message": "Traceback"}}
    assert (observe_pod(pod).message, observe_pod(pod).exit_code) == ("Traceback", 2)
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "ErrImagePull", "message": "404"}}
    assert (observe_pod(pod).waiting_reason, observe_pod(pod).waiting_image) == ("ErrImagePull", "busybox")
    job = {"metadata": {"name": "j"}, "status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}
    assert observe_job(job, [pod]).active
    job["status"]["conditions"].append({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"})  # type: ignore[index]
    assert (observe_job(job, []).state, observe_job(job, []).reason) == ("Failed", "BackoffLimitExceeded")
