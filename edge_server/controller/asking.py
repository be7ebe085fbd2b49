"""What a program outside is asked to decide, and which of its answers are taken.

For the controller, and for whoever stands in for it where there are no hosts.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_server.controller.deciding import Decided
from edgebed.errors import EdgebedError, ProtocolError
from edgebed.protocol.front import Front, Session
from edgebed.protocol.joint import decision_from, joint_message
from edgebed.protocol.messages import ControlMessage, ErrorCode, JointDecide, Role
from edgebed.types import Observation, ObservationSpec

NONE_OPEN = -1


def external_of(front: Front[ControlMessage]) -> Session | None:
    """The program that decides, if one is connected."""
    return next((peer for peer in front.sessions.values() if peer.role is Role.EXTERNAL), None)


def unattended(cell_id: str) -> str:
    """What is said of a cell while no such program is connected."""
    return f"cell {cell_id} waits for the program that decides it: nobody is connected as one"


def none_open(message: JointDecide) -> ProtocolError:
    """What an answer to no open question is answered with."""
    return ProtocolError(ErrorCode.UNEXPECTED, f"no decision is open for epoch {message.epoch}")


class Asking:
    """The questions of one cell. One at a time is open: the newest, until it is answered.

    Args:
        front: where the program is connected.
        serial: of the cell.
        spec: of what is observed in it.
        event: notes what has happened: its kind, and more about it.
    """

    def __init__(
        self,
        front: Front[ControlMessage],
        serial: int,
        spec: ObservationSpec,
        event: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._front, self._serial, self._spec, self._event = front, serial, spec, event
        self._epoch, self._asked_s = NONE_OPEN, 0.0

    def ask(self, observation: Observation, now_s: float) -> bool:
        """Ask for an epoch's decision; False when nobody is there to be asked, which is noted."""
        external = external_of(self._front)
        if external is None:
            self._event("external_missing", {"epoch": observation.epoch})
            return False
        self._epoch, self._asked_s = observation.epoch, now_s
        self._front.send(external, joint_message(observation, self._serial))
        return True

    def withdraw(self) -> None:
        """The open question has been decided otherwise."""
        self._epoch = NONE_OPEN

    def answered(self, message: JointDecide, now_s: float) -> Decided:
        """Take an answer.

        Raises:
            ProtocolError: no such question is open, or it is no decision that the cell allows; an open one stays open.
        """
        if message.serial != self._serial or message.epoch != self._epoch:
            raise none_open(message)
        try:
            decision = decision_from(message, self._spec)
        except EdgebedError as error:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, str(error)) from None
        self._epoch = NONE_OPEN
        version = message.policy_version or "external"
        return Decided(message.epoch, decision, version, "external", now_s - self._asked_s)

    def show_last(self, observation: Observation) -> None:
        """Show how things stand after the last decision."""
        external = external_of(self._front)
        if external is not None:
            self._front.send(external, joint_message(observation, self._serial, is_last=True))
