"""DC-DRL: what a generation does, that all switches work, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgebed.errors import BadInput
from edgebed.learning.aga import Aga
from edgebed.learning.base import Learner, Metrics, TrainingTask, read_learner_config
from edgebed.learning.choices import compressed, observation_inputs, scenario_of_choices
from edgebed.learning.dc_drl import DcDrl, DcDrlConfig
from edgebed.learning.encodings import OneHot
from edgebed.learning.executor import make_executor
from edgebed.learning.networks import Ensemble
from edgebed.learning.noise import Counted
from edgebed.learning.ppo import Ppo
from edgebed.learning.replay import FINAL
from edgebed.learning.search import GeneticSearch, searched
from edgebed.policies.policy_file import load_policy
from edgebed.simulation.learned import LearnedPolicy
from edgebed.simulation.scenarios import make_scenario
from tests.learning.judging import cost_against_all_local

SMALL: dict[str, Any] = {
    "episodes": 1,
    "hidden": [24, 16],
    "cells": 2,
    "batch": 16,
    "capacity": 2000,
    "cell_capacity": 1000,
}

ALONE: dict[str, Any] = {"neuroevolution": "off", "cell_updates": 0.0}
"""The collective agent alone learns."""


def made(
    kind: type[Learner] = DcDrl, n: int = 3, steps: int = 1000, seeds: tuple[int, ...] = (1, 2), **settings: Any
) -> Any:
    given = (SMALL if kind is not Ppo else {}) | settings
    config = read_learner_config(kind.spec, given)
    task = TrainingTask(kind.spec.name, config, "dc-drl", {"n": n}, seeds, steps)
    return kind(task, make_executor("inline"))


def test_a_generation_counts_steps_bytes_and_updates() -> None:
    learner = made(collective_updates=0.25)
    first, second = learner.advance(), learner.advance()
    assert learner.steps == 2 * 2 * 50
    assert second["updates"] == [50.0, 50.0]  # a quarter of 200 steps
    weights = sum(one[0].numel() * 4 for net in learner._agent.ddpg.networks.values() for one in net.tensors)
    assert second["parameter_bytes"] == [2.0 * weights] * 2
    rows = 51 * 2  # of each of two cells, final ones included
    assert first["trajectory_bytes"] == [rows * (24 * 4 + 3 * 1 + 3 * 4 + 1)] * 2
    assert second["uploaded_bytes"][0] == pytest.approx(2 * (first["trajectory_bytes"][0] + 2 * weights))


def test_the_collective_agent_learns_from_all_cells() -> None:
    learner = made()
    learner.advance()
    assert learner._agent.replay.sizes.tolist() == [100, 100]
    cells = [server.worker._agent.replay for server in learner.executor._servers]
    assert [one.sizes.tolist() for one in cells] == [[50, 50], [50, 50]]
    whole = learner._agent.replay.observations[:, :102]
    assert np.array_equal(whole, np.concatenate([one.observations[:, :51] for one in cells], axis=1))


def test_without_updates_the_collective_agent_moves_by_the_weighted_perturbations() -> None:
    learner = made(collective_updates=0.0, cell_updates=0.0, mutation=0.01)
    before = learner._agent.parameters()
    learner.advance()
    after = learner._agent.parameters()
    moved = (after["actor.2"] - before["actor.2"])[0]
    # Two agents, by rank 2/3 and 1/3: the deviation of the weighted sum.
    assert moved.std() == pytest.approx(0.01 * np.sqrt((2 / 3) ** 2 + (1 / 3) ** 2), rel=0.15)
    np.testing.assert_allclose(
        after["target_actor.2"] - before["target_actor.2"], after["actor.2"] - before["actor.2"], atol=1e-6
    )


def test_the_first_cell_acts_as_the_policy_would_and_the_last_explores_in_full() -> None:
    learner = made(cells=3, random=1.0, noise=0.0, last_random=1.0, least_exploration=0.0, **ALONE)
    before = learner._agent.ddpg.actor.copy()
    learner.advance()
    shares = []
    for server in learner.executor._servers:
        replay = server.worker._agent.replay
        rows = replay.kinds[0] != FINAL
        seen = torch.from_numpy(replay.observations[:, rows])
        shares.append(learner._agent.encoding.agreeing(before(seen), replay.actions[:, rows]).mean())
    assert shares[0] == 1.0
    assert shares[0] > shares[1] > shares[2]
    config = learner.config
    assert [config.exploration(cell) for cell in range(3)] == [0.0, 0.5, 1.0]
    assert DcDrlConfig(cells=1, least_exploration=0.0).exploration(0) == 1.0


def test_agents_below_the_average_are_replaced() -> None:
    learner = made(cells=4)
    assert learner._replaced.all()  # all begin with the common agent
    metrics = learner.advance()
    assert 0 < metrics["replaced_share"][0] < 1
    assert learner._replaced.any()
    assert not learner._replaced.all()


@pytest.mark.parametrize(
    "settings",
    [
        {"neuroevolution": "off"},
        {"neuroevolution": "vanilla"},
        {"adaptive_n": False, "n_step": 1},
        {"adaptive_n": False, "n_step": 5},
        {"encoding": "published_tanh", "critic": "per_device"},
        {"critic": "per_device"},
        {"critic": "joint"},
        {"cells": 1},
        {"actor_every": 2},
        {"prioritised": True},
        {"prioritised": True, "critic": "joint", "priority_power": 1.0, "priority_correction": 1.0},
    ],
    ids=str,
)
def test_every_switch_trains_and_writes_a_policy_that_decides_alike(settings: dict[str, Any], tmp_path: Path) -> None:
    learner = made(**settings)
    metrics: Metrics = {}
    for _ in range(3):
        metrics = learner.advance()
    for name, values in metrics.items():
        assert all(value is None or np.isfinite(value) for value in values), name
    if settings.get("neuroevolution") == "vanilla":
        assert learner._agent.updates == 0
    learner.export(1, tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    scenario = make_scenario("dc-drl", {"n": 3})
    scenario.reset(np.arange(40))
    seen = scenario.observe().joint()
    with torch.no_grad():
        outputs = learner._agent.ddpg.target_actor(torch.from_numpy(learner._inputs(seen)).repeat(2, 1, 1))
    if not isinstance(learner._agent.encoding, OneHot):
        expected = learner._agent.encoding.choices_of(outputs.tanh().numpy())[1]
        assert (LearnedPolicy(scenario, policy).act() == expected).mean() > 0.99
        return
    np.testing.assert_allclose(policy.outputs(seen).reshape(40, -1), outputs[1].numpy(), rtol=1e-4, atol=1e-5)


def test_n_is_one_without_agreement_and_ten_when_any_agreement_does() -> None:
    quiet: dict[str, Any] = {"encoding": "published_tanh", "critic": "per_device", "noise": 0.0, "random": 0.0}
    strict, lenient = made(agreement=1.0), made(agreement=1e-6, **quiet)
    for learner in (strict, lenient):
        learner.advance()
        learner.advance()
    n_strict, n_lenient = (learner.advance()["n_mean"][0] for learner in (strict, lenient))
    assert n_strict < n_lenient <= 10


def test_a_row_is_replayed_more_often_the_less_it_is_understood_yet() -> None:
    learner = made(prioritised=True, priority_power=1.0, collective_updates=1.0, cell_updates=0.0, tau=0.005)
    learner.advance()
    agent = learner._agent
    rows = np.flatnonzero(agent.replay.kinds[0] != FINAL)
    likely = agent.replay._priorities.probabilities(np.tile(rows, (2, 1)))
    assert likely.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert (likely.max(axis=1) > 3.0 * likely.mean(axis=1)).all()
    metrics = learner.advance()
    assert all(0.0 < value < 1.0 for value in metrics["weight_mean"])


def test_with_a_power_of_0_and_no_correction_rows_are_as_likely_as_without_priorities() -> None:
    learner = made(prioritised=True, priority_power=0.0, priority_correction=0.0, collective_updates=1.0)
    assert learner.advance()["weight_mean"] == [1.0, 1.0]
    rows = np.tile(np.flatnonzero(learner._agent.replay.kinds[0] != FINAL), (2, 1))
    np.testing.assert_allclose(learner._agent.replay._priorities.probabilities(rows), 0.01)


def test_costs_above_the_knee_count_by_their_logarithm() -> None:
    found = compressed(np.array([0.0, 1.0, 3.0, 3.0 * np.e]), 3.0)
    np.testing.assert_allclose(found, [0.0, 1.0, 3.0, 6.0])


def test_observations_are_scaled_and_what_never_changes_is_zero() -> None:
    scenario = make_scenario("dc-drl", {"n": 4})
    inputs = observation_inputs(scenario)
    scenario.reset(np.arange(50))
    seen = inputs(scenario.observe().joint())
    assert np.abs(seen).max() <= 5.0
    constant = [0, 2, 3, 5]  # speed, place, deadline of the first device
    assert not seen[:, constant].any()


def test_scaling_under_heuristics_knows_longer_queues_than_random_choices_make() -> None:
    scenario = make_scenario("dc-drl", {"n": 20})
    names = [each.name for each in [*scenario.device_features * scenario.devices, *scenario.shared_features]]
    queue = names.index("server_queue_s")
    some, every = observation_inputs(scenario), observation_inputs(scenario, "heuristics")
    assert every.scale[queue] > 5 * some.scale[queue]
    again = observation_inputs(make_scenario("dc-drl", {"n": 20}), "heuristics")
    assert np.array_equal(every.scale, again.scale)
    assert np.array_equal(every.mean, again.mean)


def test_a_search_finds_what_the_critic_values_most_and_nothing_worse_than_the_actors() -> None:
    encoding, seeds = OneHot(2, 3), [0]
    critic = Ensemble((4 + 6, 32, 1), seeds, "critic")
    seen = np.random.default_rng(0).normal(size=(1, 30, 4)).astype(np.float32)
    every = np.array([[a, b] for a in range(3) for b in range(3)])

    def value(choices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        inputs = torch.cat([torch.from_numpy(seen), encoding.encoded(choices)], dim=2)
        return critic(inputs).detach().numpy()[0, :, 0]

    start = np.zeros((1, 30, 2), np.int64)
    best = searched(critic, encoding, seen, start, GeneticSearch(12, 6, 0.8, 0.3), Counted(seeds, "search"), 0)
    of_all = np.stack([value(np.broadcast_to(one, (1, 30, 2))) for one in every])
    assert (value(best) >= value(start) - 1e-6).all()
    assert (value(best) >= of_all.max(axis=0) - 1e-6).mean() > 0.9


def test_off_is_a_word_where_it_is_allowed_though_yaml_reads_it_as_false() -> None:
    assert read_learner_config(DcDrl.spec, {"neuroevolution": False}).neuroevolution == "off"
    for wrong in ({"neuroevolution": True}, {"encoding": False}):
        with pytest.raises(BadInput, match=f"got `bool`.*{next(iter(wrong))}"):
            read_learner_config(DcDrl.spec, wrong)


def test_a_pairwise_critic_is_refused_where_decisions_are_numbers() -> None:
    config = read_learner_config(DcDrl.spec, {"encoding": "published_tanh"})
    with pytest.raises(BadInput, match="critic=pairwise needs encoding=one_hot, not published_tanh; set critic=per_de"):
        DcDrl.check(TrainingTask("dc_drl", config, "dc-drl", {"n": 3}, (0,), 100))


def test_a_scenario_whose_devices_do_not_choose_is_refused() -> None:
    config = read_learner_config(DcDrl.spec, {})
    task = TrainingTask("dc_drl", config, "explaboff-3x2", {}, (0,), 100)
    with pytest.raises(BadInput, match=r"dc_drl.*explaboff-3x2.*at least 2 choices and no numbers"):
        DcDrl.check(task)
    assert scenario_of_choices(TrainingTask("dc_drl", config, "dc-drl", {"n": 3}, (0,), 100), "dc_drl").devices == 3


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DcDrl, {"hidden": [64, 64], "collective_updates": 0.5, "actor_rate": 1e-3} | ALONE),
        (Aga, {"hidden": [64, 64], "collective_updates": 0.5, "actor_rate": 1e-3, "cells": 1} | ALONE),
        (Ppo, {"hidden": [64, 64], "rate": 3e-3, "batch": 100}),
    ],
    ids=["dc_drl", "aga", "ppo"],
)
def test_it_learns_to_be_better_than_all_local(kind: type[Learner], settings: dict[str, Any], tmp_path: Path) -> None:
    learner = made(kind, n=3, steps=4000, seeds=(5,), **settings)
    assert cost_against_all_local(learner, tmp_path / "policy") < 0.6
