"""The device as a member of a cell: idle, preparing, ready, running, finished, and idle again.

Driven by what the controller says and by the clock; the sockets are `device_agent.agent`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from device_agent.cell import CellRun, Predecessor, Rows, Surroundings
from device_agent.content import Clip
from device_agent.dispatch import Jobs, Server
from device_agent.preparing import Preparation, PreparedCell, Workshop
from device_agent.telemetry import Telemetry
from edgebed.clock import Clock
from edgebed.configuration import DeviceConfig
from edgebed.errors import ProtocolError
from edgebed.protocol.cells import cell_from_plain
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import ControlMessage, Decide, Prepare, Ready, Start, Status, Stop

_log = logging.getLogger(__name__)

STATUS_INTERVAL_S = 0.5

_OFFSET_RETRY_S = 0.02


class ReportedRows(Rows, Protocol):
    """Rows that know how many of them nobody has acknowledged."""

    def unacknowledged(self) -> int:
        """Rows that nobody has acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """What a member has to work with.

    Attributes:
        servers: every edge server of the settings, by name.
        controller_offset: controller's clock - own clock.
        send: hands a message to the controller; False when it is out of reach.
        alive: the last sign of life of the program that was here before; None when there was none.
        damaged_outbox: where an unreadable outbox was moved to when this program started; empty when it was readable.
    """

    config: DeviceConfig
    clock: Clock
    rows: ReportedRows
    servers: Mapping[str, Server]
    jobs: Jobs
    telemetry: Telemetry
    workshop: Workshop
    controller_offset: Callable[[], ClockOffset]
    send: Callable[[ControlMessage], bool]
    read: Callable[[Clip, int, int], bytes]
    alive: Mapping[str, Any] | None = None
    damaged_outbox: str = ""


class Member:
    """What a device does about the cells that it is told of."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.serial = 0
        self.plan_hash = ""
        self.run: CellRun | None = None
        self._preparation: Preparation | None = None
        self._prepared: PreparedCell | None = None
        self._problem = ""
        self._start: Start | None = None
        self._was_late = False
        self._said: tuple[str, int] = ("", -1)
        self._said_unsent = 0
        self._status_s = 0.0
        self._idle_look_s = 0.0

    @property
    def state(self) -> str:
        """As `Status` has it."""
        if self.run is not None:
            return "finished" if self.run.is_finished else "running"
        if self._prepared is not None:
            return "ready"
        if self._problem:
            return "failed"
        return "preparing" if self._preparation is not None else "idle"

    # -- what the controller says -------------------------------------------------------------------------------------

    def handle(self, message: ControlMessage, now_s: float) -> None:
        """Deal with a message; those of other cells than the current one are stragglers."""
        if isinstance(message, Prepare):
            self._on_prepare(message, now_s)
        elif isinstance(message, Start) and message.serial == self.serial:
            self._on_start(message, now_s)
        elif isinstance(message, Stop) and message.serial == self.serial:
            self._drop(now_s, "stopped")
        elif isinstance(message, Decide) and self.run is not None:
            self.run.decide(message, now_s)

    def _on_prepare(self, message: Prepare, now_s: float) -> None:
        if message.serial == self.serial and self.state != "idle":
            self._say_ready()
            return
        self._drop(now_s, "replaced")
        self.serial = message.serial
        try:
            cell = cell_from_plain(message.cell)
        except ProtocolError as error:
            self._problem = str(error)
            self._say_ready()
            return
        self.plan_hash = cell.plan_hash
        self._preparation = Preparation(cell, self._device.workshop)
        self._device.jobs.submit(self._preparation)

    def _on_start(self, message: Start, now_s: float) -> None:
        if self.run is not None or self._start is not None:
            return
        self._start = message
        self._was_late = self._prepared is None
        self._begin_when_possible(now_s)

    def prepared(self, preparation: Preparation, now_s: float) -> None:
        """The executor is done with a preparation; one that was cancelled is nobody's."""
        if preparation is not self._preparation or preparation.cancelled:
            return
        self._preparation = None
        self._prepared, self._problem = preparation.prepared, preparation.problem
        if self._prepared is not None:
            self._device.telemetry.begin_idle()
        self._say_ready()
        self._begin_when_possible(now_s)

    def _say_ready(self) -> None:
        """Answer a Prepare; while it is still being worked on, the answer comes later."""
        name = self._device.config.name
        if self._problem:
            self._device.send(Ready(self.serial, name, False, self._problem[:4000]))
        elif self._prepared is not None:
            facts = {**self._prepared.facts, **self._own_facts()}
            self._device.send(Ready(self.serial, name, True, "", facts))

    def _own_facts(self) -> dict[str, Any]:
        device = self._device
        peers: list[tuple[str, ClockOffset]] = [(device.config.controller.name, device.controller_offset())]
        peers += [(name, server.offset) for name, server in device.servers.items()]
        return {
            "clock_offsets_s": {
                name: [offset.offset_s, offset.error_s] for name, offset in peers if offset.offset_s is not None
            },
            "link_rate_bps": device.config.link_rate_bps,
            "board": device.config.board.get("name"),
            "meter": device.telemetry.meter_source,
        }

    # -- running ------------------------------------------------------------------------------------------------------

    def _begin_when_possible(self, now_s: float) -> None:
        """Start once the cell is prepared and the controller's clock is known."""
        start, prepared, device = self._start, self._prepared, self._device
        offset = device.controller_offset()
        if start is None or prepared is None or self.run is not None or offset.offset_s is None:
            return
        start_s = offset.to_own(start.start_s)
        predecessor = self._predecessor()
        self.run = CellRun(prepared, self._surroundings(prepared), start_s, start.run_clock_s)
        self.run.begin(now_s, predecessor, was_down=self._was_late and start_s < now_s)
        if device.damaged_outbox:
            self.run.event("outbox_damaged", now_s, moved_to=device.damaged_outbox)

    def _surroundings(self, prepared: PreparedCell) -> Surroundings:
        device = self._device
        servers: Sequence[Server] = [device.servers[name] for name in prepared.cell.servers]
        return Surroundings(
            device.config,
            device.clock,
            device.rows,
            servers,
            device.jobs,
            device.telemetry,
            device.send,
            device.read,
        )

    def _predecessor(self) -> Predecessor | None:
        alive = self._device.alive
        if alive is None or alive.get("serial") != self.serial:
            return None
        return Predecessor(float(alive["cell_time_s"]))

    def _drop(self, now_s: float, reason: str, *, is_leaving: bool = False) -> None:
        """Forget the current cell; what of it is open gets its outcome."""
        if self._preparation is not None:
            self._preparation.cancelled = True
            self._device.jobs.cancel(self._preparation)
        if self.run is not None:
            self.run.stop(now_s, reason, is_leaving=is_leaving)
        self.run = self._preparation = self._prepared = self._start = None
        self._problem = ""

    def leave(self, now_s: float) -> None:
        """This program ends; what of the cell is open gets its outcome, except what has not arrived yet."""
        self._drop(now_s, "agent_stopped", is_leaving=True)

    # -- edge servers -------------------------------------------------------------------------------------------------

    def server_index(self, name: str) -> int | None:
        """The place of a server in the running cell; None when there is no cell, or it is not in it."""
        if self.run is None or name not in self.run.cell.servers:
            return None
        return self.run.cell.servers.index(name)

    def server_lost(self, name: str, reason: str) -> None:
        """An edge server is gone."""
        index = self.server_index(name)
        if self.run is not None and index is not None:
            self.run.server_lost(index, reason, self._device.clock.now_s())

    def server_back(self, name: str, restarted: bool) -> None:
        """An edge server has welcomed us."""
        index = self.server_index(name)
        if self.run is not None and index is not None:
            self.run.server_back(index, restarted, self._device.clock.now_s())

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> float:
        """Do what is due; when there is something to do next."""
        due_s = now_s + STATUS_INTERVAL_S
        if self._start is not None and self.run is None:
            self._begin_when_possible(now_s)
            due_s = now_s + _OFFSET_RETRY_S
        if self.state == "ready" and self._device.telemetry.has_sensor:
            due_s = min(due_s, self._watch_idle(now_s))
        if self.run is not None:
            due_s = min(due_s, self.run.advance(now_s))
        if (self.state, self.serial) != self._said or now_s >= self._status_s or self._has_drained():
            self.say_status(now_s)
        return min(due_s, self._status_s)

    def _watch_idle(self, now_s: float) -> float:
        if now_s >= self._idle_look_s:
            self._device.telemetry.watch_idle()
            self._idle_look_s = now_s + self._device.config.sample_interval_s
        return self._idle_look_s

    def _has_drained(self) -> bool:
        """Was the last row of a stopped cell acknowledged since the controller was last told? It waits for that."""
        return self._said_unsent > 0 and self.state == "idle" and not self._device.rows.unacknowledged()

    def say_status(self, now_s: float) -> None:
        """Tell where this device stands."""
        self._said = self.state, self.serial
        self._status_s = now_s + STATUS_INTERVAL_S
        planned, terminal = (self.run.planned, self.run.terminal) if self.run is not None else (0, 0)
        self._said_unsent = unsent = self._device.rows.unacknowledged()
        name = self._device.config.name
        self._device.send(Status(self.serial, name, self.state, planned, terminal, unsent, self._problem[:4000]))
