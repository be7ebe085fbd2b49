"""Host samples, against scripted sysfs and procfs trees."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from edgebed.clock import ManualClock, MonotonicClock
from edgebed.metering.base import MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.health import THROTTLE_FLAGS, HostSample, HostSampler, OtherWork, throttle_flags
from edgebed.metering.kernel_files import CpuTimes
from edgebed.metering.registry import open_meter
from edgebed.metering.testing import ScriptedMeter
from edgebed.trace.schema import SampleRecord, columns

BOARD = load_board(Path(__file__).parents[2] / "inventory" / "boards" / "raspberry-pi-4b.yaml")

NET_HEADER = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n"


class Host:
    """A scripted Pi: one method a thing that the kernel shows."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.procfs = root / "sys", root / "proc"
        self.clock = ManualClock(10.0)

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def stat(self, busy: int, idle: int) -> None:
        self.write(self.procfs / "stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 0 0 0 0\n")

    def memory(self, total_kb: int, available_kb: int) -> None:
        text = f"MemTotal:  {total_kb} kB\nMemFree:  1 kB\nMemAvailable:  {available_kb} kB\nBuffers: 3 kB\n"
        self.write(self.procfs / "meminfo", text)

    def net(self, **bytes_of: tuple[int, int]) -> None:
        rows = [f"  {name}: {rx} 1 0 0 0 0 0 0 {tx} 1 0 0 0 0 0 0\n" for name, (rx, tx) in bytes_of.items()]
        self.write(self.procfs / "net" / "dev", NET_HEADER + "".join(rows))

    def zone(self, number: int, kind: str, milli_c: int) -> None:
        folder = self.sysfs / "class" / "thermal" / f"thermal_zone{number}"
        self.write(folder / "type", f"{kind}\n")
        self.write(folder / "temp", f"{milli_c}\n")

    def frequency(self, core: int, name: str, khz: int) -> None:
        self.write(self.sysfs / "devices" / "system" / "cpu" / f"cpu{core}" / "cpufreq" / name, f"{khz}\n")

    def throttle(self, text: str, node: str = "soc/soc:firmware") -> None:
        self.write(self.sysfs / "devices" / "platform" / node / "get_throttled", text)

    def sampler(self, interfaces: list[str] | None = None, meter: ScriptedMeter | None = None) -> HostSampler:
        return HostSampler(self.clock, self.sysfs, self.procfs, interfaces, meter, host="pi1")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_columns_are_those_of_samples_parquet() -> None:
    names = [each.name for each in fields(HostSample)]
    assert names == [
        *("host", "t_s", "cpu", "frequency_hz", "temperature_c", "throttle_word"),
        *("memory_bytes", "rx_bytes", "tx_bytes", "power_w", "power_source", "other_cpu", "wifi_power_save"),
    ]
    assert names == [column.name for column in columns(SampleRecord)]
    assert list(HostSample("a", 0.0, *[None] * 9).columns()) == names[2:]


def test_whole_sample_of_a_pi(host: Host) -> None:
    host.stat(100, 900)
    host.memory(4_000_000, 3_000_000)
    host.net(lo=(999, 999), wlan0=(1000, 2000), eth0=(10, 20))
    host.zone(0, "cpu-thermal", 61_234)
    for core in range(4):
        host.frequency(core, "scaling_cur_freq", 1_500_000)
    host.throttle("50005\n")
    meter = ScriptedMeter(host.clock)
    sampler = host.sampler(meter=meter)
    meter.spend(0.1, 3.5)
    host.stat(130, 910)
    sample = sampler.sample()
    assert sample.cpu == pytest.approx(0.75)
    assert sample == HostSample(
        host="pi1",
        t_s=10.1,
        cpu=sample.cpu,
        frequency_hz=1.5e9,
        temperature_c=61.234,
        throttle_word=0x50005,
        memory_bytes=1_000_000 * 1024,
        rx_bytes=1010,
        tx_bytes=2020,
        power_w=3.5,
        power_source="measured:scripted",
    )
    assert sampler.last_reading is not None
    assert sampler.last_reading.energy_j == pytest.approx(0.35)


def test_host_that_shows_nothing_gives_only_none(host: Host) -> None:
    assert host.sampler().sample() == HostSample("pi1", 10.0, *[None] * 9)


@pytest.mark.parametrize("text", ["", "garbage", "cpu x y z w\n", "\x00\xff", "MemTotal:", "MemTotal: lots kB\n"])
def test_files_that_say_nothing_give_none(host: Host, text: str) -> None:
    for path in ("stat", "meminfo", "net/dev", "cpuinfo"):
        host.write(host.procfs / path, text)
    host.write(host.sysfs / "class/thermal/thermal_zone0/temp", text)
    host.throttle(text)
    host.write(host.sysfs / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", text)
    assert host.sampler().sample() == HostSample("pi1", 10.0, *[None] * 9)


def test_cpu_is_over_the_time_since_the_sample_before(host: Host) -> None:
    host.stat(0, 100)
    sampler = host.sampler()
    assert sampler.sample().cpu is None  # no time has passed
    host.stat(5, 115)
    assert sampler.sample().cpu == pytest.approx(0.25)
    host.stat(25, 115)
    assert sampler.sample().cpu == pytest.approx(1.0)
    host.stat(0, 0)
    assert sampler.sample().cpu is None  # the counters went back: unknown, not negative
    (host.procfs / "stat").unlink()
    assert sampler.sample().cpu is None
    host.stat(1, 1)
    assert sampler.sample().cpu is None  # nothing to compare with
    host.stat(2, 2)
    assert sampler.sample().cpu == pytest.approx(0.5)


def test_only_the_named_interfaces_count(host: Host) -> None:
    host.net(lo=(1, 2), wlan0=(10, 20), br0=(100, 200))
    both = [host.sampler(interfaces=names).sample() for names in (["wlan0"], ["lo"], ["wlan0", "br0"], ["gone"])]
    assert [(each.rx_bytes, each.tx_bytes) for each in both] == [(10, 20), (1, 2), (110, 220), (None, None)]


def test_hardware_s_frequency_is_preferred_to_the_kernel_s_wish(host: Host) -> None:
    host.frequency(0, "scaling_cur_freq", 1_500_000)
    host.frequency(0, "cpuinfo_cur_freq", 600_000)
    host.frequency(1, "scaling_cur_freq", 1_400_000)
    assert host.sampler().sample().frequency_hz == 1.0e9


def test_frequency_from_cpuinfo_where_there_is_no_cpufreq(host: Host) -> None:
    host.write(host.procfs / "cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2000.5\n\nprocessor\t: 1\ncpu MHz\t\t: 1999.5\n")
    assert host.sampler().sample().frequency_hz == 2.0e9


def test_cpu_s_own_thermal_zone_is_preferred_and_the_hottest_of_several(host: Host) -> None:
    host.zone(0, "acpitz", 90_000)
    assert host.sampler().sample().temperature_c == 90.0
    host.zone(1, "x86_pkg_temp", 50_000)
    host.zone(2, "cpu-1-thermal", 55_500)
    assert host.sampler().sample().temperature_c == 55.5


def test_throttle_word_is_found_where_newer_boards_have_it(host: Host) -> None:
    host.throttle("e0000\n", node="soc@107c000000/soc@107c000000:firmware")
    assert host.sampler().sample().throttle_word == 0xE0000


def test_slow_sensors_are_read_once_a_second(host: Host) -> None:
    host.zone(0, "cpu-thermal", 40_000)
    host.throttle("0\n")
    host.memory(9000, 9000)
    sampler = host.sampler()
    seen = []
    for step in range(21):
        sample = sampler.sample()
        seen.append((sample.temperature_c, sample.throttle_word, sample.memory_bytes))
        host.clock.advance(0.125)
        host.zone(0, "cpu-thermal", 40_000 + 1000 * (step + 1))
        host.throttle(f"{step + 1:x}\n")
        host.memory(9000, 8999 - step)
    assert seen == [*[(40.0, 0, 0)] * 8, *[(48.0, 8, 8192)] * 8, *[(56.0, 16, 16384)] * 5]


def test_sensor_that_vanishes_is_none_and_may_come_back(host: Host) -> None:
    host.zone(0, "cpu-thermal", 40_000)
    sampler = host.sampler()
    (host.sysfs / "class/thermal/thermal_zone0/temp").unlink()
    assert sampler.sample().temperature_c is None
    host.zone(0, "cpu-thermal", 41_000)
    host.clock.advance(1.0)
    assert sampler.sample().temperature_c == 41.0


def test_model_s_power_and_utilisation_are_of_the_same_moment(host: Host) -> None:
    host.stat(0, 100)
    meter = open_meter("cpu_model", MeterSetup(host.clock, BOARD, proc_root=host.procfs))
    sampler = HostSampler(host.clock, host.sysfs, host.procfs, meter=meter, host="pi1")
    for busy, u in ((0, 0.0), (5, 0.5), (15, 1.0)):
        host.clock.advance(0.1)
        host.stat(busy, 100)
        # One core: 10 ticks are the whole tenth of a second.
        assert sampler.sample().power_w == pytest.approx(BOARD.power_w(u))
    assert sampler.last_reading is not None
    assert sampler.last_reading.energy_j == meter.read().energy_j
    (host.procfs / "stat").unlink()
    assert sampler.sample().power_source is None
    assert "stat cannot be read" in str(sampler.meter_problem)


def test_lost_meter_is_no_crash_and_no_silence(host: Host) -> None:
    meter = ScriptedMeter(host.clock)
    sampler = host.sampler(meter=meter)
    meter.spend(1.0, 2.0)
    assert sampler.sample().power_w == 2.0
    meter.take_away()
    lost = sampler.sample()
    assert (lost.power_w, lost.power_source) == (None, None)
    assert sampler.meter_problem is not None
    assert "taken away" in sampler.meter_problem
    meter.give_back()
    assert sampler.sample().power_source == "measured:scripted"
    assert sampler.meter_problem is None


def test_other_work_is_what_this_program_does_not_account_for() -> None:
    clock, own_s = ManualClock(), [0.0]
    others = OtherWork(clock, lambda: own_s[0])
    assert others.share(CpuTimes(0.0, 0.0, 4)) is None
    for tenth in range(1, 10):
        clock.time_s = tenth / 10
        assert others.share(CpuTimes(0.3 * tenth, 0.4 * tenth, 4)) is None  # a window is a second
    clock.time_s, own_s[0] = 1.0, 1.0
    assert others.share(CpuTimes(3.0, 4.0, 4)) == pytest.approx((3.0 - 1.0) / 4.0)
    assert others.share(CpuTimes(3.0, 4.0, 4)) is None
    clock.time_s, own_s[0] = 2.0, 3.0
    assert others.share(CpuTimes(4.9, 8.0, 4)) == 0.0  # ticks run behind our own clock
    clock.time_s = 3.0
    assert others.share(None) is None
    clock.time_s = 4.0
    assert others.share(CpuTimes(9.0, 16.0, 4)) is None  # nothing to compare with


def test_on_a_shared_machine_nobody_s_work_is_other_work(host: Host) -> None:
    for shares, expected in ((False, 1.0), (True, None)):
        host.stat(0, 100)
        sampler = HostSampler(host.clock, host.sysfs, host.procfs, host="pi1", shares_machine=shares)
        sampler.sample()
        host.clock.advance(1.0)
        host.stat(400, 100)
        assert sampler.sample().other_cpu == (None if expected is None else pytest.approx(expected, abs=0.2))


def scripted(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def sampled_until(host: Host, sampler: HostSampler, reached: Callable[[HostSample], bool]) -> HostSample:
    """Sample on the scripted clock until something shows; the programs asked are real ones and take their time."""
    end_s = time.monotonic() + 10
    while not reached(sample := sampler.sample()):
        assert time.monotonic() < end_s, sample
        host.clock.advance(0.01)
        time.sleep(0.01)  # no less: what has not answered by the time that it is due again is killed
    return sample


def test_the_firmware_is_asked_where_the_kernel_has_no_file(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = 'case $1 in get_throttled) echo throttled=0x50004;; measure_clock) echo "frequency(48)=600117184";; esac'
    scripted(tmp_path / "bin", "vcgencmd", answers)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    host.frequency(0, "scaling_cur_freq", 1_500_000)
    sampler = host.sampler()
    sample = sampled_until(host, sampler, lambda each: each.throttle_word is not None and each.frequency_hz != 1.5e9)
    sampler.close()
    assert (sample.throttle_word, sample.frequency_hz) == (0x50004, 600117184.0)


def test_wifi_power_saving_is_sampled_where_the_traffic_takes_wifi(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(tmp_path / "bin", "iw", '[ "$*" = "dev wlan0 get power_save" ] && echo "Power save: on"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    host.write(host.procfs / "net/wireless", "Inter-| sta-|\n face | tus |\n wlan0: 0000   70.  -40.  -256\n")
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
    host.write(host.procfs / "net/route", head + "wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n")
    sampler = host.sampler()
    assert sampled_until(host, sampler, lambda each: each.wifi_power_save is not None).wifi_power_save is True
    # A cable is plugged in: its route comes first.
    cable = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    host.write(host.procfs / "net/route", (host.procfs / "net/route").read_text() + cable)
    host.clock.advance(1.0)
    assert sampler.sample().wifi_power_save is None
    sampler.close()


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        (None, set()),
        (0x0, set()),
        (0x1, {"under_voltage"}),
        (0x2, {"frequency_capped"}),
        (0x4, {"throttled"}),
        (0x8, {"soft_temperature_limit"}),
        (0x50000, {"under_voltage_occurred", "throttled_occurred"}),
        (0x50005, {"under_voltage", "throttled", "under_voltage_occurred", "throttled_occurred"}),
        (0xA0000, {"frequency_capped_occurred", "soft_temperature_limit_occurred"}),
        (0xF000F, set(THROTTLE_FLAGS)),
        (0xFFF0FFF0, set()),
    ],
)
def test_throttle_word_is_decoded(word: int | None, flags: set[str]) -> None:
    assert throttle_flags(word) == flags


def test_this_host_is_sampled_within_its_budget() -> None:
    sampler = HostSampler(MonotonicClock())
    sampler.sample()
    costs_s = []
    for _ in range(50):
        start_s = time.thread_time()
        sample = sampler.sample()
        costs_s.append(time.thread_time() - start_s)
    assert sample.memory_bytes is None or sample.memory_bytes > 0
    # 10 Hz at 1 % of a core is 1 ms of CPU a sample; the median, since a shared machine disturbs single ones.
    assert sorted(costs_s)[25] < 1e-3
