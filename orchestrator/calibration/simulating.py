"""The plan of a run in virtual time, with a profile: the same arrivals, seeds and policies, nothing written."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edge_server.controller.deciding import CentralPolicy
from edgebed.errors import BadInput, Problem
from edgebed.simulation.testbed.hosts import Testbed
from edgebed.simulation.testbed.ingredients import DONE, OUTCOMES
from edgebed.simulation.testbed.profile import Profile
from edgebed.types import Outcome
from orchestrator.backends.simulated_cell import SimulatedCell
from orchestrator.backends.simulated_rows import cost_of, used_of
from orchestrator.calibration.sides import CellColumns, RunTasks, run_tasks
from orchestrator.calibration.traces import Trace
from orchestrator.faults.planning import unsimulated
from orchestrator.plan_file import PlannedCell
from orchestrator.provision.content import content_of
from workloads.files import file_name

UNKNOWN = OUTCOMES.index(Outcome.UNKNOWN)


def simulate(profile: Profile, trace: Trace, cells: frozenset[str], replica: int = 0) -> RunTasks:
    """Simulate cells of a run's plan.

    Args:
        profile: of the run's testbed.
        trace: whose plan it is.
        cells: names of those that are wanted.
        replica: the 0th draws what `edgebed run --backend simulated` draws; the others draw anew, while arrivals and
            policies stay as they are.

    Raises:
        BadInput: the profile lacks a host of the plan, or a program outside decided a cell.
        RunConflict: the weights of a learned policy are not what they were.
    """
    testbed = Testbed(profile, trace.plan.devices, trace.plan.edge_servers)
    chosen = [cell for cell in trace.plan.cells if cell.cell_id in cells]
    with TemporaryDirectory(prefix="edgebed-content-") as folder:
        content = Path(folder)
        for name, data in content_of(trace.plan).items() if trace.plan.policy_sources else ():
            (content / file_name(name)).write_bytes(data)
        return run_tasks([_columns(_simulated(cell, testbed, content, replica), cell) for cell in chosen])


def check_faults(trace: Trace) -> None:
    """Can the faults of a run be simulated?

    Raises:
        BadInput: what cannot is named.
    """
    problems = [f"{trace.run.path}: {text}" for text in unsimulated(trace.plan)]
    if problems:
        raise BadInput([Problem(text) for text in problems])


def _simulated(cell: PlannedCell, testbed: Testbed, content: Path, replica: int) -> SimulatedCell:
    spec = cell.spec(serial=1, attempt=1)
    if spec.placement == "external":
        raise BadInput(
            f"cell {cell.cell_id}: a program outside decided, which cannot be asked again; validate with other runs"
        )
    faults = cell.plan.faults_of(cell.seed, cell.setting.name)
    simulated = SimulatedCell(spec, testbed, content=content, replica=replica, faults=faults)
    policy = CentralPolicy(spec, simulated.spec, content) if spec.placement == "controller" else None
    learning = None
    if cell.policy.learn is not None:
        from orchestrator.online.inline import learning_of

        learning = learning_of(cell.plan, spec, simulated, policy, content)
    while simulated.step(policy):
        if learning is not None:
            learning.turn()
    simulated.advance(math.inf)
    return simulated


def _columns(simulated: SimulatedCell, cell: PlannedCell) -> CellColumns:
    """The tasks that count; the rules are those of `orchestrator.measures`."""
    record, tasks, spec = simulated.record, simulated.tasks, simulated.cell
    counts = tasks.epoch >= spec.warm_up_epochs
    done, unknown = record.outcome == DONE, record.outcome == UNKNOWN
    used = used_of(simulated.testbed, record, tasks.slot)
    late = ~done | (np.where(done, record.latency_s, math.inf) > tasks.deadline_s)
    return CellColumns(
        cell_id=cell.cell_id,
        group=(spec.policy, cell.setting.name),
        seed=spec.seed,
        epoch=tasks.epoch[counts],
        latency_s=np.where(done, record.latency_s, np.nan)[counts],
        missed=np.where(unknown, np.nan, late.astype(np.float64))[counts],
        energy_j=np.where(done, used.device_energy_j + used.server_energy_j, np.nan)[counts],
        cost=cost_of(spec, record, used, tasks.deadline_s)[counts],
    )
