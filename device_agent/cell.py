"""A cell while it runs on a device: arrivals, ticks, decisions, time-outs, and one row for each planned task.

Driven from outside: `CellRun.advance` is told the time, the rest is told what has come. Nothing in here waits or reads
a clock by itself, except to stamp what takes time (a policy that decides).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from device_agent.content import Clip
from device_agent.deciding import DeviceState, OwnDecider, decision_of, device_values
from device_agent.dispatch import NOT_STARTED, Dispatcher, Jobs, Server
from device_agent.preparing import PreparedCell
from device_agent.records import RowMaker
from device_agent.task import Task, Verdict
from device_agent.telemetry import Telemetry
from device_agent.timers import Timers
from edgebed.clock import Clock
from edgebed.configuration import DeviceConfig
from edgebed.errors import BadInput
from edgebed.protocol.messages import ControlMessage, Decide, Observe
from edgebed.trace.schema import FINAL_ORDER, EventRecord, SampleRecord
from edgebed.types import Observation, Outcome

_log = logging.getLogger(__name__)

ALIVE = "alive"
"""Key of the outbox state that says until when this program ran a cell."""

ALIVE_INTERVAL_S = 0.25

ALIVE_REACH_S = 0.5
"""How long after its last sign of life a program may still have worked: two intervals, so that a slow commit is in."""

AGENT_RESTARTED = "agent_restarted"
DEVICE_DOWN = "device_down"
NOT_RUN = "not_run"


class Rows(Protocol):
    """Where rows go; see `edgebed.trace.outbox.Outbox`."""

    def append(self, kind: str, serial: int, row: msgspec.Struct) -> int:
        """Queue a row."""
        ...

    def set_state(self, key: str, value: Any) -> None:
        """Keep a value for this program's successor."""
        ...

    def terminal_tasks(self, serial: int) -> dict[str, str]:
        """Outcome of every task that was reported in this attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a running cell needs of its device.

    Attributes:
        servers: in the order of the cell's list.
        send: hands a message to the controller; False when it is out of reach.
        read: the payload of some frames of a clip.
    """

    config: DeviceConfig
    clock: Clock
    rows: Rows
    servers: Sequence[Server]
    jobs: Jobs
    telemetry: Telemetry
    send: Callable[[ControlMessage], bool]
    read: Callable[[Clip, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A program of this device that ran the same cell before and is gone.

    Attributes:
        alive_cell_s: its last sign of life, in seconds since the cell's start.
    """

    alive_cell_s: float


class CellRun:
    """One cell from its start to its end.

    Args:
        start_s: the cell's start on the own clock.
        run_clock_s: the run clock at that instant.

    Attributes:
        terminal: planned tasks that have an outcome.
    """

    def __init__(self, prepared: PreparedCell, around: Surroundings, start_s: float, run_clock_s: float) -> None:
        self.cell = prepared.cell
        self.terminal = 0
        self.start_s = start_s
        self._run_clock_s = run_clock_s
        self._prepared = prepared
        self._around = around
        self._device = around.config.name
        self._timers = Timers()
        self._decider = OwnDecider(self.cell, self._device, prepared.policy, prepared.fallback, self._policy_failed)
        self._rows = RowMaker(
            self.cell,
            self._device,
            prepared.cycles_per_frame,
            around.config.link_rate_bps,
            around.config.slowdown > 1.0,
            around.telemetry.energy_rule(),
        )
        self._dispatcher = Dispatcher(
            self.cell,
            around.servers,
            around.jobs,
            around.read,
            prepared.slowed,
            prepared.seconds_per_frame,
            around.config.link_rate_bps,
            self._changed,
        )
        self._tasks = [
            Task(
                planned=planned,
                task_id=task_name(self.cell.cell_id, self._device, planned.index),
                clip=prepared.clips[planned.index],
                arrived_at_s=start_s + planned.offset_s,
            )
            for planned in prepared.planned
        ]
        self._next_task = 0
        self._next_epoch = 0
        self._has_told_end = False
        self._decided_epoch = -1
        self._undecided: dict[int, list[Task]] = {}
        self._early: dict[int, Decide] = {}
        self._samples: list[SampleRecord] = []
        self._meter_problem: str | None = None

    # -- beginning ----------------------------------------------------------------------------------------------------

    @property
    def planned(self) -> int:
        """How many tasks there are."""
        return len(self._tasks)

    @property
    def is_finished(self) -> bool:
        """Has every planned task an outcome?"""
        return self.terminal == len(self._tasks)

    def begin(self, now_s: float, predecessor: Predecessor | None = None, *, was_down: bool = False) -> None:
        """Start, or take up where a predecessor was cut off.

        Args:
            now_s: now, own clock.
            predecessor: the program that ran this cell here before.
            was_down: tasks that are due already were due while no program ran here.
        """
        if predecessor is not None or was_down:
            self._take_up(now_s, predecessor)
        self._tell_alive(now_s)
        self._timers.at(max(now_s, self.start_s), self._sample)
        if self.cell.decide_at == "arrival":
            self._await_arrival()
        self._await_tick()

    def _take_up(self, now_s: float, predecessor: Predecessor | None) -> None:
        now_cell_s = now_s - self.start_s
        certain_s = -math.inf if predecessor is None else predecessor.alive_cell_s + ALIVE_REACH_S
        known = self._around.rows.terminal_tasks(self.cell.serial)
        for task in self._tasks:
            if task.task_id in known:
                task.outcome = Outcome(known[task.task_id])
                self.terminal += 1
            elif task.planned.offset_s > now_cell_s:
                continue
            elif task.planned.offset_s <= certain_s:
                self._end(task, Outcome.UNKNOWN, AGENT_RESTARTED)
            else:
                self._end(task, Outcome.FAILED, DEVICE_DOWN)
        self._next_epoch = max(0, math.floor(now_cell_s / self.cell.epoch_s))
        alive_s = None if predecessor is None else predecessor.alive_cell_s
        self.event("restarted", now_s, alive_cell_s=alive_s, cell_s=now_cell_s)

    def _tell_alive(self, now_s: float) -> None:
        self._write_samples()
        self._around.rows.set_state(ALIVE, {"serial": self.cell.serial, "cell_time_s": now_s - self.start_s})
        self._timers.at(now_s + ALIVE_INTERVAL_S, self._tell_alive)

    def _sample(self, now_s: float) -> None:
        self._samples.append(self._around.telemetry.sample(self._run_s(self._around.clock.now_s())))
        problem = self._around.telemetry.meter_problem
        if problem != self._meter_problem:
            self._meter_problem = problem
            self.event("meter_lost" if problem else "meter_back", now_s, problem=problem)
        for found in self._around.telemetry.take_disagreements():
            self.event("meters_disagree", now_s, **found.detail)
        self._timers.at(now_s + self._around.config.sample_interval_s, self._sample)

    def _write_samples(self) -> None:
        """A few at a time, with the sign of life: a commit for each would cost more than taking it."""
        for row in self._samples:
            self._around.rows.append("sample", self.cell.serial, row)
        self._samples.clear()

    def _run_s(self, instant_s: float) -> float:
        """An instant of the own clock on the run clock."""
        return self._run_clock_s + (instant_s - self.start_s)

    # -- time ---------------------------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> float:
        """Do what is due; when there is something to do next."""
        self._timers.run(now_s)
        if self.is_finished and not self._has_told_end and self._next_epoch >= self.cell.epochs:
            self._tell_end(now_s)  # before its status: once every device is finished the cell is stopped
        # Deciding took time: an upload cannot have begun before its decision.
        return min(self._dispatcher.advance(self._around.clock.now_s()), self._timers.due_s)

    def _await_tick(self) -> None:
        if self._next_epoch < self.cell.epochs:
            self._timers.at(self._tick_s(self._next_epoch), self._tick)
        else:
            self._timers.at(self._tick_s(self.cell.epochs), self._tell_end)

    def _tick_s(self, epoch: int) -> float:
        """When an epoch closes and its tasks are decided, on the own clock."""
        return self.start_s + (epoch + 1) * self.cell.epoch_s

    def _tick(self, now_s: float) -> None:
        epoch = self._next_epoch
        self._next_epoch += 1
        if self.cell.decide_at == "tick":
            waiting = self._take(lambda task: task.planned.epoch <= epoch)
            if self.cell.placement == "device":
                self._decide_here(epoch, waiting)
            else:
                self._ask(epoch, waiting, now_s)
        self._await_tick()

    def _await_arrival(self) -> None:
        if self._next_task < len(self._tasks):
            self._timers.at(self._tasks[self._next_task].arrived_at_s, self._arrive)

    def _arrive(self, now_s: float) -> None:
        for task in self._take(lambda task: task.arrived_at_s <= now_s):
            self._decide_here(task.planned.epoch, [task])
        self._await_arrival()

    def _take(self, belongs: Callable[[Task], bool]) -> list[Task]:
        """The next tasks, as far as they belong; those that were given up already are left out."""
        taken = []
        while self._next_task < len(self._tasks) and belongs(self._tasks[self._next_task]):
            task = self._tasks[self._next_task]
            self._next_task += 1
            if task.is_waiting:
                taken.append(task)
        return taken

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _ask(self, epoch: int, waiting: list[Task], now_s: float) -> None:
        """Ask the controller; a tick that was missed for too long is not asked about."""
        late_s = self._tick_s(epoch) + self.cell.timeouts.decision_s
        self._undecided[epoch] = waiting
        early = self._early.pop(epoch, None)
        if early is not None:
            self.decide(early, now_s)
            return
        if now_s < late_s and self._around.send(self._report(epoch, waiting, now_s)):
            self._timers.at(late_s, partial(self._fall_back, epoch))
        else:
            self._fall_back(epoch, now_s)

    def _tell_end(self, now_s: float) -> None:
        """How things stand after the last decision: at the tick that follows, or sooner when all is done."""
        self._has_told_end = True
        if self.cell.placement != "device":
            self._around.send(self._report(self.cell.epochs, [], now_s))

    def _report(self, epoch: int, waiting: Sequence[Task], now_s: float) -> Observe:
        servers_up = [server.is_reachable for server in self._around.servers]
        return Observe(self.cell.serial, epoch, self._device, self._values(waiting, now_s), servers_up)

    def decide(self, message: Decide, now_s: float) -> None:
        """The controller has decided; too late if the fallback policy has been asked already."""
        if message.serial != self.cell.serial or message.member != self._device:
            return
        if message.epoch >= self._next_epoch:
            self._early[message.epoch] = message
            return
        if message.epoch not in self._undecided:
            return
        try:
            decision, by = decision_of(message, self.cell)
        except BadInput as error:
            self.event("bad_decision", now_s, epoch=message.epoch, problem=str(error))
            self._fall_back(message.epoch, now_s)
            return
        waiting = self._undecided.pop(message.epoch)
        verdict = Verdict(decision, message.epoch, now_s, message.policy_version, by, message.compute_s)
        self._carry_out(waiting, verdict)

    def _fall_back(self, epoch: int, now_s: float) -> None:
        """Nobody has decided in time. When no task waits, nobody has lost anything."""
        waiting = [task for task in self._undecided.pop(epoch, []) if task.is_waiting]
        if waiting:
            self._decide_here(epoch, waiting, is_late=True)

    def _decide_here(self, epoch: int, waiting: list[Task], *, is_late: bool = False) -> None:
        observation = self._observe(epoch, waiting)
        chosen = self._decider.choose(observation, may_ask_policy=not is_late)
        decided_s = self._around.clock.now_s()
        self._decided_epoch = max(self._decided_epoch, epoch)
        self._around.rows.append("epoch", self.cell.serial, self._decider.row(observation, chosen))
        verdict = Verdict(chosen.decision, epoch, decided_s, chosen.version, chosen.by, chosen.compute_s, is_late)
        self._carry_out(waiting, verdict)

    def _policy_failed(self, epoch: int, error: Exception) -> None:
        self.event("policy_failed", self._around.clock.now_s(), epoch=epoch, problem=repr(error))

    def _carry_out(self, waiting: list[Task], verdict: Verdict) -> None:
        now_s = verdict.decided_s
        for task in waiting:
            task.verdict = verdict
            limit_s = task.arrived_at_s + self.cell.timeouts.task_s
            if now_s >= limit_s:
                self._end(task, Outcome.FAILED, NOT_STARTED)
                continue
            self._dispatcher.dispatch(task, now_s)
            self._timers.at(limit_s, partial(self._time_out, task))

    def _time_out(self, task: Task, now_s: float) -> None:
        if task.outcome is None:
            self._dispatcher.time_out(task, now_s)

    # -- observing ----------------------------------------------------------------------------------------------------

    def _values(self, waiting: Sequence[Task], now_s: float) -> list[float]:
        around, dispatcher = self._around, self._dispatcher
        trips_s = [server.offset.round_trip_s for server in around.servers if server.is_reachable]
        state = DeviceState(
            queue_delay_s=dispatcher.queue_delay_s(now_s),
            speed_hz=self._prepared.cycles_per_frame / dispatcher.seconds_per_frame,
            uplink_queue_bytes=dispatcher.uplink_queue_bytes,
            link_rate_bps=around.config.link_rate_bps or dispatcher.measured_bps,
            round_trip_s=min((trip_s for trip_s in trips_s if trip_s is not None), default=0.0),
            cpu=around.telemetry.cpu,
            battery=around.telemetry.charge_left,
            position_m=around.config.position_m,
        )
        return device_values(waiting, state, self._prepared.cycles_per_frame, now_s)

    def _observe(self, epoch: int, waiting: Sequence[Task]) -> Observation:
        servers = self._around.servers
        return self._decider.observe(
            self._values(waiting, self._around.clock.now_s()),
            [server.load for server in servers],
            [server.is_reachable for server in servers],
            epoch,
        )

    # -- what comes back ----------------------------------------------------------------------------------------------

    @property
    def dispatcher(self) -> Dispatcher:
        """What results, refusals and lost servers are told to."""
        return self._dispatcher

    def server_lost(self, server: int, reason: str, now_s: float) -> None:
        """An edge server is gone."""
        self.event("server_lost", now_s, server=self.cell.servers[server], reason=reason)
        self._dispatcher.server_lost(server, now_s)

    def server_back(self, server: int, restarted: bool, now_s: float) -> None:
        """An edge server has welcomed us."""
        self.event("server_up", now_s, server=self.cell.servers[server], restarted=restarted)
        self._dispatcher.server_back(server, restarted, now_s)

    def _changed(self, task: Task, now_s: float) -> None:
        judged = task.judge()
        if judged is not None and _is_news(judged[0], task.outcome):
            self._end(task, *judged)

    def _end(self, task: Task, outcome: Outcome, reason: str) -> None:
        """Report an outcome, or a better one than before."""
        if task.outcome is None:
            self.terminal += 1
        task.outcome, task.reason = outcome, reason
        row = self._rows.task_row(task, outcome, reason, self._run_clock_s)
        self._around.rows.append("task", self.cell.serial, row)

    # -- ending -------------------------------------------------------------------------------------------------------

    def stop(self, now_s: float, reason: str, *, is_leaving: bool = False) -> None:
        """Give every task that is still open its outcome.

        Args:
            now_s: now, own clock.
            reason: of tasks that have arrived; the others were not run.
            is_leaving: this program ends, the cell does not: tasks that have not arrived are left to a successor.
        """
        for task in self._tasks:
            if task.outcome is not None:
                continue
            if task.parts:
                self._dispatcher.stop(task, reason, now_s)
            elif task.arrived_at_s <= now_s:
                self._end(task, Outcome.FAILED, reason)
            elif not is_leaving:
                self._end(task, Outcome.FAILED, NOT_RUN)
        if self.cell.placement == "device" and not is_leaving:
            last = self._observe(self._decided_epoch + 1, [])
            self._around.rows.append("epoch", self.cell.serial, self._decider.row(last, None))
        self._write_samples()
        self._timers.clear()

    def event(self, kind: str, now_s: float, **detail: Any) -> None:
        """Note something that happened."""
        _log.info("%s %s", kind, detail)
        row = EventRecord(t_s=self._run_s(now_s), host=self._device, kind=kind, detail=json.dumps(detail))
        self._around.rows.append("event", self.cell.serial, row)


def task_name(cell_id: str, device: str, index: int) -> str:
    """The name of a device's ``index``-th task, unique in the run; the plan makes the same one."""
    return f"{cell_id}/{device}/{index}"


def _is_news(outcome: Outcome, before: Outcome | None) -> bool:
    return before is None or FINAL_ORDER[outcome.value] > FINAL_ORDER[before.value]
