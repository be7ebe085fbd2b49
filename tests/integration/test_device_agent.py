"""The real agent process, with a controller in the test and edge servers that are scripted or real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from edgebed.clock import MonotonicClock
from edgebed.configuration import (
    DeviceConfig,
    Liveness,
    PeerAddress,
    PeerKey,
    ServerConfig,
    config_bytes,
)
from edgebed.metering.board import load_board
from edgebed.protocol.cells import CellSpec, ChannelSettings, Timeouts, cell_to_plain
from edgebed.protocol.codec import control_headers, task_headers
from edgebed.protocol.front import Front, Session
from edgebed.protocol.messages import (
    Acknowledge,
    Cancel,
    Chunk,
    ControlMessage,
    Decide,
    Observe,
    Offer,
    Prepare,
    Ready,
    Records,
    Refusal,
    RefusalReason,
    Role,
    Start,
    Status,
    Stop,
    TaskMessage,
    TaskResult,
)
from edgebed.protocol.security import AllowList, Gatekeeper, KeyPair, Peer, make_key_pair, write_key_pair
from edgebed.trace.schema import STAGES, EpochRecord, EventRecord, Record, SampleRecord, TaskRecord
from edgebed.types import Site
from workloads import load_workload

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0
DEVICE, CONTROLLER = "pi-1", "controller"
INSTANT = {"workload": "instant", "workload_options": {"frame_bytes": 2000, "cycles_per_frame": 1e6}}
BOARD = asdict(load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml"))

ROWS: dict[str, type[msgspec.Struct]] = {
    "task": TaskRecord,
    "epoch": EpochRecord,
    "sample": SampleRecord,
    "event": EventRecord,
}

Decider = Callable[[Observe], Decide | None]


def answer(observe: Observe, site: Site, fraction: float = 1.0, server: int = 0) -> Decide:
    """A controller's decision."""
    return Decide(
        observe.serial, observe.epoch, observe.member, int(site), server, 0, fraction, 1.0, 1.0, "v1", "controller", 0.001
    )


class ControllerUnderTest:
    """The controller's place at the device's control link; also writes down what the device reports."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decider: Decider | None = None
        self.heard: list[ControlMessage] = []
        self.rows: dict[str, list[Any]] = defaultdict(list)
        self.sequences: set[int] = set()
        self.acknowledges = True
        self.front = self.open("tcp://127.0.0.1:0")

    def open(self, bind: str) -> Front[ControlMessage]:
        return Front(
            context=self.world.context,
            bind=bind,
            keys=self.world.keys[CONTROLLER],
            allow=self.world.allow,
            decoder=control_headers,
            clock=self.world.clock,
            limits=self.world.limits,
            name=CONTROLLER,
            instance=f"c{time.monotonic_ns()}",
            roles=frozenset({Role.DEVICE, Role.SERVER}),
        )

    @property
    def session(self) -> Session:
        return self.front.by_name[DEVICE]

    def turn(self) -> None:
        for session, message, payload in self.front.receive():
            self.heard.append(message)
            if isinstance(message, Records):
                assert payload is not None
                self.take(session, message, payload.bytes)
            elif isinstance(message, Observe) and self.decider is not None:
                decide = self.decider(message)
                if decide is not None:
                    self.front.send(session, decide)
        self.front.expire(self.world.clock.now_s())

    def take(self, session: Session, message: Records, payload: bytes) -> None:
        if not self.acknowledges:
            return
        records = msgspec.msgpack.decode(payload, type=list[Record])
        assert len(records) == message.count
        assert records[-1].sequence == message.last
        for record in records:
            if message.member == DEVICE and record.sequence not in self.sequences:
                self.sequences.add(record.sequence)
                self.rows[record.kind].append(msgspec.msgpack.decode(record.row, type=ROWS[record.kind]))
        self.front.send(session, Acknowledge(message.member, message.last))

    def newest(self, kind: type[Any], accept: Callable[[Any], bool] = lambda message: True) -> Any:
        return next((each for each in reversed(self.heard) if isinstance(each, kind) and accept(each)), None)


class ScriptedServer:
    """An edge server's place at the device's task link: the test says what it does with an offer."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.workload = load_workload("instant", INSTANT["workload_options"])
        self.offers: list[Offer] = []
        self.chunks: list[tuple[float, int, int]] = []
        self.cancelled: list[str] = []
        self.payloads: dict[str, bytes] = {}
        self.on_complete: Callable[[Session, Offer], None] = self.execute
        self.on_offer: Callable[[Session, Offer], bool] = lambda session, offer: True
        self.up = True
        self.front = self.open("tcp://127.0.0.1:0")
        self.endpoint = self.front.endpoint

    def open(self, bind: str) -> Front[TaskMessage]:
        return Front(
            context=self.world.context,
            bind=bind,
            keys=self.world.keys[self.name],
            allow=self.world.allow,
            decoder=task_headers,
            clock=self.world.clock,
            limits=self.world.limits,
            name=self.name,
            instance=f"s{time.monotonic_ns()}",
            roles=frozenset({Role.DEVICE}),
            load=lambda: [1.0, 0.5, 2.0, 1e9, 0.25, 0.0, 0.0, 0.0],
        )

    def turn(self) -> None:
        if not self.up:
            return
        for session, message, payload in self.front.receive():
            if isinstance(message, Offer):
                self.offers.append(message)
                self.payloads[message.task_id] = b"" if payload is None else payload.bytes
                if self.on_offer(session, message) and payload is not None:
                    self.on_complete(session, message)
            elif isinstance(message, Chunk):
                assert payload is not None
                self.take_chunk(session, message, payload.bytes)
            elif isinstance(message, Cancel):
                self.cancelled.append(message.task_id)
        self.front.expire(self.world.clock.now_s())

    def take_chunk(self, session: Session, chunk: Chunk, data: bytes) -> None:
        self.chunks.append((self.world.clock.now_s(), chunk.index, len(data)))
        self.payloads[chunk.task_id] += data
        offer = next(offer for offer in self.offers if offer.task_id == chunk.task_id)
        if len(self.payloads[chunk.task_id]) == offer.payload_bytes:
            self.on_complete(session, offer)

    def execute(self, session: Session, offer: Offer) -> None:
        self.front.send(session, self.result(offer))

    def result(self, offer: Offer) -> TaskResult:
        received_s = self.world.clock.now_s()
        predicted = list(self.workload.execute(self.payloads[offer.task_id]).predicted)
        now_s = self.world.clock.now_s()
        return TaskResult(
            offer.task_id, predicted, received_s, received_s, received_s, now_s, now_s, 0.001, 0.5, 0.1, "estimated:x"
        )

    def vanish(self) -> None:
        """As if killed: nobody is told."""
        self.front.close()
        self.up = False

    def come_back(self) -> None:
        self.front = self.open(self.endpoint)
        self.up = True


@dataclass
class World:
    """One device agent in a process of its own, and everyone whom it talks to."""

    folder: Path
    server_names: list[str] = field(default_factory=lambda: ["edge-1"])

    def __post_init__(self) -> None:
        self.clock = MonotonicClock()
        self.limits = Liveness(heartbeat_s=0.2, dead_after_s=1.5)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        roles = {DEVICE: Role.DEVICE, CONTROLLER: Role.CONTROLLER} | dict.fromkeys(self.server_names, Role.SERVER)
        self.keys: dict[str, KeyPair] = {name: make_key_pair() for name in roles}
        self.allow = AllowList({self.keys[name].public: Peer(name, role) for name, role in roles.items()})
        self.gatekeeper = Gatekeeper(self.context, self.allow)
        self.controller = ControllerUnderTest(self)
        self.servers: dict[str, ScriptedServer] = {}
        self.edges: list[subprocess.Popen[bytes]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.serial = 0

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self, **settings: Any) -> None:
        """Start the agent, scripted servers unless ``servers`` says otherwise, and wait until it has come."""
        servers = settings.pop("servers", None)
        if servers is None:
            self.servers = {name: ScriptedServer(self, name) for name in self.server_names}
            servers = [
                PeerAddress(name, server.endpoint, self.keys[name].public) for name, server in self.servers.items()
            ]
        write_key_pair(self.folder / "key", self.keys[DEVICE])
        fields: dict[str, Any] = {
            "name": DEVICE,
            "state_dir": str(self.folder),
            "secret_key_file": str(self.folder / "key"),
            "board": BOARD,
            "liveness": self.limits,
            "controller": PeerAddress(CONTROLLER, self.controller.front.endpoint, self.keys[CONTROLLER].public),
            "servers": servers,
        }
        (self.folder / "device_agent.json").write_bytes(config_bytes(DeviceConfig(**(fields | settings))))
        self.spawn()
        self.until(lambda: DEVICE in self.controller.front.by_name)

    def spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "device_agent", "--config", str(self.folder / "device_agent.json")], stderr=log
            )

    def start_edge(self, name: str = "edge-1", **settings: Any) -> subprocess.Popen[bytes]:
        """Start a real edge server, or start it again; returns its process."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        write_key_pair(folder / "key", self.keys[name])
        config = ServerConfig(
            name=name,
            state_dir=str(folder),
            secret_key_file=str(folder / "key"),
            bind="tcp://127.0.0.1:0",
            allow=[PeerKey(DEVICE, "device", self.keys[DEVICE].public)],
            controller=PeerAddress(CONTROLLER, self.controller.front.endpoint, self.keys[CONTROLLER].public),
            liveness=self.limits,
        )
        (folder / "edge_server.json").write_bytes(config_bytes(msgspec.structs.replace(config, **settings)))
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edge_server", "--config", str(folder / "edge_server.json")], stderr=log
            )
        self.edges.append(process)
        self.until(lambda: name in self.controller.front.by_name, also=[process])
        return process

    def edge_address(self, name: str = "edge-1") -> PeerAddress:
        endpoint = (self.folder / name / "edge_server.endpoint").read_text().strip()
        return PeerAddress(name, endpoint, self.keys[name].public)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        poller = zmq.Poller()
        poller.register(self.controller.front.socket, zmq.POLLIN)
        for server in self.servers.values():
            if server.up:
                poller.register(server.front.socket, zmq.POLLIN)
        poller.poll(5)
        self.controller.turn()
        for server in self.servers.values():
            server.turn()

    def until(self, condition: Callable[[], Any], also: list[subprocess.Popen[bytes]] | None = None) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while not condition():
            for process in [self.process, *(also or [])]:
                assert process is None or process.poll() is None, self.log()
            assert time.monotonic() < give_up_s, f"{self.log()}\n{self.controller.heard[-5:]}"
            self.turn()

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # -- cells --------------------------------------------------------------------------------------------------------

    def cell(self, **changes: Any) -> CellSpec:
        self.serial += 1
        fields: dict[str, Any] = {
            "run_id": "run",
            "plan_hash": "hash",
            "cell_id": f"cell-{self.serial}",
            "serial": self.serial,
            "attempt": 1,
            "policy": "a label",
            "policy_name": "all_local",
            "placement": "device",
            "seed": 3,
            "arrivals": {"kind": "periodic", "period_s": 0.1, "phase_s": 0.05, "deadline_s": 0.5, "frames": 3},
            "epoch_s": 0.2,
            "epochs": 5,
            "timeouts": Timeouts(task_s=5.0),
            "devices": [DEVICE],
            "servers": self.server_names,
        }
        return CellSpec(**(fields | INSTANT | changes))

    def prepare(self, cell: CellSpec, also: list[str] | None = None) -> Ready:
        """Tell the device (and other members) of a cell and wait until all have answered."""
        names = [DEVICE, *(also or [])]
        message = Prepare(cell.serial, cell_to_plain(cell))
        for name in names:
            self.controller.front.send(self.controller.front.by_name[name], message)

        def ready_of(name: str) -> Any:
            return self.controller.newest(Ready, lambda ready: (ready.member, ready.serial) == (name, cell.serial))

        self.until(lambda: all(ready_of(name) for name in names))
        return ready_of(DEVICE)  # type: ignore[no-any-return]

    def begin(self, cell: CellSpec, delay_s: float = 0.1, also: list[str] | None = None) -> float:
        """Start it; returns the instant, on this clock."""
        start_s = self.clock.now_s() + delay_s
        for name in [DEVICE, *(also or [])]:
            self.controller.front.send(self.controller.front.by_name[name], Start(cell.serial, start_s, 100.0))
        return start_s

    def status(self, cell: CellSpec) -> Status | None:
        return self.controller.newest(  # type: ignore[no-any-return]
            Status, lambda each: (each.member, each.serial) == (DEVICE, cell.serial)
        )

    def is_finished(self, cell: CellSpec) -> bool:
        status = self.status(cell)
        return status is not None and status.state == "finished"

    def stop(self, cell: CellSpec) -> None:
        """Stop it and wait until everything has been collected."""
        self.controller.front.send(self.controller.session, Stop(cell.serial, "done"))

        def is_collected() -> bool:
            status = self.status(cell)
            return status is not None and status.state == "idle" and status.unsent == 0

        self.until(is_collected)

    def run(self, cell: CellSpec, also: list[str] | None = None) -> list[TaskRecord]:
        """From Prepare to Stop; the final row of each task, in order of arrival."""
        ready = self.prepare(cell, also)
        assert ready.ok, ready.detail
        self.begin(cell, also=also)
        self.until(lambda: self.is_finished(cell))
        self.stop(cell)
        return self.final_rows(cell)

    def final_rows(self, cell: CellSpec) -> list[TaskRecord]:
        rows = [row for row in self.controller.rows["task"] if row.cell_id == cell.cell_id]
        return sorted({row.task_id: row for row in rows}.values(), key=lambda row: row.arrived_s)

    def events(self, kind: str) -> list[EventRecord]:
        return [event for event in self.controller.rows["event"] if event.kind == kind]

    def close(self) -> None:
        for process in [self.process, *self.edges]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(PATIENCE_S)
        self.controller.front.close()
        for server in self.servers.values():
            if server.up:
                server.front.close()
        self.gatekeeper.close()
        self.context.term()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


def assert_adds_up(row: TaskRecord) -> None:
    assert row.decision_s is not None
    assert row.latency_s == pytest.approx(row.decision_s + sum(getattr(row, name) for name in STAGES), abs=1e-9)
    assert all(getattr(row, name) >= 0 for name in STAGES)


# -- the main path ----------------------------------------------------------------------------------------------------


def test_tasks_run_on_the_device_and_every_one_is_reported_once(world: World) -> None:
    world.start()
    cell = world.cell()
    rows = world.run(cell)
    assert [row.task_id for row in rows] == [f"{cell.cell_id}/{DEVICE}/{index}" for index in range(10)]
    assert len(world.controller.rows["task"]) == 10
    for index, row in enumerate(rows):
        assert row.arrived_s == pytest.approx(100.0 + 0.05 + 0.1 * index)
        assert (row.policy, row.site, row.outcome, row.decided_by) == ("a label", "device", "done", "device")
        assert row.predicted == row.label
        assert (row.correct, row.frames, row.edge_frames) == (3, 3, 0)
        assert row.deadline_met == (row.latency_s is not None and row.latency_s <= 0.5)
        assert row.cost is not None
        assert row.energy_source == "estimated:cpu-model/raspberry-pi-4b"
        assert_adds_up(row)


def test_work_that_is_no_cell_of_this_device_is_refused(world: World) -> None:
    world.start()
    ready = world.prepare(world.cell(devices=["pi-9"]))
    assert not ready.ok
    assert "pi-9" in ready.detail
    ready = world.prepare(world.cell(servers=["edge-7"]))
    assert not ready.ok
    assert "edge-7" in ready.detail
    assert len(world.run(world.cell())) == 10
