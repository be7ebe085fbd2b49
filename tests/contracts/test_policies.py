"""Every registered policy, and the fake, keeps the `Policy` contract."""

from __future__ import annotations

import pytest

from edgebed.policies import make_policy, policy_class, policy_names
from edgebed.policies.testing import ScriptedPolicy, check_policy


@pytest.mark.parametrize("name", policy_names())
def test_registered_policy_keeps_the_contract(name: str) -> None:
    check_policy(lambda spec: make_policy(name, spec))


@pytest.mark.parametrize("name", policy_names())
def test_registered_name_is_the_spec_s_name(name: str) -> None:
    assert policy_class(name).spec.name == name


@pytest.mark.parametrize("actions", [[[0]], [[1], [0]], [[2, 1, 0], [7]]])
def test_the_fake_keeps_the_contract(actions: list[list[int]]) -> None:
    check_policy(lambda spec: ScriptedPolicy(spec, {"actions": actions}))
