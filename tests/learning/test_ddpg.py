"""The DDPG core against stable-baselines3's, on the same environment with the same budget; and against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import DDPG
from stable_baselines3.common.noise import NormalActionNoise

from edgebed.learning.ddpg import Batch, Ddpg, DdpgSettings
from edgebed.learning.encodings import Numbers
from edgebed.learning.replay import Replay
from edgebed.learning.returns import fixed_returns
from edgebed.simulation.intervals import t_interval
from tests.learning.boat import BATCH, EPISODES, LENGTH, NOISE, Boat, mean_return, trained

GAMMA, TAU, RATE = 0.95, 0.01, 1e-3
HIDDEN = (32, 32)
SEEDS = (0, 1, 2, 3, 4)


def learn(agent: Ddpg, replay: Replay, uniform: np.ndarray[Any, Any]) -> None:
    rows = replay.sample(uniform)
    found = fixed_returns(replay, rows, GAMMA, 1)
    seen, actions = (torch.from_numpy(replay.take(part, rows)) for part in ("observations", "actions"))
    sums, discounts, later = (torch.from_numpy(one) for one in (found.sums, found.discounts, found.later))
    agent.update(Batch(seen, actions, sums, discounts, later))


def theirs(seed: int) -> float:
    model = DDPG(
        "MlpPolicy",
        Boat(),
        learning_rate=RATE,
        buffer_size=10_000,
        learning_starts=LENGTH,
        batch_size=BATCH,
        tau=TAU,
        gamma=GAMMA,
        train_freq=1,
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(2), NOISE * np.ones(2)),
        policy_kwargs={"net_arch": list(HIDDEN)},
        seed=seed,
        device="cpu",
    )
    model.learn(EPISODES * LENGTH)
    return mean_return(lambda seen: model.predict(seen, deterministic=True)[0])


def test_our_core_reaches_what_stable_baselines3_reaches_on_the_same_budget() -> None:
    agent = Ddpg(2, Numbers(2), SEEDS, DdpgSettings(HIDDEN, RATE, RATE, TAU, last_bound=None))
    mine = trained(agent, Replay(len(SEEDS), 10_000), learn, SEEDS)
    reference = [theirs(seed) for seed in SEEDS]
    idle = mean_return(lambda seen: np.zeros(2))
    assert np.mean(reference) > 0.5 * idle  # the budget suffices to learn something: returns are negative
    interval = t_interval([a - b for a, b in zip(mine, reference, strict=True)])
    assert interval is not None
    low, high = interval
    print(f"ours {np.mean(mine):.2f}, stable-baselines3 {np.mean(reference):.2f}, difference {low:.2f} to {high:.2f}")
    assert high >= 0.0, f"ours are below: {mine} against {reference}"


def test_targets_are_the_returns_and_the_discounted_value_there() -> None:
    agent = Ddpg(3, Numbers(2), [4], DdpgSettings((8, 8)), heads=2)
    later = torch.randn(1, 5, 3)
    returns, discounts = torch.randn(1, 5, 2), torch.tensor([0.9, 0.81, 0.0, 0.5, 1.0]).reshape(1, 5, 1)
    batch = Batch(torch.randn(1, 5, 3), torch.rand(1, 5, 2), returns, discounts, later)
    with torch.no_grad():
        actions = agent.target_actor(later).tanh()
        values = agent.target_critic(torch.cat([later, actions], 2))
    torch.testing.assert_close(agent.targets(batch), returns + discounts * values)
    assert torch.equal(agent.targets(batch)[0, 2], returns[0, 2])  # after an end nothing follows


def test_the_actor_climbs_the_critic_and_an_update_may_leave_it_as_it_is() -> None:
    agent = Ddpg(3, Numbers(2), [4], DdpgSettings((8, 8), actor_rate=1e-2, tau=0.5))
    seen = torch.randn(1, 64, 3)
    batch = Batch(seen, torch.rand(1, 64, 2), torch.zeros(1, 64, 1), torch.zeros(1, 64, 1), seen)

    def value() -> float:
        with torch.no_grad():
            return float(agent.critic(torch.cat([seen, agent.actor(seen).tanh()], 2)).mean())

    weights = agent.actor.state("a")["a.0"]
    losses = agent.update(batch, is_actor_learning=False)
    assert losses.actor is None
    assert np.array_equal(agent.actor.state("a")["a.0"], weights)
    before = value()
    for _ in range(20):
        agent._learn_actions(seen, None, 1.0)
    assert value() > before


@pytest.mark.parametrize("huber", [None, 1.0])
def test_the_critic_learns_what_it_is_shown(huber: float | None) -> None:
    agent = Ddpg(3, Numbers(1), [4, 5], DdpgSettings((32, 32), critic_rate=1e-2, huber=huber), heads=2)
    seen, actions = torch.randn(2, 64, 3), torch.rand(2, 64, 1)
    goal = torch.cat([seen[:, :, :1] * actions, seen[:, :, 1:2]], 2)
    batch = Batch(seen, actions, goal, torch.zeros(2, 64, 1), seen)
    first = agent.update(batch, is_actor_learning=False).critic
    for _ in range(300):
        last = agent.update(batch, is_actor_learning=False).critic
    assert (last < 0.05 * first).all()
