"""The cells of a run as its folder tells of them: attempts, and what their segments and tables hold so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgebed.trace.segments import SUFFIX, attempt_folder, latest_attempt
from orchestrator.attempts import ATTEMPT_FILE, Attempt, read_attempt
from orchestrator.columnar import parts_of
from orchestrator.plan_file import Plan, PlannedCell
from orchestrator.watching.presence import last_written_s
from orchestrator.watching.tail import SegmentTail
from orchestrator.watching.tally import Reported, Tally, tallies_of_tables


@dataclass(slots=True)
class WatchedCell:
    """What is known of a cell.

    Attributes:
        planned: its tasks.
        attempt: its newest; None as long as there is none.
        tally: its tasks so far.
        segments: of its newest attempt, by path; empty where rows are computed and not reported.
        changed_s: when its newest attempt was written down last, seconds since 1970.
        is_settled: it is complete, and was looked at afterwards.
    """

    cell_id: str
    policy: str
    setting: str
    planned: int
    horizon_s: float
    warm_up_epochs: int
    attempt: Attempt | None = None
    tally: Tally = field(default_factory=Tally)
    segments: dict[Path, SegmentTail] = field(default_factory=dict)
    changed_s: float = 0.0
    is_settled: bool = False
    _reported: Reported | None = None

    @property
    def is_complete(self) -> bool:
        """Has it come to its end? Of cells without attempts (imported, reevaluated) the rows tell."""
        if self.attempt is None:
            return self.planned > 0 and self.tally.terminal == self.planned
        return self.attempt.state == "complete"

    def look(self, run_folder: Path, note_event: Callable[[bytes], None]) -> None:
        """Read what has come since the last look.

        Args:
            run_folder: the run's.
            note_event: is given the rows of events.

        Raises:
            BadInput: a file is damaged.
            MissingExtra: DuckDB is not installed, and its rows are in tables.
        """
        if self.is_settled:
            return
        before = self.attempt
        self.look_at_attempt(run_folder)
        if self.attempt is None:
            return
        if before is None or before.attempt != self.attempt.attempt:
            self._reported, self.segments, self.tally = Reported(self.warm_up_epochs), {}, Tally()
        self._look_at_rows(attempt_folder(run_folder, self.cell_id, self.attempt.attempt), note_event)
        # Rows that a host could only give at the end come after it; the sealed tables have them.
        self.is_settled = self.is_complete

    def look_at_attempt(self, run_folder: Path) -> None:
        """Read how far its newest attempt has come.

        Raises:
            BadInput: the file is damaged.
        """
        number = latest_attempt(run_folder, self.cell_id)
        attempt = read_attempt(run_folder, self.cell_id, number)
        if attempt is not None:
            self.changed_s = last_written_s([attempt_folder(run_folder, self.cell_id, number) / ATTEMPT_FILE])
            self.attempt = attempt

    def _look_at_rows(self, folder: Path, note_event: Callable[[bytes], None]) -> None:
        assert self.attempt is not None
        assert self._reported is not None
        for path in folder.glob(f"*{SUFFIX}"):
            for record in self.segments.setdefault(path, SegmentTail(path)).fresh():
                if record.kind == "task":
                    self._reported.add(record.row)
                elif record.kind == "event":
                    note_event(record.row)
        if self.segments:
            self.tally = self._reported.tally()
        elif self.attempt.is_over and (folder / "tasks.parquet").is_file():
            self.tally = tallies_of_tables(parts_of(folder / "tasks.parquet")).get(self.cell_id, Tally())


def cells_of(plan: Plan) -> dict[str, WatchedCell]:
    """The cells of a plan by their names, nothing known of them yet."""
    counts: Counter[tuple[int, str]] = Counter()
    for found in plan.task_lists:
        for setting in found.settings:
            counts[found.seed, setting] += found.count
    return {cell.cell_id: _unseen(cell, counts[cell.seed, cell.cell.setting]) for cell in plan.cells}


def _unseen(cell: PlannedCell, planned: int) -> WatchedCell:
    setting = cell.setting
    return WatchedCell(
        cell_id=cell.cell_id,
        policy=cell.cell.policy,
        setting=cell.cell.setting,
        planned=planned,
        horizon_s=setting.horizon_s,
        warm_up_epochs=setting.warm_up_epochs,
    )


def current_of(cells: list[WatchedCell]) -> WatchedCell | None:
    """The cell that is worked on: the one whose attempt is the newest, while that is not over."""
    begun = [(cell.attempt.serial, number) for number, cell in enumerate(cells) if cell.attempt is not None]
    if not begun:
        return None
    newest = cells[max(begun)[1]]
    return newest if newest.attempt is not None and not newest.attempt.is_over else None
