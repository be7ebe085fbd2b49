"""The checker of the meter contract finds each way of breaking it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgebed.clock import ManualClock
from edgebed.metering.base import Reading
from edgebed.metering.testing import ScriptedMeter, check_meter


class Broken(ScriptedMeter):
    """A scripted meter whose readings one function spoils."""

    def spoil(self, reading: Reading) -> Reading:
        return reading

    def read(self) -> Reading:
        return self.spoil(super().read())


class Milliwatts(Broken):
    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, energy_j=reading.energy_j * 1e3, error_j=reading.error_j * 1e3)


class MissesAGain(Broken):
    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, energy_j=reading.energy_j * 0.9)


class ForgetsItsError(Broken):
    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, error_j=0.0)


class StartsOver(Broken):
    """Wraps around, as a 32-bit counter of microjoules does."""

    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, energy_j=reading.energy_j % 2.0, error_j=reading.energy_j)


class NamesAnother(Broken):
    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, source="measured:other")


class CountsReads(Broken):
    reads = 0

    def spoil(self, reading: Reading) -> Reading:
        self.reads += 1
        return replace(reading, energy_j=reading.energy_j + 1e-6 * self.reads, error_j=reading.error_j + 1e-3)


class HidesALoss(Broken):
    def take_away(self) -> None:
        pass


class DropsTheGap(Broken):
    """Leaves the energy of the time that it was away out, and does not say so."""

    dropped_j = 0.0

    def take_away(self) -> None:
        self.before_j = self._energy_j
        super().take_away()

    def give_back(self) -> None:
        super().give_back()
        self.dropped_j = self._energy_j - self.before_j

    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, energy_j=reading.energy_j - self.dropped_j)


class NeverKnowsPower(Broken):
    def spoil(self, reading: Reading) -> Reading:
        return replace(reading, power_w=None)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Milliwatts, "is true"),
        (MissesAGain, "is true"),
        (ForgetsItsError, "below the stated error"),
        (StartsOver, "energy_j went back"),
        (NamesAnother, "says measured:other"),
        (CountsReads, "while no time passed"),
        (HidesALoss, "the sensor is gone"),
        (DropsTheGap, "is true"),
        (NeverKnowsPower, "power_w is None"),
    ],
)
def test_checker_finds(broken: type[Broken], said: str) -> None:
    meter = broken(ManualClock(5.0))
    with pytest.raises(AssertionError, match=said):
        check_meter(meter, meter, (1.0, 3.0))


@pytest.mark.parametrize("source", ["ina219", "measured:", "estimated:cpu-model", "guessed:x/y"])
def test_checker_refuses_a_source_that_says_nothing(source: str) -> None:
    meter = ScriptedMeter(ManualClock(), source=source)
    with pytest.raises(AssertionError, match="source is"):
        check_meter(meter, meter, (1.0, 3.0))


@pytest.mark.parametrize("error", [0.0, -0.1, 1.5, float("nan")])
def test_checker_refuses_an_error_that_is_no_fraction(error: float) -> None:
    meter = ScriptedMeter(ManualClock(), error=error)
    with pytest.raises(AssertionError, match="error is"):
        check_meter(meter, meter, (1.0, 3.0))
