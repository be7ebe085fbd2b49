"""An experiment on a recorded day: `edgebed run --backend replayed --from RUN`, on the trace that is shipped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from edgebed.trace.runs import Run
from edgebed.trace.schema import TaskRecord, columns
from orchestrator.cli import main

TRACE = Path("inventory/traces/local-day")
EXPERIMENT = TRACE / "experiment.yaml"
HOSTS = Path("inventory/hosts/local.yaml")


def run(capsys: pytest.CaptureFixture[str], runs: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of the experiment on the shipped trace."""
    status = main(["run", str(EXPERIMENT), "--backend", "replayed", "--runs", str(runs), *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def answer(capsys: pytest.CaptureFixture[str], runs: Path, *arguments: str) -> dict[str, Any]:
    """What ``--json`` says."""
    status, out, err = run(capsys, runs, "--from", str(TRACE), "--json", *arguments)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def rows(folder: Path | str) -> list[tuple[Any, ...]]:
    """Everything of the tasks of a run but its name."""
    with duckdb.connect() as connection:
        return connection.execute(
            f"SELECT * EXCLUDE (run_id) FROM read_parquet('{folder}/tasks.parquet') ORDER BY task_id"
        ).fetchall()


def test_an_experiment_on_its_own_record_is_the_reevaluation_of_its_policies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(capsys, tmp_path)
    assert (found["state"], found["cells"], found["planned"]) == ("complete", 6, 423)
    # Its three policies decide by what they are shown, and that is the record: so they decide as then.
    assert found["shares"] == {"recorded": 1.0, "recomputed": 0.0, "modelled": 0.0}
    folder = Path(found["run"])
    assert (folder.parent.name, folder.is_dir()) == ("local-day-replay", True)
    policies = [word for name in ("all_local", "all_edge", "greedy_latency") for word in ("--policy", name)]
    arguments = ["replay", str(TRACE), "--mode", "reevaluate", *policies, "--runs", str(tmp_path), "--json"]
    assert main(arguments) == 0
    other = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert rows(folder) == rows(other["run"])
    again = Run(folder)
    described = again.query("DESCRIBE tasks").rows
    assert [(name, kind) for name, kind, *_ in described] == [tuple(column) for column in columns(TaskRecord)]
    assert {row[0] for row in again.query("SELECT DISTINCT backend FROM tasks").rows} == {"replayed"}
    # The cells are in the experiment's order, and the report and the verdict are those of a run.
    assert (folder / "report.html").is_file()
    assert again.manifest.verdict == found["verdict"]
    assert "--from" in again.manifest.command
    assert main(["resume", str(folder)]) == 2
    assert "edgebed run --backend replayed" in capsys.readouterr().err


def test_other_policies_of_some_seeds_are_decided_anew_with_the_hosts_of_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(
        capsys, tmp_path, "--hosts", str(HOSTS), "--set", "seeds=[2]", "--set", "placement=device",
        "--set", "policies=[queue_threshold, all_edge]",
    )  # fmt: skip
    folder = Path(found["run"])
    told = (
        Run(folder).query("SELECT DISTINCT policy, seed, decided_by FROM tasks WHERE 'recomputed' IN flags").records()
    )
    assert {(row["policy"], row["seed"]) for row in told} >= {("queue_threshold", 2)}
    assert {row["decided_by"] for row in told} == {"device"}
    assert found["source"]["run_id"] == Run(TRACE).manifest.run_id
    assert 0 < found["shares"]["recorded"] < 1
    assert sorted(each.name for each in (folder / "cells").iterdir()) == ["all_edge-s2", "queue_threshold-s2"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "seeds=[1, 7]"), "seeds: the experiment has 7; {run} recorded 1, 2;"),
        (("--set", "epochs=20"), "epochs: the experiment has 20; {run} recorded 16;"),
        (("--set", "deadline_s=0.5"), "deadline_s: the experiment has 0.5; {run} recorded 0.7;"),
        (("--set", "workload=instant"), "workload: the experiment has 'instant'; {run} recorded 'digits';"),
        (("--set", "arrivals.rate_per_s=4.0"), "arrivals.rate_per_s: the experiment has 4.0; {run} recorded 3.0;"),
        (("--set", "reward.energy=1.0"), "reward.energy: the experiment has 1.0; {run} recorded 0.0;"),
        (("--set", "channel_model=sinr"), "position_seed 2020.0; {run} recorded none;"),
        (("--set", "on_refusal=local"), "on_refusal: the experiment has 'local'; {run} recorded 'fail';"),
        (("--set", "devices=2"), "devices: the experiment takes the first 2; {run} recorded 3: pi-1, pi-2, pi-3;"),
        (
            ("--set", "faults=[{kind: kill, host: pi-1, at_s: 1}]"),
            "faults: the experiment has 1 entry; {run} recorded 0 entries;",
        ),
        (
            ("--set", "sweep={deadline_s: [0.5, 0.7]}"),
            "sweep: the experiment has the setting deadline_s_0.5; {run} recorded base;",
        ),
        (
            ("--set", "policies=[{name: mine, placement: external}]"),
            "placement: mine is decided by a program outside",
        ),
        (("--hosts", "inventory/hosts/pi-cluster.example.yaml"), "{run} recorded pi-1, pi-2, pi-3; leave out --hosts"),
    ],
)  # fmt: skip
def test_what_contradicts_the_record_is_told_with_both_sides(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    status, _, err = run(capsys, tmp_path, "--from", str(TRACE), *arguments)
    assert status == 2
    assert told.format(run=TRACE.resolve()) in err
    assert not list(tmp_path.iterdir())


def test_everything_that_contradicts_is_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, tmp_path, "--from", str(TRACE), "--set", "epochs=3", "--set", "seeds=[3]")
    assert (status, "epochs: the experiment has 3" in err, "seeds: the experiment has 3" in err) == (2, True, True)


def test_a_host_that_is_another_by_now_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    hosts = yaml.safe_load(HOSTS.read_text())
    hosts["all"]["children"]["devices"]["hosts"]["pi-2"]["edgebed_slowdown"] = 3
    (tmp_path / "hosts.yaml").write_text(yaml.safe_dump(hosts))
    status, _, err = run(
        capsys, tmp_path / "runs", "--from", str(TRACE), "--hosts", str(tmp_path / "hosts.yaml")
    )  # fmt: skip
    assert status == 2
    assert "pi-2: slowdown is 3.0 in this file" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("table", ["tasks", "epochs", "samples", "events"])
def test_a_record_that_is_damaged_is_told_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, table: str
) -> None:
    record = shutil.copytree(TRACE, tmp_path / "record")
    os.truncate(record / f"{table}.parquet", 100)
    status, _, err = run(capsys, tmp_path / "runs", "--from", str(record))
    assert (status, err.startswith(f"{record}: its tables cannot be read: ")) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_the_recorded_run_has_to_be_named_and_only_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, tmp_path)
    assert (status, "--backend replayed needs the recorded run" in err) == (2, True)
    assert main(["run", str(EXPERIMENT), "--from", str(TRACE), "--runs", str(tmp_path)]) == 2
    assert "--from is for --backend replayed; the backend is 'hosts'" in capsys.readouterr().err
    # What the options alone contradict is told before any file is asked for.
    assert main(["run", "nowhere.yaml", "--backend", "replayed", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("--backend replayed needs the recorded run")
    status, _, err = run(capsys, tmp_path, "--from", "no-such-run")
    assert (status, "there is no run 'no-such-run'" in err) == (2, True)
    assert not list(tmp_path.iterdir())
