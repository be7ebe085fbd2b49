"""Every backend, and the fake, keeps the `Backend` contract. A new backend adds its case to ``CASES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgebed.backend import Backend
from edgebed.backend_testing import check_backend
from edgebed.backend_toy import ToyBackend, ToyPlan
from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec, ChannelSettings, RewardSettings, Timeouts
from orchestrator.backends.replayed import ReplayedBackend
from orchestrator.backends.simulated import SimulatedBackend
from tests.simulated_cells import cell, hosts_of


@dataclass(frozen=True)
class Case:
    """A backend and a plan to try it on; ``deterministic``: the same seed gives the same episode."""

    make: Callable[[], Backend[Any]]
    plan: Any
    deterministic: bool = True


def simulated(**changes: Any) -> Case:
    """The testbed in virtual time, on a cell like this."""
    plan: CellSpec = cell(**changes)
    return Case(lambda: SimulatedBackend(hosts_of), plan)


TRACE = Path("inventory/traces/local-day")


def replayed(policy: str) -> Case:
    """The shipped trace; the checker's seeds stand for its days."""
    plan = ReplayedBackend(TRACE).plan_of(policy)
    return Case(lambda: ReplayedBackend(TRACE, any_seed=True), plan)


CASES: dict[str, Case] = {
    "toy": Case(ToyBackend, ToyPlan()),
    "toy, one device, two servers": Case(ToyBackend, ToyPlan(("pi-1",), ("edge-1", "edge-2"), channels=2, workers=2)),
    "toy, no server": Case(ToyBackend, ToyPlan(servers=())),
    "toy, everything goes wrong": Case(
        ToyBackend,
        ToyPlan(absent=frozenset({(1, "pi-1"), (2, "pi-1"), (2, "pi-3")}), queue_tasks=1, lose_every=3, epochs=12),
    ),
    "simulated": simulated(),
    "simulated, two servers, shaped channels": simulated(
        servers=["edge-1", "edge-2"], channels=ChannelSettings(count=2, model="share", rate_bps=2e6)
    ),
    "simulated, overloaded": simulated(
        arrivals={"kind": "poisson", "rate_per_s": 12.0, "frames": {"low": 1, "high": 8}, "deadline_s": 0.2},
        timeouts=Timeouts(task_s=1.5),
        reward=RewardSettings(energy=0.5),
    ),
    "replayed": replayed("greedy_latency"),
    "replayed, everything on the devices": replayed("all_local"),
}


def test_a_simulated_cell_that_others_decide_is_not_run_without_them() -> None:
    backend, plan = SimulatedBackend(hosts_of), cell(placement="external")
    backend.open(plan)
    with pytest.raises(BadInput, match="cell c is decided by a program outside, which `edgebed run` lets in"):
        backend.run_cell(plan, lambda outcome: None)


@pytest.mark.parametrize("name", CASES)
def test_backend_keeps_the_contract(name: str) -> None:
    case = CASES[name]
    check_backend(case.make, case.plan, deterministic=case.deterministic)
