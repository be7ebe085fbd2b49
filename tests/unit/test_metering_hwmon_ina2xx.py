"""The INA2xx driver against scripted sysfs trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterSetup, Setting
from edgebed.metering.board import load_board
from edgebed.metering.registry import open_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory" / "boards" / "raspberry-pi-4b.yaml")


class Sysfs:
    """A scripted /sys with any number of hwmon chips, and the clock that a meter on it integrates over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(1000.0)

    def chip(self, number: int, name: str, device: str | None = None, **files: int) -> Path:
        folder = self.root / "class" / "hwmon" / f"hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        if device is not None:
            target = self.root / "devices" / "i2c" / device
            target.mkdir(parents=True, exist_ok=True)
            (folder / "device").symlink_to(target)
        self.show(folder, **files)
        return folder

    def show(self, folder: Path, **files: int) -> None:
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n")

    def open(self, **settings: Setting) -> Meter:
        return open_meter("hwmon_ina2xx", MeterSetup(self.clock, BOARD, sysfs_root=self.root, settings=settings))


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


@pytest.mark.parametrize("chip", ["ina219", "ina226", "ina260", "ina3221", "ina238"])
def test_chip_is_the_source(sysfs: Sysfs, chip: str) -> None:
    sysfs.chip(0, "cpu_thermal")
    sysfs.chip(1, chip, power1_input=3_000_000)
    reading = sysfs.open().read()
    assert reading.source == f"measured:{chip}"
    assert (reading.t_s, reading.energy_j, reading.power_w) == (1000.0, 0.0, 3.0)


def test_power_is_integrated_by_the_trapezoid_rule(sysfs: Sysfs) -> None:
    folder = sysfs.chip(0, "ina219", power1_input=2_000_000)
    meter = sysfs.open()
    for power_uw in (4_000_000, 4_000_000, 1_000_000):
        sysfs.clock.advance(0.5)
        sysfs.show(folder, power1_input=power_uw)
        reading = meter.read()
    # (2 + 4) / 2, (4 + 4) / 2 and (4 + 1) / 2 W, half a second each.
    assert reading.energy_j == pytest.approx(1.5 + 2.0 + 1.25)
    assert reading.power_w == 1.0


def test_error_is_gain_and_half_a_step(sysfs: Sysfs) -> None:
    sysfs.chip(0, "ina219", power1_input=3_000_000)
    meter = sysfs.open()
    for _ in range(10):
        sysfs.clock.advance(1.0)
        reading = meter.read()
    # 1.5 % of 30 J, and half of the INA219's 20 mW for 10 s.
    assert reading.error_j == pytest.approx(0.45 + 0.10)
    assert meter.error == 0.015


def test_calibrated_sensor_states_less(sysfs: Sysfs) -> None:
    sysfs.chip(0, "ina226", power1_input=3_000_000)
    meter = sysfs.open(gain_error_fraction=0.002)
    sysfs.clock.advance(1.0)
    assert meter.read().error_j == pytest.approx(0.002 * 3 + 0.0125)


def test_power_from_voltage_and_current_where_the_kernel_gives_none(sysfs: Sysfs) -> None:
    folder = sysfs.chip(0, "ina3221", in1_input=5000, curr1_input=800, in2_input=5000, curr2_input=100)
    meter, second = sysfs.open(), sysfs.open(channel=2)
    sysfs.clock.advance(1.0)
    reading = meter.read()
    assert reading.power_w == pytest.approx(4.0)
    # Steps of 8 mV at 0.8 A and of 4 mA at 5 V.
    assert reading.error_j == pytest.approx(0.015 * 4.0 + (0.8 * 0.008 + 5.0 * 0.004) / 2)
    assert second.read().power_w == pytest.approx(0.5)
    (folder / "curr1_input").unlink()
    with pytest.raises(WorkFailed, match="gives no power on channel 1"):
        meter.read()


def test_time_that_nobody_saw_is_filled_in_and_counted_as_error(sysfs: Sysfs) -> None:
    sysfs.chip(0, "ina219", power1_input=3_000_000)
    meter = sysfs.open()
    sysfs.clock.advance(60.0)
    reading = meter.read()
    assert reading.energy_j == pytest.approx(180.0)
    assert reading.error_j > 180.0


def test_vanished_sensor_is_an_error_that_names_it_and_not_a_silence(sysfs: Sysfs) -> None:
    folder = sysfs.chip(0, "ina219", power1_input=3_000_000)
    meter = sysfs.open()
    (folder / "power1_input").unlink()
    sysfs.clock.advance(0.5)
    with pytest.raises(WorkFailed, match=f"measured:ina219: {folder} gives no power.*dmesg"):
        meter.read()
    sysfs.clock.advance(0.5)
    sysfs.show(folder, power1_input=5_000_000)
    reading = meter.read()
    assert reading.energy_j == pytest.approx(4.0)
    assert reading.error_j > 4.0
    sysfs.clock.advance(1.0)
    # Seen again: from here only gain and steps are added.
    assert meter.read().error_j - reading.error_j == pytest.approx(0.015 * 5 + 0.01)


def test_driver_loaded_again_is_found_under_its_new_number(sysfs: Sysfs) -> None:
    folder = sysfs.chip(2, "ina219", device="1-0040", power1_input=3_000_000)
    meter = sysfs.open()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    sysfs.chip(0, "ina219", device="1-0041", power1_input=9_000_000)
    sysfs.chip(3, "ina219", device="1-0040", power1_input=4_000_000)
    sysfs.clock.advance(1.0)
    assert meter.read().power_w == 4.0


def test_one_of_several_must_be_named(sysfs: Sysfs) -> None:
    sysfs.chip(0, "ina219", device="1-0040", power1_input=1_000_000)
    sysfs.chip(1, "ina226", device="1-0041", power1_input=2_000_000)
    with pytest.raises(BadInput, match=r"1-0040 \(ina219\), 1-0041 \(ina226\)"):
        sysfs.open()
    assert sysfs.open(device="1-0041").read().power_w == 2.0
    with pytest.raises(BadInput, match=r"no INA2xx sensor '1-0044'.*1-0040"):
        sysfs.open(device="1-0044")


def test_absent_sensor_is_bad_input_with_the_next_step(sysfs: Sysfs) -> None:
    sysfs.chip(0, "cpu_thermal")
    with pytest.raises(BadInput, match=r"found: none; .*docs/hardware.md"):
        sysfs.open()


def test_current_that_flows_backwards_is_said(sysfs: Sysfs) -> None:
    folder = sysfs.chip(0, "ina3221", in1_input=5000, curr1_input=-2)
    assert sysfs.open().read().power_w == 0.0  # within a step of nothing
    sysfs.show(folder, curr1_input=-800)
    with pytest.raises(WorkFailed, match="swap the two wires"):
        sysfs.open()


def test_text_that_is_no_number_is_an_unreadable_sensor(sysfs: Sysfs) -> None:
    folder = sysfs.chip(0, "ina219", power1_input=1)
    meter = sysfs.open()
    (folder / "power1_input").write_text("n/a\n")
    with pytest.raises(WorkFailed):
        meter.read()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("channel", 4, "from 1 to 3"),
        ("channel", "1", "from 1 to 3"),
        ("gain_error_fraction", 0, "above 0"),
        ("gain_error_fraction", "small", "above 0"),
        ("shunt", 0.1, "unknown settings shunt; allowed: device, channel, gain_error_fraction"),
    ],
)
def test_wrong_setting_is_bad_input(sysfs: Sysfs, setting: str, value: Setting, said: str) -> None:
    sysfs.chip(0, "ina219", power1_input=1)
    with pytest.raises(BadInput, match=said):
        sysfs.open(**{setting: value})
