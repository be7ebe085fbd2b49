"""For a program of yours that decides: the questions of a run, and your answers, over the controller's socket.

::

    with decider_of(Path("runs/mine/latest")) as decider:
        for question in decider:
            if not question.is_last:
                decider.answer(question, Decision.local(len(question.spec.slots)))

It runs beside `edgebed run`, as the same user on the same machine: the key that lets it in lies there and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import zmq

from edgebed.clock import Clock, MonotonicClock
from edgebed.configuration import Liveness
from edgebed.errors import BadInput, Problem
from edgebed.protocol.cells import CellSpec, cell_from_plain
from edgebed.protocol.joint import decision_message, observation_from
from edgebed.protocol.messages import Error, JointObserve, Prepare, Role
from edgebed.trace.manifest import read_manifest
from edgebed.types import Decision, Observation, ObservationSpec
from orchestrator.backends.control import ControlLink
from orchestrator.door import Door, find_door
from orchestrator.plan_file import Plan

_log = logging.getLogger(__name__)

WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Question:
    """What is known of a running cell at a tick, and wants a decision within its ``timeouts.decision_s``.

    In virtual time, which stands still meanwhile, within ``timeouts.prepare_s``.

    Attributes:
        cell: the cell: policy and its options, seed, reward, names of devices and servers.
        spec: names and units of what is observed, and the bounds of a decision.
        is_last: how things stand after the cell's last decision; there is nothing to be decided.
    """

    cell: CellSpec
    spec: ObservationSpec
    observation: Observation
    is_last: bool


class Decider:
    """Yields the questions of every cell with ``placement: external``, until the run has ended.

    A controller that is restarted is found again.

    Args:
        run: the run's folder; ``latest`` is followed once.
    """

    def __init__(self, run: Path, clock: Clock | None = None) -> None:
        self._run = run.resolve()
        self._clock = clock or MonotonicClock()
        self._plan = Plan.from_yaml(self._run / "plan.yaml")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._door: Door | None = None
        self._link: ControlLink | None = None
        self._cell: tuple[CellSpec, ObservationSpec] | None = None

    def __iter__(self) -> Iterator[Question]:
        while True:
            if self._link is None or not self._link.is_up:
                if not is_running(self._run):
                    return
                self._knock()
            self._poller.poll(int(1000 * WAIT_S))
            if self._link is not None:
                yield from self._heard(self._link)

    def answer(self, question: Question, decision: Decision, policy_version: str = "external") -> bool:
        """Answer a question. One that comes too late is logged by the controller and the fallback policy decides.

        Args:
            question: one with something to decide.
            decision: for every slot; what is said for those that are absent is of no matter.
            policy_version: what the trace will call the weights or rules that decided.

        Returns:
            False when the controller is out of reach.

        Raises:
            BadInput, SchemaMismatch: the decision does not fit the question; nothing was sent.
        """
        if question.is_last:
            raise BadInput(f"cell {question.cell.cell_id} is at its end: there is nothing left to decide")
        decision.check(question.spec)
        epoch, serial = question.observation.epoch, question.cell.serial
        return self._link is not None and self._link.send(decision_message(decision, serial, epoch, policy_version))

    def _knock(self) -> None:
        """Connect, also anew when a resumed run has other keys; while there is no door, this is tried again."""
        door = find_door(self._run, self._plan)
        if door is None or door == self._door:
            return
        self._hang_up()
        plan_hash = self._plan.plan_hash
        self._door = door
        self._link = ControlLink(
            self._context, door.address, door.keys, door.name, Role.EXTERNAL, plan_hash, self._clock, Liveness()
        )
        self._link.register(self._poller)

    def _heard(self, link: ControlLink) -> Iterator[Question]:
        for message, _ in link.receive():
            if isinstance(message, Prepare):
                cell = cell_from_plain(message.cell)
                self._cell = cell, ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)
            elif isinstance(message, JointObserve) and self._cell and self._cell[0].serial == message.serial:
                cell, spec = self._cell
                yield Question(cell, spec, observation_from(message, spec), message.is_last)
                link.was_away()  # while the caller decided
            elif isinstance(message, Error):
                _log.warning("the controller says: %s: %s", message.code, message.detail)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._poller = zmq.Poller()

    def close(self) -> None:
        """Leave; what is still to be decided is left to the fallback policy."""
        self._hang_up()
        self._context.destroy(linger=0)

    def __enter__(self) -> Decider:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def decider_of(run: Path, patience_s: float = 60.0) -> Decider:
    """What decides for a run that is going on, or begins soon.

    Args:
        run: its folder, or a link to it such as ``runs/<experiment>/latest``.
        patience_s: how long to wait for a run there.

    Raises:
        BadInput: nothing runs there.
    """
    clock = MonotonicClock()
    give_up_s = clock.now_s() + patience_s
    while not is_running(run):
        if clock.now_s() > give_up_s:
            text = f"no run was going on here for {patience_s:g} s; start `edgebed run`"
            raise BadInput(Problem(text, file=str(run)))
        time.sleep(WAIT_S)
    return Decider(run, clock)


def is_running(run: Path) -> bool:
    """Does a run's manifest say that it is going on?"""
    try:
        return read_manifest(run).state == "running"
    except BadInput:
        return False
