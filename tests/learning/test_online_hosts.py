"""A policy that learns while real tasks are decided by it: real programs, a real learner in a process of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.types import ObservationSpec
from tests.integration.testbed import Testbed, clean_testbed

LEARNING = {"kind": "online", "publish_s": 0.0, "batch": 4, "updates": 2}


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with clean_testbed(tmp_path) as made:
        yield made


def write_policy(folder: Path, devices: list[str]) -> str:
    """A policy for hosts with random weights; its version."""
    policy = random_hosts_policy(ObservationSpec(tuple(devices), ("edge",), 1), seed=3)
    return save_policy(folder, replace(policy, learner="dc_drl")).version


def events(testbed: Testbed, kind: str) -> list[dict[str, Any]]:
    return [
        json.loads(text) for (text,) in testbed.sql(f"SELECT detail FROM events WHERE kind = '{kind}' ORDER BY t_s")
    ]


def learner_pid(testbed: Testbed) -> int:
    """The learner's process: a child of the orchestrator."""

    def look() -> int:
        assert testbed.process is not None
        pid = testbed.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with suppress(OSError):  # one of its other children has ended meanwhile
                if b"edgebed.learning.online" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0

    return int(testbed.wait_for(look, "the learner"))


def test_new_weights_decide_real_tasks_and_rows_say_which(testbed: Testbed) -> None:
    version = write_policy(testbed.folder / "weights", testbed.devices)
    testbed.run(policies=[{"name": "dc_drl", "weights": "weights", "learn": LEARNING}, "all_local"], epochs=50)
    answer = testbed.finish()
    assert (answer["state"], answer["failed"], answer["unknown"]) == ("complete", 0, 0)
    testbed.check_rows()
    used = testbed.sql(
        "SELECT policy_version, min(epoch) FROM tasks WHERE decided_by = 'controller' AND policy = 'dc_drl' "
        "GROUP BY 1 ORDER BY 2"
    )
    assert used[0][0] == version
    taken = {each["version"]: each["from_epoch"] for each in events(testbed, "weights_taken")}
    assert len(used) > 2, f"versions that decided: {used}; taken: {taken}"
    for name, first in used[1:]:
        assert name.startswith(f"{version}+")
        assert first >= taken[name], "no row is decided by weights that had not come"
    published = events(testbed, "weights_published")
    assert [each["updates"] for each in published] == sorted({each["updates"] for each in published})
    assert all(np.isfinite(each["critic_loss"]) for each in published)
    assert testbed.plan.policy("dc_drl").options["weights"].startswith("sha256:")


def test_a_learner_that_dies_costs_no_task(testbed: Testbed) -> None:
    version = write_policy(testbed.folder / "weights", testbed.devices)
    testbed.run(policies=[{"name": "dc_drl", "weights": "weights", "learn": LEARNING}], epochs=50, seeds=[1, 2])
    testbed.wait_until_running()
    os.kill(learner_pid(testbed), signal.SIGKILL)
    answer = testbed.finish()
    assert (answer["state"], answer["failed"], answer["unknown"]) == ("complete", 0, 0)
    assert [each["exit_status"] for each in events(testbed, "learner_died")] == [-signal.SIGKILL]
    versions = testbed.sql(
        "SELECT seed, count(DISTINCT policy_version) FROM tasks WHERE decided_by = 'controller' GROUP BY seed"
    )
    counts = sorted(count for _, count in versions)
    assert counts[1] > 1, "the next cell has a new learner"
    first = testbed.sql(
        "SELECT seed, arg_min(policy_version, epoch) FROM tasks WHERE decided_by = 'controller' GROUP BY seed"
    )
    assert {name for _, name in first} == {version}, "every cell begins with the weights of the plan"


def test_weights_that_diverge_stop_the_learner_and_not_the_run(testbed: Testbed) -> None:
    write_policy(testbed.folder / "weights", testbed.devices)
    wild = LEARNING | {"critic_rate": 1e30, "actor_rate": 1e30, "actor_after": 0, "updates": 50}
    testbed.run(policies=[{"name": "dc_drl", "weights": "weights", "learn": wild}], epochs=50)
    answer = testbed.finish()
    assert answer["state"] == "complete"
    problems = [each["problem"] for each in events(testbed, "learner_failed")]
    assert len(problems) == 1
    assert "not finite" in problems[0]
    assert "lower actor_rate" in problems[0]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"learn": {"kind": "offline"}}, "allowed: 'online'"),
        ({"learn": "online", "placement": "device"}, "is for policies in the controller"),
        ({"learn": {"kind": "online", "batch": 0}}, "batch"),
        ({"learn": {"kind": "online", "speed": 3}}, "speed"),
        ({"learn": "online", "mapping": {"slots": {"pi-1": "pi-2", "pi-2": "pi-1"}}}, "sees what hosts show"),
    ],
    ids=str,
)
def test_what_cannot_be_learned_is_refused_before_anything_starts(
    testbed: Testbed, policy: dict[str, Any], message: str
) -> None:
    write_policy(testbed.folder / "weights", testbed.devices)
    testbed.run(policies=[{"name": "dc_drl", "weights": "weights"} | policy])
    assert testbed.process is not None
    testbed.process.communicate(timeout=60)
    assert testbed.process.returncode == 2
    assert message in testbed.error_file.read_text()
    assert not testbed.runs.exists()
    testbed.runs = testbed.folder  # nothing to look at afterwards
    (testbed.folder / "tiny" / "latest").mkdir(parents=True)
