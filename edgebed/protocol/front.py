"""The listening side of a service: one ROUTER socket, its sessions, and everything that is the same for all services.

`Front.receive` hands out only messages of introduced peers that decode and validate. Introductions, pings, protocol
errors and lost peers are dealt with here. A Front is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

import zmq
import zmq.backend

from edgebed.clock import Clock
from edgebed.configuration import Liveness
from edgebed.errors import BadInput, ProtocolError
from edgebed.protocol.codec import SESSION_KINDS, HeaderDecoder, encode
from edgebed.protocol.endpoint import is_ipv6
from edgebed.protocol.liveness import PeerLiveness
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
from edgebed.protocol.security import AllowList, KeyPair, secure_server

M = TypeVar("M")
Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# For the hot path. Combining zmq's enums costs as much as a call with them does, and so does the wrapper in Python
# around the method of the compiled socket.
NOW = int(zmq.NOBLOCK)
MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
send_part = zmq.backend.Socket.send

COPIED_BYTES = 1 << 16
"""Payloads below this are copied: that is cheaper than keeping track of when they have been sent."""

SEND_LIMIT = 4096
"""Messages that may wait for one slow peer before it is treated as gone."""

RECEIVE_LIMIT = 64
"""Messages of one peer that may wait to be received; then its connection is not read until there is room again."""


@dataclass(slots=True, eq=False)
class Session:
    """A peer that has introduced itself.

    Attributes:
        identity: ROUTER's name for the connection.
        data: whatever the service keeps about the peer.
    """

    identity: bytes
    name: str
    role: Role
    instance: str
    liveness: PeerLiveness
    plan_hash: str = ""
    cell: int = 0
    data: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class FrontCounters:
    """What the front has seen, for telemetry and tests."""

    received: int = 0
    malformed: int = 0
    forbidden: int = 0
    undeliverable: int = 0


class Front(Generic[M]):
    """A ROUTER socket with sessions.

    Args:
        bind: where to listen; port 0 lets the system choose.
        roles: who may introduce themselves here.
        most_bytes: a peer that sends a longer frame loses its connection.
        load: numbers to put into each Pong (an edge server's features).
        joined, left: told when a session begins (with the session that it replaces, if any) and ends.
        introduction: gives the plan hash and the cell for each Welcome.

    The four callbacks may also be set later, before the first `receive`.

    Attributes:
        is_drained: nothing was there to receive, and nothing has been sent since. Only then may the owner sleep on the
            socket's file descriptor: it signals once, and sending may swallow that (see ZMQ_FD).
    """

    def __init__(
        self,
        *,
        context: Context,
        bind: str,
        keys: KeyPair,
        allow: AllowList,
        decoder: HeaderDecoder[M],
        clock: Clock,
        limits: Liveness,
        name: str,
        instance: str,
        roles: frozenset[Role],
        load: Callable[[], list[float]] = list,
        joined: Callable[[Session, Session | None], None] = lambda session, old: None,
        left: Callable[[Session, str], None] = lambda session, reason: None,
        introduction: Callable[[], tuple[str, int]] = lambda: ("", 0),
        most_bytes: int = MAX_PAYLOAD_BYTES,
    ) -> None:
        self._allow = allow
        self._decoder = decoder
        self._clock = clock
        self._limits = limits
        self._name = name
        self.instance = instance
        self._roles = roles
        self.load = load
        self.on_joined = joined
        self.on_left = left
        self.introduction = introduction
        self.sessions: dict[bytes, Session] = {}
        self.by_name: dict[str, Session] = {}
        self.counters = FrontCounters()
        self.is_drained = False
        self._next_expiry_s = 0.0
        self.socket: Socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.SNDHWM, SEND_LIMIT)
        self.socket.setsockopt(zmq.RCVHWM, RECEIVE_LIMIT)
        self.socket.setsockopt(zmq.MAXMSGSIZE, most_bytes)
        # A connection that never finishes its handshake must not hold resources for long.
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        self.socket.ipv6 = is_ipv6(bind)
        secure_server(self.socket, keys)
        try:
            self.socket.bind(bind)
        except zmq.ZMQError as error:
            self.socket.close()
            raise BadInput(f"cannot listen on {bind}: {error.strerror}; is another edgebed using this port?") from None
        self._watched: list[tuple[Socket, int]] = [(self.socket, zmq.POLLIN)]
        self.endpoint = self.socket.get_string(zmq.LAST_ENDPOINT)

    # -- receiving --------------------------------------------------------------------------------------------------

    def has_mail(self) -> bool:
        """Has a message come? Asking costs a fifth of what the exception of an empty socket costs."""
        self.is_drained = not zmq.zmq_poll(self._watched, 0)
        return not self.is_drained

    def receive(self, limit: int = 256, *, is_signalled: bool = False) -> Iterator[tuple[Session, M, zmq.Frame | None]]:
        """Messages that have come, at most ``limit``, without waiting.

        Args:
            limit: at least 1.
            is_signalled: the caller knows that something has come, which saves asking for the first one.
        """
        receive, sessions, decode = self.socket.recv, self.sessions, self._decoder.decode
        for _ in range(limit):
            if not is_signalled and not self.has_mail():
                return
            is_signalled = False
            try:
                identity = receive(NOW)
            except zmq.Again:  # a signal for the socket itself
                self.is_drained = True
                return
            header = last = receive(NOW, False)  # a frame: it knows whether another follows, and whose it is
            payload = None
            if header.more:
                payload = last = receive(NOW, False)
            self.counters.received += 1
            try:
                if last.more:
                    self._refuse_rest(last)
                message = decode(header.bytes)
                session = sessions.get(identity)
                if session is None or type(message) in SESSION_KINDS:
                    self._hold_session(identity, session, message, header)
                    continue
            except ProtocolError as error:
                self.counters.malformed += 1
                self.reply_error(identity, error)
                continue
            session.liveness.heard_s = self._clock.now_s()
            yield session, message, payload

    def _refuse_rest(self, last: zmq.Frame) -> None:
        while last.more:
            last = self.socket.recv(copy=False)
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "a message of more than 2 frames")

    def _hold_session(self, identity: bytes, session: Session | None, message: M, header: zmq.Frame) -> None:
        now_s = self._clock.now_s()
        if isinstance(message, Hello):
            self._introduce(identity, message, header, now_s)
            return
        if isinstance(message, Error):
            return  # never answered: two confused peers would go on for ever
        if session is None:
            raise ProtocolError(ErrorCode.NOT_INTRODUCED, "say Hello first")
        session.liveness.heard_s = now_s
        if isinstance(message, Ping):
            self.send(session, Pong(message.sequence, message.sent_s, now_s, self._clock.now_s(), self.load()))
        elif isinstance(message, Bye):
            self.end(session, message.reason or "left")
        else:
            raise ProtocolError(ErrorCode.UNEXPECTED, f"a {type(message).__name__} is not for the listening side")

    def _introduce(self, identity: bytes, hello: Hello, frame: zmq.Frame, now_s: float) -> None:
        peer = self._allow.peer_of(_user_of(frame))
        if hello.protocol != PROTOCOL_VERSION:
            text = f"{self._name} speaks protocol {PROTOCOL_VERSION}, {hello.name} speaks {hello.protocol}"
            raise ProtocolError(ErrorCode.WRONG_VERSION, f"{text}; deploy the same edgebed version to both")
        if peer is None or peer.name != hello.name or peer.role != hello.role or peer.role not in self._roles:
            self.counters.forbidden += 1
            raise ProtocolError(ErrorCode.FORBIDDEN, f"this key may not speak as {hello.role} {hello.name} here")
        session = self.sessions.get(identity)
        if session is None or session.instance != hello.instance or session.name != peer.name:
            old = self.by_name.get(peer.name)
            if old is not None:
                self._forget(old)
            session = Session(identity, peer.name, peer.role, hello.instance, PeerLiveness(self._limits, now_s))
            self.sessions[identity] = session
            self.by_name[peer.name] = session
            session.plan_hash, session.cell = hello.plan_hash, hello.cell
            self._welcome(session)
            self.on_joined(session, old)
            return
        session.liveness.heard(now_s)
        session.plan_hash, session.cell = hello.plan_hash, hello.cell
        self._welcome(session)

    def _welcome(self, session: Session) -> None:
        plan_hash, cell = self.introduction()
        self.send(
            session,
            Welcome(
                PROTOCOL_VERSION,
                self._name,
                self.instance,
                self._limits.heartbeat_s,
                self._limits.dead_after_s,
                plan_hash=plan_hash,
                cell=cell,
            ),
        )

    # -- sending ----------------------------------------------------------------------------------------------------

    def send(self, session: Session, message: AnyMessage, payload: bytes | memoryview | None = None) -> bool:
        """Send to a peer; False when it is gone or too slow to be sent to."""
        return self._send(session.identity, encode(message), payload)

    def reply_error(self, identity: bytes, error: ProtocolError, task_id: str = "") -> None:
        """Tell a peer that its message was not understood."""
        code = cast(ErrorCode, error.code if error.code in set(ErrorCode) else ErrorCode.BAD_MESSAGE)
        self._send(identity, encode(Error(code, error.detail[:400], task_id)), None)

    def _send(self, identity: bytes, header: bytes, payload: bytes | memoryview | None) -> bool:
        self.is_drained = False
        try:
            send_part(self.socket, identity, MORE)
            if payload is None:
                send_part(self.socket, header, NOW)
            else:
                send_part(self.socket, header, MORE)
                send_payload(self.socket, payload)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self.counters.undeliverable += 1
            return False
        return True

    # -- lifetime ---------------------------------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """End the sessions of peers that have been silent for too long; cheap to call often."""
        if now_s < self._next_expiry_s:
            return
        self._next_expiry_s = now_s + self._limits.heartbeat_s / 2
        for session in [session for session in self.sessions.values() if session.liveness.dead(now_s)]:
            self.end(session, "silent")

    def end(self, session: Session, reason: str) -> None:
        """Hold a peer for gone, for this reason."""
        self._forget(session)
        self.on_left(session, reason)

    def _forget(self, session: Session) -> None:
        self.sessions.pop(session.identity, None)
        if self.by_name.get(session.name) is session:
            del self.by_name[session.name]

    def close(self, farewell: str = "") -> None:
        """Say good-bye to everyone (when there is a farewell) and stop listening."""
        if farewell:
            for session in list(self.sessions.values()):
                self.send(session, Bye(farewell))
            self.socket.linger = 200
        self.sessions.clear()
        self.by_name.clear()
        self.socket.close()


def _user_of(frame: zmq.Frame) -> str:
    """The public key that the connection proved to have, as the ZAP handler noted it."""
    with suppress(zmq.ZMQError):
        user = frame.get("User-Id")
        if isinstance(user, str):
            return user
    return ""


def send_payload(socket: Socket, payload: bytes | memoryview) -> None:
    """Send the last frame of a message; a long one without copying it."""
    if len(payload) < COPIED_BYTES:
        send_part(socket, payload, NOW)
    else:
        socket.send(payload, NOW, copy=False)
