"""Experiments in virtual time, as a user runs them: tables, report and verdict as on hosts, always the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from edgebed.protocol.cells import CellSpec
from edgebed.simulation.testbed.profile import write_profile
from edgebed.trace.cost import task_cost
from edgebed.trace.runs import TABLES, Run, import_duckdb
from edgebed.trace.schema import STAGES, EpochRecord, Record, TaskRecord, columns
from edgebed.trace.segments import SegmentWriter, segment_path
from orchestrator.cli import main
from orchestrator.interrupts import Interrupts
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan
from orchestrator.progress import Standing
from orchestrator.seal import seal
from orchestrator.simulated_profile import stated_profile
from orchestrator.simulated_runner import SimulatedRunner

EXPERIMENT: dict[str, Any] = {
    "name": "trial",
    "workload": "digits",
    "backend": "simulated",
    "deadline_s": 0.7,
    "arrivals": {"kind": "poisson", "rate_per_s": 4.0, "frames": {"low": 2, "high": 8}},
    "epoch_s": 0.5,
    "epochs": 8,
    "policies": ["all_local", "all_edge", "greedy_latency"],
    "seeds": [1, 2],
    "reward": {"latency": 1.0, "energy": 0.2, "miss_penalty": 1.0},
}

HOSTS: dict[str, Any] = {
    "all": {
        "vars": {"ansible_connection": "local"},
        "children": {
            "edge_servers": {"hosts": {"edge": {"edgebed_queue_tasks": 4, "edgebed_slowdown": 2}}},
            "devices": {
                "vars": {"edgebed_board": "raspberry-pi-4b", "edgebed_link": {"rate_bps": 20_000_000}},
                "hosts": {
                    "pi-1": {"edgebed_slowdown": 8},
                    "pi-2": {"edgebed_slowdown": 14},
                    "pi-10": {"edgebed_slowdown": 11},
                },
            },
        },
    }
}


class Quiet:
    """A display that shows nothing; ``on_show`` is told how things stand."""

    def __init__(self, on_show: Any = lambda standing: None) -> None:
        self.on_show = on_show

    def show(self, standing: Standing) -> None:
        self.on_show(standing)

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def files(folder: Path, **changes: Any) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.yaml").write_text(yaml.safe_dump(EXPERIMENT | changes))
    (folder / "hosts.yaml").write_text(yaml.safe_dump(HOSTS))
    return folder / "x.yaml", folder / "hosts.yaml"


def planned(folder: Path, **changes: Any) -> tuple[Path, Plan]:
    plan = make_plan(*files(folder, **changes))
    run = create_run_folder(plan, folder / "runs")
    return run, Plan.from_yaml(run / "plan.yaml")


def simulated(folder: Path, **changes: Any) -> Run:
    run, plan = planned(folder, **changes)
    outcome = SimulatedRunner(run, plan, Quiet()).run(None)
    assert outcome.exit_status == 0
    return Run(run)


def tasks_of(run: Run) -> list[dict[str, Any]]:
    return run.query("SELECT * FROM tasks").records()


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run that the tests below look at."""
    return simulated(tmp_path_factory.mktemp("trial"))


# --- the same files as on hosts ---------------------------------------------------------------------------------------


def test_the_run_folder_is_that_of_a_run(trial: Run) -> None:
    names = {path.name for path in trial.path.iterdir()}
    tables = {f"{table}.parquet" for table in TABLES}
    assert tables | {"plan.yaml", "manifest.json", "report.html", "cells", "profile.yaml"} <= names
    manifest = trial.manifest
    assert (manifest.state, manifest.verdict, manifest.backend) == ("complete", "valid", "simulated")
    assert (manifest.started, manifest.ended) == ("", ""), "no wall-clock value"
    assert manifest.profile["kind"] == "stated"
    report = (trial.path / "report.html").read_text()
    assert "Simulated: 100 % of the tasks were computed by a model; nothing was executed." in report
    assert "no profile was given" in report, "a reader learns what it was simulated with"


@pytest.mark.parametrize("table", TABLES)
def test_the_tables_have_the_fixed_columns(trial: Run, table: str) -> None:
    described = trial.query(f"DESCRIBE SELECT * FROM {table}").rows
    assert [(row[0], row[1]) for row in described] == list(columns(TABLES[table]))


def test_every_planned_task_has_one_row_and_says_that_it_is_simulated(trial: Run) -> None:
    rows = tasks_of(trial)
    assert len(rows) == trial.manifest.counts["planned"] > 200
    assert len({row["task_id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["backend"] == "simulated"
        assert row["flags"][0] == "simulated"
        assert ("warm_up" in row["flags"]) == (row["epoch"] == 0)
        assert row["energy_source"] is None or row["energy_source"].startswith("estimated:cpu-model/")


def test_latency_is_the_sum_of_its_stages_and_cost_follows_the_one_formula(trial: Run) -> None:
    plan = Plan.from_yaml(trial.path / "plan.yaml")
    reward, timeout_s = plan.settings[0].reward, plan.settings[0].timeouts.task_s
    outcomes = set()
    for row in tasks_of(trial):
        outcomes.add(row["outcome"])
        record = msgspec.convert({name: value for name, value in row.items() if value is not None}, TaskRecord)
        assert task_cost(record, reward, timeout_s) == row["cost"]
        if row["outcome"] == "done":
            total_s = row["decision_s"]
            for stage in STAGES:
                total_s += row[stage]
            assert total_s == row["latency_s"]
            assert row["deadline_met"] == (row["latency_s"] <= row["deadline_s"])
    assert outcomes == {"done", "failed"}, "the small queue of the server refuses some"


def test_rewards_are_the_negative_sums_of_the_costs_of_the_tasks_decided(trial: Run) -> None:
    found = trial.query(
        "SELECT max(abs(e.reward + coalesce(t.cost, 0))) AS off, count(*) AS epochs FROM epochs AS e LEFT JOIN "
        "(SELECT cell_id, decision_epoch AS epoch, sum(cost) AS cost FROM tasks GROUP BY ALL) AS t "
        "USING (cell_id, epoch) WHERE len(e.action) > 0"
    ).records()
    assert found[0]["epochs"] == 6 * 8
    assert found[0]["off"] < 1e-9
    last = trial.query("SELECT * FROM epochs WHERE len(action) = 0").records()
    assert [row["epoch"] for row in last] == [8] * 6, "one last observation a cell"


def test_policies_meet_the_same_tasks(trial: Run) -> None:
    differing = trial.query(
        "SELECT count(*) FROM (SELECT seed, device_id, arrived_s - cell_start AS at, count(DISTINCT (frames, "
        "payload_bytes, content_id)) AS kinds FROM (SELECT *, min(arrived_s) OVER (PARTITION BY cell_id) AS cell_start "
        "FROM tasks) GROUP BY ALL HAVING kinds > 1)"
    ).rows
    assert differing == [(0,)]
    twice = trial.query(
        "SELECT content_id FROM tasks WHERE correct IS NOT NULL GROUP BY content_id HAVING count(DISTINCT correct) > 1"
    ).rows
    assert not twice, "at the same accuracy the same frames are recognised, whoever decides"


def test_both_ways_of_sealing_give_the_same_tables(trial: Run, tmp_path: Path) -> None:
    """The rows of the columns, reported one by one as hosts do it, are sealed to the same tables."""
    plan = Plan.from_yaml(trial.path / "plan.yaml")
    cells = [cell.spec(serial, 1) for serial, cell in enumerate(plan.cells, 1)]
    for table, kind, record_type in (("tasks", "task", TaskRecord), ("epochs", "epoch", EpochRecord)):
        for spec in cells:
            rows = trial.query(f"SELECT * FROM {table} WHERE cell_id = '{spec.cell_id}'").records()
            write_segment(tmp_path, spec, kind, record_type, rows)
    counts = seal(tmp_path, cells, planned_records(trial))
    assert counts.planned == trial.manifest.counts["planned"]
    assert not counts.problems
    duckdb = import_duckdb("this test")
    for table in ("tasks", "epochs"):
        mine, theirs = (f"read_parquet('{folder / table}.parquet')" for folder in (trial.path, tmp_path))
        assert duckdb.sql(f"SELECT * FROM {mine}").fetchall() == duckdb.sql(f"SELECT * FROM {theirs}").fetchall()


def write_segment(
    folder: Path, spec: CellSpec, kind: str, record_type: type[msgspec.Struct], rows: list[dict[str, Any]]
) -> None:
    derived = ("reward", "reward_complete", "terminated", "truncated")
    with SegmentWriter(segment_path(folder, spec.cell_id, 1, kind)) as writer:
        for number, row in enumerate(rows):
            known = {name: value for name, value in row.items() if value is not None and name not in derived}
            known |= {"flags": [flag for flag in known["flags"] if flag != "warm_up"]} if "flags" in known else {}
            packed = msgspec.msgpack.encode(msgspec.convert(known, record_type))
            writer.append([Record(number + 1, spec.serial, kind, packed)])


def planned_records(run: Run) -> Iterator[TaskRecord]:
    for row in tasks_of(run):
        known = {name: row[name] for name in TaskRecord.__struct_fields__[:9]}
        yield TaskRecord(
            **known, arrived_s=row["arrived_s"], content_id=row["content_id"], deadline_s=row["deadline_s"],
            outcome="unknown", reason="lost",
        )  # fmt: skip


# --- the same bytes ---------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan
from orchestrator.progress import PlainDisplay
from orchestrator.simulated_runner import SimulatedRunner
from edgebed.clock import MonotonicClock
run = create_run_folder(make_plan(sys.argv[1], sys.argv[2]), sys.argv[3])
SimulatedRunner(run, Plan.from_yaml(run / "plan.yaml"), PlainDisplay(MonotonicClock())).run(None)
print(run)
"""


def test_the_same_plan_gives_the_same_bytes_whatever_the_hash_seed(trial: Run, tmp_path: Path) -> None:
    arguments = [*map(str, files(tmp_path)), str(tmp_path / "runs")]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    again = Path(done.stdout.splitlines()[-1])
    for table in TABLES:
        first, second = ((folder / f"{table}.parquet").read_bytes() for folder in (trial.path, again))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), table
    assert Run(again).manifest.run_id == trial.manifest.run_id
    assert Run(again).plan["created"] == ""


def test_another_seed_gives_other_tasks(trial: Run, tmp_path: Path) -> None:
    other = simulated(tmp_path, seeds=[3], policies=["all_local"])
    assert other.manifest.run_id != trial.manifest.run_id


# --- where and when it is decided -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decide_at", ["tick", "arrival"])
def test_devices_decide_for_themselves(tmp_path: Path, decide_at: str) -> None:
    run = simulated(
        tmp_path, placement="device", decide_at=decide_at, policies=["queue_threshold", "uniform_random"], seeds=[1]
    )
    rows = tasks_of(run)
    assert {row["decided_by"] for row in rows} == {"device"}
    assert {row["site"] for row in rows} == {"device", "edge"}
    longest_s = max(row["decision_s"] for row in rows)
    assert (longest_s < 0.01) == (decide_at == "arrival"), "nothing waits for a tick"
    devices = run.query("SELECT DISTINCT device_id FROM epochs ORDER BY 1").rows
    assert devices == [("pi-1",), ("pi-10",), ("pi-2",)]
    assert len(run.query("SELECT * FROM epochs WHERE len(action) = 0").rows) == 2 * 3


def test_a_decision_that_comes_too_late_is_the_fallbacks(tmp_path: Path) -> None:
    run, plan = planned(tmp_path, policies=["all_edge"], seeds=[1], fallback_policy="all_local")
    slow = stated_profile(plan, plan.settings[0])
    slow.deciders["controller"].delay_s = [0.3]
    SimulatedRunner(run, plan, Quiet()).run(slow)
    rows = tasks_of(Run(run))
    assert {(row["decided_by"], row["site"]) for row in rows} == {("fallback", "device")}
    assert all("decision_late" in row["flags"] for row in rows)
    assert min(row["decision_s"] for row in rows) > 0.25, "the devices waited as long as they were told to"
    assert Run(run).manifest.verdict == "suspect"


def test_shaped_channels_grant_and_refused_tasks_may_run_on_the_device(tmp_path: Path) -> None:
    run = simulated(
        tmp_path, policies=["all_edge"], seeds=[1], channels={"count": 2, "rate_bps": 5_000_000},
        channel_model="share", on_refusal="local",
    )  # fmt: skip
    rows = tasks_of(run)
    granted = [row["link_rate_bps"] for row in rows if row["site"] == "edge" and row["outcome"] == "done"]
    assert granted
    assert all(0 < rate <= 5_000_001 for rate in granted)
    assert all(row["requested_site"] == "edge" for row in rows)


def test_a_sweep_gives_its_settings(tmp_path: Path) -> None:
    run = simulated(tmp_path, policies=["all_edge"], seeds=[1], sweep={"deadline_s": [0.3, 1.5]})
    misses = run.query(
        "SELECT deadline_s, avg((deadline_met IS FALSE)::INT) AS m FROM tasks GROUP BY 1 ORDER BY 1"
    ).records()
    assert [row["deadline_s"] for row in misses] == [0.3, 1.5]
    assert misses[0]["m"] > misses[1]["m"]


# --- ends before the end ----------------------------------------------------------------------------------------------


def test_an_interrupted_run_keeps_what_there_is_and_is_resumed_to_the_same_tasks(trial: Run, tmp_path: Path) -> None:
    run, plan = planned(tmp_path)
    interrupts = Interrupts()
    shown: list[Standing] = []

    def stop(standing: Standing) -> None:
        shown.append(standing)
        if standing.cells_done == 2 and standing.tasks_done > 100:
            interrupts.interrupt()

    outcome = SimulatedRunner(run, plan, Quiet(stop), interrupts=interrupts).run(None)
    assert outcome.exit_status == 130
    assert (outcome.manifest.state, outcome.cells_complete) == ("incomplete", 2)
    reasons = dict(Run(run).query("SELECT coalesce(reason, ''), count(*) FROM tasks GROUP BY 1").rows)
    assert reasons["not_run"] > 0
    assert reasons[""] > 0
    assert outcome.manifest.counts["planned"] == trial.manifest.counts["planned"], "every planned task has its row"
    assert shown[-1].rate > 0
    resumed = SimulatedRunner(run, plan, Quiet()).resume()
    assert (resumed.exit_status, resumed.manifest.verdict) == (0, "valid")
    differing = [(a, b) for a, b in zip(tasks_of(trial), tasks_of(Run(run)), strict=True) if a != b | {"attempt": 1}]
    assert not differing
    interrupts.close()


def test_resuming_a_complete_run_changes_nothing(trial: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trial.path / "tasks.parquet").stat().st_mtime_ns
    assert main(["resume", str(trial.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "complete"
    assert (trial.path / "tasks.parquet").stat().st_mtime_ns == before


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_takes_a_profile_and_answers_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, hosts = files(tmp_path, policies=["all_local"], seeds=[1], backend="hosts")
    plan = make_plan(experiment, hosts)
    fast = stated_profile(plan, plan.settings[0])
    for device in fast.devices.values():
        device.compute.seconds_per_frame = 0.001
    write_profile(fast, tmp_path / "fast.yaml")
    arguments = ["run", str(experiment), "--hosts", str(hosts), "--runs", str(tmp_path / "runs"), "--json"]
    assert main([*arguments, "--backend", "simulated", "--profile", str(tmp_path / "fast.yaml")]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["state"], answer["verdict"], answer["cells"]) == ("complete", "valid", 1)
    run = Run(Path(answer["run"]))
    assert max(row["device_compute_s"] for row in tasks_of(run)) == pytest.approx(0.008)
    assert run.plan["profile"] == run.manifest.profile["sha256"]
    # Its copy in the run's folder is what resuming goes by.
    (run.path / "tasks.parquet").unlink()
    copy = (run.path / "profile.yaml").read_text()
    (run.path / "profile.yaml").write_text(copy.replace("seconds_per_frame: 0.001", "seconds_per_frame: 0.002"))
    assert main(["resume", str(run.path)]) == 2
    assert "is not the profile that the run was planned with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"faults": [{"kind": "fill_disk", "host": "pi-1", "at_s": 1.0, "for_s": 1.0}]},
            "fill_disk is not simulated; leave it out, or run on hosts; simulated: kill, stop, reboot, cut_link, ",
        ),
        (
            {"faults": [{"kind": "step_clock", "host": "pi-1", "at_s": 1.0, "for_s": 1.0, "by_s": 60.0}]},
            "step_clock is not simulated; leave it out, or run on hosts",
        ),
        (
            {"faults": [{"kind": "reboot", "host": "edge", "at_s": 1.0}]},
            "reboot: only that of a device is simulated; edge is no device; name devices",
        ),
        (
            {"faults": [{"kind": "slow_link", "host": "edge", "at_s": 1.0, "for_s": 1.0, "delay_s": 0.1}]},
            "slow_link: only that of a device is simulated; edge is no device; name devices",
        ),
        (
            {"faults": [{"kind": "slow_link", "host": "pi-1", "at_s": 1.0, "for_s": 1.0, "loss": 0.1}]},
            "slow_link: what lost packets cost is not simulated; leave out loss",
        ),
        (
            {"faults": [{"kind": "throttle", "host": "pi-7", "at_s": 1.0, "for_s": 1.0, "fraction": 0.5}]},
            "there is no host 'pi-7'",
        ),
        ({"profile": "none.yaml"}, "none.yaml: cannot be read"),
        ({"profile": "p.yaml", "backend": "hosts"}, "is only for backends 'simulated' and 'replayed'"),
    ],
)
def test_what_cannot_be_simulated_is_told_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], text: str
) -> None:
    experiment, hosts = files(tmp_path, **changes)
    assert main(["run", str(experiment), "--hosts", str(hosts), "--runs", str(tmp_path / "runs")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_profile_of_another_board_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment, hosts = files(tmp_path)
    plan = make_plan(experiment, hosts)
    other = stated_profile(plan, plan.settings[0])
    other.devices["pi-1"] = msgspec.structs.replace(other.devices["pi-1"], board="raspberry-pi-5")
    write_profile(other, tmp_path / "p.yaml")
    assert main(["run", str(experiment), "--hosts", str(hosts), "--set", f"profile={tmp_path / 'p.yaml'}"]) == 2
    assert "pi-1 is a raspberry-pi-4b in the hosts file and a raspberry-pi-5 in the profile" in capsys.readouterr().err


def test_energy_is_power_times_time(trial: Run) -> None:
    boards = Plan.from_yaml(trial.path / "plan.yaml").boards
    pi = boards["raspberry-pi-4b"]
    for row in tasks_of(trial):
        if row["outcome"] == "done" and row["site"] == "device":
            assert row["device_energy_j"] == pytest.approx(pi.span_w / pi.cores * row["device_compute_s"])
            assert row["server_energy_j"] == 0.0
        if row["outcome"] == "done" and row["site"] == "edge":
            assert row["device_energy_j"] == pytest.approx(pi.transmit_w * row["uplink_s"])
    assert np.isfinite([row["cost"] for row in tasks_of(trial)]).all()
    assert math.isclose(
        sum(trial.manifest.counts[name] for name in ("done", "failed", "unknown")), len(tasks_of(trial))
    )
