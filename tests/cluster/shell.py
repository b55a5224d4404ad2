"""Running commands, telling progress, and keeping two commands from doing the same at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

STARTED = time.monotonic()


class ClusterError(RuntimeError):
    """Something that the person at the keyboard can act on; shown without a traceback."""


def say(message: str) -> None:
    """Tells progress on stderr, with the seconds since the command began."""
    print(f"[{time.monotonic() - STARTED:6.1f}s] {message}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> str:
    """Runs a command and returns its standard output; raises with the end of its errors."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-30:])
        raise ClusterError(f"{' '.join(words)}: exit {done.returncode}\n{said}")
    return done.stdout


def succeeds(command: Sequence[str | Path], timeout: float | None = 60) -> bool:
    """Whether the command exists and exits 0."""
    try:
        return (
            subprocess.run(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            ).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`, waiting for another command that has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command that holds {path.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
