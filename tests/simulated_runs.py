"""Simulated runs by the command of a user, for the tests of faults in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgebed.trace.runs import Run
from orchestrator.cli import main

EXPERIMENT: dict[str, Any] = {
    "name": "disturbed",
    "workload": "digits",
    "backend": "simulated",
    "deadline_s": 0.7,
    "arrivals": {"kind": "periodic", "period_s": 0.5, "frames": 4},
    "epoch_s": 0.5,
    "epochs": 20,
    "seeds": [1],
    "timeouts": {"task_s": 60.0},
}
HOSTS: dict[str, Any] = {
    "all": {
        "vars": {"ansible_connection": "local"},
        "children": {
            "edge_servers": {"hosts": {"edge": {}}},
            "devices": {
                "vars": {"edgebed_link": {"rate_bps": 20_000_000}},
                "hosts": {"pi-1": {"edgebed_slowdown": 4}, "pi-2": {"edgebed_slowdown": 4}},
            },
        },
    }
}
BUSY = {"kind": "periodic", "period_s": 0.2, "frames": 4}


def simulated(folder: Path, policy: str, *faults: dict[str, Any], **changes: Any) -> Run:
    """A run by the command of a user."""
    folder.mkdir()
    given = EXPERIMENT | {"policies": [policy], "faults": list(faults)} | changes
    (folder / "x.yaml").write_text(yaml.safe_dump(given))
    (folder / "hosts.yaml").write_text(yaml.safe_dump(HOSTS))
    arguments = ["--hosts", str(folder / "hosts.yaml"), "--runs", str(folder / "runs")]
    assert main(["run", str(folder / "x.yaml"), *arguments]) == 0
    (found,) = (folder / "runs" / "disturbed").glob("2*")
    return Run(found)


def pairs(run: Run, other: Run, device: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Tasks of a device in both runs."""
    select = f"SELECT * FROM tasks WHERE device_id = '{device}' ORDER BY arrived_s"
    return list(zip(run.query(select).records(), other.query(select).records(), strict=True))
