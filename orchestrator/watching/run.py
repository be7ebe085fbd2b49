"""A run, seen from its folder: attempts, raw segments, tables, manifest; no lock is taken and nothing is written.

What is on this machine is what can be seen: rows that hosts still hold come with the first look after they were sent,
and a cell that is computed here shows its tasks when it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from edgebed.exclusive import is_taken
from edgebed.trace.manifest import MANIFEST_FILE, Manifest, read_manifest
from edgebed.trace.runs import PLAN_FILE, TABLES, Run
from edgebed.trace.schema import EventRecord
from edgebed.trace.segments import SUFFIX, outside_path
from orchestrator.plan_file import Plan
from orchestrator.progress import Standing
from orchestrator.provision.layout import free_name
from orchestrator.report.series import Event
from orchestrator.stop_rule import read_stop_state
from orchestrator.watching.cells import WatchedCell, cells_of, current_of
from orchestrator.watching.happenings import EVENTS_SHOWN, Happenings
from orchestrator.watching.pace import Pace, computed_pace, hosts_pace
from orchestrator.watching.presence import is_left, last_written_s, looking
from orchestrator.watching.tail import SegmentTail
from orchestrator.watching.tally import Tally, tallies_of_tables
from orchestrator.watching.view import PolicyStanding, View, policy_standing

_OVER = ("complete", "incomplete", "failed")
_COMPUTING = {"simulated": "simulating", "replayed": "replaying", "imported": "importing"}
"""What is done with a cell of which no program on any host takes part, by backend."""

_decode_event = msgspec.msgpack.Decoder(EventRecord).decode


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
        self._cells = cells_of(self._plan)
        self._all = list(self._cells.values())
        self._outside: dict[Path, SegmentTail] = {}
        self._happenings = Happenings(free_name(self._plan, "controller"))

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self) -> View:
        """How the run stands now.

        Raises:
            BadInput: a file is damaged, or the folder has gone.
            MissingExtra: DuckDB is not installed, and rows of this run are in tables.
        """
        with looking(self.folder, PLAN_FILE):
            # The lock first: whoever lets go of it has written everything before.
            is_going_on = is_taken(self.folder)
            manifest = read_manifest(self.folder) if (self.folder / MANIFEST_FILE).is_file() else None
            if manifest is not None and self._has_ended(manifest, is_going_on):
                return self._ended(manifest)
            for cell in self._all:
                cell.look(self.folder, self._note_event)
            self._look_outside()
            return self._going_on(manifest, is_going_on)

    def _has_ended(self, manifest: Manifest, is_going_on: bool | None) -> bool:
        """Are its tables those of its end? Where the lock cannot be seen, the verdict tells, which comes last."""
        is_sealed = all((self.folder / f"{table}.parquet").is_file() for table in TABLES)
        is_let_go = is_going_on is False or (is_going_on is None and manifest.verdict is not None)
        return manifest.state in _OVER and is_sealed and is_let_go

    def _look_outside(self) -> None:
        for path in outside_path(self.folder, "x").parent.glob(f"*{SUFFIX}"):
            for record in self._outside.setdefault(path, SegmentTail(path)).fresh():
                if record.kind == "event":
                    self._note_event(record.row)

    def _note_event(self, row: bytes) -> None:
        """Something has happened; what is no event is left to sealing, which says so."""
        try:
            event = _decode_event(row)
        except msgspec.MsgspecError:
            return
        self._happenings.add(event)

    def _written_s(self) -> float:
        """When this machine wrote the newest of what was looked at."""
        paths = [self.folder, self.folder / MANIFEST_FILE, *self._outside]
        paths += [path for cell in self._all for path in cell.segments]
        return max(last_written_s(paths), *(cell.changed_s for cell in self._all))

    # -- telling ------------------------------------------------------------------------------------------------------

    def _going_on(self, manifest: Manifest | None, is_going_on: bool | None) -> View:
        """A run that has not ended."""
        left = is_left(is_going_on, self._written_s(), self._utc_s())
        state, current = manifest.state if manifest is not None else "starting", current_of(self._all)
        members = 0 if self._computing else len(self._plan.hosts) + 1
        standing = self._standing(
            "nobody works on it" if left else self._doing(current, state), Pace(0.0, None) if left else self._pace()
        )
        return View(
            path=self.folder,
            kind="run",
            state=state,
            is_going_on=is_going_on,
            is_left=left,
            is_over=left,
            standing=replace(standing, members=members, up=0 if left else min(members, len(self._happenings.up))),
            cell=current.cell_id if current is not None else "",
            policies=tuple(self._policies()),
            events=tuple(self._happenings.newest),
            problems=(*(manifest.problems if manifest else ()), *self._happenings.problems, *self._unreadable()),
            notes=tuple(self._notes(manifest, left=left)),
        )

    def _ended(self, manifest: Manifest) -> View:
        """A run that has ended, by its tables: what its report says."""
        tallies = tallies_of_tables([self.folder / "tasks.parquet"])
        for cell in self._all:
            cell.look_at_attempt(self.folder)
            cell.tally = tallies.get(cell.cell_id, Tally())
        is_to_go_on = manifest.state != "complete" and not read_stop_state(self.folder).rule
        return View(
            path=self.folder,
            kind="run",
            state=manifest.state,
            is_going_on=False,
            is_left=False,
            is_over=True,
            standing=self._standing(manifest.state, Pace(0.0, None)),
            verdict=manifest.verdict,
            reasons=tuple(manifest.reasons),
            policies=tuple(self._policies()),
            events=_newest_events(self.folder),
            problems=tuple(manifest.problems),
            notes=(self._how_it_goes_on(manifest),) if is_to_go_on else (),
        )

    def _standing(self, doing: str, pace: Pace) -> Standing:
        """Of all cells; nobody up."""
        return Standing(
            doing=doing,
            cells_done=sum(cell.is_complete for cell in self._all),
            cells=len(self._all),
            tasks_done=sum(cell.tally.terminal for cell in self._all),
            tasks=sum(cell.planned for cell in self._all),
            rate=pace.rate,
            remaining_s=pace.remaining_s,
            up=0,
            members=0,
        )

    @property
    def _computing(self) -> str:
        """What is done with a cell; empty where programs on hosts take part."""
        return _COMPUTING.get(self._plan.backend, "")

    def _pace(self) -> Pace:
        if self._computing:
            return computed_pace(self._all)
        return hosts_pace(self._all, self._happenings.session_began_s, self._utc_s())

    def _doing(self, current: WatchedCell | None, state: str) -> str:
        if current is not None and current.attempt is not None:
            return f"{current.cell_id}: {self._computing or current.attempt.state}"
        if state in _OVER:
            return "sealing"
        return "ending" if all(cell.is_complete for cell in self._all) else "starting"

    def _policies(self) -> Iterator[PolicyStanding]:
        for setting in self._plan.settings:
            for policy in self._plan.policies:
                cells = [cell for cell in self._all if (cell.policy, cell.setting) == (policy.label, setting.name)]
                name = f"{policy.label} · {setting.name}" if len(self._plan.settings) > 1 else policy.label
                done = sum(cell.is_complete for cell in cells)
                yield policy_standing(name, done, len(cells), [cell.tally for cell in cells])

    def _unreadable(self) -> list[str]:
        tails = [*self._outside.values(), *(tail for cell in self._all for tail in cell.segments.values())]
        return [tail.problem for tail in tails if tail.problem is not None]

    def _notes(self, manifest: Manifest | None, *, left: bool) -> Iterator[str]:
        if left:
            elsewhere = "" if self._computing else "; programs on hosts may go on and keep their rows"
            yield f"nobody on this machine works on it{elsewhere}: {self._how_it_goes_on(manifest)}"
        if self._computing:
            yield f"{self._plan.backend}: a cell's tasks are seen when it is complete"

    def _how_it_goes_on(self, manifest: Manifest | None) -> str:
        if self._plan.backend in ("hosts", "simulated"):
            return f"`edgebed resume {self.folder}` goes on"
        command = f"; it was made by `{manifest.command}`" if manifest is not None and manifest.command else ""
        return f"a run that was {self._plan.backend} is not resumed but made again{command}"


def _newest_events(folder: Path) -> tuple[Event, ...]:
    answer = Run(folder).query(
        "SELECT t_s, host, kind, coalesce(detail, '') FROM events WHERE t_s IS NOT NULL "
        "ORDER BY t_s DESC, host, kind, detail LIMIT ?",
        [EVENTS_SHOWN],
    )
    return tuple(Event(*row) for row in reversed(answer.rows))
