"""Run folders: opened with care, queried without being changed, found by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import BadInput, MissingExtra, SchemaMismatch
from edgebed.trace.manifest import MANIFEST_FILE, Manifest, read_manifest, write_manifest
from edgebed.trace.runs import Run, find_run, list_runs
from edgebed.trace.schema import SCHEMA_VERSION

MakeRun = Callable[..., Any]


def small(make_run: MakeRun, path: Path | None = None, **changes: Any) -> Path:
    made = make_run(path, **({"policies": ("all_local",), "seeds": (1,), "epochs": 3, "samples": False} | changes))
    assert isinstance(made.path, Path)
    return made.path


def test_a_run_has_its_plan_manifest_and_tables(shared_run: Any) -> None:
    run = Run(shared_run.path)
    assert run.plan["experiment"] == "demo"
    assert run.manifest.run_id == "demo-0001"
    answer = run.query("SELECT policy, count(*) AS tasks FROM tasks WHERE seed = ? GROUP BY policy ORDER BY 1", [1])
    assert answer.columns == ("policy", "tasks")
    assert answer.records()[0] == {"policy": "all_edge", "tasks": 57}
    for table in ("epochs", "samples", "events"):
        assert run.query(f"SELECT count(*) FROM {table}").rows[0][0] > 0


def test_a_path_with_letters_that_sql_and_patterns_know(make_run: MakeRun, tmp_path: Path) -> None:
    path = small(make_run, tmp_path / "it's [a] run?*" / "demo" / "1")
    assert Run(path).query("SELECT count(*) FROM tasks").rows == [(12,)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY tasks TO '{path}/tasks.parquet' (FORMAT parquet)",
        "CREATE TABLE x AS FROM tasks",
        "ATTACH '{path}/x.duckdb'",
        "SELECT 1; SELECT 2",
        "SET memory_limit = '1MB'",
        "",
        "SELEC",
        "SELECT nothing FROM tasks",
        "FROM run",
        "FROM self",
    ],
)
def test_only_one_reading_statement_is_run(shared_run: Any, sql: str) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in shared_run.path.iterdir())
    with pytest.raises(BadInput):
        Run(shared_run.path).query(sql.format(path=shared_run.path))
    assert sorted((path, path.stat().st_mtime_ns) for path in shared_run.path.iterdir()) == before


@pytest.mark.parametrize("sql", ["DESCRIBE tasks", "SUMMARIZE tasks", "FROM tasks LIMIT 1", "EXPLAIN FROM tasks"])
def test_other_ways_to_read_work(shared_run: Any, sql: str) -> None:
    assert Run(shared_run.path).query(sql).rows


def test_what_is_not_a_run_is_refused(tmp_path: Path, make_run: MakeRun) -> None:
    with pytest.raises(BadInput, match="is not a run"):
        Run(tmp_path)
    path = small(make_run)
    (path / MANIFEST_FILE).write_text("{}")
    with pytest.raises(BadInput, match="not a run's manifest"):
        Run(path)
    (path / MANIFEST_FILE).unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        Run(path)


@pytest.mark.parametrize("plan", ["a: [", "- a list"])
def test_a_plan_that_is_none_is_refused_when_it_is_looked_at(make_run: MakeRun, plan: str) -> None:
    path = small(make_run)
    (path / "plan.yaml").write_text(plan)
    with pytest.raises(BadInput, match=r"plan\.yaml"):
        _ = Run(path).plan


def test_a_newer_schema_is_refused_and_both_versions_are_named(make_run: MakeRun) -> None:
    path = small(make_run)
    plain = json.loads((path / MANIFEST_FILE).read_text())
    plain |= {"schema_version": SCHEMA_VERSION + 1, "state": "something new"}
    (path / MANIFEST_FILE).write_text(json.dumps(plain))
    with pytest.raises(SchemaMismatch, match=rf"version {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"):
        Run(path)


def test_a_run_without_tables_says_what_to_do(make_run: MakeRun) -> None:
    path = small(make_run)
    (path / "tasks.parquet").unlink()
    assert not Run(path).is_sealed
    with pytest.raises(BadInput, match="edgebed resume"):
        Run(path).query("FROM tasks")


def test_without_duckdb_the_extra_is_named(shared_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgebed\[orchestrator\]'"):
        Run(shared_run.path).query("FROM tasks")


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = Manifest(
        run_id="r", experiment="e", hosts={"pi-1": {"cores": 4}}, counts={"planned": 3}, reasons=["because"]
    )
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    manifest.state = "complete"
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path).state == "complete"
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_FILE]


def test_runs_are_listed_and_found(make_run: MakeRun, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    old = small(make_run, runs / "demo" / "20250101T000000Z")
    new = small(make_run, runs / "demo" / "20250102T000000Z")
    other = small(make_run, runs / "other" / "20250101T120000Z")
    (runs / "demo" / "latest").symlink_to(new.name)
    (other / MANIFEST_FILE).write_text("broken")
    entries = list_runs(runs)
    assert [entry.path for entry in entries] == [old, other, new]
    assert [entry.manifest is None for entry in entries] == [False, True, False]
    assert "manifest" in entries[1].problem
    for name, expected in {
        "demo": new,
        "demo/latest": new,
        "demo/20250101T000000Z": old,
        str(old): old,
        str(runs / "demo"): new,
    }.items():
        assert find_run(name, runs).path == expected
    with pytest.raises(BadInput, match=r"experiments in .*: demo, other"):
        find_run("nothing", runs)
    with pytest.raises(BadInput, match="there are no runs"):
        find_run("nothing", tmp_path / "empty")
