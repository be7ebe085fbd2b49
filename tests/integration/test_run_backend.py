"""Real hosts keep the `Backend` contract: someone outside decides, and tells them apart from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgebed.backend import TaskOutcome, opened
from edgebed.backend_testing import check_backend, play
from edgebed.protocol.cells import CellSpec
from edgebed.types import Decision, Observation, Outcome, Site
from orchestrator.backends.assembly import Hosts, assemble
from orchestrator.backends.hosts import HostsBackend
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan

pytestmark = pytest.mark.integration


def make(testbed: Any, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Callable[[], Hosts], CellSpec]:
    """What puts hosts together, and a cell to be run on them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(testbed.folder / "state"))
    testbed.write_files(**changes)
    folder = create_run_folder(make_plan(testbed.folder / "tiny.yaml", testbed.folder / "hosts.yaml"), testbed.runs)
    plan = Plan.from_yaml(folder / "plan.yaml")
    return lambda: assemble(folder, plan), plan.cells[0].spec(1, 1)


def test_hosts_keep_the_contract(testbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, cell = make(testbed, monkeypatch, epochs=3)
    check_backend(lambda: HostsBackend(hosts), cell, deterministic=False)


def test_who_decides_from_outside_is_obeyed_and_cells_can_be_left_to_the_hosts(
    testbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = {"epoch_s": 1.0, "timeouts": {"decision_s": 10.0, "task_s": 20.0}}
    make_hosts, cell = make(testbed, monkeypatch, epochs=4, **patient)
    hosts = make_hosts()
    backend = HostsBackend(lambda: hosts)
    spec = backend.observation_spec(cell)

    def alternate(observation: Observation) -> Decision:
        return Decision.from_actions(np.full(2, observation.epoch % 2, np.int32), spec)

    of_cell: dict[str, TaskOutcome] = {}
    with opened(backend, cell):
        episode = play(backend, cell, 7, alternate)
        backend.run_cell(cell_of_next_attempt(hosts), lambda outcome: of_cell.setdefault(outcome.task_id, outcome))
    assert {outcome.outcome for outcome in episode.outcomes} == {Outcome.DONE}
    by_caller = [outcome for outcome in episode.outcomes if outcome.decided_by == "external"]
    assert by_caller, "at least some answers came in time"
    for outcome in by_caller:
        assert outcome.decision_epoch is not None
        assert outcome.site is Site(outcome.decision_epoch % 2)
    # A controller that could not run for an epoch goes on with the newest: then that one shows nobody.
    shown = next(each for each in episode.observations[1:] if each.present.all())
    end = episode.observations[-1]
    assert (end.epoch, end.present.all()) == (cell.epochs, True), "how things stand after the last decision"
    assert end.values[:, spec.device_index("device_speed_hz")].all()
    assert not end.values[:, spec.device_index("waiting_tasks")].any()
    assert shown.epoch < cell.epochs
    assert shown.values[:, spec.device_index("waiting_tasks")].sum() > 0
    assert len(of_cell) == sum(len(testbed.plan.cells[0].planned_tasks(name)) for name in testbed.devices)
    assert {outcome.outcome for outcome in of_cell.values()} == {Outcome.DONE}
    assert {outcome.site for outcome in of_cell.values() if outcome.decided_by == "controller"} == {Site.EDGE}


def cell_of_next_attempt(hosts: Hosts) -> CellSpec:
    attempt = hosts.attempts.begin(hosts.plan.cells[0].cell_id)
    return hosts.plan.cells[0].spec(attempt.serial, attempt.attempt)
