"""Is it the board that it is said to be, and does it run at its speed: throttling, clock, governor, heat. Pure."""

from __future__ import annotations

import re

from edgebed.metering.board import Board
from edgebed.metering.health import throttle_flags
from edgebed.metering.vcgencmd import parse_clock_hz, parse_throttled
from orchestrator.doctor.boards import HOT_AT_C, board_of_model, parse_revision
from orchestrator.doctor.finding import Finding, fail, ok, warn
from orchestrator.doctor.probe import Probe
from orchestrator.inventory import Host

LEAST_MEMORY_SHARE = 0.75
"""What the kernel has of the memory that the revision code states; the rest is the graphics processor's."""

HOT_PI_C = 80.0
HOT_OTHER_C = 90.0
NEAR_C = 5.0
"""So close below the limit a board will reach it once it is busy."""

LEAST_CLOCK_SHARE = 0.95

POWER_FIX = "use the board's own power supply and a short, thick cable (5.1 V; a Pi 5 wants 5 A)"
HEAT_FIX = "cool it: a heat sink and a fan; steady heat takes about half an hour of load"


def is_pi(probe: Probe) -> bool:
    """Is it a Raspberry Pi?"""
    return probe.text("model").startswith("Raspberry Pi")


def check_board(host: Host, board: Board, probe: Probe) -> Finding:
    """The board, its revision and its memory, against what the hosts file says that it is."""
    model = probe.text("model") or _processor(probe) or "unknown"
    cores, memory_mb = probe.text("cores"), _memory_mb(probe)
    revision = parse_revision(probe.text("cpuinfo"))
    seen = f"{model}, {cores or '?'} cores"
    if revision is not None:
        seen += f", revision {revision.code:x}, made with {revision.memory_mb / 1024:g} GiB"
    if memory_mb:
        seen += f", {memory_mb / 1024:.1f} GiB of memory"
    if host.slowdown > 1 and not is_pi(probe):
        return ok("board", f"{seen}; stands for a {board.name}, slowed down {host.slowdown:g} times (emulated)")
    really = board_of_model(probe.text("model"))
    if is_pi(probe) and really != board.name:
        better = f"edgebed_board: {really}" if really else "write a board file of its own, see docs/energy.md"
        return warn("board", f"{seen}; the hosts file says {board.name}", better)
    if not is_pi(probe) and board.name.startswith("raspberry-pi"):
        fix = "name the board that it is; energy and speed of another one would be assumed"
        return warn("board", f"{seen}, no Raspberry Pi; the hosts file says {board.name}", fix)
    if revision is not None and memory_mb and memory_mb < LEAST_MEMORY_SHARE * revision.memory_mb:
        fix = "look for total_mem or gpu_mem in /boot/firmware/config.txt"
        return warn("board", f"{seen}: a part of the memory is not used", fix)
    if cores.isdigit() and int(cores) < board.cores and is_pi(probe):
        fix = "look for maxcpus or isolcpus in /boot/firmware/cmdline.txt"
        return warn("board", f"{seen}; a {board.name} has {board.cores} cores", fix)
    return ok("board", seen)


def _processor(probe: Probe) -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", probe.text("cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else ""


def _memory_mb(probe: Probe) -> float | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", probe.text("memory"), re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def throttle_word(probe: Probe) -> int | None:
    """The throttle word: the firmware's own, which remembers since boot, else the kernel's file."""
    for line in probe.lines("throttled"):
        if (word := parse_throttled(line)) is not None:
            return word
    for line in probe.lines("throttled"):
        if re.fullmatch(r"sysfs=[0-9a-fA-F]{1,8}", line):
            return int(line.removeprefix("sysfs="), 16)
    return None


def check_throttling(probe: Probe) -> Finding | None:
    """Voltage and throttling, now and since boot; only Raspberry Pis tell."""
    word = throttle_word(probe)
    if word is None:
        if not is_pi(probe):
            return None
        fix = "install raspi-utils (`vcgencmd`), and put the user into the group video"
        return warn("throttling", "the throttle word cannot be read: throttled runs would look like any other", fix)
    flags = throttle_flags(word)
    if not flags:
        return ok("throttling", f"0x{word:x}: nothing, now or since boot")
    now = sorted(flag for flag in flags if not flag.endswith("_occurred"))
    since = sorted(flag.removesuffix("_occurred") for flag in flags if flag.endswith("_occurred"))
    texts = [f"now: {', '.join(now)}" if now else "", f"since boot: {', '.join(since)}" if since else ""]
    seen = f"0x{word:x}: {'; '.join(text for text in texts if text)}".replace("_", " ")
    fixes = [POWER_FIX] if {"under_voltage", "under_voltage_occurred"} & flags else []
    if flags - {"under_voltage", "under_voltage_occurred"}:
        fixes.append(HEAT_FIX)
    return warn("throttling", seen, "; ".join(fixes) + ("" if now else "; a reboot clears the record"))


def check_clock_rate(probe: Probe) -> Finding | None:
    """The clock of a busy core against the nominal one; says nothing where nobody can tell."""
    nominal = probe.text("nominal_khz")
    measured_hz = next((hz for line in probe.lines("clock") if (hz := parse_clock_hz(line))), None)
    kernel_khz = [int(found[1]) for line in probe.lines("clock") if (found := re.fullmatch(r"kernel (\d+)", line))]
    best_hz = measured_hz or (max(kernel_khz) * 1e3 if kernel_khz else None)
    if best_hz is None or not nominal.isdigit() or int(nominal) == 0:
        return None
    nominal_hz = int(nominal) * 1e3
    who = "measured by the firmware" if measured_hz else "as the kernel believes"
    seen = f"{best_hz / 1e6:.0f} MHz under load ({who}), nominal {nominal_hz / 1e6:.0f} MHz"
    if best_hz < LEAST_CLOCK_SHARE * nominal_hz:
        return warn("cpu_clock", seen, "see throttling, temperature and governor; arm_freq in config.txt caps it too")
    return ok("cpu_clock", seen)


def check_governor(probe: Probe) -> Finding | None:
    """A governor that lets the clock follow the load makes short tasks slow, and unlike."""
    governors = probe.lines("governor")
    if not governors:
        return None
    if governors == ["performance"]:
        return ok("governor", "performance")
    fix = (
        "for steady clocks: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor "
        "(until the next boot), or cpufreq.default_governor=performance in cmdline.txt"
    )
    return warn("governor", f"{', '.join(governors)}: the clock follows the load", fix)


def check_temperature(board: Board, probe: Probe) -> Finding | None:
    """How far the processor is from the temperature at which it slows down."""
    zones = [line.rsplit(" ", 1) for line in probe.lines("temperature")]
    known = [int(zone[-1]) / 1000 for zone in zones if re.fullmatch(r"-?\d+", zone[-1])]
    if not known:
        return None
    now_c = max(known)
    limit_c = HOT_AT_C.get(board_of_model(probe.text("model")) or board.name, HOT_PI_C if is_pi(probe) else HOT_OTHER_C)
    seen = f"{now_c:.1f} °C; it slows down at {limit_c:.0f} °C"
    return warn("temperature", seen, HEAT_FIX) if now_c >= limit_c - NEAR_C else ok("temperature", seen)


def check_meter(host: Host, probe: Probe) -> list[Finding]:
    """The meters that the hosts file names are there, as far as can be told without opening them."""
    return [_check_meter(name, probe) for name in (host.meter, host.second_meter) if name]


def _check_meter(name: str, probe: Probe) -> Finding:
    if name == "hwmon_ina2xx" and not any(line.startswith("ina") for line in probe.lines("hwmon")):
        fix = "wire it, and tell the kernel where it is and what its shunt has: docs/hardware.md shows how"
        return fail("meter", "hwmon shows no INA2xx sensor", fix)
    if name == "rapl" and "readable" not in probe.lines("rapl"):
        from edgebed.metering.drivers.rapl import MAY_READ

        there = "unreadable" in probe.lines("rapl")
        seen = "its counters may not be read" if there else "there are no RAPL counters"
        return fail("meter", seen, MAY_READ if there else "use another meter, `edgebed list meters`")
    if name == "cpu_model":
        return ok("meter", "cpu_model: energy is estimated; `--calibrate` fits it to a board with a sensor")
    return ok("meter", name)
