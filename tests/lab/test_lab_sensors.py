"""The scripted sensors, read on the hosts by edgebed's own unmodified code, as a real board's would be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgebed.clock import MonotonicClock
from edgebed.metering.base import MeterSetup, window_energy
from edgebed.metering.board import board_from_dict
from edgebed.metering.drivers.hwmon_ina2xx import DRIVER as INA
from edgebed.metering.health import HostSampler, throttle_flags
from tests.lab.running_lab import RunningLab, eventually, every

BURN = "timeout 60 sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"
WINDOW_S = 6.0


def scripted_sys(lab: RunningLab, host: str) -> Path:
    """The host's sysfs tree as the machine sees it; the host has the same files over its own."""
    return lab.live.lab.folder_of(lab.live.lab.host(host)) / "sys"


def proc_of(lab: RunningLab, host: str) -> Path:
    return lab.live.lab.folder_of(lab.live.lab.host(host)) / "proc"


def board_of(lab: RunningLab, host: str):
    return board_from_dict(lab.live.lab.host(host).board)


def test_a_host_shows_a_pis_files(lab: RunningLab):
    assert lab.said("pi-1", "cat /sys/class/hwmon/hwmon*/name") == "ina219"
    assert lab.said("pi-1", "cat /sys/class/thermal/thermal_zone0/type") == "cpu-thermal"
    assert lab.said("pi-1", "tr -d '\\0' < /sys/firmware/devicetree/base/model").startswith("Raspberry Pi 4 Model B")
    assert "c03114" in lab.said("pi-1", "grep Revision /proc/cpuinfo")
    assert lab.said("pi-1", "cat /sys/class/power_supply/BAT0/status") == "Discharging"
    assert lab.said("pi-1", "grep MemTotal /proc/meminfo").split()[1] == str(4 * 2**20)
    assert (
        lab.said("pi-1", "cat /sys/class/net/eth0/address") == lab.live.lab.host("pi-1").mac
    )  # the rest of sysfs is the kernel's own
    assert lab.said("edge", "cat /sys/class/hwmon/hwmon*/name 2>/dev/null; echo none") == "none"


def test_vcgencmd_answers_as_on_a_pi(lab: RunningLab):
    assert lab.said("pi-1", "vcgencmd get_throttled") == "throttled=0x0"
    assert lab.said("pi-1", "vcgencmd measure_clock arm").startswith("frequency(48)=")
    assert lab.ssh("pi-1", "vcgencmd pmic_read_adc").returncode != 0  # only a Pi 5 has rails
    rails = lab.said("pi-2", "vcgencmd pmic_read_adc")
    assert "VDD_CORE_A current" in rails
    assert lab.ssh("pi-1", "vcgencmd nonsense").returncode != 0


def test_heat_throttling_and_under_voltage_reach_the_health_samples(lab: RunningLab):
    lab.live.script_sensors("pi-1", temperature_c=86.0, throttle_word=0x1)
    try:
        sampler = HostSampler(MonotonicClock(), scripted_sys(lab, "pi-1"), proc_of(lab, "pi-1"), host="pi-1")
        sample = sampler.sample()
        assert sample.temperature_c == 86.0
        assert {"under_voltage", "throttled"} <= throttle_flags(sample.throttle_word)
        assert sample.frequency_hz == pytest.approx(0.4 * board_of(lab, "pi-1").nominal_hz, rel=0.01)
        assert lab.said("pi-1", "vcgencmd get_throttled") == "throttled=0x70007"
        assert lab.said("pi-1", "cat /sys/devices/platform/soc/soc:firmware/get_throttled") == "70007"
        assert lab.said("pi-1", "cat /sys/class/thermal/thermal_zone0/temp") == "86000"
    finally:
        lab.live.script_sensors("pi-1", temperature_c=None, throttle_word=None)


def burn_during(lab: RunningLab, host: str, act: Callable[[], None]) -> None:
    pid = lab.said(host, BURN)
    try:
        act()
    finally:
        lab.ssh(host, f"pkill -P {pid}; kill {pid}")


def test_power_and_cpu_are_those_of_the_host_alone(lab: RunningLab):
    def look() -> None:
        eventually(lambda: lab.live.sensors("pi-1")["utilisation"] > 0.2)
        assert lab.live.sensors("pi-2")["utilisation"] < 0.2
        assert lab.live.sensors("pi-1")["power_w"] > lab.live.sensors("pi-2")["power_w"] - 3.0
        board = board_of(lab, "pi-1")
        eventually(lambda: lab.live.sensors("pi-1")["power_w"] > board.idle_w + 0.1 * board.span_w)

    burn_during(lab, "pi-1", look)
    eventually(lambda: lab.live.sensors("pi-1")["utilisation"] < 0.1)


def test_the_energy_of_the_scripted_meter_is_what_it_gave_within_2_percent(lab: RunningLab):
    """edgebed's INA219 driver integrates what it reads; the script knows what it showed."""
    meter = INA.open_meter(MeterSetup(MonotonicClock(), board_of(lab, "pi-1"), scripted_sys(lab, "pi-1")))
    found = []

    def look() -> None:
        start, given = meter.read(), lab.live.sensors("pi-1")
        for turn, _ in enumerate(every(0.1, WINDOW_S)):
            meter.read()
            if turn == 30:
                lab.live.script_sensors("pi-1", power_w=9.0)  # a step in the middle
        found.append((window_energy(start, meter.read()), lab.live.sensors("pi-1")["energy_j"] - given["energy_j"]))

    try:
        burn_during(lab, "pi-1", look)
    finally:
        lab.live.script_sensors("pi-1", power_w=None)
    measured, given_j = found[0]
    assert given_j > WINDOW_S * 2
    assert measured.energy_j == pytest.approx(given_j, rel=0.02)
    assert abs(measured.energy_j - given_j) <= measured.error_j


def test_a_capped_clock_slows_the_host_for_real(lab: RunningLab):
    count = (
        "python3 -c 'import time; end = time.monotonic() + 1.0; n = 0\nwhile time.monotonic() < end: n += 1\nprint(n)'"
    )
    lab.live.script_sensors("pi-1", frequency_hz=0.15e9)
    try:
        slow = int(lab.said("pi-1", count))
    finally:
        lab.live.script_sensors("pi-1", frequency_hz=None)
    assert slow < 0.6 * int(lab.said("pi-1", count))


def test_sensors_cost_little(lab: RunningLab):
    """The keeper of three hosts stays below 5 % of a core, so that it does not disturb what is measured."""
    pid = int((lab.live.lab.state / "keeper.pid").read_text().split()[0])
    ticks = [_ticks(pid) for _ in every(1.0, 3.0)]
    assert (ticks[-1] - ticks[0]) / 100 / 3.0 < 0.05


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_psutil_reads_the_hosts_own_memory_and_cpu(lab: RunningLab):
    # psutil is not on the host; its files are, and it is pointed to them.
    code = (
        f"import psutil; psutil.PROCFS_PATH = {str(proc_of(lab, 'pi-1'))!r}; "
        "print(psutil.virtual_memory().total, psutil.cpu_times().idle > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(4 * 2**30), "True"]
