"""Where the local cluster keeps its things: all of it outside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def cache_root() -> Path:
    """The cache directory, from the environment as every Modelyard test command reads it."""
    own = os.environ.get("MODELYARD_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "modelyard"


class Paths:
    """Every path below the cache; `root` may be given for tests."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()
        self.programs = self.root / "bin"
        self.images = self.root / "images"
        self.buildah = self.root / "buildah"
        self.cluster = self.root / "cluster"
        self.bin = self.cluster / "bin"
        self.pki = self.cluster / "pki"
        self.config = self.cluster / "config"
        self.logs = self.cluster / "logs"
        self.pids = self.cluster / "pids"
        self.etcd = self.cluster / "etcd"
        self.kubelet = self.cluster / "kubelet"
        self.volumes = self.cluster / "volumes"
        self.containerd = self.cluster / "containerd"
        self.containerd_state = self.cluster / "containerd-state"
        self.socket = self.containerd_state / "containerd.sock"
        self.kubeconfig = self.cluster / "kubeconfig"
        self.host_state = self.cluster / "host.json"
        self.loaded = self.cluster / "loaded.json"

    def make(self) -> None:
        """Creates the directories that the commands write to."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in (
            self.programs,
            self.images,
            self.bin,
            self.pki,
            self.config,
            self.logs,
            self.pids,
            self.etcd,
            self.kubelet,
            self.volumes,
            self.containerd,
            self.containerd_state,
        ):
            path.mkdir(parents=True, exist_ok=True)
        # Keys, tokens and etcd's data are here; pods reach their volumes by mounts, not by this path.
        self.cluster.chmod(0o700)
