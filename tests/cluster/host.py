"""What the local cluster changes on the host, and how each change is undone."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .paths import Paths
from .settings import ADDRESS, BRIDGE, CGROUP
from .shell import ClusterError, run, say, succeeds

# What `up` needs: a program (or file) and the Debian package that brings it.
RUNTIME = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables-legacy": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "nsenter": "util-linux",
}
# What building images needs besides.
IMAGES = {"mmdebstrap": "mmdebstrap", "buildah": "buildah"}
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "fs.inotify.max_user_instances": "8192",
}
# The kubelet and the CNI plugins set these on their own.
SIDE_EFFECTS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
    "net.ipv4.conf.all.route_localnet",
)
# Directories whose paths the kubelet, containerd and the CNI plugins have built in.
FIXED = ("/var/lib/kubelet", "/var/log/containers", "/var/lib/cni", "/run/containerd")
CGROUPS = Path("/sys/fs/cgroup")
POLICY = Path("/usr/sbin/policy-rc.d")
CHAINS = ("KUBE-", "CNI-")


def missing_packages(needed: dict[str, str]) -> list[str]:
    """The packages whose programs are not on this machine."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted(
        {
            package
            for program, package in needed.items()
            if not (Path(program).exists() if program.startswith("/") else shutil.which(program, path=path))
        }
    )


def ensure_packages(needed: dict[str, str]) -> None:
    """Installs the Debian packages that are missing, without starting any service they bring."""
    missing = missing_packages(needed)
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(f"needs Docker, or root on Debian or Ubuntu to install: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with _no_services():
        # One unreachable source of several is no reason to stop: the install tells what is missing.
        run(["apt-get", "update", "-q"], env=env, check=False)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env=env)
    if "containerd" in missing and shutil.which("systemctl"):
        succeeds(["systemctl", "disable", "containerd.service"])  # nor at the next boot
    still = missing_packages(needed)
    if still:
        raise ClusterError(f"installed, but their programs were not found: {' '.join(still)}")


@contextmanager
def _no_services() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def link_iptables(bin_directory: Path) -> str:
    """Gives the cluster's programs an `iptables` that works here, leaving the host's choice alone.

    A mix of both kinds of tables breaks Services, so everything the cluster starts finds this one first.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for kind in ("legacy", "nft"):
        program = shutil.which(f"iptables-{kind}", path=path)
        if program and succeeds([program, "-t", "nat", "-L", "-n"]):
            multi = shutil.which(f"xtables-{kind}-multi", path=path) or str(Path(program).resolve())
            for version in ("iptables", "ip6tables"):
                for suffix in ("", "-save", "-restore"):
                    link = bin_directory / f"{version}{suffix}"
                    link.unlink(missing_ok=True)
                    link.symlink_to(multi)
            return kind
    raise ClusterError("neither iptables-legacy nor iptables-nft can use the nat table on this kernel")


def program_environment(paths: Paths) -> dict[str, str]:
    """The environment of the cluster's programs: its own bin first, and nothing it need not know."""
    keep = ("HOME", "LANG", "TZ", "TMPDIR")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env["PATH"] = f"{paths.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return env


def prepare(paths: Paths) -> None:
    """Makes the host ready, after writing down what it was like before."""
    _load_modules()
    if not paths.host_state.exists():
        before = {
            "sysctls": {
                name: value for name in (*SYSCTLS, *SIDE_EFFECTS) if (value := _sysctl(name)) is not None
            },
            "absent": [path for path in FIXED if not os.path.lexists(path)],
            "address": _has_address(),
        }
        fresh = paths.host_state.with_suffix(".new")
        fresh.write_text(json.dumps(before, indent=1))
        fresh.replace(paths.host_state)
    for name, value in SYSCTLS.items():
        now = _sysctl(name)
        if now is None:
            raise ClusterError(f"this kernel has no {name}")
        if int(now) < int(value):
            _sysctl_path(name).write_text(value)
    if not _has_address():
        run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"])
    for controller in cgroup_roots():
        (controller / CGROUP).mkdir(exist_ok=True)


def restore(paths: Paths, iptables: bool = True) -> None:
    """Undoes `prepare` and what the cluster's programs did to the host. Safe to call at any time."""
    unmount_below(paths.cluster)
    if succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "delete", BRIDGE], check=False)
    if iptables:
        _drop_chains(paths.bin)
    for controller in cgroup_roots():
        _remove_cgroup(controller / CGROUP)
    if not paths.host_state.exists():
        return
    before = json.loads(paths.host_state.read_text())
    for name, value in before["sysctls"].items():
        if _sysctl(name) not in (None, value):
            _sysctl_path(name).write_text(value)
    if not before["address"] and _has_address():
        run(["ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo"], check=False)
    for path in before["absent"]:
        if not Path(path, "containerd.sock").exists():  # another containerd has since moved in
            shutil.rmtree(path, ignore_errors=True)
    paths.host_state.unlink()


def unmount_below(directory: Path) -> None:
    """Unmounts everything at or below a directory, the innermost first."""
    for _ in range(3):  # a lazily unmounted tree may uncover another
        found = mounts_below(Path("/proc/self/mountinfo").read_text(), str(directory))
        if not found:
            return
        for point in found:
            succeeds(["umount", "--lazy", point])


def mounts_below(mountinfo: str, directory: str) -> list[str]:
    """The mount points at or below a directory, the innermost first."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    below = directory.rstrip("/") + "/"
    inside = [point for point in points if point == directory or point.startswith(below)]
    return sorted(inside, key=len, reverse=True)


def cgroup_roots() -> list[Path]:
    """The roots of the control groups: one for each controller (version 1) or one for all (version 2)."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted(path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())


def contained_pids() -> set[int]:
    """Every process inside the cluster's own control group: the pods' processes."""
    found: set[int] = set()
    for controller in cgroup_roots():
        for directory, _, files in os.walk(controller / CGROUP):
            if "cgroup.procs" in files:
                try:
                    found.update(int(word) for word in Path(directory, "cgroup.procs").read_text().split())
                except OSError:
                    continue
    found.discard(0)
    return found


def without_chains(saved: str, prefixes: Iterable[str] = CHAINS) -> str | None:
    """What `iptables-save` printed, less the cluster's chains and rules; None if there are none."""
    marks = [f"{lead}{prefix}" for prefix in prefixes for lead in (" ", ":", '"')] + [BRIDGE]
    lines = saved.splitlines()
    kept = [line for line in lines if not any(mark in line for mark in marks)]
    return None if kept == lines else "\n".join(kept) + "\n"


def _drop_chains(bin_directory: Path) -> None:
    for version in ("iptables", "ip6tables"):
        save, restore_program = bin_directory / f"{version}-save", bin_directory / f"{version}-restore"
        if save.exists() and (kept := without_chains(run([save], check=False))) is not None:
            run([restore_program], stdin=kept, check=False)


def _load_modules() -> None:
    # Built in on some kernels, absent on others: the checks that follow tell what is truly missing.
    if shutil.which("modprobe"):
        for module in ("br_netfilter", "overlay"):
            succeeds(["modprobe", "-q", module])


def _sysctl_path(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def _sysctl(name: str) -> str | None:
    try:
        return _sysctl_path(name).read_text().strip()
    except OSError:
        return None


def _has_address() -> bool:
    return f" {ADDRESS}/" in run(["ip", "-4", "address", "show", "dev", "lo"])


def _remove_cgroup(directory: Path) -> None:
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except OSError as problem:
            print(f"left behind: {path}: {problem.strerror}", file=sys.stderr)
