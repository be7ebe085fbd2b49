"""What runs on the device itself: one thread, one job after the other, with the thread's own CPU time measured.

A slower board is emulated by waiting: a clip that took c CPU seconds is finished (slowdown - 1) c seconds later.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edgebed.clock import Clock
from edgebed.errors import EdgebedError
from edgebed.metering.cpu import ThreadCpu
from workloads.base import Payload, Workload

_log = logging.getLogger(__name__)


class Job(Protocol):
    """Something that the executor's thread does."""

    def run(self) -> None:
        """Do it; must not raise."""
        ...


@dataclass(slots=True)
class ExecutedClip:
    """What came of executing frames on the device.

    Attributes:
        cpu_s: CPU seconds that were really used; padding_s: seconds that were waited to appear slower.
        error: why there is no answer; empty when there is one.
    """

    started_s: float
    finished_s: float
    cpu_s: float
    padding_s: float
    predicted: list[int] = field(default_factory=list)
    error: str = ""


class SlowedWorkload:
    """A workload as a board ``slowdown`` times slower than this host would execute it.

    Args:
        wait: waits that many seconds; returns early when the program ends.
    """

    def __init__(self, workload: Workload, slowdown: float, clock: Clock, wait: Callable[[float], object]) -> None:
        self._workload = workload
        self._slowdown = slowdown
        self._clock = clock
        self._wait = wait

    def execute(self, read: Callable[[], Payload], frames: int) -> ExecutedClip:
        """Execute what ``read`` gives, a clip of ``frames`` frames. Never raises for what the workload does."""
        started_s = self._clock.now_s()
        cpu = ThreadCpu()
        predicted: list[int] = []
        error = ""
        try:
            with cpu:
                predicted = list(self._workload.execute(read()).predicted)
            if len(predicted) != frames:
                error = f"{len(predicted)} answers for {frames} frames"
        except EdgebedError as failure:
            error = str(failure)
        except Exception as failure:  # a workload is someone's own code: it may raise anything
            _log.exception("the workload failed")
            error = repr(failure)
        padding_start_s = self._clock.now_s()
        padding_s = (self._slowdown - 1.0) * cpu.cpu_s
        if padding_s > 0:
            self._wait(padding_s)
        finished_s = self._clock.now_s()
        waited_s = finished_s - padding_start_s if padding_s > 0 else 0.0
        return ExecutedClip(started_s, finished_s, cpu.cpu_s, waited_s, predicted, error)


@dataclass(slots=True, eq=False)
class ClipJob:
    """Frames to execute.

    Attributes:
        started_s: when the executor took it; None before.
        result: what came of it, once it is done.
    """

    slowed: SlowedWorkload
    read: Callable[[], Payload]
    frames: int
    started_s: float | None = None
    result: ExecutedClip | None = None

    def run(self) -> None:
        """Execute the frames."""
        self.result = self.slowed.execute(self.read, self.frames)


class Executor:
    """A thread that does jobs in the order in which they came.

    Args:
        wake: called on the executor's thread when a job is done.
    """

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._lock = threading.Condition()
        self._queue: deque[Job] = deque()
        self._done: deque[Job] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="executor", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        with self._lock:
            self._queue.append(job)
            self._lock.notify()

    def cancel(self, job: Job) -> bool:
        """Take back a job that has not begun; False when it has."""
        with self._lock:
            try:
                self._queue.remove(job)
            except ValueError:
                return False
            return True

    @property
    def has_finished(self) -> bool:
        """Is there something for `finished` to give?"""
        return bool(self._done)

    def finished(self) -> list[Job]:
        """The jobs that are done and were not asked for yet, in order."""
        done = []
        while self._done:
            done.append(self._done.popleft())
        return done

    def wait(self, duration_s: float) -> bool:
        """Wait on the executor's thread; returns early, with True, when the program ends."""
        return self._ending.wait(duration_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Drop what has not begun and end the thread.

        Returns:
            False when a job did not end in time; its thread ends with the process.
        """
        self._ending.set()
        with self._lock:
            self._queue.clear()
            self._lock.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._queue or self._ending.is_set())
                if self._ending.is_set():
                    return
                job = self._queue.popleft()
                if isinstance(job, ClipJob):
                    job.started_s = self._clock.now_s()
            job.run()
            self._done.append(job)
            self._wake()
