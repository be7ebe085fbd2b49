"""How every member of a cell stands, from what is heard of it. Pure: messages and time go in, answers come out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Members, Ready, Records, Role, Status
from orchestrator.provision.supervision import ProgramState

_PREPARED = frozenset({"ready", "running", "finished"})


@dataclass(slots=True)
class Watched:
    """What is known of one member.

    Attributes:
        heard_s: when it was last heard; minus infinity when never.
        is_connected: the controller has a session with it.
        program: how its program stands on its host; None while nobody has asked, or the host did not answer.
        given_up: why it is not waited for any more; empty while it is.
        planned, terminal: tasks of a device, as it last counted them.
        is_drained: after the stop, it had nothing left to send.
        has_spoken: it has said where it stands, be it in another cell.
    """

    name: str
    role: Role
    heard_s: float = -math.inf
    is_connected: bool = False
    ready: Ready | None = None
    status: Status | None = None
    program: ProgramState | None = None
    given_up: str = ""
    planned: int = 0
    terminal: int = 0
    is_drained: bool = False
    has_spoken: bool = False

    @property
    def is_ready(self) -> bool:
        """Has it loaded and rendered all that it needs?"""
        if self.ready is not None and self.ready.ok:
            return True
        return self.status is not None and self.status.state in _PREPARED

    @property
    def is_started(self) -> bool:
        """Has it begun to run the cell?"""
        return self.status is not None and self.status.state in ("running", "finished")

    @property
    def is_finished(self) -> bool:
        """Has every task of it an outcome?"""
        return self.status is not None and self.status.state == "finished"

    @property
    def is_dead(self) -> bool:
        """Does its program certainly not run, and will nobody start it again?"""
        return self.program is not None and self.program.is_dead


@dataclass(slots=True)
class CellWatch:
    """The members of one attempt of a cell.

    Args:
        spec: the cell.
        controller: what the controller is called.

    Attributes:
        members: by name.
        is_stopping: the cell was stopped; what is heard from now on is about draining.
    """

    spec: CellSpec
    controller: str
    members: dict[str, Watched] = field(default_factory=dict)
    is_stopping: bool = False

    def __post_init__(self) -> None:
        names = [(self.controller, Role.CONTROLLER)]
        names += [(name, Role.SERVER) for name in self.spec.servers]
        names += [(name, Role.DEVICE) for name in self.spec.devices]
        self.members = {name: Watched(name, role) for name, role in names}

    # -- hearing ------------------------------------------------------------------------------------------------------

    def hear(self, message: msgspec.Struct, now_s: float) -> None:
        """Learn from a message; those of others, or about other cells, only say that somebody lives."""
        if isinstance(message, Members):
            self._hear_members(message, now_s)
            return
        member = self.members.get(getattr(message, "member", ""))
        if member is None:
            return
        member.heard_s = now_s
        if isinstance(message, Ready) and message.serial == self.spec.serial:
            member.ready = message
        elif isinstance(message, Status):
            self._hear_status(member, message)
        elif isinstance(message, Records):
            member.is_connected = True

    def _hear_status(self, member: Watched, status: Status) -> None:
        member.has_spoken = True
        if self.is_stopping:
            # A member that was restarted since knows of no cell: it says 0.
            is_ours = status.serial in (0, self.spec.serial)
            member.is_drained = is_ours and status.state == "idle" and status.unsent == 0
        if status.serial == self.spec.serial:
            member.status = status
            member.planned = max(member.planned, status.planned)
            member.terminal = max(member.terminal, status.terminal)

    def _hear_members(self, message: Members, now_s: float) -> None:
        connected = {name for name, _, is_there, _ in message.members if is_there}
        for member in self.members.values():
            if member.role is not Role.CONTROLLER:
                member.is_connected = member.name in connected
                member.heard_s = now_s if member.is_connected else member.heard_s

    def hear_controller(self, now_s: float) -> None:
        """The link to the controller is up: it need not say anything more to be alive."""
        controller = self.members[self.controller]
        controller.heard_s, controller.is_connected = now_s, True

    def note_programs(self, states: Mapping[str, ProgramState | None]) -> None:
        """Learn how the programs stand on their hosts."""
        for name, member in self.members.items():
            member.program = states.get(name)

    def give_up(self, name: str, reason: str) -> None:
        """Wait for a member no more."""
        self.members[name].given_up = self.members[name].given_up or reason

    # -- asking -------------------------------------------------------------------------------------------------------

    def _waited_for(self) -> Iterator[Watched]:
        return (member for member in self.members.values() if not member.given_up)

    @property
    def devices(self) -> list[Watched]:
        """The devices, in slot order."""
        return [self.members[name] for name in self.spec.devices]

    @property
    def refusals(self) -> list[Ready]:
        """Who has said that it cannot take part, and why."""
        return [member.ready for member in self._waited_for() if member.ready is not None and not member.ready.ok]

    @property
    def unready(self) -> list[Watched]:
        """Who is still to get ready."""
        return [member for member in self._waited_for() if not member.is_ready]

    @property
    def unfinished(self) -> list[Watched]:
        """Devices that have tasks without an outcome, as far as is known."""
        return [member for member in self.devices if not member.given_up and not member.is_finished]

    @property
    def undrained(self) -> list[Watched]:
        """Who has rows that did not arrive, as far as is known."""
        return [member for member in self._waited_for() if not member.is_drained]

    @property
    def given_up(self) -> dict[str, str]:
        """Who is not waited for any more, and why."""
        return {member.name: member.given_up for member in self.members.values() if member.given_up}

    def silent(self, now_s: float, limit_s: float) -> list[Watched]:
        """Who has not been heard for longer than that, and is still waited for."""
        return [member for member in self._waited_for() if now_s - member.heard_s > limit_s]

    @property
    def tasks(self) -> tuple[int, int]:
        """Tasks with an outcome, and all planned ones that devices have told of."""
        return sum(device.terminal for device in self.devices), sum(device.planned for device in self.devices)

    @property
    def up(self) -> int:
        """Members that can be spoken with."""
        return sum(member.is_connected for member in self.members.values())
