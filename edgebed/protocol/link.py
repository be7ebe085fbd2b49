"""The connecting side of a service: one DEALER socket that introduces itself, stays alive and comes back.

A lost link gets a new socket, so that nothing stale is delivered late; messages sent on the old one that were not
answered are for the owner to give up (`Link.lost`). One thread owns a Link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, TypeVar

import zmq

from edgebed.clock import Clock
from edgebed.configuration import Liveness, PeerAddress
from edgebed.errors import ProtocolError
from edgebed.protocol.codec import SESSION_KINDS, HeaderDecoder, encode
from edgebed.protocol.endpoint import is_ipv6
from edgebed.protocol.front import MORE, NOW, Context, Socket, send_part, send_payload
from edgebed.protocol.liveness import Backoff, ClockOffset, PeerLiveness
from edgebed.protocol.messages import (
    MAX_PAYLOAD_BYTES,
    PROTOCOL_VERSION,
    AnyMessage,
    Bye,
    Error,
    ErrorCode,
    Hello,
    Ping,
    Pong,
    Role,
    Welcome,
)
from edgebed.protocol.security import KeyPair, secure_client
from edgebed.protocol.waker import Descriptors

M = TypeVar("M")


class LinkState(StrEnum):
    """Where a link stands."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    CLOSED = "closed"


class Link(Generic[M]):
    """A DEALER socket to one server.

    Args:
        cell: gives the plan hash and the cell serial for each Hello.
        up: told when the peer has welcomed us; the flag says that it is another process than before.
        lost: told when the peer is given up, with the reason.
        spread: a number in [0, 1) of this peer's own, so that many do not reconnect in step.

    The three callbacks may also be set later, before the first `receive`.
    """

    def __init__(
        self,
        *,
        context: Context,
        address: PeerAddress,
        keys: KeyPair,
        name: str,
        role: Role,
        instance: str,
        decoder: HeaderDecoder[M],
        clock: Clock,
        limits: Liveness,
        cell: Callable[[], tuple[str, int]] = lambda: ("", 0),
        up: Callable[[bool], None] = lambda restarted: None,
        lost: Callable[[str], None] = lambda reason: None,
        spread: float = 0.0,
    ) -> None:
        self.address = address
        self.clock = clock
        self.offset = ClockOffset()
        self.state = LinkState.CONNECTING
        self.welcome: Welcome | None = None
        self.load: list[float] = []
        self.last_error: Error | None = None
        self._context = context
        self._keys = keys
        self._name, self._role, self._instance = name, role, instance
        self._decoder = decoder
        self._limits = limits
        self.cell, self.on_up, self.on_lost = cell, up, lost
        self._backoff = Backoff(spread=spread)
        self._retry_s = 0.0
        self._sequence = 0
        self._pollers: list[zmq.Poller | Descriptors] = []
        self._peer_instance = ""
        self._liveness = PeerLiveness(limits, clock.now_s())
        self._watched: list[tuple[Socket, int]] = []
        self._is_open = False
        self.socket: Socket = self._open()

    # -- connecting -------------------------------------------------------------------------------------------------

    def register(self, poller: zmq.Poller | Descriptors) -> None:
        """Watch this link's socket with a poller, over reconnects too."""
        self._pollers.append(poller)
        if self.state is not LinkState.CLOSED:
            poller.register(self.socket, zmq.POLLIN)

    def _open(self) -> Socket:
        socket: Socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.ipv6 = is_ipv6(self.address.endpoint)
        secure_client(socket, self._keys, self.address.public_key)
        socket.connect(self.address.endpoint)
        for poller in self._pollers:
            poller.register(socket, zmq.POLLIN)
        self._watched = [(socket, zmq.POLLIN)]
        self._is_open = True
        self.state = LinkState.CONNECTING
        now_s = self.clock.now_s()
        self._liveness = PeerLiveness(self._limits, now_s)
        self._retry_s = now_s
        return socket

    def _drop(self) -> None:
        self._is_open = False
        for poller in self._pollers:
            poller.unregister(self.socket)
        self.socket.close()

    def _introduce(self, now_s: float) -> None:
        plan_hash, cell = self.cell()
        self.send(Hello(PROTOCOL_VERSION, self._role, self._name, self._instance, plan_hash, cell))
        self._retry_s = now_s + self._backoff.next_wait_s()

    # -- receiving --------------------------------------------------------------------------------------------------

    def receive(self, limit: int = 256, *, is_signalled: bool = False) -> Iterator[tuple[M, zmq.Frame | None]]:
        """Messages for the owner that have come, at most ``limit``, without waiting.

        Malformed messages of the peer are dropped; the last is kept in ``last_error``.

        Args:
            limit: at least 1.
            is_signalled: the caller's poller has just said that something is there, which saves asking once more.
        """
        for _ in range(limit):
            if not self._is_open or not (is_signalled or zmq.zmq_poll(self._watched, 0)):
                return
            is_signalled = False
            try:
                header = last = self.socket.recv(NOW, False)
            except zmq.Again:
                return
            payload = None
            if header.more:
                payload = last = self.socket.recv(NOW, False)
            while last.more:
                last = self.socket.recv(NOW, False)
            self._liveness.heard_s = now_s = self.clock.now_s()
            try:
                message = self._decoder.decode(header.bytes)
            except ProtocolError as error:
                self.last_error = Error(ErrorCode.BAD_MESSAGE, error.detail)
                continue
            if type(message) not in SESSION_KINDS:
                yield message, payload
                continue
            if isinstance(message, Pong):
                self.offset.add(message.sent_s, message.received_s, message.replied_s, now_s)
                self.load = message.load
            elif isinstance(message, Welcome):
                self._welcomed(message)
            elif isinstance(message, Bye):
                self._give_up(f"{self.address.name} said good-bye: {message.reason}", now_s)
                return
            elif isinstance(message, Error) and message.code is ErrorCode.NOT_INTRODUCED:
                # The peer has forgotten us (it was restarted, or we were silent for long): begin again.
                self.state = LinkState.CONNECTING
                self._introduce(now_s)
            elif isinstance(message, Error):
                self.last_error = message
                yield message, payload
            else:
                text = f"a {type(message).__name__} is not for the connecting side"
                self.last_error = Error(ErrorCode.UNEXPECTED, text)

    def _welcomed(self, message: Welcome) -> None:
        restarted = bool(self._peer_instance) and message.instance != self._peer_instance
        if restarted:
            self.offset.reset()
        again = self.state is LinkState.UP and not restarted
        self._peer_instance = message.instance
        self.welcome = message
        self.state = LinkState.UP
        self._backoff.reset()
        if not again:
            self.on_up(restarted)

    # -- sending ----------------------------------------------------------------------------------------------------

    def send(self, message: AnyMessage, payload: bytes | memoryview | None = None) -> bool:
        """Send; False when the link is down or its buffer is full (nothing was sent then)."""
        if not self._is_open:
            return False
        try:
            if payload is None:
                send_part(self.socket, encode(message), NOW)
            else:
                send_part(self.socket, encode(message), MORE)
                send_payload(self.socket, payload)
        except zmq.Again:
            return False
        return True

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Has the peer welcomed us, and is it not lost since?"""
        return self.state is LinkState.UP

    def was_away(self) -> None:
        """The owner has not looked for a while: until now that says nothing about the peer."""
        self._liveness.heard(self.clock.now_s())

    @property
    def due_s(self) -> float:
        """When `tick` has something to do next, on the own clock."""
        if self.state is LinkState.UP:
            return self._liveness.next_ping_s
        return self._retry_s

    def tick(self, now_s: float) -> None:
        """Do what is due: introduce, ping, give up, try again. Call after `receive`, so that what has come counts."""
        state, liveness = self.state, self._liveness
        if state is LinkState.UP and now_s < liveness.next_ping_s and not liveness.dead(now_s):
            return
        if state is LinkState.CLOSED:
            return
        if state is LinkState.WAITING:
            if now_s >= self._retry_s:
                self.socket = self._open()
                self._introduce(now_s)
            return
        if self._liveness.dead(now_s):
            self._give_up(f"{self.address.name} was silent for {self._limits.dead_after_s:g} s", now_s)
        elif state is LinkState.CONNECTING:
            if now_s >= self._retry_s:
                self._introduce(now_s)
        elif self._liveness.ping_due(now_s):
            self._sequence += 1
            self.send(Ping(self._sequence, self.clock.now_s()))

    def _give_up(self, reason: str, now_s: float) -> None:
        was_up = self.state is LinkState.UP
        self._drop()
        self.state = LinkState.WAITING
        self._retry_s = now_s + self._backoff.next_wait_s()
        self.load = []
        if was_up:
            self.on_lost(reason)

    def close(self, farewell: str = "") -> None:
        """Leave; with a farewell the peer is told."""
        if self.state in (LinkState.CLOSED, LinkState.WAITING):
            self.state = LinkState.CLOSED
            return
        if farewell:
            self.send(Bye(farewell))
            self.socket.linger = 200
        self._drop()
        self.state = LinkState.CLOSED
