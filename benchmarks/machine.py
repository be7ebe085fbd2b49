"""What the measurements were made on, and who else was busy meanwhile."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from edgebed.metering.cpu import process_cpu_of
from edgebed.metering.kernel_files import CpuTimes, read_cpu_times

R = TypeVar("R")

ENOUGH = 0.5
"""Share of the rounds that must count for a conclusion."""

VERDICTS = {True: "within the limits", False: "NOT WITHIN THE LIMITS", None: "INCONCLUSIVE: others used the machine"}
"""How a benchmark's ``within_limit`` is told to people."""


def machine() -> dict[str, Any]:
    """The machine, as every benchmark states it."""
    return {
        "machine": f"{_model()}, {os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a kernel file, read line by line
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


class Bystanders:
    """How much of the machine others used in a while: all busy time, minus that of the processes named.

    Args:
        own: process ids whose time is not others'; this process is always one.
    """

    def __init__(self, own: Iterable[int]) -> None:
        self._own = {os.getpid(), *own}
        self._start = self._now()

    def _now(self) -> tuple[float, CpuTimes, float]:
        times = read_cpu_times("/proc")
        assert times is not None, "this benchmark needs /proc/stat"
        return time.monotonic(), times, sum(process_cpu_of(pid) or 0.0 for pid in self._own)

    def restart(self) -> None:
        """Begin another while."""
        self._start = self._now()

    def share(self) -> float:
        """Cores that others kept busy since the start, as a share of one core; below 0 is rounding."""
        start_s, start, start_own_s = self._start
        now_s, now, own_s = self._now()
        return ((now.busy_s - start.busy_s) - (own_s - start_own_s)) / (now_s - start_s)


def conclude(kept: Sequence[R], found: Sequence[R]) -> tuple[bool, Sequence[R]]:
    """Whether enough rounds were undisturbed to conclude anything, and the rounds to report.

    With too few, all rounds are reported, for what they are worth, and nothing is concluded from them.
    """
    enough = len(kept) >= max(3, ENOUGH * len(found))
    return enough, kept if enough else found
