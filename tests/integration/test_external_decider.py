"""`examples/external_decider.py` decides for a real run, from its own process."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgebed.errors import BadInput
from orchestrator.decider import decider_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EPOCHS = 4
PATIENCE_S = 60.0
PATIENT = {"decision_s": 10.0, "task_s": 20.0, "prepare_s": 60.0}


def begin_example(testbed: Any) -> subprocess.Popen[str]:
    testbed.wait_for(lambda: (testbed.runs / "tiny" / "latest").exists(), "a run folder")
    command = [sys.executable, str(ROOT / "examples" / "external_decider.py"), str(testbed.runs / "tiny" / "latest")]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=testbed.environment, cwd=ROOT
    )


def test_a_program_of_its_own_decides_every_cell_that_is_its_own(testbed: Any) -> None:
    mine = {"name": "mine", "placement": "external"}
    testbed.run(policies=["all_local", mine], seeds=[1, 2], epochs=EPOCHS, epoch_s=0.6, timeouts=PATIENT)
    example = begin_example(testbed)
    try:
        answer = testbed.finish()
        output, errors = example.communicate(timeout=PATIENCE_S)
    finally:
        example.kill()
        example.communicate()
    assert example.returncode == 0, errors
    assert answer["cells"] == 4
    assert set(testbed.check_rows()) == {("done", "")}
    decided = dict(testbed.sql("SELECT decided_by, count(*) FROM tasks WHERE policy = 'mine' GROUP BY ALL"))
    assert decided["external"] > 0
    versions = testbed.sql("SELECT DISTINCT policy_version FROM tasks WHERE decided_by = 'external'")
    assert versions == [("balance-1",)]
    lines = output.splitlines()
    ends = [line for line in lines if line.endswith(": the end, 2 devices present")]
    assert {line.split()[0] for line in ends} == {"mine-s1", "mine-s2"}
    assert all(f"epoch {EPOCHS}:" in line for line in ends)
    per_cell = Counter(line.split()[0] for line in lines[:-1])
    assert set(per_cell) == {"mine-s1", "mine-s2"}
    # A controller that could not run for an epoch goes on with the newest.
    assert all(1 < shown <= EPOCHS + 1 for shown in per_cell.values())
    assert lines[-1] == f"{sum(per_cell.values()) - len(ends)} decisions"
    query = f"SELECT cell_id, observation FROM epochs WHERE epoch = {EPOCHS} AND device_id = '' ORDER BY ALL"
    last = testbed.sql(query)
    assert [cell for cell, _ in last] == ["all_local-s1", "all_local-s2", "mine-s1", "mine-s2"]
    assert all(any(observation) for _, observation in last)


def test_a_run_whose_decider_never_comes_fails_and_says_why(testbed: Any) -> None:
    mine = {"name": "mine", "placement": "external"}
    testbed.run(policies=[mine], epochs=EPOCHS, timeouts={"task_s": 2.0, "prepare_s": 8.0})
    assert testbed.finish(1)["state"] == "failed"
    problem = testbed.manifest()["problems"][0]
    assert "controller: it did not get ready within 8 s" in problem
    assert "cell mine-s1 waits for the program that decides it: nobody is connected as one" in problem
    assert set(testbed.check_rows()) == {("failed", "not_run")}


def test_where_nothing_runs_there_is_nothing_to_decide(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"latest: no run was going on here for 0\.2 s; start `edgebed run`"):
        decider_of(tmp_path / "latest", patience_s=0.2)
