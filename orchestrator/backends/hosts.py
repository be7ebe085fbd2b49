"""The backend of real hosts: `HostsBackend`.

As any `edgebed.backend.Backend` it lets its caller decide: it then is an external decider at the controller's socket,
timed like every other one. It also `edgebed.backend.CanRunCells`: a whole cell, decided where the plan says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from edgebed.backend import CallOrder, Receipt, TaskOutcome, Turn
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.joint import decision_message, observation_from
from edgebed.protocol.messages import JointObserve, Role
from edgebed.trace.schema import TaskRecord
from edgebed.types import DecidedBy, Decision, Observation, ObservationSpec, Outcome, Site
from orchestrator.attempts import Attempt
from orchestrator.backends.assembly import Hosts
from orchestrator.backends.conductor import Conductor
from orchestrator.backends.control import ControlLink
from orchestrator.backends.session import Session
from orchestrator.unreported import verdict_on
from workloads.arrival_files import settings_from_plain
from workloads.arrivals import PlannedTask, planned_tasks

POLICY_VERSION = "caller"

LATE_SHARE = 0.5
"""Share of the devices' patience after which an answer is counted on no more; the rest is the way to them."""


class HostsBackend:
    """Turns decisions into outcomes on the hosts of a plan.

    Args:
        assemble: puts together what works on the hosts. If that has an open session, it is used and stays open;
            otherwise it is opened and closed with the backend.
    """

    def __init__(self, assemble: Callable[[], Hosts]) -> None:
        self._assemble = assemble
        self._order = CallOrder()
        self._hosts: Hosts | None = None
        self._is_owner = False
        self._decider: ControlLink | None = None
        self._attempt: Attempt | None = None
        self._episode: _Episode | None = None

    def observation_spec(self, plan: CellSpec) -> ObservationSpec:
        """What hosts show: device features, server and channel features."""
        return ObservationSpec(tuple(plan.devices), tuple(plan.servers), plan.channels.count)

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self, plan: CellSpec) -> None:
        """Bring up the programs.

        Args:
            plan: a cell of the hosts' plan; `reset` runs new attempts of it.

        Raises:
            WorkFailed: a program could not be started.
        """
        self._order.check("open")
        self._hosts = self._assemble()
        self._is_owner = not self._hosts.session.is_open
        self._plan = plan
        if self._is_owner:
            self._hosts.session.on_turn = self._hear
            self._hosts.session.open()
        self._order.turn = Turn.OPEN

    def close(self) -> None:
        """Stop the episode, and the programs if they were brought up here."""
        if self._hosts is None:
            return
        if self._decider is not None:
            self._leave("closed")
            self._decider.close()
            self._decider = None
        if self._is_owner:
            problems = self._hosts.dismantle()
            for problem in problems:
                self._hosts.collector.complain(problem)
        self._hosts = None
        self._order.turn = Turn.CLOSED

    @property
    def _session(self) -> Session:
        assert self._hosts is not None
        return self._hosts.session

    @property
    def _conductor(self) -> Conductor:
        assert self._hosts is not None
        return self._hosts.conductor

    # -- whole cells --------------------------------------------------------------------------------------------------

    def run_cell(self, plan: CellSpec, report: Callable[[TaskOutcome], None]) -> None:
        """Run a cell to its end; who decides is what the cell says.

        Args:
            plan: its serial is that of an attempt that was begun.
            report: called with each outcome as its row has been written.

        Raises:
            WorkFailed: it could not be started, or no device was left.
            Interrupted: someone has asked to stop; what there is was collected.
        """
        assert self._hosts is not None, "open() comes first"

        def on_task(serial: int, row: TaskRecord) -> None:
            if serial == plan.serial:
                report(outcome_of(row))

        self._hosts.collector.on_task = on_task
        self._conductor.run_cell(plan)

    # -- episodes -----------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Begin another attempt of the cell, with this seed and with the caller as its decider."""
        self._order.check("reset")
        assert self._hosts is not None
        self._leave("reset")
        attempt = self._hosts.attempts.begin(self._plan.cell_id)
        spec = msgspec.structs.replace(
            self._plan, serial=attempt.serial, attempt=attempt.attempt, seed=seed, placement="external"
        )
        self._episode = _Episode(spec, self.observation_spec(spec))
        self._hosts.collector.on_task = self._episode.hear_row
        self._connect()
        self._conductor.enter(spec)
        self._attempt = attempt  # from here on `_leave` has something to collect, even if the rest fails
        self._conductor.prepare()
        self._conductor.start(attempt)
        self._order.turn = Turn.RUNNING

    def _connect(self) -> None:
        assert self._hosts is not None
        if self._decider is not None:
            return
        deployment, session = self._hosts.deployment, self._session
        credentials = deployment.credentials
        self._decider = ControlLink(
            session.context,
            deployment.controller,
            credentials.external,
            credentials.public.external,
            Role.EXTERNAL,
            deployment.plan.plan_hash,
            session.clock,
            session.limits,
        )
        self._decider.register(session.poller)
        while not self._decider.is_up:
            session.turn()

    def _hear(self, session: Session) -> None:
        """Called in every turn of the session: what the controller shows its external decider."""
        if self._decider is None:
            return
        for message, _ in self._decider.receive():
            if isinstance(message, JointObserve) and self._episode is not None:
                self._episode.hear_observation(message, session.clock.now_s())

    @property
    def _running(self) -> _Episode:
        assert self._episode is not None
        return self._episode

    def observe(self) -> Observation:
        """Wait for the next tick, and give what the controller shows; nobody is present if it shows nothing."""
        self._order.check("observe")
        episode, session = self._running, self._session
        epoch = episode.epoch + 1
        # What devices say at a tick is waited for as long as they wait for the answer.
        give_up_s = self._conductor.start_s + (epoch + 1) * episode.cell.epoch_s + episode.cell.timeouts.decision_s
        while epoch not in episode.shown and session.clock.now_s() < give_up_s:
            session.turn(min(0.05, max(0.0, give_up_s - session.clock.now_s())))
            self._conductor.keep_in_touch()
        episode.epoch = epoch
        self._order.turn = Turn.OVER if epoch == episode.cell.epochs else Turn.ASKED
        return episode.observation(epoch)

    def submit(self, decision: Decision) -> Receipt:
        """Answer the last observation.

        Clocks and radios of hosts are not scaled: fractions of the processor and of the power come out as 1. What the
        hosts do not get in time is decided by the fallback policy; the receipt then shows what that usually is.
        """
        self._order.check("submit")
        episode = self._running
        decision.check(episode.spec)
        assert self._decider is not None
        is_sent = self._decider.send(decision_message(decision, episode.cell.serial, episode.epoch, POLICY_VERSION))
        self._order.turn = Turn.RUNNING
        is_late = not is_sent or episode.is_late(self._session.clock.now_s())
        return episode.receipt(Decision.local(len(episode.spec.slots)) if is_late else decision, decision)

    def poll(self, timeout_s: float) -> list[TaskOutcome]:
        """Outcomes whose rows have arrived."""
        self._order.check("poll")
        episode, session = self._running, self._session
        give_up_s = session.clock.now_s() + timeout_s
        is_over = self._order.turn is Turn.OVER
        while True:
            session.turn(0.0)
            outcomes = episode.take_outcomes()
            due = (
                not is_over
                and session.clock.now_s() >= self._conductor.start_s + (episode.epoch + 2) * episode.cell.epoch_s
            )
            if outcomes or due or not episode.outstanding or session.clock.now_s() >= give_up_s:
                return outcomes
            session.turn(min(0.05, max(0.0, give_up_s - session.clock.now_s())))
            self._conductor.keep_in_touch()
            if is_over and not self._conductor.watch.unfinished:
                self._leave("")

    def _leave(self, reason: str) -> None:
        """End the current attempt; whatever nobody has reported after that gets the outcome that can be told."""
        if self._attempt is None:
            return
        attempt, self._attempt = self._attempt, None
        self._conductor.leave(attempt, reason)
        self._running.conclude(attempt)


class _Episode:
    """What is known of one episode."""

    def __init__(self, cell: CellSpec, spec: ObservationSpec) -> None:
        self.cell = cell
        self.spec = spec
        self.epoch = -1
        self.shown: dict[int, Observation] = {}
        self._shown_s: dict[int, float] = {}
        self._outcomes: list[TaskOutcome] = []
        self.outstanding = {
            f"{cell.cell_id}/{device}/{task.index}": (device, task)
            for device in cell.devices
            for task in self._tasks(device)
        }

    def _tasks(self, device: str) -> list[PlannedTask]:
        return planned_tasks(
            settings_from_plain(self.cell.arrivals),
            self.cell.seed,
            device,
            workload=self.cell.workload,
            epochs=self.cell.epochs,
            epoch_s=self.cell.epoch_s,
        )

    def hear_observation(self, message: JointObserve, now_s: float) -> None:
        """The controller shows an epoch; of another attempt is no matter."""
        if message.serial == self.cell.serial:
            self.shown[message.epoch] = observation_from(message, self.spec)
            self._shown_s[message.epoch] = now_s

    def hear_row(self, serial: int, row: TaskRecord) -> None:
        """A task's row has been written."""
        if serial == self.cell.serial:
            self.outstanding.pop(row.task_id, None)
            self._outcomes.append(outcome_of(row))

    def take_outcomes(self) -> list[TaskOutcome]:
        """Outcomes that were not taken yet."""
        taken, self._outcomes = self._outcomes, []
        return taken

    def conclude(self, attempt: Attempt) -> None:
        """Nothing more will come of it."""
        for task_id, (device, task) in self.outstanding.items():
            outcome, reason = verdict_on(device, task, attempt)
            is_failed = outcome is Outcome.FAILED
            cost = self.cell.reward.latency * self.cell.timeouts.task_s + self.cell.reward.miss_penalty
            self._outcomes.append(
                TaskOutcome(
                    task_id,
                    device,
                    outcome,
                    task.deadline_s,
                    reason=reason,
                    deadline_met=False if is_failed else None,
                    cost=cost if is_failed else None,
                )
            )
        self.outstanding.clear()

    def observation(self, epoch: int) -> Observation:
        """What was shown at an epoch; nobody present when nothing was."""
        return self.shown.get(epoch) or Observation.empty(self.spec, epoch)

    def is_late(self, now_s: float) -> bool:
        """Is it too late to answer the current epoch?"""
        shown_s = self._shown_s.get(self.epoch)
        return shown_s is None or now_s - shown_s > LATE_SHARE * self.cell.timeouts.decision_s

    def receipt(self, taken: Decision, asked: Decision) -> Receipt:
        """What becomes of a decision for the current epoch."""
        observation = self.observation(self.epoch)
        present = observation.present
        executed = replace(
            taken,
            site=np.where(present, taken.site, Site.DEVICE).astype(np.int32),
            cpu_fraction=np.ones_like(taken.cpu_fraction),
            power_fraction=np.ones_like(taken.power_fraction),
        )
        same = np.array([executed.slot(slot) == asked.slot(slot) for slot in range(len(present))])
        waiting = observation.values[:, self.spec.device_index("waiting_tasks")]
        return Receipt(self.epoch, executed, present & same, np.where(present, waiting, 0).astype(np.int32))


def outcome_of(row: TaskRecord) -> TaskOutcome:
    """A task's row as learners see it."""
    decided = row.decision_epoch is not None and row.decided_by is not None and row.site is not None
    return TaskOutcome(
        row.task_id,
        row.device_id,
        Outcome(row.outcome),
        row.deadline_s,
        decision_epoch=row.decision_epoch if decided else None,
        decided_by=DecidedBy(row.decided_by) if decided and row.decided_by else None,
        site=Site.from_label(row.site) if decided and row.site else None,
        reason=row.reason or "",
        latency_s=row.latency_s,
        deadline_met=row.deadline_met,
        device_energy_j=row.device_energy_j,
        server_energy_j=row.server_energy_j,
        cost=row.cost,
    )
