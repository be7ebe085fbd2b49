"""RAPL through the kernel's powercap: energy of the processor's packages and memory, not of the whole host.

``energy_uj`` counts microjoules and wraps at ``max_energy_range_uj``; only root may read it unless told otherwise; see
the kernel's Documentation/power/powercap. Intel measures it since Haswell. AMD computes it from what the cores do
(Schöne et al. 2021, "Energy efficiency aspects of the AMD Zen 2 architecture"): that is an estimate, and called one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Reading
from edgebed.metering.kernel_files import read_bytes, read_integer

COUNTER_ERROR_FRACTION = 0.05
"""Assumed error of the counters. What hangs on the board beside processor and memory is not in them at all."""

MOST_W = 1000.0
"""No package draws more: a counter that would need more was reset, and one that was not read for long may have wrapped
more often than can be seen."""

MAY_READ = (
    "only root may read it: `sudo chmod a+r /sys/class/powercap/*/energy_uj` lasts until the next boot, the udev rule "
    '`SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/sh -c \'chmod a+r /sys%p/energy_uj\'"` for good'
)


@dataclass(slots=True)
class _Counter:
    """One domain's counter, and what it showed last."""

    name: str
    file: Path
    range_uj: int
    last_uj: int
    last_s: float

    def advance(self, now_s: float) -> tuple[float, float]:
        """Joules since the last reading, and how many of them may be wrong.

        Raises:
            OSError: it cannot be read.
        """
        now_uj = _read_uj(self.file)
        interval_s, step_uj = now_s - self.last_s, now_uj - self.last_uj
        if step_uj < 0:
            step_uj += self.range_uj
        doubt_uj = 0
        if step_uj * 1e-6 > MOST_W * max(interval_s, 1.0):
            step_uj = doubt_uj = now_uj  # reset, by a resume from suspend say: what it showed before is lost
        elif MOST_W * interval_s > self.range_uj * 1e-6:
            doubt_uj = self.range_uj * int(MOST_W * interval_s / (self.range_uj * 1e-6))
        self.last_uj, self.last_s = now_uj, now_s
        return step_uj * 1e-6, doubt_uj * 1e-6


class RaplMeter:
    """Cumulative energy of all packages, and of memory where it is counted apart.

    Args:
        setup: setting ``gain_error_fraction``; its ``proc_root`` says whose processor it is.

    Raises:
        BadInput: a setting is wrong, or there is no RAPL here.
        WorkFailed: it is there and may not be read; the text says how to change that.
    """

    def __init__(self, setup: MeterSetup) -> None:
        self._clock = setup.clock
        self.error = _gain_error_fraction(setup)
        amd = b"AuthenticAMD" in (read_bytes(setup.proc_root / "cpuinfo") or b"")
        self.source = f"estimated:rapl-amd/{setup.board.name}" if amd else "measured:rapl-package"
        now_s = self._clock.now_s()
        domains = _domains(setup.sysfs_root)
        if not domains:
            where = setup.sysfs_root / "class/powercap"
            raise BadInput(
                f"meter rapl: no package under {where}; virtual machines and ARM boards have none (on a PC: "
                "`modprobe intel_rapl_msr`), or use the meter cpu_model"
            )
        try:
            self._counters = [_Counter(name, file, _range_uj(file), _read_uj(file), now_s) for name, file in domains]
        except OSError as error:
            raise self._lost(error) from None
        self._energy_j = 0.0
        self._error_j = 0.0
        self._last = (now_s, 0.0)
        self._power_w: float | None = None

    def read(self) -> Reading:
        """Read the counters and add what they have counted.

        Raises:
            WorkFailed: they cannot be read now. They go on counting, so that nothing is missed.
        """
        now_s = self._clock.now_s()
        try:
            for counter in self._counters:
                energy_j, doubt_j = counter.advance(now_s)
                self._energy_j += energy_j
                self._error_j += self.error * energy_j + doubt_j
        except OSError as error:
            raise self._lost(error) from None
        last_s, last_j = self._last
        if now_s > last_s:
            self._power_w = (self._energy_j - last_j) / (now_s - last_s)
            self._last = (now_s, self._energy_j)
        return Reading(now_s, self._energy_j, self._power_w, self._error_j, self.source)

    def _lost(self, error: OSError) -> WorkFailed:
        why = MAY_READ if isinstance(error, PermissionError) else f"{error.strerror}; is its driver still loaded?"
        return WorkFailed(f"meter {self.source}: {error.filename}: {why}")


def _domains(sysfs_root: Path) -> list[tuple[str, Path]]:
    """Name and counter of each package, and of memory, which packages do not contain; cores and graphics they do."""
    found = []
    for folder in sorted((sysfs_root / "class/powercap").glob("*:*")):
        name = (read_bytes(folder / "name", 64) or b"").decode("ascii", "replace").strip()
        # The same packages may be shown a second time by the processor's memory-mapped interface.
        if folder.name.startswith("intel-rapl-mmio") or not (name.startswith("package") or name == "dram"):
            continue
        if (folder / "energy_uj").exists():
            found.append((name, folder / "energy_uj"))
    return found


def _range_uj(file: Path) -> int:
    return read_integer(file.with_name("max_energy_range_uj")) or 2**32


def _read_uj(file: Path) -> int:
    text = file.read_bytes()
    try:
        return int(text)
    except ValueError:
        raise OSError(5, f"shows {text[:20]!r}, no number", str(file)) from None


def _gain_error_fraction(setup: MeterSetup) -> float:
    fraction = setup.settings.get("gain_error_fraction", COUNTER_ERROR_FRACTION)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise BadInput(f"meter rapl: gain_error_fraction is {fraction!r}; allowed is a number above 0, up to 1")
    return float(fraction)


def _is_present(setup: MeterSetup) -> bool:
    domains = _domains(setup.sysfs_root)
    return bool(domains) and all(read_integer(file) is not None for _, file in domains)


def _open_meter(setup: MeterSetup) -> Meter:
    return RaplMeter(setup)


DRIVER = MeterDriver(
    name="rapl",
    summary="RAPL energy counters of the processor and memory, not of the whole host (measured by Intel)",
    measures=True,
    settings={"gain_error_fraction": f"stated error, {COUNTER_ERROR_FRACTION} by default (assumed)"},
    is_present=_is_present,
    open_meter=_open_meter,
    rank=30,
)
