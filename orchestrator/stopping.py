"""Whether a run goes on with its next cell: its plan's ``stop``, held against what has been run.

A block is all cells of one seed. ``half_width`` is looked at between blocks only, so that every seed that is begun is
there for every policy. The decision rests on complete cells alone; so a session that resumes decides as the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from edgebed.trace.manifest import State
from orchestrator.attempts import Attempts
from orchestrator.plan_file import Plan, PlannedCell
from orchestrator.stop_rule import HalfWidth, Rule, StopRule, StopState, read_stop_state, write_stop_state


class Stopping:
    """Decides before each cell.

    Args:
        folder: the run's; gets ``stop.json`` when its plan has a rule.
        plan: that in the folder.
        attempts: those of the run.

    Attributes:
        worked_before_s: how long earlier sessions have worked.
    """

    def __init__(self, folder: Path, plan: Plan, attempts: Attempts) -> None:
        self._folder, self._plan, self._attempts = folder, plan, attempts
        self._rule = plan.stop or StopRule()
        self._state = read_stop_state(folder) if plan.stop is not None else StopState()
        self.worked_before_s = self._state.worked_s
        self._measured: dict[str, float | None] = {}

    @property
    def has_ended_it(self) -> bool:
        """Has the rule ended the run, now or in an earlier session?"""
        return bool(self._state.rule)

    def final_state(self, problem: str, *, is_interrupted: bool) -> State:
        """The state of the run at its end: as always, but for cells that are not needed, or were not to be begun.

        Args:
            problem: why it could not go on; empty when it could.
            is_interrupted: someone has asked to stop.
        """
        if self._state.not_needed.issuperset(self._attempts.missing):
            return "complete"
        was_stopped = is_interrupted or (self.has_ended_it and not problem)
        return "incomplete" if was_stopped else "failed"

    @property
    def not_needed(self) -> frozenset[str]:
        """Cells that the run is complete without."""
        return self._state.not_needed

    def ends_before(self, cell_id: str, worked_s: float) -> bool:
        """Does the run end before this cell, the first that is missing?

        Args:
            cell_id: the cell.
            worked_s: how long the run has worked, all its sessions together.

        Raises:
            RunConflict: this edgebed plans other tasks than the one that made the plan.
            MissingExtra: DuckDB is not installed.
        """
        if self._plan.stop is None:
            return False
        self.note(worked_s)
        if self._rule.run_s is not None and self._state.worked_s >= self._rule.run_s:
            self._end_by_time(self._rule.run_s)
        elif self._rule.half_width is not None and self._is_between_blocks(cell_id):
            self._end_by_width(self._rule.half_width)
        return self.has_ended_it

    def note(self, worked_s: float) -> None:
        """Write down how long the run has worked; a session that is killed counts up to the last time."""
        if self._plan.stop is not None:
            self._state.worked_s = worked_s
            write_stop_state(self._folder, self._state)

    def _end_by_time(self, run_s: float) -> None:
        missing = self._attempts.missing
        self._end(
            "run_s",
            f"Stopped by stop.run_s: the run has worked {self._state.worked_s:.4g} s of {run_s:g} s; "
            f"{len(missing)} of {len(self._plan.listed_cells)} cells were not begun, and resuming begins none: "
            "for those start a new run with a larger stop.run_s",
        )

    def _end(self, rule: Rule, text: str, half_widths: dict[str, float] | None = None) -> None:
        state = self._state
        state.rule, state.text, state.half_widths = rule, text, half_widths or {}
        state.not_begun = self._attempts.missing
        write_stop_state(self._folder, state)

    # -- half widths --------------------------------------------------------------------------------------------------

    def _is_between_blocks(self, cell_id: str) -> bool:
        seed = self._plan.cell(cell_id).seed
        return not any(self._attempts.is_complete(cell.id) for cell in self._plan.listed_cells if cell.seed == seed)

    def _end_by_width(self, wanted: HalfWidth) -> None:
        cells = self._complete_blocks()
        seeds = {cell.seed for cell in cells}
        if len(seeds) < wanted.min_seeds:
            return
        widths = dict(self._half_widths(cells, wanted.measure))
        known = [width for width in widths.values() if width is not None]
        if not known or len(known) < len(widths) or max(known) > wanted.at_most:
            return
        missing = self._attempts.missing
        self._end(
            "half_width",
            f"Stopped by stop.half_width after {len(seeds)} of {len(self._plan.seeds)} seeds: the paired 95 % "
            f"half width of {wanted.measure} is {max(known):.3g} at most, {wanted.at_most:g} was asked for; "
            f"{len(missing)} of {len(self._plan.listed_cells)} cells were not needed. An interval by which it was "
            "decided to stop covers somewhat less than 95 %",
            {name: width for name, width in widths.items() if width is not None},
        )

    def _complete_blocks(self) -> list[PlannedCell]:
        """The cells of the seeds all of whose cells are complete."""
        cells = self._plan.cells
        begun = {cell.seed for cell in cells if not self._attempts.is_complete(cell.cell_id)}
        return [cell for cell in cells if cell.seed not in begun]

    def _half_widths(self, cells: list[PlannedCell], measure: str) -> Iterator[tuple[str, float | None]]:
        """Of every pair of policies in every setting; None where it is not known."""
        from orchestrator.statistics import paired_difference  # here: SciPy takes a while, and few runs have the rule

        by_seed: dict[tuple[str, str], dict[int, float | None]] = {}
        for cell in cells:
            by_seed.setdefault((cell.cell.setting, cell.cell.policy), {})[cell.seed] = self._measure(cell, measure)
        for setting in self._plan.settings:
            for first, second in combinations([policy.label for policy in self._plan.policies], 2):
                found = paired_difference(by_seed[setting.name, first], by_seed[setting.name, second]).interval
                name = f"{first} - {second}" + (f", {setting.name}" if len(self._plan.settings) > 1 else "")
                # Seeds without a value are not in the interval: it is no narrower for their being left out.
                is_whole = found is not None and found.n == len({cell.seed for cell in cells})
                yield name, found.half_width if found is not None and is_whole else None

    def _measure(self, cell: PlannedCell, measure: str) -> float | None:
        if cell.cell_id not in self._measured:
            from orchestrator.stop_measures import measure_of_cell

            attempt = self._attempts.latest(cell.cell_id)
            assert attempt is not None, "the cell is complete"
            self._measured[cell.cell_id] = measure_of_cell(self._folder, cell, attempt, measure)
        return self._measured[cell.cell_id]
