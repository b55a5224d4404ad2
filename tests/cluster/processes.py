"""The node's processes: started in sessions of their own, known by id and start time, ended by id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .shell import ClusterError


def start_time(pid: int) -> str | None:
    """When a live process started, in clock ticks since boot; None for one that is gone or a zombie.

    An id together with its start time can't be mistaken for a later process that got the same id.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def command_line(pid: int) -> list[str]:
    """A process's words; empty for one that is gone or that may not be looked at."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def all_pids() -> list[int]:
    """Every process of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Processes:
    """Started programs, with a pid file each."""

    def __init__(self, pids: Path, logs: Path) -> None:
        self.pids = pids
        self.logs = logs

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str]) -> None:
        """Starts a program that outlives this command, its output going to a log of its own."""
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=dict(env),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.pids / name).write_text(f"{process.pid} {start_time(process.pid)}")

    def pid(self, name: str) -> int | None:
        """The program's process id, if it is the one that was started and still runs."""
        try:
            pid, started = (self.pids / name).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == started else None

    def running(self) -> dict[str, int]:
        """The programs that run, by name."""
        if not self.pids.is_dir():
            return {}
        found = {path.name: self.pid(path.name) for path in sorted(self.pids.iterdir())}
        return {name: pid for name, pid in found.items() if pid is not None}

    def stop(self, name: str, grace: float = 15) -> None:
        """Asks a program to stop, insists after `grace` seconds, and forgets it."""
        pid = self.pid(name)
        if pid is not None:
            end([pid], grace)
        (self.pids / name).unlink(missing_ok=True)

    def wait(self, name: str, ready: Callable[[], bool], seconds: float) -> None:
        """Waits until the program is ready; raises with its log's end if it stops or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            gone = self.pid(name) is None
            if gone or time.monotonic() > deadline:
                what = "stopped" if gone else f"was not ready after {seconds:.0f} s"
                raise ClusterError(f"{name} {what}; {self.logs / name}.log ends:\n{self.tail(name)}")
            time.sleep(0.1)

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a program's log."""
        try:
            text = (self.logs / f"{name}.log").read_text(errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])


def end(pids: Iterable[int], grace: float) -> None:
    """Ends processes by their ids: asks, waits up to `grace` seconds, then kills."""
    alive = {pid: start_time(pid) for pid in pids}
    for sign, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 10.0)):
        if sign == signal.SIGTERM and grace <= 0:
            continue
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + patience
        while alive and time.monotonic() < deadline:
            _reap(alive)
            alive = {pid: at for pid, at in alive.items() if at is not None and start_time(pid) == at}
            if alive:
                time.sleep(0.05)


def _reap(pids: Iterable[int]) -> None:
    # Where this very command started them, they stay zombies until it has looked.
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
