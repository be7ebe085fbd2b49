"""Sealing: the raw segments of a run become its four tables.

A row a planned task: of several reports about one the best outcome counts, then the latest; a task that nobody
reported gets the row that the plan has for it. Only each cell's latest attempt is read. Sealing again gives the same
bytes, and a crash while sealing leaves the raw segments and the earlier tables as they were.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebed.errors import BadInput
from edgebed.metering.health import throttle_flags
from edgebed.protocol.cells import CellSpec
from edgebed.trace.runs import QUIET, TABLES, import_duckdb, sql_file, sql_text
from edgebed.trace.schema import RECORD_TYPES, TaskRecord, columns
from orchestrator.seal_staging import PLANNED_RANK, Stage

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLE_REACH_S = 2.0
"""A host's sample speaks for the time since the one before it, but for no longer than this."""

MEMORY_LIMIT = "256MB"
_KEY_COLUMNS = {"_cell": "INTEGER", "_rank": "INTEGER", "_host": "VARCHAR", "_sequence": "BIGINT"}

# The flag that a task gets when its host's throttle word shows one of these.
_TROUBLE = {
    "under_voltage": frozenset({"under_voltage"}),
    "throttled": frozenset({"throttled", "frequency_capped", "soft_temperature_limit"}),
}

OVERLOADED_ABOVE = 0.5
"""A host is overloaded while other programs keep more than this share of its processors busy."""

# The flag that a task gets while a column of its host's samples meets a condition.
_MARKS = {
    "overloaded": ("other_cpu", f"other_cpu > {OVERLOADED_ABOVE}"),
    "wifi_power_save": ("wifi_power_save", "wifi_power_save"),
}


@dataclass(frozen=True, slots=True)
class SealedCounts:
    """What is in the sealed tables.

    Attributes:
        planned: tasks of the plan; each has one row. done, failed, unknown: how they ended.
        unreported: planned tasks whose row is the plan's own, as nobody reported them.
        unplanned: rows, flagged so, of tasks that the plan does not have; not in the other counts.
        problems: what was damaged or left out, a sentence each.
    """

    planned: int
    done: int
    failed: int
    unknown: int
    unreported: int
    unplanned: int
    epochs: int
    samples: int
    events: int
    problems: tuple[str, ...]


def seal(
    run_folder: Path, cells: Sequence[CellSpec], planned: Iterable[TaskRecord], emulated: Collection[str] = ()
) -> SealedCounts:
    """Write ``tasks``, ``epochs``, ``samples`` and ``events.parquet`` of a run.

    Args:
        run_folder: has ``cells/<cell>/attempt-<n>/<host>.records``; gets the tables.
        cells: every cell of the plan, in its order, which becomes the order of the rows.
        planned: a row for every planned task, with the outcome and reason that it has if nobody reported it.
        emulated: names of hosts that stand for others; what ran on them is flagged.

    Raises:
        BadInput: the plan has a task twice, or in a cell that it does not have.
        MissingExtra: DuckDB is not installed.
    """
    import_duckdb("sealing a run")
    folder = run_folder / ".sealing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with Stage(folder, cells) as stage:
            stage.add_planned(planned)
            stage.add_segments(run_folder)
        # DuckDB takes what follows a question mark for options of its database.
        with tempfile.TemporaryDirectory(prefix="edgebed-", dir=None if "?" in str(folder) else folder) as scratch:
            counts = _tabulate(stage, cells, emulated, folder, Path(scratch))
        publish(run_folder, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return counts


def _tabulate(
    stage: Stage, cells: Sequence[CellSpec], emulated: Collection[str], folder: Path, scratch: Path
) -> SealedCounts:
    """Write the tables into ``folder``; the database and what does not fit into memory go to ``scratch``."""
    # One thread: the order of rows, and of the sums of costs, is then the same every time.
    settings = {"memory_limit": MEMORY_LIMIT, "threads": 1, "temp_directory": str(scratch / "spill")}
    with import_duckdb("sealing a run").connect(str(scratch / "seal.duckdb"), config=settings) as connection:
        connection.execute(QUIET)
        _load(connection, stage, cells)
        connection.execute("CREATE TABLE emulated (host VARCHAR)")
        for host in sorted(emulated):
            connection.execute("INSERT INTO emulated VALUES (?)", (host,))
        _check_plan(connection, stage.planned)
        _make_tables(connection)
        for table in TABLES:
            write_table(connection, table, folder)
        return _count(connection, stage.problems)


def _load(connection: DuckDBPyConnection, stage: Stage, cells: Sequence[CellSpec]) -> None:
    for kind, record_type in RECORD_TYPES.items():
        types = _KEY_COLUMNS | dict(columns(record_type))
        spelled = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in types.items())
        connection.execute(
            f"CREATE TABLE raw_{kind} AS FROM read_json({sql_file(stage.path(kind))}, "
            f"format = 'newline_delimited', maximum_object_size = {64 << 20}, columns = {{{spelled}}})"
        )
    connection.execute("CREATE TABLE cell (_cell INTEGER, warm_up_epochs BIGINT, task_timeout_s DOUBLE)")
    for position, cell in enumerate(cells):
        connection.execute("INSERT INTO cell VALUES (?, ?, ?)", (position, cell.warm_up_epochs, cell.timeouts.task_s))


def _check_plan(connection: DuckDBPyConnection, planned: int) -> None:
    found = connection.execute(
        "SELECT task_id FROM raw_task WHERE _rank = ? GROUP BY task_id HAVING count(*) > 1 ORDER BY task_id LIMIT 1",
        (PLANNED_RANK,),
    ).fetchone()
    if found:
        raise BadInput(f"the plan has {planned} tasks and among them '{found[0]}' more than once")


# Which report about a task counts; keys only, so that wide rows are not sorted.
_PICK_TASKS = f"""
CREATE TABLE picked AS
SELECT rowid AS picked_row, task_id,
       bool_or(_rank = {PLANNED_RANK}) OVER (PARTITION BY task_id) AS is_planned
FROM raw_task
QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY _rank DESC, _sequence DESC, _host) = 1
"""  # noqa: S608  (built of constants)

_TASK_TROUBLE = """
CREATE TABLE task_trouble AS
SELECT DISTINCT raw.task_id, trouble.flag
FROM picked JOIN raw_task AS raw ON raw.rowid = picked_row JOIN cell USING (_cell)
JOIN trouble ON trouble.host IN (raw.device_id, raw.server)
WHERE trouble.since_s < raw.arrived_s + coalesce(raw.latency_s, task_timeout_s) AND trouble.until_s >= raw.arrived_s
"""

_TASKS = """
CREATE TABLE tasks AS
SELECT raw.* REPLACE (<flags> AS flags), is_planned
FROM picked JOIN raw_task AS raw ON raw.rowid = picked_row JOIN cell USING (_cell)
"""

REWARDS = """
CREATE TABLE rewards AS
WITH reward_of_device AS (
    SELECT cell_id, device_id, decision_epoch AS epoch, -sum(cost) AS total, bool_and(cost IS NOT NULL) AS complete
    FROM tasks WHERE decision_epoch IS NOT NULL GROUP BY ALL
), reward_of_all AS (
    SELECT cell_id, '' AS device_id, epoch, sum(total) AS total, bool_and(complete) AS complete
    FROM reward_of_device GROUP BY ALL
)
FROM reward_of_device UNION ALL FROM reward_of_all
"""

EPOCHS = """
CREATE TABLE epochs AS
WITH picked_epoch AS (
    SELECT * REPLACE (coalesce(len(action), 0) AS _rank) FROM raw_epoch
    QUALIFY row_number() OVER (
        PARTITION BY _cell, device_id, epoch, coalesce(len(action), 0) = 0 ORDER BY _sequence DESC, _host) = 1
)
SELECT picked_epoch.* REPLACE (
    CASE WHEN _rank > 0 THEN coalesce(total, 0) END AS reward,
    CASE WHEN _rank > 0 THEN coalesce(complete, true) END AS reward_complete,
    CASE WHEN _rank > 0 THEN false END AS terminated,
    CASE WHEN _rank > 0 THEN picked_epoch.epoch = max(CASE WHEN _rank > 0 THEN picked_epoch.epoch END)
        OVER (PARTITION BY _cell, device_id) END AS truncated)
FROM picked_epoch LEFT JOIN rewards USING (cell_id, device_id, epoch)
"""

_ORDER = {
    "tasks": "_cell, device_id, arrived_s, task_id",
    "epochs": "_cell, device_id, epoch, _rank = 0",
    "samples": "host, t_s, _host, _sequence",
    "events": "t_s, host, kind, detail, _host, _sequence",
}


def _make_tables(connection: DuckDBPyConnection) -> None:
    # A record may come twice (reported, written, and its acknowledgement lost), and only then has the same number.
    connection.execute("CREATE TABLE samples AS SELECT DISTINCT * EXCLUDE (_cell, _rank) FROM raw_sample")
    connection.execute("CREATE TABLE events AS SELECT DISTINCT * EXCLUDE (_cell, _rank) FROM raw_event")
    connection.execute(_PICK_TASKS)
    connection.execute("CREATE TABLE trouble (host VARCHAR, flag VARCHAR, since_s DOUBLE, until_s DOUBLE)")
    for spell in list(_spells_of_trouble(connection)):
        connection.execute("INSERT INTO trouble VALUES (?, ?, ?, ?)", spell)
    connection.execute(_TASK_TROUBLE)
    connection.execute(_TASKS.replace("<flags>", _flags()))
    connection.execute(REWARDS)
    connection.execute(EPOCHS)


def _flags() -> str:
    """The expression for a task's flags: those reported, and then those that sealing finds."""
    trouble = "EXISTS (FROM task_trouble AS t WHERE t.task_id = raw.task_id AND t.flag = '{}')"
    found = {
        "warm_up": "epoch < warm_up_epochs",
        "emulated": "EXISTS (FROM emulated AS e WHERE e.host IN (raw.device_id, raw.server))",
        **{flag: trouble.format(flag) for flag in (*_TROUBLE, *_MARKS)},
        "unplanned": "NOT is_planned",
    }
    flags = "coalesce(flags, [])"
    added = ", ".join(
        f"CASE WHEN {condition} AND NOT list_contains({flags}, '{flag}') THEN ['{flag}'] ELSE [] END"
        for flag, condition in found.items()
    )
    return f"list_concat({flags}, {added})"


def _spells_of_trouble(connection: DuckDBPyConnection) -> Iterator[tuple[str, str, float, float]]:
    """Host, flag, begin and end of each time in which a host's samples showed trouble."""
    yield from _spells(connection, "throttle_word", "throttle_word <> 0", trouble_shown)
    for flag, (column, condition) in _MARKS.items():
        yield from _spells(connection, column, condition, partial(_always, [flag]))


def _spells(
    connection: DuckDBPyConnection, column: str, condition: str, flags: Callable[[Any, Any], list[str]]
) -> Iterator[tuple[str, str, float, float]]:
    """Spells by one column of the samples; a sample speaks for the time since the last one that had a value."""
    rows = connection.execute(
        f"SELECT host, t_s, {column}, lag(t_s) OVER before, lag({column}) OVER before FROM samples "  # noqa: S608
        f"WHERE {column} IS NOT NULL WINDOW before AS (PARTITION BY host ORDER BY t_s, _sequence) "
        f"QUALIFY {condition} ORDER BY host, t_s"
    )
    open_spells: dict[tuple[str, str], tuple[float, float]] = {}
    while some := rows.fetchmany(10_000):
        for host, t_s, value, before_s, value_before in some:
            since_s = max(t_s - SAMPLE_REACH_S, t_s if before_s is None else before_s)
            for flag in flags(value, value_before):
                begin_s, end_s = open_spells.get((host, flag), (since_s, since_s))
                if since_s > end_s:
                    yield host, flag, begin_s, end_s
                    begin_s = since_s
                open_spells[host, flag] = (begin_s, t_s)
    for (host, flag), (begin_s, end_s) in open_spells.items():
        yield host, flag, begin_s, end_s


def _always(flags: list[str], value: object, value_before: object) -> list[str]:
    """What the condition of the query has found already."""
    return flags


def trouble_shown(word: int, word_before: int | None) -> list[str]:
    """Task flags (``under_voltage``, ``throttled``) that a host's throttle word calls for.

    "It occurred" counts only where the sample before did not say so yet: some kernels report it since boot.
    """
    shown = throttle_flags(word)
    known = throttle_flags(word if word_before is None else word_before)
    recent = {name for name in shown if not name.endswith("_occurred")}
    recent |= {name.removesuffix("_occurred") for name in shown - known if name.endswith("_occurred")}
    return [flag for flag, names in _TROUBLE.items() if names & recent]


def write_table(connection: DuckDBPyConnection, table: str, folder: Path) -> None:
    """Write a table of the database as Parquet into a folder, sorted, with the columns that it has in a run."""
    names = ", ".join(column.name for column in columns(TABLES[table]))
    rows = f"SELECT {names} FROM {table} ORDER BY {_ORDER[table]}"  # noqa: S608  (the schema's names)
    connection.execute(f"COPY ({rows}) TO {sql_text(folder / table)} (FORMAT parquet, COMPRESSION zstd)")


def publish(run_folder: Path, folder: Path) -> None:
    """Give the finished tables their names; on disk before the earlier ones go."""
    for table in TABLES:
        with (folder / table).open("rb") as file:
            os.fsync(file.fileno())
    for table in TABLES:
        (folder / table).replace(run_folder / f"{table}.parquet")
    descriptor = os.open(run_folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_COUNT = """
SELECT count(*) FILTER (is_planned) AS planned,
       count(*) FILTER (is_planned AND outcome = 'done') AS done,
       count(*) FILTER (is_planned AND outcome = 'failed') AS failed,
       count(*) FILTER (is_planned AND outcome = 'unknown') AS unknown,
       count(*) FILTER (_rank = ?) AS unreported,
       count(*) FILTER (NOT is_planned) AS unplanned,
       (SELECT count(*) FROM epochs) AS epochs,
       (SELECT count(*) FROM samples) AS samples,
       (SELECT count(*) FROM events) AS events
FROM tasks
"""


def _count(connection: DuckDBPyConnection, problems: tuple[str, ...]) -> SealedCounts:
    found = connection.execute(_COUNT, (PLANNED_RANK,))
    names = [column[0] for column in found.description or ()]
    numbers = found.fetchone()
    assert numbers is not None
    return SealedCounts(**dict(zip(names, numbers, strict=True)), problems=problems)
