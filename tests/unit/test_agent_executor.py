from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from device_agent.executor import ClipJob, ExecutedClip, Executor, SlowedWorkload
from edgebed.clock import ManualClock, MonotonicClock
from workloads.base import Payload, Result, pack_clip
from workloads.testing import InstantWorkload

PATIENCE_S = 20.0
CLIP = pack_clip([b"\x05rest", b"\x07rest"])


class Busy(InstantWorkload):
    """Burns CPU seconds."""

    def __init__(self, cpu_s: float) -> None:
        super().__init__()
        self.cpu_s = cpu_s

    def execute(self, payload: Payload) -> Result:
        end_s = time.thread_time() + self.cpu_s
        while time.thread_time() < end_s:
            pass
        return super().execute(payload)


def test_a_slower_board_is_waited_for() -> None:
    waits_s: list[float] = []
    clock = MonotonicClock()
    slowed = SlowedWorkload(Busy(0.02), 4.0, clock, waits_s.append)
    done = slowed.execute(lambda: CLIP, 2)
    assert done.predicted == [5, 7]
    assert 0.02 <= done.cpu_s < 0.1
    assert waits_s == [pytest.approx(3 * done.cpu_s)]
    assert done.finished_s - done.started_s >= done.cpu_s


def test_a_board_at_its_own_speed_is_not() -> None:
    clock = ManualClock()
    slowed = SlowedWorkload(InstantWorkload(), 1.0, clock, lambda duration_s: pytest.fail("it waited"))
    done = slowed.execute(lambda: CLIP, 2)
    assert (done.padding_s, done.started_s, done.finished_s, done.error) == (0.0, 0.0, 0.0, "")


@pytest.mark.parametrize(
    ("payload", "frames", "error"),
    [(b"", 2, "bad_payload"), (CLIP, 3, "2 answers for 3 frames")],
)
def test_what_goes_wrong_is_said(payload: bytes, frames: int, error: str) -> None:
    slowed = SlowedWorkload(InstantWorkload(), 1.0, ManualClock(), lambda duration_s: None)
    assert error in slowed.execute(lambda: payload, frames).error


def test_even_an_error_that_nobody_foresaw() -> None:
    def read() -> bytes:
        raise ZeroDivisionError("of the workload")

    slowed = SlowedWorkload(InstantWorkload(), 1.0, ManualClock(), lambda duration_s: None)
    assert "ZeroDivisionError" in slowed.execute(read, 1).error


class Rendezvous:
    """A job that says when it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.thread = threading.Event(), threading.Event(), ""

    def run(self) -> None:
        self.thread = threading.current_thread().name
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)


@pytest.fixture
def woken() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture
def executor(woken: threading.Semaphore) -> Iterator[Executor]:
    made = Executor(MonotonicClock(), woken.release)
    yield made
    assert made.close()


def clip_job() -> ClipJob:
    return ClipJob(SlowedWorkload(InstantWorkload(), 1.0, MonotonicClock(), lambda s: None), lambda: CLIP, 2)


def test_jobs_are_done_in_order_and_wake_the_loop(executor: Executor, woken: threading.Semaphore) -> None:
    jobs = [clip_job() for _ in range(3)]
    for job in jobs:
        executor.submit(job)
    for _ in jobs:
        assert woken.acquire(timeout=PATIENCE_S)
    assert executor.has_finished
    assert executor.finished() == jobs
    assert executor.finished() == []
    assert all(job.result is not None and job.result.predicted == [5, 7] for job in jobs)
    starts_s = [job.started_s for job in jobs]
    assert starts_s == sorted(starts_s)


def test_only_what_has_not_begun_can_be_taken_back(executor: Executor, woken: threading.Semaphore) -> None:
    first, second, third = Rendezvous(), clip_job(), clip_job()
    for job in (first, second, third):
        executor.submit(job)
    assert first.begun.wait(PATIENCE_S)
    assert first.thread == "executor"
    assert not executor.cancel(first)
    assert executor.cancel(second)
    assert not executor.cancel(second)
    first.may_end.set()
    for _ in range(2):
        assert woken.acquire(timeout=PATIENCE_S)
    assert executor.finished() == [first, third]
    assert second.started_s is None
    assert isinstance(third.result, ExecutedClip)


def test_closing_ends_its_waits_and_drops_the_queue(woken: threading.Semaphore) -> None:
    executor = Executor(MonotonicClock(), woken.release)
    waiting = threading.Event()

    class Waits:
        def run(self) -> None:
            waiting.set()
            assert executor.wait(PATIENCE_S), "closing ends it early"

    never = clip_job()
    executor.submit(Waits())
    executor.submit(never)
    assert waiting.wait(PATIENCE_S)
    assert executor.close()
    assert never.result is None
