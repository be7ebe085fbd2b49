"""A host beside its meter, idle and under load: the program that ``edgebed check --calibrate`` runs on a host.

It reads its settings as JSON from standard input and prints one line of JSON. The load ends by itself: every busy
process knows its deadline, and ends as well when this program is gone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from edgebed.clock import Clock, MonotonicClock
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.metering.base import Meter, MeterSetup, window_energy
from edgebed.metering.board import board_from_dict
from edgebed.metering.health import HostSampler, throttle_flags
from edgebed.metering.kernel_files import CpuTimes, read_cpu_times
from edgebed.metering.registry import open_meter

LOADS = (0.0, 0.5, 1.0, 0.25, 0.75, 0.0)
"""Shares of the processors to keep busy, in this order: a drift with heat shows in the two idle ones."""

READ_INTERVAL_S = 0.1

# Keeps one core busy for a share of the time, in turns of 10 ms, until its deadline or until its parent is gone.
_BUSY = """
import os, sys, time
share, seconds, parent = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
end = time.monotonic() + seconds
while (now := time.monotonic()) < end and os.getppid() == parent:
    rest = now + 0.01 * share
    while time.monotonic() < rest:
        pass
    if share < 1.0:
        time.sleep(0.01 * (1.0 - share))
"""

Positive = Annotated[float, Meta(gt=0.0, le=60.0)]


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the program is told.

    Attributes:
        board: a board file's content. meter, meter_options: as in the inventory.
        settle_s: how long a load is held before it is measured. window_s: how long it is measured.
    """

    board: dict[str, Any]
    meter: str
    meter_options: dict[str, Any] = {}
    sysfs_root: str = "/sys"
    proc_root: str = "/proc"
    settle_s: Positive = 3.0
    window_s: Positive = 6.0


class Window(msgspec.Struct, kw_only=True, frozen=True):
    """What a meter said of a host under one load.

    Attributes:
        asked: share of the processors that was to be busy. utilisation: share that was, 0..1.
        power_w: mean of the window. error_w: bound on its error, by the meter's own word.
        flags: what the board's throttle word said meanwhile, see `edgebed.metering.health.throttle_flags`.
    """

    asked: float
    utilisation: float
    power_w: float
    error_w: float
    flags: list[str] = []


class Answer(msgspec.Struct, kw_only=True, frozen=True):
    """What the program prints.

    Attributes:
        problem: why there are no windows; empty when there are.
    """

    source: str = ""
    windows: list[Window] = []
    problem: str = ""


class Load(Protocol):
    """Keeps a share of the processors busy while it is entered, but never for longer than so many seconds."""

    def __call__(self, share: float, seconds: float) -> Any:
        """A context manager."""
        ...


def duties(share: float, cores: int) -> list[float]:
    """How busy each process has to be, a core each, so that together they keep a share of the cores busy."""
    wanted = share * cores
    whole = int(wanted + 1e-9)
    rest = wanted - whole
    return [1.0] * whole + ([rest] if rest > 1e-9 else [])


def processes_load(cores: int) -> Load:
    """A load of real processes."""
    import os

    @contextmanager
    def load(share: float, seconds: float) -> Any:
        processes = [
            subprocess.Popen([sys.executable, "-I", "-c", _BUSY, str(duty), str(seconds), str(os.getpid())])
            for duty in duties(share, cores)
        ]
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.wait()

    return load


def measure(
    meter: Meter,
    load: Load,
    clock: Clock,
    read_times: Callable[[], CpuTimes | None],
    read_word: Callable[[], int | None],
    settings: Settings,
    loads: Sequence[float] = LOADS,
) -> list[Window]:
    """Hold one load after the other, and see what the meter says.

    Raises:
        WorkFailed: the meter or the processors' times cannot be read.
    """
    windows = []
    for share in loads:
        with load(share, 2 * (settings.settle_s + settings.window_s) + 5.0):
            _watch(meter, clock, settings.settle_s, read_word)
            before, start = _times(read_times), meter.read()
            flags = _watch(meter, clock, settings.window_s, read_word)
            after, end = _times(read_times), meter.read()
        energy, duration_s = window_energy(start, end), end.t_s - start.t_s
        windows.append(
            Window(
                asked=share,
                utilisation=_utilisation(before, after),
                power_w=energy.energy_j / duration_s,
                error_w=energy.error_j / duration_s,
                flags=sorted(flag for flag in flags if not flag.endswith("_occurred")),
            )
        )
    return windows


def _watch(meter: Meter, clock: Clock, duration_s: float, read_word: Callable[[], int | None]) -> frozenset[str]:
    """Wait, and look at the meter meanwhile: only what is looked at can be added up. Returns the flags seen."""
    seen: frozenset[str] = frozenset()
    end_s = clock.now_s() + duration_s
    while clock.now_s() < end_s:
        clock.sleep(READ_INTERVAL_S)
        meter.read()
        seen |= throttle_flags(read_word())
    return seen


def _times(read_times: Callable[[], CpuTimes | None]) -> CpuTimes:
    times = read_times()
    if times is None:
        raise WorkFailed("the processors' times cannot be read; is procfs mounted?")
    return times


def _utilisation(before: CpuTimes, after: CpuTimes) -> float:
    total_s = after.total_s - before.total_s
    return min(1.0, max(0.0, (after.busy_s - before.busy_s) / total_s)) if total_s > 0 else 0.0


def run(settings: Settings) -> Answer:
    """Measure this host; what goes wrong is in the answer."""
    clock = MonotonicClock()
    sysfs_root, proc_root = Path(settings.sysfs_root), Path(settings.proc_root)
    sampler = HostSampler(clock, sysfs_root, proc_root)
    try:
        board = board_from_dict(settings.board)
        meter = open_meter(settings.meter, MeterSetup(clock, board, sysfs_root, proc_root, settings.meter_options))

        def read_times() -> CpuTimes | None:
            return read_cpu_times(proc_root)

        def read_word() -> int | None:
            return sampler.sample().throttle_word

        load = processes_load(_times(read_times).cores)
        return Answer(source=meter.source, windows=measure(meter, load, clock, read_times, read_word, settings))
    except EdgebedError as error:
        return Answer(problem=str(error))
    finally:
        sampler.close()


def main() -> None:
    """Settings from standard input, the answer to standard output."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    sys.stdout.buffer.write(msgspec.json.encode(run(settings)) + b"\n")


if __name__ == "__main__":
    main()
