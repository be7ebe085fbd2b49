"""The controller's event loop: one thread, one ROUTER socket on which devices, servers, deciders and orchestrator meet.

It keeps nothing that cannot be told to it again: when it dies, devices fall back, and its successor is told the cell by
the orchestrator. Who sends what when: ``docs/protocol.md``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from edge_server.controller.asking import Asking, external_of, none_open, unattended
from edge_server.controller.cell import CurrentCell
from edge_server.controller.deciding import CentralPolicy, Decided
from edge_server.controller.gathering import Gathering, flat, spec_of
from edge_server.controller.senders import check_sender
from edgebed.clock import Clock
from edgebed.configuration import ControllerConfig
from edgebed.errors import EdgebedError, ProtocolError
from edgebed.protocol.cells import cell_from_plain
from edgebed.protocol.front import Front, Session
from edgebed.protocol.messages import (
    Acknowledge,
    ControlMessage,
    ErrorCode,
    JointDecide,
    Load,
    Members,
    Observe,
    Prepare,
    Ready,
    Records,
    Role,
    Start,
    Status,
    Stop,
    Weights,
)
from edgebed.protocol.waker import Waker
from edgebed.trace.outbox import Outbox
from edgebed.trace.reporting import Reporter
from edgebed.trace.schema import EpochRecord, EventRecord
from workloads.files import CONTENT_FOLDER

_log = logging.getLogger("controller")

IDLE_S = 0.1

GATHER_SHARE = 0.5
"""Share of the devices' patience that is spent on stragglers; the rest is for deciding and the way back."""


class Controller:
    """Relays control messages, gathers observations, decides.

    Args:
        front: the listening socket; its callbacks are set here.
        waker: wakes the loop when the outbox has committed rows.
    """

    def __init__(
        self,
        config: ControllerConfig,
        clock: Clock,
        outbox: Outbox,
        front: Front[ControlMessage],
        waker: Waker,
    ) -> None:
        self._config = config
        self._clock = clock
        self._outbox = outbox
        self._waker = waker
        outbox.on_commit = waker.wake
        self.cell: CurrentCell | None = None
        self.stopping = False
        self._drained: int | None = None
        self._orchestrator_s = clock.now_s()
        self._early_events: list[tuple[float, str, str]] = []
        self.front = front
        front.on_joined, front.on_left, front.introduction = self.joined, self.left, self.introduction
        self._reporter = Reporter(outbox, config.name, self._send_records)
        self._poller = zmq.Poller()
        self._poller.register(self.front.socket, zmq.POLLIN)
        self._poller.register(waker, zmq.POLLIN)
        self._handlers: dict[type[msgspec.Struct], Callable[[Session, msgspec.Struct, zmq.Frame | None], None]] = {
            Prepare: self._on_prepare,
            Start: self._on_start,
            Stop: self._on_stop,
            Acknowledge: self._on_acknowledge,
            Members: self._on_members,
            Ready: self._to_orchestrator,
            Status: self._to_orchestrator,
            Records: self._to_orchestrator,
            Observe: self._on_observe,
            Load: self._on_load,
            JointDecide: self._on_joint_decide,
            Weights: self._on_weights,
        }

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until asked to stop, or until nobody has wanted anything for long."""
        self._event("started", {"pid": os.getpid()})
        while not self.stopping:
            self.turn()
        self._event("stopped", {})
        self._outbox.flush(2.0)
        self.front.close("controller stops")

    def stop(self) -> None:
        """End soon; safe to call from a signal handler."""
        self.stopping = True

    def turn(self) -> None:
        """Wait for the next message or timer, and deal with it."""
        now_s = self._clock.now_s()
        timeout_ms = int(min(IDLE_S, self._due_s(now_s) - now_s) * 1000) + 1
        self._waker.will_wait()
        ready = dict(self._poller.poll(timeout_ms))
        self._waker.has_waited(self._waker.read_fd in ready)
        for session, message, payload in self.front.receive():
            self._handle(session, message, payload)
        now_s = self._clock.now_s()
        self._decide_when_due(now_s)
        self.front.expire(now_s)
        if self._outbox.unacknowledged():
            self._reporter.report(now_s)
        elif self._drained is not None:
            self._send_idle(self._drained)
        self._end_when_orphaned(now_s)

    def _handle(self, session: Session, message: ControlMessage, payload: zmq.Frame | None) -> None:
        try:
            check_sender(session, message)
            self._handlers[type(message)](session, message, payload)
        except ProtocolError as error:
            self.front.reply_error(session.identity, error)

    def _due_s(self, now_s: float) -> float:
        """When a tick, or the end of the patience after it, is to be acted on."""
        cell = self.cell
        if cell is None or cell.start is None or cell.spec.placement == "device" or cell.is_concluded:
            return now_s + IDLE_S
        tick_s = cell.tick_s(cell.newest_epoch(now_s))
        # When both have passed, nobody has reported: whoever does will wake this program.
        return next((due_s for due_s in (tick_s, tick_s + self._patience_s(cell)) if due_s > now_s), now_s + IDLE_S)

    def _end_when_orphaned(self, now_s: float) -> None:
        if self._orchestrator() is not None:
            self._orchestrator_s = now_s
        running = self.cell is not None and self.cell.start is not None and not self.cell.over(now_s)
        if not running and now_s - self._orchestrator_s > self._config.orphan_after_s:
            _log.warning("no orchestrator for %g s: ending", self._config.orphan_after_s)
            self.stopping = True

    # -- sessions -----------------------------------------------------------------------------------------------------

    def introduction(self) -> tuple[str, int]:
        """What a Welcome says of this run."""
        return self._config.plan_hash, self.cell.serial if self.cell else 0

    def joined(self, session: Session, old: Session | None) -> None:
        """A peer has introduced itself; tell it where things stand."""
        again = old is not None and old.instance != session.instance
        self._event("member_joined", {"member": session.name, "role": session.role, "restarted": again})
        if session.role is Role.ORCHESTRATOR:
            self._reporter.restart()
            self._send_members(session)
            self._send_own_ready()
        else:
            self._tell_cell(session)
            self._send_members(self._orchestrator())
            if session.role is Role.EXTERNAL:
                self._send_own_ready()

    def left(self, session: Session, reason: str) -> None:
        """A peer is gone."""
        self._event("member_left", {"member": session.name, "role": session.role, "reason": reason})
        if session.role is not Role.ORCHESTRATOR:
            self._send_members(self._orchestrator())

    def _tell_cell(self, session: Session) -> None:
        cell = self.cell
        if cell is None or not cell.concerns(session):
            return
        self.front.send(session, cell.prepare)
        if cell.start is not None:
            self.front.send(session, cell.start)

    def _orchestrator(self) -> Session | None:
        return next((peer for peer in self.front.sessions.values() if peer.role is Role.ORCHESTRATOR), None)

    def _members(self) -> list[Session]:
        assert self.cell is not None
        return [peer for peer in self.front.sessions.values() if self.cell.concerns(peer)]

    def _send_members(self, session: Session | None) -> None:
        if session is not None:
            peers = [(peer.name, peer.role, True, peer.instance) for peer in self.front.sessions.values()]
            self.front.send(session, Members(peers))

    # -- relaying -----------------------------------------------------------------------------------------------------

    def _to_orchestrator(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        member = getattr(message, "member", "")
        if member != session.name:
            raise ProtocolError(ErrorCode.FORBIDDEN, f"{session.name} may not report for {member}")
        orchestrator = self._orchestrator()
        if orchestrator is not None:
            # Without one, rows stay in the member's outbox and are sent again.
            self.front.send(orchestrator, message, payload.buffer if payload is not None else None)  # type: ignore[arg-type]

    def _on_acknowledge(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Acknowledge)
        if message.member == self._config.name:
            self._reporter.acknowledge(message.last, self._clock.now_s())
            return
        member = self.front.by_name.get(message.member)
        if member is not None:
            self.front.send(member, message)

    def _on_members(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        self._send_members(session)

    def _send_records(self, message: Records, payload: bytes) -> bool:
        orchestrator = self._orchestrator()
        return orchestrator is not None and self.front.send(orchestrator, message, payload)

    # -- the life of a cell -------------------------------------------------------------------------------------------

    def _on_prepare(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Prepare)
        spec = cell_from_plain(message.cell)
        if spec.serial != message.serial:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, f"serial {message.serial} outside, {spec.serial} inside")
        if self._config.plan_hash and spec.plan_hash != self._config.plan_hash:
            raise ProtocolError(
                ErrorCode.UNEXPECTED, f"this controller runs plan {self._config.plan_hash}, not {spec.plan_hash}"
            )
        if self.cell is None or self.cell.serial != message.serial:
            gathering = Gathering(spec_of(spec), spec.epochs)
            asking = Asking(self.front, spec.serial, gathering.spec, self._event)
            self.cell = CurrentCell(message, spec, gathering, asking, None)
            self._make_policy(self.cell)
            for member in self._members():
                self._tell_cell(member)
        self._send_own_ready()

    def _make_policy(self, cell: CurrentCell) -> None:
        if cell.spec.placement != "controller":
            return
        try:
            cell.policy = CentralPolicy(cell.spec, cell.gathering.spec, Path(self._config.state_dir) / CONTENT_FOLDER)
        except EdgebedError as error:
            self._event("policy_failed", {"policy": cell.spec.policy, "error": str(error)})
            self._send_own_ready(str(error))

    def _send_own_ready(self, problem: str = "") -> None:
        cell, orchestrator = self.cell, self._orchestrator()
        if cell is None or orchestrator is None:
            return
        if not problem and cell.spec.placement == "controller" and cell.policy is None:
            problem = f"the policy {cell.spec.policy} cannot be made; see the controller's log"
        if not problem and cell.spec.placement == "external" and external_of(self.front) is None:
            _log.warning(unattended(cell.spec.cell_id))
            return
        self.front.send(orchestrator, Ready(cell.serial, self._config.name, not problem, problem))

    def _on_start(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Start)
        cell = self._cell_with(message.serial)
        if cell.start is not None:
            return
        cell.start = Start(message.serial, self._clock.now_s() + message.start_s, message.run_clock_s)
        for member in self._members():
            self.front.send(member, cell.start)
        early, self._early_events = self._early_events, []
        for at_s, kind, detail in early:
            self._append_event(at_s, kind, detail)

    def _on_stop(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Stop)
        cell = self._cell_with(message.serial)
        if cell.start is not None:
            self._conclude(cell, self._clock.now_s())
        for member in self._members():
            self.front.send(member, message)
        self._event("cell_stopped", {"cell": cell.spec.cell_id, "reason": message.reason})
        self.cell = None
        self._drained = message.serial
        self._send_idle(message.serial)

    def _send_idle(self, serial: int) -> None:
        """Say how many rows of a stopped cell are still to come; said again when none is."""
        orchestrator, unsent = self._orchestrator(), self._outbox.unacknowledged()
        if orchestrator is not None and self.front.send(
            orchestrator, Status(serial, self._config.name, "idle", unsent=unsent)
        ):
            self._drained = serial if unsent else None

    def _cell_with(self, serial: int) -> CurrentCell:
        if self.cell is None or self.cell.serial != serial:
            current = self.cell.serial if self.cell else "none"
            raise ProtocolError(ErrorCode.UNEXPECTED, f"the current cell is {current}, not {serial}; prepare it first")
        return self.cell

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _on_observe(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Observe)
        cell = self.cell
        if cell is None or cell.serial != message.serial or message.member != session.name:
            return  # a straggler of an earlier cell
        problem = cell.gathering.hear(message, self._clock.now_s())
        if problem:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, problem)

    def _on_load(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, Load)
        if self.cell is not None and self.cell.serial == message.serial and message.member == session.name:
            problem = self.cell.gathering.load(message.member, message.values)
            if problem:
                raise ProtocolError(ErrorCode.BAD_MESSAGE, problem)

    @staticmethod
    def _patience_s(cell: CurrentCell) -> float:
        return GATHER_SHARE * cell.spec.timeouts.decision_s

    def _decide_when_due(self, now_s: float) -> None:
        cell = self.cell
        if cell is None or cell.start is None or cell.spec.placement == "device":
            return
        epoch = cell.newest_epoch(now_s)
        if not cell.gathering.any_for(epoch) or not self._have_all_reported(cell, epoch, now_s):
            return
        if epoch < cell.spec.epochs:
            self._decide(cell, epoch, now_s)
        elif now_s >= cell.tick_s(epoch):
            self._conclude(cell, now_s)

    def _have_all_reported(self, cell: CurrentCell, epoch: int, now_s: float) -> bool:
        """Has everyone who is there reported for an epoch, or had time enough to?"""
        expected = {name for name in cell.spec.devices if name in self.front.by_name}
        return cell.gathering.complete(epoch, expected) or now_s >= cell.tick_s(epoch) + self._patience_s(cell)

    def _decide(self, cell: CurrentCell, epoch: int, now_s: float) -> None:
        gathering = cell.gathering
        gathering.decided = epoch
        observation = gathering.observation(epoch, now_s)
        cell.observations = {epoch: flat(observation)}
        if cell.spec.placement == "external":
            cell.asking.ask(observation, now_s)
            return
        if cell.policy is None:
            return
        try:
            decided = cell.policy.decide(observation)
        except Exception as error:  # a policy is someone's research code: it may raise anything
            _log.exception("policy %s failed in epoch %d; devices fall back", cell.spec.policy, epoch)
            self._event("policy_failed", {"policy": cell.spec.policy, "epoch": epoch, "error": repr(error)})
            return
        self._publish(cell, decided)

    def _on_joint_decide(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        assert isinstance(message, JointDecide)
        if self.cell is None:
            raise none_open(message)
        self._publish(self.cell, self.cell.asking.answered(message, self._clock.now_s()))

    def _on_weights(self, session: Session, message: msgspec.Struct, payload: zmq.Frame | None) -> None:
        """A learner has learned. Weights that do not fit are refused, and the old ones go on deciding."""
        assert isinstance(message, Weights)
        cell = self._cell_with(message.serial)
        if cell.policy is None or payload is None:
            raise ProtocolError(ErrorCode.UNEXPECTED, f"cell {cell.spec.cell_id} has no policy here that takes weights")
        try:
            cell.policy.take_weights(payload.bytes, message.version)
        except EdgebedError as error:
            self._event("weights_refused", {"version": message.version, "error": str(error)})
            raise ProtocolError(ErrorCode.BAD_PAYLOAD, str(error)[:4000]) from None
        self._event("weights_taken", {"version": message.version, "from_epoch": cell.gathering.decided + 1})

    def _publish(self, cell: CurrentCell, decided: Decided) -> None:
        for slot, name in enumerate(cell.spec.devices):
            member = self.front.by_name.get(name)
            if member is not None:
                self.front.send(member, decided.message(cell.serial, slot, name))
        row = EpochRecord(
            run_id=cell.spec.run_id,
            cell_id=cell.spec.cell_id,
            epoch=decided.epoch,
            device_id="",
            observation=cell.observations.get(decided.epoch),
            action=decided.flat(),
            policy_version=decided.policy_version,
            decided_by=decided.decided_by,
            decision_compute_s=decided.compute_s,
        )
        self._outbox.append("epoch", cell.serial, row)

    def _conclude(self, cell: CurrentCell, now_s: float) -> None:
        """Show and note how things stand after the last decision: at the tick that follows it, or at the stop."""
        if cell.is_concluded or cell.spec.placement == "device":
            return
        cell.is_concluded = True
        observation = cell.last_observation(now_s)
        if cell.spec.placement == "external":
            cell.asking.show_last(observation)
        row = EpochRecord(
            run_id=cell.spec.run_id,
            cell_id=cell.spec.cell_id,
            epoch=observation.epoch,
            device_id="",
            observation=flat(observation),
            action=[],
        )
        self._outbox.append("epoch", cell.serial, row)

    # -- events -------------------------------------------------------------------------------------------------------

    def _event(self, kind: str, detail: dict[str, object]) -> None:
        """Note an event; those before the first cell's start wait until the run clock is known."""
        text = json.dumps(detail)
        _log.info("%s %s", kind, text)
        now_s = self._clock.now_s()
        if self.cell is not None and self.cell.start is not None:
            self._append_event(now_s, kind, text)
        else:
            self._early_events.append((now_s, kind, text))

    def _append_event(self, at_s: float, kind: str, detail: str) -> None:
        assert self.cell is not None
        row = EventRecord(t_s=self.cell.run_clock_s(at_s), host=self._config.name, kind=kind, detail=detail)
        self._outbox.append("event", self.cell.serial, row)
