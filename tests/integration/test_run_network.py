"""A learned policy decides real tasks, in the controller and on the devices; its weights come with the run."""

from __future__ import annotations

from typing import Any

import pytest

from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.types import ObservationSpec

pytestmark = pytest.mark.integration


def test_weights_decide_where_they_are_placed(testbed: Any) -> None:
    spec = ObservationSpec(tuple(testbed.devices), ("edge",))
    joint = save_policy(testbed.folder / "joint", random_hosts_policy(spec, hidden=(16,), seed=1))
    own = save_policy(testbed.folder / "own", random_hosts_policy(spec, scope="device", hidden=(16,), seed=2))
    policies = [
        {"name": "network", "label": "central", "weights": "joint"},
        {"name": "network", "label": "own", "weights": "own", "placement": "device"},
    ]
    testbed.run(policies=policies, epochs=4)
    assert testbed.finish()["state"] == "complete"
    assert set(testbed.check_rows()) == {("done", "")}
    deciders = testbed.sql("SELECT DISTINCT policy, decided_by, policy_version FROM tasks ORDER BY ALL")
    of_policies = [row for row in deciders if row[1] != "fallback"]  # a busy machine may answer too late now and then
    assert of_policies == [("central", "controller", joint.version), ("own", "device", own.version)]
    assert testbed.sql("SELECT count(*) FROM events WHERE kind = 'policy_failed'") == [(0,)]
