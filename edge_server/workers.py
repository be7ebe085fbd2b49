"""The threads that execute tasks: each has its own executor, and none of them dies of a bad payload."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from statistics import median

from edge_server.admission import HeldTask
from edgebed.clock import Clock
from edgebed.errors import ProtocolError
from edgebed.protocol.messages import RefusalReason
from workloads.base import Workload, pack_clip

_log = logging.getLogger("edge_server")

WARM_UP_FRAMES = 3
"""Frames that are executed before the first task, for the first estimate of the service time."""

LEARNING_RATE = 0.1
"""Weight of the newest task in the service time."""


class TaskQueue:
    """First in, first out, for several takers; what has not been taken can be withdrawn."""

    def __init__(self) -> None:
        self._tasks: deque[HeldTask] = deque()
        # One token a task: takers sleep on the tokens, so that withdrawing never has to search a queue with a lock.
        self._tokens: SimpleQueue[bool] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._tasks)

    def put(self, task: HeldTask) -> None:
        """Queue a task."""
        self._tasks.append(task)
        self._tokens.put(True)

    def take(self) -> HeldTask | None:
        """The next task, waiting for one; None when the queue is closed."""
        while self._tokens.get():
            try:
                return self._tasks.popleft()
            except IndexError:
                continue  # its task was withdrawn
        return None

    def withdraw(self, task: HeldTask) -> bool:
        """Take a task out again; False when a worker has it already."""
        try:
            self._tasks.remove(task)
        except ValueError:
            return False
        with suppress(Empty):  # else a taker holds the token, and will find nothing for it
            self._tokens.get_nowait()
        return True

    def close(self, takers: int) -> None:
        """Let every taker go once it comes back."""
        for _ in range(takers):
            self._tokens.put(False)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pool is ready to execute, or why it will never be.

    Attributes:
        service_s_per_frame: what one frame took when warming up, slowdown included.
    """

    pool: WorkerPool
    problem: str = ""
    service_s_per_frame: float = 0.0
    cycles_per_frame: float = 0.0


class WorkerPool:
    """Worker threads for one workload.

    Workers hand over by appending to ``finished`` (or ``prepared``) and calling ``wake``; the thread that owns the pool
    empties both.

    Args:
        make: makes a workload instance; called once in every worker thread, and used by one thread at a time.
        slowdown: how many times slower than this host to appear; waiting pads what was computed.
        wake: wakes the owner; called in the workers' threads.
    """

    def __init__(
        self,
        make: Callable[[], Workload],
        count: int,
        slowdown: float,
        clock: Clock,
        finished: deque[HeldTask],
        prepared: deque[Prepared],
        wake: Callable[[], None],
    ) -> None:
        self.queue = TaskQueue()
        self.count = count
        self._make = make
        self._slowdown = slowdown
        self._clock = clock
        self._finished = finished
        self._prepared = prepared
        self._wake = wake
        self._loaded: list[tuple[float, float]] = []
        self._workloads: list[Workload] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{index}", daemon=True) for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float = 0.0) -> None:
        """Let the workers end after what they have in hand; waits for them at most ``timeout_s`` each."""
        self.queue.close(self.count)
        for thread in self._threads:
            thread.join(timeout_s)

    def execute(self, task: HeldTask) -> None:
        """Execute a task in the caller's thread; only while the pool is ready and has no other task."""
        self._execute(self._workloads[0], task)

    def _run(self) -> None:
        try:
            workload = self._make()
            workload.load()
            self._workloads.append(workload)
            self._report_loaded(self._warm_up(workload), workload.demand.cycles_per_frame)
        except Exception as error:  # a workload is anyone's code
            _log.exception("the workload could not be loaded")
            self._prepared.append(Prepared(self, f"{type(error).__name__}: {error}"))
            self._wake()
            return
        while (task := self.queue.take()) is not None:
            self._execute(workload, task)
            self._finished.append(task)
            self._wake()

    def _warm_up(self, workload: Workload) -> float:
        """What a frame takes, in seconds, measured on frames of the workload's own."""
        import numpy as np

        # A second instance: what generating needs is dropped after it.
        frames = self._make().generate(np.random.default_rng(0), "warm-up", WARM_UP_FRAMES).frames
        spent = []
        for frame in frames:
            payload = pack_clip([frame])
            start_s = time.thread_time()
            workload.execute(payload)
            spent.append(time.thread_time() - start_s)
        return median(spent) * self._slowdown

    def _report_loaded(self, service_s: float, cycles: float) -> None:
        with self._lock:
            self._loaded.append((service_s, cycles))
            if len(self._loaded) < self.count:
                return
        self._prepared.append(Prepared(self, "", median(each for each, _ in self._loaded), cycles))
        self._wake()

    def _execute(self, workload: Workload, task: HeldTask) -> None:
        task.started_s = self._clock.now_s()
        cpu_start_s = time.thread_time()
        try:
            predicted = workload.execute(task.payload).predicted  # type: ignore[arg-type]  # complete, or not queued
        except ProtocolError as error:
            task.problem = (RefusalReason.BAD_PAYLOAD, error.detail)
        except BaseException as error:  # whatever it was, the worker lives on
            _log.exception("task %s of %s failed", task.task_id, task.session.name)
            task.problem = (RefusalReason.EXECUTION_FAILED, f"{type(error).__name__}: {error}")
        else:
            if len(predicted) == task.frames:
                task.predicted = list(predicted)
            else:
                text = f"the payload has {len(predicted)} frames; the offer says {task.frames}"
                task.problem = (RefusalReason.BAD_PAYLOAD, text)
        task.cpu_s = time.thread_time() - cpu_start_s
        if self._slowdown > 1.0:
            self._clock.sleep((self._slowdown - 1.0) * task.cpu_s)
        task.finished_s = self._clock.now_s()


@dataclass(slots=True)
class ServiceTime:
    """How long a frame takes a worker, learnt from the tasks that were executed.

    Attributes:
        per_frame_s: exponentially weighted mean; 0 while nothing is known.
    """

    per_frame_s: float = 0.0

    def learn(self, duration_s: float, frames: int) -> None:
        """A task of so many frames took so long."""
        each_s = duration_s / frames
        self.per_frame_s = (
            self.per_frame_s + LEARNING_RATE * (each_s - self.per_frame_s) if self.per_frame_s else each_s
        )

    def delay_s(self, tasks: Iterable[HeldTask], workers: int, now_s: float) -> float:
        """Estimate of when a worker will be free, from now; 0 when one is.

        The work that is left is taken as shared out evenly, which is exact for one worker and a little low for more.
        Uploads in progress are not counted: they do not hold a worker up.
        """
        left_s = [self._left_s(task, now_s) for task in tasks if not task.is_uploading]
        return 0.0 if len(left_s) < workers else sum(left_s) / workers

    def _left_s(self, task: HeldTask, now_s: float) -> float:
        whole_s = self.per_frame_s * task.frames
        return max(0.0, whole_s - (now_s - task.started_s)) if task.started_s else whole_s
