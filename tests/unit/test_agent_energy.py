from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.energy import EstimatedEnergy, MeasuredEnergy, NoEnergy
from device_agent.task import Part, Used
from edgebed.metering.base import Reading
from edgebed.metering.board import load_board
from edgebed.types import Site

# Four cores, 4 W between idle and busy: a busy core-second is a joule. On air: 2 W.
BOARD = replace(
    load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml"),
    cores=4,
    idle_w=2.0,
    max_w=6.0,
    marginal_error_fraction=0.25,
    transmit_w=2.0,
    transmit_error_fraction=0.5,
)
MODEL = BOARD.energy_source


def part(**used: float) -> Part:
    return Part(0, 1, Site.DEVICE, 0.0, used=Used(**used))  # type: ignore[arg-type]


def test_by_the_model() -> None:
    rule = EstimatedEnergy(BOARD)
    both = [part(device_cpu_s=0.5, padding_s=1.5), part(air_s=0.25)]
    energy = rule.of_parts(both)
    assert (energy.energy_j, energy.error_j, energy.source) == (2.0 + 0.5, 0.5 + 0.25, MODEL)
    assert rule.of_parts([part()]).energy_j == 0.0


def test_of_a_board_that_nobody_described() -> None:
    assert NoEnergy().of_parts([part(device_cpu_s=1.0)]) is None


class Sensor:
    """Draws 5 W, 3 W above idle, and says so."""

    source = "measured:ina226"

    def __init__(self) -> None:
        self.now_s = 0.0
        self.broken = False

    def at(self, t_s: float) -> Reading:
        return Reading(t_s, 5.0 * t_s, 5.0, 0.1 * t_s, self.source)

    def read(self) -> Reading | None:
        return None if self.broken else self.at(self.now_s)


@pytest.fixture
def sensor() -> Sensor:
    return Sensor()


@pytest.fixture
def rule(sensor: Sensor) -> MeasuredEnergy:
    made = MeasuredEnergy(BOARD, sensor.read, idle_w=2.0, idle_error_w=0.2)
    for tenth in range(100):
        made.note(sensor.at(tenth / 10))
    return made


def test_by_a_sensor(rule: MeasuredEnergy, sensor: Sensor) -> None:
    sensor.now_s = 12.0
    energy = rule.of_parts([part(started_s=9.95, finished_s=12.0, device_cpu_s=1.0)])
    assert energy.energy_j == pytest.approx((5.0 - 2.0) * (12.0 - 9.9))
    assert energy.error_j == pytest.approx((0.1 + 0.2) * 2.1)
    assert energy.source == "measured:ina226"


def test_what_else_computed_in_the_window_has_its_share(rule: MeasuredEnergy, sensor: Sensor) -> None:
    sensor.now_s = 10.0
    rule.of_parts([part(started_s=9.0, finished_s=10.0, device_cpu_s=1.0)])
    sensor.now_s = 11.0
    # From 9.9 on: a tenth of the first task's busy second, and this one's.
    energy = rule.of_parts([part(started_s=9.95, finished_s=11.0, device_cpu_s=0.9)])
    assert energy.energy_j == pytest.approx(3.0 * 1.1 * 0.9 / (0.9 + 0.1))


def test_sending_is_estimated_and_says_so(rule: MeasuredEnergy, sensor: Sensor) -> None:
    sensor.now_s = 10.0
    energy = rule.of_parts([part(air_s=0.5)])
    assert (energy.energy_j, energy.source) == (1.0, MODEL)
    both = rule.of_parts([part(started_s=9.0, finished_s=10.0, device_cpu_s=1.0), part(air_s=0.5)])
    assert both.energy_j == pytest.approx(3.0 + 1.0)
    assert both.source == f"{MODEL}+measured:ina226"


@pytest.mark.parametrize("why", ["broken", "too long ago"])
def test_what_the_sensor_did_not_see_is_estimated(rule: MeasuredEnergy, sensor: Sensor, why: str) -> None:
    sensor.now_s, sensor.broken = 10.0, why == "broken"
    started_s = 9.0 if why == "broken" else -1.0
    energy = rule.of_parts([part(started_s=started_s, finished_s=10.0, device_cpu_s=1.0)])
    assert (energy.energy_j, energy.source) == (1.0, MODEL)
