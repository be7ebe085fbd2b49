"""CPU seconds: of a task, measured on the thread that executes it, and of a process.

CPU time is not elapsed time: it does not grow while a thread waits for a core or sleeps, which is why a busy neighbour
changes a task's latency and not its CPU seconds.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType


class ThreadCpu:
    """A stopwatch of the calling thread's CPU time.

    It adds up over several uses, so one stopwatch can follow the pieces of a task::

        used = ThreadCpu()
        with used:
            decode()
        with used:
            recognise()
        used.cpu_s

    Work that the block hands to other threads is not seen: executors must run with one thread a worker.

    Attributes:
        cpu_s: CPU seconds, user and system, of all finished uses.
    """

    __slots__ = ("_start_s", "_thread", "cpu_s")

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._start_s = 0.0
        self._thread = 0

    def __enter__(self) -> ThreadCpu:
        if self._thread:
            raise RuntimeError("a ThreadCpu is already running; use a second one for the inner piece")
        self._thread = threading.get_ident()
        self._start_s = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_s = time.thread_time()
        thread, self._thread = self._thread, 0
        if thread != threading.get_ident():
            # Each thread has a clock of its own: the difference would be a number without meaning.
            raise RuntimeError("a ThreadCpu was started on one thread and stopped on another")
        self.cpu_s += end_s - self._start_s


def process_cpu_s() -> float:
    """CPU seconds of this process so far, all its threads, user and system, without its children."""
    return time.process_time()


def process_cpu_of(pid: int) -> float | None:
    """CPU seconds of another process so far, or None when it is gone or may not be looked at."""
    # Imported here: an agent that only measures itself never pays for psutil.
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)
