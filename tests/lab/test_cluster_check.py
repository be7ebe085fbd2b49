"""The check of a whole cluster, on virtual Pis: real commands over real SSH, and a result that may be shared."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from orchestrator.lab.spec import USER
from tests.hardware.verification import verify
from tests.lab.running_lab import RunningLab, answer_of, edgebed, eventually

pytestmark = [pytest.mark.lab, pytest.mark.integration]

POLICIES = ["all_edge", "all_local", "greedy_latency", "queue_threshold", "uniform_random"]
TIMEOUT_S = 400.0


@pytest.fixture
def clean_lab(lab: RunningLab) -> Iterator[RunningLab]:
    answer_of(edgebed("clean", lab.hosts_file, "--force", "--json"))
    yield lab
    answer_of(edgebed("clean", lab.hosts_file, "--force", "--json"))


def command(lab: RunningLab, folder: Path, *options: str) -> list[str]:
    where = ["-o", str(folder / "result.json"), "--runs", str(folder / "runs")]
    return [sys.executable, "-m", "tests.hardware.cluster", str(lab.hosts_file), *where, *options]


def checked(lab: RunningLab, folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        command(lab, folder, *options), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (folder / "result.json").is_file(), done.stdout + done.stderr
    return done.returncode, json.loads((folder / "result.json").read_text()), done.stdout + done.stderr


# What a run's table must not be, and what is said of it.
DAMAGES = {
    "FROM tasks QUALIFY row_number() OVER () > 1": "1 have no row, and 0 rows are too many",
    "FROM tasks UNION ALL (FROM tasks LIMIT 1)": "0 have no row, and 1 rows are too many",
    "SELECT * REPLACE ('failed' AS outcome) FROM tasks": "the manifest says",
    "SELECT * REPLACE (latency_s + 1.0 AS latency_s) FROM tasks": "stages and latency differ",
    "SELECT * REPLACE (0 AS correct) FROM tasks": "recognition at device is broken",
    "SELECT * REPLACE ('sensor' AS energy_source) FROM tasks": "does not say its source",
}


def damaged_copy(run: Path, folder: Path, query: str) -> Path:
    """A copy of a run with another table of tasks."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE tasks AS FROM read_parquet('{folder / 'tasks.parquet'}')")
        connection.execute(f"COPY ({query}) TO '{folder / 'tasks.parquet'}' (FORMAT parquet)")
    return folder


def test_a_sound_cluster_passes_and_its_result_names_nobody(clean_lab: RunningLab, tmp_path: Path) -> None:
    status, result, said = checked(clean_lab, tmp_path, "--epochs", "8", "--with-faults")
    assert (status, result["problems"], result["passed"]) == (0, [], True), said

    assert list(result["hosts"]) == ["server-1", "device-1", "device-2"]
    for host in result["hosts"].values():
        assert host["deploy"]["state"] == "changed"
        assert host["deploy_again"]["state"] == "unchanged"
        assert not any(each["status"] == "fail" for each in host["findings"])
        assert host["kernel"].startswith("Linux")
    assert all(abs(result["hosts"][name]["run_clock"]["offset_s"]) < 1.0 for name in ("device-1", "device-2"))
    assert result["cluster"] == "virtual (edgebed lab)"

    assert [each["policy"] for each in result["run"]["policies"]] == POLICIES
    assert all(each["done"] and each["mean_s"] > 0 for each in result["run"]["policies"])
    assert {source for each in result["run"]["policies"] for source in each["energy_sources"]} >= {"measured:ina219"}
    counted = sum(result["run"][key] for key in ("done", "failed", "unknown"))
    assert counted == result["run"]["planned"] > 0
    assert result["run_with_faults"]["verdict"] == "suspect"
    assert "kill" in " ".join(result["run_with_faults"]["reasons"])

    for change, words in DAMAGES.items():
        damaged = damaged_copy(tmp_path / "runs" / "cluster-check" / "latest", tmp_path / "damaged", change)
        assert words in " ".join(verify(damaged)), change

    text = (tmp_path / "result.json").read_text()
    plan = clean_lab.live.lab
    for private in (*(host.address for host in plan.hosts), plan.key_file, str(tmp_path), str(clean_lab.hosts_file)):
        assert str(private) not in text
    assert f'"{USER}"' not in text
    assert f" as {USER}" not in text


def test_a_cluster_with_a_host_that_is_off_fails_and_says_so(clean_lab: RunningLab, tmp_path: Path) -> None:
    clean_lab.live.power_off("pi-2")
    try:
        eventually(lambda: clean_lab.live.status()["hosts"]["pi-2"]["state"] == "off")
        status, result, said = checked(clean_lab, tmp_path)
    finally:
        clean_lab.live.boot("pi-2")
    eventually(lambda: clean_lab.ssh("pi-2", "true").returncode == 0)
    assert (status, result["passed"]) == (1, False)
    assert result["problems"] == ["device-2: the check 'reachable' failed"], said
    assert "run" not in result
    assert "pi-2: the check 'reachable' failed" in said  # the terminal names it as the hosts file does


def test_an_interrupted_check_collects_and_leaves_no_result(clean_lab: RunningLab, tmp_path: Path) -> None:
    process = subprocess.Popen(command(clean_lab, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("$ edgebed deploy"):
                break
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, said
    assert not (tmp_path / "result.json").exists()
