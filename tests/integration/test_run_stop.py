"""``stop`` on local hosts: the real command, which ends by its own rule, and what resuming then does."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from edgebed.trace.runs import Run
from orchestrator.attempts import Attempts
from orchestrator.measures import MEASURES, counted_tasks, seed_measures
from orchestrator.stop_measures import measure_of_cell
from tests.integration.testbed import Testbed

pytestmark = pytest.mark.integration

NARROW_ENOUGH = {"half_width": {"measure": "latency_s", "at_most": 1000.0, "min_seeds": 2}}


def stop_state(testbed: Testbed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((testbed.run_folder / "stop.json").read_text())
    return found


def test_no_cell_begins_after_its_time_over_all_sessions(testbed: Testbed) -> None:
    testbed.run(epochs=14, seeds=[1, 2, 3, 4, 5, 6], stop={"run_s": 20.0})
    testbed.wait_until_running()
    testbed.signal(signal.SIGINT)
    assert testbed.finish(status=130)["cells"] == 0
    first_s = stop_state(testbed)["worked_s"]
    assert first_s > 0
    testbed.resume()
    answer = testbed.finish(status=1)
    state = stop_state(testbed)
    assert (answer["state"], state["rule"]) == ("incomplete", "run_s")
    assert 0 < answer["cells"] < 6
    assert state["worked_s"] > max(20.0, first_s)
    assert len(state["not_begun"]) == 6 - answer["cells"]
    assert any(reason.startswith("Stopped by stop.run_s: ") for reason in answer["reasons"])
    assert testbed.check_rows()["failed", "not_run"] > 0
    attempts = testbed.attempts()
    testbed.resume()
    again = testbed.finish(status=1)
    assert (again["state"], again["cells"]) == ("incomplete", answer["cells"])
    assert testbed.attempts() == attempts, "no cell was begun again"


def test_it_ends_when_enough_is_known(testbed: Testbed) -> None:
    testbed.run(epochs=4, policies=["all_edge", "all_local"], seeds=[1, 2, 3, 4], stop=NARROW_ENOUGH)
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 4)
    assert any("4 of 8 cells were not needed" in reason for reason in answer["reasons"])
    assert set(stop_state(testbed)["not_begun"]) == {f"{p}-s{s}" for p in ("all_edge", "all_local") for s in (3, 4)}
    counts = testbed.check_rows()
    assert counts["failed", "not_needed"] == answer["planned"] // 2
    assert counts["done", ""] + counts["failed", "not_needed"] == answer["planned"]
    check_measures(testbed)
    testbed.resume()
    assert testbed.finish() == answer


def check_measures(testbed: Testbed) -> None:
    """What was compared on the way, from raw segments, is what the sealed tables say."""
    plan = testbed.plan
    attempts = Attempts(testbed.run_folder, [cell.id for cell in plan.listed_cells])
    with counted_tasks(Run(testbed.run_folder)) as connection:
        sealed = {(one.policy, one.seed): one.measures for one in seed_measures(connection)}
    assert len(sealed) == 4
    for cell in plan.cells:
        attempt = attempts.latest(cell.cell_id)
        for measure in MEASURES.keys() - {"energy_error_j"} if attempt is not None else ():
            assert attempt is not None
            found = measure_of_cell(testbed.run_folder, cell, attempt, measure)
            assert found == pytest.approx(sealed[cell.cell.policy, cell.seed][measure], rel=1e-9)


def test_a_killed_orchestrator_and_a_decision_that_stays(testbed: Testbed) -> None:
    testbed.run(epochs=8, policies=["all_edge", "all_local"], seeds=[1, 2, 3], stop=NARROW_ENOUGH)
    testbed.wait_until_running(serial=4)
    testbed.signal(signal.SIGKILL)
    assert testbed.process is not None
    testbed.process.communicate()
    testbed.resume()
    answer = testbed.finish()
    assert (answer["state"], answer["cells"]) == ("complete", 4)
    assert stop_state(testbed)["rule"] == "half_width"
    assert testbed.check_rows()["failed", "not_needed"] > 0
