"""The orchestrator's link to the controller."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import zmq

from edgebed.clock import Clock
from edgebed.configuration import Liveness, PeerAddress
from edgebed.protocol.codec import control_headers
from edgebed.protocol.link import Link
from edgebed.protocol.messages import AnyMessage, ControlMessage, Members, Role
from edgebed.protocol.security import KeyPair


class ControlLink:
    """Speaks with a controller, over its restarts.

    Args:
        role: orchestrator, or external decider.
        wake_fd: a descriptor that ends waiting when it becomes readable; None for none.

    Attributes:
        joins: how often the controller has welcomed us, or welcomed us again.
        serial: the cell that we are in, told at every introduction.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: PeerAddress,
        keys: KeyPair,
        name: str,
        role: Role,
        plan_hash: str,
        clock: Clock,
        limits: Liveness,
    ) -> None:
        self.joins = 0
        self.serial = 0
        self._clock = clock
        self._role = role
        self._link: Link[ControlMessage] = Link(
            context=context,
            address=address,
            keys=keys,
            name=name,
            role=role,
            instance=secrets.token_hex(8),
            decoder=control_headers,
            clock=clock,
            limits=limits,
            cell=lambda: (plan_hash, self.serial),
            up=self._joined,
        )

    def register(self, poller: zmq.Poller) -> None:
        """Watch the link with a poller."""
        self._link.register(poller)

    def _joined(self, restarted: bool) -> None:
        self.joins += 1
        if self._role is Role.ORCHESTRATOR:
            self._link.send(Members())

    @property
    def is_up(self) -> bool:
        """Can messages be sent?"""
        return self._link.is_up

    @property
    def controllers_cell(self) -> int:
        """The cell that the controller had when it last welcomed us; 0 = none."""
        return self._link.welcome.cell if self._link.welcome else 0

    @property
    def problem(self) -> str:
        """What the controller last complained about; empty when it did not."""
        error = self._link.last_error
        return "" if error is None else f"{error.code}: {error.detail}"

    @property
    def offset_s(self) -> tuple[float, float] | None:
        """Controller's clock minus ours, and the error of that; None while unknown."""
        offset = self._link.offset
        return None if offset.offset_s is None or offset.error_s is None else (offset.offset_s, offset.error_s)

    def receive(self) -> Iterator[tuple[ControlMessage, bytes | None]]:
        """What has come, without waiting."""
        for message, payload in self._link.receive():
            yield message, None if payload is None else payload.bytes
        self._link.tick(self._clock.now_s())

    def was_away(self) -> None:
        """We have not looked for a while: until now that says nothing about the controller."""
        self._link.was_away()

    def send(self, message: AnyMessage, payload: bytes | None = None) -> bool:
        """Send; False when the link is down."""
        return self._link.send(message, payload)

    def close(self) -> None:
        """Leave, without a word: by now the controller has been ended, or goes on with what it does."""
        self._link.close()
