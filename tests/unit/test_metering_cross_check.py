"""Two meters at once: the first counts, and what the second says otherwise is told."""

from __future__ import annotations

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import MeterSetup
from edgebed.metering.board import board_from_dict
from edgebed.metering.cross_check import CheckedMeter
from edgebed.metering.registry import open_checked_meter
from edgebed.metering.testing import MeteredWorld, ScriptedMeter, check_meter


class Bench:
    """Two meters on one clock; the second one shows so many times the power."""

    def __init__(self, factor: float, other_error: float = 0.05) -> None:
        self.clock = ManualClock(5.0)
        self.used = ScriptedMeter(self.clock, error=0.01)
        self.other = ScriptedMeter(ManualClock(5.0), error=other_error, source="measured:other")
        self.factor = factor
        self.checked = CheckedMeter(self.used, self.other)

    def spend(self, duration_s: float, power_w: float = 3.0) -> None:
        self.used.spend(duration_s, power_w)
        self.other.spend(duration_s, power_w * self.factor)

    def take_away(self) -> None:
        self.used.take_away()

    def give_back(self) -> None:
        self.used.give_back()

    def watch(self, seconds: int) -> None:
        for _ in range(seconds):
            self.spend(1.0)
            self.checked.read()


def test_a_watched_meter_keeps_the_contract() -> None:
    bench = Bench(1.0)
    world: MeteredWorld = bench
    check_meter(bench.checked, world, (1.0, 3.0))


@pytest.mark.parametrize(("factor", "windows"), [(1.0, 0), (1.055, 0), (1.08, 3), (0.9, 3)])
def test_only_more_than_both_errors_is_a_disagreement(factor: float, windows: int) -> None:
    bench = Bench(factor)
    bench.checked.read()
    bench.watch(35)
    found = bench.checked.take_disagreements()
    assert len(found) == windows
    assert bench.checked.take_disagreements() == []
    for each in found:
        assert each.duration_s == 10.0
        assert each.used.energy_j == pytest.approx(30.0)
        assert each.detail == {
            "duration_s": 10.0,
            "used_source": "measured:scripted",
            "used_energy_j": pytest.approx(30.0),
            "used_error_j": pytest.approx(0.3),
            "other_source": "measured:other",
            "other_energy_j": pytest.approx(30.0 * factor, abs=1e-3),
            "other_error_j": pytest.approx(1.5 * factor, abs=1e-3),
        }


def test_the_first_one_s_joules_count_whatever_the_second_says() -> None:
    bench = Bench(7.0)
    bench.watch(20)
    assert bench.checked.read() == bench.used.read()
    assert bench.checked.source == "measured:scripted"


def test_a_second_meter_that_is_gone_hurts_nobody_and_the_gap_is_not_compared() -> None:
    bench = Bench(2.0)
    bench.checked.read()
    bench.watch(9)
    bench.other.take_away()
    bench.watch(5)
    bench.other.give_back()
    bench.watch(10)
    assert bench.checked.take_disagreements() == []
    bench.watch(1)
    assert len(bench.checked.take_disagreements()) == 1


def test_a_first_meter_that_is_gone_is_an_error() -> None:
    bench = Bench(1.0)
    bench.used.take_away()
    with pytest.raises(WorkFailed):
        bench.checked.read()


def test_a_meter_is_not_held_against_itself(tmp_path: object) -> None:
    board = {"name": "b", "title": "b", "cores": 1, "nominal_hz": 1e9, "idle_w": 1.0, "max_w": 2.0}
    board |= dict.fromkeys(("error_fraction", "marginal_error_fraction", "transmit_error_fraction"), 0.5)
    board |= dict.fromkeys(("error_source", "power_source", "transmit_source", "relative_speed_source"), "test")
    board |= {"power_kind": "assumed", "transmit_w": 0.0, "relative_speed_ratio": None}
    setup = MeterSetup(ManualClock(), board_from_dict(board))
    with pytest.raises(BadInput, match="are the same"):
        open_checked_meter("cpu_model", setup, "cpu_model", {})
    assert open_checked_meter("cpu_model", setup, "", {}).source == "estimated:cpu-model/b"
