"""Replay of the shipped trace, which hosts recorded: another policy on its day, the same decisions or arrivals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from edgebed.trace.runs import Run
from edgebed.trace.schema import STAGES
from orchestrator.cli import main

TRACE = Path("inventory/traces/local-day")
STATUS = ("recorded", "recomputed", "modelled")
NOT_COMPARED = ("run_id", "cell_id", "policy", "task_id", "backend", "attempt", "flags")


def replay(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of ``edgebed replay``."""
    status = main(["replay", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def answer(capsys: pytest.CaptureFixture[str], runs: Path, *arguments: str) -> dict[str, Any]:
    """What ``edgebed replay --json`` says of the shipped trace."""
    status, out, err = replay(capsys, str(TRACE), "--runs", str(runs), "--json", *arguments)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def rows(folder: Path | str, where: str = "true") -> list[dict[str, Any]]:
    """Tasks of a run, by name."""
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT * FROM read_parquet('{folder}/tasks.parquet') WHERE {where} "
            "ORDER BY cell_id, device_id, arrived_s, task_id"
        )
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_recorded_decisions_give_back_exactly_the_record(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(capsys, tmp_path, "--mode", "reevaluate", "--policy", "recorded")
    recorded, again = rows(TRACE), rows(found["run"])
    assert len(recorded) == len(again) == 423
    for one, other in zip(recorded, again, strict=True):
        assert other["flags"] == [*one["flags"], "recorded"]
        assert {name: one[name] for name in one if name not in NOT_COMPARED} == {
            name: other[name] for name in other if name not in NOT_COMPARED
        }
        assert other["backend"] == "replayed"
    assert found["shares"] == {"recorded": 1.0, "recomputed": 0.0, "modelled": 0.0}
    assert found["model"] is None
    # The queues are recomputed all the same, in both lanes alike; how well that meets the record is told.
    assert found["queue_error"]["tasks"] == 423
    assert abs(found["queue_error"]["bias"]) < 0.2
    assert not any(path.name.startswith(".") for path in Path(found["run"]).iterdir())


def test_a_policy_that_decides_as_then_is_the_record_and_another_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(
        capsys, tmp_path, "--mode", "reevaluate", "--policy", "greedy_latency", "--policy", "queue_threshold"
    )
    again = rows(found["run"])
    assert {row["policy"] for row in again} == {"greedy_latency", "queue_threshold"}
    for row in again:
        assert sum(flag in STATUS for flag in row["flags"]) == 1
        if row["outcome"] == "done":
            assert row["latency_s"] == pytest.approx(row["decision_s"] + sum(row[name] for name in STAGES))
    # A deterministic policy that is shown what hosts saw decides as it did.
    greedy = rows(found["run"], "policy = 'greedy_latency'")
    assert all("recorded" in row["flags"] for row in greedy)
    recorded = rows(TRACE, "policy = 'greedy_latency'")
    assert [row["latency_s"] for row in greedy] == [row["latency_s"] for row in recorded]
    other = rows(found["run"], "policy = 'queue_threshold'")
    counts = {name: sum(name in row["flags"] for row in again) for name in STATUS}
    assert found["tasks"] == counts
    assert any("recomputed" in row["flags"] for row in other)
    manifest = json.loads((Path(found["run"]) / "manifest.json").read_text())
    assert manifest["replay"]["tasks"] == counts
    report = (Path(found["run"]) / "report.html").read_text()
    assert "A replay (reevaluate) of local-day" in report
    assert "Recomputing the queues" in report


def test_recomputed_rows_have_the_recorded_ingredients_of_their_site(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = answer(capsys, tmp_path, "--mode", "reevaluate", "--policy", "all_edge", "--cells", "all_local-s1",
                   "--cells", "greedy_latency-s1")  # fmt: skip
    again = rows(found["run"])
    at_edge = {row["content_id"]: row for row in rows(TRACE, "cell_id = 'greedy_latency-s1' AND site = 'edge'")}
    recomputed = [row for row in again if "recomputed" in row["flags"]]
    assert recomputed
    for row in recomputed:
        source = at_edge[row["content_id"]]
        for name in ("uplink_s", "server_compute_s", "downlink_s", "server_cpu_s", "device_energy_j", "predicted"):
            assert row[name] == source[name], name
    # Nobody sent the others anywhere in these two cells: a profile, fitted to this very run, says what that takes.
    modelled = [row for row in again if "modelled" in row["flags"]]
    assert len(modelled) + len(recomputed) == len(again)
    assert modelled
    assert all(row["predicted"] is None for row in modelled)
    assert found["model"]["sample"] == "in-sample"
    assert found["model"]["errors"]["edge"]["tasks"] == len(at_edge)


def test_open_loop_repeats_the_arrivals_and_rerun_the_decisions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    simulated = ("--backend", "simulated")
    found = answer(
        capsys, tmp_path, "--mode", "open-loop", "--policy", "all_edge", "--cells", "all_local-s1", *simulated
    )
    recorded, again = rows(TRACE, "cell_id = 'all_local-s1'"), rows(found["run"])
    start_s, other_start_s = recorded[0]["arrived_s"], again[0]["arrived_s"]
    for one, other in zip(recorded, again, strict=True):
        assert other["arrived_s"] - other_start_s == pytest.approx(one["arrived_s"] - start_s, abs=1e-6)
        assert (other["frames"], other["deadline_s"]) == (one["frames"], one["deadline_s"])
        assert (other["content_id"], other["requested_site"]) == (one["content_id"], "edge")
        assert other["link_rate_bps"] == 2e7
    found = answer(capsys, tmp_path, "--mode", "rerun", "--cells", "greedy_latency-s2", *simulated)
    recorded, again = rows(TRACE, "cell_id = 'greedy_latency-s2'"), rows(found["run"])
    for one, other in zip(recorded, again, strict=True):
        for name in ("requested_site", "requested_server", "requested_channel"):
            assert one[name] == other[name]
    (repeated,) = found["repeatability"]
    counted = sum("warm_up" not in row["flags"] for row in recorded)
    assert (repeated["tasks"], repeated["same_decision"]) == (counted, counted)
    assert repeated["absolute_s"] > 0


def test_arrivals_that_no_plan_makes_are_repeated_as_a_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = copy_of(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE (arrived_s + CASE device_id WHEN 'pi-2' THEN 0.01 ELSE 0 END AS arrived_s) "
            f"FROM read_parquet('{TRACE}/tasks.parquet')) TO '{folder}/tasks.parquet' (FORMAT parquet)"
        )
    status, out, err = replay(
        capsys, str(folder), "--mode", "open-loop", "--policy", "all_edge", "--backend", "simulated", "--runs",
        str(tmp_path / "runs"), "--json",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(out.splitlines()[-1])
    again = {(row["seed"], row["device_id"], row["task_id"].split("/")[-1]): row for row in rows(found["run"])}
    recorded = rows(folder, "policy = 'all_local'")
    begins_s = {seed: min(row["arrived_s"] for row in recorded if row["seed"] == seed) for seed in (1, 2)}
    others_s = {seed: min(row["arrived_s"] for key, row in again.items() if key[0] == seed) for seed in (1, 2)}
    assert len(again) == len(recorded)
    for one in recorded:
        other = again[one["seed"], one["device_id"], one["task_id"].split("/")[-1]]
        shift_s = (other["arrived_s"] - others_s[one["seed"]]) - (one["arrived_s"] - begins_s[one["seed"]])
        assert shift_s == pytest.approx(0.0, abs=1e-6)
        assert other["frames"] == one["frames"]


def test_rerun_sends_the_recorded_decisions_to_hosts_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = answer(capsys, tmp_path, "--mode", "rerun", "--cells", "greedy_latency-s1")
    assert (found["state"], found["mode"]) == ("complete", "rerun")
    recorded, again = rows(TRACE, "cell_id = 'greedy_latency-s1'"), rows(found["run"])
    assert [row["task_id"] for row in again] == [row["task_id"] for row in recorded]
    in_time = [(one, other) for one, other in zip(recorded, again, strict=True) if other["decided_by"] == "controller"]
    assert in_time, "a busy machine may be late now and then"
    for one, other in in_time:
        assert (one["requested_site"], one["requested_server"]) == (other["requested_site"], other["requested_server"])
    assert {row["backend"] for row in again} == {"hosts"}
    assert Run(Path(found["run"])).manifest.replay["repeatability"] == found["repeatability"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--mode", "backwards"), "available: rerun, open-loop, reevaluate"),
        (("--mode", "reevaluate"), "needs --policy"),
        (("--mode", "reevaluate", "--policy", "clever"), "the run's policies: all_local, all_edge, greedy_latency"),
        (
            ("--mode", "reevaluate", "--policy", "all_edge", "--cells", "no-s1"),
            "has no cell no-s1; it has: all_edge-s1",
        ),
        (("--mode", "rerun", "--policy", "all_edge"), "rerun sends the recorded decisions"),
        (("--mode", "open-loop", "--policy", "all_edge", "--backend", "replayed"), "available for open-loop"),
        (("--mode", "rerun", "--hosts", "inventory/hosts/pi-cluster.example.yaml"), "the run had the devices pi-1"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    status, _, err = replay(capsys, str(TRACE), "--runs", str(tmp_path), *arguments)
    assert status == 2
    assert told in err
    assert not list(tmp_path.iterdir())


def copy_of(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(TRACE, folder)
    return folder


def refused(capsys: pytest.CaptureFixture[str], folder: Path, runs: Path, *more: str) -> str:
    arguments = ("--mode", "reevaluate", "--policy", "all_edge", "--runs", str(runs), *more)
    status, _, err = replay(capsys, str(folder), *arguments)
    assert status == 2
    assert not runs.exists()
    return err


def test_a_truncated_table_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    tasks = folder / "tasks.parquet"
    tasks.write_bytes(tasks.read_bytes()[:-2000])
    assert "cannot be read" in refused(capsys, folder, tmp_path / "runs")


def test_a_table_that_lacks_rows_or_columns_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    with duckdb.connect() as connection:
        source = f"read_parquet('{TRACE}/tasks.parquet')"
        connection.execute(f"COPY (FROM {source} LIMIT 400) TO '{folder}/tasks.parquet' (FORMAT parquet)")
        told = refused(capsys, folder, tmp_path / "runs")
        assert "has 400 tasks, its manifest says 423" in told
        connection.execute(
            f"COPY (SELECT * EXCLUDE (uplink_s) FROM {source}) TO '{folder}/tasks.parquet' (FORMAT parquet)"
        )
    assert "lacks columns that a replay needs: uplink_s" in refused(capsys, folder, tmp_path / "runs")


def test_a_trace_without_decisions_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT * REPLACE (CAST(NULL AS VARCHAR) AS requested_site) "
            f"FROM read_parquet('{TRACE}/tasks.parquet')) TO '{folder}/tasks.parquet' (FORMAT parquet)"
        )
    assert "of none of its tasks is it known what was decided" in refused(capsys, folder, tmp_path / "runs")


def with_totals_only(folder: Path, where: str) -> None:
    """Its tasks without stages: only how long they took in all."""
    without = ", ".join(f"CASE WHEN {where} THEN NULL ELSE {name} END AS {name}" for name in STAGES)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE ({without}) FROM read_parquet('{TRACE}/tasks.parquet')) "
            f"TO '{folder}/tasks.parquet' (FORMAT parquet)"
        )


def test_a_trace_of_totals_is_only_given_back_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    with_totals_only(folder, "true")
    told = refused(capsys, folder, tmp_path / "runs")
    assert "of none of its 423 done tasks are the stages known" in told
    options = ("--mode", "reevaluate", "--policy", "recorded", "--runs", str(tmp_path / "runs"), "--json")
    status, out, err = replay(capsys, str(folder), *options)
    assert status == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["tasks"] == {"recorded": 423, "recomputed": 0, "modelled": 0}
    assert [row["latency_s"] for row in rows(found["run"])] == [row["latency_s"] for row in rows(TRACE)]


def test_rows_without_stages_are_modelled(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Also where they are decided as then, and what other cells recorded of them is recomputed."""
    folder = copy_of(tmp_path)
    with_totals_only(folder, "cell_id = 'all_edge-s1' AND device_id = 'pi-2'")
    options = ("--policy", "all_edge", "--cells", "all_edge-s1", "--cells", "all_local-s1", "--json")
    status, out, err = replay(capsys, str(folder), "--mode", "reevaluate", *options, "--runs", str(tmp_path / "runs"))
    assert status == 0, err
    again = rows(json.loads(out.splitlines()[-1])["run"])
    assert all(("modelled" in row["flags"]) == (row["device_id"] == "pi-2") for row in again)
    assert {row["device_id"] for row in again if "recorded" in row["flags"]} == {"pi-1", "pi-3"}


def test_a_replay_of_a_suspect_run_is_suspect_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"verdict": "suspect", "reasons": ["Restarted during the run: pi-2."]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    told = "The recorded run is suspect: Restarted during the run: pi-2."
    for options in (
        ("--mode", "reevaluate", "--policy", "recorded"),
        ("--mode", "open-loop", "--policy", "all_edge", "--backend", "simulated"),
    ):
        runs = str(tmp_path / options[1])
        status, out, err = replay(capsys, str(folder), *options, "--cells", "all_edge-s1", "--runs", runs, "--json")
        assert status == 0, err
        found = json.loads(out.splitlines()[-1])
        assert (found["verdict"], told in found["reasons"]) == ("suspect", True)
        assert found["source"]["verdict"] == "suspect"
        written = Run(Path(found["run"])).manifest
        assert (written.verdict, told in written.reasons) == ("suspect", True)
        assert told in (Path(found["run"]) / "report.html").read_text()


def test_a_newer_schema_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = copy_of(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schema_version"] = 99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    told = refused(capsys, folder, tmp_path / "runs")
    assert "schema version 99; this edgebed reads up to" in told


def test_a_profile_of_another_workload_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    assert main(["calibrate", str(TRACE), "-o", str(profile)]) == 0
    profile.write_text(profile.read_text().replace("workload: digits", "workload: onnx_images"))
    told = refused(capsys, TRACE, tmp_path / "runs", "--profile", str(profile))
    assert "'onnx_images'" in told
    assert "'digits'" in told


def test_a_replay_is_no_source_and_is_not_resumed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = answer(capsys, tmp_path, "--mode", "reevaluate", "--policy", "all_edge", "--cells", "all_edge-s1")
    status, _, err = replay(capsys, found["run"], "--mode", "reevaluate", "--policy", "all_edge")
    assert (status, "is a replay" in err) == (2, True)
    assert main(["resume", found["run"]]) == 2
    assert "start it again with `edgebed replay`" in capsys.readouterr().err
