"""From a host's facts and its inventory to what it is to have; or to the reason why it cannot. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgebed.errors import BadInput, Problem
from orchestrator.inventory import Host
from orchestrator.provision.facts import HostFacts, Interpreter
from orchestrator.provision.installation import ROOT_NAME, Keeper
from orchestrator.provision.layout import CONTROLLER, DEVICE_AGENT, EDGE_SERVER
from orchestrator.provision.steps import CHRONY_FILE, SYSTEM_UNIT, user_unit_path
from orchestrator.provision.unit import unit_text
from orchestrator.provision.wheelhouse import GLIBC_MINIMUM, Platform

PYTHONS = ((3, 11), (3, 12), (3, 13))
MACHINES = ("x86_64", "aarch64")

# Paths that every shell and systemd take as they are.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+,-]*")

_SENSOR_GROUPS = ("video",)
"""Who may ask a Raspberry Pi's firmware."""


def check_host(host: Host, facts: HostFacts) -> None:
    """Can edgebed work there at all, and is nothing in its way?

    Raises:
        BadInput: with all that speaks against it.
    """
    problems = [Problem(message, key=host.name) for message in _objections(host, facts)]
    if problems:
        raise BadInput(problems)


def _objections(host: Host, facts: HostFacts) -> Iterator[str]:
    if facts.record is None:
        yield from _unfit(facts)
    if facts.root == "foreign":
        yield f"{facts.root_path} is there and edgebed has not made it; move it away, edgebed needs that name"
    if not facts.writable:
        yield (
            f"{facts.home} cannot be written; is the file system mounted read-only, as after an SD card's error? "
            "`sudo mount -o remount,rw /`, and have the card checked"
        )
    if not _PLAIN_PATH.fullmatch(facts.home) or not _PLAIN_PATH.fullmatch(facts.state_root):
        yield f"{facts.home} or {facts.state_root} has characters that systemd misreads; use another user's account"
    yield from _in_the_way(facts, host)
    if host.clock == "chrony" and not facts.chrony:
        yield "edgebed_clock: chrony, but chrony is not installed there; `sudo apt-get install chrony`, or leave it out"
    if facts.sudo is False and (host.service == "system" or host.clock == "chrony"):
        asked = "edgebed_service: system" if host.service == "system" else "edgebed_clock: chrony"
        yield (
            f"{asked} needs sudo without a password for {facts.user}, which `sudo -n true` denies; "
            f"allow it in /etc/sudoers.d, or set edgebed_service: user"
        )
    if host.service in ("system", "user") and not facts.systemd and facts.kernel == "Linux":
        yield f"edgebed_service: {host.service}, but no systemd runs there; set edgebed_service: none"


def _unfit(facts: HostFacts) -> Iterator[str]:
    """What no setting can change."""
    if facts.kernel != "Linux":
        yield f"runs {facts.kernel}; edgebed's hosts run Linux"
    elif facts.bits == 32 or facts.machine.startswith(("armv6", "armv7", "i")):
        yield (
            f"has a 32-bit system ({facts.machine}, userland of {facts.bits} bits), for which the packages that "
            "recognise images do not exist; install a 64-bit one, such as Raspberry Pi OS (64-bit)"
        )
    elif facts.machine not in MACHINES:
        yield f"is of the machine type {facts.machine}; there are wheels for {' and '.join(MACHINES)}"
    elif facts.glibc is None:
        yield "has another C library than glibc, for which the packages do not exist; use Debian, Ubuntu or the like"
    elif facts.glibc < GLIBC_MINIMUM:
        found, needed = (".".join(map(str, version)) for version in (facts.glibc, GLIBC_MINIMUM))
        yield f"has glibc {found}, the packages need {needed} or newer; install Debian 12 or newer, or the like"


def _in_the_way(facts: HostFacts, host: Host) -> Iterator[str]:
    """Files of others under names that edgebed needs."""
    units = {"system": SYSTEM_UNIT, "user": user_unit_path(facts)}
    for scope, path in units.items():
        if facts.sum_of(path) and not facts.has_changed(f"unit:{scope}"):
            yield f"{path} is there and {facts.root_path} says nothing of it: another user's, or left over; remove it"
    if host.clock == "chrony" and facts.sum_of(CHRONY_FILE) and not facts.has_changed("clock"):
        yield f"{CHRONY_FILE} is there and edgebed has not made it; move it away"


def choose_python(host: Host, facts: HostFacts) -> Interpreter:
    """With which of the host's own interpreters edgebed is to be installed.

    Raises:
        BadInput: none will do.
    """
    record = facts.record
    if not facts.pythons and record is not None:
        major, _, minor = record.python.partition(".")
        return Interpreter(record.interpreter, (int(major), int(minor)))
    fit = [each for each in facts.pythons if each.version in PYTHONS and each.bits == 64]
    for each in fit:
        if not each.missing:
            return each
    allowed = f"allowed: {', '.join(f'{major}.{minor}' for major, minor in PYTHONS)}"
    if host.python and not facts.pythons:
        message = f"edgebed_python: {host.python} does not start there; name one that does, {allowed}"
    elif fit:
        message = (
            f"{fit[0].path} lacks {', '.join(fit[0].missing)} of its standard library; `sudo apt-get install python3`"
        )
    elif facts.pythons:
        found = ", ".join(f"{each.path} {each.version[0]}.{each.version[1]}" for each in facts.pythons)
        message = f"has no Python that edgebed runs with, only {found}; {allowed}. Debian 12 and 13 have one"
    else:
        message = f"has no Python; `sudo apt-get install python3`, {allowed}"
    raise BadInput(Problem(message, key=host.name))


def platform_of(facts: HostFacts, python: Interpreter) -> Platform:
    """What the host's wheels have to fit."""
    return Platform(facts.machine, python.version)


def choose_keeper(host: Host, facts: HostFacts) -> Keeper:
    """Who is to keep the programs running: as the inventory says, else what is there; once chosen, it stays.

    The system's systemd, where sudo allows it; else the user's, where it goes on without anyone logged in; else a
    script, whose programs do not come back after a reboot.
    """
    if host.service != "auto":
        asked: dict[str, Keeper] = {"system": "systemd_system", "user": "systemd_user", "none": "shell"}
        return asked[host.service]
    if facts.record is not None:
        return facts.record.keeper
    if "system" in facts.systemd and (facts.sudo or facts.uid == 0):
        return "systemd_system"
    return "systemd_user" if "user" in facts.systemd and facts.linger else "shell"


def programs_for(host: Host) -> tuple[str, ...]:
    """The programs that a host of its role may run."""
    return (DEVICE_AGENT,) if host.role == "device" else (CONTROLLER, EDGE_SERVER)


def unit_for(keeper: Keeper, facts: HostFacts) -> str:
    """The text of the host's unit; empty without systemd."""
    if keeper == "shell":
        return ""
    return unit_text(
        "system" if keeper == "systemd_system" else "user",
        root=f"{facts.home}/{ROOT_NAME}",
        user=facts.user,
        state_root=facts.state_root,
        groups=tuple(each for each in _SENSOR_GROUPS if each in facts.groups),
    )


def clock_for(host: Host, edge_server: Host, devices: tuple[Host, ...]) -> str:
    """Configuration of chrony for a host; empty when its clock is only measured.

    Args:
        host: as the inventory has it.
        edge_server: whose clock the others follow, that with the controller.
        devices: which may ask it.

    Raises:
        BadInput: the edge server has no address that devices could ask.
    """
    if host.clock != "chrony":
        return ""
    if host.name == edge_server.name:
        # Devices need to agree with it, not with the world: it goes on serving when it has no server of its own.
        return "".join(["local stratum 10\n", *(f"allow {each.address}\n" for each in devices)])
    if edge_server.connection == "local":
        message = f"edgebed_clock: chrony, but {edge_server.name} is this machine, whose clock edgebed does not set up"
        raise BadInput(Problem(f"{message}; reach it over ssh, or leave edgebed_clock out", key=host.name))
    return f"server {edge_server.address} iburst prefer minpoll 2 maxpoll 5\nmakestep 0.1 3\n"
