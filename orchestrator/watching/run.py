"""A run, seen from its folder: attempts, raw segments, tables, manifest; no lock is taken and nothing is written.

What is on this machine is what can be seen: rows that hosts still hold come with the first look after they were sent,
and a simulated cell shows its tasks when it is complete.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgebed.errors import BadInput
from edgebed.exclusive import is_taken
from edgebed.trace.manifest import MANIFEST_FILE, Manifest, read_manifest
from edgebed.trace.runs import PLAN_FILE, TABLES, Run
from edgebed.trace.schema import EventRecord
from edgebed.trace.segments import SUFFIX, attempt_folder, latest_attempt, outside_path
from orchestrator.attempts import ATTEMPT_FILE, Attempt
from orchestrator.columnar import parts_of
from orchestrator.plan_file import Plan
from orchestrator.progress import CELL_OVERHEAD_S, Standing
from orchestrator.provision.layout import free_name
from orchestrator.report.series import Event
from orchestrator.stop_rule import read_stop_state
from orchestrator.watching.happenings import EVENTS_SHOWN, Happenings
from orchestrator.watching.tail import SegmentTail
from orchestrator.watching.tally import Reported, Tally, tallies_of_tables
from orchestrator.watching.view import PolicyStanding, View, policy_standing

LEFT_AFTER_S = 5.0
"""A run that nobody on this machine works on, and that has not ended, may be one that is just being started."""

_OVER = ("complete", "incomplete", "failed")

_decode_event = msgspec.msgpack.Decoder(EventRecord).decode


@dataclass(slots=True)
class _Cell:
    """What is known of a cell.

    Attributes:
        planned: its tasks.
        segments: of its newest attempt, by path; empty where rows are computed and not reported.
        changed_s: when its newest attempt was written down last, seconds since 1970.
        is_settled: it is complete, and was looked at afterwards.
    """

    planned: int
    horizon_s: float
    warm_up_epochs: int
    attempt: Attempt | None
    reported: Reported
    segments: dict[Path, SegmentTail]
    tally: Tally
    changed_s: float = 0.0
    is_settled: bool = False

    @property
    def is_complete(self) -> bool:
        """Has it come to its end? Of cells without attempts (imported, reevaluated) the rows tell."""
        if self.attempt is None:
            return self.planned > 0 and self.tally.terminal == self.planned
        return self.attempt.state == "complete"


class RunWatch:
    """Looks at a run again and again.

    Args:
        folder: the run's.
        utc_s: the wall clock, seconds since 1970: how old files are, and how long a cell has been running.

    Raises:
        BadInput: it is not a run's, or its plan cannot be read.
        RunConflict: its plan was changed.
    """

    def __init__(self, folder: Path, utc_s: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._utc_s = utc_s
        self._plan = Plan.from_yaml(folder / PLAN_FILE)
        self._cells = _cells_of(self._plan)
        self._outside: dict[Path, SegmentTail] = {}
        self._happenings = Happenings(free_name(self._plan, "controller"))
        self._has_settings = len(self._plan.settings) > 1

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self) -> View:
        """How the run stands now.

        Raises:
            BadInput: the manifest is damaged.
            MissingExtra: DuckDB is not installed, and rows of this run are in tables.
        """
        # The lock first: whoever lets go of it has written everything before.
        is_going_on = is_taken(self.folder)
        manifest = self._manifest()
        state = manifest.state if manifest is not None else "starting"
        if manifest is not None and self._has_ended(manifest, is_going_on):
            return self._ended(manifest)
        for cell_id, cell in self._cells.items():
            if not cell.is_settled:
                self._look_at(cell_id, cell)
        self._look_outside()
        is_left = is_going_on is False and self._quiet_s() > LEFT_AFTER_S
        return self._view(state, is_going_on, manifest, is_left=is_left)

    def _has_ended(self, manifest: Manifest, is_going_on: bool | None) -> bool:
        """Are its tables those of its end? Where the lock cannot be seen, the verdict tells, which comes last."""
        is_sealed = all((self.folder / f"{table}.parquet").is_file() for table in TABLES)
        is_let_go = is_going_on is False or (is_going_on is None and manifest.verdict is not None)
        return manifest.state in _OVER and is_sealed and is_let_go

    def _manifest(self) -> Manifest | None:
        return read_manifest(self.folder) if (self.folder / MANIFEST_FILE).is_file() else None

    def _quiet_s(self) -> float:
        """How long ago this machine wrote something that was looked at."""
        paths = [self.folder, self.folder / MANIFEST_FILE, *self._outside]
        paths += [path for cell in self._cells.values() for path in cell.segments]
        written_s = [path.stat().st_mtime for path in paths if path.exists()]
        return self._utc_s() - max([*written_s, *(cell.changed_s for cell in self._cells.values())])

    def _look_at(self, cell_id: str, cell: _Cell) -> None:
        number = latest_attempt(self.folder, cell_id)
        attempt, changed_s = self._attempt(cell_id, number)
        if attempt is None:
            return
        if cell.attempt is None or cell.attempt.attempt != number:
            cell.reported, cell.segments, cell.tally = Reported(cell.warm_up_epochs), {}, Tally()
        cell.attempt, cell.changed_s = attempt, changed_s
        folder = attempt_folder(self.folder, cell_id, number)
        self._read_segments(cell, folder)
        if cell.segments:
            cell.tally = cell.reported.tally()
        elif attempt.is_over and (folder / "tasks.parquet").is_file():
            cell.tally = tallies_of_tables(parts_of(folder / "tasks.parquet")).get(cell_id, Tally())
        # Rows that a host could only give at the end come after it; the sealed tables have them.
        cell.is_settled = cell.is_complete

    def _read_segments(self, cell: _Cell, folder: Path) -> None:
        for path in folder.glob(f"*{SUFFIX}"):
            for record in cell.segments.setdefault(path, SegmentTail(path)).fresh():
                if record.kind == "task":
                    cell.reported.add(record.row)
                elif record.kind == "event":
                    self._happenings.add(_decode_event(record.row))

    def _attempt(self, cell_id: str, number: int) -> tuple[Attempt | None, float]:
        path = attempt_folder(self.folder, cell_id, number) / ATTEMPT_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Attempt), path.stat().st_mtime
        except FileNotFoundError:
            return None, 0.0
        except (OSError, msgspec.MsgspecError) as error:
            raise BadInput(f"{path}: cannot be understood ({error}); take another copy of the run") from None

    def _look_outside(self) -> None:
        for path in outside_path(self.folder, "x").parent.glob(f"*{SUFFIX}"):
            for record in self._outside.setdefault(path, SegmentTail(path)).fresh():
                if record.kind == "event":
                    self._happenings.add(_decode_event(record.row))

    # -- telling ------------------------------------------------------------------------------------------------------

    def _view(self, state: str, is_going_on: bool | None, manifest: Manifest | None, *, is_left: bool) -> View:
        current = self._current()
        return View(
            path=self.folder,
            kind="run",
            state=state,
            is_going_on=is_going_on,
            is_left=is_left,
            is_over=is_left,
            standing=self._standing(current, state, is_left=is_left),
            cell=current,
            policies=tuple(self._policies()),
            events=tuple(self._happenings.newest),
            problems=(*(manifest.problems if manifest else ()), *self._happenings.problems, *self._unreadable()),
            notes=self._notes(is_left=is_left),
        )

    def _current(self) -> str:
        """The cell that is worked on: the one whose attempt is the newest, while that is not over."""
        attempts = [cell.attempt for cell in self._cells.values() if cell.attempt is not None]
        newest = max(attempts, key=lambda attempt: attempt.serial, default=None)
        return newest.cell_id if newest is not None and not newest.is_over else ""

    def _standing(self, current: str, state: str, *, is_left: bool) -> Standing:
        cells = list(self._cells.values())
        tasks, terminal = sum(cell.planned for cell in cells), sum(cell.tally.terminal for cell in cells)
        rate = 0.0 if is_left else self._rate()
        members = 0 if self._is_computed else len(self._plan.hosts) + 1
        return Standing(
            doing=self._doing(current, state, is_left=is_left),
            cells_done=sum(cell.is_complete for cell in cells),
            cells=len(cells),
            tasks_done=terminal,
            tasks=tasks,
            rate=rate,
            remaining_s=None if is_left else self._remaining_s(current, tasks - terminal, rate),
            up=min(members, len(self._happenings.up)) if not is_left else 0,
            members=members,
        )

    @property
    def _is_computed(self) -> bool:
        """No program on any host takes part."""
        return self._plan.backend != "hosts"

    def _doing(self, current: str, state: str, *, is_left: bool) -> str:
        if is_left:
            return "nobody works on it"
        attempt = self._cells[current].attempt if current else None
        if attempt is not None:
            doing = "simulating" if self._is_computed else attempt.state
            return f"{current}: {doing}"
        if state in _OVER:
            return "sealing"
        return "ending" if all(cell.is_complete for cell in self._cells.values()) else "starting"

    def _policies(self) -> Iterator[PolicyStanding]:
        for setting in self._plan.settings:
            for policy in self._plan.policies:
                ids = [
                    cell.id
                    for cell in self._plan.listed_cells
                    if (cell.policy, cell.setting) == (policy.label, setting.name)
                ]
                cells = [self._cells[cell_id] for cell_id in ids]
                name = f"{policy.label} · {setting.name}" if self._has_settings else policy.label
                done = sum(cell.is_complete for cell in cells)
                yield policy_standing(name, done, len(cells), [cell.tally for cell in cells])

    def _unreadable(self) -> list[str]:
        tails = [*self._outside.values(), *(tail for cell in self._cells.values() for tail in cell.segments.values())]
        return [tail.problem for tail in tails if tail.problem is not None]

    def _notes(self, *, is_left: bool) -> tuple[str, ...]:
        notes = []
        if is_left:
            notes.append(
                f"nobody on this machine works on it; programs on hosts may go on and keep their rows: "
                f"`edgebed resume {self.folder}` goes on"
            )
        if self._is_computed:
            notes.append("simulated: a cell's tasks are seen when it is complete")
        return tuple(notes)

    def _notes_on_ended(self, manifest: Manifest) -> tuple[str, ...]:
        if read_stop_state(self.folder).rule or manifest.state == "complete":
            return ()
        return (f"`edgebed resume {self.folder}` goes on",)

    # -- how fast, how long -------------------------------------------------------------------------------------------

    def _rate(self) -> float:
        """Tasks with an outcome a second, in this session."""
        if self._is_computed:
            return self._rate_of_complete()
        since_s, now_s = self._happenings.session_began_s, self._run_clock_s()
        session = [
            cell
            for cell in self._cells.values()
            if cell.attempt is not None and (cell.attempt.run_clock_s or -1.0) >= since_s
        ]
        began_s = min((cell.attempt.run_clock_s or 0.0 for cell in session if cell.attempt), default=now_s)
        elapsed_s = now_s - began_s
        return sum(cell.tally.terminal for cell in session) / elapsed_s if elapsed_s > 0 else 0.0

    def _rate_of_complete(self) -> float:
        """Where cells are seen when they are complete: tasks since the first of them was, by their files' times."""
        complete = sorted((cell for cell in self._cells.values() if cell.is_complete), key=lambda cell: cell.changed_s)
        elapsed_s = complete[-1].changed_s - complete[0].changed_s if complete else 0.0
        return sum(cell.tally.terminal for cell in complete[1:]) / elapsed_s if elapsed_s > 0 else 0.0

    def _run_clock_s(self) -> float:
        """The run clock now, by the start of the newest attempt on it."""
        started = [
            (attempt.run_clock_s, attempt.started_utc_s)
            for cell in self._cells.values()
            if (attempt := cell.attempt) is not None and attempt.run_clock_s is not None and attempt.started_utc_s
        ]
        if not started:
            return 0.0
        run_clock_s, utc_s = max(started)
        return run_clock_s + max(0.0, self._utc_s() - utc_s)

    def _remaining_s(self, current: str, tasks_left: int, rate: float) -> float | None:
        if self._is_computed:
            return tasks_left / rate if rate > 0 else None
        if not any(cell.attempt is not None for cell in self._cells.values()):
            return None
        left_s = sum(cell.horizon_s + CELL_OVERHEAD_S for cell in self._cells.values() if not cell.is_complete)
        attempt = self._cells[current].attempt if current else None
        if attempt is not None and attempt.run_clock_s is not None:
            left_s -= min(self._cells[current].horizon_s, max(0.0, self._run_clock_s() - attempt.run_clock_s))
        return left_s

    # -- the end ------------------------------------------------------------------------------------------------------

    def _ended(self, manifest: Manifest) -> View:
        """A run that has ended, by its tables: what its report says."""
        tallies = tallies_of_tables([self.folder / "tasks.parquet"])
        for cell_id, cell in self._cells.items():
            cell.attempt, _ = self._attempt(cell_id, latest_attempt(self.folder, cell_id))
            cell.tally = tallies.get(cell_id, Tally())
        cells = list(self._cells.values())
        standing = Standing(
            doing=manifest.state,
            cells_done=sum(cell.is_complete for cell in cells),
            cells=len(cells),
            tasks_done=sum(cell.tally.terminal for cell in cells),
            tasks=sum(cell.planned for cell in cells),
            rate=0.0,
            remaining_s=None,
            up=0,
            members=0,
        )
        return View(
            path=self.folder,
            kind="run",
            state=manifest.state,
            is_going_on=False,
            is_left=False,
            is_over=True,
            standing=standing,
            verdict=manifest.verdict,
            reasons=tuple(manifest.reasons),
            policies=tuple(self._policies()),
            events=_newest_events(self.folder),
            problems=tuple(manifest.problems),
            notes=self._notes_on_ended(manifest),
        )


def _newest_events(folder: Path) -> tuple[Event, ...]:
    answer = Run(folder).query(
        "SELECT t_s, host, kind, coalesce(detail, '') FROM events WHERE t_s IS NOT NULL "
        "ORDER BY t_s DESC, host, kind, detail LIMIT ?",
        [EVENTS_SHOWN],
    )
    return tuple(Event(*row) for row in reversed(answer.rows))


def _cells_of(plan: Plan) -> dict[str, _Cell]:
    """The cells of a plan by their names, nothing known of them yet."""
    counts: Counter[tuple[int, str]] = Counter()
    for found in plan.task_lists:
        for setting in found.settings:
            counts[found.seed, setting] += found.count
    return {
        cell.cell_id: _Cell(
            planned=counts[cell.seed, cell.cell.setting],
            horizon_s=cell.setting.horizon_s,
            warm_up_epochs=cell.setting.warm_up_epochs,
            attempt=None,
            reported=Reported(cell.setting.warm_up_epochs),
            segments={},
            tally=Tally(),
        )
        for cell in plan.cells
    }
