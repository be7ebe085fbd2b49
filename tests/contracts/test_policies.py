"""Every registered policy, and the fake, keeps the `Policy` contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.policies import make_policy, policy_class, policy_names
from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.policies.testing import ScriptedPolicy, check_policy
from edgebed.types import Feature, ObservationSpec

EDGE = Feature("edge_fraction", "1", 0, 1, "share of the frames that goes to the edge")
CPU = Feature("cpu_fraction", "1", 0, 1, "share of the clock")
POWER = Feature("power_fraction", "1", 0, 1, "share of the power")


@pytest.mark.parametrize("name", sorted(set(policy_names()) - {"network"}))
def test_registered_policy_keeps_the_contract(name: str) -> None:
    check_policy(lambda spec: make_policy(name, spec))


@pytest.mark.parametrize("numbers", [(), (EDGE,), (CPU, EDGE, POWER)], ids=lambda each: f"{len(each)} numbers")
@pytest.mark.parametrize(("scope", "own_weights"), [("joint", False), ("device", False), ("device", True)])
def test_a_network_keeps_the_contract(
    scope: str, own_weights: bool, numbers: tuple[Feature, ...], tmp_path: Path
) -> None:
    """`network` is nothing without weights, and weights are for certain slots: each spec gets its own."""

    def weights(spec: ObservationSpec) -> str:
        folder = tmp_path / f"{len(spec.slots)}-{len(spec.servers)}"
        if not folder.exists():
            save_policy(folder, random_hosts_policy(spec, scope=scope, own_weights=own_weights, numbers=numbers))
        return str(folder)

    check_policy(lambda spec: make_policy("network", spec, {"weights": weights(spec)}))


@pytest.mark.parametrize("name", policy_names())
def test_registered_name_is_the_spec_s_name(name: str) -> None:
    assert policy_class(name).spec.name == name


@pytest.mark.parametrize("actions", [[[0]], [[1], [0]], [[2, 1, 0], [7]]])
def test_the_fake_keeps_the_contract(actions: list[list[int]]) -> None:
    check_policy(lambda spec: ScriptedPolicy(spec, {"actions": actions}))
