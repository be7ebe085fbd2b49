"""The real controller process, with real links that stand for devices, a server and the orchestrator."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import ControllerConfig, Liveness, PeerAddress, PeerKey, config_bytes
from edgebed.protocol.cells import CellSpec, Timeouts, cell_from_plain, cell_to_plain
from edgebed.protocol.codec import control_headers
from edgebed.protocol.joint import decision_message, observation_from
from edgebed.protocol.link import Link
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    Decide,
    Error,
    ErrorCode,
    JointObserve,
    Load,
    Observe,
    Prepare,
    Ready,
    Records,
    Role,
    Start,
    Status,
    Stop,
)
from edgebed.protocol.security import KeyPair, make_key_pair, write_key_pair
from edgebed.trace.schema import EpochRecord, Record
from edgebed.types import DEVICE_FEATURES, Decision, ObservationSpec

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
DEVICES = ["pi-1", "pi-2"]


# A peer that is not waited for here says nothing meanwhile.
LIMITS = Liveness(heartbeat_s=0.2, dead_after_s=30.0)


@dataclass
class Peer:
    """A link and all that has come over it."""

    link: Link[ControlMessage]
    poller: zmq.Poller = field(default_factory=zmq.Poller)
    inbox: list[tuple[ControlMessage, bytes | None]] = field(default_factory=list)

    def turn(self) -> None:
        self.poller.poll(10)
        for message, payload in self.link.receive():
            self.inbox.append((message, payload.bytes if payload is not None else None))
        self.link.tick(time.monotonic())

    def wait_for(self, kind: type, accept: Callable[[msgspec.Struct], bool] = lambda message: True) -> msgspec.Struct:
        return self.wait_for_frames(kind, accept)[0]

    def wait_for_frames(
        self, kind: type, accept: Callable[[msgspec.Struct], bool] = lambda message: True
    ) -> tuple[msgspec.Struct, bytes | None]:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            for index, (message, payload) in enumerate(self.inbox):
                if isinstance(message, kind) and accept(message):
                    del self.inbox[index]
                    return message, payload
            self.turn()
        raise AssertionError(f"no {kind.__name__} came; the inbox has {[m for m, _ in self.inbox]}")


class World:
    """A controller process and whoever talks to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.keys: dict[str, KeyPair] = {"controller": make_key_pair()}
        self.roles = {"pi-1": "device", "pi-2": "device", "edge-1": "server", "boss": "orchestrator", "ext": "external"}
        self.peers: list[Peer] = []
        for name in self.roles:
            self.keys[name] = make_key_pair()
        write_key_pair(folder / "controller.key", self.keys["controller"])
        config = ControllerConfig(
            name="controller",
            state_dir=str(folder),
            secret_key_file=str(folder / "controller.key"),
            bind="tcp://127.0.0.1:0",
            allow=[PeerKey(name, role, self.keys[name].public) for name, role in self.roles.items()],
            liveness=LIMITS,
        )
        (folder / "controller.json").write_bytes(config_bytes(config))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        endpoint_file = self.folder / "controller.endpoint"
        known = endpoint_file.read_text() if endpoint_file.exists() else None
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_server.controller", "--config", str(self.folder / "controller.json")]
        )
        deadline_s = time.monotonic() + PATIENCE_S
        while not endpoint_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert known is None or endpoint_file.read_text() == known
        return process

    def connect(self, name: str, keys: KeyPair | None = None, role: str | None = None) -> Peer:
        address = PeerAddress(
            "controller", (self.folder / "controller.endpoint").read_text().strip(), self.keys["controller"].public
        )
        link: Link[ControlMessage] = Link(
            context=self.context,
            address=address,
            keys=keys or self.keys[name],
            name=name,
            role=Role(role or self.roles[name]),
            instance=f"{name}-1",
            decoder=control_headers,
            clock=MonotonicClock(),
            limits=LIMITS,
        )
        peer = Peer(link)
        link.register(peer.poller)
        self.peers.append(peer)
        return peer

    def joined(self, name: str) -> Peer:
        peer = self.connect(name)
        deadline_s = time.monotonic() + PATIENCE_S
        while not peer.link.is_up:
            assert time.monotonic() < deadline_s
            peer.turn()
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.link.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        self.context.term()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def cell(serial: int = 1, placement: str = "controller", policy: str = "all_edge", epochs: int = 50) -> CellSpec:
    return CellSpec(
        run_id="r",
        plan_hash="h",
        cell_id=f"c-{serial}",
        serial=serial,
        attempt=1,
        policy=policy,
        policy_name=policy,
        placement=placement,  # type: ignore[arg-type]
        seed=3,
        workload="instant",
        arrivals={},
        # An epoch that is over before devices have reported for it is left out: the machine may be busy.
        epoch_s=1.5,
        epochs=epochs,
        devices=DEVICES,
        servers=["edge-1"],
        timeouts=Timeouts(decision_s=2.8),
    )


def observe(member: str, epoch: int, serial: int = 1, value: float = 1.0) -> Observe:
    return Observe(serial, epoch, member, [value] * len(DEVICE_FEATURES), [True])


def acknowledge_until_idle(boss: Peer) -> dict[int, Record]:
    rows: dict[int, Record] = {}

    def takes(message: msgspec.Struct) -> bool:
        return isinstance(message, Records) or (isinstance(message, Status) and message.unsent == 0)

    while True:
        message, payload = boss.wait_for_frames(msgspec.Struct, takes)
        if not isinstance(message, Records):
            return rows
        assert payload is not None
        rows |= {row.sequence: row for row in msgspec.msgpack.decode(payload, type=list[Record])}
        boss.link.send(Acknowledge(message.member, message.last))


def start_cell(boss: Peer, spec: CellSpec) -> None:
    boss.link.send(Prepare(spec.serial, cell_to_plain(spec)))
    assert boss.wait_for(Ready, lambda ready: ready.member == "controller").ok
    boss.link.send(Start(spec.serial, 0.05, 100.0))


def test_a_cell_from_prepare_to_the_last_row(world: World) -> None:
    boss, one, two = world.joined("boss"), world.joined("pi-1"), world.joined("pi-2")
    start_cell(boss, cell())
    for peer in (one, two):
        assert peer.wait_for(Prepare).serial == 1
        start = peer.wait_for(Start)
        # The controller runs on this machine, so its monotonic clock is ours.
        assert abs(start.start_s - time.monotonic()) < PATIENCE_S
        assert start.run_clock_s == 100.0
    one.link.send(observe("pi-1", 0))
    two.link.send(observe("pi-2", 0))
    for peer in (one, two):
        decided = peer.wait_for(Decide)
        assert (decided.epoch, decided.site, decided.server, decided.decided_by) == (0, 1, 0, "controller")
        assert decided.compute_s > 0
    boss.link.send(Stop(1, "complete"))
    assert one.wait_for(Stop).reason == "complete"
    rows = acknowledge_until_idle(boss)
    epochs = [msgspec.msgpack.decode(row.row, type=EpochRecord) for row in rows.values() if row.kind == "epoch"]
    assert [(row.epoch, len(row.action or [])) for row in epochs] == [(0, 12), (1, 0)]
    assert epochs[0].observation is not None
    assert len(epochs[0].observation) == 2 * len(DEVICE_FEATURES) + ObservationSpec(("a",), ("s",)).server_width
    assert all(row.serial == 1 for row in rows.values())


def test_stragglers_are_not_waited_for_beyond_half_the_patience(world: World) -> None:
    boss, one, two = world.joined("boss"), world.joined("pi-1"), world.joined("pi-2")
    start_cell(boss, cell())
    one.wait_for(Start)
    one.link.send(observe("pi-1", 0))
    decided = one.wait_for(Decide)
    assert (decided.epoch, decided.site) == (0, 1)
    # The one that was silent is absent, and absent slots are told to stay local.
    assert two.wait_for(Decide).site == 0


def test_members_that_come_late_are_told_the_cell(world: World) -> None:
    boss = world.joined("boss")
    start_cell(boss, cell())
    late = world.joined("pi-1")
    assert late.wait_for(Prepare).serial == 1
    assert late.wait_for(Start).serial == 1


def test_an_external_decider_decides(world: World) -> None:
    boss, one, two = world.joined("boss"), world.joined("pi-1"), world.joined("pi-2")
    edge, outside = world.joined("edge-1"), world.joined("ext")
    spec = ObservationSpec(tuple(DEVICES), ("edge-1",), 1)
    start_cell(boss, cell(placement="external"))
    one.wait_for(Start)
    load = [float(number + 1) for number in range(spec.server_width)]
    edge.link.send(Load(1, "edge-1", load))
    one.link.send(observe("pi-1", 0))
    two.link.send(observe("pi-2", 0))
    shown = outside.wait_for(JointObserve)
    observation = observation_from(shown, spec)
    assert observation.present.all()
    decision = Decision.local(2)
    decision.site[1] = 1
    outside.link.send(decision_message(decision, 1, shown.epoch, "mine-7"))
    answers = [one.wait_for(Decide), two.wait_for(Decide)]
    assert [answer.site for answer in answers] == [0, 1]
    assert {(answer.decided_by, answer.policy_version) for answer in answers} == {("external", "mine-7")}
    assert answers[0].compute_s > 0
    outside.link.send(decision_message(decision, 1, shown.epoch, "mine-7"))
    assert outside.wait_for(Error).code is ErrorCode.UNEXPECTED


def test_an_external_decider_is_told_the_cell_and_how_it_ends(world: World) -> None:
    boss, outside = world.joined("boss"), world.joined("ext")
    one, two = world.joined("pi-1"), world.joined("pi-2")
    start_cell(boss, cell(placement="external", epochs=1))
    told = cell_from_plain(outside.wait_for(Prepare).cell)
    assert (told.cell_id, told.devices) == ("c-1", DEVICES)
    assert outside.wait_for(Start).serial == 1
    for peer in (one, two):
        peer.wait_for(Start)
    one.link.send(observe("pi-1", 0))
    # This one has nothing left to do, and says so before the first epoch is decided: that is not taken for epoch 0.
    one.link.send(observe("pi-1", 1, value=5.0))
    two.link.send(observe("pi-2", 0))
    shown = outside.wait_for(JointObserve)
    assert (shown.epoch, shown.is_last, set(shown.values)) == (0, False, {1.0})
    outside.link.send(decision_message(Decision.local(2), 1, 0, "mine-7"))
    one.wait_for(Decide)
    two.link.send(observe("pi-2", 1, value=5.0))
    end = outside.wait_for(JointObserve)
    assert (end.epoch, end.is_last, end.present, set(end.values)) == (1, True, [True, True], {5.0})
    outside.link.send(decision_message(Decision.local(2), 1, 1, "mine-7"))
    assert outside.wait_for(Error).code is ErrorCode.UNEXPECTED
    boss.link.send(Stop(1, "complete"))
    outside.wait_for(Stop)
    rows = acknowledge_until_idle(boss)
    epochs = [msgspec.msgpack.decode(row.row, type=EpochRecord) for row in rows.values() if row.kind == "epoch"]
    assert [(row.epoch, len(row.action or [])) for row in epochs] == [(0, 12), (1, 0)]
    assert epochs[1].observation is not None
    assert set(epochs[1].observation[: 2 * len(DEVICE_FEATURES)]) == {5.0}
    assert not [message for message, _ in outside.inbox if isinstance(message, JointObserve)], "the end is shown once"


def test_a_cell_that_is_stopped_early_shows_what_was_last_known(world: World) -> None:
    boss, outside, one = world.joined("boss"), world.joined("ext"), world.joined("pi-1")
    start_cell(boss, cell(placement="external"))
    one.wait_for(Start)
    one.link.send(observe("pi-1", 0))
    assert not outside.wait_for(JointObserve).is_last
    boss.link.send(Stop(1, "interrupted"))
    end = outside.wait_for(JointObserve)
    assert (end.epoch, end.is_last, end.present) == (1, True, [True, False])
    assert outside.wait_for(Stop).reason == "interrupted"


def test_a_cell_waits_for_the_program_that_decides_it(world: World) -> None:
    boss = world.joined("boss")
    spec = cell(placement="external")
    boss.link.send(Prepare(1, cell_to_plain(spec)))
    late = world.joined("pi-1")
    late.wait_for(Prepare)  # by then the orchestrator has been answered, if ever
    boss.turn()
    assert not [message for message, _ in boss.inbox if isinstance(message, Ready)]
    world.joined("ext")
    assert boss.wait_for(Ready).ok


def test_a_controller_that_hears_nothing_sleeps(world: World) -> None:
    boss, one = world.joined("boss"), world.joined("pi-1")
    start_cell(boss, cell(epochs=1))
    start = one.wait_for(Start)
    # From here on both ticks and all patience are over, and no device has said anything.
    quiet_from_s = start.start_s + 2 * 1.5 + 2.8
    program = psutil.Process(world.process.pid)
    while time.monotonic() < quiet_from_s:
        boss.turn()
    used_s = sum(program.cpu_times()[:2])
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        boss.turn()
    assert sum(program.cpu_times()[:2]) - used_s < 0.2


@pytest.mark.parametrize(
    ("sender", "message", "code"),
    [
        ("pi-1", Stop(1, "mutiny"), ErrorCode.UNEXPECTED),
        ("pi-1", Status(1, "pi-2", "running"), ErrorCode.FORBIDDEN),
        ("pi-1", Observe(1, 0, "pi-1", [1.0, 2.0]), ErrorCode.BAD_MESSAGE),
        ("pi-1", Observe(1, 0, "pi-1", [float("nan")] * len(DEVICE_FEATURES)), ErrorCode.BAD_MESSAGE),
        ("edge-1", Load(1, "edge-1", [1.0]), ErrorCode.BAD_MESSAGE),
        ("boss", Start(7, 0.0, 0.0), ErrorCode.UNEXPECTED),
        ("boss", Prepare(2, {"nonsense": 1}), ErrorCode.BAD_MESSAGE),
    ],
)
def test_what_nobody_may_send_is_answered_and_does_no_harm(
    world: World, sender: str, message: ControlMessage, code: ErrorCode
) -> None:
    boss = world.joined("boss")
    start_cell(boss, cell())
    peer = boss if sender == "boss" else world.joined(sender)
    peer.link.send(message)
    assert peer.wait_for(Error).code is code
    assert world.process.poll() is None


def test_a_restarted_controller_is_told_the_cell_again_and_goes_on(world: World) -> None:
    boss, one, two = world.joined("boss"), world.joined("pi-1"), world.joined("pi-2")
    start_cell(boss, cell())
    one.wait_for(Start)
    two.wait_for(Start)
    world.process.kill()
    world.process.wait(PATIENCE_S)
    world.process = world.start()
    deadline_s = time.monotonic() + PATIENCE_S
    instance = boss.link.welcome.instance if boss.link.welcome else ""
    while not (boss.link.welcome and boss.link.welcome.instance != instance and one.link.is_up and two.link.is_up):
        assert time.monotonic() < deadline_s
        for peer in (boss, one, two):
            peer.turn()
    start_cell(boss, cell())
    assert one.wait_for(Start).serial == 1


def test_a_key_that_is_not_listed_gets_nothing(world: World) -> None:
    stranger = world.connect("pi-1", keys=make_key_pair())
    boss = world.joined("boss")
    start_cell(boss, cell())
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        stranger.turn()
    assert stranger.inbox == []
    assert not stranger.link.is_up


def test_a_listed_key_cannot_take_another_role(world: World) -> None:
    impostor = world.connect("pi-1", role="orchestrator")
    assert impostor.wait_for(Error).code is ErrorCode.FORBIDDEN
    assert not impostor.link.is_up
