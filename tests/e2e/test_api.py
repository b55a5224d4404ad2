"""A real API server takes every example and refuses what must be refused, with the same words as the models.

Nothing is kept: all is done as a server-side dry run, in a namespace that is taken away again.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.api import KINDS, Resource
from tests.unit.api.cases import Object, Refused, examples, refused

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[2] / "crds"


def kubectl(*arguments: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
    text = json.dumps(given) if given is not None else None
    return subprocess.run(
        ["kubectl", *arguments], input=text, env=dict(os.environ), capture_output=True, text=True, check=False
    )


def apply(namespace: str, document: Object, *more: str) -> subprocess.CompletedProcess[str]:
    return kubectl("apply", "-n", namespace, "-f", "-", *more, given=document)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    for kind in KINDS:
        path = str(CRDS / f"{kind.plural}.yaml")
        done = kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=modelyard-crds", "-f", path)
        assert done.returncode == 0, done.stderr
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    name = f"api-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def label(case: Object | Refused) -> str:
    return case.name if isinstance(case, Refused) else f"{case['kind']}/{case['metadata']['name']}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_crd_is_small_enough_for_client_side_apply(kind: type[Resource]) -> None:
    done = kubectl("apply", "--dry-run=server", "-f", str(CRDS / f"{kind.plural}.yaml"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", examples(), ids=label)
def test_examples_are_taken(namespace: str, example: Object) -> None:
    done = apply(namespace, example, "--dry-run=server")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", [c for c in refused() if c.before is None], ids=label)
def test_refused(namespace: str, case: Refused) -> None:
    done = apply(namespace, case.object, "--dry-run=server")
    assert done.returncode != 0, done.stdout
    assert case.says in done.stderr


@pytest.mark.parametrize("case", [c for c in refused() if c.before is not None], ids=label)
def test_changes_refused(namespace: str, case: Refused) -> None:
    assert case.before is not None
    assert apply(namespace, case.before).returncode == 0
    done = apply(namespace, case.object, "--dry-run=server")
    assert done.returncode != 0, done.stdout
    assert case.says in done.stderr


@pytest.mark.parametrize("example", examples(), ids=label)
def test_diff_after_an_apply_is_empty(namespace: str, example: Object) -> None:
    document = {key: value for key, value in example.items() if key != "status"}
    done = apply(namespace, document)
    assert done.returncode == 0, done.stderr
    difference = kubectl("diff", "-n", namespace, "-f", "-", given=document)
    assert difference.returncode == 0, difference.stdout + difference.stderr


def test_what_may_change_may_change(namespace: str) -> None:
    by_kind = {e["kind"]: e for e in reversed(examples())}
    version, run = by_kind["ModelVersion"], by_kind["PipelineRun"]
    for document, changes in (
        (version, {"description": "another", "tags": {"a": "b"}}),
        (run, {"suspend": True}),
        (run, {"suspend": True, "cancel": True}),
    ):
        assert apply(namespace, document).returncode == 0
        done = apply(namespace, {**document, "spec": {**document["spec"], **changes}})
        assert done.returncode == 0, done.stderr
    back = apply(namespace, run)
    assert back.returncode != 0
    assert "cancel cannot be taken back" in back.stderr
