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


class PmicWorld:
    """A ``vcgencmd`` that shows one rail with the power that is spent; it lies on PATH, see `on_path`."""

    powers_w = (1.5, 5.0)
    step_s = 1.0  # the firmware is not asked more often

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(100.0)
        self.answer = root / "rails"
        program = root / "vcgencmd"
        program.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && cat {self.answer}\n')
        program.chmod(0o755)
        self.spend(0.0, 0.0)

    def open(self) -> Meter:
        return open_meter("pi5_pmic", MeterSetup(self.clock, BOARD))

    def spend(self, duration_s: float, power_w: float) -> None:
        self.shown = f"VDD_CORE_A current(7)={power_w:.8f}A\nVDD_CORE_V volt(15)=1.00000000V\n"
        if duration_s == 0 or self.answer.exists():
            self.answer.write_text(self.shown)
        self.clock.advance(duration_s)

    def take_away(self) -> None:
        self.answer.unlink()

    def give_back(self) -> None:
        self.answer.write_text(self.shown)


class RaplWorld:
    """Two packages in a scripted powercap that share the power that is spent, one of them about to wrap around."""

    powers_w = (20.0, 90.0)
    range_uj = 262_143_328_850

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(100.0)
        self.root = root
        self.uj = [10_000_000.0, self.range_uj - 5_000_000.0]
        self.away: Path | None = None
        for number in range(2):
            folder = root / "class" / "powercap" / f"intel-rapl:{number}"
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"package-{number}\n")
            (folder / "max_energy_range_uj").write_text(f"{self.range_uj}\n")
        self._write()

    def open(self) -> Meter:
        return open_meter("rapl", MeterSetup(self.clock, BOARD, sysfs_root=self.root, proc_root=self.root))

    def spend(self, duration_s: float, power_w: float) -> None:
        self.uj = [(each + power_w / 2 * duration_s * 1e6) % self.range_uj for each in self.uj]
        self.clock.advance(duration_s)
        if self.away is None:
            self._write()

    def _write(self) -> None:
        for number, each in enumerate(self.uj):
            (self.root / "class" / "powercap" / f"intel-rapl:{number}" / "energy_uj").write_text(f"{round(each)}\n")

    def take_away(self) -> None:
        self.away = self.root / "class" / "powercap" / "intel-rapl:1" / "energy_uj"
        self.away.unlink()

    def give_back(self) -> None:
        self.away = None
        self._write()


class BatteryWorld:
    """A discharging battery in a scripted power_supply: its gauge shows the power, its counter what is left."""

    powers_w = (4.0, 15.0)

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(100.0)
        self.root = root
        self.folder = root / "class" / "power_supply" / "BAT0"
        self.folder.mkdir(parents=True)
        (self.folder / "type").write_text("Battery\n")
        self.left_uwh, self.power_w = 40e6, 0.0
        self.give_back()

    def open(self) -> Meter:
        return open_meter("battery", MeterSetup(self.clock, BOARD, sysfs_root=self.root))

    def spend(self, duration_s: float, power_w: float) -> None:
        self.power_w = power_w
        self.left_uwh -= power_w * duration_s / 3600e-6
        self.clock.advance(duration_s)
        if (self.folder / "status").exists():
            self.give_back()

    def take_away(self) -> None:
        (self.folder / "status").unlink()

    def give_back(self) -> None:
        (self.folder / "status").write_text("Discharging\n")
        (self.folder / "power_now").write_text(f"{round(self.power_w * 1e6)}\n")
        (self.folder / "energy_now").write_text(f"{round(self.left_uwh, -4):.0f}\n")


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
    "pi5_pmic": PmicWorld,
    "rapl": RaplWorld,
    "battery": BatteryWorld,
    "cpu_model": CpuWorld,
    "scripted": ScriptedWorld,
}


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found before the machine's own."""
    folder = tmp_path / "world"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.mark.parametrize("name", sorted({*meter_drivers(), "scripted"}))
def test_meter_keeps_the_contract(name: str, on_path: Path) -> None:
    assert name in WORLDS, f"the meter {name} has no world here to be checked in; add one to WORLDS"
    world = WORLDS[name](on_path)
    check_meter(world.open(), world, world.powers_w, getattr(world, "step_s", 0.1))


@pytest.mark.parametrize("name", sorted(meter_drivers()))
def test_driver_describes_itself_and_knows_when_it_is_absent(name: str, on_path: Path) -> None:
    driver = meter_drivers()[name]
    absent = MeterSetup(ManualClock(), BOARD, sysfs_root=on_path / "no-sys", proc_root=on_path / "no-proc")
    assert driver.name == name
    assert driver.summary
    assert not driver.is_present(absent)
    world = WORLDS[name](on_path)
    present = MeterSetup(ManualClock(), BOARD, sysfs_root=on_path, proc_root=on_path)
    assert driver.is_present(present)
    assert world.open().source.startswith("measured:" if driver.measures else "estimated:")
