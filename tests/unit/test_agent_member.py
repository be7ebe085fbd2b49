"""What a device does about the cells that it is told of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.content import Content
from device_agent.executor import SlowedWorkload
from device_agent.member import Device, Member
from device_agent.preparing import Preparation, Workshop
from device_agent.telemetry import Telemetry
from device_agent.testing import DEVICE, SERVER, JobsByHand, KeptRows, ServerOnBench, cell_with
from edgebed.clock import ManualClock
from edgebed.configuration import DeviceConfig, PeerAddress
from edgebed.protocol.cells import CellSpec, cell_to_plain
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import ControlMessage, Prepare, Ready, Start, Status, Stop


class OnBench:
    """A member with everything around it under control."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(1000.0)
        self.rows, self.jobs, self.content = KeptRows(), JobsByHand(self.clock), Content(folder)
        self.servers = {SERVER: ServerOnBench(self.clock)}
        self.offset = ClockOffset()
        self.said: list[ControlMessage] = []
        config = DeviceConfig(
            name=DEVICE,
            state_dir=str(folder),
            secret_key_file="",
            sysfs_root=str(folder),
            proc_root=str(folder),
            controller=PeerAddress("controller", "", ""),
            servers=[],
        )
        self.device = Device(
            config,
            self.clock,
            self.rows,
            self.servers,
            self.jobs,
            Telemetry(config, self.clock),
            Workshop(DEVICE, frozenset(self.servers), self.content, 1.0, self._slowed),
            lambda: self.offset,
            lambda message: not self.said.append(message),  # type: ignore[func-returns-value]
            self.content.read,
        )
        self.member = Member(self.device)

    def _slowed(self, workload: Any, slowdown: float) -> SlowedWorkload:
        return SlowedWorkload(workload, slowdown, self.clock, self.clock.sleep)

    def tell(self, message: ControlMessage) -> None:
        self.member.handle(message, self.clock.now_s())

    def prepare(self, cell: CellSpec) -> None:
        self.tell(Prepare(cell.serial, cell_to_plain(cell)))

    def work(self) -> None:
        """The executor does the next job."""
        job = self.jobs.queue.popleft()
        job.run()
        assert isinstance(job, Preparation)
        self.member.prepared(job, self.clock.now_s())

    def know_the_time(self, ahead_s: float = 500.0) -> None:
        now_s = self.clock.now_s()
        self.offset.add(now_s, now_s + ahead_s, now_s + ahead_s, now_s)

    def advance(self, duration_s: float) -> None:
        self.clock.advance(duration_s)
        self.member.advance(self.clock.now_s())

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind)]

    @property
    def states(self) -> list[tuple[int, str]]:
        return [(status.serial, status.state) for status in self.of(Status)]


@pytest.fixture
def on(tmp_path: Path) -> Iterator[OnBench]:
    made = OnBench(tmp_path)
    yield made
    made.content.close()


def test_from_idle_to_finished_and_back(on: OnBench) -> None:
    on.advance(0.0)
    on.prepare(cell_with([0.5]))
    on.advance(0.0)
    on.work()
    (ready,) = on.of(Ready)
    assert (ready.serial, ready.member, ready.ok) == (7, DEVICE, True)
    assert ready.facts["planned"] == ready.facts["rendered"] == 1
    on.know_the_time()
    on.advance(0.0)
    on.tell(Start(7, 1502.0, 100.0))
    on.advance(0.0)
    assert on.member.run is not None
    assert on.member.run.start_s == pytest.approx(1002.0)
    on.advance(3.0)
    job = on.jobs.start()
    on.member.run.dispatcher.executed(on.jobs.finish(job))
    on.advance(0.0)
    on.tell(Stop(7))
    on.advance(0.0)
    assert [state for _, state in dict.fromkeys(on.states)] == [
        "idle",
        "preparing",
        "ready",
        "running",
        "finished",
        "idle",
    ]
    assert on.of(Status)[-1].unsent == len(on.rows.rows)
    (task,) = on.rows.of("task")
    assert task.arrived_s == 100.5


def test_it_says_where_it_stands_twice_a_second(on: OnBench) -> None:
    for _ in range(10):
        on.advance(0.25)
    assert len(on.of(Status)) == 5


def test_that_its_last_row_has_arrived_is_said_at_once(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.work()
    on.tell(Start(7, 1500.0, 0.0))
    on.advance(0.1)
    on.tell(Stop(7))
    on.advance(0.0)
    assert on.of(Status)[-1].state == "idle"
    assert on.of(Status)[-1].unsent > 0
    said = len(on.of(Status))
    on.rows.rows.pop()
    on.advance(0.01)
    assert len(on.of(Status)) == said, "rows are still missing"
    on.rows.rows.clear()
    on.advance(0.01)
    assert [(status.state, status.unsent) for status in on.of(Status)[said:]] == [("idle", 0)]
    on.advance(0.01)
    assert len(on.of(Status)) == said + 1


def test_the_start_waits_for_the_preparation(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5, 3.0]))
    on.tell(Start(7, 1501.0, 0.0))
    on.clock.advance(2.5)
    assert on.member.run is None
    on.work()
    assert on.member.run is not None
    assert [(row.arrived_s, row.reason) for row in on.rows.of("task")] == [(0.5, "device_down")]


def test_the_start_waits_for_the_controllers_clock(on: OnBench) -> None:
    on.prepare(cell_with([0.5]))
    on.work()
    on.tell(Start(7, 1501.0, 0.0))
    due_s = on.member.advance(on.clock.now_s())
    assert on.member.run is None
    assert due_s - on.clock.now_s() < 0.1
    on.know_the_time()
    on.advance(0.1)
    assert on.member.run is not None
    assert on.member.run.start_s == pytest.approx(1001.0)
    assert not on.rows.of("task"), "it was ready in time: nothing is down"


def test_being_told_twice_changes_nothing(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.prepare(cell_with([0.5]))
    assert len(on.jobs.queue) == 1
    on.work()
    on.prepare(cell_with([0.5]))
    on.tell(Start(7, 1501.0, 0.0))
    run = on.member.run
    on.prepare(cell_with([0.5]))
    on.tell(Start(7, 1601.0, 0.0))
    assert on.member.run is run
    assert [(ready.ok, ready.facts["planned"]) for ready in on.of(Ready)] == [(True, 1)] * 3


def test_a_new_cell_replaces_the_old_one(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.work()
    on.tell(Start(7, 1501.0, 0.0))
    on.prepare(cell_with([0.5], serial=8))
    assert [(row.outcome, row.reason) for row in on.rows.of("task")] == [("failed", "not_run")]
    assert (on.member.serial, on.member.state) == (8, "preparing")
    on.prepare(cell_with([0.5], serial=9))
    assert len(on.jobs.queue) == 1, "nobody prepares a cell that is over"
    on.work()
    assert on.of(Ready)[-1].serial == 9


def test_a_preparation_that_was_given_up_does_not_count(on: OnBench) -> None:
    on.prepare(cell_with([0.5]))
    running = on.jobs.queue.popleft()
    assert isinstance(running, Preparation)
    on.tell(Stop(7))
    running.run()
    on.member.prepared(running, on.clock.now_s())
    assert on.member.state == "idle"
    assert not on.of(Ready)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"devices": ["pi-2"]}, "not for pi-1"),
        ({"servers": ["edge-9"]}, "edge-9"),
        ({"workload": "mystery"}, "mystery"),
        ({"policy_name": "mystery"}, "mystery"),
        ({"fallback_policy": "mystery"}, "mystery"),
        ({"decide_at": "arrival", "placement": "controller"}, "arrival"),
        ({"arrivals": {"kind": "sometimes", "deadline_s": 1.0}}, "sometimes"),
    ],
)
def test_a_cell_that_cannot_run_here_is_refused(on: OnBench, changes: dict[str, Any], problem: str) -> None:
    on.prepare(cell_with([0.5], **changes))
    on.work()
    on.advance(0.0)
    (ready,) = on.of(Ready)
    assert not ready.ok
    assert problem in ready.detail
    assert on.states[-1] == (7, "failed")
    on.prepare(cell_with([0.5], serial=8))
    on.work()
    assert on.of(Ready)[-1].ok


def test_what_is_no_cell_is_refused(on: OnBench) -> None:
    on.tell(Prepare(7, {"run_id": "run"}))
    (ready,) = on.of(Ready)
    assert not ready.ok
    assert "cell" in ready.detail


def test_other_cells_are_not_listened_to(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.work()
    on.tell(Start(6, 1501.0, 0.0))
    on.tell(Stop(6))
    assert on.member.state == "ready"


def test_a_successor_takes_up_where_the_predecessor_was(on: OnBench) -> None:
    device = replace(on.device, alive={"serial": 7, "cell_time_s": 1.0}, damaged_outbox="outbox.damaged-1")
    on.member = Member(device)
    on.know_the_time()
    on.prepare(cell_with([0.5, 2.0, 3.5]))
    on.tell(Start(7, 1500.0, 0.0))
    on.clock.advance(3.0)
    on.work()
    assert [(row.arrived_s, row.reason) for row in on.rows.of("task")] == [
        (0.5, "agent_restarted"),
        (2.0, "device_down"),
    ]
    assert [event.kind for event in on.rows.of("event")] == ["restarted", "outbox_damaged"]


def test_the_predecessor_of_another_cell_means_nothing(on: OnBench) -> None:
    on.member = Member(replace(on.device, alive={"serial": 6, "cell_time_s": 1.0}))
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.work()
    on.tell(Start(7, 1499.0, 0.0))
    assert not on.rows.of("task")


def test_servers_are_known_by_their_place_in_the_cell(on: OnBench) -> None:
    on.know_the_time()
    on.prepare(cell_with([0.5]))
    on.member.server_lost(SERVER, "before the cell")
    on.work()
    on.tell(Start(7, 1500.0, 0.0))
    assert on.member.server_index(SERVER) == 0
    assert on.member.server_index("edge-9") is None
    on.member.server_lost(SERVER, "silent")
    on.member.server_back(SERVER, True)
    on.member.server_lost("edge-9", "silent")
    assert [event.kind for event in on.rows.of("event")] == ["server_lost", "server_up"]
