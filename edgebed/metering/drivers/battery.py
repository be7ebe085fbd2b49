"""A battery through the kernel's power_supply class: the whole host, while it runs from the battery.

The kernel shows ``power_now`` (microwatts), or ``current_now`` (microamperes) and ``voltage_now`` (microvolts), and a
charge counter, ``energy_now`` (microwatt-hours) or ``charge_now`` (microampere-hours); see the kernel's
Documentation/ABI/testing/sysfs-class-power. Gauges are coarse and slow: power is integrated, and the charge counter
is what the sum is held against.
"""

from __future__ import annotations

from pathlib import Path

from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Reading
from edgebed.metering.integral import PowerIntegral
from edgebed.metering.kernel_files import read_integer
from edgebed.metering.power_supply import DISCHARGING, batteries, read_text

GAUGE_ERROR_FRACTION = 0.10
"""Assumed error of a fuel gauge: their makers state a few per cent, and they show means over seconds."""

LONGEST_INTERVAL_S = 30.0
"""Gauges show means over seconds up to half a minute; readings further apart say little about the time between."""

_J_PER_UWH = 3600e-6


class BatteryMeter:
    """Cumulative energy taken from one battery.

    ``error_j`` is that of `PowerIntegral`; where the battery's own charge counter has fallen by more, or by less, than
    the sum and its error say (and a counter's step is no explanation), the gap is added to it.

    Args:
        setup: settings ``device`` and ``gain_error_fraction``, see ``DRIVER``.

    Raises:
        BadInput: a setting is wrong, there is no such battery or there are several, or it is not discharging.
    """

    def __init__(self, setup: MeterSetup) -> None:
        self._clock = setup.clock
        self.error = _gain_error_fraction(setup)
        self._folder = _choose(setup)
        self.source = "measured:battery"
        problem = _problem(self._folder)
        power_w = _power_w(self._folder)
        if problem or power_w is None:
            raise BadInput(f"meter battery: {self._folder} {problem or _NO_POWER}")
        self._sum = PowerIntegral(self.error, LONGEST_INTERVAL_S, self._clock.now_s(), power_w)
        self._counter_start_j = self._counter_j = _counter_j(self._folder)
        self._step_j = 0.0
        self._gap_j = 0.0

    def read(self) -> Reading:
        """Read the gauge and add the energy since the reading before.

        Raises:
            WorkFailed: the battery cannot be read, or is being charged: then it says nothing about the host.
        """
        problem = _problem(self._folder)
        power_w = _power_w(self._folder)
        if problem or power_w is None:
            self._sum.lose()
            # While it was charged the counter rose: from here on it is compared anew.
            self._counter_start_j = None
            raise WorkFailed(f"meter {self.source}: {self._folder} {problem or _NO_POWER}")
        now_s = self._clock.now_s()
        self._sum.add(now_s, power_w)
        self._compare()
        return Reading(now_s, self._sum.energy_j, power_w, self._sum.error_j + self._gap_j, self.source)

    def _compare(self) -> None:
        """Hold the sum against the charge counter."""
        counter_j = _counter_j(self._folder)
        if counter_j is None:
            return
        if self._counter_start_j is None:
            self._counter_start_j = counter_j + self._sum.energy_j
        elif self._counter_j is not None and counter_j != self._counter_j:
            step_j = abs(self._counter_j - counter_j)
            self._step_j = min(self._step_j, step_j) if self._step_j else step_j
            gap_j = abs(self._sum.energy_j - (self._counter_start_j - counter_j))
            self._gap_j = max(self._gap_j, gap_j - 2 * self._step_j - self._sum.error_j)
        self._counter_j = counter_j


_NO_POWER = (
    "shows neither power_now nor current_now and voltage_now, so that its power is not known; use the meter cpu_model"
)


def _problem(folder: Path) -> str:
    """Why the battery says nothing about the host's power now; empty when it does."""
    status = read_text(folder / "status")
    if not status:
        return "cannot be read; is the battery in?"
    if status != DISCHARGING:
        return f"is {status.lower()}, not discharging, and says nothing about the host then; unplug the charger"
    return ""


def _power_w(folder: Path) -> float | None:
    power_uw = read_integer(folder / "power_now")
    if power_uw is not None:
        return abs(power_uw) * 1e-6  # some drivers give what flows out a minus
    current_ua, voltage_uv = read_integer(folder / "current_now"), read_integer(folder / "voltage_now")
    return None if current_ua is None or voltage_uv is None else abs(current_ua) * voltage_uv * 1e-12


def _counter_j(folder: Path) -> float | None:
    """Energy left in the battery by its own counter, in joules."""
    energy_uwh = read_integer(folder / "energy_now")
    if energy_uwh is not None:
        return energy_uwh * _J_PER_UWH
    charge_uah = read_integer(folder / "charge_now")
    # The design's voltage, not the present one: a voltage that sags would look like energy that was drawn.
    voltage_uv = read_integer(folder / "voltage_min_design")
    return None if charge_uah is None or voltage_uv is None else charge_uah * voltage_uv * 1e-6 * _J_PER_UWH


def _choose(setup: MeterSetup) -> Path:
    found = batteries(setup.sysfs_root)
    wanted = setup.settings.get("device")
    matching = [each for each in found if wanted is None or each.name == wanted]
    listed = ", ".join(each.name for each in found) or "none"
    where = setup.sysfs_root / "class/power_supply"
    if not matching:
        asked = "" if wanted is None else f" {wanted!r}"
        raise BadInput(f"no battery{asked} under {where}; found: {listed}; use the meter cpu_model")
    if len(matching) > 1:
        raise BadInput(f"several batteries under {where}: {listed}; name one with the setting `device`")
    return matching[0]


def _gain_error_fraction(setup: MeterSetup) -> float:
    fraction = setup.settings.get("gain_error_fraction", GAUGE_ERROR_FRACTION)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise BadInput(f"meter battery: gain_error_fraction is {fraction!r}; allowed is a number above 0, up to 1")
    return float(fraction)


def _is_present(setup: MeterSetup) -> bool:
    found = batteries(setup.sysfs_root)
    return len(found) == 1 and not _problem(found[0]) and _power_w(found[0]) is not None


def _open_meter(setup: MeterSetup) -> Meter:
    return BatteryMeter(setup)


DRIVER = MeterDriver(
    name="battery",
    summary="a discharging battery's own gauge through the kernel's power_supply; coarse (measured)",
    measures=True,
    settings={
        "device": "the battery when there are several, as in sysfs, for example BAT0",
        "gain_error_fraction": f"stated error of the gauge, {GAUGE_ERROR_FRACTION} by default (assumed)",
    },
    is_present=_is_present,
    open_meter=_open_meter,
    rank=20,
)
