"""The agent that learns online: what it takes over from a trained policy, and that it learns from what it observes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from edgebed.errors import BadInput
from edgebed.learning import learner_class
from edgebed.learning.dc_drl import DcDrl
from edgebed.learning.executor import make_executor
from edgebed.learning.experience import Transition
from edgebed.learning.online_agent import OnlineAgent
from edgebed.learning.online_config import OnlineConfig
from edgebed.learning.pairwise import PAIRWISE_CRITIC
from edgebed.policies.policy_file import ACTOR, PolicyFile, load_policy
from tests.learning.test_learners import small_task

DEVICES = 3


@pytest.fixture
def trained(tmp_path: Path) -> tuple[DcDrl, PolicyFile]:
    """DC-DRL after a few generations, and what it exports of its second seed."""
    with make_executor("inline") as executor:
        learner = learner_class("dc_drl")(small_task("dc_drl"), executor)
        while learner.steps < 400:
            learner.advance()
        learner.export(1, tmp_path / "policy")
    assert isinstance(learner, DcDrl)
    return learner, load_policy(tmp_path / "policy")


def observe(agent: OnlineAgent, policy: PolicyFile, epochs: int, rng: np.random.Generator) -> None:
    """Random decisions, of which every one that is not local costs 4."""
    seen = policy.inputs.mean + policy.inputs.scale * rng.normal(size=(epochs + 1, policy.width)).astype("f")
    for epoch, (now, later) in enumerate(pairwise(seen)):
        actions = rng.integers(0, len(policy.choices), DEVICES).astype(np.int32)
        agent.observe(Transition(epoch, now, actions, (4.0 * (actions > 0)).astype(np.float32), later, epoch > 0))


def local_share(policy: PolicyFile) -> float:
    """How likely devices are to compute locally, by the softmax of their scores."""
    seen = policy.inputs.mean + policy.inputs.scale * np.random.default_rng(9).normal(size=(64, policy.width))
    scores = torch.from_numpy(policy.outputs(seen.astype(np.float32)))
    return float(scores.softmax(2)[..., 0].mean())


def test_dc_drl_goes_on_with_the_critic_that_it_has_trained(trained: tuple[DcDrl, PolicyFile]) -> None:
    learner, policy = trained
    agent = OnlineAgent(policy, 0, OnlineConfig(batch=8, actor_after=10_000))
    seen = torch.randn(1, 5, policy.width, generator=torch.Generator().manual_seed(0))
    taken = agent._encoding.encoded(np.random.default_rng(0).integers(0, len(policy.choices), (1, 5, DEVICES)))
    beside = torch.cat([seen, taken], dim=2)
    with torch.no_grad():
        own = learner._agent.ddpg.target_critic(beside.expand(2, -1, -1))[1]
        for critic in (agent._ddpg.critic, agent._ddpg.target_critic):
            torch.testing.assert_close(critic(beside)[0], own, rtol=1e-5, atol=1e-6)
    assert set(agent.policy("later").networks) == {ACTOR}  # those who decide need no critic


def test_the_actor_learns_at_once_and_what_was_observed(trained: tuple[DcDrl, PolicyFile]) -> None:
    _, policy = trained
    config = OnlineConfig(batch=32, updates=8, actor_after=10_000, actor_rate=1e-3, critic_rate=1e-3, n_step=1)
    agent, rng = OnlineAgent(policy, 0, config), np.random.default_rng(3)
    before = local_share(policy)
    observe(agent, policy, 40, rng)
    assert set(agent.learn()) == {"critic_loss", "actor_loss"}
    for _ in range(5):
        observe(agent, policy, 40, rng)
        agent.learn()
    assert local_share(agent.policy("later")) > max(0.9, before + 0.1)


def test_without_a_critic_the_actor_waits_until_a_new_one_knows_it(trained: tuple[DcDrl, PolicyFile]) -> None:
    _, whole = trained
    policy = replace(whole, networks={ACTOR: whole.actor})
    agent, rng = OnlineAgent(policy, 0, OnlineConfig(batch=8, updates=1, actor_after=20)), np.random.default_rng(3)
    observe(agent, policy, 20, rng)
    assert set(agent.learn()) == {"critic_loss"}
    assert local_share(agent.policy("still")) == local_share(policy)
    observe(agent, policy, 20, rng)
    assert set(agent.learn()) == {"critic_loss", "actor_loss"}
    assert local_share(agent.policy("later")) != local_share(policy)


def test_a_critic_of_another_shape_is_refused_by_name(trained: tuple[DcDrl, PolicyFile]) -> None:
    _, policy = trained
    wrong = replace(policy, networks={ACTOR: policy.actor, PAIRWISE_CRITIC: policy.actor})
    with pytest.raises(BadInput, match="its critic cannot be trained here"):
        OnlineAgent(wrong, 0, OnlineConfig())
