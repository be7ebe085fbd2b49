"""DC-DRL: distributed and collective deep reinforcement learning (Qiu et al. 2021).

Several cells, each an environment with a DDPG agent of its own, learn one policy together. A generation::

    every cell    starts from its own agent, or, if that was below the population's average, from the collective one;
                  is perturbed; trains on its own replay; acts for some episodes; is scored by their mean reward;
                  uploads its trajectories and its parameters
    the driver    adds up what has changed in the agents, the better ones weighing more, in the collective agent,
                  which then trains on the trajectories of all cells

The collective agent's slow copy is the policy. ``docs/learners/dc_drl.md`` has the formula of every number logged and
every deviation from the paper, with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
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
from edgebed.learning.choices import Scaling, compressed, observation_inputs, save_choices, scenario_of_choices
from edgebed.learning.ddpg import Batch, Ddpg, DdpgSettings
from edgebed.learning.encodings import Encoding, OneHot, PublishedTanh
from edgebed.learning.evolution import below_average, merged, mutate, rank_weights
from edgebed.learning.health import Health
from edgebed.learning.noise import Counted, OrnsteinUhlenbeck, decayed, gumbel
from edgebed.learning.pairwise import PAIRWISE_CRITIC, PairwiseDdpg
from edgebed.learning.replay import RUNNING, TERMINATED, TRUNCATED, Replay, Trajectory
from edgebed.learning.returns import adaptive_returns, fixed_returns
from edgebed.policies.forward import Network
from edgebed.simulation.base import Scenario
from edgebed.simulation.random_streams import FloatArray

HEALTH_EVERY = 16
"""Updates for one whose gradients are looked at: to look costs a tenth of an update."""


class DcDrlConfig(LearnerConfig, frozen=True):
    """Settings of DC-DRL; the ablations of the paper are switches here."""

    cells: Annotated[int, parameter("1", "environments, an agent each", ge=1, le=64)] = 4
    episodes: Annotated[int, parameter("1", "episodes of a cell in a generation", ge=1)] = 1
    collective_updates: Annotated[
        float, parameter("1", "updates of the collective agent, a step of any cell", ge=0)
    ] = 0.15
    cell_updates: Annotated[float, parameter("1", "updates of a cell's agent, a step of its own", ge=0)] = 0.05
    neuroevolution: Annotated[
        Literal["gradient", "vanilla", "off"],
        parameter("1", "gradient: as the paper; vanilla: without gradients; off: no perturbing, no ranking", "paper"),
    ] = "gradient"
    mutation: Annotated[float, parameter("1", "standard deviation of the perturbation", ge=0)] = 0.0005
    merge_share: Annotated[
        float, parameter("1", "how much of the cells' merged change the collective agent takes over", ge=0, le=1)
    ] = 1.0
    adaptive_n: Annotated[bool, parameter("1", "n by agreement; otherwise always `n_step`", "paper")] = True
    n_step: Annotated[int, parameter("1", "largest n", "paper", ge=1, le=50)] = 10
    agreement: Annotated[
        float, parameter("1", "share of the devices that must agree for a prefix to go on", gt=0, le=1)
    ] = 0.9
    encoding: Annotated[
        Literal["one_hot", "published_tanh"], parameter("1", "how decisions are written for actor and critic")
    ] = "one_hot"
    critic: Annotated[
        Literal["pairwise", "per_device", "joint"],
        parameter("1", "a value for each device's costs, linear in each choice or not, or one for their sum"),
    ] = "pairwise"
    choice_temperature: Annotated[
        float, parameter("cost", "a choice better by it is taught e times as much (pairwise alone)", gt=0)
    ] = 0.5
    hidden: Annotated[tuple[int, ...], parameter("1", "sizes of the hidden layers", "paper")] = (400, 300)
    actor_rate: Annotated[float, parameter("1", "step size of the actor", gt=0)] = 1e-3
    critic_rate: Annotated[float, parameter("1", "step size of the critic", "paper", gt=0)] = 1e-3
    last_rate: Annotated[float, parameter("1", "factor that the step sizes fall to until the end", gt=0, le=1)] = 0.1
    gamma: Annotated[float, parameter("1", "discount of a step", "paper", ge=0, lt=1)] = 0.9
    tau: Annotated[float, parameter("1", "share by which targets follow at an update", gt=0, le=1)] = 0.02
    batch: Annotated[int, parameter("1", "samples an update", "paper", ge=1)] = 64
    actor_every: Annotated[int, parameter("1", "updates of the critic for one of the actor", "paper", ge=1)] = 1
    capacity: Annotated[int, parameter("1", "rows of the collective replay", ge=100)] = 65_000
    cell_capacity: Annotated[int, parameter("1", "rows of a cell's replay", ge=100)] = 16_000
    prioritised: Annotated[bool, parameter("1", "rows are replayed in proportion to their errors")] = False
    priority_power: Annotated[
        float, parameter("1", "power of an error in its row's priority", "Schaul et al. 2016", ge=0, le=2)
    ] = 0.6
    priority_correction: Annotated[
        float,
        parameter("1", "of the bias by priorities, at first; 1 at the end", "Schaul et al. 2016", ge=0, le=1),
    ] = 0.4
    temperature: Annotated[float, parameter("1", "of the straight-through softmax", gt=0)] = 1.0
    score_penalty: Annotated[float, parameter("1", "weight of the scores' mean square in the actor's loss", ge=0)] = (
        1e-4
    )
    huber: Annotated[float, parameter("1", "critic's errors above it count linearly", gt=0)] = 1.0
    scaling: Annotated[Scaling, parameter("1", "what observations are scaled by: see `observation_inputs`")] = (
        "mostly_local"
    )
    cost_knee: Annotated[float, parameter("1", "a task's cost above it counts by its logarithm", gt=0)] = 3.0
    noise: Annotated[float, parameter("1", "scale of Gumbel noise on scores (published_tanh: of OU noise)", ge=0)] = 0.3
    actor_noise: Annotated[float, parameter("1", "scale of Gumbel noise on scores in the actor's updates", ge=0)] = 0.3
    random: Annotated[float, parameter("1", "share of random decisions at the start", ge=0, le=1)] = 0.1
    random_local: Annotated[float, parameter("1", "share of the random decisions that are local", ge=0, le=1)] = 0.5
    last_random: Annotated[float, parameter("1", "factor that random decisions fall to until the end", gt=0, le=1)] = (
        0.1
    )
    least_exploration: Annotated[
        float, parameter("1", "factor of noise and random decisions in the first cell; 1 in the last", ge=0, le=1)
    ] = 1.0

    def exploration(self, cell: int) -> float:
        """Factor of a cell's noise and random decisions: in equal steps over the cells; 1 where there is one alone."""
        share = cell / (self.cells - 1) if self.cells > 1 else 1.0
        return self.least_exploration + (1.0 - self.least_exploration) * share

    def core(self, width: int, encoding: Encoding, seeds: Sequence[int], heads: int) -> Ddpg:
        """The networks of an agent, one a seed; arguments as `Ddpg`."""
        if self.critic == "pairwise":
            assert isinstance(encoding, OneHot), "see `DcDrl.check`"
            return PairwiseDdpg(width, encoding, seeds, self.agent_settings(), self.choice_temperature)
        return Ddpg(width, encoding, seeds, self.agent_settings(), heads)

    def agent_settings(self) -> DdpgSettings:
        """What the DDPG core takes of it."""
        return DdpgSettings(
            hidden=self.hidden,
            actor_rate=self.actor_rate,
            critic_rate=self.critic_rate,
            tau=self.tau,
            huber=self.huber,
            score_penalty=self.score_penalty,
            # Costs are not negative. A pairwise critic has numbers for meetings that it has hardly seen.
            highest_value=0.0 if self.critic == "pairwise" else None,
        )


class Agent:
    """A DDPG agent for each training seed, with the replay that it learns from: a cell's, or the collective one.

    Args:
        task: what is learned.
        scenario: for its sizes.
        name: who it is; its random numbers depend on it.
        capacity: rows of the replay.
    """

    def __init__(self, task: TrainingTask, scenario: Scenario, name: str, capacity: int) -> None:
        config = task.config
        assert isinstance(config, DcDrlConfig)
        self.config, self.steps = config, task.steps
        choices = len(scenario.actions.choices)
        self.encoding: OneHot | PublishedTanh = (
            OneHot(scenario.devices, choices, config.temperature)
            if config.encoding == "one_hot"
            else PublishedTanh(scenario.devices, choices)
        )
        heads = 1 if config.critic == "joint" else scenario.devices
        width = scenario.devices * len(scenario.device_features) + len(scenario.shared_features)
        self.ddpg = config.core(width, self.encoding, task.seeds, heads)
        self.replay = Replay(len(task.seeds), capacity, config.priority_power if config.prioritised else None)
        self.health: Health | None = None
        self.updates = 0
        self._rows = Counted(task.seeds, name, "replay")
        self._noise = Counted(task.seeds, name, "actor noise")

    def learn(self, updates: int, progress: float) -> Metrics:
        """Update so many times from the replay, unless that has less than a batch in it.

        Args:
            updates: how many.
            progress: share of the training that is over.

        Returns:
            Means over the updates, see ``docs/learners/dc_drl.md``.
        """
        if updates == 0 or self.replay.sizes.min() < self.config.batch:
            return {}
        rate_scale = decayed(1.0, self.config.last_rate, progress)
        first = self.config.priority_correction
        correction = first + (1.0 - first) * min(progress, 1.0)
        found: dict[str, list[NDArray[Any]]] = {}
        for _ in range(updates):
            for name, value in self._learn_once(rate_scale, correction).items():
                found.setdefault(name, []).append(value)
        return {name: _means(values) for name, values in found.items()}

    def _learn_once(self, rate_scale: float, correction: float) -> dict[str, NDArray[Any]]:
        config, replay = self.config, self.replay
        rows = replay.sample(self._rows.uniform(self.updates, config.batch))
        weights = replay.weights(rows, correction)
        if config.adaptive_n and config.n_step > 1:
            returns = adaptive_returns(
                replay,
                rows,
                config.gamma,
                config.n_step,
                self.ddpg.target_actor,
                self.encoding.agreeing,
                config.agreement,
            )
        else:
            returns = fixed_returns(replay, rows, config.gamma, config.n_step)
        batch = Batch(
            observations=torch.from_numpy(replay.take("observations", rows)),
            inputs=self.encoding.encoded(replay.take("actions", rows)),
            returns=torch.from_numpy(returns.sums),
            discounts=torch.from_numpy(returns.discounts),
            later=torch.from_numpy(returns.later),
            later_outputs=returns.later_outputs,
            noise=self._actor_noise(),
            weights=None if weights is None else torch.from_numpy(weights),
        )
        losses = self.ddpg.update(batch, rate_scale, is_actor_learning=self.updates % config.actor_every == 0)
        self.updates += 1
        replay.learned(rows, losses.errors.numpy())
        found = {
            "n_mean": returns.lengths.mean(axis=1),
            "agreement": returns.agreement,
            "critic_loss": losses.critic.numpy(),
        }
        if weights is not None:
            found["weight_mean"] = weights.mean(axis=1)
        if losses.actor is not None and losses.outputs is not None:
            found["actor_loss"] = losses.actor.numpy()
            if self.health is not None and self.updates % HEALTH_EVERY == 1:
                self.health.gradients(actor=losses.actor_gradients, critic=losses.critic_gradients)
                self.health.outputs(losses.outputs)
        return found

    def _actor_noise(self) -> torch.Tensor | None:
        """Gumbel noise on the scores that the actor learns from: it then learns to decide with a margin."""
        if not self.config.actor_noise:
            return None
        uniform = self._noise.uniform(self.updates, self.config.batch, self.encoding.outputs)
        return torch.from_numpy((self.config.actor_noise * gumbel(uniform)).astype(np.float32))

    def parameters(self) -> State:
        """Copies of the four networks of every seed."""
        found: State = {}
        for name, network in self.ddpg.networks.items():
            found |= network.state(name)
        return found

    def become(self, given: State) -> None:
        """Take parameters over; Adam's moments stay."""
        for name, network in self.ddpg.networks.items():
            network.load_state(name, given)

    def state(self) -> State:
        """All that changes."""
        own = self.ddpg.state("agent") | self.replay.state("replay")
        return own | {"updates": np.array(self.updates)}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.ddpg.load_state("agent", state)
        self.replay.load_state("replay", state)
        self.updates = int(state["updates"])


class DcDrlCell(CellWorker):
    """A cell: an environment and its agent, for all training seeds."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self._scenario = scenario_of_choices(cell.task, DcDrl.spec.name)
        self._inputs = observation_inputs(self._scenario, self._config.scaling)
        self._agent = Agent(cell.task, self._scenario, f"cell {cell.index}", self._config.cell_capacity)
        self._exploration = self._config.exploration(cell.index)
        streams = ("episodes", "noise", "random", "actor", "critic")
        self._streams = {name: Counted(cell.task.seeds, "cell", cell.index, name) for name in streams}

    @property
    def _config(self) -> DcDrlConfig:
        config = self.cell.task.config
        assert isinstance(config, DcDrlConfig)
        return config

    def generation(self, number: int, progress: float, collective: State, replaced: NDArray[np.bool_]) -> Data:
        """Start, be perturbed, train, act.

        Args:
            number: of the generation.
            progress: share of the training that is over.
            collective: the collective agent's parameters.
            replaced: ``[S]``, whose agent starts from them.

        Returns:
            ``changes`` of its parameters since the start; ``fitness`` ``[S]``, mean reward a step; ``trajectories``,
            one a seed; ``first_layer``, the actor's first weights as they are now.
        """
        config, agent = self._config, self._agent
        own = agent.parameters()
        start = {name: np.where(_beside(replaced, own[name]), collective[name], own[name]) for name in own}
        agent.become(start)
        if config.neuroevolution != "off":
            for name in ("actor", "critic"):
                online, target = agent.ddpg.networks[name], agent.ddpg.networks[f"target_{name}"]
                mutate(online, target, config.mutation, self._streams[name], number)
        steps = config.episodes * self._scenario.steps
        updates = 0 if config.neuroevolution == "vanilla" else round(config.cell_updates * steps)
        agent.learn(updates, progress)
        trajectories, rewards = self._act(number, progress)
        agent.replay.append(trajectories)
        now = agent.parameters()
        return {
            "changes": {name: now[name] - start[name] for name in now},
            "first_layer": now["actor.0"],
            "fitness": rewards.mean(axis=1),
            "returns": rewards.sum(axis=1) / config.episodes,
            "trajectories": [{part: getattr(one, part) for part in Trajectory.__slots__} for one in trajectories],
        }

    def _act(self, number: int, progress: float) -> tuple[list[Trajectory], FloatArray]:
        """Act for a generation's episodes, which run side by side: rows ``[S * episodes]``."""
        seeds, episodes = len(self.cell.task.seeds), self._config.episodes
        drawn = self._streams["episodes"].uniform(number, episodes)
        # Far from the small seeds that evaluations use.
        self._scenario.reset(((1 << 40) + drawn * (1 << 50)).astype(np.int64).reshape(-1))
        walk = OrnsteinUhlenbeck((seeds, episodes, self._agent.encoding.outputs))
        parts: list[tuple[Any, ...]] = []
        for step in range(self._scenario.steps):
            seen = self._inputs(self._scenario.observe().joint()).reshape(seeds, episodes, -1)
            actions = self._explore(seen, number * self._scenario.steps + step, progress, walk)
            choices = self._agent.encoding.choices_of(actions).reshape(seeds * episodes, -1)
            done = self._scenario.step(choices.astype(np.int64))
            kinds = np.where(done.terminated, TERMINATED, np.where(done.truncated, TRUNCATED, RUNNING))
            parts.append((seen, actions, self._rewards(done.reward, done.costs), kinds, done.reward))
        last = self._inputs(self._scenario.observe().joint()).reshape(seeds, episodes, -1)
        seen, actions, rewards, kinds, sums = (np.stack(column) for column in zip(*parts, strict=True))
        shape = (-1, seeds, episodes)
        rewards, kinds = rewards.reshape(*shape, rewards.shape[-1]), kinds.reshape(shape)
        found = [
            Trajectory.joined(
                [
                    Trajectory.of_episode(seen[:, s, e], actions[:, s, e], rewards[:, s, e], kinds[:, s, e], last[s, e])
                    for e in range(episodes)
                ]
            )
            for s in range(seeds)
        ]
        return found, sums.reshape(shape).transpose(1, 0, 2).reshape(seeds, -1)

    def _explore(self, seen: NDArray[Any], draw: int, progress: float, walk: OrnsteinUhlenbeck) -> NDArray[Any]:
        """Actions to store, ``[S, episodes, ...]``: the actor's with noise, some replaced by random ones."""
        return self._some_random(self._noisy(seen, draw, walk), draw, progress)

    @torch.no_grad()
    def _noisy(self, seen: NDArray[Any], draw: int, walk: OrnsteinUhlenbeck) -> NDArray[Any]:
        """The actor's actions with noise."""
        encoding, scale = self._agent.encoding, self._config.noise * self._exploration
        outputs = self._agent.ddpg.actor(torch.from_numpy(seen))
        noise = self._streams["noise"]
        if isinstance(encoding, OneHot):
            return encoding.explore(outputs, scale, noise.uniform(draw, *outputs.shape[1:]))
        return encoding.explore(outputs, scale * walk.step(noise.normal(draw, *outputs.shape[1:])))

    def _some_random(self, actions: NDArray[Any], draw: int, progress: float) -> NDArray[Any]:
        """Some devices' actions replaced by random ones."""
        config, encoding = self._config, self._agent.encoding
        uniform = self._streams["random"].uniform(draw, actions.shape[1], encoding.devices, 3)
        channels = 1 + (uniform[..., 2] * (encoding.choices - 1)).astype(np.int64)
        other = encoding.stored(np.where(uniform[..., 1] < config.random_local, 0, channels))
        share = self._exploration * decayed(config.random, config.random * config.last_random, progress)
        return np.where(uniform[..., 0] < share, other, actions)

    def _rewards(self, reward: FloatArray, costs: FloatArray) -> NDArray[np.float32]:
        """What the critic's heads learn, ``[B, H]``."""
        config = self._config
        adds_up = bool(np.allclose(reward, -costs.sum(axis=1), rtol=1e-6, atol=1e-9))
        if config.critic == "joint":
            mean = compressed(costs, config.cost_knee).mean(axis=1) if adds_up else -reward / costs.shape[1]
            joint: NDArray[np.float32] = -mean.astype(np.float32)[:, None]
            return joint
        if not adds_up:
            raise BadInput(
                f"learner {self.cell.task.learner}: in {self.cell.task.scenario} the reward is not minus the sum of "
                "the devices' costs; set critic=joint"
            )
        return -compressed(costs, config.cost_knee).astype(np.float32)

    def state(self) -> State:
        """All that changes; episodes begin and end within a generation."""
        return self._agent.state()

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self._agent.load_state(state)


class DcDrl(Learner):
    """The driver: merges the cells' agents into the collective one, and trains that on the experience of all."""

    spec: ClassVar[LearnerSpec] = LearnerSpec(
        name="dc_drl",
        title="distributed and collective DRL: DDPG agents in several cells, adaptive n-step, neuroevolution",
        paper="Qiu et al. 2021, distributed and collective deep reinforcement learning for computation offloading",
        config=DcDrlConfig,
    )

    cell_kind: ClassVar[type[CellWorker]] = DcDrlCell

    def __init__(self, task: TrainingTask, executor: Executor) -> None:
        super().__init__(task, executor)
        assert isinstance(task.config, DcDrlConfig)
        self.config = task.config
        self._scenario = scenario_of_choices(task, self.spec.name)
        self._inputs = observation_inputs(self._scenario, self.config.scaling)
        self._agent = Agent(task, self._scenario, "collective", self.config.capacity)
        ddpg, has_tanh = self._agent.ddpg, self.config.encoding == "published_tanh"
        self._health = Health(ddpg.actor.tensors, ddpg.critic.tensors, task.seeds, has_tanh=has_tanh)
        self._agent.health = self._health
        self._generation = 0
        self._uploaded_bytes = 0
        self._replaced = np.ones((self.config.cells, len(task.seeds)), np.bool_)
        executor.start(self.cell_kind, task, self.config.cells)

    @classmethod
    def check(cls, task: TrainingTask) -> None:
        """See `Learner.check`."""
        config = task.config
        assert isinstance(config, DcDrlConfig)
        if config.critic == "pairwise" and config.encoding != "one_hot":
            raise BadInput(
                f"learner {task.learner}: critic=pairwise needs encoding=one_hot, not {config.encoding}; "
                "set critic=per_device, or joint"
            )
        scenario_of_choices(task, cls.spec.name)

    @property
    def generation_steps(self) -> int:
        """Environment steps a seed that a generation takes, all cells together."""
        return self.config.cells * self.config.episodes * self._scenario.steps

    @property
    def steps(self) -> int:
        """Environment steps a seed so far, all cells together."""
        return self._generation * self.generation_steps

    def advance(self) -> Metrics:
        """A generation."""
        progress = self.steps / self.task.steps
        collective = self._agent.parameters()
        common = {"number": self._generation, "progress": progress, "collective": collective}
        answers = self.executor.call("generation", [common | {"replaced": replaced} for replaced in self._replaced])
        for answer in answers:
            self._agent.replay.append([Trajectory(**one) for one in answer["trajectories"]])
        metrics = self._merge(collective, answers)
        vanilla = self.config.neuroevolution == "vanilla"
        updates = 0 if vanilla else round(self.config.collective_updates * self.generation_steps)
        metrics |= self._agent.learn(updates, progress)
        self._generation += 1
        if metrics.get("actor_loss"):
            metrics |= self._health.report(self.steps)
        return metrics | self._counted(answers)

    def _merge(self, collective: State, answers: Sequence[Data]) -> Metrics:
        """Move the collective agent by the cells' merged change, and note who will be replaced by it."""
        fitness = np.stack([answer["fitness"] for answer in answers])
        evolves = self.config.neuroevolution != "off"
        weights = rank_weights(fitness) if evolves else np.full_like(fitness, 1.0 / len(fitness))
        change = merged([answer["changes"] for answer in answers], self.config.merge_share * weights)
        self._agent.become({name: collective[name] + change[name] for name in collective})
        self._replaced = below_average(fitness) if evolves and len(fitness) > 1 else np.ones_like(self._replaced)
        return {
            "return_exploring": np.mean([answer["returns"] for answer in answers], axis=0).tolist(),
            "fitness_variance": fitness.var(axis=0).tolist(),
            "first_layer_variance": np.stack([one["first_layer"] for one in answers]).var(0).mean((1, 2)).tolist(),
            "replaced_share": self._replaced.mean(axis=0).tolist(),
        }

    def _counted(self, answers: Sequence[Data]) -> Metrics:
        seeds = len(self.task.seeds)
        rows = sum(Trajectory(**one).size_bytes for answer in answers for one in answer["trajectories"]) / seeds
        weights = sum(array.nbytes for answer in answers for array in answer.get("changes", {}).values()) / seeds
        self._uploaded_bytes += round(rows + weights)
        numbers = {
            "updates": self._agent.updates,
            "uploaded_bytes": self._uploaded_bytes,
            "trajectory_bytes": rows,
            "parameter_bytes": weights,
        }
        return {name: [float(value)] * seeds for name, value in numbers.items()}

    def state(self) -> State:
        """The collective agent, and who will be replaced by it."""
        own = {
            "generation": np.array(self._generation),
            "uploaded_bytes": np.array(self._uploaded_bytes),
            "replaced": self._replaced.copy(),
        }
        return self._agent.state() | self._health.state() | own

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self._agent.load_state(state)
        self._health.load_state(state)
        self._generation = int(state["generation"])
        self._uploaded_bytes = int(state["uploaded_bytes"])
        self._replaced = state["replaced"].copy()

    def export(self, index: int, folder: Path) -> None:
        """Write the collective agent's slow actor of a seed, and its pairwise critic, to go on learning with online."""
        ddpg = self._agent.ddpg
        layers = self._agent.encoding.scores(ddpg.target_actor.layers(index))
        is_pairwise = isinstance(ddpg, PairwiseDdpg)
        others = {PAIRWISE_CRITIC: Network(ddpg.target_critic.layers(index))} if is_pairwise else {}
        save_choices(folder, self.task, index, self._scenario, self._inputs, layers, self.steps, others)


def _beside(flags: NDArray[np.bool_], like: NDArray[Any]) -> NDArray[np.bool_]:
    return flags.reshape((-1,) + (1,) * (like.ndim - 1))


def _means(values: list[NDArray[Any]]) -> list[float | None]:
    """Means over updates of ``[S]``, leaving out what was not measured."""
    stacked = np.stack(values).astype(np.float64)
    counts = (~np.isnan(stacked)).sum(axis=0)
    # NaN stands for "nothing to compare" in the agreement alone; a loss that is NaN must stay NaN.
    return [
        float(np.nansum(column) / count) if count else None for column, count in zip(stacked.T, counts, strict=True)
    ]


LEARNERS = (DcDrl,)
