"""What is undone on the host: the cluster's own, and nothing else."""

from __future__ import annotations

from tests.cluster.host import missing_packages, mounts_below, without_chains

SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-0123 - [0:0]
:KUBE-SERVICES - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A POSTROUTING -s 10.201.0.2/32 -m comment --comment "name: \\"modelyard\\"" -j CNI-0123
-A MINE -p tcp -j ACCEPT
-A KUBE-SERVICES -d 10.202.0.1/32 -j KUBE-SVC-X
COMMIT
"""


def test_only_the_clusters_chains_are_dropped() -> None:
    assert without_chains(SAVED) == (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:MINE - [0:0]\n"
        "-A PREROUTING -j MINE\n-A MINE -p tcp -j ACCEPT\nCOMMIT\n"
    )


def test_tables_without_the_clusters_chains_are_left_alone() -> None:
    assert without_chains("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n") is None


def test_mounts_are_found_innermost_first_and_only_below() -> None:
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        "2 1 8:1 / /c/cluster rw - ext4 /dev/a rw",
        "3 2 8:1 / /c/cluster/pod\\040one rw - tmpfs tmpfs rw",
        "4 1 8:1 / /c/cluster-other rw - tmpfs tmpfs rw",
    ]
    assert mounts_below("\n".join(lines), "/c/cluster") == ["/c/cluster/pod one", "/c/cluster"]


def test_only_missing_programs_packages_are_named() -> None:
    assert missing_packages({"sh": "dash", "/": "base-files", "no-such-program-here": "wanted"}) == ["wanted"]
