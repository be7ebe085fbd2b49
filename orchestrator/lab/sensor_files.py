"""The files in which a virtual board shows its sensors, as a Raspberry Pi's kernel does.

They lie in the lab's state folder; a host sees them over its own /sys and /proc. They are rewritten in place, one write
a file and always of one length (padded with line ends), because a host has them mounted: a new file would not be seen,
and a shorter one would be read half old.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgebed.metering.board import Board
from orchestrator.lab.sensor_model import BATTERY_J, SensorModel

TICKS_PER_S = 100  # USER_HZ of every Linux that Python runs on
_NUMBER_BYTES = 16
_UWH_PER_J = 1e6 / 3600
BUS_V = 5.0
BATTERY_V = 3.7

# What a host must not see of the machine.
_HIDDEN = ("class/hwmon", "class/thermal", "class/power_supply", "class/powercap")


@dataclass(frozen=True, slots=True)
class PiIdentity:
    """What a Pi's firmware says it is.

    Attributes:
        revision: the revision code, in which memory and model are.
        parts: the processor's implementer, architecture and part, as in /proc/cpuinfo.
    """

    model: str
    revision: str
    memory_bytes: int
    parts: tuple[str, str, str] = ("0x41", "8", "0xd08")


_CORTEX_A53 = ("0x41", "8", "0xd03")
_CORTEX_A76 = ("0x41", "8", "0xd0b")
_GIB = 1 << 30
# Revision codes: the vendor's documentation, "Raspberry Pi revision codes".
PI_IDENTITIES = {
    "raspberry-pi-zero-w": PiIdentity("Raspberry Pi Zero W Rev 1.1", "9000c1", _GIB // 2, parts=("0x41", "7", "0xb76")),
    "raspberry-pi-3b": PiIdentity("Raspberry Pi 3 Model B Rev 1.2", "a02082", _GIB, parts=_CORTEX_A53),
    "raspberry-pi-3b-plus": PiIdentity("Raspberry Pi 3 Model B Plus Rev 1.3", "a020d3", _GIB, parts=_CORTEX_A53),
    "raspberry-pi-4b": PiIdentity("Raspberry Pi 4 Model B Rev 1.4", "c03114", 4 * _GIB),
    "raspberry-pi-400": PiIdentity("Raspberry Pi 400 Rev 1.0", "c03130", 4 * _GIB),
    "raspberry-pi-5": PiIdentity("Raspberry Pi 5 Model B Rev 1.0", "d04170", 8 * _GIB, parts=_CORTEX_A76),
}

VCGENCMD = """#!/bin/sh
# Answers as a Raspberry Pi's firmware does, from the lab's scripted sensors.
values=/sys/devices/platform/soc/soc:firmware/vcgencmd
unknown() { echo 'error=1 error_msg="Command not registered"'; exit 255; }
case "$1 $2" in
    "get_throttled "*) file=get_throttled ;;
    "measure_clock arm") file=measure_clock_arm ;;
    "measure_temp "*) file=measure_temp ;;
    "measure_volts "*) file=measure_volts ;;
    "pmic_read_adc "*) file=pmic_read_adc ;;
    *) unknown ;;
esac
[ -r "$values/$file" ] || unknown
sed '/^$/d' "$values/$file"
"""

# Current's share of each rail, a Pi 5 under light load; VDD_CORE takes what is left.
_RAILS = {
    "3V7_WL_SW": (3.7, 0.05),
    "3V3_SYS": (3.3, 0.06),
    "1V8_SYS": (1.8, 0.10),
    "DDR_VDD2": (1.1, 0.02),
    "DDR_VDDQ": (0.6, 0.01),
    "1V1_SYS": (1.1, 0.08),
    "0V8_SW": (0.8, 0.12),
    "VDD_CORE": (0.85, 0.50),
    "3V3_DAC": (3.3, 0.01),
    "3V3_ADC": (3.3, 0.01),
    "0V8_AON": (0.8, 0.01),
    "HDMI": (5.0, 0.03),
}
_PMIC_SLOPE, _PMIC_OFFSET_W = 1.145, 0.588  # total = 1.145 x sum of the rails + 0.588 W, a community fit


class ScriptedFile:
    """A small file of a fixed length that is kept open and rewritten in place.

    Args:
        path: made, with its folders.
        length_bytes: at least as long as the longest text with a line end.
    """

    def __init__(self, path: Path, length_bytes: int = _NUMBER_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._length_bytes = length_bytes
        self._shown = b""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._descriptor, length_bytes)

    def show(self, text: str | int) -> None:
        """Show a text from now on, one that fits."""
        data = f"{text}\n".encode().ljust(self._length_bytes, b"\n")
        if data != self._shown:
            assert len(data) == self._length_bytes, (len(data), text)
            os.pwrite(self._descriptor, data, 0)
            self._shown = data

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class SensorFiles:
    """All of one host's.

    Args:
        folder: of the host; gets ``sys`` (goes over the host's /sys) and ``proc``.
        board: what the host pretends to be.
        cores: that the host sees.
        serial: of the board, 16 hexadecimal digits.
        is_arm: the host's programs are ARM's.
    """

    def __init__(self, folder: Path, board: Board, cores: int, serial: str, *, is_arm: bool) -> None:
        self._sys = folder / "sys"
        self._proc = folder / "proc"
        self._board = board
        self._cores = cores
        self._files: dict[str, ScriptedFile] = {}
        self._identity = PI_IDENTITIES.get(board.name)
        for hidden in _HIDDEN:
            (self._sys / hidden).mkdir(parents=True, exist_ok=True)
            os.setxattr(self._sys / hidden, "trusted.overlay.opaque", b"y")
        self._write_constants(serial)
        self._write_cpuinfo(serial, is_arm)

    @property
    def over(self) -> dict[str, str]:
        """Files that go over the host's: the machine's path -> path in the host."""
        return {str(self._proc / name): f"/proc/{name}" for name in ("stat", "meminfo", "cpuinfo")}

    @property
    def is_pi(self) -> bool:
        """Whether it has a Pi's firmware, and a current sensor."""
        return self._identity is not None

    def _write_constants(self, serial: str) -> None:
        zone = "cpu-thermal" if self.is_pi else "x86_pkg_temp"
        self._constant("class/thermal/thermal_zone0/type", zone)
        for core in range(self._cores):
            self._cpufreq_constants(f"devices/system/cpu/cpu{core}/cpufreq")
        if self._identity is None:
            return
        self._constant("class/hwmon/hwmon0/name", "ina219")
        battery = "class/power_supply/BAT0"
        capacity_uwh = round(BATTERY_J * _UWH_PER_J)
        constants = {"type": "Battery", "status": "Discharging", "present": "1", "scope": "System"}
        for name, text in (constants | {"energy_full": str(capacity_uwh), "technology": "Li-ion"}).items():
            self._constant(f"{battery}/{name}", text)
        tree = self._sys / "firmware/devicetree/base"
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "model").write_bytes(self._identity.model.encode() + b"\0")
        (tree / "serial-number").write_bytes(serial.encode() + b"\0")

    def _cpufreq_constants(self, folder: str) -> None:
        lowest, highest = "600000", str(round(self._board.nominal_hz / 1e3))
        for name in ("cpuinfo_min_freq", "scaling_min_freq"):
            self._constant(f"{folder}/{name}", lowest)
        for name in ("cpuinfo_max_freq", "scaling_max_freq"):
            self._constant(f"{folder}/{name}", highest)
        self._constant(f"{folder}/scaling_governor", "ondemand")
        self._constant(f"{folder}/scaling_driver", "cpufreq-dt" if self.is_pi else "acpi-cpufreq")

    def _constant(self, name: str, text: str) -> None:
        path = self._sys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def _write_cpuinfo(self, serial: str, is_arm: bool) -> None:
        self._proc.mkdir(parents=True, exist_ok=True)
        real = Path("/proc/cpuinfo").read_text()
        identity = self._identity
        if identity is None:
            text = real
        else:
            # On x86 the processors stay what they are (programs choose instructions by them); the board is a Pi's.
            cores = _arm_processors(identity, self._cores) if is_arm else real.rstrip("\n") + "\n\n"
            text = f"{cores}Revision\t: {identity.revision}\nSerial\t\t: {serial}\nModel\t\t: {identity.model}\n"
        (self._proc / "cpuinfo").write_text(text)

    def show(self, model: SensorModel, cpu_s: float, elapsed_s: float) -> None:
        """What changes fast: power and CPU times."""
        self._show_stat(cpu_s, elapsed_s)
        if not self.is_pi:
            return
        power_uw = round(model.power_w * 1e6)
        self._file("class/hwmon/hwmon0/power1_input").show(power_uw)
        self._file("class/hwmon/hwmon0/in1_input").show(round(BUS_V * 1e3))
        self._file("class/hwmon/hwmon0/curr1_input").show(round(model.power_w / BUS_V * 1e3))
        self._file("class/power_supply/BAT0/power_now").show(power_uw)

    def show_slow(self, model: SensorModel, memory_bytes: int) -> None:
        """What changes slowly: heat, clock, memory, charge, and what the firmware says."""
        self._file("class/thermal/thermal_zone0/temp").show(round(model.temperature_c * 1e3))
        for core in range(self._cores):
            for name in ("scaling_cur_freq", "cpuinfo_cur_freq"):
                self._file(f"devices/system/cpu/cpu{core}/cpufreq/{name}").show(round(model.frequency_hz / 1e3))
        self._show_meminfo(memory_bytes)
        if self.is_pi:
            self._show_battery(model)
            self._show_firmware(model)

    def _show_battery(self, model: SensorModel) -> None:
        battery = "class/power_supply/BAT0"
        self._file(f"{battery}/capacity").show(round(model.battery_fraction * 100))
        self._file(f"{battery}/energy_now").show(round(model.battery_fraction * BATTERY_J * _UWH_PER_J))
        self._file(f"{battery}/voltage_now").show(round(BATTERY_V * 1e6))

    def _show_firmware(self, model: SensorModel) -> None:
        firmware = "devices/platform/soc/soc:firmware"
        self._file(f"{firmware}/get_throttled").show(f"{model.throttle_word:x}")
        answers = f"{firmware}/vcgencmd"
        self._file(f"{answers}/get_throttled", 32).show(f"throttled=0x{model.throttle_word:x}")
        self._file(f"{answers}/measure_clock_arm", 32).show(f"frequency(48)={round(model.frequency_hz)}")
        self._file(f"{answers}/measure_temp", 32).show(f"temp={model.temperature_c:.1f}'C")
        self._file(f"{answers}/measure_volts", 32).show("volt=0.8500V")
        if self._board.name == "raspberry-pi-5":
            self._file(f"{answers}/pmic_read_adc", 2048).show(_rails_text(model.power_w))

    def _show_stat(self, cpu_s: float, elapsed_s: float) -> None:
        busy = round(cpu_s * TICKS_PER_S)
        idle = max(0, round(elapsed_s * self._cores * TICKS_PER_S) - busy)
        lines = [_cpu_line("cpu ", busy, idle)]
        lines += [_cpu_line(f"cpu{core}", busy // self._cores, idle // self._cores) for core in range(self._cores)]
        lines += ["intr 0", "ctxt 0", f"btime {_boot_time()}", "processes 1", "procs_running 1", "procs_blocked 0"]
        text = "\n".join(lines)
        self._file_at(self._proc / "stat", len(text) + 1).show(text)

    def _show_meminfo(self, used_bytes: int) -> None:
        total_kb = (self._identity.memory_bytes if self._identity else _machine_memory_bytes()) // 1024
        free_kb = max(0, total_kb - used_bytes // 1024)
        values = {"MemTotal": total_kb, "MemFree": free_kb, "MemAvailable": free_kb, "Buffers": 0, "Cached": 0}
        values |= {"SwapTotal": 0, "SwapFree": 0, "Active": 0, "Inactive": 0, "Shmem": 0, "Slab": 0, "SReclaimable": 0}
        text = "\n".join(f"{name + ':':<16}{value:>10} kB" for name, value in values.items())
        self._file_at(self._proc / "meminfo", len(text) + 1).show(text)

    def _file(self, name: str, length_bytes: int = _NUMBER_BYTES) -> ScriptedFile:
        return self._file_at(self._sys / name, length_bytes)

    def _file_at(self, path: Path, length_bytes: int) -> ScriptedFile:
        found = self._files.get(str(path))
        if found is None:
            found = self._files[str(path)] = ScriptedFile(path, length_bytes)
        return found

    def close(self) -> None:
        """Give all descriptors back."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _cpu_line(name: str, busy: int, idle: int) -> str:
    return f"{name} {busy:>12} 0 0 {idle:>12} 0 0 0 0 0 0"


@cache
def _boot_time() -> int:
    # The machine's: the start times of processes are counted from there.
    found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _machine_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _arm_processors(identity: PiIdentity, cores: int) -> str:
    implementer, architecture, part = identity.parts
    return "".join(
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: {architecture}\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part}\nCPU revision\t: 3\n\n"
        for core in range(cores)
    )


def _rails_text(power_w: float) -> str:
    """The board's power, shared among the rails so that the community's fit gives it back."""
    rails_w = max(0.0, (power_w - _PMIC_OFFSET_W) / _PMIC_SLOPE)
    lines = []
    for number, (name, (volt, share)) in enumerate(_RAILS.items()):
        lines.append(f"{name + '_A':>14} current({number})={rails_w * share / volt:.8f}A")
    for number, (name, (volt, _)) in enumerate(_RAILS.items(), start=len(_RAILS)):
        lines.append(f"{name + '_V':>14} volt({number})={volt:.8f}V")
    return "\n".join((*lines, f"{'EXT5V_V':>14} volt(24)=5.15092000V", f"{'BATT_V':>14} volt(25)=0.00000000V"))
