"""The cluster with the chart on it, once for all end-to-end tests."""

from __future__ import annotations

import os

import pytest

from tests.cluster import Cluster
from tests.e2e.install import ROOT, Kubectl, install

cluster = Cluster()
# kubectl as the tests of the API call it finds the cluster by this.
os.environ.setdefault("KUBECONFIG", str(cluster.kubeconfig))


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl in the tenant's namespace, with the chart installed and the flights' lake on the volume."""
    tool = install(cluster)
    tool("delete", "modelyard,jobs", "--all", "--wait=true")
    # Cache records outlive runs: on a cluster that was used before, nothing would be left to be killed in the middle.
    tool("delete", "configmaps", "-l", "app.kubernetes.io/component=cache")
    tool.apply(ROOT / "manifests" / "flights" / "data.yaml")
    tool("wait", "--for=condition=Complete", "job/flights-data", "--timeout=180s")
    return tool
