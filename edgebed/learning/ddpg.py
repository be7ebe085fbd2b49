"""The DDPG core: an actor, a critic and their slow copies, for all training seeds at once.

Lillicrap et al. 2016, "Continuous control with deep reinforcement learning". The critic may have several heads whose
values add up, one for each part of the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from edgebed.learning.base import State
from edgebed.learning.encodings import Encoding
from edgebed.learning.networks import Adam, Ensemble

__all__ = ["Batch", "Ddpg", "DdpgSettings", "Losses"]


@dataclass(frozen=True, slots=True)
class DdpgSettings:
    """Settings of an agent.

    Attributes:
        hidden: sizes of the hidden layers, of actor and critic alike.
        actor_rate, critic_rate: Adam's step sizes.
        tau: share by which the targets move to the networks at each update.
        huber: errors of the critic above it count linearly, not squared; None: all squared.
        score_penalty: weight of the outputs' mean square in the actor's loss: keeps them where they have a gradient.
        largest_norm: largest norm of a gradient; None: no limit.
        last_bound: bound of the last layers' first weights.
        highest_value: a head's target above it counts as it: rewards that are never positive have no positive values.
            What a critic dreams up there spreads by its own targets otherwise. None: no limit.
    """

    hidden: tuple[int, ...] = (400, 300)
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.001
    huber: float | None = None
    score_penalty: float = 0.0
    largest_norm: float | None = None
    last_bound: float | None = 0.003
    highest_value: float | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What an update learns from.

    Attributes:
        observations: ``[S, B, D]``.
        inputs: what the critic sees of the actions taken, ``[S, B, inputs]``.
        returns: discounted sum of the rewards until ``later``, ``[S, B, H]``.
        discounts: what the value at ``later`` counts, 0 after an end, ``[S, B, 1]``.
        later: observations that the value is bootstrapped from, ``[S, B, D]``.
        later_outputs: the target actor's outputs there, ``[S, B, outputs]``; None: still to be computed.
        noise: added to the actor's outputs before they become its actions, ``[S, B, outputs]``; None: nothing.
        weights: what each sample counts in the critic's loss, ``[S, B]``; None: all 1.
    """

    observations: Tensor
    inputs: Tensor
    returns: Tensor
    discounts: Tensor
    later: Tensor
    later_outputs: Tensor | None = None
    noise: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """What an update did, ``[S]`` each.

    Attributes:
        critic: mean loss of the critic.
        actor: what the actor's step made smaller, minus the mean value of its actions; None: it was left as it is.
        critic_gradients, actor_gradients: a ``[S, ...]`` for each weight and bias.
        errors: of the critic's values before the update, ``abs(Q - y)``, mean over heads, ``[S, B]``.
        outputs: the actor's, ``[S, B, outputs]``.
    """

    critic: Tensor
    actor: Tensor | None
    critic_gradients: list[Tensor]
    actor_gradients: list[Tensor]
    errors: Tensor
    outputs: Tensor | None = None


class Ddpg:
    """``S`` agents that share nothing.

    Args:
        observation_size: D.
        encoding: of actions.
        seeds: one an agent.
        settings: see `DdpgSettings`.
        heads: H, parts of the reward; values are their sum.
        critic: takes observations and the encoding's inputs side by side, and gives H values; None: a perceptron.
    """

    def __init__(
        self,
        observation_size: int,
        encoding: Encoding,
        seeds: Sequence[int],
        settings: DdpgSettings,
        heads: int = 1,
        critic: Ensemble | None = None,
    ) -> None:
        self.encoding, self.settings = encoding, settings
        actor_sizes = (observation_size, *settings.hidden, encoding.outputs)
        critic_sizes = (observation_size + encoding.inputs, *settings.hidden, heads)
        self.actor = Ensemble(actor_sizes, seeds, "actor", settings.last_bound)
        self.critic = critic or Ensemble(critic_sizes, seeds, "critic", settings.last_bound)
        self.target_actor, self.target_critic = self.actor.copy(), self.critic.copy()
        self._actor_adam = Adam(self.actor.learnable(), settings.actor_rate, settings.largest_norm)
        self._critic_adam = Adam(self.critic.learnable(), settings.critic_rate, settings.largest_norm)

    @property
    def networks(self) -> dict[str, Ensemble]:
        """The four of them, by name."""
        return {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
        }

    def update(self, batch: Batch, rate_scale: float = 1.0, *, is_actor_learning: bool = True) -> Losses:
        """One step of the critic, one of the actor, and the targets' move.

        Args:
            batch: see `Batch`.
            rate_scale: factor of both step sizes.
            is_actor_learning: False leaves the actor as it is: for a critic that has still to get to know it.
        """
        critic_loss, critic_gradients, errors = self._learn_values(batch, rate_scale)
        self.target_critic.move_towards(self.critic, self.settings.tau)
        if not is_actor_learning:
            return Losses(critic_loss, None, critic_gradients, [], errors)
        actor_loss, actor_gradients, outputs = self._learn_actions(batch.observations, batch.noise, rate_scale)
        self.target_actor.move_towards(self.actor, self.settings.tau)
        return Losses(critic_loss, actor_loss, critic_gradients, actor_gradients, errors, outputs)

    def values(self, observations: Tensor, inputs: Tensor) -> Tensor:
        """What the critic expects of each part of the reward, ``[S, B, H]``; with a gradient for the inputs alone."""
        return self.critic.beside(observations, inputs)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """``returns + discount Q'(later, mu'(later))``, at most ``highest_value``, ``[S, B, H]``."""
        outputs = self.target_actor(batch.later) if batch.later_outputs is None else batch.later_outputs
        inputs = self.encoding.chosen(outputs)
        found = batch.returns + batch.discounts * self.target_critic(torch.cat([batch.later, inputs], dim=2))
        return found if self.settings.highest_value is None else found.clamp_(max=self.settings.highest_value)

    def _learn_values(self, batch: Batch, rate_scale: float) -> tuple[Tensor, list[Tensor], Tensor]:
        targets = self.targets(batch)
        values = self.critic(torch.cat([batch.observations, batch.inputs], dim=2))
        if self.settings.huber is None:
            samples = (values - targets).square()
        else:
            samples = smooth_l1_loss(values, targets, reduction="none", beta=self.settings.huber)
        if batch.weights is not None:
            samples = samples * batch.weights[..., None]
        losses = samples.mean(dim=(1, 2))
        gradients = self._critic_adam.step(losses.sum(), self.settings.critic_rate * rate_scale)
        return losses.detach(), gradients, (values.detach() - targets).abs().mean(dim=2)

    def _learn_actions(
        self, observations: Tensor, noise: Tensor | None, rate_scale: float
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        outputs = self.actor(observations)
        losses = self._actor_losses(observations, outputs, noise)
        penalised = losses
        if self.settings.score_penalty:
            penalised = losses + self.settings.score_penalty * (outputs * outputs).mean(dim=(1, 2))
        gradients = self._actor_adam.step(penalised.sum(), self.settings.actor_rate * rate_scale)
        return losses.detach(), gradients, outputs.detach()

    def _actor_losses(self, observations: Tensor, outputs: Tensor, noise: Tensor | None) -> Tensor:
        inputs = self.encoding.differentiable(outputs if noise is None else outputs + noise)
        return -self.values(observations, inputs).sum(dim=2).mean(dim=1)

    def state(self, prefix: str) -> State:
        """Copies of all networks and moments, by name."""
        found: State = {}
        for name, network in self.networks.items():
            found |= network.state(f"{prefix}.{name}")
        return found | self._actor_adam.state(f"{prefix}.actor_adam") | self._critic_adam.state(f"{prefix}.critic_adam")

    def load_state(self, prefix: str, state: State) -> None:
        """Go on from there."""
        for name, network in self.networks.items():
            network.load_state(f"{prefix}.{name}", state)
        self._actor_adam.load_state(f"{prefix}.actor_adam", state)
        self._critic_adam.load_state(f"{prefix}.critic_adam", state)
