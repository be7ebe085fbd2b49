"""Reading the small files in which a Linux kernel shows its numbers, cheaply and without raising.

Files are opened anew for each reading. Keeping them open would save a few microseconds, but a kept descriptor does not
see that a driver was reloaded, and shows the old numbers of a file that was replaced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# One read gets all of a sysfs file (a page at most) and the part of /proc/stat before the interrupts.
_MOST_BYTES = 65536
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def read_bytes(path: str | Path, most_bytes: int = _MOST_BYTES) -> bytes | None:
    """The file's first bytes, or None when it cannot be read now."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, most_bytes)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_integer(path: str | Path, base: int = 10) -> int | None:
    """The one integer in a file, or None when it cannot be read or is none."""
    data = read_bytes(path, 64)
    if data is None:
        return None
    try:
        return int(data, base)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time of a host since it started, summed over its cores.

    Attributes:
        busy_s: core-seconds that the host executed something, in steps of the kernel's tick (10 ms).
        total_s: core-seconds altogether: busy, idle, waiting for input and output, and stolen by a hypervisor.
        cores: cores online.
    """

    busy_s: float
    total_s: float
    cores: int


def read_cpu_times(proc_root: Path | str) -> CpuTimes | None:
    """The host's CPU times from ``stat`` under ``proc_root``, or None when they cannot be read.

    A system without procfs (macOS) is asked through psutil, if ``proc_root`` is the real one.
    """
    data = read_bytes(f"{proc_root}/stat")
    if data is None:
        return _psutil_cpu_times() if str(proc_root) == "/proc" else None
    fields = data.partition(b"\n")[0].split()
    if len(fields) < 5 or fields[0] != b"cpu":
        return None
    try:
        # user nice system idle iowait irq softirq steal; the guest times after them are in user and nice already.
        ticks = [int(each) for each in fields[1:9]]
    except ValueError:
        return None
    # Idle, iowait and stolen time are time in which this host executed nothing.
    not_busy = ticks[3] + sum(ticks[4:5]) + sum(ticks[7:8])
    total = sum(ticks)
    return CpuTimes((total - not_busy) / _TICKS_PER_S, total / _TICKS_PER_S, max(1, data.count(b"\ncpu")))


def _psutil_cpu_times() -> CpuTimes | None:
    # Imported here: where there is a procfs, nobody pays for psutil.
    import psutil

    try:
        times = psutil.cpu_times()
    except (OSError, psutil.Error):
        return None
    total_s = float(sum(times))
    return CpuTimes(total_s - times.idle, total_s, psutil.cpu_count() or 1)
