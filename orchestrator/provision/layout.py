"""Who runs where, and where their files lie on a host."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.protocol.messages import Role

if TYPE_CHECKING:  # what is only named here would take longer to import than a host to be checked
    from orchestrator.inventory import Host
    from orchestrator.plan_file import Plan

CONTROLLER = "controller"
EDGE_SERVER = "edge_server"
DEVICE_AGENT = "device_agent"

MODULES = {CONTROLLER: "edge_server.controller", EDGE_SERVER: "edge_server", DEVICE_AGENT: "device_agent"}
"""What ``python -m`` is given, by program."""

ONE_THREAD = ("OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
"""Told to every program before numpy is loaded: whose threads would do nothing but take cores from what is measured."""

STATE_ROOT = '"${XDG_STATE_HOME:-$HOME/.local/state}"/edgebed'
"""Where a host keeps what must outlive a program and must not be seen by others; in the words of its shell."""


@dataclass(frozen=True, slots=True)
class Member:
    """A program of a run.

    Attributes:
        name: what it is called on the wire; a device's or edge server's is its host's.
        host: the host that it runs on.
    """

    name: str
    role: Role
    program: str
    host: Host


def members_of(plan: Plan) -> list[Member]:
    """Every program of a run: the controller, then the edge servers, then the devices."""
    servers = {host.name: host for host in plan.edge_servers}
    return [
        Member(controller_name(plan), Role.CONTROLLER, CONTROLLER, servers[plan.controller]),
        *(Member(host.name, Role.SERVER, EDGE_SERVER, host) for host in plan.edge_servers),
        *(Member(host.name, Role.DEVICE, DEVICE_AGENT, host) for host in plan.devices),
    ]


def controller_name(plan: Plan) -> str:
    """What the controller is called on the wire and in the trace."""
    return free_name(plan, "controller")


def free_name(plan: Plan, wish: str) -> str:
    """``wish``, changed as little as makes it no host's name."""
    taken = {host.name for host in plan.hosts}
    return wish if wish not in taken else next(name for n in range(2, 1002) if (name := f"{wish}-{n}") not in taken)


def state_name(run_id: str, run_folder: Path) -> str:
    """The name of a run's state folders: two runs in different places may have begun in the same second."""
    place = hashlib.sha256(str(run_folder.resolve()).encode()).hexdigest()[:8]
    return f"{run_id}-{place}"


@dataclass(frozen=True, slots=True)
class HostFolder:
    """The state folder of a host, as the host spells it, and the files in it."""

    path: str

    def config(self, program: str) -> str:
        """A program's settings."""
        return f"{self.path}/{program}.json"

    def key(self, program: str) -> str:
        """A program's key pair."""
        return f"{self.path}/keys/{program}.key"

    def outbox(self, program: str) -> str:
        """The SQLite file of a program's rows."""
        return f"{self.path}/{program}.outbox.sqlite"

    def log(self, program: str) -> str:
        """What a program has logged."""
        return f"{self.path}/{program}.log"

    def command(self, python: str, program: str) -> list[str]:
        """How a program is started."""
        return ["env", *ONE_THREAD, python, "-m", MODULES[program], "--config", self.config(program)]


def programs_on(host: str, members: Sequence[Member]) -> list[str]:
    """The programs of one host."""
    return [member.program for member in members if member.host.name == host]
