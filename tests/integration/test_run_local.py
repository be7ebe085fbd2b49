"""`edgebed run` and `edgebed resume` on local hosts, when nothing goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_a_run_from_the_files_to_the_tables(testbed: Any) -> None:
    here = {"name": "queue_threshold", "placement": "device"}
    testbed.run(policies=["all_local", "all_edge", here], epochs=6)
    answer = testbed.finish()
    counts = testbed.check_rows()
    assert set(counts) == {("done", "")}
    tasks = counts["done", ""]
    assert answer | {"reasons": [], "verdict": ""} == {
        "run": str(testbed.run_folder),
        "state": "complete",
        "verdict": "",
        "reasons": [],
        "planned": tasks,
        "done": tasks,
        "failed": 0,
        "unknown": 0,
        "cells": 3,
    }
    in_time = "decided_by <> 'fallback'"  # a busy machine may answer too late now and then
    assert testbed.sql(f"SELECT DISTINCT policy, site, decided_by FROM tasks WHERE {in_time} ORDER BY ALL")[:2] == [
        ("all_edge", "edge", "controller"),
        ("all_local", "device", "controller"),
    ]
    assert testbed.sql("SELECT DISTINCT decided_by FROM tasks WHERE policy = 'queue_threshold'") == [("device",)]
    manifest = testbed.manifest()
    assert manifest["state"] == "complete"
    assert set(manifest["hosts"]) == {"edge", "pi-1", "pi-2"}
    assert manifest["hosts"]["pi-1"]["facts"]["packages"]["numpy"]
    assert set(manifest["clocks"]) == {"edge", "pi-1", "pi-2"}
    clocks = manifest["clocks"].values()
    assert all(abs(clock["offset_s"]) <= clock["error_s"] for clock in clocks), "all on this machine's clock"
    assert {path.name for path in (testbed.run_folder / "logs").iterdir()} == {
        f"{name}.log" for name in ("controller", "edge", "pi-1", "pi-2")
    }
    assert {kind for (kind,) in testbed.sql("SELECT kind FROM events WHERE host = 'orchestrator'")} == {
        "run_started",
        "cell_started",
        "cell_ended",
    }
    # Nothing of what only the owner may see is in the run folder.
    for path in testbed.run_folder.rglob("*"):
        assert path.is_dir() or b'"secret"' not in path.read_bytes()


def test_a_complete_run_is_left_as_it_is_and_a_changed_plan_is_refused(testbed: Any) -> None:
    testbed.run(epochs=2)
    first = testbed.finish()
    before = {path: path.read_bytes() for path in testbed.run_folder.rglob("*") if path.is_file()}
    testbed.resume()
    assert testbed.finish() == first
    assert {path: path.read_bytes() for path in testbed.run_folder.rglob("*") if path.is_file()} == before
    path = testbed.run_folder / "plan.yaml"
    path.write_text(path.read_text().replace("epoch_s: 0.3", "epoch_s: 0.2"))
    assert "was changed after it was written" in resume_refused(testbed)


def test_a_run_that_somebody_works_on_is_refused(testbed: Any) -> None:
    testbed.run(epochs=100)
    testbed.wait_for_rows(3)
    assert "another edgebed is working on this run" in resume_refused(testbed)
    testbed.signal(signal.SIGTERM)
    assert testbed.finish(status=130)["state"] == "incomplete", "to end a program in order is like Ctrl-C"
    assert testbed.check_rows()["done", ""] >= 3


def resume_refused(testbed: Any) -> str:
    """What `edgebed resume` says when it does nothing."""
    command = [sys.executable, "-m", "orchestrator", "resume", str(testbed.run_folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=testbed.environment, timeout=60)
    assert done.returncode == 2
    return done.stderr


def test_a_program_that_cannot_start_fails_the_run_and_says_why(testbed: Any) -> None:
    testbed.write_files()
    hosts = testbed.folder / "hosts.yaml"
    hosts.write_text(hosts.read_text().replace("pi-2: {}", "pi-2: {edgebed_python: /nonexistent/python}"))
    testbed.begin("run", str(testbed.folder / "tiny.yaml"), "--hosts", str(hosts), "--runs", str(testbed.runs))
    answer = testbed.finish(status=1)
    assert answer["state"] == "failed"
    assert answer["cells"] == 0
    assert "/nonexistent/python" in json.dumps(testbed.manifest()["problems"])
    assert set(testbed.check_rows()) == {("failed", "not_run")}
