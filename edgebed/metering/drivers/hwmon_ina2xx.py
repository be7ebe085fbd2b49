"""INA2xx current sensors through the kernel's hwmon: the power of a whole board, measured at its supply.

The kernel shows ``power1_input`` in microwatts, or ``in1_input`` (millivolts) and ``curr1_input`` (milliamperes), see
the kernel's Documentation/hwmon/ina2xx.rst. Power is integrated by the trapezoid rule over the given clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Reading
from edgebed.metering.integral import PowerIntegral
from edgebed.metering.kernel_files import read_bytes, read_integer

GAIN_ERROR_FRACTION = 0.015
"""Clone boards miss their gain by about this much; a calibrated sensor may state less."""

LONGEST_INTERVAL_S = 2.0
"""Two readings further apart than this say little about the time between them."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """The smallest steps that the kernel's driver for a chip can show, at the coarsest setting of usual shunts."""

    power_w: float
    voltage_v: float
    current_a: float


# From the register sizes in the kernel's ina2xx, ina238 and ina3221 drivers, for shunts of 10 milliohms or more
# (INA237 and INA238: 2 or more).
_CHIPS = {
    "ina219": _Steps(0.020, 0.004, 0.001),
    "ina220": _Steps(0.020, 0.004, 0.001),
    "ina226": _Steps(0.025, 0.00125, 0.001),
    "ina230": _Steps(0.025, 0.00125, 0.001),
    "ina231": _Steps(0.025, 0.00125, 0.001),
    "ina260": _Steps(0.010, 0.00125, 0.00125),
    "ina237": _Steps(0.002, 0.003125, 0.010),
    "ina238": _Steps(0.002, 0.003125, 0.010),
    "ina3221": _Steps(0.040, 0.008, 0.004),
}


@dataclass(frozen=True, slots=True)
class _Sensor:
    """One chip in sysfs. Its folder gets another number when the driver is loaded again, its device does not."""

    folder: Path
    chip: str
    device: str


@dataclass(frozen=True, slots=True)
class _Sample:
    power_w: float
    step_w: float


class Ina2xxMeter:
    """Cumulative energy from one INA2xx chip.

    ``error_j`` = gain error x energy + half a step of the sensor x time + all energy of the times that nobody saw:
    those in which the sensor could not be read, or was not read for more than ``LONGEST_INTERVAL_S``.

    Args:
        setup: settings are ``device``, ``channel`` and ``gain_error_fraction``, see ``DRIVER``.

    Raises:
        BadInput: a setting is wrong, or there is no such sensor, or there are several.
        WorkFailed: the sensor is there and cannot be read.
    """

    def __init__(self, setup: MeterSetup) -> None:
        self._sysfs_root = setup.sysfs_root
        self._clock = setup.clock
        self._channel = _channel(setup)
        self.error = _gain_error_fraction(setup)
        self._sensor = _choose(_find_sensors(setup.sysfs_root), setup)
        self.source = f"measured:{self._sensor.chip}"
        first_s = self._clock.now_s()
        first = self._sample()
        self._sum = PowerIntegral(self.error, LONGEST_INTERVAL_S, first_s, first.power_w, first.step_w)

    def read(self) -> Reading:
        """Read the sensor and add the energy since the reading before.

        Raises:
            WorkFailed: the sensor cannot be read, or shows a current that flows backwards.
        """
        try:
            sample = self._sample()
        except WorkFailed:
            self._sum.lose()
            raise
        now_s = self._clock.now_s()
        self._sum.add(now_s, sample.power_w, sample.step_w)
        return Reading(now_s, self._sum.energy_j, sample.power_w, self._sum.error_j, self.source)

    def _sample(self) -> _Sample:
        sample = _read_sample(self._sensor, self._channel)
        if sample is None:
            # The driver may have been loaded again: then the same device has a folder with another number.
            for sensor in _find_sensors(self._sysfs_root):
                if (sensor.chip, sensor.device) == (self._sensor.chip, self._sensor.device):
                    self._sensor = sensor
                    sample = _read_sample(sensor, self._channel)
        if sample is None:
            raise WorkFailed(
                f"meter {self.source}: {self._sensor.folder} gives no power on channel {self._channel}; "
                "check the sensor's wires and `dmesg | grep ina`"
            )
        if sample.power_w < -sample.step_w:
            raise WorkFailed(
                f"meter {self.source}: {self._sensor.folder} shows {sample.power_w:.3f} W, so current flows "
                "backwards; swap the two wires of the shunt"
            )
        return _Sample(max(0.0, sample.power_w), sample.step_w)


def _find_sensors(sysfs_root: Path) -> list[_Sensor]:
    """All INA2xx chips that hwmon shows, in the order of their folders."""
    found = []
    for folder in sorted((sysfs_root / "class" / "hwmon").glob("hwmon*")):
        chip = (read_bytes(folder / "name", 64) or b"").decode("ascii", "replace").strip()
        if chip in _CHIPS:
            device = folder / "device"
            found.append(_Sensor(folder, chip, device.resolve().name if device.exists() else folder.name))
    return found


def _read_sample(sensor: _Sensor, channel: int) -> _Sample | None:
    steps = _CHIPS[sensor.chip]
    power_uw = read_integer(sensor.folder / f"power{channel}_input")
    if power_uw is not None:
        return _Sample(power_uw * 1e-6, steps.power_w)
    voltage_mv = read_integer(sensor.folder / f"in{channel}_input")
    current_ma = read_integer(sensor.folder / f"curr{channel}_input")
    if voltage_mv is None or current_ma is None:
        return None
    voltage_v, current_a = voltage_mv * 1e-3, current_ma * 1e-3
    step_w = abs(voltage_v) * steps.current_a + abs(current_a) * steps.voltage_v
    return _Sample(voltage_v * current_a, step_w)


def _choose(sensors: list[_Sensor], setup: MeterSetup) -> _Sensor:
    wanted = setup.settings.get("device")
    matching = [each for each in sensors if wanted is None or each.device == wanted]
    listed = ", ".join(f"{each.device} ({each.chip})" for each in sensors) or "none"
    where = setup.sysfs_root / "class" / "hwmon"
    if not matching:
        raise BadInput(
            f"no INA2xx sensor{'' if wanted is None else f' {wanted!r}'} under {where}; found: {listed}; "
            "tell the kernel of it (docs/hardware.md shows how on a Pi), or use the meter cpu_model"
        )
    if len(matching) > 1:
        raise BadInput(f"several INA2xx sensors under {where}: {listed}; name one with the setting `device`")
    return matching[0]


def _channel(setup: MeterSetup) -> int:
    channel = setup.settings.get("channel", 1)
    if isinstance(channel, bool) or not isinstance(channel, int) or not 1 <= channel <= 3:
        raise BadInput(f"meter hwmon_ina2xx: channel is {channel!r}; allowed is a whole number from 1 to 3")
    return channel


def _gain_error_fraction(setup: MeterSetup) -> float:
    fraction = setup.settings.get("gain_error_fraction", GAIN_ERROR_FRACTION)
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise BadInput(f"meter hwmon_ina2xx: gain_error_fraction is {fraction!r}; allowed is a number above 0, up to 1")
    return float(fraction)


def _is_present(setup: MeterSetup) -> bool:
    return bool(_find_sensors(setup.sysfs_root))


def _open_meter(setup: MeterSetup) -> Meter:
    return Ina2xxMeter(setup)


DRIVER = MeterDriver(
    name="hwmon_ina2xx",
    summary="INA219, INA226, INA260, INA238, INA3221 ... through the kernel's hwmon (measured)",
    measures=True,
    settings={
        "device": "the chip's device when there are several, as in sysfs, for example 1-0040",
        "channel": "input of an INA3221 that the board hangs on, 1 to 3 (1 by default)",
        "gain_error_fraction": f"stated gain error, {GAIN_ERROR_FRACTION} by default; less after a calibration",
    },
    is_present=_is_present,
    open_meter=_open_meter,
)
