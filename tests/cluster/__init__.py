"""A Kubernetes cluster on this machine for the tests: kind where Docker is, processes where it is not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .client import kubectl
from .images import Images
from .kind import KindCluster, docker_works
from .local import LocalCluster
from .paths import Paths
from .shell import ClusterError

__all__ = ["Cluster", "ClusterError", "Images", "Paths"]


class Cluster:
    """The one cluster of this machine's cache; every method may be called from any process."""

    def __init__(self, paths: Paths | None = None) -> None:
        self.paths = paths or Paths()
        self.kind = chosen_kind()
        self._cluster = KindCluster(self.paths) if self.kind == "kind" else LocalCluster(self.paths)
        self._images = Images(self.paths)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.paths.kubeconfig

    @property
    def bin(self) -> Path:
        """The directory that has `kubectl` and `helm` once the cluster is up."""
        return self.paths.bin

    def up(self) -> None:
        """Makes the cluster run and waits until it is ready; does nothing if it is."""
        self._cluster.up()

    def down(self, purge: bool = False) -> None:
        """Ends the cluster and undoes what it did to the host; `purge` deletes state and caches too."""
        if not purge:
            self._cluster.down()
            return
        self._cluster.purge()
        self._images.purge()

    def status(self) -> dict[str, object]:
        """What runs, for a person to read."""
        return self._cluster.status()

    def build(
        self,
        context: Path | str,
        tag: str,
        *,
        dockerfile: Path | str | None = None,
        build_args: Mapping[str, str] | None = None,
        target: str = "",
    ) -> Path | str:
        """Builds an image, unless the same content was built before; returns what `load` takes."""
        path = Path(dockerfile) if dockerfile else None
        if isinstance(self._cluster, KindCluster):
            return self._cluster.build(Path(context), path, tag, build_args or {}, target)
        return self._images.build(Path(context), path, tag=tag, build_args=build_args, target=target)

    def load(self, image: Path | str) -> None:
        """Brings an image to the node: an archive's path, or the name of one built here or known."""
        if isinstance(self._cluster, KindCluster):
            self._cluster.load(str(image))
            return
        path = Path(image)
        self._cluster.load(path if path.is_file() else self._images.ensure(str(image)))

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float | None = None
    ) -> str:
        """Runs kubectl as the administrator and returns what it printed."""
        return kubectl(self.paths, *args, stdin=stdin, check=check, timeout=timeout)


def chosen_kind() -> str:
    """`kind` where a Docker engine answers, else `local`; MODELYARD_CLUSTER decides if it is set."""
    asked = os.environ.get("MODELYARD_CLUSTER", "")
    if asked not in ("", "kind", "local"):
        raise ClusterError(f"MODELYARD_CLUSTER is {asked!r}; it may be kind or local")
    return asked or ("kind" if docker_works() else "local")
