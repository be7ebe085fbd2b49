"""Leads the online learners of a run: gives them rows, takes their weights to the controller, writes down which.

It belongs to the session's thread and is asked in every turn. A learner that dies, lags or refuses is an event in the
trace; the cell goes on with the weights that it has, and the next cell gets a new learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgebed.learning.online_messages import Awake, End, Learned, Rows, Troubled
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Weights
from edgebed.trace.schema import Record
from orchestrator.backends.control import ControlLink
from orchestrator.journal import Journal
from orchestrator.online.beginning import (
    LEARNER_FAILED,
    LEARNER_READY,
    WEIGHTS_PUBLISHED,
    begin_of,
    check_installed,
    published,
)
from orchestrator.online.process import COMMAND, LearnerProcess
from orchestrator.plan_file import Plan
from orchestrator.provision.content import content_of

LOG_NAME = "learner.log"


class LearningDriver:
    """The learners of one run, one program at a time; every cell begins with the weights that the plan names.

    Args:
        plan: some of its policies learn.
        folder: the run's; the learner's log goes to ``logs/``.
        journal: where events go.
        command: the learner's program.

    Raises:
        MissingExtra: what learners need is not installed.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        journal: Journal,
        command: Sequence[str] = COMMAND,
    ) -> None:
        check_installed()
        self._plan, self._log, self._journal = plan, folder / "logs" / LOG_NAME, journal
        self._command = command
        self._weights = content_of(plan)
        self._process: LearnerProcess | None = None
        self._spec: CellSpec | None = None
        self._tasks: list[bytes] = []
        self._epochs: list[bytes] = []
        self._newest: Learned | None = None
        self._sent_joins = -1
        self._dropped = 0
        self._ready_serial = 0

    @property
    def is_ready(self) -> bool:
        """Is there nothing to wait for before the cell starts?"""
        spec, process = self._spec, self._process
        return spec is None or process is None or process.is_over or self._ready_serial == spec.serial

    def wake(self) -> None:
        """Start the learner's program, if none runs; it loads while others get ready."""
        if self._process is None or self._process.is_over:
            self._discard()
            self._process = LearnerProcess(self._log, self._command)

    def learns(self, spec: CellSpec) -> bool:
        """Does the policy of a cell learn in it?"""
        return self._plan.policy(spec.policy).learn is not None

    def begin(self, spec: CellSpec) -> None:
        """A cell is about to start; of interest only when its policy learns."""
        self.end()
        if not self.learns(spec):
            return
        self.wake()
        assert self._process is not None
        policy = self._plan.policy(spec.policy)
        self._spec, self._newest, self._dropped = spec, None, self._process.dropped
        self._process.send(begin_of(self._plan, spec, policy, self._weights[policy.options["weights"]]))

    def hear(self, serial: int, record: Record) -> None:
        """A row has been written."""
        if self._spec is None or serial != self._spec.serial:
            return
        if record.kind == "task":
            self._tasks.append(record.row)
        elif record.kind == "epoch":
            self._epochs.append(record.row)

    def turn(self, control: ControlLink) -> None:
        """Pass on what has come, either way; never waits."""
        process, spec = self._process, self._spec
        if process is None:
            return
        if spec is not None and (self._tasks or self._epochs):
            process.send(Rows(spec.serial, self._tasks, self._epochs))
            self._tasks, self._epochs = [], []
        for message in process.received():
            self._take(message, control)
        if spec is None or not control.is_up:
            return
        if self._newest is not None and self._sent_joins != control.joins:
            self._send(control, self._newest)  # the controller was restarted, and began with the plan's weights
        self._look_after(process, spec)

    def _take(self, message: Learned | Troubled | Awake, control: ControlLink) -> None:
        if isinstance(message, Awake):
            self._ready_serial = message.serial
            if self._spec is not None and message.serial == self._spec.serial:
                self._journal.note(LEARNER_READY, cell=self._spec.cell_id)
        elif self._spec is None or message.serial != self._spec.serial:
            return  # of an earlier cell
        elif isinstance(message, Troubled):
            self._journal.note(LEARNER_FAILED, cell=self._spec.cell_id, problem=message.problem)
            self._spec = None
        else:
            self._newest = message
            self._send(control, message)

    def _send(self, control: ControlLink, learned: Learned) -> None:
        if not control.send(Weights(learned.serial, learned.version), learned.weights):
            return  # the link is down: once it is up again, the newest are sent
        self._sent_joins = control.joins
        self._journal.note(WEIGHTS_PUBLISHED, **published(learned), learning_s=round(learned.seconds, 4))

    def _look_after(self, process: LearnerProcess, spec: CellSpec) -> None:
        if process.dropped > self._dropped:
            self._journal.note("learner_lags", cell=spec.cell_id, dropped=process.dropped - self._dropped)
            self._dropped = process.dropped
        if process.is_over:
            self._journal.note("learner_died", cell=spec.cell_id, exit_status=process.exit_status)
            self._spec = None

    def end(self) -> None:
        """The cell is over; nothing more is published for it."""
        if self._spec is not None and self._process is not None:
            self._process.send(End(self._spec.serial))
        self._spec, self._newest = None, None
        self._tasks, self._epochs = [], []

    def _discard(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        """End the learner's program."""
        self.end()
        self._discard()
