"""D4PG: targets against closed forms, that its critic learns distributions, and that it learns to act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgebed.errors import BadInput
from edgebed.learning.base import TrainingTask, read_learner_config
from edgebed.learning.d4pg import CategoricalDdpg, D4pg
from edgebed.learning.ddpg import Batch, Ddpg, DdpgSettings
from edgebed.learning.encodings import Numbers
from edgebed.learning.executor import make_executor
from edgebed.learning.replay import Replay
from edgebed.learning.returns import fixed_returns
from tests.learning.boat import mean_return, trained
from tests.learning.judging import cost_against_all_local

SUPPORT = torch.linspace(-10.0, 0.0, 21)
SEEDS = (0, 1, 2)
GAMMA, N_STEP = 0.95, 3


def agent(heads: int = 2, **settings: Any) -> CategoricalDdpg:
    return CategoricalDdpg(3, Numbers(2), [4], DdpgSettings((16, 16), **settings), heads, SUPPORT)


def batch(returns: Tensor, discounts: float, weights: Tensor | None = None) -> Batch:
    count = returns.shape[1]
    seen = torch.linspace(-1.0, 1.0, 3 * count).reshape(1, count, 3)
    actions = torch.linspace(-0.5, 0.5, 2 * count).reshape(1, count, 2)
    return Batch(seen, actions, returns, torch.full((1, count, 1), discounts), seen, weights=weights)


def always(returns: Tensor, weights: Tensor | None = None) -> Batch:
    """Returns after which nothing follows, all of the same observation and action."""
    seen, actions, over = (torch.zeros(1, returns.shape[1], width) for width in (3, 2, 1))
    return Batch(seen, actions, returns, over, seen, weights=weights)


def test_a_return_after_which_nothing_follows_lies_on_the_atoms_beside_it() -> None:
    found = agent(heads=1).targets(batch(torch.tensor([[[-3.0], [-2.9], [-99.0], [7.0]]]), 0.0))[0, :, 0]
    expected = torch.zeros(4, 21)
    expected[0, 14] = 1.0  # an atom itself: 0.5 apart from -10 on
    expected[1, 14], expected[1, 15] = 0.8, 0.2
    expected[2, 0] = expected[3, 20] = 1.0  # beyond the ends
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)


def test_targets_are_distributions_whose_mean_is_the_return_and_the_discounted_value() -> None:
    one = agent()
    given = batch(-torch.rand(1, 50, 2), 0.81)
    found = one.targets(given)
    torch.testing.assert_close(found.sum(dim=3), torch.ones(1, 50, 2))
    assert found.min() >= 0.0
    with torch.no_grad():  # the target networks are still the networks
        after = one.values(given.later, one.actor(given.later).tanh())
    torch.testing.assert_close(found @ SUPPORT, given.returns + 0.81 * after, atol=1e-4, rtol=0.0)


def test_the_critic_learns_a_distribution_and_not_only_its_mean() -> None:
    one = agent(heads=1, critic_rate=1e-2)
    draws = torch.where(torch.arange(64).reshape(1, 64, 1) % 4 == 0, -8.0, -2.0)
    same = always(draws)
    for _ in range(300):
        one.update(same, is_actor_learning=False)
    found = one._by_atom(one.critic(torch.cat([same.observations, same.inputs], 2))).softmax(3).detach()[0, 0, 0]
    assert found[4] == pytest.approx(0.25, abs=0.02)
    assert found[16] == pytest.approx(0.75, abs=0.02)
    errors = one.update(same, is_actor_learning=False).errors[0]
    np.testing.assert_allclose(errors[:2], [np.log(4.0), np.log(4.0 / 3.0)], atol=0.1)


def test_what_weighs_nothing_is_not_learned() -> None:
    goal = torch.tensor([[[-8.0], [-2.0]]]).repeat(1, 16, 1)
    weights = torch.tensor([[1.0, 0.0]]).repeat(1, 16)
    one = agent(heads=1, critic_rate=1e-2)
    same = always(goal, weights)
    for _ in range(300):
        one.update(same, is_actor_learning=False)
    assert float(one.values(same.observations, same.inputs).detach()[0, 0, 0]) == pytest.approx(-8.0, abs=0.2)


def learn(one: Ddpg, replay: Replay, uniform: np.ndarray[Any, Any]) -> None:
    rows = replay.sample(uniform)
    weights = replay.weights(rows, 0.7)
    assert weights is not None
    found = fixed_returns(replay, rows, GAMMA, N_STEP)
    seen, actions = (torch.from_numpy(replay.take(part, rows)) for part in ("observations", "actions"))
    sums, discounts, later = (torch.from_numpy(part) for part in (found.sums, found.discounts, found.later))
    losses = one.update(Batch(seen, actions, sums, discounts, later, weights=torch.from_numpy(weights)))
    replay.learned(rows, losses.errors.numpy())


def test_it_brings_the_boat_home() -> None:
    support = torch.linspace(-20.0, 0.0, 51)
    one = CategoricalDdpg(2, Numbers(2), SEEDS, DdpgSettings((32, 32), 1e-3, 1e-3, 0.01, last_bound=None), 1, support)
    found = trained(one, Replay(len(SEEDS), 10_000, priority_power=0.6), learn, SEEDS)
    idle = mean_return(lambda seen: np.zeros(2))
    print(f"d4pg {found}, idle {idle:.2f}")
    assert min(found) > 0.4 * idle  # returns are negative


def made(steps: int = 1000, seeds: tuple[int, ...] = (1, 2), **settings: Any) -> Any:
    given = {"episodes": 1, "hidden": [24, 16], "cells": 2, "batch": 16, "capacity": 2000} | settings
    task = TrainingTask("d4pg", read_learner_config(D4pg.spec, given), "dc-drl", {"n": 3}, seeds, steps)
    D4pg.check(task)
    return D4pg(task, make_executor("inline"))


@pytest.mark.parametrize("critic", ["joint", "per_device"])
def test_the_learner_learns_from_all_cells_and_the_cells_act_as_it_says(critic: str) -> None:
    learner = made(critic=critic)
    first, second = learner.advance(), learner.advance()
    assert learner.steps == 2 * 2 * 50
    assert learner._agent.replay.sizes.tolist() == [200, 200]
    assert second["updates"] == [80.0, 80.0]
    assert (first["parameter_bytes"], second["parameter_bytes"]) == ([0.0, 0.0], [0.0, 0.0])
    before = learner._agent.ddpg.actor.state("actor")
    learner.advance()
    for server in learner.executor._servers:
        cell = server.worker._agent
        assert all(np.array_equal(before[name], one) for name, one in cell.ddpg.actor.state("actor").items())
        assert cell.updates == 0


def test_it_learns_to_be_better_than_all_local(tmp_path: Path) -> None:
    learner = made(
        3000, (5,), hidden=[64, 64], batch=64, collective_updates=0.4, actor_rate=1e-3, critic="per_device", n_step=3
    )
    assert cost_against_all_local(learner, tmp_path / "policy") < 0.6


def test_settings_that_mean_nothing_here_are_refused() -> None:
    with pytest.raises(BadInput, match="d4pg: cell_updates, mutation: means nothing here"):
        made(cell_updates=0.1, mutation=0.1)
    with pytest.raises(BadInput, match=r"lowest is -1 and highest -2; the first atom must be below"):
        made(lowest=-1.0, highest=-2.0)
