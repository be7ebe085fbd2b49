"""Parquet files that are joined as they are: DuckDB, which wrote them, must find all of them in one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from edgebed.errors import BadInput
from orchestrator.row_groups import join_columns, join_row_groups, read_footer

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


def test_columns_lie_beside_each_other(tmp_path: Path) -> None:
    rows = ROWS.format(0, 5000)
    names = ("number, name, share", '"some"', "is_even, pair, flags")
    paths = [write(tmp_path, f"columns-{n}", f"SELECT {some} FROM ({rows})") for n, some in enumerate(names)]
    joined = tmp_path / "joined.parquet"
    join_columns([read_footer(path) for path in paths], joined)
    assert [len(footer.groups) for footer in map(read_footer, [*paths, joined])] == [3] * 4
    whole = write(tmp_path, "whole", rows)
    with duckdb.connect() as connection:
        for what in ("DESCRIBE", ""):
            found = connection.execute(f"{what} FROM read_parquet('{joined}')").fetchall()
            assert found == connection.execute(f"{what} FROM read_parquet('{whole}')").fetchall()
        assert connection.execute(
            f"SELECT count(*), min(flags) FROM read_parquet('{joined}') WHERE number >= 4500 AND name = 'device-3'"
        ).fetchone() == (71, [])
    join_row_groups([read_footer(joined), read_footer(whole)], tmp_path / "twice.parquet")
    assert read_footer(tmp_path / "twice.parquet").rows == 10_000


def test_what_cannot_be_joined_is_said(tmp_path: Path) -> None:
    one, other = write(tmp_path, "one", "SELECT 1 AS a"), write(tmp_path, "other", "SELECT 'x' AS a")
    with pytest.raises(BadInput, match="other columns"):
        join_row_groups([read_footer(one), read_footer(other)], tmp_path / "joined.parquet")
    two = write(tmp_path, "two", "SELECT 1 AS b UNION ALL SELECT 2")
    with pytest.raises(BadInput, match="other row groups"):
        join_columns([read_footer(one), read_footer(two)], tmp_path / "joined.parquet")
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(BadInput, match="not a Parquet file"):
        read_footer(one)
