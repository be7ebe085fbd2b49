"""A run's folder while somebody works on it: one at a time, and what is known of it kept up to date."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from edgebed.exclusive import exclusive as _exclusive
from edgebed.trace.schema import TaskRecord
from edgebed.trace.segments import SUFFIX, attempt_folder, read_segment
from orchestrator.attempts import Attempt
from orchestrator.plan_file import Plan


def exclusive(folder: Path) -> AbstractContextManager[None]:
    """Work on a run for the length of a ``with`` block; nobody else can meanwhile, and nothing is left behind.

    Raises:
        RunConflict: somebody works on it already.
        BadInput: there is no such folder.
    """
    return _exclusive(folder, "run", "working on this run")


def covers_all_tasks(folder: Path, plan: Plan, attempt: Attempt) -> bool:
    """Has every planned task of an attempt been reported?"""
    cell = plan.cell(attempt.cell_id)
    planned = {
        cell.task_id(device.name, task.index) for device in plan.devices for task in cell.planned_tasks(device.name)
    }
    decode = msgspec.msgpack.Decoder(TaskRecord).decode
    for path in attempt_folder(folder, attempt.cell_id, attempt.attempt).glob(f"*{SUFFIX}"):
        planned -= {decode(record.row).task_id for record in read_segment(path) if record.kind == "task"}
    return not planned
