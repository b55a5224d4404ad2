"""The node's programs: one Go binary, built once per content of its sources."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from .paths import HERE, Paths
from .shell import ClusterError, locked, run, say

SOURCES = ("go.mod", "go.sum", "main.go", "agent.go", "pause/main.go")
NAMES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "etcd",
    "coredns",
    "helm",
    "node-agent",
)
KUBERNETES = "1.34.4"


def version_flags(version: str) -> str:
    """The linker flags that tell the programs which release of Kubernetes they are."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = [f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]
    return " ".join(["-s", "-w", *stamps])


def source_hash(directory: Path) -> str:
    """A name for the binary that changes when its sources or flags do."""
    digest = hashlib.sha256(version_flags(KUBERNETES).encode())
    for name in SOURCES:
        content = (directory / name).read_bytes()
        digest.update(f"{name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def ensure_programs(paths: Paths) -> Path:
    """Builds the binary if it is not cached; returns its directory, with a link for every name."""
    source = HERE / "node"
    directory = paths.programs / source_hash(source)
    with locked(paths.root / "programs.lock"):
        if not (directory / "done").exists():
            _compile(source, directory)
            _forget_others(directory)
            (directory / "done").touch()
    return directory


def link_programs(directory: Path, paths: Paths) -> None:
    """Makes `kubectl`, `helm` and the rest available in the cluster's own bin directory."""
    paths.bin.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        target = paths.bin / name
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(directory / "node")
        fresh.replace(target)


def _compile(source: Path, directory: Path) -> None:
    if not shutil.which("go"):
        raise ClusterError("Go is needed to build the local cluster's programs: install Go 1.21 or newer")
    directory.mkdir(parents=True, exist_ok=True)
    # The tidy module files are the contract: nothing of the person's own Go settings may alter them.
    env = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    nice = ["nice"] if shutil.which("nice") else []
    say(f"building Kubernetes {KUBERNETES}, etcd, CoreDNS and Helm (once; 5 to 9 minutes on 2 cores)")
    build = [*nice, "go", "build", "-trimpath", "-ldflags"]
    run([*build, version_flags(KUBERNETES), "-o", directory / "node", "."], cwd=source, env=env)
    run([*build, "-s -w", "-o", directory / "pause", "./pause"], cwd=source, env=env)
    say(f"built, {os.path.getsize(directory / 'node') // 2**20} MiB")


def _forget_others(directory: Path) -> None:
    # A running cluster still holds the deleted file open; its links are laid anew by the next `up`.
    for other in directory.parent.iterdir():
        if other != directory and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
