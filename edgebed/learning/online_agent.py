"""Learning while the testbed runs: a DDPG agent that begins with a trained policy and goes on from measured epochs.

The policy's own critic goes on learning where its file has one, as DC-DRL's has: a pairwise critic, from whose values
of all choices the actor learns as it did before. Without one the critic is new, and the actor stays as it is until the
critic has got to know it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from edgebed.errors import BadInput, SchemaMismatch, WorkFailed
from edgebed.learning.ddpg import Batch, Ddpg, DdpgSettings
from edgebed.learning.encodings import OneHot
from edgebed.learning.experience import Transition
from edgebed.learning.noise import Counted
from edgebed.learning.online_config import OnlineConfig
from edgebed.learning.pairwise import PAIRWISE_CRITIC, PairwiseDdpg
from edgebed.learning.replay import RUNNING, Replay, Trajectory
from edgebed.learning.returns import fixed_returns
from edgebed.policies.forward import Network
from edgebed.policies.policy_file import ACTOR, JOINT, PolicyFile

CRITIC = "critic"
"""A network of the agent, whatever its kind."""


class OnlineAgent:
    """One agent for one cell.

    Args:
        policy: joint, a choice a device.
        seed: of the cell.
        config: see `OnlineConfig`.

    Attributes:
        transitions, updates: so far.

    Raises:
        BadInput: the policy is none that this can go on with; what would do is named.
    """

    def __init__(self, policy: PolicyFile, seed: int, config: OnlineConfig) -> None:
        if policy.scope != JOINT or policy.head.kind != "categorical_per_device":
            raise BadInput(
                f"policy {policy.version}: is of scope {policy.scope} with a head {policy.head.kind}; learning online "
                "needs scope joint and categorical_per_device, as dc_drl trains"
            )
        self.config, self._policy = config, policy
        self.transitions = self.updates = 0
        devices = len(policy.slots)
        self._encoding = OneHot(devices, len(policy.choices), 1.0)
        hidden = tuple(layer.outputs for layer in policy.actor.layers[:-1])
        settings = DdpgSettings(hidden, config.actor_rate, config.critic_rate, config.tau, huber=1.0)
        critic = policy.networks.get(PAIRWISE_CRITIC)
        if critic is None:
            self._ddpg = Ddpg(policy.width, self._encoding, (seed,), settings, devices)
        else:
            settings = replace(settings, highest_value=0.0)  # as in training: costs are not negative
            self._ddpg = PairwiseDdpg(policy.width, self._encoding, (seed,), settings, config.choice_temperature)
            self._take_over(CRITIC, critic)
        self._take_over(ACTOR, policy.actor)
        self._actor_after = config.actor_after if critic is None else 0
        self._replay = Replay(1, 50_000)
        self._rows = Counted((seed,), "online", "replay")
        self._chain: list[Transition] = []
        self._fresh = 0

    def _take_over(self, name: str, network: Network) -> None:
        given = {}
        for index, layer in enumerate(network.layers):
            given[f"{name}.{2 * index}"] = layer.weight[None]
            given[f"{name}.{2 * index + 1}"] = layer.bias[None, None]
        try:
            for own in (name, f"target_{name}"):
                self._ddpg.networks[own].load_state(name, given)
        except (SchemaMismatch, KeyError) as error:
            raise BadInput(f"policy {self._policy.version}: its {name} cannot be trained here: {error}") from None

    def observe(self, transition: Transition) -> None:
        """Remember an epoch; epochs that follow each other are kept together."""
        if self._chain and (not transition.follows or len(self._chain) >= 4 * self.config.n_step):
            self._store()
        self._chain.append(transition)
        self.transitions += 1
        self._fresh += 1
        if len(self._chain) >= 2 * self.config.n_step:
            self._store()

    def _store(self) -> None:
        chain, self._chain = self._chain, []
        rewards = -np.stack([one.costs for one in chain])
        scaled = self._policy.inputs
        episode = Trajectory.of_episode(
            scaled(np.stack([one.observation for one in chain])),
            self._encoding.stored(np.stack([one.actions for one in chain])),
            rewards.astype(np.float32),
            np.full(len(chain), RUNNING, np.int8),
            scaled(chain[-1].later[None])[0],
        )
        self._replay.append([episode])

    def learn(self) -> dict[str, float]:
        """The gradient steps that are owed for what was observed since; empty when there is too little to learn from.

        Raises:
            WorkFailed: a loss is not finite.
        """
        if not self._fresh or self._replay.sizes.min() < self.config.batch:
            return {}
        owed, self._fresh = min(self._fresh * self.config.updates, 200), 0
        losses: dict[str, float] = {}
        for _ in range(owed):
            losses = self._learn_once()
        return losses

    def _learn_once(self) -> dict[str, float]:
        rows = self._replay.sample(self._rows.uniform(self.updates, self.config.batch))
        returns = fixed_returns(self._replay, rows, self.config.gamma, self.config.n_step)
        batch = Batch(
            observations=torch.from_numpy(self._replay.take("observations", rows)),
            inputs=self._encoding.encoded(self._replay.take("actions", rows)),
            returns=torch.from_numpy(returns.sums),
            discounts=torch.from_numpy(returns.discounts),
            later=torch.from_numpy(returns.later),
        )
        found = self._ddpg.update(batch, is_actor_learning=self.updates >= self._actor_after)
        self.updates += 1
        losses = {"critic_loss": float(found.critic[0])}
        if found.actor is not None:
            losses["actor_loss"] = float(found.actor[0])
        if not all(map(np.isfinite, losses.values())):
            raise WorkFailed(
                f"after {self.updates} updates a loss is not finite: {losses}; lower actor_rate and critic_rate"
            )
        return losses

    def policy(self, version: str) -> PolicyFile:
        """The actor as it is now."""
        networks: dict[str, Network] = {ACTOR: Network(self._ddpg.actor.layers(0))}
        return replace(self._policy, networks=networks, version=version)
