"""Every registered meter, and the scripted one, keeps the `Meter` contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from edgebed.clock import ManualClock
from edgebed.metering.base import Meter, MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.registry import meter_drivers, open_meter
from edgebed.metering.testing import MeteredWorld, ScriptedMeter, check_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory" / "boards" / "raspberry-pi-4b.yaml")


class World(MeteredWorld, Protocol):
    powers_w: tuple[float, float]

    def open(self) -> Meter: ...


class HwmonWorld:
    """An INA219 in a scripted sysfs: the power that it shows is the power that is spent."""

    powers_w = (2.5, 6.25)

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(100.0)
        self.root = root
        self.folder = root / "class" / "hwmon" / "hwmon0"
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text("ina219\n")
        self.power = self.folder / "power1_input"
        self.power.write_text("0\n")

    def open(self) -> Meter:
        return open_meter("hwmon_ina2xx", MeterSetup(self.clock, BOARD, sysfs_root=self.root))

    def spend(self, duration_s: float, power_w: float) -> None:
        self.shown = f"{round(power_w * 1e6)}\n"
        if self.power.exists():
            self.power.write_text(self.shown)
        self.clock.advance(duration_s)

    def take_away(self) -> None:
        self.power.unlink()

    def give_back(self) -> None:
        self.power.write_text(self.shown)


class CpuWorld:
    """A scripted /proc/stat of four cores, as busy as the board must be to draw the power that is spent."""

    powers_w = (BOARD.power_w(0.25), BOARD.power_w(1.0))

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(100.0)
        self.root = root
        self.busy_s, self.idle_s = 5.0, 20.0
        self.is_away = False
        self._write()

    def open(self) -> Meter:
        return open_meter("cpu_model", MeterSetup(self.clock, BOARD, proc_root=self.root))

    def spend(self, duration_s: float, power_w: float) -> None:
        utilisation = (power_w - BOARD.idle_w) / BOARD.span_w
        self.busy_s += 4 * duration_s * utilisation
        self.idle_s += 4 * duration_s * (1 - utilisation)
        self.clock.advance(duration_s)
        if not self.is_away:
            self._write()

    def _write(self) -> None:
        line = f"cpu  {round(self.busy_s * 100)} 0 0 {round(self.idle_s * 100)} 0 0 0 0 0 0\n"
        (self.root / "stat").write_text(line + "".join(f"cpu{n} 0 0 0 0 0 0 0 0 0 0\n" for n in range(4)))

    def take_away(self) -> None:
        self.is_away = True
        (self.root / "stat").unlink()

    def give_back(self) -> None:
        self.is_away = False
        self._write()


class ScriptedWorld:
    powers_w = (1.0, 3.0)

    def __init__(self, root: Path) -> None:
        self.meter = ScriptedMeter(ManualClock(100.0))
        self.spend = self.meter.spend
        self.take_away = self.meter.take_away
        self.give_back = self.meter.give_back

    def open(self) -> Meter:
        return self.meter


WORLDS: dict[str, Callable[[Path], World]] = {
    "hwmon_ina2xx": HwmonWorld,
    "cpu_model": CpuWorld,
    "scripted": ScriptedWorld,
}


@pytest.mark.parametrize("name", sorted({*meter_drivers(), "scripted"}))
def test_meter_keeps_the_contract(name: str, tmp_path: Path) -> None:
    assert name in WORLDS, f"the meter {name} has no world here to be checked in; add one to WORLDS"
    world = WORLDS[name](tmp_path)
    check_meter(world.open(), world, world.powers_w)


@pytest.mark.parametrize("name", sorted(meter_drivers()))
def test_driver_describes_itself_and_knows_when_it_is_absent(name: str, tmp_path: Path) -> None:
    driver = meter_drivers()[name]
    absent = MeterSetup(ManualClock(), BOARD, sysfs_root=tmp_path / "no-sys", proc_root=tmp_path / "no-proc")
    assert driver.name == name
    assert driver.summary
    assert not driver.is_present(absent)
    world = WORLDS[name](tmp_path)
    present = MeterSetup(ManualClock(), BOARD, sysfs_root=tmp_path, proc_root=tmp_path)
    assert driver.is_present(present)
    assert world.open().source.startswith("measured:" if driver.measures else "estimated:")
