"""A policy that learns while it decides in virtual time: the learner of hosts, in turn with the cell, to the byte."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.trace.runs import Run
from edgebed.types import ObservationSpec
from orchestrator.cli import main
from orchestrator.interrupts import Interrupts
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan
from orchestrator.progress import Standing
from orchestrator.simulated_runner import SimulatedRunner

LEARNING: dict[str, Any] = {
    "kind": "online",
    "publish_s": 0.0,
    "batch": 4,
    "updates": 4,
    "actor_after": 0,
    "actor_rate": 0.01,
}
DEVICES = ("pi-1", "pi-2", "pi-3")
EXPERIMENT: dict[str, Any] = {
    "name": "learns",
    "workload": "digits",
    "backend": "simulated",
    "deadline_s": 0.7,
    "arrivals": {"kind": "poisson", "rate_per_s": 4.0, "frames": {"low": 2, "high": 8}},
    "epoch_s": 0.5,
    "epochs": 30,
    "seeds": [1, 2],
    "order": "sequential",
}


def files(folder: Path, learn: dict[str, Any] | str | None = None, **changes: Any) -> tuple[Path, Path, str]:
    """Experiment, hosts, and the version of the policy that learns."""
    folder.mkdir(exist_ok=True)
    policy = random_hosts_policy(ObservationSpec(DEVICES, ("edge",), 1), seed=3)
    version = save_policy(folder / "weights", replace(policy, learner="dc_drl")).version
    chosen = {"name": "dc_drl", "weights": "weights", "learn": LEARNING if learn is None else learn}
    (folder / "x.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"policies": [chosen, "all_local"]} | changes))
    slowdown = {"pi-1": 8, "pi-2": 14, "pi-3": 11}
    hosts = {
        "edge_servers": {"hosts": {"edge": {"edgebed_slowdown": 2}}},
        "devices": {"hosts": {name: {"edgebed_slowdown": times} for name, times in slowdown.items()}},
    }
    given = {"all": {"vars": {"ansible_connection": "local"}, "children": hosts}}
    (folder / "hosts.yaml").write_text(yaml.safe_dump(given))
    return folder / "x.yaml", folder / "hosts.yaml", version


def simulated(folder: Path, learn: dict[str, Any] | str | None = None, **changes: Any) -> tuple[Run, str]:
    """A run by the command of a user, and the version that every cell begins with."""
    experiment, hosts, version = files(folder, learn, **changes)
    assert main(["run", str(experiment), "--hosts", str(hosts), "--runs", str(folder / "runs")]) == 0
    (found,) = (folder / "runs" / "learns").glob("2*")
    return Run(found), version


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(row["detail"])
        for row in run.query("SELECT detail, kind FROM events ORDER BY t_s").records()
        if row["kind"] == kind
    ]


def digests(run: Run) -> dict[str, str]:
    names = ("tasks", "epochs", "events")
    return {name: hashlib.sha256((run.path / f"{name}.parquet").read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """One run that the tests below look at."""
    return simulated(tmp_path_factory.mktemp("trial"))


def test_new_weights_decide_from_the_epoch_that_their_event_says(trial: tuple[Run, str]) -> None:
    run, version = trial
    manifest = run.manifest
    assert (manifest.state, manifest.verdict, manifest.counts["unknown"]) == ("complete", "valid", 0)
    rows = run.query(
        "SELECT cell_id, policy_version AS version, min(epoch) AS first, max(epoch) AS last FROM epochs "
        "WHERE starts_with(cell_id, 'dc_drl') AND policy_version IS NOT NULL GROUP BY ALL ORDER BY cell_id, first"
    ).records()
    taken = events(run, "weights_taken")
    published = events(run, "weights_published")
    assert [each["version"] for each in taken] == [each["version"] for each in published]
    assert all(np.isfinite(each["critic_loss"]) for each in published)
    assert not any("learning_s" in each for each in published), "no two runs take as long"
    begun = []
    for cell in ("dc_drl-s1", "dc_drl-s2"):
        own = [row for row in rows if row["cell_id"] == cell]
        assert (own[0]["version"], own[0]["first"]) == (version, 0), "every cell begins with the weights of the plan"
        assert len(own) > 5
        for before, after in pairwise(own):
            assert before["last"] + 1 == after["first"]
        begun += [(row["version"], row["first"]) for row in own[1:]]
    assert begun == [(each["version"], each["from_epoch"]) for each in taken]
    told = "SELECT count(*) FROM tasks JOIN epochs USING (cell_id) WHERE decision_epoch = epochs.epoch AND {}"
    who = "starts_with(cell_id, 'dc_drl') AND tasks.decided_by = 'controller'"
    assert run.query(told.format(f"{who} AND tasks.policy_version = epochs.policy_version")).rows[0][0] > 200
    assert run.query(told.format(f"{who} AND tasks.policy_version <> epochs.policy_version")).rows == [(0,)]
    assert [each["cell"] for each in events(run, "learner_ready")] == ["dc_drl-s1", "dc_drl-s2"]


def test_decisions_change_by_what_is_learned_and_only_there(trial: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = trial
    fixed, _ = simulated(tmp_path, policies=[{"name": "dc_drl", "weights": "weights"}, "all_local"])
    columns = "SELECT device_id, arrived_s, requested_site, latency_s FROM tasks WHERE policy = '{}' ORDER BY ALL"
    assert run.query(columns.format("all_local")).rows == fixed.query(columns.format("all_local")).rows
    assert run.query(columns.format("dc_drl")).rows != fixed.query(columns.format("dc_drl")).rows


def test_it_is_the_same_to_the_byte_and_when_it_was_interrupted(trial: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = trial
    again, _ = simulated(tmp_path / "again")
    assert digests(again) == digests(run)

    experiment, hosts, _ = files(tmp_path / "stopped")
    folder = create_run_folder(make_plan(experiment, hosts), tmp_path / "stopped" / "runs")
    interrupts = Interrupts()

    class Stopping:
        """A display that asks to stop in the middle of the second cell that learns."""

        def show(self, standing: Standing) -> None:
            interrupts.count += standing.doing.startswith("dc_drl-s2") and standing.tasks_done > standing.tasks * 0.6

        def note(self, text: str) -> None:
            """Nothing."""

        def close(self) -> None:
            """Nothing."""

    plan = Plan.from_yaml(folder / "plan.yaml")
    stopped = SimulatedRunner(folder, plan, Stopping(), interrupts=interrupts).run(None)
    assert (stopped.manifest.state, stopped.is_interrupted) == ("incomplete", True)
    assert main(["resume", str(folder)]) == 0
    drop = "SELECT * EXCLUDE (attempt) FROM tasks ORDER BY task_id"
    assert Run(folder).query(drop).rows == run.query(drop).rows


def test_weights_that_diverge_stop_the_learner_and_not_the_cell(tmp_path: Path) -> None:
    wild = LEARNING | {"critic_rate": 1e30, "actor_rate": 1e30, "updates": 50}
    run, _ = simulated(tmp_path, wild, seeds=[1])
    assert run.manifest.state == "complete"
    (failed,) = events(run, "learner_failed")
    assert failed["cell"] == "dc_drl-s1"
    assert "lower actor_rate" in failed["problem"]


def test_learning_online_is_refused_on_a_recorded_day(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = simulated(tmp_path, seeds=[1])
    arguments = ["--backend", "replayed", "--from", str(run.path), "--runs", str(tmp_path / "replays")]
    assert main(["run", str(tmp_path / "x.yaml"), *arguments, "--set", "seeds=[1]"]) == 2
    assert "dc_drl learns while it decides, which a record does not allow" in capsys.readouterr().err
    assert not (tmp_path / "replays").exists()
