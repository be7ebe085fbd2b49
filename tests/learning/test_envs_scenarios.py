"""Every registered scenario keeps the contracts of Gymnasium and PettingZoo, warnings as errors."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from edgebed.envs import register_envs
from edgebed.envs.gym import GymScenario
from edgebed.envs.parallel import ParallelScenario
from edgebed.envs.vector import VectorScenario
from edgebed.errors import BadInput
from edgebed.simulation.base import Scenario
from edgebed.simulation.scenarios import make_scenario, scenario_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this package of theirs imports games of theirs in a way that they deprecate
    from pettingzoo.test import parallel_api_test, parallel_seed_test

NAMES = scenario_names()


def make(name: str) -> Scenario:
    return make_scenario(name)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_scenarios() -> None:
    assert "dc-drl" in NAMES


class TestGymnasium:
    def test_its_checker_has_nothing_to_say(self, name: str) -> None:
        check_env(GymScenario(make(name)), skip_render_check=True)

    def test_every_observation_of_an_episode_lies_in_the_space(self, name: str) -> None:
        env = GymScenario(make(name))
        env.action_space.seed(1)
        observation, _ = env.reset(seed=5)
        for _ in range(300):
            outside = ~((observation >= env.observation_space.low) & (observation <= env.observation_space.high))
            assert not outside.any(), [env.describe()[index] for index in np.flatnonzero(outside)]
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                observation, _ = env.reset()

    def test_the_description_names_every_number(self, name: str) -> None:
        env = GymScenario(make(name))
        columns = env.describe()
        assert env.observation_space.shape == (len(columns),)
        assert all(one.unit and one.meaning for one in columns)

    def test_the_time_limit_truncates(self) -> None:
        env = GymScenario(make_scenario("dc-drl", {"n": 2, "steps": 3}))
        env.reset(seed=0)
        ends = [env.step(np.zeros(2, np.int64))[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]

    def test_it_is_the_scenario(self) -> None:
        env, scenario = GymScenario(make("dc-drl")), make("dc-drl")
        observation, _ = env.reset(seed=3)
        scenario.reset([3])
        assert np.array_equal(observation, scenario.observe().joint()[0])
        for number in range(5):
            action = np.full(scenario.devices, number % len(scenario.actions.choices))
            observation, reward, *_, info = env.step(action)
            step = scenario.step(action[None])
            assert reward == step.reward[0]
            assert info["costs"].tolist() == step.costs[0].tolist()
            assert np.array_equal(observation, scenario.observe().joint()[0])

    def test_an_action_of_another_shape_is_refused(self) -> None:
        env = GymScenario(make_scenario("dc-drl", {"n": 3}))
        env.reset(seed=0)
        with pytest.raises(BadInput, match=r"shape \(2,\); \(3,\) is needed"):
            env.step(np.zeros(2, np.int64))

    def test_made_by_name(self) -> None:
        register_envs()
        env = gymnasium.make("edgebed/dc-drl-v0", n=4)
        assert isinstance(env.unwrapped, GymScenario)
        assert env.unwrapped.scenario.devices == 4
        vector = gymnasium.make_vec("edgebed/dc-drl-v0", num_envs=3, n=4)
        assert isinstance(vector, VectorScenario)
        assert vector.observation_space.shape == (3, *env.observation_space.shape)


class TestPettingZoo:
    def test_its_checker_has_nothing_to_say(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        parallel_api_test(ParallelScenario(make(name)), num_cycles=120)

    def test_seeds_decide(self, name: str) -> None:
        parallel_seed_test(lambda: ParallelScenario(make(name)), num_cycles=30)

    def test_agents_are_the_slots_and_see_their_view(self) -> None:
        scenario = make("dc-drl")
        env = ParallelScenario(scenario)
        views, _ = env.reset(seed=2)
        assert list(views) == [f"device-{index}" for index in range(10)]
        assert np.array_equal(np.stack(list(views.values())), scenario.device_views()[0])
        assert len(env.describe()) == len(views["device-0"])
        assert np.array_equal(env.state(), scenario.observe().joint()[0])

    def test_rewards_are_shared_or_own(self) -> None:
        answers = {}
        for kind in ("shared", "own"):
            env = ParallelScenario(make("dc-drl"), rewards=kind)
            env.reset(seed=2)
            _, rewards, *_, infos = env.step(dict.fromkeys(env.agents, 0))
            answers[kind] = (rewards, [info["cost"] for info in infos.values()])
        shared, costs = answers["shared"]
        assert list(answers["own"][0].values()) == [-cost for cost in costs]
        assert len(set(shared.values())) == 1
        assert next(iter(shared.values())) == pytest.approx(-sum(costs))

    def test_every_agent_must_act(self) -> None:
        env = ParallelScenario(make("dc-drl"))
        env.reset(seed=2)
        with pytest.raises(BadInput, match="no action for device-1"):
            env.step({"device-0": 0})


class TestVector:
    def test_it_is_many_single_ones(self, name: str) -> None:
        """Through several episodes, with the step between two of them that Gymnasium's next-step autoreset takes."""
        count, steps = 3, 25
        vector = VectorScenario(make(name), count)
        singles = [GymScenario(make(name)) for _ in range(count)]
        together, _ = vector.reset(seed=7)
        apart = [env.reset(seed=7 + index)[0] for index, env in enumerate(singles)]
        assert np.array_equal(together, apart)
        vector.action_space.seed(0)
        ended = [False] * count
        for _ in range(steps):
            actions = vector.action_space.sample()
            together, rewards, terminated, truncated, _ = vector.step(actions)
            for index, env in enumerate(singles):
                step: tuple[Any, ...] = (
                    (env.reset()[0], 0.0, False, False, {}) if ended[index] else env.step(actions[index])
                )
                assert np.array_equal(together[index], step[0])
                assert (rewards[index], terminated[index], truncated[index]) == step[1:4]
                ended[index] = step[2] or step[3]

    def test_spaces_are_batched(self, name: str) -> None:
        vector = VectorScenario(make(name), 4)
        observations, _ = vector.reset(seed=0)
        assert vector.observation_space.contains(observations)
        assert vector.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP

    def test_metrics_come_with_the_last_step(self) -> None:
        vector = VectorScenario(make_scenario("dc-drl", {"n": 2, "steps": 2}), 2)
        vector.reset(seed=0)
        actions = np.zeros((2, 2), np.int64)
        infos = [vector.step(actions)[4] for _ in range(4)]
        assert [list(info.get("_metrics", [])) for info in infos] == [[], [True, True], [], []]
        assert infos[1]["metrics"]["cost_per_task"].shape == (2,)
