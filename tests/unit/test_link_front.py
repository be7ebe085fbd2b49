"""Front and Link over real sockets: who gets in, who is noticed to be gone, and that no bytes do harm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils.monitor import recv_monitor_message

from edgebed.clock import ManualClock
from edgebed.configuration import Liveness, PeerAddress
from edgebed.errors import BadInput, ProtocolError
from edgebed.protocol.codec import encode, task_headers
from edgebed.protocol.front import Front, Session
from edgebed.protocol.link import Link, LinkState
from edgebed.protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    Cancel,
    Chunk,
    Credit,
    Error,
    ErrorCode,
    Hello,
    Offer,
    Ping,
    Pong,
    Refusal,
    RefusalReason,
    Role,
    TaskMessage,
    TaskResult,
    Welcome,
)
from edgebed.protocol.security import AllowList, Gatekeeper, KeyPair, Peer, make_key_pair, secure_client
from edgebed.protocol.waker import Descriptors, Waker

PATIENCE_S = 20.0
LIMITS = Liveness(heartbeat_s=0.5, dead_after_s=3.0)
SERVER_KEYS, PI_KEYS, PI2_KEYS, BOSS_KEYS = (make_key_pair() for _ in range(4))
ALLOW = AllowList(
    {
        PI_KEYS.public: Peer("pi-1", Role.DEVICE),
        PI2_KEYS.public: Peer("pi-2", Role.DEVICE),
        BOSS_KEYS.public: Peer("boss", Role.ORCHESTRATOR),
    }
)


@dataclass
class Wire:
    """A front, links to it, one hand-driven clock for both sides, and everything that was said."""

    context: zmq.Context[Any]
    front: Front[TaskMessage]
    clock: ManualClock = field(default_factory=ManualClock)
    links: list[Link[TaskMessage]] = field(default_factory=list)
    muted: list[Link[TaskMessage]] = field(default_factory=list)
    joined: list[tuple[str, str | None]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    ups: list[bool] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    received: list[tuple[Session, TaskMessage, bytes | None]] = field(default_factory=list)
    answers: list[tuple[TaskMessage, bytes | None]] = field(default_factory=list)

    def link(self, keys: KeyPair = PI_KEYS, name: str = "pi-1", **changes: Any) -> Link[TaskMessage]:
        arguments: dict[str, Any] = {
            "context": self.context,
            "address": PeerAddress("edge", self.front.endpoint, SERVER_KEYS.public),
            "keys": keys,
            "name": name,
            "role": Role.DEVICE,
            "instance": "a1",
            "decoder": task_headers,
            "clock": self.clock,
            "limits": LIMITS,
            "up": self.ups.append,
            "lost": self.losses.append,
        }
        link: Link[TaskMessage] = Link(**(arguments | changes))
        self.links.append(link)
        return link

    def turn(self) -> None:
        """Let both sides hear what has come and do what is due."""
        self.front.socket.poll(1)
        for session, message, payload in self.front.receive():
            self.received.append((session, message, None if payload is None else payload.bytes))
        self.front.expire(self.clock.now_s())
        for link in self.links:
            if link in self.muted:
                continue
            for answer, frame in link.receive():
                self.answers.append((answer, None if frame is None else frame.bytes))
            link.tick(self.clock.now_s())

    def until(self, condition: Callable[[], object]) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up_s, "what was waited for did not happen"
            self.turn()

    def connected(self, **changes: Any) -> Link[TaskMessage]:
        link = self.link(**changes)
        self.until(lambda: link.is_up)
        return link

    def close(self) -> None:
        for link in self.links:
            link.close()
        self.front.close()


def make_front(context: zmq.Context[Any], clock: ManualClock, bind: str, **changes: Any) -> Front[TaskMessage]:
    arguments: dict[str, Any] = {
        "context": context,
        "bind": bind,
        "keys": SERVER_KEYS,
        "allow": ALLOW,
        "decoder": task_headers,
        "clock": clock,
        "limits": LIMITS,
        "name": "edge",
        "instance": "s1",
        "roles": frozenset({Role.DEVICE}),
        "load": lambda: [4.0, 2.0],
        "introduction": lambda: ("plan", 9),
    }
    return Front(**(arguments | changes))


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    gatekeeper = Gatekeeper(made, ALLOW)
    yield made
    gatekeeper.close()
    made.term()


@pytest.fixture
def wire(context: zmq.Context[Any]) -> Iterator[Wire]:
    clock = ManualClock(100.0)
    made = Wire(context, make_front(context, clock, "tcp://127.0.0.1:0"), clock)
    made.front.on_joined = lambda session, old: made.joined.append((session.instance, old and old.instance))
    made.front.on_left = lambda session, reason: made.left.append((session.name, reason))
    yield made
    made.close()


# -- introductions ----------------------------------------------------------------------------------------------------


def test_a_listed_peer_is_welcomed_and_told_the_limits(wire: Wire) -> None:
    link = wire.connected()
    assert wire.ups == [False]
    assert wire.joined == [("a1", None)]
    session = wire.front.by_name["pi-1"]
    assert (session.name, session.role) == ("pi-1", Role.DEVICE)
    welcome = link.welcome
    assert welcome is not None
    assert (welcome.name, welcome.instance, welcome.plan_hash, welcome.cell) == ("edge", "s1", "plan", 9)
    assert (welcome.heartbeat_s, welcome.dead_after_s) == (0.5, 3.0)


def is_let_in(wire: Wire, secure: Callable[[zmq.Socket[bytes]], None]) -> bool:
    """Connect with some security, say Hello, and see how the handshake ends."""
    socket: zmq.Socket[bytes] = wire.context.socket(zmq.DEALER)
    socket.linger = 0
    secure(socket)
    # The monitor comes first: a connection that was turned away is not tried again.
    monitor = socket.get_monitor_socket()
    socket.connect(wire.front.endpoint)
    socket.send(encode(Hello(PROTOCOL_VERSION, Role.DEVICE, "pi-1", "a1")))
    event = 0
    while event not in (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED):
        assert monitor.poll(int(PATIENCE_S * 1000)), "the handshake neither succeeds nor fails"
        event = int(recv_monitor_message(monitor)["event"])
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        wire.until(lambda: socket.poll(0))
    wire.turn()
    socket.disable_monitor()
    monitor.close()
    socket.close()
    return event == zmq.EVENT_HANDSHAKE_SUCCEEDED


def test_a_listed_key_is_let_in(wire: Wire) -> None:
    assert is_let_in(wire, lambda socket: secure_client(socket, PI_KEYS, SERVER_KEYS.public))
    assert wire.front.counters.received == 1


@pytest.mark.parametrize(
    "secure",
    [
        lambda socket: secure_client(socket, make_key_pair(), SERVER_KEYS.public),
        lambda socket: secure_client(socket, PI_KEYS, make_key_pair().public),
        lambda socket: None,
    ],
    ids=["a key that is not listed", "a server that is not the one meant", "no key"],
)
def test_who_is_not_listed_gets_nothing(wire: Wire, secure: Callable[[zmq.Socket[bytes]], None]) -> None:
    assert not is_let_in(wire, secure)
    assert wire.front.counters.received == 0
    assert wire.joined == []


def test_a_link_with_the_wrong_key_keeps_trying_and_is_never_up(wire: Wire) -> None:
    link = wire.link(keys=make_key_pair())
    for _ in range(3):
        wire.turn()
        assert link.state is LinkState.CONNECTING
        wire.clock.advance(3.1)
        wire.turn()
        assert link.state is LinkState.WAITING
        wire.clock.time_s = link.due_s
        wire.turn()
    assert (wire.ups, wire.losses, wire.answers) == ([], [], [])
    assert wire.front.counters.received == 0


@pytest.mark.parametrize(
    ("keys", "name", "role"),
    [
        (PI_KEYS, "pi-2", Role.DEVICE),
        (PI_KEYS, "pi-1", Role.SERVER),
        (BOSS_KEYS, "boss", Role.DEVICE),
        (BOSS_KEYS, "boss", Role.ORCHESTRATOR),
    ],
    ids=["another name", "another role", "a made-up role", "a role for elsewhere"],
)
def test_a_key_speaks_only_as_what_the_list_says(wire: Wire, keys: KeyPair, name: str, role: Role) -> None:
    link = wire.link(keys=keys, name=name, role=role)
    wire.until(lambda: wire.answers)
    answer = wire.answers[0][0]
    assert isinstance(answer, Error)
    assert answer.code is ErrorCode.FORBIDDEN
    assert not link.is_up
    assert wire.front.counters.forbidden >= 1
    assert wire.front.sessions == {}


def test_another_version_is_told_both(wire: Wire) -> None:
    link = wire.connected()
    link.send(Hello(PROTOCOL_VERSION + 1, Role.DEVICE, "pi-1", "a1"))
    wire.until(lambda: wire.answers)
    answer = wire.answers[0][0]
    assert isinstance(answer, Error)
    assert answer.code is ErrorCode.WRONG_VERSION
    assert f"protocol {PROTOCOL_VERSION}, pi-1 speaks {PROTOCOL_VERSION + 1}" in answer.detail


def test_who_is_not_introduced_is_asked_to_and_does(wire: Wire) -> None:
    link = wire.connected()
    wire.front.sessions.clear()
    wire.front.by_name.clear()
    link.send(Cancel("t1"))
    wire.until(lambda: len(wire.ups) == 2)
    assert wire.received == []
    assert wire.joined == [("a1", None), ("a1", None)]
    assert link.is_up


def test_a_hello_that_is_said_again_is_welcomed_again_and_changes_nothing(wire: Wire) -> None:
    link = wire.connected()
    link.send(Hello(PROTOCOL_VERSION, Role.DEVICE, "pi-1", "a1", "plan", 9))
    session = wire.front.by_name["pi-1"]
    wire.until(lambda: session.cell == 9)
    assert wire.joined == [("a1", None)]
    assert wire.ups == [False]


# -- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restarted_peer_replaces_its_session(wire: Wire) -> None:
    wire.connected(instance="a1")
    wire.connected(instance="a2")
    assert wire.joined == [("a1", None), ("a2", "a1")]
    assert wire.left == []
    assert wire.front.by_name["pi-1"].instance == "a2"
    assert len(wire.front.sessions) == 1


def test_a_peer_that_comes_back_over_a_new_connection_is_the_same(wire: Wire) -> None:
    first = wire.connected()
    first.close()
    wire.connected()
    assert wire.joined == [("a1", None), ("a1", "a1")]
    assert len(wire.front.sessions) == 1


def reopened(wire: Wire, endpoint: str) -> Front[TaskMessage]:
    """A new front where an old one was; ZeroMQ closes the old one in the background."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return make_front(wire.context, wire.clock, endpoint, instance="s2")
        except BadInput:
            assert time.monotonic() < give_up_s
            wire.links[0].socket.poll(1)


def test_a_restarted_server_is_noticed_and_its_clock_is_new(wire: Wire) -> None:
    link = wire.connected()
    wire.until(lambda: link.offset.offset_s is not None)
    endpoint = wire.front.endpoint
    wire.front.close()
    wire.front = reopened(wire, endpoint)
    wire.clock.advance(0.6)  # the next ping is answered: not introduced
    wire.until(lambda: wire.ups == [False, True])
    assert link.welcome is not None
    assert link.welcome.instance == "s2"
    assert link.offset.offset_s is None


# -- silence ----------------------------------------------------------------------------------------------------------


def test_pings_are_answered_with_load_and_give_the_clock_offset(wire: Wire) -> None:
    link = wire.connected()
    wire.until(lambda: link.load)
    assert link.load == [4.0, 2.0]
    assert link.offset.offset_s == 0.0
    assert link.offset.error_s == 0.0


def test_a_peer_that_is_silent_for_too_long_is_ended(wire: Wire) -> None:
    link = wire.connected()
    wire.until(lambda: link.load)  # its first ping has been heard
    wire.muted.append(link)  # nobody lets it ping any more
    wire.clock.advance(2.7)
    wire.turn()
    assert wire.left == []
    wire.clock.advance(0.6)
    wire.turn()
    assert wire.left == [("pi-1", "silent")]
    assert wire.front.sessions == wire.front.by_name == {}


def test_a_peer_that_pings_stays(wire: Wire) -> None:
    link = wire.connected()
    for _ in range(20):
        pings = wire.front.counters.received
        wire.clock.advance(0.6)
        wire.until(lambda before=pings: wire.front.counters.received > before)
    assert wire.left == []
    assert link.is_up


def test_a_silent_server_is_given_up_and_tried_again_with_growing_waits(wire: Wire) -> None:
    link = wire.connected()
    wire.until(lambda: link.load)
    link.tick(wire.clock.now_s())
    wire.clock.advance(3.1)
    link.tick(wire.clock.now_s())
    assert wire.losses == ["edge was silent for 3 s"]
    assert link.state is LinkState.WAITING
    assert link.load == []
    assert not link.send(Cancel("t1"))
    waits = []
    for _ in range(6):
        started_s = wire.clock.now_s()
        wire.clock.time_s = link.due_s
        waits.append(link.due_s - started_s)
        link.tick(wire.clock.now_s())
        assert link.state is LinkState.CONNECTING
        wire.clock.advance(3.1)
        link.tick(wire.clock.now_s())
        assert link.state is LinkState.WAITING
    assert waits == sorted(waits)
    assert waits[0] <= 0.1
    assert waits[-1] <= 2.0
    assert waits[-1] >= 4 * waits[0]
    assert len(wire.losses) == 1
    wire.clock.time_s = link.due_s
    link.tick(wire.clock.now_s())
    wire.until(lambda: link.is_up)
    assert wire.ups == [False, False]


def test_who_was_away_does_not_take_that_for_silence(wire: Wire) -> None:
    link = wire.connected()
    wire.muted.append(link)
    wire.clock.advance(2 * LIMITS.dead_after_s)
    link.was_away()
    link.tick(wire.clock.now_s())
    assert (link.state, wire.losses) == (LinkState.UP, [])
    wire.clock.advance(2 * LIMITS.dead_after_s)
    link.tick(wire.clock.now_s())
    assert wire.losses == ["edge was silent for 3 s"]


def test_a_server_that_says_good_bye_is_lost_at_once(wire: Wire) -> None:
    link = wire.connected()
    endpoint = wire.front.endpoint
    wire.front.close("maintenance")
    wire.front = make_front(wire.context, wire.clock, "tcp://127.0.0.1:0", instance="s2")
    wire.until(lambda: wire.losses)
    assert wire.losses == ["edge said good-bye: maintenance"]
    assert link.state is LinkState.WAITING
    assert endpoint != wire.front.endpoint


def test_a_peer_that_says_good_bye_has_left(wire: Wire) -> None:
    wire.connected().close("enough")
    wire.until(lambda: wire.left)
    assert wire.left == [("pi-1", "enough")]


def test_a_closed_link_does_nothing_more(wire: Wire) -> None:
    link = wire.connected()
    link.close()
    link.tick(wire.clock.now_s() + 100.0)
    assert link.state is LinkState.CLOSED
    assert list(link.receive()) == []
    assert not link.send(Cancel("t1"))
    link.close("again")


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 50_000, 300_000])
def test_payloads_go_both_ways_unchanged(wire: Wire, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    link = wire.connected()
    assert link.send(Offer("t1", 9, size, 1), payload)
    wire.until(lambda: wire.received)
    session, message, came = wire.received[0]
    assert message == Offer("t1", 9, size, 1)
    assert came == payload
    assert wire.front.send(session, Credit("t1", 3), memoryview(payload))
    wire.until(lambda: wire.answers)
    assert wire.answers == [(Credit("t1", 3), payload)]


def test_sending_to_who_is_gone_says_so(wire: Wire) -> None:
    link = wire.connected()
    session = wire.front.by_name["pi-1"]
    link.close()
    wire.until(lambda: not wire.front.send(session, Credit("t1", 1)))
    assert wire.front.counters.undeliverable >= 1


def test_a_malformed_message_is_answered_with_an_error_and_no_more(wire: Wire) -> None:
    link = wire.connected()
    for header in (b"", b"\xc1", encode(Cancel("t1"))[:-1], encode(Offer("t1", 9, 1, 1)) + b"\x00", b"\x91\x63"):
        wire.answers.clear()
        link.socket.send(header)
        wire.until(lambda: wire.answers)
        answer = wire.answers[0][0]
        assert isinstance(answer, Error), header
        assert answer.code is ErrorCode.BAD_MESSAGE, header
    assert wire.received == []
    assert link.is_up


def test_a_message_of_many_frames_is_one_error(wire: Wire) -> None:
    link = wire.connected()
    link.socket.send_multipart([encode(Cancel("t1")), b"2", b"3", b"4"])
    link.send(Cancel("t2"))
    wire.until(lambda: wire.received)
    assert [message for _, message, _ in wire.received] == [Cancel("t2")]
    wire.until(lambda: wire.answers)
    assert [type(answer) for answer, _ in wire.answers] == [Error]


def test_errors_are_never_answered(wire: Wire) -> None:
    link = wire.connected()
    link.send(Error(ErrorCode.BAD_MESSAGE, "no, you"))
    link.send(Cancel("t1"))
    wire.until(lambda: wire.received)
    wire.turn()
    assert wire.answers == []


def test_what_only_a_server_says_is_not_taken_from_a_peer(wire: Wire) -> None:
    link = wire.connected()
    link.send(Welcome(PROTOCOL_VERSION, "edge", "s1", 1.0, 1.0))
    link.send(Pong(1, 1.0, 1.0, 1.0))
    wire.until(lambda: len(wire.answers) == 2)
    assert all(isinstance(answer, Error) and answer.code is ErrorCode.UNEXPECTED for answer, _ in wire.answers)


def test_an_error_reply_with_an_unknown_code_is_still_an_error(wire: Wire) -> None:
    wire.connected()
    wire.front.reply_error(wire.front.by_name["pi-1"].identity, ProtocolError("made_up", "x" * 10_000), "t1")
    wire.until(lambda: wire.answers)
    answer = wire.answers[0][0]
    assert isinstance(answer, Error)
    assert (answer.code, answer.task_id) == (ErrorCode.BAD_MESSAGE, "t1")


def test_a_frame_that_is_too_long_costs_the_connection(wire: Wire) -> None:
    wire.front.close()
    wire.front = make_front(wire.context, wire.clock, "tcp://127.0.0.1:0", most_bytes=100_000)
    link = wire.connected()
    monitor = link.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    link.send(Offer("t1", 9, 200_000, 1), bytes(200_000))
    assert monitor.poll(int(PATIENCE_S * 1000))
    link.socket.disable_monitor()
    monitor.close()
    wire.turn()
    assert wire.received == []


def test_a_port_in_use_is_bad_input(wire: Wire) -> None:
    with pytest.raises(BadInput, match="cannot listen on"):
        make_front(wire.context, wire.clock, wire.front.endpoint)


# -- sleeping ---------------------------------------------------------------------------------------------------------


def test_a_drained_front_can_be_slept_on(wire: Wire) -> None:
    """Sleeping on the descriptor by the rule of `is_drained` misses no message, however sends and receives mix."""
    link = wire.connected()
    descriptors = Descriptors()
    descriptors.register(wire.front.socket)
    session = wire.front.by_name["pi-1"]
    got = 0
    for number in range(300):
        link.send(Cancel(f"t{number}"))
        while got <= number:
            if wire.front.is_drained or not wire.front.has_mail():
                assert descriptors.sleep(int(PATIENCE_S * 1000)), f"message {number} was never signalled"
            got += len(list(wire.front.receive()))
            wire.front.send(session, Credit("t", 1))
    descriptors.unregister(wire.front.socket)


def test_a_waker_wakes_a_poll_and_only_who_waits() -> None:
    waker, descriptors = Waker(), Descriptors()
    descriptors.watch(waker.fileno())
    waker.wake()
    assert descriptors.sleep(0) == []
    waker.will_wait()
    waker.wake()
    waker.wake()
    assert descriptors.sleep(int(PATIENCE_S * 1000)) == [waker.read_fd]
    waker.has_waited(True)
    assert descriptors.sleep(0) == []
    waker.close()


# -- any bytes --------------------------------------------------------------------------------------------------------

EXAMPLES: list[bytes] = [
    encode(message)
    for message in (
        Hello(PROTOCOL_VERSION, Role.DEVICE, "pi-1", "a1"),
        Hello(PROTOCOL_VERSION, Role.DEVICE, "pi-2", "a1"),
        Welcome(PROTOCOL_VERSION, "edge", "s1", 0.5, 3.0),
        Ping(3, 12.5),
        Pong(3, 12.5, 1.0, 2.0, [1.0, 2.0]),
        Error(ErrorCode.BAD_MESSAGE, "what?", "t1"),
        Bye("tired"),
        Offer("t1", 9, 50_000, 3, 1),
        Credit("t1", 4),
        Chunk("t1", 2),
        Cancel("t1"),
        Refusal("t1", RefusalReason.QUEUE_FULL, "32 tasks"),
        TaskResult("t1", [1, 2, 3], 1.0, 2.0, 3.0, 4.0, 5.0, 0.1, 0.2, 0.1, "estimated:cpu-model/x", 1e6),
    )
]


def mutated(rng: random.Random) -> bytes:
    """Something that is, or nearly is, a header."""
    data = bytearray(rng.choice(EXAMPLES))
    for _ in range(rng.randrange(4)):
        where = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[where:where] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 1:
            del data[where : where + rng.randrange(1, 9)]
        elif data and where < len(data):
            data[where] = rng.randrange(256) if kind == 2 else data[where] ^ (1 << rng.randrange(8))
    return bytes(data)


def hostile_messages(rng: random.Random, count: int) -> Iterator[list[bytes]]:
    for _ in range(count):
        header = rng.randbytes(rng.randrange(80)) if rng.random() < 0.3 else mutated(rng)
        yield [header, *(rng.randbytes(rng.randrange(40)) for _ in range(rng.choice((0, 0, 1, 1, 2, 3))))]


def raw_dealer(wire: Wire) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = wire.context.socket(zmq.DEALER)
    socket.linger = 0
    secure_client(socket, PI_KEYS, SERVER_KEYS.public)
    socket.connect(wire.front.endpoint)
    return socket


@pytest.mark.parametrize("seed", range(3))
def test_a_front_survives_any_bytes(wire: Wire, seed: int) -> None:
    rng = random.Random(seed)
    socket = raw_dealer(wire)
    total, replies = 4000, 0
    for sent, parts in enumerate(hostile_messages(rng, total)):
        socket.send_multipart(parts)
        if sent % 50 == 0:
            # What comes in may be anything; what goes out is a header that is allowed, at most one a message.
            for session, message, payload in list(wire.front.receive()):
                assert session.name == "pi-1"
                assert type(message) not in (Hello, Welcome, Ping, Pong, Error, Bye)
                assert payload is None or isinstance(payload, zmq.Frame)
            while socket.poll(0):
                answer = task_headers.decode(socket.recv())
                assert isinstance(answer, Error | Welcome | Pong)
                replies += 1
    wire.until(lambda: wire.front.counters.received >= total)
    assert wire.front.counters.received == total
    assert wire.front.counters.malformed > total / 4
    assert replies <= total
    socket.close()
    link = wire.connected(name="pi-2", keys=PI2_KEYS)
    link.send(Cancel("still here"))
    wire.until(lambda: any(message == Cancel("still here") for _, message, _ in wire.received))


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_a_front_answers_random_frames_with_an_error_or_nothing(frames: list[bytes]) -> None:
    """Over inproc, where neither keys nor the network take part: only what the front itself does with the bytes."""
    with zmq.Context() as inner:
        front = make_front(inner, ManualClock(), "inproc://front")
        client = inner.socket(zmq.DEALER)
        client.linger = 0
        client.connect("inproc://front")
        client.send_multipart(frames)
        assert list(front.receive()) == []
        assert front.counters.received == 1
        if client.poll(0):
            parts = client.recv_multipart()
            assert len(parts) == 1
            assert isinstance(task_headers.decode(parts[0]), Error)
        client.close()
        front.close()


def test_a_link_survives_any_bytes(wire: Wire) -> None:
    rng = random.Random(4)
    link = wire.connected()
    identity = wire.front.by_name["pi-1"].identity
    handed_out = 0
    for parts in hostile_messages(rng, 2000):
        wire.front.socket.send_multipart([identity, *parts])
        if rng.random() < 0.05:
            wire.front.send(wire.front.by_name["pi-1"], Credit("t1", 1))
        give_up_s = time.monotonic() + PATIENCE_S
        assert link.socket.poll(int(PATIENCE_S * 1000))
        for message, _ in link.receive():
            handed_out += 1
            assert type(message) not in (Hello, Welcome, Ping, Pong, Bye)
        assert time.monotonic() < give_up_s
        if link.state is LinkState.WAITING:
            # A good-bye got through the mutations: that is what a good-bye does.
            wire.clock.advance(3.0)
            wire.until(lambda: link.is_up)
            identity = wire.front.by_name["pi-1"].identity
    assert handed_out > 0
    link.close()
