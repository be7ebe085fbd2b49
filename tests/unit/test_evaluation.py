"""Evaluating policies: seeds, batches, intervals, learned policies, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtrit

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies.forward import Layer, Network
from edgebed.policies.heads import Head
from edgebed.policies.inputs import Inputs
from edgebed.policies.policy_file import PolicyFile, save_policy
from edgebed.simulation.base import Scenario
from edgebed.simulation.evaluation import Evaluation, evaluate
from edgebed.simulation.intervals import t_interval, t_quantile
from edgebed.simulation.learned import LearnedPolicy
from edgebed.simulation.scenarios import make_scenario

# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 30, 49, 200, 399, 400, 401, 5000, 10**6])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.9995])
def test_quantiles_of_the_t_distribution(degrees: int, probability: float) -> None:
    assert t_quantile(degrees, probability) == pytest.approx(float(stdtrit(degrees, probability)), rel=1e-8, abs=1e-12)


def test_an_interval() -> None:
    low, high = t_interval([1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(2.0 - 4.302652729 / 3**0.5), pytest.approx(2.0 + 4.302652729 / 3**0.5))
    assert t_interval([1.0]) is None


# --- episodes ---------------------------------------------------------------------------------------------------------


def evaluated(policy: str, **settings: Any) -> Evaluation:
    return evaluate(make_scenario("dc-drl", {"n": 3, "steps": 7}), lambda one: one.heuristics[policy](one), **settings)


def test_an_episode_depends_on_its_own_seed_alone() -> None:
    together = evaluated("uniform_random", episodes=9, seed=100)
    for batch in (1, 2, 4, 100):
        parts = evaluated("uniform_random", episodes=9, seed=100, batch=batch)
        assert (parts.returns == together.returns).all()
        assert all((parts.metrics[name] == values).all() for name, values in together.metrics.items())
    shifted = evaluated("uniform_random", episodes=4, seed=105)
    assert (shifted.returns == together.returns[5:]).all()
    assert len(set(together.returns.tolist())) == 9


def test_returns_are_negative_costs_summed() -> None:
    found = evaluated("all_local", episodes=5)
    assert found.returns == pytest.approx(-found.metrics["cost_per_task"] * 3 * 7)
    assert found.cost_per_task_mean == pytest.approx(found.metrics["cost_per_task"].mean())
    assert found.return_mean == pytest.approx(found.returns.mean())
    interval = found.return_ci95
    assert interval is not None
    assert interval[0] < found.return_mean < interval[1]
    assert evaluated("all_local", episodes=1).return_ci95 is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"episodes": 0}, "episodes: 0; at least 1 is needed"),
        ({"episodes": -3}, "episodes: -3"),
        ({"episodes": 1, "seed": -1}, "seed: -1; a number from 0 to"),
        ({"episodes": 1, "seed": 2**63}, "seed: 9223372036854775808"),
    ],
)
def test_bad_settings(settings: dict[str, int], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        evaluated("all_local", **settings)


# --- learned policies -------------------------------------------------------------------------------------------------


def network(scenario: Scenario, scope: str, rng: np.random.Generator) -> PolicyFile:
    """An untrained policy for a scenario of choices."""
    features = scenario.device_features if scope == "joint" else scenario.view_features
    shared = scenario.shared_features if scope == "joint" else ()
    devices = scenario.devices if scope == "joint" else 1
    width, choices = devices * len(features) + len(shared), len(scenario.actions.choices)
    columns = (*features * devices, *shared)
    mean = np.array([(one.low + one.high) / 2.0 for one in columns], np.float32)
    scale = np.array([(one.high - one.low) / 2.0 or 1.0 for one in columns], np.float32)
    weight = rng.normal(0, 0.5, (width, devices * choices)).astype(np.float32)
    return PolicyFile(
        scenario=scenario.spec.name,
        scope=scope,
        slots=tuple(f"device-{index}" for index in range(scenario.devices)),
        device_features=features,
        shared_features=shared,
        choices=scenario.actions.choices,
        head=Head("categorical_per_device", choices),
        inputs=Inputs(mean, scale),
        networks={"actor": Network([Layer.of(weight, np.zeros(devices * choices, np.float32))])},
    )


def by_hand(scenario: Scenario, file: PolicyFile) -> NDArray[np.int64]:
    """The best choices of a policy of one layer."""
    seen = scenario.observe().joint() if file.scope == "joint" else scenario.device_views()
    scores = ((seen - file.inputs.mean) / file.inputs.scale) @ file.actor.layers[0].weight
    return scores.reshape(len(seen), scenario.devices, -1).argmax(axis=2)


@pytest.mark.parametrize("scope", ["joint", "device"])
def test_a_learned_policy_decides_as_its_network_says(scope: str, tmp_path: Path) -> None:
    scenario = make_scenario("dc-drl", {"n": 3})
    file = save_policy(tmp_path, network(scenario, scope, np.random.default_rng(3)))
    policy = LearnedPolicy.load(scenario, tmp_path)
    scenario.reset([1, 2])
    seen = set()
    for _ in range(20):
        actions = policy.act()
        assert (actions == by_hand(scenario, file)).all()
        scenario.step(actions)
        seen |= set(actions.ravel().tolist())
    assert len(seen) > 1


def test_a_policy_that_does_not_fit_names_both_sides() -> None:
    file = network(make_scenario("dc-drl", {"n": 3}), "joint", np.random.default_rng(0))
    with pytest.raises(SchemaMismatch, match="was trained for 3 devices, the scenario has 4"):
        LearnedPolicy(make_scenario("dc-drl", {"n": 4}), file)
    with pytest.raises(SchemaMismatch, match=r"its choices are local, .*channel 4; the scenario's local, .*channel 1;"):
        LearnedPolicy(make_scenario("dc-drl", {"n": 3, "channels": 2}), file)
    with pytest.raises(
        SchemaMismatch, match=r"made for dc-drl and does not fit explaboff-3x2: its device features are"
    ):
        LearnedPolicy(make_scenario("explaboff-3x2"), file)


def test_a_device_s_policy_fits_any_number_of_devices() -> None:
    file = network(make_scenario("dc-drl", {"n": 3}), "device", np.random.default_rng(0))
    other = make_scenario("dc-drl", {"n": 8, "steps": 3})
    assert len(evaluate(other, lambda one: LearnedPolicy(one, file), episodes=2).returns) == 2
