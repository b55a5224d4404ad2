"""Last of all: what the chart leaves behind."""

from __future__ import annotations

import pytest

from tests.e2e.install import RELEASE, SYSTEM, TENANT, Kubectl

pytestmark = pytest.mark.e2e


def test_uninstall_leaves_what_it_should(kubectl: Kubectl) -> None:
    """Users' resources, versions and artifacts stay; nothing of the operator does, and nothing is stuck."""
    kubectl.helm("uninstall", RELEASE, "-n", SYSTEM, "--timeout", "2m")
    kubectl.wait(
        "the operator's pods go",
        lambda: not kubectl.cluster.kubectl("-n", SYSTEM, "get", "pods", "-o", "name").strip(),
        120,
    )
    assert kubectl.list("mv"), "a registered version outlives the operator"
    assert kubectl.get("pvc", "modelyard-artifacts")
    kubectl("delete", "modelyard", "--all", "--timeout=60s")
    kubectl.cluster.kubectl("delete", "namespace", TENANT, SYSTEM, "--timeout=120s")
