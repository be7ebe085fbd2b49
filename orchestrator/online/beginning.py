"""How a learner begins with a cell, and what is said of what it has learned: on hosts and in virtual time alike."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING

from edgebed.errors import MissingExtra

if TYPE_CHECKING:
    from edgebed.learning.online_messages import Begin, Learned
    from edgebed.protocol.cells import CellSpec
    from orchestrator.experiment import PlannedPolicy
    from orchestrator.plan_file import Plan

LEAST_PATIENCE_EPOCHS = 4

LEARNER_READY, LEARNER_FAILED = "learner_ready", "learner_failed"
WEIGHTS_PUBLISHED, WEIGHTS_TAKEN, WEIGHTS_REFUSED = "weights_published", "weights_taken", "weights_refused"
"""Kinds of events."""


def check_installed() -> None:
    """Is there what learners need?

    Raises:
        MissingExtra: it is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra("learning", "learning while a run goes on")


def begin_of(plan: Plan, spec: CellSpec, policy: PlannedPolicy, weights: bytes) -> Begin:
    """What a learner is told of a cell.

    Args:
        plan: of the run.
        spec: the cell.
        policy: its policy, which learns.
        weights: the packed policy that every cell begins with.
    """
    from edgebed.learning.online_messages import Begin

    return Begin(
        spec.serial,
        weights,
        policy.learner,
        spec.seed,
        list(spec.devices),
        list(spec.servers),
        spec.channels.count,
        _arrivals(plan, spec),
        max(LEAST_PATIENCE_EPOCHS, math.ceil(spec.timeouts.task_s / spec.epoch_s) + 1),
        {key: value for key, value in (policy.learn or {}).items() if key != "kind"},
    )


def _arrivals(plan: Plan, spec: CellSpec) -> list[list[int]]:
    """``[epochs][slots]``: how many tasks arrive."""
    counts = [[0] * len(spec.devices) for _ in range(spec.epochs)]
    cell = plan.cell(spec.cell_id)
    for slot, device in enumerate(spec.devices):
        for task in cell.planned_tasks(device):
            counts[task.epoch][slot] += 1
    return counts


def published(learned: Learned) -> dict[str, object]:
    """What the event of new weights says; not what learning took, which no two runs share."""
    return {
        "version": learned.version,
        "transitions": learned.transitions,
        "updates": learned.updates,
        **learned.losses,
    }
