"""Service times: ``(overhead_s + seconds_per_frame x frames) x stretch(others) x drift(cell) x ratio``.

Hosts that share processors slow each other down: ``stretch = 1 + per_other k + per_excess max(0, k + 1 - cores)`` with
``k`` the computations of the group that went on when this one began (`edgebed.simulation.testbed.profile.Processor`).
The drift is how long everything computed in a cell, relative to the median cell; without it the slow cells of a
machine that others use too would look like slow tasks in every cell. Lines and stretch are fitted in turns until they
agree; then the drift, and lines and stretch again without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.profile import Processor
from orchestrator.calibration.distributions import FloatArray
from orchestrator.calibration.fitting import LineFit, fit_line, fit_proportional
from orchestrator.calibration.rows import Rows, others_at_start

TURNS = 20
LEAST_ROWS = 5
LEAST_IN_CELL = 20
"""Computations of a cell from which its drift can be told."""

LEAST_SPREAD = 0.05
"""Standard deviation of the number of others below which their effect cannot be told."""


@dataclass(frozen=True, slots=True)
class Computations:
    """What one host executed, or several alike.

    Attributes:
        frames, duration_s, others, cpu_s: ``[n]``, of each task; ``others`` as in `others_at_start`.
        position: ``[n]``, its row.
        cell: ``[n]``, a number of its cell.
    """

    frames: FloatArray
    duration_s: FloatArray
    others: FloatArray
    cpu_s: FloatArray
    position: NDArray[np.intp]
    cell: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class ServiceFits:
    """The fits of hosts that were seen computing.

    Attributes:
        lines: by host. ratios of a line have stretch and drift taken out.
        processors: by group.
        drift: ``[cells]``; 1 for those that computed too little to tell.
    """

    computations: dict[str, Computations]
    lines: dict[str, LineFit]
    processors: dict[str, Processor]
    drift: FloatArray


def computations_of(rows: Rows, group_of: Mapping[str, str]) -> dict[str, Computations]:
    """What each host executed, devices and servers, by name; done tasks that are usable."""
    on_device, at_server = others_at_start(rows, dict(group_of))
    fits = rows.is_usable & rows.is_done
    cell = np.zeros(len(rows), np.intp)
    for number, positions in enumerate(rows.by_cell()):
        cell[positions] = number
    found: dict[str, Computations] = {}
    sides = (
        ("device_id", "device_compute_s", "device_cpu_s", rows["frames"] - _edge_frames(rows), on_device),
        ("server", "server_compute_s", "server_cpu_s", _edge_frames(rows), at_server),
    )
    for host_column, duration_column, cpu_column, frames, others in sides:
        there = fits & (rows[duration_column] > 0) & (frames > 0)
        for host in sorted(set(rows[host_column][there])):
            kept = there & (rows[host_column] == host)
            found[host] = Computations(
                frames=frames[kept],
                duration_s=rows[duration_column][kept],
                others=others[kept],
                cpu_s=rows[cpu_column][kept],
                position=np.flatnonzero(kept),
                cell=cell[kept],
            )
    return found


def _edge_frames(rows: Rows) -> FloatArray:
    frames: FloatArray = np.nan_to_num(rows["edge_frames"])
    return frames


def fit_service(
    computations: Mapping[str, Computations], group_of: Mapping[str, str], cores: Mapping[str, float]
) -> ServiceFits:
    """Fit every host that has enough rows, and what shared processors do.

    Args:
        computations: by host.
        group_of: the group of processors of each host that shares some.
        cores: of each group.
    """
    enough = {host: found for host, found in computations.items() if len(found) >= LEAST_ROWS}
    processors = {group: Processor(cores=cores[group]) for group in sorted(set(group_of.values()))}
    level = np.ones(1 + max((int(found.cell.max()) for found in enough.values()), default=0))
    lines, processors = _fit_given_levels(enough, group_of, processors, level)
    # Once, not until it agrees: policies decide which hosts compute in a cell, so that the speed of hosts and of cells
    # could be traded for each other without end.
    level = _levels(
        level, [(found, _fitted_s(host, found, lines, group_of, processors)) for host, found in enough.items()]
    )
    lines, processors = _fit_given_levels(enough, group_of, processors, level)
    return ServiceFits(dict(computations), lines, processors, level)


def _fit_given_levels(
    hosts: Mapping[str, Computations],
    group_of: Mapping[str, str],
    processors: Mapping[str, Processor],
    level: FloatArray,
) -> tuple[dict[str, LineFit], dict[str, Processor]]:
    """Lines and stretch, in turns."""
    lines: dict[str, LineFit] = {}
    found_processors = dict(processors)
    for _ in range(TURNS):
        for host, found in hosts.items():
            alone = stretch(found_processors.get(group_of.get(host, "")), found.others)
            lines[host] = fit_line(found.frames, found.duration_s / (alone * level[found.cell]))
        for group, processor in found_processors.items():
            members = [
                (found, found.duration_s / (lines[host].at(found.frames) * level[found.cell]))
                for host, found in hosts.items()
                if group_of.get(host) == group
            ]
            if members:
                found_processors[group] = _fit_processor(processor.cores, members)
    return lines, found_processors


def _fitted_s(
    host: str,
    found: Computations,
    lines: Mapping[str, LineFit],
    group_of: Mapping[str, str],
    processors: Mapping[str, Processor],
) -> FloatArray:
    return lines[host].at(found.frames) * stretch(processors.get(group_of.get(host, "")), found.others)


def _levels(before: FloatArray, hosts: list[tuple[Computations, FloatArray]]) -> FloatArray:
    """How long everything computed in each cell, relative to the median cell; 1 where too little was computed.

    Args:
        before: ``[cells]``, of the turn before.
        hosts: what each computed, and its fitted seconds in a cell of level 1.
    """
    if not hosts:
        return before
    cell = np.concatenate([found.cell for found, _ in hosts])
    ratio = np.concatenate([found.duration_s / fitted_s for found, fitted_s in hosts])
    level = np.ones(len(before))
    told = [number for number in range(len(before)) if (cell == number).sum() >= LEAST_IN_CELL]
    for number in told:
        level[number] = np.median(ratio[cell == number])
    if told:
        level[told] /= np.median(level[told])
    return level


def stretch(processor: Processor | None, others: FloatArray) -> FloatArray:
    """How much longer computations take with so many others."""
    if processor is None:
        return np.ones(len(others))
    excess = np.maximum(0.0, others + 1.0 - processor.cores)
    found: FloatArray = 1.0 + processor.per_other * others + processor.per_excess * excess
    return found


def _fit_processor(cores: float, hosts: list[tuple[Computations, FloatArray]]) -> Processor:
    """From what each host computed, and how long that took relative to its line."""
    others = np.concatenate([found.others for found, _ in hosts])
    ratio = np.concatenate([each for _, each in hosts])
    if np.std(others) < LEAST_SPREAD:
        return Processor(cores=cores)
    # On one core every other computation is one too many: the two causes cannot be told apart.
    excess = np.maximum(0.0, others + 1.0 - cores) * (cores > 1.0)
    (level, per_other, per_excess), _ = fit_proportional(ratio, np.ones(len(others)), others, excess)
    if level <= 0:
        return Processor(cores=cores)
    return Processor(cores=cores, per_other=per_other / level, per_excess=per_excess / level)
