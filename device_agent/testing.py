"""Stand-ins for what surrounds a running cell, and a cell on a bench: real code, a clock that moves when it is told."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from device_agent.cell import CellRun, Predecessor, Surroundings
from device_agent.content import Content
from device_agent.executor import ClipJob, Job, SlowedWorkload
from device_agent.preparing import Workshop, prepare
from device_agent.telemetry import Telemetry
from edgebed.clock import ManualClock
from edgebed.configuration import DeviceConfig, PeerAddress
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import (
    CHUNK_BYTES,
    WINDOW_CHUNKS,
    AnyMessage,
    Chunk,
    ControlMessage,
    Decide,
    Observe,
    Offer,
    TaskResult,
)
from edgebed.trace.schema import TaskRecord
from edgebed.types import Site

DEVICE = "pi-1"
SERVER = "edge-1"
SECONDS_PER_FRAME = 0.05


class KeptRows:
    """Rows in memory instead of an outbox."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, Any]] = []
        self.state: dict[str, Any] = {}
        self.terminal: dict[int, dict[str, str]] = {}

    def append(self, kind: str, serial: int, row: msgspec.Struct) -> int:
        """Keep a copy."""
        self.rows.append((kind, serial, msgspec.structs.replace(row)))
        return len(self.rows)

    def set_state(self, key: str, value: Any) -> None:
        """Keep it as JSON would."""
        self.state[key] = json.loads(json.dumps(value))

    def terminal_tasks(self, serial: int) -> dict[str, str]:
        """What the test has put there."""
        return self.terminal.get(serial, {})

    def unacknowledged(self) -> int:
        """All of them."""
        return len(self.rows)

    def of(self, kind: str) -> list[Any]:
        """The rows of a kind, in order."""
        return [row for each, _, row in self.rows if each == kind]


class ServerOnBench:
    """An edge server that only remembers what it was sent.

    Attributes:
        accepts: whether sending works; False is a full buffer.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.is_up = True
        self.is_reachable = True
        self.accepts = True
        self.load: list[float] = []
        self.offset = ClockOffset()
        self.sent: list[tuple[float, AnyMessage, bytes | None]] = []

    def send(self, message: AnyMessage, payload: bytes | memoryview | None = None) -> bool:
        """Remember it, and when it came."""
        if self.accepts:
            self.sent.append((self._clock.now_s(), message, None if payload is None else bytes(payload)))
        return self.accepts

    def limits(self) -> tuple[int, int]:
        """The protocol's."""
        return CHUNK_BYTES, WINDOW_CHUNKS

    def payload_of(self, task_id: str) -> bytes:
        """What has come of a payload."""
        return b"".join(
            payload
            for _, message, payload in self.sent
            if isinstance(message, (Offer, Chunk)) and message.task_id == task_id and payload is not None
        )

    def of(self, kind: type[Any]) -> list[Any]:
        """The messages of a kind, in order."""
        return [message for _, message, _ in self.sent if isinstance(message, kind)]


class JobsByHand:
    """An executor whose thread is the test."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.queue: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self.queue.append(job)

    def cancel(self, job: Job) -> bool:
        """Take it back, if it has not begun."""
        if job not in self.queue:
            return False
        self.queue.remove(job)
        return True

    def start(self) -> ClipJob:
        """Take the next job."""
        job = self.queue.popleft()
        assert isinstance(job, ClipJob)
        job.started_s = self._clock.now_s()
        return job

    def finish(self, job: ClipJob, cpu_s: float = 0.0, padding_s: float = 0.0) -> ClipJob:
        """Be done with it now."""
        job.run()
        assert job.result is not None
        assert job.started_s is not None
        job.result.started_s, job.result.finished_s = job.started_s, self._clock.now_s()
        job.result.cpu_s, job.result.padding_s = cpu_s, padding_s
        return job


class CellOnBench:
    """A `CellRun` with everything around it under control.

    Args:
        folder: for the rendered clips.
        cell: the workload should be ``instant``; for the device `DEVICE`.
        settings: fields of `DeviceConfig`.

    Attributes:
        said: what was sent to the controller. is_controller_there: whether sending to it works.
    """

    def __init__(self, folder: Path, cell: CellSpec, **settings: Any) -> None:
        self.clock = ManualClock(1000.0)
        self.cell = cell
        self.rows = KeptRows()
        self.jobs = JobsByHand(self.clock)
        self.servers = [ServerOnBench(self.clock) for _ in cell.servers]
        self.said: list[ControlMessage] = []
        self.is_controller_there = True
        fields: dict[str, Any] = {
            "name": DEVICE,
            "state_dir": str(folder),
            "secret_key_file": "",
            "sysfs_root": str(folder),
            "proc_root": str(folder),
            "controller": PeerAddress("controller", "", ""),
            "servers": [],
            "sample_interval_s": 1e6,
        }
        self.config = DeviceConfig(**(fields | settings))
        self.content = Content(folder)
        workshop = Workshop(DEVICE, frozenset(cell.servers), self.content, 1.0, self._slowed)
        # The bench's clock stands still while the device measures its speed.
        self.prepared = replace(prepare(cell, workshop, lambda: False), seconds_per_frame=SECONDS_PER_FRAME)
        self.run: CellRun

    def _slowed(self, workload: Any, slowdown: float) -> SlowedWorkload:
        return SlowedWorkload(workload, slowdown, self.clock, self.clock.sleep)

    def _say(self, message: ControlMessage) -> bool:
        if self.is_controller_there:
            self.said.append(message)
        return self.is_controller_there

    def begin(
        self,
        start_s: float | None = None,
        run_clock_s: float = 0.0,
        predecessor: Predecessor | None = None,
        *,
        was_down: bool = False,
    ) -> None:
        """Start the cell, now unless said otherwise."""
        now_s = self.clock.now_s()
        around = Surroundings(
            self.config,
            self.clock,
            self.rows,
            self.servers,
            self.jobs,
            Telemetry(self.config, self.clock),
            self._say,
            self.content.read,
        )
        self.run = CellRun(self.prepared, around, now_s if start_s is None else start_s, run_clock_s)
        self.run.begin(now_s, predecessor, was_down=was_down)

    @property
    def cell_s(self) -> float:
        """Seconds since the cell's start."""
        return self.clock.now_s() - self.run.start_s

    def until(self, cell_s: float) -> None:
        """Let time go by, from one thing that is due to the next."""
        end_s = self.run.start_s + cell_s
        while True:
            due_s = self.run.advance(self.clock.now_s())
            if due_s > end_s:
                break
            self.clock.time_s = max(self.clock.time_s, due_s)
        self.clock.time_s = max(self.clock.time_s, end_s)

    def jump(self, cell_s: float) -> None:
        """Let time go by in which the program stands still."""
        self.clock.time_s = self.run.start_s + cell_s

    def execute(self, duration_s: float, cpu_s: float = 0.0, padding_s: float = 0.0) -> None:
        """The executor takes the next job now and is done ``duration_s`` later."""
        job = self.jobs.start()
        self.until(self.cell_s + duration_s)
        self.run.dispatcher.executed(self.jobs.finish(job, cpu_s, padding_s))

    def answer(self, offer: Offer, server: int = 0, **stamps: float) -> None:
        """A server's result for an offer comes now; its clock is the device's unless stamps say otherwise."""
        now_s = self.clock.now_s()
        payload = self.servers[server].payload_of(offer.task_id)
        predicted: list[int] = []
        if len(payload) == offer.payload_bytes:
            predicted = list(self.prepared.slowed.execute(lambda: payload, offer.frames).predicted)
        result = TaskResult(
            offer.task_id,
            predicted,
            offered_s=now_s,
            received_s=stamps.get("received_s", now_s),
            started_s=stamps.get("started_s", now_s),
            finished_s=stamps.get("finished_s", now_s),
            replied_s=now_s,
            cpu_s=0.01,
            energy_j=0.5,
            energy_error_j=0.1,
            energy_source="estimated:cpu-model/server",
        )
        self.run.dispatcher.answered(server, result, now_s)

    def decide(self, observe: Observe, site: Site, edge_fraction: float = 1.0, **changes: Any) -> None:
        """The controller's decision comes now."""
        fields: dict[str, Any] = {
            "serial": observe.serial,
            "epoch": observe.epoch,
            "member": DEVICE,
            "site": int(site),
            "server": 0,
            "channel": 0,
            "edge_fraction": edge_fraction,
            "cpu_fraction": 1.0,
            "power_fraction": 1.0,
            "policy_version": "v1",
            "decided_by": "controller",
            "compute_s": 0.002,
        }
        self.run.decide(Decide(**(fields | changes)), self.clock.now_s())

    @property
    def observed(self) -> list[Observe]:
        """What the controller was shown."""
        return [message for message in self.said if isinstance(message, Observe)]

    def tasks(self) -> list[TaskRecord]:
        """The last row of each task, in the order of arrival."""
        last: dict[str, TaskRecord] = {row.task_id: row for row in self.rows.of("task")}
        return sorted(last.values(), key=lambda row: row.arrived_s)

    def close(self) -> None:
        """Delete the clips."""
        self.content.close()


def cell_with(arrivals_s: Sequence[float], **changes: Any) -> CellSpec:
    """A cell of the instant workload with tasks of two frames at these offsets.

    Args:
        arrivals_s: seconds since the cell's start.
        changes: fields of `CellSpec`.
    """
    fields: dict[str, Any] = {
        "run_id": "run",
        "plan_hash": "",
        "cell_id": "cell",
        "serial": 7,
        "attempt": 1,
        "policy": "label",
        "policy_name": "all_local",
        "placement": "device",
        "seed": 1,
        "workload": "instant",
        "workload_options": {"frame_bytes": 1000, "cycles_per_frame": 1e6},
        "arrivals": {"kind": "trace", "trace": list(arrivals_s), "deadline_s": 0.5, "frames": 2},
        "epoch_s": 1.0,
        "epochs": 10,
        "devices": [DEVICE, "pi-2"],
        "servers": [SERVER],
    }
    return CellSpec(**(fields | changes))
