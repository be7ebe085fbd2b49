"""Rows for planned tasks that nobody reported: what can be said of each, and no more. Pure, so that sealing repeats."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from edgebed.trace.schema import NOT_NEEDED, NOT_RUN, TaskRecord
from edgebed.types import Outcome
from orchestrator.attempts import Attempt, Attempts
from orchestrator.plan_file import Plan, PlannedCell
from workloads.arrivals import PlannedTask

BACKEND = "hosts"

DEVICE_DOWN = "device_down"
LOST = "lost"


def planned_rows(plan: Plan, attempts: Attempts, not_needed: Collection[str] = ()) -> Iterator[TaskRecord]:
    """A row for every planned task, as it counts if nobody reported the task.

    Args:
        plan: the run's.
        attempts: how far its cells have come.
        not_needed: cells that the plan's own rule made superfluous.

    Raises:
        RunConflict: this edgebed plans other tasks than the one that made the plan.
    """
    for cell in plan.cells:
        yield from rows_of_cell(cell, attempts.latest(cell.cell_id), is_needed=cell.cell_id not in not_needed)


def rows_of_cell(cell: PlannedCell, attempt: Attempt | None, *, is_needed: bool = True) -> Iterator[TaskRecord]:
    """The `planned_rows` of one cell; ``attempt``: its newest.

    Raises:
        RunConflict: as there.
    """
    for device in cell.plan.devices:
        for task in cell.planned_tasks(device.name):
            yield _row(cell, device.name, task, attempt, is_needed=is_needed)


def _row(cell: PlannedCell, device: str, task: PlannedTask, attempt: Attempt | None, *, is_needed: bool) -> TaskRecord:
    outcome, reason = verdict_on(device, task, attempt, is_needed=is_needed)
    # A cell that was never started has no place on the run clock; sealing writes NULL for it.
    start_s = math.nan if attempt is None or attempt.run_clock_s is None else attempt.run_clock_s
    return TaskRecord(
        run_id=cell.plan.run_id,
        cell_id=cell.cell_id,
        policy=cell.policy.label,
        seed=cell.seed,
        device_id=device,
        task_id=cell.task_id(device, task.index),
        epoch=task.epoch,
        backend=BACKEND,
        attempt=attempt.attempt if attempt else 0,
        arrived_s=start_s + task.offset_s,
        content_id=task.content_id,
        frames=task.frames,
        deadline_s=task.deadline_s,
        outcome=outcome.value,
        reason=reason,
        deadline_met=False if outcome is Outcome.FAILED else None,
    )


def verdict_on(
    device: str, task: PlannedTask, attempt: Attempt | None, *, is_needed: bool = True
) -> tuple[Outcome, str]:
    """Outcome and reason of a task that nobody reported.

    It is ``failed`` only where it certainly was not done: its cell never began, was stopped before the task came, or
    the device's program was dead when it came. Silence is ``unknown``.
    """
    if attempt is None and not is_needed:
        return Outcome.FAILED, NOT_NEEDED
    if attempt is None or attempt.run_clock_s is None:
        return Outcome.FAILED, NOT_RUN
    if attempt.stopped_s is not None and task.offset_s > attempt.stopped_s and device not in attempt.lost:
        return Outcome.FAILED, NOT_RUN
    down_since_s = attempt.down.get(device)
    if down_since_s is not None and task.offset_s > down_since_s:
        return Outcome.FAILED, DEVICE_DOWN
    return Outcome.UNKNOWN, LOST
