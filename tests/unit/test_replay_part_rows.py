"""Beside every row of a part lie its result and the other row that it names, wherever in the table that one is."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pytest

from orchestrator.replay.part_rows import FROM_OTHERS, MOST_ROWS, bounds_of, in_rows, joined
from orchestrator.replay.reading import NO_ROW

ROWS, FIRST, LAST = 9000, 3000, 5999
OWN = np.arange(FIRST, LAST + 1)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """To a table of three cells, one behind the other, whose values tell the row that they are of."""
    others = ", ".join(f"row * 10 AS {name}" for name in FROM_OTHERS if name != "row")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"CREATE TABLE recorded AS SELECT row, {others} FROM range({ROWS}) AS t(row)")
        yield connection


def taken(
    connection: duckdb.DuckDBPyConnection, rows: np.ndarray, others: np.ndarray
) -> list[tuple[int, int, int | None]]:
    """By `joined`: each result's row, its own value, and what it takes from the other row."""
    shuffled = np.random.default_rng(1).permutation(len(rows))
    given = {"row": rows[shuffled], "other": others[shuffled], "latency_s": rows[shuffled] / 4.0}
    results = in_rows(given, FIRST, LAST)
    connection.register("results", results | {"place": np.arange(len(results["row"]))})
    found = connection.execute(
        "SELECT b.row, CAST(r.latency_s * 4 AS BIGINT), CASE WHEN r.other >= 0 THEN p.correct END "
        f"FROM {joined(results, FIRST)}"
    ).fetchall()
    connection.unregister("results")
    return found


def places(case: str) -> np.ndarray:
    """The other row of each own one."""
    beyond, before, nobody = OWN + 3000, OWN - 3000, np.full(len(OWN), NO_ROW)
    return {
        "nobody": nobody,
        "one cell": beyond,
        "one cell for some": np.where(OWN % 3 == 0, before, NO_ROW),
        "two cells": np.where(OWN % 2 == 0, before, beyond),
        "in another order": beyond[::-1].copy(),
        "before the table": np.where(OWN > FIRST + 1000, OWN - 4000, NO_ROW),
        "beyond the table": np.where(OWN < LAST - 1000, OWN + 4000, NO_ROW),
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        *("nobody", "one cell", "one cell for some", "two cells", "in another order"),
        *("before the table", "beyond the table"),
    ],
)
@pytest.mark.parametrize("are_all_there", [True, False])
def test_rows_lie_beside_each_other_in_the_order_of_the_table(
    connection: duckdb.DuckDBPyConnection, case: str, are_all_there: bool
) -> None:
    kept = np.full(len(OWN), True) if are_all_there else OWN % 5 != 2
    rows, others = OWN[kept], places(case)[kept]
    values = [other * 10 if other >= 0 else None for other in others.tolist()]
    assert taken(connection, rows, others) == list(zip(rows.tolist(), rows.tolist(), values, strict=True))


def test_a_row_that_is_not_there_any_more_leaves_its_result_out(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DELETE FROM recorded WHERE row = 4000")
    assert len(taken(connection, OWN, places("nobody"))) < len(OWN)


@pytest.mark.parametrize(
    ("rows", "parts"),
    [(1, 1), (MOST_ROWS, 1), (MOST_ROWS + 1, 2), (2 * MOST_ROWS, 2), (300_000, 4), (1_000_000, 10)],
)
def test_parts_are_about_alike_and_cover_all_rows_once(rows: int, parts: int) -> None:
    bounds = bounds_of(7, rows + 6)
    assert len(bounds) == parts
    assert [first for first, _ in bounds] == [7, *(last + 1 for _, last in bounds[:-1])]
    assert bounds[-1][1] == rows + 6
    sizes = [last - first + 1 for first, last in bounds]
    assert max(sizes) <= MOST_ROWS
    assert max(sizes) - min(sizes) < parts
