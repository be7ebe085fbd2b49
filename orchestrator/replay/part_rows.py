"""A part of a recorded table, and beside each of its rows what the replay came to and the row of another cell.

Nothing is looked up and nothing is sorted: the table is read as it lies, results are put into its order before, and
another cell of the same day mostly has its tasks in that order, too, so that its rows are only so many further on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.testbed.ingredients import IndexArray
from orchestrator.replay.reading import NO_ROW

MOST_ROWS = 122_880
"""Of a part: one row group, as DuckDB has them."""

FORMAT = "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 1000)"
"""Columns of so many different values gain nothing by a dictionary, nor by compressing harder, and both take time."""

FROM_OTHERS = (
    *("row", "link_rate_bps", "clock_error_s", "device_cpu_s", "server_cpu_s", "device_energy_j", "server_energy_j"),
    *("energy_source", "energy_error_j", "predicted", "label", "correct", "flags"),
)
"""What a row may take from another one."""

_NEAR_ROWS = 100_000
"""Rows further apart than that are read as two ranges: another cell's lie between."""


def part_rows(rows: int) -> int:
    """How many a part of a table of so many rows has: they are about alike, and two threads have as many to write."""
    parts = -(-rows // MOST_ROWS)
    return -(-rows // (parts + parts % 2)) if parts > 1 else rows


def bounds_of(first_row: int, last_row: int) -> list[tuple[int, int]]:
    """The first and the last row of every part; there is at least one."""
    size = part_rows(last_row - first_row + 1)
    return [(first, min(first + size - 1, last_row)) for first in range(first_row, last_row + 1, size)]


def in_rows(results: Mapping[str, NDArray[Any]], first: int, last: int) -> dict[str, NDArray[Any]]:
    """Results in the order of the table, one for each of its rows; ``row`` is `NO_ROW` where there is none.

    Args:
        results: ``[n]`` each, in any order, with their rows in ``row``.
        first: row of the table, from which on all of these are.
        last: up to which.
    """
    rows, size = results["row"], last - first + 1
    where = np.full(size, len(rows))
    where[rows - first] = np.arange(len(rows))
    if len(rows) == size:
        return {name: values[where] for name, values in results.items()}
    return {name: np.append(values, NO_ROW).astype(values.dtype, copy=False)[where] for name, values in results.items()}


def joined(results: Mapping[str, NDArray[Any]], first: int) -> str:
    """The record ``b``, ``results`` as ``r``, and the other rows ``p``, of which nothing counts where there is none.

    Args:
        results: as `in_rows` has them; registered with the database under that name.
        first: row of the first of them.

    Returns:
        What stands behind FROM. It has the row of every result, as long as the table is the one that was replayed.
    """
    last = first + len(results["row"]) - 1
    return (
        f"(FROM recorded WHERE row BETWEEN {first} AND {last}) AS b POSITIONAL JOIN results AS r "
        f"POSITIONAL JOIN ({_others(results['other'])}) AS p "
        "WHERE r.row = b.row AND (r.other < 0 OR r.other = p.row)"
    )


def _others(other: IndexArray) -> str:
    """A query for the row of each result; any where it has none."""
    chosen = f"SELECT {', '.join(FROM_OTHERS)} FROM recorded"  # noqa: S608  (names)
    has_one = np.flatnonzero(other >= 0)
    if not len(has_one):
        return f"{chosen} LIMIT 0"
    begins = other[has_one] - has_one
    begin = int(begins[0])
    if begin >= 0 and (begins == begin).all():
        return f"{chosen} WHERE row BETWEEN {begin} AND {begin + len(other) - 1}"
    return (
        f"SELECT p.* FROM results AS r LEFT JOIN ({chosen} WHERE {_near(other[has_one])} AND row IN "  # noqa: S608
        "(SELECT other FROM results WHERE other >= 0)) AS p ON p.row = r.other ORDER BY r.place"
    )


def _near(rows: IndexArray) -> str:
    """Condition on a row that it is near some of these: what is far from all of them is not read."""
    ordered = np.sort(rows)
    ends = np.flatnonzero(np.diff(ordered) > _NEAR_ROWS)
    pairs = zip(ordered[np.r_[0, ends + 1]].tolist(), ordered[np.r_[ends, -1]].tolist(), strict=True)
    return f"({' OR '.join(f'row BETWEEN {first} AND {last}' for first, last in pairs)})"
