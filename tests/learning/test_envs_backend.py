"""Environments over a backend, on the fake of the `Backend` contract: spaces, rewards, lost devices, time limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from edgebed.backend import opened
from edgebed.backend_toy import ToyBackend, ToyPlan
from edgebed.envs.backend import BackendEnv, ParallelBackendEnv
from edgebed.errors import BadInput
from edgebed.types import DEVICE_FEATURES, DecidedBy, Decision, Outcome

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this package of theirs imports games of theirs in a way that they deprecate
    from pettingzoo.test import parallel_api_test, parallel_seed_test

PLAN = ToyPlan(channels=2)


@pytest.fixture(params=["wait", "later"])
def when(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def env(when: Any) -> Iterator[BackendEnv]:
    env = BackendEnv(ToyBackend(), PLAN, reward=when)
    yield env
    env.close()


def play(env: BackendEnv, seed: int = 0, action: int = 1) -> list[tuple[Any, ...]]:
    """All steps of an episode, the same action for everyone."""
    env.reset(seed=seed)
    steps = [env.step(np.full(len(env.slots), action))]
    while not steps[-1][3]:
        steps.append(env.step(np.full(len(env.slots), action)))
    return steps


class TestJoint:
    def test_gymnasium_s_checker_has_nothing_to_say(self, env: BackendEnv) -> None:
        check_env(env, skip_render_check=True)

    def test_it_is_described_before_anything_is_open(self) -> None:
        class Unopened(ToyBackend):
            def open(self, plan: ToyPlan) -> None:
                raise AssertionError("nothing is connected to describe a space")

        env = BackendEnv(Unopened(), PLAN)
        columns = env.describe()
        assert len(columns) == env.observation_space.shape[0]
        first = columns[: len(DEVICE_FEATURES) + 2]
        assert [one.name for one in first] == [*(one.name for one in DEVICE_FEATURES), "present", "age_s"]
        assert {one.slot for one in first} == {"pi-1"}
        assert columns[-1].name == "server0.channel1.channel_uploads"
        assert all(one.unit and one.meaning for one in columns)
        assert env.action_space.nvec.tolist() == [3, 3, 3]
        env.close()

    def test_every_cost_is_somebody_s_reward(self, env: BackendEnv, when: Any) -> None:
        """The sum over an episode is what the same decisions cost on the bare backend."""
        steps = play(env, seed=4)
        skipped = {epoch for step in steps for epoch in step[4]["skipped"]}
        cost = 0.0
        with opened(ToyBackend(), PLAN) as backend:
            backend.reset(4)
            for epoch in range(PLAN.epochs):
                assert backend.observe().epoch == epoch
                if epoch not in skipped:
                    backend.submit(Decision.from_actions(np.ones(3, np.int32), env.episode.spec))
            backend.observe()
            while outcomes := backend.poll(np.inf):
                mine = [one for one in outcomes if one.decided_by is DecidedBy.CONTROLLER]
                cost += sum(one.cost or 0.0 for one in mine)
        assert sum(step[1] for step in steps) == pytest.approx(-cost)
        assert sum(sum(step[4]["rewards"].values()) for step in steps) == pytest.approx(-cost)

    def test_waiting_gives_each_step_its_own_reward(self) -> None:
        env = BackendEnv(ToyBackend(), PLAN, reward="wait")
        epoch = 0
        for step in play(env):
            assert list(step[4]["rewards"]) == [epoch]
            assert step[4]["skipped"] == list(range(epoch + 1, step[4]["epoch"]))
            epoch = step[4]["epoch"]
        assert epoch == PLAN.epochs
        env.close()

    def test_without_waiting_no_epoch_is_skipped_and_rewards_come_later(self) -> None:
        env = BackendEnv(ToyBackend(), PLAN, reward="later")
        steps = play(env)
        assert [step[4]["epoch"] for step in steps] == list(range(1, PLAN.epochs + 1))
        assert all(step[4]["skipped"] == [] for step in steps)
        came = {epoch: number for number, step in enumerate(steps) for epoch in step[4]["rewards"]}
        assert sorted(came) == list(range(PLAN.epochs))
        assert all(number >= epoch for epoch, number in came.items())
        assert any(number > epoch for epoch, number in came.items())
        env.close()

    def test_the_time_limit_truncates(self, env: BackendEnv) -> None:
        steps = play(env)
        assert [step[2] for step in steps] == [False] * len(steps)
        assert [step[3] for step in steps] == [False] * (len(steps) - 1) + [True]

    def test_a_lost_device_is_shown_absent_and_the_episode_goes_on(self) -> None:
        env = BackendEnv(ToyBackend(), replace(PLAN, absent=frozenset({(2, "pi-2")})), reward="later")
        steps = play(env)
        assert [step[4]["present"].tolist() for step in steps][1] == [True, False, True]
        assert steps[1][4]["action_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 1]]
        assert steps[2][4]["executed"].tolist() == [1, 0, 1]
        assert steps[2][4]["accepted"].tolist() == [True, False, True]
        assert [step[3] for step in steps] == [False] * 5 + [True]
        width = len(DEVICE_FEATURES) + 2
        lost = steps[1][0][width : 2 * width]
        assert not lost.any()
        env.close()

    def test_lost_results_are_counted(self) -> None:
        env = BackendEnv(ToyBackend(), replace(PLAN, lose_every=2), reward="later")
        steps = play(env)
        assert sum(step[4]["unknown"] for step in steps) > 0
        assert steps[-1][4]["unfinished"] == {}
        env.close()

    def test_masks_as_sb3_contrib_asks_for_them(self, env: BackendEnv) -> None:
        _, info = env.reset(seed=0)
        assert env.action_masks().tolist() == info["action_mask"].astype(bool).ravel().tolist()

    @pytest.mark.parametrize("action", [[0, 0], [0, 0, 3], [0, -1, 0]])
    def test_an_action_out_of_the_space_is_refused(self, action: list[int]) -> None:
        env = BackendEnv(ToyBackend(), PLAN)
        env.reset(seed=0)
        with pytest.raises(BadInput, match=r"shape|each is 0 to 2: device, server0\.channel0, server0\.channel1"):
            env.step(np.array(action))
        env.close()

    def test_an_unknown_reward_is_refused(self) -> None:
        with pytest.raises(BadInput, match="reward is 'soon'; allowed: wait, later"):
            BackendEnv(ToyBackend(), PLAN, reward="soon")  # type: ignore[arg-type]

    def test_a_backend_that_can_pause_skips_nothing(self) -> None:
        class Pausing(ToyBackend):
            """The toy's clock stands while it is paused: outcomes are brought forward instead."""

            paused = False

            def pause(self) -> None:
                self.paused = True

            def resume(self) -> None:
                self.paused = False

            def poll(self, timeout_s: float) -> list[Any]:
                if not self.paused:
                    return super().poll(timeout_s)
                finished, self._queues.finished = self._queues.finished, []
                return [outcome for _, outcome in sorted(finished, key=lambda pair: pair[0])]

        env = BackendEnv(Pausing(), PLAN, reward="wait")
        steps = play(env)
        assert len(steps) == PLAN.epochs
        assert [list(step[4]["rewards"]) for step in steps] == [[epoch] for epoch in range(PLAN.epochs)]
        env.close()


class TestParallel:
    def test_pettingzoo_s_checker_has_nothing_to_say(self, when: Any) -> None:
        parallel_api_test(ParallelBackendEnv(ToyBackend(), PLAN, reward=when), num_cycles=20)

    def test_seeds_decide(self, when: Any) -> None:
        parallel_seed_test(lambda: ParallelBackendEnv(ToyBackend(), PLAN, reward=when), num_cycles=6)

    def test_a_lost_device_s_agent_is_truncated_and_stays_out(self) -> None:
        env = ParallelBackendEnv(ToyBackend(), replace(PLAN, absent=frozenset({(2, "pi-2")})), reward="later")
        env.reset(seed=0)
        ends, agents = [], []
        while env.agents:
            *_, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, 1))
            assert not any(terminated.values())
            ends.append([name for name, ended in truncated.items() if ended])
            agents.append(list(env.agents))
        assert ends == [[], ["pi-2"], [], [], [], ["pi-1", "pi-3"]]
        assert agents[1:5] == [["pi-1", "pi-3"]] * 4
        env.close()

    def test_it_is_the_joint_environment_seen_one_by_one(self) -> None:
        joint = BackendEnv(ToyBackend(), PLAN, reward="later")
        parallel = ParallelBackendEnv(ToyBackend(), PLAN, reward="later")
        together, _ = joint.reset(seed=3)
        apart, _ = parallel.reset(seed=3)
        width = len(DEVICE_FEATURES) + 2
        for _ in range(PLAN.epochs):
            for slot, view in enumerate(apart.values()):
                assert view[:width].tolist() == together[slot * width : (slot + 1) * width].tolist()
                assert view[width:].tolist() == together[3 * width :].tolist()
            together, reward, *_ = joint.step(np.array([0, 1, 2]))
            apart, rewards, *_ = parallel.step({"pi-1": 0, "pi-2": 1, "pi-3": 2})
            assert set(rewards.values()) == {reward}
        joint.close()
        parallel.close()

    def test_own_rewards_add_up_to_the_shared_one(self) -> None:
        shared = ParallelBackendEnv(ToyBackend(), PLAN)
        own = ParallelBackendEnv(ToyBackend(), PLAN, rewards="own")
        for env in (shared, own):
            env.reset(seed=1)
        while own.agents:
            actions = dict.fromkeys(own.agents, 2)
            _, of_all, *_ = shared.step(actions)
            _, of_each, *_, infos = own.step(actions)
            assert sum(of_each.values()) == pytest.approx(of_all["pi-1"])
            assert infos["pi-1"]["executed"] == 2
        shared.close()
        own.close()


def test_the_toy_s_outcomes_are_all_known_kinds() -> None:
    """What the tests above rely on: nothing that offloads in the plain plan is refused or lost."""
    with opened(ToyBackend(), PLAN) as backend:
        backend.reset(0)
        for _ in range(PLAN.epochs):
            backend.observe()
            backend.submit(Decision.from_actions(np.ones(3, np.int32), backend.observation_spec(PLAN)))
        backend.observe()
        outcomes = []
        while late := backend.poll(np.inf):
            outcomes += late
    assert {one.outcome for one in outcomes} == {Outcome.DONE}
