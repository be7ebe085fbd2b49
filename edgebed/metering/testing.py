"""The checker of the `Meter` contract, and a meter that is scripted.

A test hands the checker a meter and the world that it measures: something that can make the true power known, let time
pass, and take the sensor away. The same checker runs against every registered driver and against `ScriptedMeter`.
"""

from __future__ import annotations

import math
import re
from typing import Protocol

from edgebed.clock import ManualClock
from edgebed.errors import EdgebedError, WorkFailed
from edgebed.metering.base import Meter, Reading, window_energy

_SOURCE = re.compile(r"(measured:[\w.-]+|estimated:[\w.-]+/[\w.-]+)")
_ROUNDING_J = 1e-9


class MeteredWorld(Protocol):
    """What a meter measures, scripted."""

    def spend(self, duration_s: float, power_w: float) -> None:
        """Draw ``power_w`` for ``duration_s``; the meter's clock moves on by as much. 0 s only sets the power."""
        ...

    def take_away(self) -> None:
        """Make the sensor unreadable."""
        ...

    def give_back(self) -> None:
        """Make the sensor readable again; it shows the power spent last."""
        ...


class ScriptedMeter:
    """A meter that is its own world: exact joules of the power it was told, and the error it was told.

    Args:
        clock: moved on by ``spend``.
        error: the error that it states, a fraction.
        source: the source that it states.
    """

    def __init__(self, clock: ManualClock, *, error: float = 0.01, source: str = "measured:scripted") -> None:
        self.source = source
        self.error = error
        self._clock = clock
        self._power_w = 0.0
        self._energy_j = 0.0
        self._is_away = False

    def read(self) -> Reading:
        """The exact energy so far."""
        if self._is_away:
            raise WorkFailed(f"meter {self.source}: it was taken away by its script")
        error_j = self.error * self._energy_j
        return Reading(self._clock.now_s(), self._energy_j, self._power_w, error_j, self.source)

    def spend(self, duration_s: float, power_w: float) -> None:
        """Draw ``power_w`` for ``duration_s``."""
        self._power_w = power_w
        self._energy_j += power_w * duration_s
        self._clock.advance(duration_s)

    def take_away(self) -> None:
        """Let the next reads fail."""
        self._is_away = True

    def give_back(self) -> None:
        """Let reads work again."""
        self._is_away = False


def check_meter(meter: Meter, world: MeteredWorld, powers_w: tuple[float, float], step_s: float = 0.1) -> None:
    """Check every promise of the `Meter` contract.

    Args:
        meter: just opened.
        world: what it measures.
        powers_w: two powers that the meter can show, the lower first.
        step_s: time between readings; longer for a sensor that is not asked at every one.

    Raises:
        AssertionError: which promise is broken, and how.
    """
    _check_description(meter)
    _check_joules(meter, world, powers_w, step_s)
    _check_standing_still(meter)
    _check_lost_and_found(meter, world, powers_w[0], step_s)


def _check_description(meter: Meter) -> None:
    source, error = meter.source, meter.error
    assert _SOURCE.fullmatch(source), f"source is {source!r}; expected measured:<chip> or estimated:<model>/<board>"
    assert 0 < error <= 1, f"error is {error}; expected a fraction, 0 < error <= 1"


def _check_reading(meter: Meter, reading: Reading, before: Reading | None) -> None:
    assert reading.source == meter.source, f"a reading of {meter.source} says {reading.source}"
    for name in ("t_s", "energy_j", "error_j"):
        value = getattr(reading, name)
        assert 0 <= value < math.inf, f"{name} is {value}; expected finite and not negative"
    stated_j = meter.error * reading.energy_j
    assert reading.error_j >= stated_j - _ROUNDING_J, (
        f"error_j is {reading.error_j}, below the stated error, {stated_j}"
    )
    if before is not None:
        for name in ("t_s", "energy_j", "error_j"):
            now, then = getattr(reading, name), getattr(before, name)
            assert now >= then, f"{name} went back from {then} to {now}"


def _check_joules(meter: Meter, world: MeteredWorld, powers_w: tuple[float, float], step_s: float) -> None:
    """Joules are joules: over a time of constant power they are power x time, within the stated error."""
    before: Reading | None = None
    for power_w in powers_w:
        world.spend(0.0, power_w)
        start = meter.read()
        _check_reading(meter, start, before)
        before = start
        for _ in range(10):
            world.spend(step_s, power_w)
            reading = meter.read()
            _check_reading(meter, reading, before)
            before = reading
        window = window_energy(start, before)
        _check_close(window.energy_j, power_w * (before.t_s - start.t_s), window.error_j)
        assert before.power_w is not None, "power_w is None although time has passed since the reading before"
        _check_close(before.power_w, power_w, window.error_j / (before.t_s - start.t_s))


def _check_close(got: float, truth: float, error: float) -> None:
    assert abs(got - truth) <= error + _ROUNDING_J, f"got {got} where {truth} is true; stated error {error}"


def _check_standing_still(meter: Meter) -> None:
    first, second = meter.read(), meter.read()
    assert second.energy_j == first.energy_j, f"{second.energy_j - first.energy_j} J were counted while no time passed"


def _check_lost_and_found(meter: Meter, world: MeteredWorld, power_w: float, step_s: float) -> None:
    """A lost sensor is said, not hidden; once back, the meter goes on."""
    before = meter.read()
    world.take_away()
    for _ in range(2):
        world.spend(step_s, power_w)
        _check_refuses(meter)
    world.give_back()
    world.spend(step_s, power_w)
    after = meter.read()
    _check_reading(meter, after, before)
    window = window_energy(before, after)
    # The unseen time may be wrong by all of its energy, but it may not be left out in silence.
    _check_close(window.energy_j, power_w * (after.t_s - before.t_s), window.error_j)


def _check_refuses(meter: Meter) -> None:
    said = ""
    try:
        said = f"the sensor is gone and the meter still reads {meter.read()}"
    except EdgebedError as error:
        said = "" if str(error) else "the error of a lost sensor says nothing"
    assert not said, said
