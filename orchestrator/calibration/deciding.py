"""How long deciding took: from the tick, or the arrival, until the decision was known on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgebed.errors import BadInput
from edgebed.simulation.testbed.profile import Decider
from orchestrator.calibration.fitting import stored_quantiles
from orchestrator.calibration.rows import Rows
from orchestrator.calibration.traces import Trace
from orchestrator.plan_file import PlannedCell

Placement = Literal["controller", "device"]


@dataclass(frozen=True, slots=True)
class DeciderFits:
    """Both placements.

    Attributes:
        notes: sentences on what was taken from elsewhere.
        residuals: by placement: decisions, and their median.
    """

    deciders: dict[Placement, Decider]
    notes: tuple[str, ...]
    residuals: dict[str, Any]


def fit_deciders(rows: Rows, traces: Sequence[Trace]) -> DeciderFits:
    """Fit both placements; one at which nothing was decided is taken for as quick as the other.

    Raises:
        BadInput: nothing was decided at all.
    """
    delays: dict[Placement, list[float]] = {"controller": [], "device": []}
    computes: dict[Placement, list[float]] = {"controller": [], "device": []}
    for index, trace in enumerate(traces):
        for cell in trace.plan.cells:
            placement: Placement = "device" if _placement(cell) == "device" else "controller"
            delay, compute = _of_cell(rows, index, trace, cell)
            delays[placement] += delay
            computes[placement] += compute
    seen: list[Placement] = [placement for placement in ("controller", "device") if delays[placement]]
    if not seen:
        raise BadInput("no task that counts was decided in these runs; `edgebed runs show RUN` says what they have")
    deciders: dict[Placement, Decider] = {}
    notes: list[str] = []
    residuals: dict[str, Any] = {}
    for placement in ("controller", "device"):
        basis = placement if placement in seen else seen[0]
        delay_s, compute_s = np.asarray(delays[basis]), np.asarray(computes[basis])
        if basis != placement:
            # Nothing was decided there: the same policy's own time, without the way to the controller.
            notes.append(f"no policy decided at the {placement} in these runs; it is taken for as quick as the {basis}")
        deciders[placement] = Decider(delay_s=stored_quantiles(delay_s), compute_s=stored_quantiles(compute_s))
        fitted = len(delay_s) if basis == placement else 0
        residuals[placement] = {"rows": fitted, "median_s": float(np.median(delay_s))}
    return DeciderFits(deciders, tuple(notes), residuals)


def _placement(cell: PlannedCell) -> str:
    return str(cell.policy.placement or cell.setting.placement)


def _of_cell(rows: Rows, run: int, trace: Trace, cell: PlannedCell) -> tuple[list[float], list[float]]:
    """Seconds from the tick (or the arrival) until the decision was known, and of these the policy's own."""
    mine = (rows["run"] == run) & (rows["cell_id"] == cell.cell_id) & rows.is_usable & ~np.isnan(rows["decision_s"])
    if not mine.any():
        return [], []
    compute_s = np.nan_to_num(rows["decision_compute_s"][mine])
    if cell.setting.decide_at == "arrival":
        return rows["decision_s"][mine].tolist(), compute_s.tolist()
    begin_s = _cell_begin_s(rows.only(mine), trace, cell)
    tick_s = begin_s + (rows["decision_epoch"][mine] + 1) * cell.setting.epoch_s
    delay_s = np.maximum(0.0, rows["arrived_s"][mine] + rows["decision_s"][mine] - tick_s)
    # The tasks of one decision share it; it counts once.
    keys = [*zip(rows["device_id"][mine], rows["decision_epoch"][mine], strict=True)]
    first = sorted({key: place for place, key in reversed(list(enumerate(keys)))}.values())
    return delay_s[first].tolist(), compute_s[first].tolist()


def _cell_begin_s(rows: Rows, trace: Trace, cell: PlannedCell) -> float:
    """The cell's start on the run clock: a task's arrival less its planned offset."""
    device = str(rows["device_id"][0])
    listed = trace.plan.tasks_of(cell.seed, cell.setting.name, device).tasks
    index = int(str(rows["task_id"][0]).rpartition("/")[2])
    offset_s = listed[index][0] if listed is not None else cell.planned_tasks(device)[index].offset_s
    return float(rows["arrived_s"][0] - offset_s)
