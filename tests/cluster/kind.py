"""The local cluster where Docker is: kind, with images from the public registries."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .build import ensure_programs, link_programs
from .client import asks, kubectl
from .dockerfile import normalise
from .paths import Paths
from .settings import GPUS, MAX_PODS, NAME
from .shell import ClusterError, locked, run, say, succeeds

KIND = "sigs.k8s.io/kind@v0.30.0"
NODE_IMAGE = "kindest/node:v1.34.0"


def docker_works() -> bool:
    """Whether a Docker engine answers; the client alone is no use."""
    return succeeds(["docker", "info"], timeout=30)


def cluster_config() -> dict[str, object]:
    """The kind configuration of the cluster, as a document (JSON is YAML)."""
    kubelet = {"kind": "KubeletConfiguration", "maxPods": MAX_PODS, "eventRecordQPS": 0}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": NAME,
        "nodes": [{"role": "control-plane", "image": NODE_IMAGE}],
        "kubeadmConfigPatches": [json.dumps(kubelet)],
    }


def create_command(kind: str, config: Path, kubeconfig: Path) -> list[str]:
    """The command that makes the cluster and writes its kubeconfig."""
    return [
        kind,
        "create",
        "cluster",
        "--name",
        NAME,
        "--config",
        str(config),
        "--kubeconfig",
        str(kubeconfig),
        "--wait",
        "180s",
    ]


def load_command(kind: str, image: Path | str) -> list[str]:
    """The command that brings an archive, or an image that Docker has, to the node."""
    if isinstance(image, Path):
        return [kind, "load", "image-archive", str(image), "--name", NAME]
    return [kind, "load", "docker-image", image, "--name", NAME]


def build_command(
    context: Path, dockerfile: Path | None, tag: str, build_args: Mapping[str, str], target: str
) -> list[str]:
    """The command that builds an image with Docker."""
    command = ["docker", "build", "--tag", tag]
    if dockerfile:
        command += ["--file", str(dockerfile)]
    for key, value in sorted(build_args.items()):
        command += ["--build-arg", f"{key}={value}"]
    if target:
        command += ["--target", target]
    return [*command, str(context)]


def gpu_patch(gpus: int) -> str:
    """The patch of a node's status that pretends it has GPUs."""
    amount = {"nvidia.com/gpu": str(gpus)}
    return json.dumps({"status": {"capacity": amount, "allocatable": amount}})


class KindCluster:
    """The cluster in a Docker container, by kind."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def up(self) -> None:
        """Makes the cluster run and waits until it is ready; does nothing if it is."""
        self.paths.make()
        with locked(self.paths.root / "cluster.lock"):
            self._programs()
            if not self.healthy():
                kind = self._kind()
                if NAME in run([kind, "get", "clusters"]).split():
                    say("removing a cluster that does not answer")
                    run([kind, "delete", "cluster", "--name", NAME])
                say("making the cluster with kind")
                config = self.paths.config / "kind.json"
                config.write_text(json.dumps(cluster_config(), indent=1))
                run(create_command(kind, config, self.paths.kubeconfig), timeout=900)
                self.paths.kubeconfig.chmod(0o600)
            # Again at every `up`: a kubelet that registers its node anew drops what it does not know.
            node = kubectl(self.paths, "get", "nodes", "-o", "name").split()[0]
            patch = ["--subresource=status", "--type=merge", "-p", gpu_patch(GPUS)]
            kubectl(self.paths, "patch", node, *patch)
            say(f"the cluster is ready: {self.paths.kubeconfig}")

    def down(self) -> None:
        """Deletes the cluster; images stay with Docker."""
        with locked(self.paths.root / "cluster.lock"):
            run([self._kind(), "delete", "cluster", "--name", NAME])
            self.paths.kubeconfig.unlink(missing_ok=True)

    def purge(self) -> None:
        """Deletes the cluster and its files."""
        self.down()
        shutil.rmtree(self.paths.cluster, ignore_errors=True)

    def healthy(self) -> bool:
        """Whether the API server answers and the node is ready."""
        if not self.paths.kubeconfig.exists():
            return False
        path = 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'
        return asks(self.paths, "get", "nodes", "-o", path) == "True"

    def status(self) -> dict[str, object]:
        """What runs, for a person to read."""
        return {"kind": "kind", "ready": self.healthy(), "kubeconfig": str(self.paths.kubeconfig)}

    def load(self, image: str) -> None:
        """Brings an image to the node: an archive, one that Docker has, or one that it can pull."""
        path = Path(image)
        if path.is_file():
            run(load_command(self._kind(), path), timeout=600)
            return
        if not succeeds(["docker", "image", "inspect", image]):
            run(["docker", "pull", "--quiet", image], timeout=900)
        run(load_command(self._kind(), image), timeout=600)
        say(f"loaded {normalise(image)}")

    def build(
        self, context: Path, dockerfile: Path | None, tag: str, build_args: Mapping[str, str], target: str
    ) -> str:
        """Builds an image with Docker, which keeps its own cache; returns the tag."""
        run(build_command(context, dockerfile, tag, build_args, target), timeout=1800)
        return tag

    def _programs(self) -> None:
        # kubectl and Helm as the person has them; without, the node's binary has both.
        found = {name: shutil.which(name) for name in ("kubectl", "helm")}
        if not all(found.values()):
            link_programs(ensure_programs(self.paths), self.paths)
            return
        for name, program in found.items():
            link = self.paths.bin / name
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.realpath(str(program)))

    def _kind(self) -> str:
        own = self.paths.programs / "kind"
        found = shutil.which("kind") or (str(own) if own.exists() else None)
        if found:
            return found
        if not shutil.which("go"):
            raise ClusterError("needs kind, or Go to build it")
        say("building kind (once)")
        run(["go", "install", KIND], env={"GOBIN": str(self.paths.programs), "CGO_ENABLED": "0"}, timeout=900)
        return str(own)
