"""The four tables of a run as CSV."""

from __future__ import annotations

from pathlib import Path

from edgebed.errors import BadInput
from edgebed.trace.runs import TABLES, Run, sql_text
from edgebed.trace.schema import columns


def write_csv(run: Run, folder: Path) -> dict[str, int]:
    """Write ``tasks.csv``, ``epochs.csv``, ``samples.csv`` and ``events.csv``.

    NULL is an empty field, a list a JSON array; rows and columns are in the order of the tables.

    Args:
        run: sealed.
        folder: made where it is missing.

    Returns:
        The rows of each table.

    Raises:
        BadInput: the run has not been sealed, a file is there already, or one cannot be written.
    """
    files = {table: folder / f"{table}.csv" for table in TABLES}
    there = [str(path) for path in files.values() if path.exists()]
    if there:
        raise BadInput(f"{', '.join(there)}: there already; name another folder with -o, or delete them")
    counts: dict[str, int] = {}
    with run.connect() as connection:
        make_folder(folder)
        for table, path in files.items():
            # A run of an earlier edgebed lacks the newest columns; they are left out, not made up.
            have = {str(row[0]) for row in connection.execute(f"DESCRIBE {table}").fetchall()}
            chosen = ", ".join(
                f"to_json({one.name})::VARCHAR AS {one.name}" if one.sql_type.endswith("[]") else one.name
                for one in columns(TABLES[table])
                if one.name in have
            )
            partial = path.with_name(f".{path.name}.partial")
            connection.execute(f"COPY (SELECT {chosen} FROM {table}) TO {sql_text(partial)} (FORMAT csv, HEADER)")  # noqa: S608
            partial.replace(path)
            counted = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            counts[table] = int(counted[0]) if counted else 0
    return counts


def make_folder(folder: Path) -> None:
    """Make a folder for files.

    Raises:
        BadInput: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder}: no folder can be made here: {error.strerror}; name another with -o") from None
