"""A critic that is linear in each device's choice: what a choice costs, and what two devices do to each other.

Devices meet where they choose the same channel or the same server, and most of what one does to another is a matter of
these two alone: a coordination graph (Guestrin, Koller and Parr 2001; Boehmer, Kurin and Whiteson 2020) that is
complete. A network sees the state and gives, for every state, the numbers of ::

    Q_i(s, a) = own_i(a_i) + sum over j != i of  [a_i = a_j != 0] same_ij
                                               + [a_i != 0 and a_j != 0] both_ij
                                               + [a_j != 0] away_ij

Choice 0 is the device itself. The values of all choices of all devices, the others doing what they do, come at once
from these numbers, and so the actor can learn from all of them: `PairwiseDdpg`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgebed.learning.ddpg import Ddpg, DdpgSettings
from edgebed.learning.encodings import OneHot
from edgebed.learning.networks import Ensemble

__all__ = ["PAIRWISE_CRITIC", "UNIFORM", "PairwiseCritic", "PairwiseDdpg"]

PAIRWISE_CRITIC = "pairwise_critic"
"""Name of the critic's network in a policy's file."""

_PAIRS = 3

UNIFORM = 0.05
"""Share of the prior that is spread evenly over a device's choices."""


class PairwiseCritic(Ensemble):
    """``S`` such critics; their input is the observation beside the indicators, as that of any other.

    Args:
        observation_size: D.
        devices: N.
        choices: C, of a device; 0 is to compute locally.
        hidden, seeds, name, last_bound: see `Ensemble`.
    """

    def __init__(
        self,
        observation_size: int,
        devices: int,
        choices: int,
        hidden: Sequence[int],
        seeds: Sequence[int],
        name: str,
        last_bound: float | None = None,
    ) -> None:
        self._observation_size, self._devices, self._choices = observation_size, devices, choices
        outputs = devices * choices + _PAIRS * devices * devices
        super().__init__((observation_size, *hidden, outputs), seeds, name, last_bound)
        self._others = 1.0 - torch.eye(devices)

    def __call__(self, x: Tensor) -> Tensor:
        """A value for each device ``[S, B, N]`` from observations and indicators side by side ``[S, B, D + N * C]``."""
        size = self._observation_size
        return self._joined(super().__call__(x[..., :size]), x[..., size:])

    def beside(self, known: Tensor, x: Tensor) -> Tensor:
        """See `Ensemble.beside`."""
        with torch.no_grad():
            numbers = super().__call__(known)
        return self._joined(numbers, x)

    @torch.no_grad()
    def choice_values(self, observations: Tensor, indicators: Tensor) -> Tensor:
        """What the sum of all values would be for each choice of each device, the others' as given.

        Args:
            observations: ``[S, B, D]``.
            indicators: of what all devices do, ``[S, B, N * C]``.

        Returns:
            ``[S, B, N, C]``, up to a number for each device.
        """
        own, same, both, away = self._parts(super().__call__(observations))
        elsewhere = self._elsewhere(indicators)
        leaves = elsewhere.sum(3)
        leaving = away.sum(2) + ((both + both.transpose(2, 3)) @ leaves[..., None])[..., 0]
        meeting = (same + same.transpose(2, 3)) @ elsewhere
        return torch.cat([own[..., :1], own[..., 1:] + leaving[..., None] + meeting], dim=3)

    def _parts(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``own`` ``[S, B, N, C]``; ``same``, ``both`` and ``away``, ``[S, B, N, N]`` each, 0 for a device itself."""
        batch, devices = numbers.shape[:2], self._devices
        own, pairs = numbers[..., : devices * self._choices], numbers[..., devices * self._choices :]
        same, both, away = (pairs.reshape(*batch, _PAIRS, devices, devices) * self._others).unbind(2)
        return own.reshape(*batch, devices, self._choices), same, both, away

    def _elsewhere(self, indicators: Tensor) -> Tensor:
        return indicators.reshape(*indicators.shape[:2], self._devices, self._choices)[..., 1:]

    def _joined(self, numbers: Tensor, indicators: Tensor) -> Tensor:
        own, same, both, away = self._parts(numbers)
        elsewhere = self._elsewhere(indicators)
        leaves = elsewhere.sum(3)
        meets = elsewhere @ elsewhere.transpose(2, 3)
        between = meets * same + leaves[..., None, :] * (leaves[..., None] * both + away)
        return (own * indicators.reshape_as(own)).sum(3) + between.sum(3)


class PairwiseDdpg(Ddpg):
    """An agent whose actor learns from the pairwise critic's values of all choices of all devices.

    For each device a better policy than the target actor's ``p`` is taught by cross-entropy: ``p exp(q / T)``, ``q``
    being the values of its choices while the others do what the actor, with noise, has them do (Abdolmaleki et al.
    2018, "Maximum a posteriori policy optimisation"). Unlike the gradient of a softmax of the scores it does not vanish
    where the actor is sure of what is wrong; and of choices that are as good, as free channels are, a device stays with
    what it is used to, so that the others can rely on it.

    Args:
        observation_size, encoding, seeds, settings: see `Ddpg`.
        temperature: T, in the unit of the values: how much better a choice must be to be taught e times as much.
    """

    critic: PairwiseCritic

    def __init__(
        self, observation_size: int, encoding: OneHot, seeds: Sequence[int], settings: DdpgSettings, temperature: float
    ) -> None:
        devices, choices = encoding.devices, encoding.choices
        critic = PairwiseCritic(
            observation_size, devices, choices, settings.hidden, seeds, "critic", settings.last_bound
        )
        super().__init__(observation_size, encoding, seeds, settings, devices, critic)
        self.temperature = temperature

    def _actor_losses(self, observations: Tensor, outputs: Tensor, noise: Tensor | None) -> Tensor:
        scores = outputs.detach() if noise is None else outputs.detach() + noise
        values = self.critic.choice_values(observations, self.encoding.chosen(scores))
        taught = (self._prior(observations, values.shape) + values / self.temperature).softmax(3)
        return -(taught * outputs.reshape(taught.shape).log_softmax(3)).sum(3).mean((1, 2))

    @torch.no_grad()
    def _prior(self, observations: Tensor, shape: Sequence[int]) -> Tensor:
        """Logarithms of what the target actor would choose, ``[S, B, N, C]``; no choice is ever given up."""
        likely = self.target_actor(observations).reshape(*shape).softmax(3)
        return ((1.0 - UNIFORM) * likely + UNIFORM / shape[3]).log()
