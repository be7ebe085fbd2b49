"""Run folders: what is in them, checked when they are opened, and readable with SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from edgebed.errors import BadInput, MissingExtra, Problem
from edgebed.trace.manifest import Manifest, read_manifest
from edgebed.trace.schema import EpochRecord, EventRecord, SampleRecord, TaskRecord

if TYPE_CHECKING:
    from types import ModuleType

    from duckdb import DuckDBPyConnection

TABLES: dict[str, type[msgspec.Struct]] = {
    "tasks": TaskRecord,
    "epochs": EpochRecord,
    "samples": SampleRecord,
    "events": EventRecord,
}
"""The tables of a run, ``<name>.parquet`` each, and the type of their rows."""

PLAN_FILE = "plan.yaml"
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: the columns' names, and the rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """The rows, each by column name."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Run:
    """An existing run folder, opened for reading.

    Raises:
        BadInput: the folder is not that of a run.
        SchemaMismatch: the run was written by a newer edgebed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / PLAN_FILE).is_file():
            raise BadInput(f"{path} is not a run: it has no {PLAN_FILE}; `edgebed runs list` shows the runs there are")
        self.manifest = read_manifest(path)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """``plan.yaml`` as plain data.

        Raises:
            BadInput: it is not YAML, or not a mapping.
        """
        path = self.path / PLAN_FILE
        try:
            plan = _read_plan(path.read_bytes())
        except yaml.YAMLError as error:
            raise BadInput(Problem(f"not YAML: {error}", file=str(path))) from None
        if not isinstance(plan, dict):
            raise BadInput(Problem("a plan is a mapping", file=str(path)))
        return plan

    @property
    def is_sealed(self) -> bool:
        """Its four tables are there."""
        return all((self.path / f"{table}.parquet").is_file() for table in TABLES)

    def connect(self) -> DuckDBPyConnection:
        """A DuckDB connection with the views ``tasks``, ``epochs``, ``samples`` and ``events``; the caller closes it.

        Raises:
            BadInput: the run has not been sealed, or a table is damaged.
            MissingExtra: DuckDB is not installed.
        """
        duckdb = import_duckdb("reading a run's tables")
        if not self.is_sealed:
            raise BadInput(
                f"{self.path} has no tables yet (state: {self.manifest.state}); `edgebed resume {self.path}` ends it"
            )
        # Without the setting a query that names no table may find a variable of this program.
        connection: DuckDBPyConnection = duckdb.connect(config={"python_enable_replacements": False})
        connection.execute(QUIET)
        with readable_tables(self.path):
            for table in TABLES:
                file = sql_file(self.path / f"{table}.parquet")
                connection.execute(f"CREATE VIEW {table} AS FROM read_parquet({file})")
        return connection

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Answer:
        """Run one query over the tables. Only what reads is allowed.

        Raises:
            BadInput: the run has not been sealed, the SQL is wrong, or it is not one reading statement.
            MissingExtra: DuckDB is not installed.
        """
        duckdb = import_duckdb("reading a run's tables")
        with self.connect() as connection:
            try:
                statements = connection.extract_statements(sql)
                allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
                if len(statements) != 1 or statements[0].type not in allowed:
                    raise BadInput("a query is one SELECT (or FROM, DESCRIBE, SUMMARIZE, EXPLAIN); nothing is changed")
                found = connection.execute(statements[0], parameters or None)
                names = tuple(str(column[0]) for column in found.description or ())
                return Answer(names, found.fetchall())
            except duckdb.Error as error:
                raise BadInput(f"the query failed: {error}") from None


def _read_plan(data: bytes) -> Any:
    """What a plan says; a plan of many hosts is JSON behind its comment, which is read a hundred times faster."""
    _, brace, _ = data.partition(b"{\n")
    if brace:
        text = b"\n".join(line for line in data.split(b"\n") if not line.startswith(b"#"))
        try:
            return msgspec.json.decode(text)
        except msgspec.MsgspecError:  # YAML, which may have a brace too
            pass
    # libyaml where it is built in: a plan may list many tasks.
    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (a safe loader)


QUIET = "SET enable_progress_bar = false"
"""For every connection: DuckDB draws the progress of long statements on standard output, which is for answers."""


def import_duckdb(what_for: str) -> ModuleType:
    """DuckDB, imported when it is needed.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise MissingExtra("orchestrator", what_for) from None
    return duckdb


@contextmanager
def readable_tables(folder: Path) -> Iterator[None]:
    """Read tables of a run.

    Args:
        folder: the run's, or that in which the tables lie.

    Raises:
        BadInput: one is damaged, or not one of a run.
        MissingExtra: DuckDB is not installed.
    """
    duckdb = import_duckdb("reading a run's tables")
    try:
        yield
    except duckdb.Error as error:
        raise BadInput(
            f"{folder}: its tables cannot be read: {str(error).splitlines()[0]}; they are truncated or not a run's: "
            "take another copy of the run, or delete the table: `edgebed resume` makes it again from the run's segments"
        ) from None


def sql_text(text: object) -> str:
    """A text (or path) as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def sql_file(path: Path) -> str:
    """A path as an SQL literal for DuckDB's reading functions.

    They take names for patterns; bracketed, each letter stands for itself.
    """
    return sql_text("".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path)))


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run as a list shows it.

    Attributes:
        manifest: None when it cannot be read; ``problem`` says why.
    """

    path: Path
    manifest: Manifest | None
    problem: str = ""


def list_runs(runs_folder: Path) -> list[RunEntry]:
    """Every run below ``<runs>/<experiment>/``, the oldest first; an unreadable one is listed with its problem."""
    entries = []
    for plan in sorted(runs_folder.glob(f"*/*/{PLAN_FILE}"), key=lambda plan: (plan.parent.name, plan.parent)):
        if plan.parent.is_symlink():
            continue
        try:
            entries.append(RunEntry(plan.parent, read_manifest(plan.parent)))
        except BadInput as error:
            entries.append(RunEntry(plan.parent, None, str(error)))
    return entries


def find_run(path_or_name: str | Path, runs_folder: Path = Path("runs")) -> Run:
    """Open a run by the path of its folder, by its experiment (the latest run), or by either below ``runs_folder``.

    Raises:
        BadInput: there is no such run; the experiments there are, are named.
    """
    return Run(find_run_folder(path_or_name, runs_folder))


def find_run_folder(path_or_name: str | Path, runs_folder: Path = Path("runs")) -> Path:
    """The folder of the run that `find_run` opens, also of one that is just being started and has no manifest yet.

    Raises:
        BadInput: as there.
    """
    for base in (Path(path_or_name), runs_folder / path_or_name):
        with suppress(OSError):  # a name that is too long for one, say, or a folder that may not be read
            # Without the link, for example in a copy, the newest is the last by its name.
            newest = sorted(plan.parent for plan in base.glob(f"*/{PLAN_FILE}"))[-1:]
            for path in (base, base / LATEST, *newest):
                if (path / PLAN_FILE).is_file():
                    return path.resolve()
    known = sorted({entry.path.parent.name for entry in list_runs(runs_folder)})
    there = f"experiments in {runs_folder}: {', '.join(known)}" if known else f"there are no runs in {runs_folder}"
    raise BadInput(f"there is no run '{path_or_name}'; {there}")
