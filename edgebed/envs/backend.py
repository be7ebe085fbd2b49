"""Any backend as an environment: real hosts, the simulator or a replayed trace, with the same spaces.

The spaces follow from the plan's devices and servers, so that they are known, and described with units, before anything
is connected; a scenario calibrated from measurements has the same. A lost device keeps its slot: the joint environment
goes on and shows it absent (``present``), the parallel one truncates its agent. Time limits truncate.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Space
from pettingzoo import ParallelEnv

from edgebed.backend import Backend, EpisodePlan
from edgebed.envs.backend_episode import BackendEpisode, EpisodeStep, EpochReward, RewardWhen
from edgebed.envs.gym import SEEDS
from edgebed.envs.parallel import ParallelAnswer, Rewards
from edgebed.envs.seeding import episode_seed
from edgebed.envs.spaces import (
    Column,
    box_of,
    describe_columns,
    device_action_space,
    joint_action_space,
    joint_features,
    to_layout,
)
from edgebed.errors import BadInput
from edgebed.policies.hosts_features import device_block
from edgebed.simulation.hosts_layout import executed_actions
from edgebed.types import BoolArray, Float32Array, IntArray, Observation


class _Seeds:
    """Seeds of episodes, the same as those of environments over scenarios."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._episode = 0

    def next(self, given: int | None, rng: np.random.Generator) -> int:
        """The seed of the next episode."""
        if given is not None or self._first is None:
            self._first, self._episode = int(rng.integers(SEEDS)) if given is None else given, 0
        else:
            self._episode += 1
        return episode_seed(self._first, self._episode)


class BackendEnv(gymnasium.Env[Any, Any]):
    """All devices of a plan as one agent, whose action is an index a device: 0 = run here, else server and channel.

    ``info`` of a step: ``epoch`` (of the observation), ``present [N]``, ``action_mask [N, actions]`` (1 = allowed),
    ``executed [N]`` (the action indices that the backend really took), ``accepted [N]``, ``tasks [N]``, ``rewards``
    (final ones, by decision epoch), ``unfinished`` (at the end: those whose tasks were not all reported),
    ``unknown`` (tasks without a known cost in these), ``skipped`` (epochs that the fallback decided meanwhile).

    Args:
        backend: not open; the first reset opens it, `close` closes it.
        plan: what it is opened with; says devices, servers and the number of epochs.
        reward: ``wait``: a step waits for the tasks that it decided, and returns their reward. ``later``: it returns
            the sum of the rewards that have become final since the last step; ``info["rewards"]`` says of which epochs.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, backend: Backend[Any], plan: EpisodePlan, reward: RewardWhen = "wait") -> None:
        self.episode = BackendEpisode(backend, plan, reward)
        layout = self.episode.layout
        self.slots = layout.slots
        columns = joint_features(self.slots, layout.device_features, layout.shared_features)
        self._box = box_of(columns)
        self.observation_space = self._box
        self.action_space = joint_action_space(layout.actions, len(self.slots))
        self._seeds = _Seeds()

    def describe(self) -> list[Column]:
        """The observation, number by number, with units; needs nothing connected."""
        layout = self.episode.layout
        return describe_columns(self.slots, layout.device_features, layout.shared_features)

    def action_masks(self) -> BoolArray:
        """What is allowed now, all devices' actions in a row: as sb3-contrib's MaskablePPO asks for it."""
        return _masks(self.episode.observation).ravel()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode, which on hosts is another attempt of the plan's cell.

        Args:
            seed: fixes arrivals and all other chance of this episode, and of those that follow without one.
            options: there are none.
        """
        super().reset(seed=seed)
        observation = self.episode.reset(self._seeds.next(seed, self.np_random))
        return self._seen(observation), _facts(observation)

    def step(self, action: Any) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Decide for all devices and go on to the next tick.

        Raises:
            BadInput: the action does not fit the space.
        """
        layout = self.episode.layout
        actions = to_layout(layout.actions, action, (len(self.slots),)).astype(np.int32)
        step = self.episode.step(_in_range(actions, self.episode))
        reward = float(step.rewards(len(self.slots)).sum())
        return self._seen(step.observation), reward, False, step.is_over, self._info(step)

    def close(self) -> None:
        """Close the backend."""
        self.episode.close()

    def _seen(self, observation: Observation) -> Float32Array:
        joint = np.concatenate([device_block(observation).ravel(), observation.server])
        seen: Float32Array = np.clip(joint, self._box.low, self._box.high, dtype=np.float32)
        return seen

    def _info(self, step: EpisodeStep) -> dict[str, Any]:
        return {
            **_facts(step.observation),
            **_effects(step, self.episode),
            "rewards": {one.epoch: -float(one.costs.sum()) for one in step.final},
            "unfinished": {one.epoch: -float(one.costs.sum()) for one in step.unfinished},
            "unknown": sum(one.unknown for one in (*step.final, *step.unfinished)),
            "skipped": step.skipped,
        }


class ParallelBackendEnv(ParallelEnv[str, Float32Array, Any]):  # type: ignore[misc]  # untyped: their package has no types
    """The devices of a plan as agents, each with its own view: its features, then the servers'.

    An agent whose device is lost is truncated, and stays out until the next episode; its device then runs its tasks
    itself. ``infos`` have ``action_mask``, ``executed``, ``accepted``, ``tasks`` and ``rewards`` of each agent.

    Args:
        backend: not open; the first reset opens it, `close` closes it.
        plan: what it is opened with.
        reward: as `BackendEnv`'s.
        rewards: ``shared``: every agent gets the sum over all devices; ``own``: that of its own tasks.
    """

    metadata: dict[str, Any] = {"render_modes": [], "name": "edgebed_backend_v0", "is_parallelizable": True}  # noqa: RUF012

    def __init__(
        self, backend: Backend[Any], plan: EpisodePlan, reward: RewardWhen = "wait", rewards: Rewards = "shared"
    ) -> None:
        if rewards not in ("shared", "own"):
            raise BadInput(f"rewards is {rewards!r}; allowed: shared, own")
        self.episode = BackendEpisode(backend, plan, reward)
        layout = self.episode.layout
        self.possible_agents = list(layout.slots)
        self.agents: list[str] = []
        self.render_mode = None
        self._rewards = rewards
        self._box = box_of((*layout.device_features, *layout.shared_features))
        self.observation_spaces = {
            name: box_of((*layout.device_features, *layout.shared_features)) for name in self.possible_agents
        }
        self.action_spaces = {name: device_action_space(layout.actions) for name in self.possible_agents}
        self._seeds = _Seeds()

    def observation_space(self, agent: str) -> Space[Any]:
        """What an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """What an agent can do."""
        return self.action_spaces[agent]

    def describe(self) -> list[Column]:
        """What one agent sees, number by number, with units; needs nothing connected."""
        layout = self.episode.layout
        return describe_columns(("",), (*layout.device_features, *layout.shared_features), ())

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32Array], dict[str, dict[str, Any]]]:
        """Start an episode with the devices that are present; see `BackendEnv.reset`."""
        observation = self.episode.reset(self._seeds.next(seed, np.random.default_rng()))
        self.agents = [name for name, there in zip(self.possible_agents, observation.present, strict=True) if there]
        masks = _masks(observation).astype(np.int8)
        infos = {name: {"action_mask": masks[self._slot(name)].copy()} for name in self.agents}
        return self._views(observation, self.agents), infos

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Float32Array], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Decide for every agent and go on to the next tick.

        Raises:
            BadInput: an agent's action is missing, or does not fit its space.
        """
        if not self.agents:
            raise BadInput("step() after the end of the episode; call reset()")
        missing = [name for name in self.agents if name not in actions]
        if missing:
            raise BadInput(f"no action for {', '.join(missing)}; every agent acts in every step")
        joint = np.zeros(len(self.possible_agents), np.int32)
        for name in self.agents:
            joint[self._slot(name)] = int(actions[name])
        return self._answer(self.episode.step(_in_range(joint, self.episode)))

    def close(self) -> None:
        """Close the backend."""
        self.episode.close()

    def _answer(self, step: EpisodeStep) -> ParallelAnswer:
        agents, present = self.agents, step.observation.present
        of_each = step.rewards(len(self.possible_agents))
        shared = float(of_each.sum())
        rewards = {name: shared if self._rewards == "shared" else float(of_each[self._slot(name)]) for name in agents}
        truncated = {name: step.is_over or not bool(present[self._slot(name)]) for name in agents}
        infos = {name: self._info(step, name) for name in agents}
        self.agents = [name for name in agents if not truncated[name]]
        return self._views(step.observation, agents), rewards, dict.fromkeys(agents, False), truncated, infos

    def _info(self, step: EpisodeStep, name: str) -> dict[str, Any]:
        slot = self._slot(name)
        effects = _effects(step, self.episode)
        return {
            "epoch": step.observation.epoch,
            "action_mask": _masks(step.observation)[slot].astype(np.int8),
            **{key: values[slot].item() for key, values in effects.items()},
            "rewards": {one.epoch: self._reward(one, slot) for one in step.final},
            "unfinished": {one.epoch: self._reward(one, slot) for one in step.unfinished},
            "skipped": list(step.skipped),
        }

    def _reward(self, one: EpochReward, slot: int) -> float:
        return -float(one.costs.sum() if self._rewards == "shared" else one.costs[slot])

    def _slot(self, name: str) -> int:
        return self.possible_agents.index(name)

    def _views(self, observation: Observation, agents: list[str]) -> dict[str, Float32Array]:
        block = device_block(observation)
        views = {}
        for name in agents:
            view = np.concatenate([block[self._slot(name)], observation.server])
            views[name] = np.clip(view, self._box.low, self._box.high, dtype=np.float32)
        return views


def _in_range(actions: IntArray, episode: BackendEpisode) -> IntArray:
    count = episode.spec.actions
    if ((actions < 0) | (actions >= count)).any():
        raise BadInput(
            f"actions {actions.tolist()}; each is 0 to {count - 1}: {', '.join(episode.layout.actions.choices)}"
        )
    return actions


def _masks(observation: Observation) -> BoolArray:
    """``[N, actions]``, True = allowed; an absent slot, or one with nothing allowed, may only run its tasks itself."""
    masks = observation.allowed_actions & observation.present[:, None]
    masks[:, 0] |= ~masks.any(axis=1)
    return masks


def _facts(observation: Observation) -> dict[str, Any]:
    return {
        "epoch": observation.epoch,
        "present": observation.present.copy(),
        "action_mask": _masks(observation).astype(np.int8),
    }


def _effects(step: EpisodeStep, episode: BackendEpisode) -> dict[str, Any]:
    done = step.receipt.executed
    return {
        "executed": executed_actions(done.site, done.server, done.channel, episode.spec),
        "accepted": step.receipt.accepted.copy(),
        "tasks": step.receipt.tasks.copy(),
    }
