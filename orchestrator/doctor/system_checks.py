"""Can edgebed be there: sudo, Python, architecture, disk, ports, what is deployed, and who holds the host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgebed import __version__
from orchestrator.doctor.finding import Finding, fail, ok, warn
from orchestrator.doctor.probe import Probe
from orchestrator.inventory import Host
from orchestrator.provision.facts import HostFacts

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
MACHINES = ("x86_64", "aarch64", "arm64", "amd64")

LEAST_FREE_BYTES = 500 * 10**6
"""A deploy takes about half of this."""
ENOUGH_FREE_BYTES = 2 * 10**9
MOST_INODES_SHARE = 0.95

_LIFE_TIME_STEP = 10
_WORN_OUT = 11


def check_sudo(probe: Probe) -> Finding:
    """Services of the system need it; the user's own do not."""
    told = probe.text("sudo")
    if told == "root":
        return ok("sudo", "the user is root")
    if told == "yes":
        return ok("sudo", "sudo asks for no password")
    return warn(
        "sudo",
        "sudo asks for a password, or is not there",
        "programs are then kept by the user's own systemd or a shell, and clocks are only measured; to change that, "
        "as root: echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/edgebed",
    )


def check_architecture(facts: HostFacts) -> Finding:
    """64 bits, of a machine that there are wheels for."""
    seen = f"{facts.kernel} on {facts.machine}, {facts.bits or 'unknown'} bits"
    if facts.bits == 32 or facts.machine.startswith("armv"):
        return fail(
            "architecture",
            seen,
            "there are hardly any wheels for 32-bit ARM: flash the 64-bit Raspberry Pi OS (a Pi 3 or newer)",
        )
    if facts.machine not in MACHINES:
        return fail("architecture", seen, "use a 64-bit x86 or ARM host; there are no wheels for others")
    return ok("architecture", seen)


def check_python(facts: HostFacts) -> Finding:
    """One of the Pythons that the packages are built for."""
    allowed = f"{_dotted(OLDEST_PYTHON)} to {_dotted(NEWEST_PYTHON)}"
    if facts.current_python:
        return ok("python", f"{facts.current_python}, deployed")
    listed = ", ".join(f"{each.path} ({_dotted(each.version)})" for each in facts.pythons) or "none"
    fitting = [each for each in facts.pythons if OLDEST_PYTHON <= each.version <= NEWEST_PYTHON and each.bits == 64]
    if not fitting:
        fix = f"install Python {allowed} (Debian 12 has 3.11: `sudo apt install python3 python3-venv`)"
        return fail("python", f"found: {listed}; allowed: {allowed}", fix)
    lacking = sorted({name for each in fitting for name in each.missing})
    if all(each.missing for each in fitting):
        fix = "install the rest of Python: `sudo apt install python3 python3-venv`"
        return fail("python", f"{listed} lacks {', '.join(lacking)}", fix)
    return ok("python", listed)


def check_disk(facts: HostFacts, probe: Probe) -> Finding:
    """Room, and that it may be written."""
    mount = _mount_of(probe.text("home") or facts.home, probe.lines("mounts"))
    if mount is not None and "ro" in mount[3].split(","):
        return fail(
            "disk",
            f"{mount[1]} ({mount[0]}) is mounted read-only",
            "Linux does this after errors on the card: look at `dmesg`, check or replace the card, then reboot",
        )
    if not facts.writable:
        return fail("disk", f"{facts.home} cannot be written by {facts.user}", f"chown {facts.user} {facts.home}")
    inodes = re.search(r"\s(\d+)%", probe.text("inodes"))
    if inodes is not None and int(inodes[1]) >= 100 * MOST_INODES_SHARE:
        return warn("disk", f"{inodes[1]} % of the inodes are used", "delete many small files")
    space = probe.text("space").split()
    if len(space) < 6 or not space[3].isdigit():
        return warn("disk", "free space could not be told", f"look at `df {facts.home}` on the host")
    free_bytes = int(space[3]) * 1024
    seen = f"{free_bytes / 1e9:.1f} GB free"
    if free_bytes < LEAST_FREE_BYTES:
        return fail("disk", seen, f"make room: at least {LEAST_FREE_BYTES / 1e9:.1f} GB are needed")
    if free_bytes < ENOUGH_FREE_BYTES:
        return warn("disk", seen, f"long runs want {ENOUGH_FREE_BYTES / 1e9:.0f} GB: make room")
    return ok("disk", seen)


def _mount_of(path: str, mounts: list[str]) -> list[str] | None:
    """The fields of the mount that a path lies on: the longest one that contains it, the last of equals."""
    found = [fields for line in mounts if len(fields := line.split()) >= 4]
    holding = [each for each in found if path == each[1] or path.startswith(each[1].rstrip("/") + "/")]
    return max(reversed(holding), key=lambda fields: len(fields[1]), default=None)


def check_storage(probe: Probe) -> Iterator[Finding]:
    """The card's own word on its wear, and the kernel's on its errors; says nothing where there is no card."""
    fix = "copy what matters, then replace the card; fewer writes and a proper power supply make the next one last"
    cards: dict[str, dict[str, str]] = {}
    for line in probe.lines("mmc"):
        device, _, rest = line.partition(" ")
        what, _, value = rest.partition(" ")
        cards.setdefault(device, {})[what] = value
    for device, card in cards.items():
        seen = f"{device}: {card.get('type', 'card')} {card.get('name', '')} of {card.get('date', 'unknown date')}"
        worn = _worn_percent(card.get("life_time", ""))
        if worn is not None:
            seen += f", worn {'beyond its life' if worn > 100 else f'up to {worn} %'}"
        urgent = card.get("pre_eol_info", "") in ("0x02", "0x03")
        if urgent or (worn or 0) >= 90:
            yield warn("storage", seen + (", near its end of life" if urgent else ""), fix)
        else:
            yield ok("storage", seen)
    errors = [line for line in probe.lines("kernel_log") if "voltage" not in line.lower() and line != "unreadable"]
    if errors:
        yield warn("storage", f"{len(errors)} kernel messages about errors, the last: {errors[-1]}", fix)


def _worn_percent(life_time: str) -> int | None:
    """Upper end of the wear that an eMMC states for its two kinds of memory, the worse one; cards seldom state it."""
    codes = [int(each, 16) for each in re.findall(r"0x[0-9a-fA-F]{1,2}", life_time)]
    known = [each for each in codes if 0 < each <= _WORN_OUT]
    return max(known) * _LIFE_TIME_STEP if known else None


def check_ports(host: Host, probe: Probe, is_held: bool = False) -> Finding | None:
    """The port that an edge server is to listen on is free; says nothing about devices, which listen nowhere.

    Args:
        host: as the inventory has it.
        probe: of the host.
        is_held: somebody runs on this host now, so that the port may well be taken.
    """
    if host.role != "edge_server":
        return None
    if host.port == 0:
        return ok("ports", "edgebed_port is 0: a free port is picked (a firewall needs a fixed one)")
    if host.port not in listening_ports(probe):
        return ok("ports", f"{host.port} is free")
    if is_held:
        return ok("ports", f"{host.port} is in use while the host is held for a run")
    fix = f"end what listens there (`sudo ss -ltnp sport = :{host.port}`), or name another edgebed_port"
    return fail("ports", f"{host.port} is in use", fix)


def listening_ports(probe: Probe) -> set[int]:
    """TCP ports that something listens on, from the kernel's ``/proc/net/tcp`` and ``tcp6``."""
    return {int(found[1], 16) for line in probe.lines("listening") if (found := re.search(r":([0-9A-F]{4}) ", line))}


def check_version(facts: HostFacts, own_wheel_sha256: str) -> Finding:
    """What is deployed is what the orchestrator is."""
    deploy = "run `edgebed deploy HOSTS`"
    if facts.root == "foreign":
        fix = f"move {facts.root_path} away: it is not edgebed's own"
        return fail("version", f"{facts.root_path} is there and was not made by edgebed", fix)
    if facts.record is None:
        return warn("version", "edgebed is not deployed", deploy)
    seen = f"edgebed {facts.record.edgebed}, {facts.record.digest[:12]}, kept by {facts.record.keeper}"
    if facts.record.wheel != own_wheel_sha256:
        return warn("version", f"{seen}; this machine has another {__version__}", deploy)
    if not facts.current_python:
        return fail("version", f"{seen}; its Python does not start", deploy)
    return ok("version", seen)


def check_lease(facts: HostFacts) -> Finding:
    """Nobody else works on the host."""
    if facts.lease is None:
        return ok("lease", "nobody holds the host")
    if facts.lease.is_dead:
        return warn("lease", f"held by {facts.lease}, who is gone", "run `edgebed release HOSTS`")
    fix = "wait until it is done; if nobody works there any more, run `edgebed release HOSTS`"
    return warn("lease", f"held by {facts.lease}", fix)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
