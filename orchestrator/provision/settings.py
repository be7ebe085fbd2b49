"""From a plan to the settings of each program. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from edgebed.configuration import (
    ControllerConfig,
    DeviceConfig,
    Liveness,
    PeerAddress,
    ServerConfig,
)
from edgebed.protocol.messages import Role
from orchestrator.plan_file import Plan
from orchestrator.provision.credentials import Public
from orchestrator.provision.layout import HostFolder, Member

LOOPBACK = "tcp://127.0.0.1"

TASK_ROLES = frozenset({Role.DEVICE})
CONTROL_ROLES = frozenset({Role.DEVICE, Role.SERVER, Role.ORCHESTRATOR, Role.EXTERNAL})


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the programs are; what tests shorten.

    Attributes:
        orphan_after_s: a program that nobody has asked for anything for so long ends.
    """

    heartbeat_s: float = 0.5
    dead_after_s: float = 3.0
    orphan_after_s: float = 600.0

    @property
    def liveness(self) -> Liveness:
        """As the programs are told it."""
        return Liveness(heartbeat_s=self.heartbeat_s, dead_after_s=self.dead_after_s)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the settings of all programs of a run have in common."""

    plan: Plan
    members: list[Member]
    public: Public
    pace: Pace = Pace()

    def controller(self, member: Member, folder: HostFolder) -> ControllerConfig:
        """The controller's settings."""
        return ControllerConfig(
            **self._of_host(member, folder),
            bind=f"{LOOPBACK}:0",
            allow=self.public.allowed(self.members, CONTROL_ROLES),
        )

    def server(self, member: Member, folder: HostFolder, controller: PeerAddress) -> ServerConfig:
        """An edge server's settings."""
        host = member.host
        return ServerConfig(
            **self._of_host(member, folder),
            bind=f"{LOOPBACK}:{host.port}",
            allow=self.public.allowed(self.members, TASK_ROLES),
            controller=controller,
            workers=host.workers,
            slowdown=host.slowdown,
            queue_tasks=host.queue_tasks,
        )

    def device(
        self, member: Member, folder: HostFolder, controller: PeerAddress, servers: list[PeerAddress]
    ) -> DeviceConfig:
        """A device agent's settings."""
        host = member.host
        return DeviceConfig(
            **self._of_host(member, folder),
            controller=controller,
            servers=servers,
            slowdown=host.slowdown,
            link_rate_bps=host.link_rate_bps,
            position_m=host.position_m,
        )

    def address(self, name: str, endpoint: str) -> PeerAddress:
        """Where a program listens, and the key that it must prove to have."""
        return PeerAddress(name, endpoint, self.public.keys[name])

    def _of_host(self, member: Member, folder: HostFolder) -> dict[str, Any]:
        board = msgspec.to_builtins(self.plan.boards[member.host.board])
        return {
            "name": member.name,
            "run_id": self.plan.run_id,
            "plan_hash": self.plan.plan_hash,
            "state_dir": folder.path,
            "secret_key_file": folder.key(member.program),
            "board": board,
            "meter": member.host.meter,
            "meter_options": dict(member.host.meter_options),
            "liveness": self.pace.liveness,
            "orphan_after_s": self.pace.orphan_after_s,
        }
