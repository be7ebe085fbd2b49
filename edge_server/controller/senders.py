"""Who may send what to a controller."""

from __future__ import annotations

import msgspec

from edgebed.errors import ProtocolError
from edgebed.protocol.front import Session
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    ErrorCode,
    JointDecide,
    Load,
    Members,
    Observe,
    Prepare,
    Ready,
    Records,
    Role,
    Start,
    Status,
    Stop,
    Weights,
)

_SENDERS: dict[Role, frozenset[type[msgspec.Struct]]] = {
    Role.ORCHESTRATOR: frozenset({Prepare, Start, Stop, Acknowledge, Members, Weights}),
    Role.DEVICE: frozenset({Ready, Status, Records, Observe}),
    Role.SERVER: frozenset({Ready, Status, Records, Load}),
    Role.EXTERNAL: frozenset({JointDecide}),
}


def check_sender(session: Session, message: ControlMessage) -> None:
    """May a peer of this role send such a message?

    Raises:
        ProtocolError: it may not.
    """
    if type(message) not in _SENDERS.get(session.role, frozenset()):
        text = f"{session.role} {session.name} may not send {type(message).__name__} to a controller"
        raise ProtocolError(ErrorCode.UNEXPECTED, text)
