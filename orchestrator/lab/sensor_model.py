"""What a virtual board's sensors show: stated models of power, heat and clock, and a script that overrides them. Pure.

Models, all of them simple and said so:

- power = idle + (max - idle) u, with the board's published fit; u = CPU seconds of the host a second and core;
- temperature follows power with a time constant, to the ambient's at no power and to `FULL_LOAD_C` at full power;
- the clock is the nominal one when the host does something and the lowest one when not; from `CAPPED_C` on the firmware
  caps it, as on a Pi 4 or 5, and the throttle word says so.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from edgebed.errors import BadInput, Problem

AMBIENT_C = 25.0
FULL_LOAD_C = 75.0
THERMAL_TIME_S = 60.0
"""Assumed, for a board without a fan; a steady state takes minutes."""

CAPPED_C, THROTTLED_C = 80.0, 85.0
CAPPED_FRACTION, THROTTLED_FRACTION = 0.8, 0.4
LOWEST_HZ = 600e6
POWER_STEP_W = 0.020
"""What an INA219 resolves with the usual shunt."""

BATTERY_J = 10.0 * 3600
_BUSY = 0.02

UNDER_VOLTAGE, CAPPED, THROTTLED = 0x1, 0x2, 0x4
_NOW_BITS = 0xF
_OCCURRED_SHIFT = 16


@dataclass(frozen=True, slots=True)
class Script:
    """What sensors are made to show; None leaves a value to its model.

    Attributes:
        temperature_c: of the processor; the firmware reacts to it as to a real one.
        power_w: of the whole board.
        frequency_hz: of all cores; below the nominal one the host's CPU quota shrinks in proportion.
        throttle_word: bits 0 to 3 (now); bits 16 to 19 (occurred) follow and stay until the host boots.
        battery_fraction: charge, 0 to 1, from which the battery goes on.
    """

    temperature_c: float | None = None
    power_w: float | None = None
    frequency_hz: float | None = None
    throttle_word: int | None = None
    battery_fraction: float | None = None

    def with_changes(self, changes: dict[str, Any]) -> Script:
        """This script with some values replaced.

        Raises:
            BadInput: an unknown value, or one out of range.
        """
        ranges = {
            "temperature_c": (-40.0, 150.0),
            "power_w": (0.0, 100.0),
            "frequency_hz": (1e6, 1e11),
            "throttle_word": (0, _NOW_BITS),
            "battery_fraction": (0.0, 1.0),
        }
        problems = []
        for key, value in changes.items():
            if key not in ranges:
                problems.append(Problem(f"is unknown; allowed: {', '.join(ranges)}", key=f"sensors: {key}"))
            elif value is not None and not _is_in(value, *ranges[key]):
                low, high = ranges[key]
                problems.append(Problem(f"{value!r} is not in {low:g} to {high:g}", key=f"sensors: {key}"))
        if problems:
            raise BadInput(problems)
        return replace(self, **changes)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


SCRIPT_KEYS = tuple(each.name for each in fields(Script))


def _is_in(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and low <= value <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """What the models need of a board."""

    nominal_hz: float
    idle_w: float
    max_w: float


@dataclass(slots=True)
class SensorModel:
    """The sensors of one host over time.

    Args:
        board: its facts.
        cores: that the host sees; what u is a fraction of.
        start_s: on the clock that `step` is called with.

    Attributes:
        script: what is overridden.
        energy_j: what the shown power adds up to since the start, exactly: shown power times the time it was shown.
    """

    board: BoardFacts
    cores: int
    start_s: float
    script: Script = Script()
    energy_j: float = 0.0
    power_w: float = 0.0
    temperature_c: float = AMBIENT_C
    frequency_hz: float = LOWEST_HZ
    utilisation: float = 0.0
    _occurred: int = 0
    _now: int = 0
    _last_s: float = 0.0
    _last_cpu_s: float = 0.0
    _battery_j: float = BATTERY_J

    def __post_init__(self) -> None:
        self._last_s = self.start_s
        self.power_w = _shown_power_w(self.board.idle_w)
        self.frequency_hz = min(LOWEST_HZ, self.board.nominal_hz)

    def step(self, now_s: float, cpu_s: float) -> None:
        """Go on to now.

        Args:
            now_s: monotonic.
            cpu_s: CPU seconds that the host has used so far.
        """
        interval_s = now_s - self._last_s
        if interval_s <= 0:
            return
        # What was shown until now is what was drawn until now.
        self.energy_j += self.power_w * interval_s
        self._battery_j = max(0.0, self._battery_j - self.power_w * interval_s)
        used_s = max(0.0, cpu_s - self._last_cpu_s)  # a group that was made anew counts from 0 again
        self.utilisation = min(1.0, used_s / (interval_s * self.cores))
        self._last_s, self._last_cpu_s = now_s, cpu_s
        self._follow(interval_s)

    def _follow(self, interval_s: float) -> None:
        script, board = self.script, self.board
        modelled_w = board.idle_w + (board.max_w - board.idle_w) * self.utilisation
        self.power_w = _shown_power_w(modelled_w if script.power_w is None else script.power_w)
        goal_c = AMBIENT_C + (FULL_LOAD_C - AMBIENT_C) * self.power_w / board.max_w
        self.temperature_c += (goal_c - self.temperature_c) * (1 - math.exp(-interval_s / THERMAL_TIME_S))
        if script.temperature_c is not None:
            self.temperature_c = script.temperature_c
        wanted_hz = board.nominal_hz if self.utilisation > _BUSY else min(LOWEST_HZ, board.nominal_hz)
        self.frequency_hz = min(wanted_hz, self.highest_hz)
        if script.frequency_hz is not None:
            self.frequency_hz = script.frequency_hz
        self._now = self._heat_bits() | (script.throttle_word or 0)
        self._occurred |= self._now

    def _heat_bits(self) -> int:
        if self.temperature_c >= THROTTLED_C:
            return CAPPED | THROTTLED
        return CAPPED if self.temperature_c >= CAPPED_C else 0

    @property
    def highest_hz(self) -> float:
        """The highest clock that heat, or the script, allows now."""
        if self.script.frequency_hz is not None:
            return min(self.script.frequency_hz, self.board.nominal_hz)
        bits = self._heat_bits()
        fraction = THROTTLED_FRACTION if bits & THROTTLED else CAPPED_FRACTION if bits & CAPPED else 1.0
        return self.board.nominal_hz * fraction

    @property
    def throttle_word(self) -> int:
        """As a Pi's firmware gives it."""
        return self._occurred << _OCCURRED_SHIFT | self._now

    @property
    def battery_fraction(self) -> float:
        """Charge, 0 to 1."""
        return self._battery_j / BATTERY_J

    def change(self, changes: dict[str, Any]) -> None:
        """Change the script; it is followed from the next step on.

        Raises:
            BadInput: see `Script.with_changes`.
        """
        self.script = self.script.with_changes(changes)
        if changes.get("battery_fraction") is not None:
            self._battery_j = changes["battery_fraction"] * BATTERY_J

    def forget_past(self) -> None:
        """The host boots: the firmware starts anew, too."""
        self._occurred = 0

    def energy_at(self, now_s: float) -> float:
        """`energy_j` brought up to now."""
        return self.energy_j + self.power_w * max(0.0, now_s - self._last_s)


def _shown_power_w(power_w: float) -> float:
    return round(power_w / POWER_STEP_W) * POWER_STEP_W
