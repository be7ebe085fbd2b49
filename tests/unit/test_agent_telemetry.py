from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from device_agent.energy import EstimatedEnergy, MeasuredEnergy, NoEnergy
from device_agent.task import Part, Used
from device_agent.telemetry import Telemetry
from edgebed.clock import ManualClock
from edgebed.configuration import DeviceConfig, PeerAddress
from edgebed.errors import BadInput
from edgebed.metering.board import load_board
from edgebed.types import Site

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml")


class Host:
    """A scripted host: 4 cores, and an INA226 that shows what it is told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock(100.0)
        self.chip = root / "class/hwmon/hwmon0"
        self.chip.mkdir(parents=True)
        (self.chip / "name").write_text("ina226\n")
        self.show_w(2.0)
        self.worked(0, 0)

    def show_w(self, power_w: float) -> None:
        (self.chip / "power1_input").write_text(f"{round(power_w * 1e6)}\n")

    def worked(self, busy_ticks: int, idle_ticks: int) -> None:
        (self.root / "stat").write_text(f"cpu  {busy_ticks} 0 0 {idle_ticks} 0 0 0 0\n" + "cpu0 0 0 0 0\n" * 4)

    def telemetry(self, **settings: Any) -> Telemetry:
        fields: dict[str, Any] = {
            "name": "pi-1",
            "state_dir": "",
            "secret_key_file": "",
            "board": asdict(BOARD),
            "sysfs_root": str(self.root),
            "proc_root": str(self.root),
            "controller": PeerAddress("controller", "", ""),
            "servers": [],
        }
        return Telemetry(DeviceConfig(**(fields | settings)), self.clock)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def computed(started_s: float, finished_s: float) -> Part:
    return Part(0, 1, Site.DEVICE, 0.0, used=Used(started_s, finished_s, device_cpu_s=finished_s - started_s))


def test_samples_are_rows_on_the_run_clock(host: Host) -> None:
    telemetry = host.telemetry()
    telemetry.begin_idle()
    host.worked(30, 70)
    host.clock.advance(1.0)
    row = telemetry.sample(5.25)
    assert (row.host, row.t_s, row.cpu) == ("pi-1", 5.25, pytest.approx(0.3))
    assert telemetry.cpu == pytest.approx(0.3)
    assert row.power_source == BOARD.energy_source
    assert row.power_w == pytest.approx(BOARD.power_w(0.3 / 4 * 1.0), rel=0.2)


def test_without_a_sensor_tasks_are_estimated(host: Host) -> None:
    assert isinstance(host.telemetry().energy_rule(), EstimatedEnergy)
    assert not host.telemetry().has_sensor


def test_without_a_board_nothing_is_claimed(host: Host) -> None:
    telemetry = host.telemetry(board={})
    assert isinstance(telemetry.energy_rule(), NoEnergy)
    assert telemetry.meter_source == ""
    assert telemetry.sample(0.0).power_w is None


def test_a_sensor_is_believed_above_what_it_showed_at_rest(host: Host) -> None:
    telemetry = host.telemetry(meter="hwmon_ina2xx")
    assert telemetry.has_sensor
    telemetry.begin_idle()
    for _ in range(10):
        host.clock.advance(0.1)
        telemetry.watch_idle()
    rule = telemetry.energy_rule()
    assert isinstance(rule, MeasuredEnergy)
    host.show_w(5.0)
    telemetry.sample(0.0)
    for _ in range(10):
        host.clock.advance(0.1)
        telemetry.sample(0.0)
    energy = rule.of_parts([computed(101.0, 102.0)])
    assert energy is not None
    assert energy.source == "measured:ina226"
    assert energy.energy_j == pytest.approx((5.0 - 2.0) * 1.0, rel=0.05)
    assert 0 < energy.error_j < 1.0


def test_a_wait_too_short_to_measure_takes_the_boards_idle_power(host: Host) -> None:
    telemetry = host.telemetry(meter="hwmon_ina2xx")
    telemetry.begin_idle()
    host.clock.advance(0.1)
    rule = telemetry.energy_rule()
    host.show_w(BOARD.idle_w + 1.0)
    telemetry.sample(0.0)
    host.clock.advance(1.0)
    telemetry.sample(0.0)
    energy = rule.of_parts([computed(100.1, 101.1)])
    assert energy is not None
    assert energy.energy_j == pytest.approx(1.0, rel=0.3)
    assert energy.error_j >= BOARD.error_fraction * BOARD.idle_w


def test_a_sensor_that_goes_away_leaves_estimates(host: Host) -> None:
    telemetry = host.telemetry(meter="hwmon_ina2xx")
    telemetry.begin_idle()
    rule = telemetry.energy_rule()
    (host.chip / "power1_input").unlink()
    host.clock.advance(1.0)
    assert telemetry.sample(0.0).power_w is None
    assert telemetry.meter_problem
    energy = rule.of_parts([computed(100.0, 101.0)])
    assert energy is not None
    assert energy.source == BOARD.energy_source


def test_a_second_meter_that_says_otherwise_is_told_once(host: Host) -> None:
    telemetry = host.telemetry(meter="hwmon_ina2xx", second_meter="cpu_model")
    assert telemetry.meter_source == "measured:ina226"
    host.show_w(40.0)  # no Raspberry Pi draws that
    busy = 0
    for _ in range(125):
        host.clock.advance(0.1)
        busy += 4
        host.worked(busy, busy * 9)
        telemetry.sample(0.0)
    (found,) = telemetry.take_disagreements()
    assert found.used.source == "measured:ina226"
    assert found.other.source == BOARD.energy_source
    assert found.used.energy_j > 2 * found.other.energy_j
    assert telemetry.take_disagreements() == []


def test_without_a_second_meter_nothing_disagrees(host: Host) -> None:
    telemetry = host.telemetry(meter="hwmon_ina2xx")
    telemetry.sample(0.0)
    assert telemetry.take_disagreements() == []


@pytest.mark.parametrize(("server", "expected"), [("10.6.0.9", True), ("192.168.1.9", None)])
def test_wifi_counts_where_the_way_to_the_servers_takes_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, server: str, expected: bool | None
) -> None:
    (host.root / "iw").write_text("#!/bin/sh\necho Power save: on\n")
    (host.root / "iw").chmod(0o755)
    monkeypatch.setenv("PATH", str(host.root))
    (host.root / "net").mkdir()
    (host.root / "net/wireless").write_text("Inter-|\n face |\n wlan0: 0000 70. -40. -256\n")
    lines = ["eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0", "wlan0 0000060A 0 0001 0 0 600 0000FFFF 0 0 0"]
    (host.root / "net/route").write_text("\n".join(("Iface Destination", *lines)))
    telemetry = host.telemetry(servers=[PeerAddress("edge", f"tcp://{server}:5570", "")])
    end_s = time.monotonic() + 10
    while (found := telemetry.sample(0.0).wifi_power_save) is not True and host.clock.now_s() < 120:
        assert time.monotonic() < end_s
        # Where there is an answer to come, not faster than the real time: what has not answered when it is due again is
        # killed.
        host.clock.advance(0.01 if expected else 1.0)
        time.sleep(0.01 if expected else 0)
    assert found is expected


def test_a_sensor_that_is_not_there_is_bad_input(host: Host) -> None:
    (host.chip / "name").write_text("bmp280\n")
    with pytest.raises(BadInput):
        host.telemetry(meter="hwmon_ina2xx")


def test_a_battery_s_charge_is_what_policies_see(host: Host) -> None:
    assert host.telemetry().charge_left == 1.0, "on mains"
    battery = host.root / "class/power_supply/BAT0"
    battery.mkdir(parents=True)
    for name, text in {"type": "Battery", "status": "Discharging", "capacity": "62"}.items():
        (battery / name).write_text(f"{text}\n")
    telemetry = host.telemetry()
    assert telemetry.charge_left == 0.62
    (battery / "capacity").write_text("61\n")
    host.clock.advance(2.0)
    telemetry.sample(1.0)
    assert telemetry.charge_left == 0.61
