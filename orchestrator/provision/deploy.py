"""`edgebed deploy`: from facts to changes to a host that has them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from edgebed import __version__
from edgebed.errors import BadInput, Problem, WorkFailed
from orchestrator.inventory import Host, Inventory
from orchestrator.provision.choices import (
    check_host,
    choose_keeper,
    choose_python,
    clock_for,
    platform_of,
    programs_for,
    unit_for,
)
from orchestrator.provision.each_host import HostReport, Tell, on_each_host
from orchestrator.provision.facts import HostFacts, read_facts
from orchestrator.provision.installation import Record
from orchestrator.provision.lease import held_text
from orchestrator.provision.ledger import FAILED, UNDO_FAILED, Change, apply_script
from orchestrator.provision.steps import Wanted, changes_for
from orchestrator.provision.systemd import SCRIPT
from orchestrator.provision.unit import LAUNCHER
from orchestrator.provision.wheel import OwnWheel, own_wheel
from orchestrator.provision.wheelhouse import Wheelhouse, wheelhouse_for
from orchestrator.remote.base import Completed, Remote

APPLY_TIMEOUT_S = 1800.0
"""The slowest board with the slowest card is done long before."""

SPACE_FACTOR = 6
"""Disk that an installation takes while it is made, in archives: wheels packed and unpacked, bytecode, some room."""


@dataclass(frozen=True, slots=True)
class Deployer:
    """Deploys to the hosts of an inventory.

    Args:
        inventory: the hosts and their roles.
        connect: makes the `Remote` of a host.
        is_dry_run: only say what would be done.
        tell: hears of progress.
    """

    inventory: Inventory
    connect: Callable[[Host], Remote]
    is_dry_run: bool = False
    tell: Tell = lambda host, text: None

    def deploy(self, hosts: Sequence[Host]) -> dict[str, HostReport]:
        """Bring hosts to what they should be; what fails on one is in its report.

        Args:
            hosts: of the inventory.

        Raises:
            BadInput: what edgebed needs on hosts cannot be told.
        """
        return on_each_host(hosts, self.connect, partial(self._deploy_one, own_wheel()))

    def _deploy_one(self, own: OwnWheel, host: Host, remote: Remote) -> HostReport:
        facts = read_facts(remote, host)
        check_host(host, facts)
        wheels = wheelhouse_for(platform_of(facts, choose_python(host, facts)), own.requirements)
        changes = changes_for(facts, self._wanted(host, facts, wheels, own))
        commands = [change.command for change in changes]
        if not changes:
            return HostReport()
        if self.is_dry_run:
            for change in changes:
                self.tell(host.name, f"would {change.what}")
            return HostReport("planned", commands)
        _check_lease(host, facts)
        archive = b""
        if any(change.needs_archive for change in changes):
            archive = _content(wheels.archive(own))
            _check_space(remote, facts, len(archive))
        self._apply(facts, remote, changes, archive)
        return HostReport("changed", commands)

    def _wanted(self, host: Host, facts: HostFacts, wheels: Wheelhouse, own: OwnWheel) -> Wanted:
        python, keeper = choose_python(host, facts), choose_keeper(host, facts)
        record = Record(
            digest=wheels.digest(own, python.path),
            wheel=own.sha256,
            edgebed=__version__,
            interpreter=python.path,
            python=f"{python.version[0]}.{python.version[1]}",
            machine=facts.machine,
            keeper=keeper,
            programs=programs_for(host),
        )
        edge_server = self.inventory.host(self.inventory.controller)
        clock = clock_for(host, edge_server, self.inventory.devices)
        return Wanted(record=record, scripts=host_scripts(), unit=unit_for(keeper, facts), clock=clock)

    def _apply(self, facts: HostFacts, remote: Remote, changes: list[Change], archive: bytes) -> None:
        sent = f", {len(archive) / 1e6:.0f} MB are sent" if archive else ""
        self.tell(remote.host, f"making {len(changes)} changes{sent}")
        script = apply_script(facts.root_path, changes, facts.ledger)
        done = remote.execute(script, stdin=archive, timeout_s=APPLY_TIMEOUT_S)
        if done.status != 0:
            raise WorkFailed(failure_text(remote.host, done))


@cache
def host_scripts() -> dict[str, str]:
    """The scripts that a host has beside its versions, by name."""
    here = Path(__file__).parent
    return {name: (here / name).read_text() for name in (LAUNCHER, SCRIPT)}


@cache
def _content(path: Path) -> bytes:
    """An archive, read once for all hosts."""
    return path.read_bytes()


def _check_lease(host: Host, facts: HostFacts) -> None:
    if facts.lease is not None:
        raise WorkFailed(held_text(host.name, facts.lease))


def _check_space(remote: Remote, facts: HostFacts, archive_bytes: int) -> None:
    told = remote.execute(f"df -Pk {shlex.quote(facts.home)}", idempotent=True).text.splitlines()
    fields = told[-1].split() if told else []
    if len(fields) < 4 or not fields[3].isdigit():
        return  # it cannot be told; that the disk is full then is
    free_bytes, needed_bytes = int(fields[3]) * 1024, SPACE_FACTOR * archive_bytes
    if free_bytes < needed_bytes:
        message = (
            f"has {free_bytes / 1e6:.0f} MB free in {facts.home}, an installation needs "
            f"{needed_bytes / 1e6:.0f} MB while it is made; delete something, for example by `sudo apt-get clean`"
        )
        raise BadInput(Problem(message, key=remote.host))


# What a command says that fails for one of the usual reasons, and what to do.
_REASONS = {
    "No space left on device": "the disk is full; delete something there, for example by `sudo apt-get clean`",
    "Read-only file system": "the file system is read-only, as after an SD card's error; have the card checked",
    "a password is required": "sudo asks for a password; allow it without in /etc/sudoers.d, or edgebed_service: user",
    "linger": "its systemd does not let this user's programs run on; set edgebed_service: system or none",
}


def failure_text(host: str, done: Completed) -> str:
    """What is to be said of a script that ended with a status other than 0."""
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    text = f"{host}: could not be deployed:\n{said[-4000:]}"
    reason = next((advice for words, advice in _REASONS.items() if words in said), "")
    if reason:
        text += f"\n{reason}"
    if done.status == FAILED:
        return f"{text}\nwhat was begun on it is undone; run `edgebed deploy HOSTS` again when the reason is gone"
    if done.status == UNDO_FAILED:
        return f"{text}\nwhat was begun on it could not all be undone; `edgebed clean HOSTS` tries again"
    return f"{text}\nstatus {done.status}; run `edgebed deploy HOSTS` again, it goes on where this stopped"
