"""Energy of a task, by one rule.

The energy of a task is marginal, what the task adds to a board that is on anyway::

    E = (max_w - idle_w) x busy core-seconds / cores + transmit_w x seconds on air

Waiting that emulates a slower board counts as busy, since the slower board would have worked. Idle energy is reported
per cell, apart. Where a sensor sits on the board, a window's energy minus idle is shared out by busy time instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgebed.errors import BadInput
from edgebed.metering.base import Energy, Reading, window_energy
from edgebed.metering.board import Board


@dataclass(frozen=True, slots=True)
class TaskEnergy:
    """Marginal energy of one task on one host.

    Attributes:
        device_energy_j: joules that the task added on the host whose board was given; for a task's part at the edge
            server that is the server's board.
        error_j: bound on its error.
        source: ``estimated:cpu-model/<board>`` or ``measured:<chip>``.
    """

    device_energy_j: float
    error_j: float
    source: str


def task_energy_estimate(board: Board, busy_s: float, air_s: float) -> TaskEnergy:
    """Energy of a task by the board's power model.

    Args:
        board: the board that the task ran on, or that is emulated.
        busy_s: busy core-seconds: CPU seconds of the task, and the waiting that emulates a slower board.
        air_s: seconds in which the radio sent the task's bytes.

    Raises:
        BadInput: a duration is negative or not finite.
    """
    _check_not_negative(busy_s=busy_s, air_s=air_s)
    compute_j = board.span_w * busy_s / board.cores
    transmit_j = board.transmit_w * air_s
    error_j = board.marginal_error_fraction * compute_j + board.transmit_error_fraction * transmit_j
    return TaskEnergy(compute_j + transmit_j, error_j, board.energy_source)


def share_window_energy(
    start: Reading,
    end: Reading,
    *,
    idle_w: float,
    idle_error_w: float,
    busy_s: Sequence[float],
    host_busy_s: float | None = None,
) -> list[TaskEnergy]:
    """Share what a meter saw in a window, minus idle, among the window's tasks by their busy time.

    Each task gets (E - idle T) x its busy time / the host's busy time, and the same share of the error, which is the
    meter's own and the idle power's. A window that seems to be below idle is 0 J with at least the missing joules as
    error. That busy seconds differ in what they draw is not in the error.

    Args:
        start: the meter's reading at the window's begin.
        end: the same meter's reading at its end.
        idle_w: power of the host when idle, best from the same meter.
        idle_error_w: bound on the error of ``idle_w``.
        busy_s: busy core-seconds of each task within the window.
        host_busy_s: busy core-seconds of the whole host. When it is more than the tasks' sum, the rest was other
            work, which keeps its share; when None, all the energy above idle is the tasks'.

    Returns:
        One `TaskEnergy` a task, in order.

    Raises:
        BadInput: the readings are not of one meter and in order, or a quantity is negative or not finite.
    """
    _check_not_negative(idle_w=idle_w, idle_error_w=idle_error_w, host_busy_s=host_busy_s or 0.0)
    for index, each in enumerate(busy_s):
        _check_not_negative(**{f"busy_s[{index}]": each})
    marginal = _above_idle(start, end, idle_w, idle_error_w)
    whole_s = max(math.fsum(busy_s), host_busy_s or 0.0)
    if whole_s == 0:
        # Nobody was seen working, so whoever drew it, any one task may have: that is what its error says.
        error_j = marginal.energy_j + marginal.error_j
        return [TaskEnergy(0.0, error_j, marginal.source) for _ in busy_s]
    shares = [each / whole_s for each in busy_s]
    return [TaskEnergy(marginal.energy_j * each, marginal.error_j * each, marginal.source) for each in shares]


def idle_energy(board: Board, duration_s: float) -> Energy:
    """What the board would have used in ``duration_s`` seconds with nothing to do, by its model.

    Raises:
        BadInput: the duration is negative or not finite.
    """
    _check_not_negative(duration_s=duration_s)
    energy_j = board.idle_w * duration_s
    return Energy(energy_j, board.error_fraction * energy_j, board.energy_source)


def idle_energy_j(board: Board, duration_s: float) -> float:
    """The joules of `idle_energy` alone, for sums whose source and error are kept elsewhere."""
    return idle_energy(board, duration_s).energy_j


def _above_idle(start: Reading, end: Reading, idle_w: float, idle_error_w: float) -> Energy:
    window = window_energy(start, end)
    duration_s = end.t_s - start.t_s
    above_j = window.energy_j - idle_w * duration_s
    error_j = window.error_j + idle_error_w * duration_s
    return Energy(max(0.0, above_j), max(error_j, -above_j), window.source)


def _check_not_negative(**quantities: float) -> None:
    for name, value in quantities.items():
        if not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{name} is {value}; allowed is a finite number, 0 or more")
