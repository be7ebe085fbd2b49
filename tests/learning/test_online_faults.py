"""Learning in virtual time while something is broken; and the simulated counterpart of a run that learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import main
from tests.learning.test_online_simulated import EXPERIMENT, events, simulated

KILLED_S = 7.1


def test_a_controller_that_was_restarted_goes_on_with_the_newest_weights(tmp_path: Path) -> None:
    fault = {"kind": "kill", "host": "edge", "program": "controller", "at_s": KILLED_S}
    run, version = simulated(tmp_path, faults=[fault], seeds=[1])
    tick_s = f"(epoch + 1) * {EXPERIMENT['epoch_s']}"
    rows = run.query(
        f"SELECT epoch, policy_version FROM epochs WHERE cell_id = 'dc_drl-s1' AND decided_by = 'controller' "
        f"AND {tick_s} > {KILLED_S} ORDER BY epoch"
    ).rows
    assert rows[0][1] != version, "the newest weights are sent again"
    taken = [each["version"] for each in events(run, "weights_taken")]
    assert {row[1] for row in rows} <= set(taken)
    assert len({row[1] for row in rows}) > 1, "and it goes on learning"
    assert not any(tick < KILLED_S + 1.7 for tick in ((epoch + 1) * 0.5 for epoch, _ in rows))


def test_the_simulated_counterpart_of_a_run_that_learned_learns_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = simulated(tmp_path)
    page = str(tmp_path / "page.html")
    words = ["validate", str(run.path / "profile.yaml"), str(run.path), "--replicas", "1", "-o", page, "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {error["value"] for error in found["errors"].values()} == {0.0}
    assert any("dc_drl learned meanwhile; so it does in the simulation" in notice for notice in found["notices"])
