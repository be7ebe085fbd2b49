"""How fast a run goes and how long it will still take, reckoned from when its cells' attempts began and ended."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.progress import CELL_OVERHEAD_S
from orchestrator.watching.cells import WatchedCell, current_of


@dataclass(frozen=True, slots=True)
class Pace:
    """Of a run that has not ended.

    Attributes:
        rate: tasks with an outcome a second; 0 while it is not known.
        remaining_s: seconds that it will take; None while it is not known.
    """

    rate: float
    remaining_s: float | None


def computed_pace(cells: list[WatchedCell]) -> Pace:
    """Where cells are seen when they are complete: tasks since the first of them was, by their files' times."""
    complete = sorted((cell for cell in cells if cell.is_complete), key=lambda cell: cell.changed_s)
    elapsed_s = complete[-1].changed_s - complete[0].changed_s if complete else 0.0
    rate = sum(cell.tally.terminal for cell in complete[1:]) / elapsed_s if elapsed_s > 0 else 0.0
    tasks_left = sum(cell.planned - cell.tally.terminal for cell in cells)
    return Pace(rate, tasks_left / rate if rate > 0 else None)


def hosts_pace(cells: list[WatchedCell], session_began_s: float, utc_s: float) -> Pace:
    """Where cells take the time that they were planned with.

    Args:
        cells: all of the run.
        session_began_s: on the run clock; the rate is this session's.
        utc_s: now, seconds since 1970.
    """
    now_s = _run_clock_s(cells, utc_s)
    begun_s = [
        (cell.attempt.run_clock_s, cell)
        for cell in cells
        if cell.attempt is not None and cell.attempt.run_clock_s is not None
    ]
    session = [(at_s, cell) for at_s, cell in begun_s if at_s >= session_began_s]
    elapsed_s = now_s - min((at_s for at_s, _ in session), default=now_s)
    rate = sum(cell.tally.terminal for _, cell in session) / elapsed_s if elapsed_s > 0 else 0.0
    return Pace(rate, _remaining_s(cells, now_s))


def _remaining_s(cells: list[WatchedCell], now_s: float) -> float | None:
    if not any(cell.attempt is not None for cell in cells):
        return None
    left_s = sum(cell.horizon_s + CELL_OVERHEAD_S for cell in cells if not cell.is_complete)
    current = current_of(cells)
    if current is not None and current.attempt is not None and current.attempt.run_clock_s is not None:
        left_s -= min(current.horizon_s, max(0.0, now_s - current.attempt.run_clock_s))
    return left_s


def _run_clock_s(cells: list[WatchedCell], utc_s: float) -> float:
    """The run clock now, by the start of the newest attempt on it."""
    started = [
        (attempt.run_clock_s, attempt.started_utc_s)
        for cell in cells
        if (attempt := cell.attempt) is not None and attempt.run_clock_s is not None and attempt.started_utc_s
    ]
    if not started:
        return 0.0
    run_clock_s, began_utc_s = max(started)
    return run_clock_s + max(0.0, utc_s - began_utc_s)
