"""The run that is replayed: opened, checked for what a replay needs, its cells sorted into days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebed.errors import BadInput
from edgebed.trace.runs import QUIET, import_duckdb, readable_tables, sql_file
from edgebed.trace.schema import STAGES, TaskRecord, columns
from orchestrator.calibration.traces import Trace, open_traces
from orchestrator.plan_file import PlannedCell

NEEDED = (
    *("cell_id", "device_id", "task_id", "epoch", "arrived_s", "frames", "payload_bytes", "deadline_s"),
    *("requested_site", "requested_server", "requested_channel", "site", "server", "edge_frames", "edge_fraction"),
    *("decision_s", "outcome", "latency_s", "link_rate_bps", *STAGES),
)
"""Columns of ``tasks`` without which nothing can be replayed."""

_DECIDED = "requested_site IS NOT NULL AND decision_s IS NOT NULL"


def timed_sql(site: str, table: str = "") -> str:
    """Condition on a done task: its stages at a site were recorded. A foreign trace may have nothing but totals."""
    names = ("device_compute_s",) if site == "device" else ("uplink_s", "server_compute_s", "downlink_s")
    return " AND ".join(f"{table}{name} IS NOT NULL" for name in names)


def is_timed_sql(table: str = "") -> str:
    """The same at the site where it was."""
    return f"CASE {table}site WHEN 'device' THEN {timed_sql('device', table)} ELSE {timed_sql('edge', table)} END"


@dataclass(frozen=True, slots=True)
class Day:
    """What one seed and setting brought: the same arrivals under every policy.

    Attributes:
        cells: the recorded ones, in the plan's order.
    """

    seed: int
    setting: str
    cells: tuple[PlannedCell, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A run to be replayed.

    Attributes:
        trace: the run and its plan.
        name: as it was given.
        cells: those to be replayed.
        decided: tasks in them of which it is known what was decided, and when.
        done, timed: of these the done ones, and those whose stages are known.
    """

    trace: Trace
    name: str
    cells: tuple[PlannedCell, ...]
    decided: int
    done: int
    timed: int

    def check_decided(self) -> None:
        """Is there anything that could have been decided otherwise?

        Raises:
            BadInput: no decision is known, or no stage; a policy would only be given what another one got.
        """
        if not self.decided:
            raise BadInput(
                f"{self.trace.run.path}: of none of its tasks is it known what was decided and when (requested_site, "
                "decision_s), so no policy can be judged on it; `--policy recorded` gives it back as it is, "
                "`edgebed import` with these columns makes it replayable"
            )
        if self.done and not self.timed:
            raise BadInput(
                f"{self.trace.run.path}: of none of its {self.done} done tasks are the stages known (device_compute_s; "
                "uplink_s, server_compute_s, downlink_s), so nothing could be computed anew: a policy would be told "
                "the recorded totals of another one; `--policy recorded` gives it back as it is, `edgebed import` "
                "with these columns makes it replayable"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """What a replay's manifest says of it."""
        manifest = self.trace.run.manifest
        return {name: getattr(manifest, name) for name in ("run_id", "plan_hash", "backend", "verdict", "reasons")}

    @property
    def tasks_file(self) -> Path:
        """Its tasks."""
        return self.trace.run.path / "tasks.parquet"

    @property
    def epochs_file(self) -> Path:
        """Its decisions."""
        return self.trace.run.path / "epochs.parquet"

    @property
    def days(self) -> list[Day]:
        """Its cells by seed and setting, in the plan's order."""
        found: dict[tuple[int, str], list[PlannedCell]] = {}
        for cell in self.cells:
            found.setdefault((cell.seed, cell.setting.name), []).append(cell)
        return [Day(seed, setting, tuple(cells)) for (seed, setting), cells in found.items()]


def open_source(name: str, runs_folder: Path, cells: Sequence[str] = ()) -> Source:
    """Open a run to be replayed.

    Args:
        name: its folder, or its experiment's name.
        runs_folder: where it is looked for by name.
        cells: which of its cells; all by default.

    Raises:
        BadInput: it is not there, has no tables, is a replay itself, lacks columns, or its tables are damaged.
        SchemaMismatch: it was written by a newer edgebed.
    """
    (trace,) = open_traces([name], runs_folder)
    rows = _rows_by_cell(trace)
    known = {cell.cell_id: cell for cell in trace.plan.cells}
    if unknown := [cell for cell in cells if cell not in known]:
        raise BadInput(
            f"--cells: {trace.run.path} has no cell {', '.join(unknown)}; it has: {', '.join(sorted(known))}"
        )
    wanted = (cell for cell in trace.plan.cells if not cells or cell.cell_id in cells)
    chosen = tuple(cell for cell in wanted if rows.get(cell.cell_id, (0,))[0])
    if not chosen:
        raise BadInput(f"{trace.run.path}: none of its cells was run, so there is nothing to replay")
    decided, done, timed = (sum(rows[cell.cell_id][column] for cell in chosen) for column in (1, 2, 3))
    return Source(trace, name, chosen, decided, done, timed)


def _rows_by_cell(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Tasks of each cell that were run; of these the decided ones; of these the done ones; of these the timed ones.

    The whole table is read, so that damage shows before anything is made.

    Raises:
        BadInput: columns are missing, rows are, or the file is damaged.
    """
    path = trace.run.path / "tasks.parquet"
    duckdb = import_duckdb("replaying a run")
    with readable_tables(trace.run.path), duckdb.connect() as connection:
        connection.execute(QUIET)
        described = connection.execute(f"DESCRIBE FROM read_parquet({sql_file(path)})").fetchall()
        _check_columns(path, {name: kind for name, kind, *_ in described})
        found = connection.execute(
            "SELECT cell_id, count(*), count(*) FILTER (coalesce(reason, '') NOT IN ('not_run', 'not_needed')), "  # noqa: S608
            f"count(*) FILTER ({_DECIDED}), count(*) FILTER ({_DECIDED} AND outcome = 'done'), "
            f"count(*) FILTER ({_DECIDED} AND outcome = 'done' AND {is_timed_sql()}), "
            "sum(latency_s + server_compute_s + arrived_s) "
            f"FROM read_parquet({sql_file(path)}) GROUP BY cell_id"
        ).fetchall()
        epochs = sql_file(trace.run.path / "epochs.parquet")
        connection.execute(f"SELECT max(len(observation)) FROM read_parquet({epochs})").fetchall()  # noqa: S608
    told = trace.run.manifest.counts.get("planned")
    rows = sum(count for _, count, *_ in found) - trace.run.manifest.counts.get("unplanned", 0)
    if told is not None and rows != told:
        raise BadInput(
            f"{path} has {rows} tasks, its manifest says {told}: the table is not whole; take another copy, or "
            "seal the run again with `edgebed resume`"
        )
    return {cell_id: tuple(counts) for cell_id, _, *counts, _ in found}


def _check_columns(path: Path, given: dict[str, str]) -> None:
    missing = [name for name in NEEDED if name not in given]
    if missing:
        raise BadInput(
            f"{path} lacks columns that a replay needs: {', '.join(missing)}; it has: {', '.join(given)}; "
            "`edgebed import` maps a foreign trace"
        )
    types = dict(columns(TaskRecord))
    wrong = [f"{name} is {given[name]}, not {types[name]}" for name in NEEDED if given[name] != types[name]]
    if wrong:
        raise BadInput(f"{path}: {'; '.join(wrong)}: the table is not one of edgebed")
