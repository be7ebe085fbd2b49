"""The verbs ``runs`` and ``report``, as they are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main

MakeRun = Callable[..., Any]


@pytest.fixture
def runs_dir(make_run: MakeRun, tmp_path: Path) -> Path:
    """A folder with an older and a newer run."""
    for name, time in (("first", "20250101T000000Z"), ("second", "20250102T000000Z")):
        make_run(tmp_path / "runs" / name / time, policies=("all_local",), seeds=(1, 2), epochs=3, name=name)
    return tmp_path / "runs"


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_runs_are_listed(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(runs_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "run",
        f"{runs_dir}/first/20250101T000000Z",
        f"{runs_dir}/second/20250102T000000Z",
    ]
    assert main(["runs", "list", "--runs", str(runs_dir), "--json"]) == 0
    assert [row["experiment"] for row in answer(capsys)["runs"]] == ["first", "second"]


def test_an_empty_folder_has_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--runs", str(tmp_path), "--json"]) == 0
    assert answer(capsys) == {"runs": []}


def test_sql_asks_the_newest_run(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT run_id, count(*) AS tasks, NULL AS nothing, [1.5, 'nan'::DOUBLE] AS both FROM tasks GROUP BY run_id"
    assert main(["runs", "sql", query, "--runs", str(runs_dir), "--json"]) == 0
    expected = {"columns": ["run_id", "tasks", "nothing", "both"], "rows": [["second-0001", 24, None, [1.5, None]]]}
    assert answer(capsys) == expected
    assert main(["runs", "--json", "--runs", str(runs_dir), "sql", query, "--run", "first"]) == 0
    assert answer(capsys)["rows"][0][0] == "first-0001"
    assert main(["runs", "sql", query, "--run", f"{runs_dir}/first/20250101T000000Z"]) == 0
    assert "first-0001" in capsys.readouterr().out


@pytest.mark.parametrize("query", ["DROP VIEW tasks", "SELECT nothing FROM tasks", "COPY tasks TO 'x.csv'"])
def test_sql_that_is_wrong_or_writes_is_bad_input(
    runs_dir: Path, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    assert main(["runs", "sql", query, "--runs", str(runs_dir)]) == 2
    assert capsys.readouterr().out == ""


def test_show_prints_the_summary(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "first", "--runs", str(runs_dir)]) == 0
    assert "all_local" in capsys.readouterr().out
    assert main(["runs", "show", "first", "--runs", str(runs_dir), "--json"]) == 0
    assert answer(capsys)["counts"] == {"planned": 24, "done": 24, "failed": 0, "unknown": 0}


def test_show_of_a_run_without_tables(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs_dir / "first" / "20250101T000000Z" / "tasks.parquet").unlink()
    assert main(["runs", "show", "first", "--runs", str(runs_dir), "--json"]) == 0
    assert answer(capsys)["state"] == "running"


def test_a_report_lies_in_the_runs_folder(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "first", "--runs", str(runs_dir), "--json"]) == 0
    told = answer(capsys)
    assert told["report"] == str(runs_dir / "first" / "20250101T000000Z" / "report.html")
    assert Path(told["report"]).read_text().startswith("<!DOCTYPE html>")
    assert told["runs"][0]["policies"][0]["policy"] == "all_local"


def test_a_report_of_two_runs_goes_where_it_is_told(runs_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = runs_dir / "both.html"
    assert main(["report", "first", "second", "--runs", str(runs_dir), "-o", str(out)]) == 0
    assert "report of 2 runs" in out.read_text()
    assert str(out) in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["report", "nothing"], ["runs", "show", "nothing"], ["runs", "sql", "FROM tasks"]]
)
def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main([*arguments, "--runs", str(tmp_path)]) == 2
    assert "there are no runs in" in capsys.readouterr().err
