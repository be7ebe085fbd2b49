"""D4PG: distributed distributional deterministic policy gradients, a baseline of DC-DRL.

Barth-Maron et al. 2018, "Distributed distributional deterministic policy gradients". Four things over DDPG: the critic
gives a *distribution* of returns on fixed atoms (Bellemare, Dabney and Munos 2017) instead of their mean, targets are
n-step returns of a fixed n, rows are replayed in proportion to their errors (`edgebed.learning.priorities`), and
several actors gather experience for one learner. An iteration::

    every cell    takes the learner's actor over, acts for some episodes with noise, uploads its trajectories
    the learner   updates critic and actor from the trajectories of all cells

So a cell has no agent of its own, and nothing is merged or perturbed: that is what it differs in from DC-DRL, whose
exploration, encodings and driver these are. ``docs/learners/d4pg.md`` has the formula of every number logged and every
deviation from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from edgebed.errors import BadInput
from edgebed.learning.base import CellWorker, Data, LearnerSpec, Metrics, State, TrainingTask, parameter
from edgebed.learning.dc_drl import DcDrl, DcDrlCell, DcDrlConfig
from edgebed.learning.ddpg import Batch, Ddpg, DdpgSettings
from edgebed.learning.encodings import Encoding
from edgebed.learning.replay import Trajectory

_MEANINGLESS = (
    "cell_updates",
    "neuroevolution",
    "mutation",
    "merge_share",
    "cell_capacity",
    "huber",
    "choice_temperature",
)


class D4pgConfig(DcDrlConfig, frozen=True):
    """Settings of D4PG: DC-DRL's, with other defaults, and the distributions'."""

    neuroevolution: Annotated[Literal["gradient", "vanilla", "off"], parameter("1", "off: there is none here")] = "off"
    merge_share: Annotated[float, parameter("1", "0: nothing is merged here", ge=0, le=1)] = 0.0
    cell_updates: Annotated[float, parameter("1", "0: cells do not learn here", ge=0)] = 0.0
    collective_updates: Annotated[float, parameter("1", "updates, a step of any cell", ge=0)] = 0.4
    actor_rate: Annotated[float, parameter("1", "step size of the actor", gt=0)] = 3e-4
    adaptive_n: Annotated[bool, parameter("1", "n by agreement; otherwise always `n_step`")] = False
    n_step: Annotated[int, parameter("1", "n", "paper", ge=1, le=50)] = 5
    critic: Annotated[
        Literal["per_device", "joint"], parameter("1", "a distribution for each device's costs, or one for their mean")
    ] = "joint"
    prioritised: Annotated[bool, parameter("1", "rows are replayed in proportion to their errors", "paper")] = True
    atoms: Annotated[int, parameter("1", "returns that a distribution is over", "paper", ge=2, le=1001)] = 51
    lowest: Annotated[float, parameter("1", "return of the first atom", le=0)] = -15.0
    highest: Annotated[float, parameter("1", "return of the last atom")] = 0.0

    def core(self, width: int, encoding: Encoding, seeds: Sequence[int], heads: int) -> Ddpg:
        """See `DcDrlConfig.core`."""
        support = torch.linspace(self.lowest, self.highest, self.atoms)
        return CategoricalDdpg(width, encoding, seeds, self.agent_settings(), heads, support)


class CategoricalDdpg(Ddpg):
    """DDPG whose critic gives, for each head, the probabilities of ``K`` returns.

    Args:
        support: the returns, in equal steps, ``[K]``.
    """

    def __init__(
        self,
        observation_size: int,
        encoding: Encoding,
        seeds: Sequence[int],
        settings: DdpgSettings,
        heads: int,
        support: Tensor,
    ) -> None:
        super().__init__(observation_size, encoding, seeds, settings, heads * len(support))
        self.support = support

    def _by_atom(self, outputs: Tensor) -> Tensor:
        """``[S, B, H, K]``."""
        return outputs.reshape(*outputs.shape[:2], -1, len(self.support))

    def values(self, observations: Tensor, inputs: Tensor) -> Tensor:
        """Means of the distributions, ``[S, B, H]``; with a gradient for the inputs alone."""
        return self._by_atom(self.critic.beside(observations, inputs)).softmax(dim=3) @ self.support

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """Probabilities of ``returns + discount Z'(later, mu'(later))``, put on the support, ``[S, B, H, K]``.

        Each of the target critic's atoms, moved so, is shared between the two atoms beside it, in proportion to how
        near they are, which keeps its mean; beyond the ends it goes to the end.
        """
        outputs = self.target_actor(batch.later) if batch.later_outputs is None else batch.later_outputs
        inputs = self.encoding.chosen(outputs)
        probabilities = self._by_atom(self.target_critic(torch.cat([batch.later, inputs], dim=2))).softmax(dim=3)
        moved = batch.returns[..., None] + batch.discounts[..., None] * self.support
        low, high, count = self.support[0], self.support[-1], len(self.support)
        places = ((moved - low) / (high - low)).clamp(0.0, 1.0) * (count - 1)
        below = places.floor().clamp(max=count - 2)
        share = places - below
        index = below.to(torch.int64)
        found = torch.zeros_like(probabilities)
        found.scatter_add_(3, index, probabilities * (1.0 - share))
        return found.scatter_add_(3, index + 1, probabilities * share)

    def _learn_values(self, batch: Batch, rate_scale: float) -> tuple[Tensor, list[Tensor], Tensor]:
        """Cross-entropy; a sample's error is what it exceeds its minimum by: the Kullback-Leibler divergence."""
        targets = self.targets(batch)
        logs = log_softmax(self._by_atom(self.critic(torch.cat([batch.observations, batch.inputs], dim=2))), dim=3)
        samples = -(targets * logs).sum(dim=3)
        weighted = samples if batch.weights is None else samples * batch.weights[..., None]
        losses = weighted.mean(dim=(1, 2))
        gradients = self._critic_adam.step(losses.sum(), self.settings.critic_rate * rate_scale)
        entropy = -torch.xlogy(targets, targets).sum(dim=3)
        errors = (samples.detach() - entropy).clamp(min=0.0).mean(dim=2)
        return losses.detach(), gradients, errors


class D4pgCell(DcDrlCell):
    """An actor of several: an environment, for all training seeds."""

    def act(self, number: int, progress: float, actor: State) -> Data:
        """Act for some episodes.

        Args:
            number: of the iteration.
            progress: share of the training that is over.
            actor: the learner's, as it is now.

        Returns:
            ``returns`` ``[S]``, mean of an episode; ``trajectories``, one a seed.
        """
        self._agent.ddpg.actor.load_state("actor", actor)
        trajectories, rewards = self._act(number, progress)
        return {
            "returns": rewards.sum(axis=1) / self._config.episodes,
            "trajectories": [{part: getattr(one, part) for part in Trajectory.__slots__} for one in trajectories],
        }

    def state(self) -> State:
        """Nothing: the learner's actor is given each time, and random numbers are counted."""
        return {}

    def load_state(self, state: State) -> None:
        """Nothing changes."""


class D4pg(DcDrl):
    """The learner: gathers what the cells saw, and updates from it."""

    spec: ClassVar[LearnerSpec] = LearnerSpec(
        name="d4pg",
        title="D4PG: several actors, one learner with a distributional critic, n-step returns, prioritised replay",
        paper="Barth-Maron et al. 2018, distributed distributional deterministic policy gradients",
        config=D4pgConfig,
    )
    cell_kind: ClassVar[type[CellWorker]] = D4pgCell

    @classmethod
    def check(cls, task: TrainingTask) -> None:
        """See `Learner.check`."""
        super().check(task)
        config, defaults = task.config, D4pgConfig()
        assert isinstance(config, D4pgConfig)
        given = [name for name in _MEANINGLESS if getattr(config, name) != getattr(defaults, name)]
        if given:
            raise BadInput(f"learner d4pg: {', '.join(given)}: means nothing here; leave it out, or train dc_drl")
        if config.lowest >= config.highest:
            raise BadInput(
                f"learner d4pg: lowest is {config.lowest:g} and highest {config.highest:g}; the first atom must be "
                "below the last, as -15 is below 0"
            )

    def advance(self) -> Metrics:
        """An iteration."""
        progress, actor = self.steps / self.task.steps, self._agent.ddpg.actor.state("actor")
        answers = self.executor.call_all("act", number=self._generation, progress=progress, actor=actor)
        for answer in answers:
            self._agent.replay.append([Trajectory(**one) for one in answer["trajectories"]])
        metrics: Metrics = {"return_exploring": np.mean([answer["returns"] for answer in answers], axis=0).tolist()}
        metrics |= self._agent.learn(round(self.config.collective_updates * self.generation_steps), progress)
        self._generation += 1
        if metrics.get("actor_loss"):
            metrics |= self._health.report(self.steps)
        return metrics | self._counted(answers)


LEARNERS = (D4pg,)
