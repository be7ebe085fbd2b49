"""Host samples: what `samples.parquet` says about a host over time. Linux; elsewhere most fields are None.

A field that cannot be known is None, never a guess and never an error. Sampling must not disturb what it watches: ten
times a second it may cost 1 % of a core at most (``benchmarks/metering_cost.py``), so what changes slowly (frequency,
temperature, throttle word, memory, Wi-Fi) is read once a second and repeated in between. Programs that have to be
asked (``vcgencmd``, ``iw``) are started at most once a second and never waited for.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgebed.clock import Clock
from edgebed.errors import EdgebedError
from edgebed.metering.base import PROC_ROOT, SYSFS_ROOT, Meter, Reading, UsesCpuTimes
from edgebed.metering.cpu import process_cpu_s
from edgebed.metering.kernel_files import CpuTimes, read_bytes, read_cpu_times, read_integer
from edgebed.metering.power_supply import batteries, charge_left
from edgebed.metering.vcgencmd import (
    GET_THROTTLED,
    MEASURE_CLOCK,
    FirmwarePoll,
    find_program,
    parse_clock_hz,
    parse_throttled,
)
from edgebed.metering.wifi import WifiPowerSave

SLOW_PERIOD_S = 1.0
"""How often frequency, temperature, throttle word and memory are read."""

OTHER_WORK_WINDOW_S = 1.0
"""How long is looked at to tell how busy other programs keep the processors."""

_THROTTLE_BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
_OCCURRED_SHIFT = 16

THROTTLE_FLAGS = (*_THROTTLE_BITS, *(f"{name}_occurred" for name in _THROTTLE_BITS))
"""Every flag that `throttle_flags` may give."""


def throttle_flags(word: int | None) -> frozenset[str]:
    """Decode a Raspberry Pi's throttle word.

    Bits 0 to 3 say what is true now: ``under_voltage``, ``frequency_capped``, ``throttled``,
    ``soft_temperature_limit``. Bits 16 to 19 say the same of the past, as ``..._occurred``: by the firmware since boot,
    but a kernel with the ``rpi_volt`` driver polls every 2 s and clears them, so that in sysfs they mean "in the last
    seconds" (raspberrypi/linux, drivers/hwmon/raspberrypi-hwmon.c). Bits without a meaning are ignored.

    Args:
        word: as sampled; None (unknown) has no flags.
    """
    if not word:
        return frozenset()
    now = (name for bit, name in enumerate(_THROTTLE_BITS) if word >> bit & 1)
    past = (f"{name}_occurred" for bit, name in enumerate(_THROTTLE_BITS) if word >> bit + _OCCURRED_SHIFT & 1)
    return frozenset((*now, *past))


@dataclass(frozen=True, slots=True)
class HostSample:
    """One row of `samples.parquet`; None where unknown.

    Attributes:
        host: the inventory's name of the host.
        t_s: when, on the sampler's clock.
        cpu: utilisation of all cores since the sample before, 0..1, in steps of the kernel's 10 ms tick.
        frequency_hz: clock of the cores: as the firmware counted it where ``vcgencmd`` tells, else their mean as the
            kernel believes it. Firmware may throttle behind its back: look at ``throttle_word`` too.
        temperature_c: the CPU's temperature.
        throttle_word: a Raspberry Pi's raw throttle word, see `throttle_flags`.
        memory_bytes: memory of the host in use, total minus available.
        rx_bytes: bytes received since the host started, over the sampled interfaces.
        tx_bytes: bytes sent, likewise.
        power_w: the meter's power.
        power_source: where ``power_w`` is from.
        other_cpu: share of all cores' time, 0..1, that other programs than this one kept busy over the second that ends
            with this sample; None for the samples in between.
        wifi_power_save: it is on for the interface that carries the traffic; None where that is no Wi-Fi.
    """

    host: str
    t_s: float
    cpu: float | None
    frequency_hz: float | None
    temperature_c: float | None
    throttle_word: int | None
    memory_bytes: int | None
    rx_bytes: int | None
    tx_bytes: int | None
    power_w: float | None
    power_source: str | None
    other_cpu: float | None = None
    wifi_power_save: bool | None = None

    def columns(self) -> dict[str, Any]:
        """Its values by the name of their column in `samples.parquet`, those that say who and when left out."""
        return {name: getattr(self, name) for name in _COLUMNS}


_COLUMNS = tuple(each.name for each in fields(HostSample) if each.name not in ("host", "t_s"))


class HostSampler:
    """Takes `HostSample` after `HostSample` of this host. Belongs to one thread; keeps no file open.

    Args:
        clock: stamps the samples and paces what is read slowly.
        sysfs_root: where sysfs is mounted; tests script a tree of their own.
        proc_root: where procfs is mounted.
        interfaces: network interfaces to count; all but the loopback when None. A bridge and its ports, both counted,
            count a byte twice: name the interface then.
        meter: read at every sample, which is what gives a sensor's integral its resolution; none when None.
        host: the inventory's name of this host; its network name when None.
        peers: IPv4 addresses that this host talks to; they say which interface carries the traffic.
        shares_machine: other programs of the same run are on this machine: then nobody's work is "other".

    Attributes:
        last_reading: the meter's last good reading.
        meter_problem: why the meter could not be read at the last sample; None when it could.
        charge_left: of the host's batteries, 0..1; 1 on mains. Read once a second.
    """

    def __init__(
        self,
        clock: Clock,
        sysfs_root: Path = SYSFS_ROOT,
        proc_root: Path = PROC_ROOT,
        interfaces: Sequence[str] | None = None,
        meter: Meter | None = None,
        host: str | None = None,
        *,
        peers: Sequence[str] = (),
        shares_machine: bool = False,
    ) -> None:
        self._clock = clock
        self._proc_root = str(proc_root)
        self._interfaces = None if interfaces is None else frozenset(each.encode() for each in interfaces)
        self._meter = meter
        self._times_meter = meter if isinstance(meter, UsesCpuTimes) else None
        self._host = platform.node() if host is None else host
        self._slow = _SlowSensors(clock, sysfs_root, proc_root)
        self._wifi = WifiPowerSave(clock, sysfs_root, proc_root, peers)
        self._slow_values: _SlowValues = (None, None, None, None)
        self._wifi_power_save: bool | None = None
        self._others = None if shares_machine else OtherWork(clock)
        self._batteries = batteries(sysfs_root)
        self.charge_left = charge_left(self._batteries)
        self._slow_due_s = clock.now_s()
        self._times = read_cpu_times(proc_root)
        self.last_reading: Reading | None = None
        self.meter_problem: str | None = None

    def sample(self) -> HostSample:
        """Take a sample now. Never raises for what the host does not show."""
        now_s = self._clock.now_s()
        if now_s >= self._slow_due_s:
            self._slow_values = self._slow.read()
            self._wifi_power_save = self._wifi.read()
            self.charge_left = charge_left(self._batteries)
            self._slow_due_s = now_s + SLOW_PERIOD_S
        frequency_hz, temperature_c, throttle_word, memory_bytes = self._slow_values
        cpu = self._cpu()
        reading = self._read_meter()
        rx_bytes, tx_bytes = self._network_bytes()
        return HostSample(
            self._host,
            now_s,
            cpu,
            frequency_hz,
            temperature_c,
            throttle_word,
            memory_bytes,
            rx_bytes,
            tx_bytes,
            None if reading is None else reading.power_w,
            None if reading is None or reading.power_w is None else reading.source,
            None if self._others is None else self._others.share(self._times),
            self._wifi_power_save,
        )

    def close(self) -> None:
        """End the programs that are being asked."""
        self._slow.close()
        self._wifi.close()

    def _cpu(self) -> float | None:
        before, self._times = self._times, read_cpu_times(self._proc_root)
        if before is None or self._times is None:
            return None
        total_s = self._times.total_s - before.total_s
        if total_s <= 0:
            return None
        return min(1.0, max(0.0, (self._times.busy_s - before.busy_s) / total_s))

    def _network_bytes(self) -> tuple[int | None, int | None]:
        data = read_bytes(f"{self._proc_root}/net/dev")
        return (None, None) if data is None else _sum_interfaces(data, self._interfaces)

    def _read_meter(self) -> Reading | None:
        self.meter_problem = None
        if self._meter is None:
            return None
        try:
            if self._times is not None and self._times_meter is not None:
                self.last_reading = self._times_meter.read_at(self._times)
            else:
                self.last_reading = self._meter.read()
        except EdgebedError as error:
            self.meter_problem = str(error)
            return None
        return self.last_reading


class OtherWork:
    """How much of the processors other programs than this one keep busy, over windows of a second.

    A window that short tells load from the 10 ms ticks in which the kernel counts it.
    """

    def __init__(self, clock: Clock, own_cpu_s: Callable[[], float] = process_cpu_s) -> None:
        self._clock = clock
        self._own_cpu_s = own_cpu_s
        self._begin: tuple[float, CpuTimes, float] | None = None

    def share(self, times: CpuTimes | None) -> float | None:
        """Share of all cores' time, 0..1, in the window that ends now; None when none does."""
        now_s = self._clock.now_s()
        if times is None:
            self._begin = None
            return None
        if self._begin is not None and now_s - self._begin[0] < OTHER_WORK_WINDOW_S:
            return None
        begin, self._begin = self._begin, (now_s, times, self._own_cpu_s())
        if begin is None:
            return None
        _, before, own_before_s = begin
        total_s = times.total_s - before.total_s
        others_s = times.busy_s - before.busy_s - (self._begin[2] - own_before_s)
        return min(1.0, max(0.0, others_s / total_s)) if total_s > 0 else None


def _meminfo_bytes(data: bytes, key: bytes) -> int | None:
    start = data.find(key)
    if start < 0:
        return None
    value = data[start + len(key) : start + len(key) + 40].split(None, 1)
    return int(value[0]) * 1024 if value and value[0].isdigit() else None


def _sum_interfaces(data: bytes, wanted: frozenset[bytes] | None) -> tuple[int | None, int | None]:
    """Sum bytes received and sent; (None, None) when none of the interfaces is there."""
    rx_bytes = tx_bytes = 0
    seen = False
    for line in data.splitlines()[2:]:
        name, _, counters = line.partition(b":")
        name = name.strip()
        if name not in wanted if wanted is not None else name == b"lo":
            continue
        numbers = counters.split(None, 9)
        if len(numbers) < 9:
            continue
        seen = True
        rx_bytes += int(numbers[0])
        tx_bytes += int(numbers[8])
    return (rx_bytes, tx_bytes) if seen else (None, None)


_SlowValues = tuple[float | None, float | None, int | None, int | None]


class _SlowSensors:
    """What changes slowly; finds its files once, when it is made."""

    def __init__(self, clock: Clock, sysfs_root: Path, proc_root: Path) -> None:
        self._meminfo = str(proc_root / "meminfo")
        self._cpuinfo = str(proc_root / "cpuinfo")
        self._frequencies = _frequency_files(sysfs_root)
        self._temperatures = _temperature_files(sysfs_root)
        self._throttle = _throttle_file(sysfs_root)
        self._firmware: FirmwarePoll | None = None
        if (program := find_program()) is not None:
            # The kernel's file costs nothing; the true clock only the firmware knows.
            questions = [MEASURE_CLOCK] if self._throttle is not None else [GET_THROTTLED, MEASURE_CLOCK]
            self._firmware = FirmwarePoll(clock, program, questions)

    def close(self) -> None:
        """End what is still being asked."""
        if self._firmware is not None:
            self._firmware.close()

    def read(self) -> _SlowValues:
        """Frequency in Hz, temperature in degrees Celsius, throttle word, memory used in bytes."""
        if self._firmware is not None:
            self._firmware.poll()
        return self._frequency_hz(), self._temperature_c(), self._throttle_word(), self._memory_bytes()

    def _throttle_word(self) -> int | None:
        if self._throttle is not None:
            return read_integer(self._throttle, base=16)
        return None if self._firmware is None else parse_throttled(self._firmware.answer(GET_THROTTLED) or "")

    def _memory_bytes(self) -> int | None:
        data = read_bytes(self._meminfo)
        if data is None:
            return None
        total, available = _meminfo_bytes(data, b"MemTotal:"), _meminfo_bytes(data, b"MemAvailable:")
        return None if total is None or available is None else total - available

    def _frequency_hz(self) -> float | None:
        measured_hz = None if self._firmware is None else parse_clock_hz(self._firmware.answer(MEASURE_CLOCK) or "")
        if measured_hz is not None:
            return measured_hz
        known_khz = [khz for path in self._frequencies if (khz := read_integer(path)) is not None]
        if known_khz:
            return sum(known_khz) / len(known_khz) * 1e3
        return _cpuinfo_hz(read_bytes(self._cpuinfo) or b"")

    def _temperature_c(self) -> float | None:
        # The hottest of the CPU's zones: throttling goes by it.
        known = [milli for path in self._temperatures if (milli := read_integer(path)) is not None]
        return max(known) / 1e3 if known else None


def _frequency_files(sysfs_root: Path) -> list[str]:
    """Each core's frequency file: the hardware's own where it may be read (by root), else the kernel's wish."""
    files = []
    for folder in sorted((sysfs_root / "devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
        candidates = (folder / "cpuinfo_cur_freq", folder / "scaling_cur_freq")
        readable = next((path for path in candidates if read_integer(path) is not None), None)
        if readable is not None:
            files.append(str(readable))
    return files


def _cpuinfo_hz(data: bytes) -> float | None:
    known_mhz = []
    for line in data.splitlines():
        if line.startswith(b"cpu MHz"):
            try:
                known_mhz.append(float(line.partition(b":")[2]))
            except ValueError:
                continue
    return sum(known_mhz) / len(known_mhz) * 1e6 if known_mhz else None


def _temperature_files(sysfs_root: Path) -> list[str]:
    """The thermal zones of the CPU; all zones when none says that it is the CPU's."""
    zones = sorted((sysfs_root / "class/thermal").glob("thermal_zone*"))
    named = [zone for zone in zones if _is_cpu_zone(read_bytes(zone / "type", 64) or b"")]
    return [str(zone / "temp") for zone in named or zones]


def _is_cpu_zone(kind: bytes) -> bool:
    return kind.strip().lower().startswith((b"cpu", b"x86_pkg_temp", b"soc"))


def _throttle_file(sysfs_root: Path) -> str | None:
    """The Pi kernel's file; the node's name carries an address on newer boards."""
    places: Iterable[Path] = (sysfs_root / "devices/platform").glob("soc*/soc*firmware/get_throttled")
    return next((str(path) for path in sorted(places)), None)
