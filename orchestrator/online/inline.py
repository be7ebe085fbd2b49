"""Learning in virtual time: the learner of `edgebed.learning.online` in this process, a turn after every decision.

Learning takes no virtual time, but never decides at once: what is known at the tick of epoch ``t`` is learned from
after the decision of ``t``, and decides from ``t + 1`` on. So it is the same whatever this machine does besides.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_server.controller.deciding import CentralPolicy
from edgebed.errors import EdgebedError
from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.ingredients import NOWHERE, OUTCOMES, Ended
from edgebed.trace.schema import EpochRecord, TaskRecord
from edgebed.types import Site
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_record import DECIDERS
from orchestrator.backends.simulated_rows import BACKEND, cost_of, used_of
from orchestrator.online.beginning import (
    LEARNER_FAILED,
    LEARNER_READY,
    WEIGHTS_PUBLISHED,
    WEIGHTS_REFUSED,
    WEIGHTS_TAKEN,
    begin_of,
    check_installed,
    published,
)
from orchestrator.plan_file import Plan
from workloads.files import file_name

if TYPE_CHECKING:
    from edgebed.learning.online import CellLearning
    from edgebed.learning.online_messages import Learned

ORCHESTRATOR, CONTROLLER = "orchestrator", "controller"
"""Who says so in the events."""


def learning_of(
    plan: Plan, spec: CellSpec, simulated: SimulatedCell, policy: CentralPolicy | None, content: Path
) -> InlineLearning | None:
    """The learner of a simulated cell; None when its policy does not learn.

    Args:
        plan: of the run.
        spec: of the cell.
        simulated: the cell, of which nothing has happened.
        policy: that decides in it.
        content: the folder of the files that policies need.

    Raises:
        MissingExtra: what learners need is not installed.
    """
    learns = plan.policy(spec.policy)
    if learns.learn is None or policy is None:
        return None
    check_installed()
    weights = (content / file_name(learns.options["weights"])).read_bytes()
    from edgebed.learning.online import CellLearning, use_one_thread

    use_one_thread()  # sums over several come out in another order, and so in other digits
    learning = InlineLearning(simulated, policy)
    try:
        learning.begin(CellLearning(begin_of(plan, spec, learns, weights), 0.0))
    except EdgebedError as error:
        learning.fail(error)
    return learning


class InlineLearning:
    """The learner of one cell.

    Args:
        simulated: the cell.
        policy: that decides in it, and takes the weights.
    """

    def __init__(self, simulated: SimulatedCell, policy: CentralPolicy) -> None:
        self._simulated, self._policy = simulated, policy
        self._learner: CellLearning | None = None
        self._ended: list[Ended] = []
        self._shown = 0
        simulated.on_ended = self._hear

    def begin(self, learner: CellLearning) -> None:
        """Learn with this from now on."""
        self._learner = learner
        self._event(ORCHESTRATOR, LEARNER_READY, cell=self._simulated.cell.cell_id)

    def fail(self, error: EdgebedError) -> None:
        """Learn no more; the cell goes on with the weights that it has."""
        self._learner = None
        self._event(ORCHESTRATOR, LEARNER_FAILED, cell=self._simulated.cell.cell_id, problem=str(error))

    def _event(self, host: str, kind: str, **detail: object) -> None:
        self._simulated.event(kind, host, **detail)

    def _hear(self, ended: Ended) -> None:
        if self._learner is not None and len(ended):
            self._ended.append(ended)

    def turn(self) -> None:
        """Learn from what is known at the tick that was decided last; what comes of it decides at the next."""
        simulated = self._simulated
        if self._learner is None or simulated.next_epoch >= simulated.cell.epochs:  # nothing is left to be decided
            return
        taken, self._ended = self._ended, []
        rows = [row for ended in taken for row in self._rows(ended)]
        try:
            self._learner.learn_from(rows, self._epochs())
            learned = self._learner.due(simulated.pipeline.now_s)
        except EdgebedError as error:
            self.fail(error)
            return
        if learned is not None:
            self._publish(learned)

    def _publish(self, learned: Learned) -> None:
        self._event(ORCHESTRATOR, WEIGHTS_PUBLISHED, **published(learned))
        try:
            self._policy.take_weights(learned.weights, learned.version)
        except EdgebedError as error:
            self._event(CONTROLLER, WEIGHTS_REFUSED, version=learned.version, error=str(error))
            return
        self._event(CONTROLLER, WEIGHTS_TAKEN, version=learned.version, from_epoch=self._simulated.next_epoch)

    # -- rows, as the trace will have them ----------------------------------------------------------------------------

    def _epochs(self) -> list[EpochRecord]:
        cell, found = self._simulated.cell, self._simulated.epoch_rows[self._shown :]
        self._shown += len(found)
        return [
            EpochRecord(
                run_id=cell.run_id,
                cell_id=cell.cell_id,
                epoch=row.epoch,
                device_id=row.device,
                observation=row.observation.tolist(),
                action=row.action.tolist(),
                policy_version=row.version,
                decided_by=row.decided_by,
            )
            for row in found
        ]

    def _rows(self, ended: Ended) -> list[TaskRecord]:
        """What the learner has to know of tasks that have ended."""
        simulated, cell, tasks, which = self._simulated, self._simulated.cell, self._simulated.tasks, ended.task
        record, slot = simulated.record.at(which), self._simulated.tasks.slot[which]
        used = used_of(simulated.testbed, record, slot)
        cost = cost_of(cell, record, used, tasks.deadline_s[which])
        found = []
        for at, task in enumerate(which.tolist()):
            is_sent = record.edge_frames[at] > 0
            site, who = int(record.site[at]), int(record.decided_by[at])
            found.append(
                TaskRecord(
                    run_id=cell.run_id,
                    cell_id=cell.cell_id,
                    policy=cell.policy,
                    seed=cell.seed,
                    device_id=cell.devices[slot[at]],
                    task_id=tasks.name(cell.cell_id, task),
                    epoch=int(tasks.epoch[task]),
                    backend=BACKEND,
                    attempt=cell.attempt,
                    arrived_s=simulated.start_s + float(tasks.offset_s[task]),
                    content_id="",
                    deadline_s=float(tasks.deadline_s[task]),
                    site=None if site == NOWHERE else Site(site).label,
                    server=cell.servers[record.server[at]] if is_sent else None,
                    channel=int(record.requested_channel[at]) if is_sent else None,
                    decision_epoch=None if who == NOWHERE else int(record.decision_epoch[at]),
                    decided_by=None if who == NOWHERE else DECIDERS[who].value,
                    outcome=OUTCOMES[record.outcome[at]].value,
                    cost=None if np.isnan(cost[at]) else float(cost[at]),
                )
            )
        return found
