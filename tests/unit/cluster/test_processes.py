"""Processes are known by id and start time, and ended by id."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.cluster.processes import Processes, command_line, start_time
from tests.cluster.shell import ClusterError, locked, run, succeeds


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path, tmp_path)


def test_a_program_is_started_found_and_stopped(processes: Processes) -> None:
    processes.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], {})
    pid = processes.pid("sleeper")
    assert pid is not None
    assert processes.running() == {"sleeper": pid}
    processes.stop("sleeper", grace=5)
    assert processes.running() == {}
    assert start_time(pid) is None


def test_another_process_with_the_same_id_is_not_ours(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(f"{os.getpid()} 1")
    assert processes.pid("other") is None
    processes.stop("other")  # or this test would not return


def test_waiting_tells_why_a_program_stopped(processes: Processes) -> None:
    processes.start("broken", [sys.executable, "-c", "print('no such setting')"], {})
    with pytest.raises(ClusterError, match="no such setting"):
        processes.wait("broken", lambda: False, 20)


def test_this_process_is_seen() -> None:
    assert start_time(os.getpid())
    assert command_line(os.getpid())


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(ClusterError, match=r"exit 3\nwhy"):
        run(["sh", "-c", "echo why >&2; exit 3"])
    assert not succeeds(["no-such-program-here"])


def test_a_lock_is_taken_and_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "deep" / "lock"):
            pass
