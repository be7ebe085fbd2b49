"""One experiment with faults, on real processes and in virtual time: the same events, outcomes and verdict.

What is expected of either is what `test_run_faults` and `test_run_planned_faults` expect of local hosts.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgebed.trace.runs import Run
from orchestrator.cli import main

pytestmark = pytest.mark.integration

FAULTS = [
    {"kind": "kill", "host": "edge", "program": "controller", "at_s": 1.0},
    {"kind": "stop", "host": "pi-2", "at_s": 5.0, "for_s": 0.8},
    {"kind": "stop", "host": "edge", "at_s": 6.5, "for_s": 0.5},
    {"kind": "kill", "host": "edge", "at_s": 8.0},
]
EXPERIMENT: dict[str, Any] = {"epochs": 100, "policies": ["all_edge"], "faults": FAULTS, "timeouts": {"task_s": 10.0}}
"""Long enough for programs that start slowly on a busy machine."""

OF_A_KILLED_SERVER = {
    ("unknown", "server_lost"), ("failed", "server_lost"), ("failed", "server_unreachable"), ("failed", "not_ready"),
    ("failed", "wrong_cell"),
}  # fmt: skip


@pytest.fixture
def on_hosts(testbed: Any) -> Run:
    testbed.run(**EXPERIMENT)
    assert testbed.finish()["state"] == "complete"
    testbed.check_rows()
    return Run(testbed.run_folder)


def in_virtual_time(folder: Path) -> Run:
    """The same experiment and hosts files, with one more word on the command line."""
    files = ["run", str(folder / "tiny.yaml"), "--hosts", str(folder / "hosts.yaml")]
    runs = folder / "simulated"
    assert main([*files, "--backend", "simulated", "--runs", str(runs)]) == 0
    (found,) = (runs / "tiny").glob("2*")
    return Run(found)


def columns(run: Run, table: str) -> list[tuple[Any, ...]]:
    """Names and types."""
    return [row[:2] for row in run.query(f"DESCRIBE SELECT * FROM {table}").rows]


def told(run: Run) -> list[tuple[str, str, dict[str, Any]]]:
    """What the events say of the faults, but for when they were done and what lifted them."""
    rows = run.query("SELECT host, kind, detail FROM events WHERE kind LIKE 'fault%'").rows
    found = [(host, kind, json.loads(detail)) for host, kind, detail in rows]
    for _, _, detail in found:
        detail.pop("by", None)
    return sorted(found, key=lambda each: (each[2]["fault"], each[1]))


def check(run: Run) -> None:
    """What both are expected to be."""
    assert (run.manifest.state, run.manifest.verdict) == ("complete", "suspect")
    restarts = "SELECT DISTINCT host, kind FROM events WHERE kind IN ('server_up', 'controller_up')"
    known = set(run.query(f"{restarts} AND json(detail).restarted").rows)
    assert known == {(host, kind) for host in ("pi-1", "pi-2") for kind in ("server_up", "controller_up")}
    restarted = next(reason for reason in run.manifest.reasons if reason.startswith("Restarted during the run:"))
    assert {"controller", "edge"} <= set(restarted.removeprefix("Restarted during the run: ").rstrip(".").split(", "))
    ends = Counter(run.query("SELECT outcome, coalesce(reason, '') FROM tasks").rows)
    assert set(ends) <= {("done", ""), *OF_A_KILLED_SERVER}
    assert ends["unknown", "server_lost"] > 0
    assert ends["done", ""] > sum(ends.values()) / 4
    late = "SELECT count(*) FROM tasks WHERE (decided_by = 'fallback') <> ('decision_late' IN flags)"
    assert run.query(late).rows == [(0,)]
    assert {"controller", "fallback"} == {by for (by,) in run.query("SELECT DISTINCT decided_by FROM tasks").rows}
    again = "SELECT max(t_s) FROM events WHERE kind IN ('server_up', 'controller_up') AND json(detail).restarted"
    after = f"arrived_s > ({again}) AND outcome = 'done' AND site = 'edge' AND decided_by = 'controller'"
    assert run.query(f"SELECT count(*) > 0 FROM tasks WHERE {after}").rows == [(True,)], "all was there again"


def test_one_experiment_with_faults_on_both(testbed: Any, on_hosts: Run) -> None:
    simulated = in_virtual_time(testbed.folder)
    for table in ("tasks", "epochs", "events", "samples"):
        assert columns(simulated, table) == columns(on_hosts, table)
    assert told(simulated) == told(on_hosts)
    assert [kind for _, kind, _ in told(simulated)].count("fault_begin") == len(FAULTS)
    for run in (on_hosts, simulated):
        check(run)
    assert simulated.manifest.reasons[0] == on_hosts.manifest.reasons[0]
