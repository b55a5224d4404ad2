"""The local cluster without Docker: its programs as processes of this machine."""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from . import archive, host, node, pki
from .build import ensure_programs, link_programs
from .client import asks, kubectl
from .paths import Paths
from .processes import Processes, all_pids, command_line, end
from .settings import GPUS, NAME, NAMESPACE, PAUSE_IMAGE
from .shell import ClusterError, locked, run, say, succeeds

# What must not act any more before the pods are ended comes first; containerd ends last.
STOP_ORDER = (
    "kubelet",
    "kube-controller-manager",
    "kube-scheduler",
    "node-agent",
    "kube-proxy",
    "coredns",
    "kube-apiserver",
    "etcd",
)
# Left out of what a stop deletes: the images in containerd, what to undo on the host, and the links.
KEPT = {"containerd", "host.json", "bin", "loaded.json", "logs"}


class LocalCluster:
    """One node whose programs run as processes of this machine."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.processes = Processes(paths.pids, paths.logs)

    def up(self) -> None:
        """Makes the cluster run and waits until it is ready; does nothing if it is."""
        if os.geteuid() != 0:
            raise ClusterError("the local cluster needs root where there is no Docker")
        self.paths.make()
        host.ensure_packages(host.RUNTIME)
        programs = ensure_programs(self.paths)
        with locked(self.paths.root / "cluster.lock"):
            link_programs(programs, self.paths)
            if self.healthy():
                say("the cluster is up")
                return
            self._stop()
            self._start(programs)

    def down(self) -> None:
        """Ends the cluster and undoes what it did to the host; images stay cached."""
        with locked(self.paths.root / "cluster.lock"):
            self._stop()

    def purge(self) -> None:
        """Ends the cluster and deletes its state."""
        self.down()
        shutil.rmtree(self.paths.cluster, ignore_errors=True)

    def healthy(self) -> bool:
        """Whether every program runs and the node is ready."""
        names = {program.name for program in node.PROGRAMS}
        return names <= set(self.processes.running()) and self._node_ready()

    def status(self) -> dict[str, object]:
        """What runs, for a person to read."""
        running = self.processes.running()
        return {
            "kind": "local",
            "ready": self.healthy(),
            "kubeconfig": str(self.paths.kubeconfig),
            "processes": {program.name: running.get(program.name) for program in node.PROGRAMS},
        }

    def load(self, path: Path) -> None:
        """Imports an image archive, unless this very file was imported before."""
        loaded = self._loaded()
        stat = path.stat()
        stamp = f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}"
        present = set(self._ctr("images", "ls", "-q").split())
        names = loaded.get(stamp, [])
        if names and set(names) <= present and all(self._latest(loaded, name) == stamp for name in names):
            return
        imported = self._ctr("images", "import", "--snapshotter", "overlayfs", str(path), timeout=600)
        found = [line.split()[1] for line in imported.splitlines() if line.startswith("unpacking ")]
        loaded.pop(stamp, None)
        loaded[stamp] = found  # the last of a name's stamps is what containerd has now
        self.paths.loaded.write_text(json.dumps(loaded, indent=1))
        say(f"loaded {', '.join(found)}")

    # --- starting

    def _start(self, programs: Path) -> None:
        say("starting the cluster")
        host.prepare(self.paths)
        host.link_iptables(self.paths.bin)
        pki.make(self.paths.pki, self.paths.kubeconfig)
        resolv_conf = resolver_file()
        node.write_configs(self.paths, cni_directory(), outgoing_mtu(), resolv_conf)
        self._launch("etcd")
        self._launch("kube-apiserver")
        self._start_containerd()
        self._import_pause(programs / "pause")
        self._await("etcd", 60)
        self.processes.wait("kube-apiserver", self._api_ready, 120)
        say("the API server is ready")
        for program in node.PROGRAMS:
            if self.processes.pid(program.name) is None:
                self._launch(program.name)
        objects = {"apiVersion": "v1", "kind": "List", "items": node.add_ons()}
        kubectl(self.paths, "apply", "--server-side", "-f", "-", stdin=json.dumps(objects), timeout=60)
        for name in ("kubelet", "kube-proxy", "coredns"):
            self._await(name, 60)
        self.processes.wait("kubelet", self._node_ready, 60)
        self.processes.wait("node-agent", self._has_gpus, 30)
        self.processes.wait("kube-controller-manager", self._has_account, 30)
        say(f"the cluster is ready: {self.paths.kubeconfig}")

    def _launch(self, name: str) -> None:
        program = next(program for program in node.PROGRAMS if program.name == name)
        env = {**host.program_environment(self.paths), **program.env(self.paths)}
        self.processes.start(name, program.command(self.paths), env)

    def _await(self, name: str, seconds: float) -> None:
        program = next(program for program in node.PROGRAMS if program.name == name)
        self.processes.wait(name, lambda: answers(program.ready), seconds)

    def _start_containerd(self) -> None:
        # Recovered records of containers whose cluster is gone would only be in the kubelet's way.
        shutil.rmtree(self.paths.containerd / "io.containerd.grpc.v1.cri", ignore_errors=True)
        try:
            self._run_containerd()
            leftovers = self._ctr("containers", "ls", "-q").split()
            if leftovers:
                self._ctr("containers", "rm", *leftovers, check=False)
                self.processes.stop("containerd")
                self._run_containerd()
        except ClusterError as problem:
            say(f"starting containerd's store anew: {problem}")
            self.processes.stop("containerd")
            shutil.rmtree(self.paths.containerd, ignore_errors=True)
            self.paths.loaded.unlink(missing_ok=True)
            self.paths.make()
            self._run_containerd()

    def _run_containerd(self) -> None:
        self._launch("containerd")
        self.processes.wait("containerd", lambda: succeeds([*self._ctr_command(), "version"], 10), 30)

    def _import_pause(self, program: Path) -> None:
        image = self.paths.images / f"pause-{program.parent.name}.tar"
        if not image.exists():
            image.parent.mkdir(parents=True, exist_ok=True)
            layer = image.with_suffix(".layer")
            archive.single_file(layer, program, "pause")
            archive.write(image, [PAUSE_IMAGE], layer, {"Entrypoint": ["/pause"], "User": "65535:65535"})
            layer.unlink()
        self.load(image)

    # --- stopping

    def _stop(self) -> None:
        if self.processes.running() or self.paths.host_state.exists():
            say("stopping the cluster")
        for name in STOP_ORDER:
            # Nothing they could still save is kept, so there is no point in waiting long.
            self.processes.stop(name, grace=1 if name in ("kube-apiserver", "etcd") else 5)
        for _ in range(20):
            inside = host.contained_pids()
            if not inside:
                break
            end(inside, grace=0)
        if self.processes.pid("containerd"):
            leftovers = self._ctr("containers", "ls", "-q", check=False, timeout=20).split()
            for start in range(0, len(leftovers), 50):
                batch = leftovers[start : start + 50]
                self._ctr("tasks", "rm", "-f", *batch, check=False, timeout=60)
                self._ctr("containers", "rm", *batch, check=False, timeout=60)
        end(shims(self.paths.socket), grace=0)
        self.processes.stop("containerd")
        for address in self.paths.containerd_state.glob("io.containerd.runtime.v2.task/*/*/address"):
            socket = Path(address.read_text().strip().removeprefix("unix://"))
            if socket.parent == Path("/run/containerd/s"):
                socket.unlink(missing_ok=True)
        host.restore(self.paths)
        if self.paths.cluster.is_dir():
            for path in self.paths.cluster.iterdir():
                if path.name not in KEPT:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            shutil.rmtree(self.paths.logs / "pods", ignore_errors=True)
            self.paths.make()

    # --- looking

    def _api_ready(self) -> bool:
        return self.paths.kubeconfig.exists() and asks(self.paths, "get", "--raw", "/readyz") == "ok"

    def _node_ready(self) -> bool:
        path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return self._api_ready() and asks(self.paths, "get", "node", NAME, "-o", path) == "True"

    def _has_gpus(self) -> bool:
        path = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"
        return asks(self.paths, "get", "node", NAME, "-o", path) == str(GPUS)

    def _has_account(self) -> bool:
        return bool(asks(self.paths, "get", "serviceaccount", "default", "-n", "default", "-o", "name"))

    def _loaded(self) -> dict[str, list[str]]:
        try:
            found: dict[str, list[str]] = json.loads(self.paths.loaded.read_text())
            return found
        except (OSError, ValueError):
            return {}

    @staticmethod
    def _latest(loaded: dict[str, list[str]], name: str) -> str:
        return [stamp for stamp, names in loaded.items() if name in names][-1]

    def _ctr_command(self) -> list[str]:
        return ["ctr", "--address", str(self.paths.socket), "--namespace", NAMESPACE]

    def _ctr(self, *args: str, check: bool = True, timeout: float | None = 60) -> str:
        return run([*self._ctr_command(), *args], check=check, timeout=timeout)


def shims(socket: Path) -> list[int]:
    """The containerd shims that serve this cluster's containerd, and no other's."""
    found = []
    for pid in all_pids():
        words = command_line(pid)
        if words and Path(words[0]).name.startswith("containerd-shim") and str(socket) in words:
            found.append(pid)
    return found


def answers(url: str) -> bool:
    """Whether a URL of the node answers 200; never by way of a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def cni_directory() -> Path:
    """Where the machine's CNI plugins are."""
    for place in (Path("/usr/lib/cni"), Path("/opt/cni/bin")):
        if (place / "bridge").exists():
            return place
    raise ClusterError("no CNI plugins: install containernetworking-plugins")


def resolver_file() -> str:
    """The host's real resolvers: a stub on the loopback address can't be reached from pods."""
    real = Path("/run/systemd/resolve/resolv.conf")
    try:
        stub = "nameserver 127." in Path("/etc/resolv.conf").read_text()
    except OSError:
        stub = True
    return str(real) if stub and real.exists() else "/etc/resolv.conf"


def outgoing_mtu() -> int:
    """The largest packet that the way out takes; a pod that sends larger ones hangs on some networks."""
    for route in json.loads(run(["ip", "-json", "route", "show", "default"], check=False) or "[]"):
        try:
            return int(Path(f"/sys/class/net/{route['dev']}/mtu").read_text())
        except (OSError, KeyError, ValueError):
            continue
    return 1500
