"""CPU seconds per task and per process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from edgebed.metering.cpu import ThreadCpu, process_cpu_of, process_cpu_s


def burn(cpu_s: float) -> None:
    end_s = time.thread_time() + cpu_s
    while time.thread_time() < end_s:
        pass


def test_stopwatch_adds_up_the_pieces_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter([1.0, 1.25, 7.0, 7.5])
    monkeypatch.setattr(time, "thread_time", lambda: next(stamps))
    used = ThreadCpu()
    with used:
        pass
    assert used.cpu_s == 0.25
    with used:
        pass
    assert used.cpu_s == 0.75


def test_stopwatch_sees_its_own_thread_and_no_other() -> None:
    neighbour = threading.Thread(target=burn, args=(0.3,))
    process_before_s = process_cpu_s()
    with ThreadCpu() as used:
        neighbour.start()
        burn(0.02)
        neighbour.join()
    # Starting and joining a thread costs some CPU of this one; the neighbour's 300 ms would show.
    assert 0.02 <= used.cpu_s < 0.3
    assert process_cpu_s() - process_before_s >= 0.32


def test_time_spent_in_a_failing_task_counts() -> None:
    def fail() -> None:
        burn(0.005)
        raise ZeroDivisionError

    used = ThreadCpu()
    with pytest.raises(ZeroDivisionError), used:
        fail()
    assert used.cpu_s >= 0.005


def test_stopwatch_cannot_be_nested_into_itself() -> None:
    with ThreadCpu() as used, pytest.raises(RuntimeError, match="already running"):
        used.__enter__()


def test_stopwatch_cannot_cross_threads() -> None:
    used = ThreadCpu()
    starter = threading.Thread(target=used.__enter__)
    starter.start()
    starter.join()
    with pytest.raises(RuntimeError, match="stopped on another"):
        used.__exit__(None, None, None)
    assert used.cpu_s == 0.0


def test_cpu_of_a_process_by_its_id() -> None:
    burn(0.02)
    own_s = process_cpu_of(os.getpid())
    assert own_s is not None
    # psutil reads the kernel's ticks, so the two agree to a tick or two.
    assert own_s == pytest.approx(process_cpu_s(), abs=0.05)


def test_process_that_is_gone_has_no_cpu_time() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(timeout=60)
    assert process_cpu_of(child.pid) is None
