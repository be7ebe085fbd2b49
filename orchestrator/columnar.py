"""Tables of a run written from arrays: for rows that are computed all at once, and not reported one by one.

The folder of a cell's attempt then holds ``tasks.parquet``, ``epochs.parquet`` and ``events.parquet`` instead of raw
segments, with the columns, types and order of the sealed tables; `orchestrator.seal_columnar` joins them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.trace.runs import QUIET, import_duckdb, sql_file, sql_text
from edgebed.trace.schema import TaskRecord, columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Values = NDArray[Any] | str | int | float | bool | None

_MEMORY_LIMIT = "512MB"


@dataclass(frozen=True, slots=True)
class Names:
    """Texts by their number; a negative number is NULL."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    def values(self) -> NDArray[Any]:
        """The texts, masked where there is none."""
        texts = np.array(self.names or ("",), dtype=object)[np.maximum(self.codes, 0)]
        return np.ma.masked_array(texts, mask=self.codes < 0) if (self.codes < 0).any() else texts


@dataclass(frozen=True, slots=True)
class Written:
    """An SQL expression over the other columns and the given arrays."""

    sql: str


@dataclass(slots=True)
class Table:
    """Rows to be written.

    Attributes:
        rows: how many.
        values: by column: an array (NaN and masked become NULL), `Names`, an SQL expression, or one value for all.
            Columns that are left out are NULL.
        arrays: further arrays that expressions use.
        flags: in order; where each flag is set: an array, or True for all.
    """

    rows: int
    values: dict[str, Values | Names | Written] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    flags: dict[str, NDArray[np.bool_] | bool] = field(default_factory=dict)


def not_nan(values: NDArray[np.float64]) -> NDArray[Any]:
    """The values, masked where they are NaN: unknown is NULL."""
    is_unknown = np.isnan(values)
    return np.ma.masked_array(values, mask=is_unknown) if is_unknown.any() else values


def where_known(values: NDArray[Any], is_known: NDArray[np.bool_]) -> NDArray[Any]:
    """The values, masked where they are not known."""
    return values if is_known.all() else np.ma.masked_array(values, mask=~is_known)


class ColumnWriter:
    """Writes tables as Parquet, through one database in memory.

    Args:
        scratch: a folder for what does not fit into memory.

    Raises:
        MissingExtra: DuckDB is not installed.
    """

    def __init__(self, scratch: Path) -> None:
        settings = {"memory_limit": _MEMORY_LIMIT, "threads": 1, "temp_directory": str(scratch / ".spill")}
        self._connection: DuckDBPyConnection = import_duckdb("writing a run's tables").connect(config=settings)
        self._connection.execute(QUIET)

    def write(self, path: Path, record_type: type[msgspec.Struct], table: Table) -> None:
        """Write rows, in the order that they have, with exactly the columns of ``record_type``.

        Args:
            path: replaced in one step.
            record_type: of `edgebed.trace.schema`.
            table: what is in them.

        Raises:
            BadInput: a column is not one of this table, or of another length.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        scanned, selected = _selection(record_type, table)
        source = "given" if table.rows else "(SELECT 1 WHERE false)"
        if table.rows:
            self._connection.register("given", scanned)
        self._connection.execute(
            f"COPY (SELECT {selected} FROM {source}) TO {sql_text(temporary)} "  # noqa: S608  (the schema's names)
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        if table.rows:
            self._connection.unregister("given")
        temporary.replace(path)

    def write_rows(self, path: Path, rows: Iterable[msgspec.Struct], record_type: type[msgspec.Struct]) -> None:
        """Write a few rows."""
        plain: list[Mapping[str, Any]] = [msgspec.to_builtins(row) for row in rows]
        names = [column.name for column in columns(record_type)]
        values: dict[str, Values | Names | Written] = {
            name: _objects([row.get(name) for row in plain]) for name in names if any(name in row for row in plain)
        }
        self.write(path, record_type, Table(rows=len(plain), values=values))

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def __enter__(self) -> ColumnWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _selection(record_type: type[msgspec.Struct], table: Table) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays to scan, and the SQL that makes the columns of them."""
    types = dict(columns(record_type))
    if unknown := [name for name in table.values if name not in types]:
        raise BadInput(f"{', '.join(unknown)}: no column of {record_type.__name__}")
    scanned = dict(table.arrays)
    parts = []
    for name, sql_type in types.items():
        value = table.values.get(name)
        if name == "flags" and record_type is TaskRecord:
            expression = _flags(table, scanned)
        elif not table.rows:
            expression = "NULL"
        elif isinstance(value, Written):
            expression = value.sql
        elif isinstance(value, Names):
            scanned[name] = value.values()
            expression = f'"{name}"'
        elif isinstance(value, np.ndarray):
            scanned[name] = not_nan(value) if value.dtype.kind == "f" else value
            expression = f'"{name}"'
        else:
            expression = _literal(value)
        parts.append(f'CAST({expression} AS {sql_type}) AS "{name}"')
    for name, array in scanned.items():
        if len(array) != table.rows:
            raise BadInput(f"{name} has {len(array)} values for {table.rows} rows")
    return scanned, ", ".join(parts)


def _flags(table: Table, scanned: dict[str, NDArray[Any]]) -> str:
    if not table.rows:
        return "[]"
    parts = []
    for flag, where in table.flags.items():
        if isinstance(where, np.ndarray):
            scanned[f"flag {flag}"] = where
            parts.append(f"CASE WHEN \"flag {flag}\" THEN ['{flag}'] ELSE [] END")
        elif where:
            parts.append(f"['{flag}']")
    return f"list_concat({', '.join(parts)})" if len(parts) > 1 else (parts[0] if parts else "[]")


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _objects(values: list[Any]) -> NDArray[Any]:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return np.ma.masked_array(found, mask=[value is None for value in values])


def part_path(path: Path, number: int) -> Path:
    """Where a part of a table lies that is written in several: the first has the table's own name."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def parts_of(path: Path) -> list[Path]:
    """The parts of a table that there are, in their order; the first is taken to be there."""
    parts = [path]
    while (further := part_path(path, len(parts))).exists():
        parts.append(further)
    return parts


def scan_of(paths: list[Path], record_type: type[msgspec.Struct]) -> str:
    """An SQL expression over some of these files, in their order; an empty table where there is none."""
    if paths:
        return f"read_parquet([{', '.join(sql_file(path) for path in paths)}])"
    empty = ", ".join(f'CAST(NULL AS {column.sql_type}) AS "{column.name}"' for column in columns(record_type))
    return f"(SELECT {empty} WHERE false)"
