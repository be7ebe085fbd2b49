"""The runs that a profile is fitted to, or compared with: opened, checked to belong together, read column by column.

Reading is streaming: DuckDB filters and samples, and no more than `MOST_ROWS` rows of a run come into memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.trace.runs import PLAN_FILE, Run, find_run, readable_tables
from orchestrator.measures import counted_tasks
from orchestrator.plan_file import Plan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MOST_ROWS = 200_000
"""Rows of a run that are used; of a longer one as many are drawn, evenly and reproducibly."""

Columns = dict[str, NDArray[Any]]
"""Columns of a table by name: floats with NaN for NULL, texts with an empty one for NULL."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A sealed run.

    Attributes:
        plan: what it was to do.
    """

    run: Run
    plan: Plan

    @property
    def run_id(self) -> str:
        """The run's name for itself."""
        return self.run.manifest.run_id

    @property
    def model_sha256(self) -> str:
        """Checksum of the recogniser; empty where the run does not say."""
        return self.run.manifest.model.sha256

    @property
    def workloads(self) -> tuple[str, ...]:
        """What its settings compute, each once."""
        return tuple(sorted({setting.workload for setting in self.plan.settings}))

    @property
    def boards(self) -> dict[str, str]:
        """The board of each host."""
        return {host.name: host.board for host in self.plan.hosts}

    @property
    def has_faults(self) -> bool:
        """Was something broken on purpose?"""
        return any(each.faults for each in self.plan.fault_lists)

    @property
    def conditions(self) -> str:
        """What is equal in runs that repeat each other, as a text: tasks, policies, settings, and what hosts are.

        Not the plan's hash: that of another version of edgebed may tell of more.
        """
        plan = self.plan
        hosts = [
            (host.name, host.board, host.slowdown, host.link_rate_bps, host.workers, host.queue_tasks)
            for host in plan.hosts
        ]
        tasks = [(each.seed, each.device, each.settings, each.sha256) for each in plan.task_lists]
        cells = sorted((cell.policy, cell.seed, cell.setting) for cell in plan.listed_cells)
        plain = msgspec.to_builtins([hosts, tasks, cells, plan.policies, plan.settings])
        return json.dumps(plain, sort_keys=True)

    @contextmanager
    def counted(self) -> Iterator[DuckDBPyConnection]:
        """A connection with the view ``counted`` (`orchestrator.measures`).

        Raises:
            BadInput: a table is damaged, or not one of a run.
            MissingExtra: DuckDB is not installed.
        """
        with readable_tables(self.run.path), counted_tasks(self.run) as connection:
            yield connection


def open_traces(names: Sequence[str], runs_folder: Path) -> list[Trace]:
    """Open runs by path or by the name of their experiment.

    Raises:
        BadInput: one is not there, has not been sealed, is damaged, was named twice, or is a replay.
        SchemaMismatch: one was written by a newer edgebed; both versions are named.
    """
    traces = [_opened(name, runs_folder) for name in names]
    seen: set[Path] = set()
    for trace in traces:
        if trace.run.path in seen:
            raise BadInput(f"{trace.run.path} is given twice: its tasks would count twice; name each run once")
        seen.add(trace.run.path)
    return traces


def _opened(name: str, runs_folder: Path) -> Trace:
    run = find_run(name, runs_folder)
    run.connect().close()  # are its tables there, and tables? Better known before the work than after it
    if run.manifest.backend == "replayed":
        raise BadInput(f"{run.path} is a replay: it says nothing new of hosts; give the run that was replayed")
    return Trace(run, Plan.from_yaml(run.path / PLAN_FILE))


def check_alike(traces: Sequence[Trace]) -> None:
    """Do the runs speak of the same programs on the same boards?

    Raises:
        BadInput: no run was given.
        SchemaMismatch: two runs have another workload, model, or board for a host of the same name; both are named.
    """
    if not traces:
        raise BadInput("no run was given; name folders of runs, or experiments")
    first = traces[0]
    for other in traces[1:]:
        compare_provenance(str(first.run.path), facts_of(first), str(other.run.path), facts_of(other))


@dataclass(frozen=True, slots=True)
class Provenance:
    """What must be equal for numbers to carry over.

    Attributes:
        boards: of each host, by name.
    """

    workloads: tuple[str, ...]
    model_sha256: str
    boards: dict[str, str]


def facts_of(trace: Trace) -> Provenance:
    """Of a run."""
    return Provenance(trace.workloads, trace.model_sha256, trace.boards)


def compare_provenance(one_name: str, one: Provenance, other_name: str, other: Provenance) -> None:
    """Compare what two sides were made of.

    Raises:
        SchemaMismatch: the workloads, the model's checksum, or the board of a host differ; both sides are named.
    """
    advice = "numbers of one say nothing of the other: use runs of one kind together"
    if one.workloads != other.workloads:
        theirs, ours = ", ".join(other.workloads), ", ".join(one.workloads)
        raise SchemaMismatch(f"workload: {one_name} is of {ours}; {other_name} is of {theirs}; {advice}")
    known = one.model_sha256 and other.model_sha256
    if known and one.model_sha256 != other.model_sha256:
        raise SchemaMismatch(
            f"model: {one_name} is of sha256 {one.model_sha256[:16]}; {other_name} is of "
            f"{other.model_sha256[:16]}; {advice}"
        )
    for host in sorted(one.boards.keys() & other.boards.keys()):
        if one.boards[host] != other.boards[host]:
            raise SchemaMismatch(
                f"board of {host}: {one.boards[host]} in {one_name}, {other.boards[host]} in {other_name}; {advice}"
            )


def read_columns(connection: DuckDBPyConnection, select: str) -> Columns:
    """The answer to a query, column by column."""
    found = connection.execute(select).fetchnumpy()
    return {name: _plain(column) for name, column in found.items()}


def bounded(connection: DuckDBPyConnection, most_rows: int = MOST_ROWS) -> tuple[str, int]:
    """Which tasks are used of a run that has too many: the first epochs of every cell, as many as there is room for.

    Whole epochs, so that whoever computed at the same time is there too.

    Returns:
        A condition on ``counted``, and how many tasks there were to choose from.
    """
    sizes = connection.execute("SELECT epoch, count(*) FROM counted GROUP BY epoch ORDER BY epoch").fetchall()
    total = sum(size for _, size in sizes)
    used, last = 0, -1
    for epoch, size in sizes:
        if used and used + size > most_rows:
            break
        used, last = used + size, epoch
    return ("true" if used == total else f"epoch <= {last}"), total


def _plain(column: Any) -> NDArray[Any]:
    """Without a mask: NaN for NULL in numbers (which become floats), an empty text in texts."""
    mask = np.ma.getmaskarray(column)
    data = np.ma.getdata(column)
    if data.dtype == object or data.dtype.kind in "US":
        return np.array(["" if gone or each is None else each for each, gone in zip(data, mask, strict=True)], object)
    numbers = data.astype(np.float64)
    numbers[mask] = np.nan
    return numbers
