"""Parquet files that are joined as they are: DuckDB, which wrote them, must find all of them in one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from edgebed.errors import BadInput
from orchestrator.row_groups import join_row_groups, read_footer

ROWS = """
SELECT i AS number, 'device-' || (i % 7) AS name, i / 3.0 AS share, CASE WHEN i % 5 > 0 THEN i::INTEGER END AS some,
       i % 2 = 0 AS is_even, [i::INTEGER, NULL] AS pair, ['a', 'b'][: i % 3] AS flags FROM range({}, {}) AS t(i)
"""


def write(folder: Path, name: str, query: str) -> Path:
    path = folder / f"{name}.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048)")
    return path


def test_joined_files_have_all_rows_in_their_order(tmp_path: Path) -> None:
    bounds = [0, 5000, 5001, 5001, 21_000]
    paths = [write(tmp_path, f"part-{number}", ROWS.format(*pair)) for number, pair in enumerate(pairwise(bounds))]
    footers = [read_footer(path) for path in paths]
    assert [footer.rows for footer in footers] == [5000, 1, 0, 15_999]
    joined = tmp_path / "joined.parquet"
    join_row_groups(footers, joined)
    assert read_footer(joined).rows == 21_000
    assert len(read_footer(joined).groups) == sum(len(footer.groups) for footer in footers)
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM read_parquet('{joined}')").fetchall()
        assert found == connection.execute(ROWS.format(0, 21_000)).fetchall()
        assert connection.execute(  # by the row groups' statistics, and by their places
            f"SELECT count(*), min(share) FROM read_parquet('{joined}') WHERE number >= 20000 AND name = 'device-3'"
        ).fetchone() == (143, pytest.approx(20_002 / 3))
        (last,) = connection.execute(
            f"SELECT max(file_row_number) FROM read_parquet('{joined}', file_row_number = true)"
        ).fetchall()
        assert last == (20_999,)


def test_what_cannot_be_joined_is_said(tmp_path: Path) -> None:
    one, other = write(tmp_path, "one", "SELECT 1 AS a"), write(tmp_path, "other", "SELECT 'x' AS a")
    with pytest.raises(BadInput, match="other columns"):
        join_row_groups([read_footer(one), read_footer(other)], tmp_path / "joined.parquet")
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(BadInput, match="not a Parquet file"):
        read_footer(one)
