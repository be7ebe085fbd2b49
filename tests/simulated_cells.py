"""Cells and hosts for the tests of the simulated backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgebed.metering.board import Board, load_board
from edgebed.protocol.cells import CellSpec, Timeouts
from edgebed.simulation.testbed.defaults import default_profile
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.profile import Profile
from orchestrator.shipped import shipped_inventory
from workloads import load_workload

BOARDS: dict[str, Board] = {
    name: load_board(shipped_inventory() / "boards" / f"{name}.yaml") for name in ("generic-x86", "raspberry-pi-4b")
}


@dataclass(frozen=True)
class Host:
    """What a hosts file says of a host."""

    name: str
    board: str = "raspberry-pi-4b"
    connection: str = "ssh"
    slowdown: float = 1.0
    link_rate_bps: float = 2e7
    workers: int = 1
    queue_tasks: int = 3
    position_m: tuple[float, float] = (0.0, 0.0)


def cell(**changes: Any) -> CellSpec:
    """A cell of three devices and one edge server."""
    settings: dict[str, Any] = {
        "run_id": "r",
        "plan_hash": "h",
        "cell_id": "c",
        "serial": 1,
        "attempt": 1,
        "policy": "p",
        "policy_name": "uniform_random",
        "seed": 1,
        "workload": "digits",
        "arrivals": {"kind": "poisson", "rate_per_s": 4.0, "frames": {"low": 1, "high": 6}, "deadline_s": 0.6},
        "epoch_s": 0.5,
        "epochs": 8,
        "timeouts": Timeouts(task_s=3.0),
        "devices": ["pi-1", "pi-2", "pi-10"],
        "servers": ["edge-1"],
    }
    return CellSpec(**(settings | changes))


def profile(spec: CellSpec, **changes: Any) -> Profile:
    """What boards and workload state for the hosts of a cell; ``changes`` are set on it."""
    devices, servers = [Host(name) for name in spec.devices], [Host(name, "generic-x86") for name in spec.servers]
    found = default_profile(
        spec.workload, load_workload(spec.workload, {}).demand, devices, servers, BOARDS, accuracy=0.99
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def hosts_of(spec: CellSpec) -> Testbed:
    """The hosts of a cell."""
    devices, servers = [Host(name) for name in spec.devices], [Host(name, "generic-x86") for name in spec.servers]
    return Testbed(profile(spec), devices, servers)
