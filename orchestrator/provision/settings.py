"""From a plan to the settings of each program. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from edgebed.configuration import (
    ControllerConfig,
    DeviceConfig,
    HostConfig,
    Liveness,
    PeerAddress,
    ServerConfig,
)
from edgebed.protocol.messages import Role
from orchestrator.plan_file import Plan
from orchestrator.provision.credentials import Public
from orchestrator.provision.layout import HostFolder, Member

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
    """What the settings of all programs of a run have in common.

    Attributes:
        endpoints: where the controller and the edge servers listen, by name.
    """

    plan: Plan
    members: list[Member]
    public: Public
    endpoints: dict[str, str]
    pace: Pace = Pace()

    def config(self, member: Member, folder: HostFolder) -> HostConfig:
        """A program's settings."""
        if member.role is Role.CONTROLLER:
            return self._controller(member, folder)
        return self._server(member, folder) if member.role is Role.SERVER else self._device(member, folder)

    def _controller(self, member: Member, folder: HostFolder) -> ControllerConfig:
        return ControllerConfig(
            **self._of_host(member, folder),
            bind=self.endpoints[member.name],
            allow=self.public.allowed(self.members, CONTROL_ROLES),
        )

    def _server(self, member: Member, folder: HostFolder) -> ServerConfig:
        host = member.host
        return ServerConfig(
            **self._of_host(member, folder),
            bind=self.endpoints[member.name],
            allow=self.public.allowed(self.members, TASK_ROLES),
            controller=self._addresses(Role.CONTROLLER)[0],
            workers=host.workers,
            slowdown=host.slowdown,
            queue_tasks=host.queue_tasks,
        )

    def _device(self, member: Member, folder: HostFolder) -> DeviceConfig:
        host = member.host
        return DeviceConfig(
            **self._of_host(member, folder),
            controller=self._addresses(Role.CONTROLLER)[0],
            servers=self._addresses(Role.SERVER),
            slowdown=host.slowdown,
            link_rate_bps=host.link_rate_bps,
            position_m=host.position_m,
        )

    def _addresses(self, role: Role) -> list[PeerAddress]:
        """Where those of a role listen, and the keys that they must prove to have."""
        names = [member.name for member in self.members if member.role is role]
        return [PeerAddress(name, self.endpoints[name], self.public.keys[name]) for name in names]

    def _of_host(self, member: Member, folder: HostFolder) -> dict[str, Any]:
        return {
            "name": member.name,
            "run_id": self.plan.run_id,
            "plan_hash": self.plan.plan_hash,
            "state_dir": folder.path,
            "secret_key_file": folder.key(member.program),
            "board": msgspec.to_builtins(self.plan.boards[member.host.board]),
            "meter": member.host.meter,
            "shares_machine": member.host.connection == "local"
            and sum(host.connection == "local" for host in self.plan.hosts) > 1,
            "meter_options": dict(member.host.meter_options),
            "second_meter": member.host.second_meter,
            "second_meter_options": dict(member.host.second_meter_options),
            "liveness": self.pace.liveness,
            "orphan_after_s": self.pace.orphan_after_s,
        }
