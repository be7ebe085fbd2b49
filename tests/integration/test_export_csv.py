"""`edgebed export --to csv`: what is in the tables is in the files, and nothing is overwritten."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from edgebed.trace.runs import TABLES, Run, find_run
from orchestrator.cli import main

EXPERIMENT = """\
name: small
workload: instant
deadline_s: 1
arrivals: {kind: poisson, rate_per_s: 4}
epoch_s: 0.5
epochs: 5
policies: [all_local, greedy_latency]
seeds: [1]
backend: simulated
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(EXPERIMENT)
    assert main(["run", str(folder / "small.yaml"), "--runs", str(folder / "runs")]) == 0
    return find_run("small", folder / "runs")


def test_every_row_and_column_of_every_table(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["export", str(run.path), "--to", "csv", "-o", str(tmp_path / "out"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(answer["rows"]) == set(TABLES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{table}.csv" for table in TABLES)
    for table in TABLES:
        with (tmp_path / "out" / f"{table}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        expected = run.query(f"FROM {table}").records()
        assert len(rows) == len(expected) == answer["rows"][table]
        for row, record in zip(rows, expected, strict=True):
            assert list(row) == list(record)
            for name, value in record.items():
                assert read_back(row[name], value) == value, (table, name)
    assert answer["rows"]["tasks"] > 0


def read_back(text: str, like: object) -> object:
    """A field as the type that the table has."""
    if text == "":
        return "" if like == "" else None
    if isinstance(like, list):
        return json.loads(text)
    if isinstance(like, bool):
        return text == "true"
    return type(like)(text)


def test_nothing_is_overwritten(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks.csv").write_text("mine")
    assert main(["export", str(run.path), "--to", "csv", "-o", str(tmp_path)]) == 2
    assert "tasks.csv: there already; name another folder with -o" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.csv"]
    assert (tmp_path / "tasks.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere", "--to", "csv"], "there is no run 'nowhere'"),
        (["RUN", "--to", "parquet"], "parquet"),
    ],
)
def test_bad_input(
    run: Run, arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run.path) if word == "RUN" else word for word in arguments]
    assert main(["export", *arguments, "-o", str(tmp_path / "out"), "--runs", str(tmp_path)]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
