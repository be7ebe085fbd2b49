"""The cross-entropy method on a linear policy: a whole learner on one page, to read before writing one.

Each generation draws ``population`` weight vectors around a mean, scores each by the return of one episode, and moves
mean and deviation to those of the best ones (Rubinstein and Kroese 2004; for policies: Szita and Lorincz 2006). The
population is divided among the cells, which is all that they are for: a cell plays its share and returns the scores.

It needs nothing but numpy, and learns something in scenarios whose good decisions are near to linear. It is no rival to
the learners of the papers.

Logged metrics, one value a seed:

- ``return_exploring``: mean return over the population.
- ``elite_return``: mean return over the elite, ``elite_share`` of the population.
- ``deviation``: mean over the weights of the standard deviation that the next generation is drawn with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.learning.base import (
    Cell,
    CellWorker,
    Data,
    Executor,
    Learner,
    LearnerConfig,
    LearnerSpec,
    Metrics,
    State,
    TrainingTask,
    parameter,
)
from edgebed.learning.generators import pack_generator, unpack_generator
from edgebed.randomness import stream
from edgebed.simulation.base import Scenario
from edgebed.simulation.scenarios import make_scenario

Float32Array = NDArray[np.float32]


class CrossEntropyConfig(LearnerConfig, frozen=True):
    """Settings of the cross-entropy method."""

    population: Annotated[int, parameter("1", "weight vectors a generation", ge=4, le=100_000)] = 32
    elite_share: Annotated[float, parameter("1", "share of the population that is kept", gt=0.0, le=0.5)] = 0.25
    deviation: Annotated[float, parameter("1", "standard deviation of the first generation", gt=0.0)] = 1.0
    extra_deviation: Annotated[float, parameter("1", "added to the deviation, falling to 0", ge=0.0)] = 0.2
    cells: Annotated[int, parameter("1", "how many cells share the population", ge=1, le=1000)] = 2


class CrossEntropyCell(CellWorker):
    """Plays episodes with given weights: ``S * share`` environments at once."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.scenario = make_scenario(cell.task.scenario, cell.task.parameters)
        self.episodes = 0

    def play(self, weights: Float32Array) -> Data:
        """One episode for each weight vector.

        Args:
            weights: ``[S, share, inputs, choices]``, the bias in the last row.

        Returns:
            ``returns`` ``[S, share]`` and ``steps``, of the longest episode.
        """
        seeds, share = weights.shape[:2]
        flat = weights.reshape(seeds * share, *weights.shape[2:])
        self.scenario.reset(self._episode_seeds(share))
        total = np.zeros(seeds * share)
        for _ in range(self.scenario.steps):
            scores = np.einsum("bnv,bvc->bnc", _inputs(self.scenario), flat, optimize=False)
            done = self.scenario.step(scores.argmax(axis=2).astype(np.int32))
            total += done.reward
            if (done.terminated | done.truncated).all():
                break
        return {"returns": total.reshape(seeds, share), "steps": int(self.scenario.step_index.max())}

    def _episode_seeds(self, share: int) -> NDArray[np.int64]:
        """Seeds of the environments, ``[S * share]``, of (training seed, episode).

        All weights of a generation are judged on the same episode, in all cells: else luck would decide who is best.
        """
        self.episodes += 1
        seeds = [int(stream(seed, "episode", self.episodes).integers(2**62)) for seed in self.cell.task.seeds]
        return np.repeat(np.array(seeds, np.int64), share)

    def state(self) -> State:
        """The number of episodes: all that changes between calls."""
        return {"episodes": np.array(self.episodes)}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.episodes = int(state["episodes"])


class CrossEntropy(Learner):
    """Cross-entropy method on a linear policy of each device's view."""

    spec = LearnerSpec(
        "cross_entropy",
        "The cross-entropy method on a linear policy; the example of how to write a learner",
        "Rubinstein and Kroese 2004; Szita and Lorincz 2006",
        CrossEntropyConfig,
    )

    def __init__(self, task: TrainingTask, executor: Executor) -> None:
        super().__init__(task, executor)
        self.check(task)
        assert isinstance(task.config, CrossEntropyConfig)
        self.config = task.config
        self.scenario = make_scenario(task.scenario, task.parameters)
        shape = (len(task.seeds), len(self.scenario.view_features) + 1, len(self.scenario.actions.choices))
        self.mean: Float32Array = np.zeros(shape, np.float32)
        self.deviation: Float32Array = np.full(shape, self.config.deviation, np.float32)
        self.generators = [stream(seed, self.spec.name) for seed in task.seeds]
        self._steps = 0
        executor.start(CrossEntropyCell, task, self.config.cells)

    @classmethod
    def check(cls, task: TrainingTask) -> None:
        """See `edgebed.learning.base.Learner.check`."""
        scenario = make_scenario(task.scenario, task.parameters)
        if scenario.actions.numbers or not scenario.actions.choices:
            numbers = ", ".join(one.name for one in scenario.actions.numbers)
            raise BadInput(
                f"learner {cls.spec.name}: it takes one of several actions; those of scenario {task.scenario} have "
                f"numbers ({numbers}); train it in dc-drl, for example, or another learner in this scenario"
            )

    @property
    def steps(self) -> int:
        """Environment steps a seed so far, all cells together."""
        return self._steps

    @property
    def share(self) -> int:
        """Weight vectors a cell."""
        return max(1, self.config.population // self.config.cells)

    def advance(self) -> Metrics:
        """One generation."""
        weights = self._drawn()  # [S, population, inputs, choices]
        shares = np.split(weights, self.config.cells, axis=1)
        played = self.executor.call("play", [{"weights": share} for share in shares])
        returns = np.concatenate([one["returns"] for one in played], axis=1)
        self._steps += sum(int(one["steps"]) * self.share for one in played)
        elite_returns = self._learn(weights, returns)
        return {
            "return_exploring": returns.mean(axis=1).tolist(),
            "elite_return": elite_returns.tolist(),
            "deviation": self.deviation.mean(axis=(1, 2), dtype=np.float64).tolist(),
        }

    def _drawn(self) -> Float32Array:
        count = self.share * self.config.cells
        noise = np.stack([one.standard_normal((count, *self.mean.shape[1:]), np.float32) for one in self.generators])
        drawn: Float32Array = self.mean[:, None] + self.deviation[:, None] * noise
        return drawn

    def _learn(self, weights: Float32Array, returns: NDArray[np.float64]) -> NDArray[np.float64]:
        elite = max(2, round(self.config.elite_share * weights.shape[1]))
        best = np.argsort(-returns, axis=1, kind="stable")[:, :elite]
        kept = np.take_along_axis(weights, best[:, :, None, None], axis=1)
        left = max(0.0, 1.0 - self._steps / self.task.steps)
        self.mean = kept.mean(axis=1)
        self.deviation = kept.std(axis=1) + np.float32(self.config.extra_deviation * left)
        elite_returns: NDArray[np.float64] = np.take_along_axis(returns, best, axis=1).mean(axis=1)
        return elite_returns

    def state(self) -> State:
        """Mean, deviation, steps and the generators."""
        generators = np.stack([pack_generator(one) for one in self.generators])
        steps = np.array(self._steps)
        return {"mean": self.mean, "deviation": self.deviation, "generators": generators, "steps": steps}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.mean, self.deviation = state["mean"], state["deviation"]
        self.generators = [unpack_generator(words) for words in state["generators"]]
        self._steps = int(state["steps"])

    def export(self, index: int, folder: Path) -> None:
        """Write the mean of one seed as a network of one layer, which each device has for itself."""
        from edgebed.policies.forward import Layer, Network
        from edgebed.policies.inputs import Inputs
        from edgebed.policies.policy_file import save_policy
        from edgebed.simulation.network_actor import policy_file

        scale = _scale(self.scenario)
        weights = self.mean[index]
        policy = policy_file(
            self.scenario,
            Network([Layer.of(weights[:-1], weights[-1])]),
            scope="device",
            inputs=Inputs(np.zeros_like(scale), scale),
            learner=self.spec.name,
            training={"seed": self.task.seeds[index], "steps": self.steps},
        )
        save_policy(folder, policy)


def _inputs(scenario: Scenario) -> Float32Array:
    """Every device's view, scaled, and a 1 for the bias: ``[B, N, inputs]``."""
    views = scenario.device_views() / _scale(scenario)
    ones = np.ones((*views.shape[:2], 1), np.float32)
    return np.concatenate([views, ones], axis=2)


def _scale(scenario: Scenario) -> Float32Array:
    """What each column of a view is divided by: the end of its range, 1 where that is not finite."""
    ends: Any = [max(abs(one.low), abs(one.high)) for one in scenario.view_features]
    scale: Float32Array = np.where(np.isfinite(ends) & (np.array(ends) > 0), ends, 1.0).astype(np.float32)
    return scale


LEARNERS = (CrossEntropy,)
