"""The board's CPU model as a meter: joules computed from CPU time, where there is no sensor.

E = idle T + (max - idle) B / n, with T the seconds since the meter was opened, B the busy core-seconds of the whole
host in them and n its cores: the integral of P = idle + (max - idle) u. Radio, USB and disk are not in it.
"""

from __future__ import annotations

from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Reading
from edgebed.metering.kernel_files import CpuTimes, read_cpu_times


class CpuModelMeter:
    """Cumulative energy of a board by its CPU model.

    ``power_w`` of a reading is the mean since the reading before. Kernel ticks of 10 ms make single steps coarse, not
    the sum: energy is computed from all the busy time since opening, so that rounding does not add up.

    Args:
        setup: its board gives the model, its ``proc_root`` the busy time.

    Raises:
        BadInput: the host's CPU times cannot be read.
    """

    def __init__(self, setup: MeterSetup) -> None:
        first = read_cpu_times(setup.proc_root)
        if first is None:
            raise BadInput(
                f"the CPU model cannot be used: {setup.proc_root}/stat does not give CPU times; mount procfs"
            )
        self._setup = setup
        self._opened_s = setup.clock.now_s()
        self._last_times = first
        self._busy_s = 0.0
        self._last: tuple[float, float] = (self._opened_s, 0.0)
        self.source = setup.board.energy_source
        self.error = setup.board.error_fraction

    def read(self) -> Reading:
        """Bring the energy up to now.

        Raises:
            WorkFailed: the host's CPU times cannot be read now.
        """
        times = read_cpu_times(self._setup.proc_root)
        if times is None:
            raise WorkFailed(
                f"meter {self.source}: {self._setup.proc_root}/stat cannot be read any more; is procfs still mounted?"
            )
        return self.read_at(times)

    def read_at(self, times: CpuTimes) -> Reading:
        """Bring the energy up to now, with the CPU times that somebody has just read."""
        now_s = self._setup.clock.now_s()
        energy_j = self._energy_j(now_s - self._opened_s, times)
        last_s, last_j = self._last
        power_w = (energy_j - last_j) / (now_s - last_s) if now_s > last_s else None
        self._last = (now_s, energy_j)
        # The tick (10 ms of busy time, at most) is well inside the model's own error after a tenth of a second.
        return Reading(now_s, energy_j, power_w, self.error * energy_j, self.source)

    def _energy_j(self, elapsed_s: float, times: CpuTimes) -> float:
        # Counters that went back (a container whose view was replaced) count as no work, never as negative work.
        self._busy_s += max(0.0, times.busy_s - self._last_times.busy_s)
        self._last_times = times
        # Ticks may run ahead of the clock by one; no more than all cores can have been busy.
        busy_share_s = min(self._busy_s / times.cores, elapsed_s)
        board = self._setup.board
        # A core that goes off line changes the divisor; what was reported stays reported.
        return max(self._last[1], board.idle_w * elapsed_s + board.span_w * busy_share_s)


def _is_present(setup: MeterSetup) -> bool:
    return read_cpu_times(setup.proc_root) is not None


def _open_meter(setup: MeterSetup) -> Meter:
    return CpuModelMeter(setup)


DRIVER = MeterDriver(
    name="cpu_model",
    summary="the board's CPU model, P = idle + (max - idle) u (estimated)",
    measures=False,
    settings={},
    is_present=_is_present,
    open_meter=_open_meter,
)
