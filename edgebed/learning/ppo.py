"""PPO from stable-baselines3 (Schulman et al. 2017), the baseline that DC-DRL is compared with.

One model a training seed, each with a batch of environments of its own. A chunk is one iteration of PPO: a roll-out of
whole episodes, then its epochs of updates. Random numbers are stable-baselines3's, from the global generators of torch
and numpy; each model's are put in place before it learns and taken away after, so that seeds do not mix.

Logged metrics, one value a seed: ``return_exploring``, mean return of the roll-out's episodes; ``policy_loss``,
``value_loss``, ``entropy`` as stable-baselines3 logs them (``train/policy_gradient_loss``, ``train/value_loss``, minus
``train/entropy_loss``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from edgebed.learning.base import (
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
from edgebed.learning.noise import Counted, decayed
from edgebed.policies.forward import Layer
from edgebed.policies.inputs import Inputs
from edgebed.simulation.base import Scenario
from edgebed.simulation.random_streams import FloatArray
from edgebed.simulation.scenarios import make_scenario

ACTIVATIONS: dict[str, type[torch.nn.Module]] = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class PpoConfig(LearnerConfig, frozen=True):
    """Settings of PPO; the defaults are what `benchmarks.ppo_trials` found best in the scenario ``dc-drl``."""

    environments: Annotated[int, parameter("1", "environments side by side", ge=1)] = 4
    episodes: Annotated[int, parameter("1", "episodes of each environment in a roll-out", ge=1)] = 1
    epochs: Annotated[int, parameter("1", "passes over a roll-out", ge=1)] = 10
    batch: Annotated[int, parameter("1", "samples an update", ge=2)] = 100
    rate: Annotated[float, parameter("1", "Adam's step size", gt=0)] = 5e-4
    last_rate: Annotated[float, parameter("1", "factor that the step size falls to until the end", gt=0, le=1)] = 1.0
    gamma: Annotated[float, parameter("1", "discount of a step", ge=0, lt=1)] = 0.9
    gae_lambda: Annotated[float, parameter("1", "generalised advantages' decay", ge=0, le=1)] = 0.8
    clip: Annotated[float, parameter("1", "range of the probability ratio", gt=0)] = 0.1
    entropy: Annotated[float, parameter("1", "weight of the entropy bonus", ge=0)] = 0.001
    hidden: Annotated[tuple[int, ...], parameter("1", "sizes of the hidden layers")] = (400, 300)
    cost_knee: Annotated[float, parameter("1", "a task's cost above it counts by its logarithm, in learning", gt=0)] = (
        3.0
    )
    scaling: Annotated[Scaling, parameter("1", "what observations are scaled by: see `observation_inputs`")] = (
        "mostly_local"
    )
    activation: Annotated[Literal["tanh", "relu"], parameter("1", "between the layers")] = "tanh"


class BatchedVecEnv(VecEnv):
    """Episodes of a scenario, side by side, as stable-baselines3 wants them.

    Rewards are divided by the number of devices.

    Args:
        scenario: its own.
        inputs: scaling of observations.
        environments: how many.
        knee: costs above it count by their logarithm.
        seed: training seed; episodes are a function of it and of how many were played.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs, environments: int, knee: float, seed: int) -> None:
        self.scenario, self.inputs, self.knee = scenario, inputs, knee
        self._stream = Counted([seed], "ppo episodes")
        self.rounds = 0
        self.ended_returns: list[float] = []
        choices = [len(scenario.actions.choices)] * scenario.devices
        width = len(inputs.mean)
        box = spaces.Box(-inputs.clip, inputs.clip, (width,), np.float32)
        self.render_mode = None
        super().__init__(environments, box, spaces.MultiDiscrete(choices))
        self._actions: NDArray[Any] = np.zeros(0)
        self._returns = np.zeros(environments)

    def _observe(self) -> NDArray[np.float32]:
        return self.inputs(self.scenario.observe().joint())

    def reset(self) -> NDArray[np.float32]:
        """Start an episode in every environment."""
        self._start(None)
        return self._observe()

    def _start(self, where: NDArray[np.bool_] | None) -> None:
        drawn = self._stream.uniform(self.rounds, self.num_envs)[0]
        self.rounds += 1
        self.scenario.reset(((1 << 40) + drawn * (1 << 50)).astype(np.int64), where)
        self._returns[True if where is None else where] = 0.0

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """One step of all; all start over when the last has ended."""
        done = self.scenario.step(self._actions.astype(np.int64))
        self._returns += done.reward
        ended = done.terminated | done.truncated
        seen = self._observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(ended):
            infos[index] = {"terminal_observation": seen[index], "TimeLimit.truncated": bool(done.truncated[index])}
        if ended.any():
            self.ended_returns += self._returns[ended].tolist()
            self._start(ended)
            seen = np.where(ended[:, None], self._observe(), seen)
        return seen, self._rewards(done.reward, done.costs), ended, infos

    def _rewards(self, reward: FloatArray, costs: FloatArray) -> NDArray[np.float32]:
        adds_up = bool(np.allclose(reward, -costs.sum(axis=1), rtol=1e-6, atol=1e-9))
        mean = -compressed(costs, self.knee).mean(axis=1) if adds_up else reward / self.scenario.devices
        return mean.astype(np.float32)

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute, for each environment."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method, once for each environment."""
        count = len(list(self._get_indices(indices)))
        return [getattr(self, method_name)(*method_args, **method_kwargs) for _ in range(count)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No environment is wrapped."""
        return [False] * len(list(self._get_indices(indices)))


class OneSeed:
    """A model, its environments and its random numbers.

    Args:
        task: what is learned.
        config: PPO's settings.
        inputs: scaling of observations.
        seed: training seed.
    """

    def __init__(self, task: TrainingTask, config: PpoConfig, inputs: Inputs, seed: int) -> None:
        self.config, self._total = config, task.steps
        scenario = make_scenario(task.scenario, task.parameters)
        self.env = BatchedVecEnv(scenario, inputs, config.environments, config.cost_knee, seed)
        steps = config.episodes * scenario.steps
        with warnings.catch_warnings():
            # A last batch that is smaller than the others is of no consequence.
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
            self.model = PPO(
                "MlpPolicy",
                self.env,
                learning_rate=self._rate,
                n_steps=steps,
                batch_size=config.batch,
                n_epochs=config.epochs,
                gamma=config.gamma,
                gae_lambda=config.gae_lambda,
                clip_range=config.clip,
                ent_coef=config.entropy,
                policy_kwargs={"net_arch": list(config.hidden), "activation_fn": ACTIVATIONS[config.activation]},
                seed=seed % (1 << 32),
                device="cpu",
            )
        _, self._callback = self.model._setup_learn(task.steps, None)
        self._random = _random_state()

    def _rate(self, remaining: float) -> float:
        return self.config.rate * decayed(1.0, self.config.last_rate, 1.0 - remaining)

    def iterate(self) -> dict[str, float]:
        """One iteration of PPO."""
        _restore_random(self._random)
        model, self.env.ended_returns = self.model, []
        # Chunks begin with episodes, so that nothing of an environment has to be stored.
        model._last_obs = self.env.reset()
        model._last_episode_starts = np.ones(self.env.num_envs, np.bool_)
        buffer = model.rollout_buffer
        model.collect_rollouts(self.env, self._callback, buffer, n_rollout_steps=model.n_steps)
        model._update_current_progress_remaining(model.num_timesteps, self._total)
        model.train()
        self._random = _random_state()
        logged = model.logger.name_to_value
        return {
            "return_exploring": float(np.mean(self.env.ended_returns)),
            "policy_loss": float(logged["train/policy_gradient_loss"]),
            "value_loss": float(logged["train/value_loss"]),
            "entropy": -float(logged["train/entropy_loss"]),
        }

    def state(self) -> State:
        """Weights, moments, random numbers and counts."""
        found = {f"weights.{name}": value.numpy().copy() for name, value in self.model.policy.state_dict().items()}
        for index, moments in self.model.policy.optimizer.state_dict()["state"].items():
            found |= {f"adam.{index}.{name}": value.numpy().copy() for name, value in moments.items()}
        counts = [self.model.num_timesteps, self.env.rounds, self.model._n_updates]
        return found | self._random | {"counts": np.array(counts)}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        weights = {name.removeprefix("weights."): _tensor(state[name]) for name in state if name.startswith("weights.")}
        self.model.policy.load_state_dict(weights)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name in (one for one in state if one.startswith("adam.")):
            _, index, part = name.split(".")
            moments.setdefault(int(index), {})[part] = _tensor(state[name])
        optimizer = self.model.policy.optimizer
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self._random = {name: state[name].copy() for name in self._random}
        self.model.num_timesteps, self.env.rounds, self.model._n_updates = (int(one) for one in state["counts"])

    def layers(self) -> list[Layer]:
        """The policy, whose outputs are the scores of each device's choices."""
        policy: Any = self.model.policy
        modules = [one for one in policy.mlp_extractor.policy_net if isinstance(one, torch.nn.Linear)]
        names = [self.config.activation] * len(modules) + ["identity"]
        return [
            Layer.of(one.weight.detach().numpy().T, one.bias.detach().numpy(), name)
            for one, name in zip([*modules, policy.action_net], names, strict=True)
        ]


class Ppo(Learner):
    """PPO, a model a training seed; it has no cells."""

    spec: ClassVar[LearnerSpec] = LearnerSpec(
        name="ppo",
        title="PPO from stable-baselines3, a choice for each device",
        paper="Schulman et al. 2017, Proximal policy optimization algorithms",
        config=PpoConfig,
    )

    def __init__(self, task: TrainingTask, executor: Executor) -> None:
        super().__init__(task, executor)
        assert isinstance(task.config, PpoConfig)
        self.config = task.config
        self._scenario = scenario_of_choices(task, self.spec.name)
        self._inputs = observation_inputs(self._scenario, self.config.scaling)
        self._models = [OneSeed(task, task.config, self._inputs, seed) for seed in task.seeds]

    @classmethod
    def check(cls, task: TrainingTask) -> None:
        """See `Learner.check`."""
        scenario_of_choices(task, cls.spec.name)

    @property
    def steps(self) -> int:
        """Environment steps a seed so far."""
        return int(self._models[0].model.num_timesteps)

    def advance(self) -> Metrics:
        """One iteration of every model."""
        found: Sequence[dict[str, float]] = [one.iterate() for one in self._models]
        return {name: [one[name] for one in found] for name in found[0]}

    def state(self) -> State:
        """All models', by seed."""
        return {f"{i}.{name}": value for i, one in enumerate(self._models) for name, value in one.state().items()}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        for index, one in enumerate(self._models):
            prefix = f"{index}."
            one.load_state({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})

    def export(self, index: int, folder: Path) -> None:
        """Write the policy of a seed: the most probable choices."""
        save_choices(folder, self.task, index, self._scenario, self._inputs, self._models[index].layers(), self.steps)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def _random_state() -> State:
    """Torch's and numpy's global generators."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch_random": torch.get_rng_state().numpy().copy(),
        "numpy_random": np.asarray(keys).copy(),
        "numpy_random_rest": np.array([position, has_gauss, cached], np.float64),
    }


def _restore_random(state: State) -> None:
    torch.set_rng_state(torch.from_numpy(state["torch_random"].copy()))
    position, has_gauss, cached = state["numpy_random_rest"]
    np.random.set_state(("MT19937", state["numpy_random"], int(position), int(has_gauss), float(cached)))


LEARNERS = (Ppo,)
