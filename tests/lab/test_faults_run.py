"""A run on deployed virtual hosts with each fault that they can have, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from orchestrator.plan_file import Plan
from tests.lab.running_lab import RunningLab, answer_of, edgebed

pytestmark = pytest.mark.lab

BACK_S = 25.0
"""How soon a device works again once it is back."""

FAULTS = [
    {"kind": "kill", "host": "pi-1", "at_s": 2},
    {"kind": "stop", "host": "edge", "at_s": 5, "for_s": 1},
    {"kind": "cut_link", "host": "pi-2", "at_s": 8, "for_s": 3},
    {"kind": "slow_link", "host": "pi-1", "at_s": 9, "for_s": 3, "delay_s": 0.1, "loss": 0.05},
    {"kind": "throttle", "host": "pi-1", "at_s": 13, "for_s": 3, "fraction": 0.5},
    {"kind": "fill_disk", "host": "pi-2", "at_s": 14, "for_s": 3},
    {"kind": "reboot", "host": "pi-1", "at_s": 19},
]

EXPERIMENT: dict[str, Any] = {
    "name": "faults",
    "workload": "instant",
    "deadline_s": 0.7,
    "arrivals": {"kind": "periodic", "period_s": 0.4, "frames": {"low": 1, "high": 3}},
    "epoch_s": 0.5,
    "epochs": 110,
    "policies": ["uniform_random"],
    "seeds": [1],
    "timeouts": {"task_s": 4.0},
    "faults": FAULTS,
}


def test_each_fault_once_and_every_planned_task_has_one_row(lab: RunningLab, tmp_path: Path) -> None:
    answer_of(edgebed("deploy", lab.hosts_file, "--json"))
    (tmp_path / "faults.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    words = ["run", str(tmp_path / "faults.yaml"), "--hosts", str(lab.hosts_file), "--runs", str(tmp_path / "runs")]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words, "--json"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")},
    )
    answer = answer_of(done)
    assert (answer["state"], answer["verdict"]) == ("complete", "suspect")
    folder = Path(answer["run"])
    check_rows(folder)
    check_events(folder)
    assert not list((tmp_path / "state").rglob("*.undo"))
    for host in ("edge", "pi-1", "pi-2"):
        assert (
            lab.said(host, 'find "$HOME/.edgebed/faults" "$HOME/.local/state/edgebed" -type f 2>/dev/null; true') == ""
        )
    assert not lab.live.status()["hosts"]["pi-2"]["link"]["cut"]


def sql(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for table in ("tasks", "events"):
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder / table}.parquet')")
        return connection.execute(query).fetchall()


def check_rows(folder: Path) -> None:
    plan = Plan.from_yaml(folder / "plan.yaml")
    planned = [
        cell.task_id(device.name, task.index)
        for cell in plan.cells
        for device in plan.devices
        for task in cell.planned_tasks(device.name)
    ]
    rows = sql(folder, "SELECT task_id, outcome FROM tasks")
    assert Counter(row[0] for row in rows) == Counter(planned)
    outcomes = Counter(row[1] for row in rows)
    assert outcomes["done"] > 0.5 * len(planned), outcomes


def check_events(folder: Path) -> None:
    """Each fault has begun and ended, and soon after that its device answers again."""
    found = sql(folder, "SELECT t_s, host, kind, detail FROM events WHERE kind LIKE 'fault%' ORDER BY t_s")
    told: dict[str, list[tuple[float, str]]] = {}
    for t_s, host, kind, detail in found:
        about = json.loads(detail)
        assert (kind, about["host"]) != ("fault_failed", host), about
        told.setdefault(about["kind"], []).append((t_s, kind))
    assert told.keys() == {fault["kind"] for fault in FAULTS}
    for fault in FAULTS:
        kind, for_s = str(fault["kind"]), fault.get("for_s")
        begun_s, *ends = [t_s for t_s, _ in told[kind]]
        assert len(ends) == (0 if kind == "kill" else 1), kind
        if isinstance(for_s, int):
            assert for_s - 0.2 < ends[0] - begun_s < for_s + BACK_S, kind
        if str(fault["host"]).startswith("pi"):
            since_s = ends[0] if ends else begun_s
            where = f"device_id = '{fault['host']}' AND outcome = 'done' AND arrived_s > {since_s}"
            ((first_s,),) = sql(folder, f"SELECT min(arrived_s + latency_s) FROM tasks WHERE {where}")
            assert first_s - since_s < BACK_S, kind
