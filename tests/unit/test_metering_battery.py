"""A battery's gauge against a scripted power_supply tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.power_supply import batteries, charge_left
from edgebed.metering.registry import meter_drivers, open_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/generic-x86.yaml")


class Laptop:
    """One discharging battery; fields are files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(10.0)
        self.set("BAT0", type="Battery", status="Discharging", power_now=8_000_000, energy_now=50_000_000)

    def set(self, device: str, **fields: Any) -> None:
        folder = self.root / "class/power_supply" / device
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in fields.items():
            (folder / name).unlink(missing_ok=True)
            if value is not None:
                (folder / name).write_text(f"{value}\n")

    def setup(self, **settings: Any) -> MeterSetup:
        return MeterSetup(self.clock, BOARD, sysfs_root=self.root, proc_root=self.root, settings=settings)

    def open(self, **settings: Any) -> Meter:
        return open_meter("battery", self.setup(**settings))


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def test_power_is_added_up(laptop: Laptop) -> None:
    meter = laptop.open()
    laptop.clock.advance(10.0)
    reading = meter.read()
    assert (reading.energy_j, reading.power_w, reading.source) == (80.0, 8.0, "measured:battery")
    assert reading.error_j == pytest.approx(8.0)


@pytest.mark.parametrize("current_ua", [500_000, -500_000])
def test_current_and_voltage_do_where_there_is_no_power(laptop: Laptop, current_ua: int) -> None:
    laptop.set("BAT0", power_now=None, current_now=current_ua, voltage_now=11_000_000)
    meter = laptop.open()
    laptop.clock.advance(2.0)
    assert meter.read().energy_j == pytest.approx(11.0)


def test_a_counter_that_fell_by_more_than_was_added_up_is_error(laptop: Laptop) -> None:
    meter = laptop.open()
    true_w, left_uwh = 16.0, 50_000_000.0
    for _ in range(60):
        laptop.clock.advance(10.0)
        left_uwh -= true_w * 10 / 3600e-6
        laptop.set("BAT0", energy_now=round(left_uwh / 1e4) * 10_000)  # in steps of 10 mWh
        reading = meter.read()
    assert reading.energy_j == pytest.approx(8.0 * 600)
    assert reading.error_j > 0.9 * (true_w - 8.0) * 600


def test_a_counter_that_agrees_adds_no_error(laptop: Laptop) -> None:
    meter = laptop.open()
    left_uwh = 50_000_000.0
    for _ in range(60):
        laptop.clock.advance(10.0)
        left_uwh -= 8.0 * 10 / 3600e-6
        laptop.set("BAT0", energy_now=round(left_uwh / 1e4) * 10_000)
        reading = meter.read()
    assert reading.error_j == pytest.approx(0.10 * reading.energy_j)


def test_charge_counts_by_the_design_s_voltage(laptop: Laptop) -> None:
    laptop.set("BAT0", energy_now=None, charge_now=4_000_000, voltage_min_design=10_000_000)
    meter = laptop.open()
    laptop.clock.advance(30.0)
    laptop.set("BAT0", charge_now=3_000_000)
    laptop.clock.advance(30.0)
    meter.read()
    laptop.set("BAT0", charge_now=2_000_000)  # 10 Wh each time, and 0.13 Wh were added up
    laptop.clock.advance(30.0)
    meter.read()
    laptop.set("BAT0", charge_now=1_990_000)
    assert meter.read().error_j > 36_000


def test_being_charged_it_says_nothing(laptop: Laptop) -> None:
    meter = laptop.open()
    laptop.set("BAT0", status="Charging")
    laptop.clock.advance(1.0)
    with pytest.raises(WorkFailed, match=r"is charging.*unplug the charger"):
        meter.read()
    assert not meter_drivers()["battery"].is_present(laptop.setup())
    laptop.set("BAT0", status="Discharging", energy_now=60_000_000)
    laptop.clock.advance(1.0)
    reading = meter.read()
    assert reading.energy_j == 16.0
    assert reading.error_j >= 16.0  # nobody saw it, and the counter's rise is no gap
    assert reading.error_j < 20.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "Full"}, "is full, not discharging"),
        ({"status": None}, "cannot be read"),
        ({"power_now": None}, "neither power_now nor current_now"),
        ({"type": "Mains"}, "no battery"),
        ({"scope": "Device"}, "no battery"),
    ],
)
def test_what_cannot_serve_is_bad_input(laptop: Laptop, change: dict[str, Any], said: str) -> None:
    laptop.set("BAT0", **change)
    with pytest.raises(BadInput, match=said):
        laptop.open()


def test_of_several_one_has_to_be_named(laptop: Laptop) -> None:
    laptop.set("BAT1", type="Battery", status="Discharging", power_now=3_000_000)
    with pytest.raises(BadInput, match="BAT0, BAT1; name one"):
        laptop.open()
    meter = laptop.open(device="BAT1")
    laptop.clock.advance(1.0)
    assert meter.read().energy_j == 3.0
    with pytest.raises(BadInput, match="no battery 'BAT7'"):
        laptop.open(device="BAT7")


@pytest.mark.parametrize("fraction", [0, 1.5, "a lot", True])
def test_a_wrong_error_is_bad_input(laptop: Laptop, fraction: object) -> None:
    with pytest.raises(BadInput, match="above 0, up to 1"):
        laptop.open(gain_error_fraction=fraction)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"capacity": 37}, 0.37),
        ({"capacity": 104}, 1.0),
        ({"capacity": None}, 1.0),
        ({"capacity": 37, "status": "Charging"}, 1.0),
        ({"capacity": 37, "scope": "Device"}, 1.0),
    ],
    ids=["discharging", "a gauge that says too much", "no gauge", "on mains", "a mouse's"],
)
def test_the_charge_left_is_the_gauge_s_and_one_on_mains(laptop: Laptop, fields: dict[str, Any], left: float) -> None:
    laptop.set("BAT0", **fields)
    assert charge_left(batteries(laptop.root)) == left


def test_the_charge_left_of_two_batteries_is_their_mean(laptop: Laptop) -> None:
    laptop.set("BAT0", capacity=20)
    laptop.set("BAT1", type="Battery", status="Not charging", capacity=60)
    assert charge_left(batteries(laptop.root)) == pytest.approx(0.4)
