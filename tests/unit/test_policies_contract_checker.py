"""The checker of the `Policy` contract finds each way of breaking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.base import Options, Policy, settle
from edgebed.policies.testing import ScriptedPolicy, check_policy, example_specs
from edgebed.types import Decision, Observation, PolicySpec

OFFLOADS = ("site", "server", "channel")
SETS_POWER = (*OFFLOADS, "power_fraction")
Decide = Callable[[Any, Observation], Decision]


def offload(policy: Policy, observation: Observation) -> Decision:
    wanted = np.full(len(observation.present), min(1, policy.observation_spec.actions - 1), np.int32)
    return Decision.from_actions(settle(wanted, observation), policy.observation_spec)


class MustOffload(Policy):
    """Correct: offloads to the first server and channel wherever it may."""

    spec = PolicySpec("must_offload", sets=OFFLOADS)
    calls = 0

    def decide(self, observation: Observation) -> Decision:
        return offload(self, observation)


def broken(decide: Decide, **attributes: Any) -> type[Policy]:
    """A policy that is right in all but what is given."""
    return type("Broken", (MustOffload,), {"decide": decide, **attributes})


def ignore_masks(policy: Policy, observation: Observation) -> Decision:
    allowed = np.ones_like(observation.allowed_actions)
    return offload(policy, replace(observation, allowed_actions=allowed))


def ignore_absence(policy: Policy, observation: Observation) -> Decision:
    present = np.ones_like(observation.present)
    return offload(policy, replace(observation, present=present))


def draw_from_nowhere(policy: Policy, observation: Observation) -> Decision:
    coin = np.random.default_rng().integers(0, 2, len(observation.present)) * (policy.observation_spec.actions > 1)
    return Decision.from_actions(settle(coin.astype(np.int32), observation), policy.observation_spec)


def remember_earlier_episodes(policy: MustOffload, observation: Observation) -> Decision:
    policy.calls += 1
    wanted = np.full(len(observation.present), policy.calls % 2 if policy.observation_spec.actions > 1 else 0)
    return Decision.from_actions(settle(wanted.astype(np.int32), observation), policy.observation_spec)


def read_by_position(policy: Policy, observation: Observation) -> Decision:
    wanted = (observation.values[:, 0] > 0.5) * (policy.observation_spec.actions > 1)
    return Decision.from_actions(settle(wanted.astype(np.int32), observation), policy.observation_spec)


def reuse_arrays(policy: MustOffload, observation: Observation) -> Decision:
    policy.calls += 1
    power = vars(policy).setdefault("power", np.ones(len(observation.present), np.float32))
    power[:] = 1 / policy.calls
    return replace(offload(policy, observation), power_fraction=power)


def set_what_it_does_not_say(policy: Policy, observation: Observation) -> Decision:
    decision = offload(policy, observation)
    decision.cpu_fraction[:] = 0.5
    return decision


def forget_the_fraction(policy: Policy, observation: Observation) -> Decision:
    decision = offload(policy, observation)
    decision.edge_fraction[:] = 0.0
    return decision


def split_into_nothing(policy: Policy, observation: Observation) -> Decision:
    decision = offload(policy, observation)
    decision.site[decision.site == 1] = 2
    return decision


BREAKS: dict[str, tuple[type[Policy], str]] = {
    "masks": (broken(ignore_masks), "is masked|everything masked"),
    "absent slots": (broken(ignore_absence), "an absent slot runs locally"),
    "randomness without a seed": (broken(draw_from_nowhere), "the same seed"),
    "state kept over a reset": (broken(remember_earlier_episodes), "the same seed"),
    "columns by position": (broken(read_by_position), "columns in another order"),
    "arrays used again": (
        broken(reuse_arrays, spec=PolicySpec("b", sets=(*OFFLOADS, "power_fraction"))),
        "not changed",
    ),
    "a field not announced": (broken(set_what_it_does_not_say), "`cpu_fraction` is not in spec.sets"),
    "offloading a share of 0": (broken(forget_the_fraction), "edge_fraction is 0 on the device"),
    "splitting off everything": (broken(split_into_nothing), "edge_fraction is 0 on the device"),
    "no name": (broken(offload, spec=PolicySpec("", sets=OFFLOADS)), "has a name"),
    "an unknown field": (broken(offload, spec=PolicySpec("b", sets=("speed",))), "are fields of Decision"),
    "an option not described": (
        broken(offload, options_type=type("O", (Options,), {"__annotations__": {"x": int}, "x": 1})),
        "describes all of",
    ),
    "no version": (broken(offload, version=""), "`version` is a text"),
    "nowhere to run": (broken(offload, spec=PolicySpec("b", sets=OFFLOADS, placements=())), "placement"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_each_broken_rule_is_found(rule: str) -> None:
    kind, complaint = BREAKS[rule]
    with pytest.raises(AssertionError, match=complaint):
        check_policy(kind)


def test_the_policy_they_are_made_from_is_right() -> None:
    check_policy(MustOffload)


def test_changing_the_observation_is_found() -> None:
    def scale_in_place(policy: Policy, observation: Observation) -> Decision:
        observation.values[:] = 0
        return offload(policy, observation)

    with pytest.raises(ValueError, match="read-only"):
        check_policy(broken(scale_in_place))


def test_a_wrong_shape_is_found() -> None:
    with pytest.raises(SchemaMismatch, match=r"decision\.site has shape \(2,\); the spec has 1 slots"):
        check_policy(broken(lambda policy, observation: Decision.local(2)), example_specs()[:1])


def test_a_value_out_of_range_is_found() -> None:
    def overclock(policy: Policy, observation: Observation) -> Decision:
        decision = Decision.local(len(observation.present))
        decision.cpu_fraction[:] = 1.5
        return decision

    with pytest.raises(BadInput, match=r"cpu_fraction 1\.5 is not in \(0, 1\]"):
        check_policy(broken(overclock))


def test_the_fake_plays_its_script_and_remembers_what_it_saw() -> None:
    spec = example_specs()[2]
    policy = ScriptedPolicy(spec, {"actions": [[0, 1, 2], [1]]})
    policy.reset(0)
    everyone = replace(Observation.empty(spec), present=np.ones(3, np.bool_))
    played = [policy.decide(replace(everyone, epoch=epoch)) for epoch in range(3)]
    assert [decision.site.tolist() for decision in played] == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert [decision.channel.tolist() for decision in played] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert [observation.epoch for observation in policy.seen] == [0, 1, 2]


@pytest.mark.parametrize("actions", [[], [[]], [[-1]], "none"])
def test_the_fake_refuses_a_script_that_is_none(actions: object) -> None:
    with pytest.raises(BadInput, match=r"policy scripted: options: .* allowed options: actions:"):
        ScriptedPolicy(example_specs()[0], {"actions": actions})
