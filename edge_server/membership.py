"""The server as a member of a run: what the controller tells it, and what it tells the controller."""

from __future__ import annotations

import logging
import os
import platform
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_server.admission import Admission, HeldTask, ServedCell
from edge_server.channels import ChannelArbiter
from edge_server.intake import Intake
from edge_server.shaping import Shaping, shaping_of
from edge_server.telemetry import RunClock, Telemetry
from edge_server.workers import Prepared, WorkerPool
from edgebed.clock import Clock
from edgebed.configuration import ServerConfig
from edgebed.errors import BadInput, EdgebedError
from edgebed.protocol.cells import CellSpec, cell_from_plain
from edgebed.protocol.link import Link
from edgebed.protocol.messages import (
    CHUNK_BYTES,
    Acknowledge,
    ControlMessage,
    Error,
    Load,
    Prepare,
    Ready,
    Records,
    Start,
    Status,
    Stop,
)
from edgebed.trace.outbox import Outbox
from edgebed.trace.reporting import Reporter
from workloads.files import CONTENT_FOLDER, load_placed

_log = logging.getLogger("edge_server")

LOAD_INTERVAL_S = 0.1
STATUS_INTERVAL_S = 0.5
"""How often the controller hears the features and the state, while there is something to hear."""

PACKAGES = ("edgebed", "msgspec", "numpy", "onnxruntime", "pillow", "pyzmq")


class Membership:
    """Follows the controller through cells: idle -> preparing -> ready -> running -> idle, or failed.

    Args:
        finished, prepared, wake: what new pools of workers are given.
    """

    def __init__(
        self,
        config: ServerConfig,
        clock: Clock,
        link: Link[ControlMessage] | None,
        outbox: Outbox,
        intake: Intake,
        admission: Admission,
        telemetry: Telemetry,
        *,
        finished: deque[HeldTask],
        prepared: deque[Prepared],
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._link = link
        self._outbox = outbox
        self._intake = intake
        self._admission = admission
        self._telemetry = telemetry
        self._handover = (finished, prepared, wake)
        self._reporter = Reporter(outbox, config.name, self._send_records)
        self._state = "idle"
        self._cell: CellSpec | None = None
        self._shaping: Shaping | None = None
        self._ready: Ready | None = None
        self._pool: WorkerPool | None = None
        self._pool_key: tuple[str, dict[str, Any]] | None = None
        self._pool_ready: Prepared | None = None
        self._last_serial = 0
        self._draining = False
        self._busy_until_s = 0.0
        self._heard_s = self._load_due_s = self._status_due_s = clock.now_s()
        if link is not None:
            link.on_up = self._on_up
        kind = "started" if outbox.predecessor_alive_s is None else "restarted"
        telemetry.event(kind, {"pid": os.getpid()})

    def introduction(self) -> tuple[str, int]:
        """What Welcome and Hello say: the plan, and the cell."""
        return self._config.plan_hash, self._cell.serial if self._cell else 0

    @property
    def orphaned(self) -> bool:
        """Has nobody wanted anything for so long that this server may end?"""
        now_s = self._clock.now_s()
        return now_s > self._busy_until_s and now_s - self._heard_s > self._config.orphan_after_s

    def load_values(self) -> list[float]:
        """The features of this server and its channels; nothing while there is no cell."""
        if self._cell is None:
            return []
        settings, arbiter, service = self._cell.channels, self._intake.arbiter, self._intake.service
        cycles = self._pool_ready.cycles_per_frame if self._pool_ready else 0.0
        values = [
            float(len(self._admission)),
            service.delay_s(self._admission, self._config.workers, self._clock.now_s()),
            float(self._config.workers),
            cycles / service.per_frame_s if service.per_frame_s else 0.0,
            self._telemetry.cpu,
            float(self._admission.uploading_bytes),
        ]
        uploads = [0] * settings.count if arbiter is None else [arbiter.uploads(each) for each in range(settings.count)]
        rate_bps = 0.0 if self._shaping is None else self._shaping.alone_bps
        for count in uploads:
            values += [rate_bps, float(count)]
        return values

    # -- time ---------------------------------------------------------------------------------------------------------

    def turn(self, now_s: float) -> None:
        """Hear the controller, and tell it what is due."""
        if self._link is not None:
            for message, _ in self._link.receive():
                self._heard_s = now_s
                self._hear(message)
            self._link.tick(now_s)
        self._tell_ready_when_due()
        self._telemetry.turn(now_s)
        if self._link is None or not self._link.is_up:
            return
        if self._state == "running" and now_s >= self._load_due_s:
            self._load_due_s = now_s + LOAD_INTERVAL_S
            self._link.send(Load(self._serial, self._config.name, self.load_values()))
        unsent = self._outbox.unacknowledged()
        if unsent:
            self._reporter.report(now_s)
        # Whoever has stopped the cell waits for the last row: that it is gone is said at once.
        has_drained = self._draining and not unsent
        if has_drained or (now_s >= self._status_due_s and (self._state != "idle" or self._draining)):
            self._tell_status(now_s)

    def _tell_status(self, now_s: float) -> None:
        self._status_due_s = now_s + STATUS_INTERVAL_S
        unsent = self._outbox.unacknowledged()
        if self._link is not None and self._link.is_up:
            self._link.send(Status(self._serial, self._config.name, self._state, unsent=unsent))
        if self._state == "idle" and unsent == 0:
            self._draining = False

    def _send_records(self, message: Records, payload: bytes) -> bool:
        return self._link is not None and self._link.send(message, payload)

    def close(self) -> None:
        """Leave the run; rows that nobody has acknowledged stay in the outbox."""
        self._telemetry.event("stopped", {})
        self._outbox.flush(2.0)
        if self._link is not None:
            self._reporter.report(self._clock.now_s())
            self._link.close("the edge server stops")
        if self._pool is not None:
            self._pool.close()

    # -- the life of a cell -------------------------------------------------------------------------------------------

    @property
    def _serial(self) -> int:
        return self._cell.serial if self._cell else self._last_serial

    def _on_up(self, restarted: bool) -> None:
        self._reporter.restart()
        self._status_due_s = self._clock.now_s()

    def _hear(self, message: ControlMessage) -> None:
        if isinstance(message, Prepare):
            self._on_prepare(message)
        elif isinstance(message, Start):
            self._on_start(message)
        elif isinstance(message, Stop):
            self._on_stop(message)
        elif isinstance(message, Acknowledge):
            if message.member == self._config.name:
                self._reporter.acknowledge(message.last, self._clock.now_s())
        elif isinstance(message, Error):
            _log.warning("the controller answered %s: %s", message.code, message.detail)

    def _on_prepare(self, message: Prepare) -> None:
        if self._cell is not None and self._cell.serial == message.serial:
            if self._ready is not None and self._link is not None:
                self._link.send(self._ready)
            return
        try:
            cell = cell_from_plain(message.cell)
            self._check(cell, message.serial)
            shaping = shaping_of(cell, self._config.name)
        except EdgebedError as error:
            self._cell, self._last_serial = None, message.serial
            self._intake.serve(ServedCell(), None, None)
            self._fail(message.serial, str(error))
            return
        self._cell, self._ready, self._last_serial = cell, None, cell.serial
        self._shaping = shaping
        self._busy_until_s = self._clock.now_s() + cell.timeouts.prepare_s
        pool = self._pool_for(cell)
        count = cell.channels.count
        arbiter = None if shaping is None else ChannelArbiter[HeldTask](count, shaping.rule, CHUNK_BYTES)
        self._intake.serve(ServedCell(cell.serial, False, count, shaping is not None), pool, arbiter)
        self._enter("preparing")

    def _check(self, cell: CellSpec, serial: int) -> None:
        if cell.serial != serial:
            raise BadInput(f"the cell is {cell.serial} inside and {serial} outside")
        if self._config.name not in cell.servers:
            raise BadInput(f"{self._config.name} is none of the cell's servers: {', '.join(cell.servers)}")
        if self._config.plan_hash and cell.plan_hash != self._config.plan_hash:
            raise BadInput(f"this server runs plan {self._config.plan_hash}, not {cell.plan_hash}; deploy again")

    def _pool_for(self, cell: CellSpec) -> WorkerPool:
        key = (cell.workload, cell.workload_options)
        if self._pool is not None and self._pool_key == key:
            return self._pool
        if self._pool is not None:
            self._pool.close()
        self._pool_key, self._pool_ready = key, None
        finished, prepared, wake = self._handover
        self._pool = WorkerPool(
            partial(load_placed, *key, Path(self._config.state_dir) / CONTENT_FOLDER),
            self._config.workers,
            self._config.slowdown,
            self._clock,
            finished,
            prepared,
            wake,
        )
        return self._pool

    def prepared(self, news: Prepared) -> None:
        """A pool has loaded its workload, or cannot."""
        if news.pool is not self._pool:
            return
        # There may be no cell just now: the news is as good for the next one, which asks for the same pool.
        if news.problem:
            news.pool.close()
            self._pool = self._pool_key = None
            if self._cell is not None:
                self._fail(self._cell.serial, f"workload {self._cell.workload}: {news.problem}")
            return
        self._pool_ready = news
        self._intake.service.per_frame_s = news.service_s_per_frame

    def _tell_ready_when_due(self) -> None:
        """Ready means that tasks are taken, and that the controller's clock is known."""
        news = self._pool_ready
        # Not a question of the state: a server that comes back into a running cell hears Start before it has loaded.
        if self._cell is None or self._ready is not None or news is None:
            return
        if self._link is None or self._link.offset.offset_s is None:
            return
        self._admission.cell.ready = True
        self._ready = Ready(self._serial, self._config.name, True, facts=self._facts(news))
        if self._state == "preparing":
            self._enter("ready")
        self._link.send(self._ready)

    def _fail(self, serial: int, problem: str) -> None:
        self._telemetry.event("prepare_failed", {"serial": serial, "problem": problem})
        self._ready = Ready(serial, self._config.name, False, problem[:4000])
        self._enter("failed")
        if self._link is not None:
            self._link.send(self._ready)

    def _facts(self, news: Prepared) -> dict[str, Any]:
        assert self._link is not None
        offset = self._link.offset
        return host_facts() | {
            "workers": self._config.workers,
            "slowdown": self._config.slowdown,
            "service_s_per_frame": news.service_s_per_frame,
            "cycles_per_frame": news.cycles_per_frame,
            "clock_offset_s": offset.offset_s,
            "clock_error_s": offset.error_s,
        }

    def _on_start(self, message: Start) -> None:
        if self._cell is None or self._cell.serial != message.serial or self._link is None:
            return
        now_s = self._clock.now_s()
        self._busy_until_s = now_s + self._cell.horizon_s + 2 * self._cell.timeouts.task_s
        self._telemetry.start(RunClock(message.serial, message.start_s, message.run_clock_s, self._link.offset))
        self._enter("running")

    def _on_stop(self, message: Stop) -> None:
        if message.serial != self._serial:
            return
        self._telemetry.stop()
        self._intake.serve(ServedCell(), self._pool, None)
        self._cell = self._ready = None
        self._busy_until_s = 0.0
        self._draining = True
        self._enter("idle")

    def _enter(self, state: str) -> None:
        if state != self._state:
            _log.info("cell %d: %s", self._serial, state)
        self._state = state
        self._tell_status(self._clock.now_s())


def host_facts() -> dict[str, Any]:
    """What a manifest should know about this host and its software."""
    return {
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
