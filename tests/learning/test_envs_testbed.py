"""One experiment's hosts behind environments: simulated, calibrated and real ones have the same spaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from edgebed.envs.backend import BackendEnv, ParallelBackendEnv
from edgebed.envs.gym import GymScenario
from edgebed.envs.parallel import ParallelScenario
from edgebed.envs.vector import VectorScenario
from edgebed.learning.choices import observation_inputs
from edgebed.policies.network import NetworkPolicy
from edgebed.policies.network_testing import random_network
from edgebed.policies.policy_file import save_policy
from edgebed.policies.testing import random_observation
from edgebed.simulation.network_actor import policy_file
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.testbed.profile import write_profile
from edgebed.trace.runs import Run
from edgebed.types import ObservationSpec
from orchestrator import simulated_profile
from orchestrator.backends.assembly import assemble
from orchestrator.backends.hosts import HostsBackend
from orchestrator.backends.replayed import ReplayedBackend
from orchestrator.backends.simulated import SimulatedBackend
from orchestrator.plan import create_run_folder, make_plan
from orchestrator.plan_file import Plan
from tests.integration.testbed import Testbed, clean_testbed
from tests.simulated_cells import cell, hosts_of, profile

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this package of theirs imports games of theirs in a way that they deprecate
    from pettingzoo.test import parallel_api_test, parallel_seed_test


@pytest.fixture
def calibrated(tmp_path: Path) -> str:
    """The name of a scenario that has the hosts of `cell`."""
    write_profile(profile(cell()), tmp_path / "hosts.yaml")
    return f"calibrated:{tmp_path / 'hosts.yaml'}"


class TestSimulated:
    def test_gymnasium_s_checker_has_nothing_to_say(self) -> None:
        env = BackendEnv(SimulatedBackend(hosts_of), cell())
        check_env(env, skip_render_check=True)
        env.close()

    @pytest.mark.parametrize("when", ["wait", "later"])
    def test_pettingzoo_s_checkers_have_nothing_to_say(self, when: Any, capsys: pytest.CaptureFixture[str]) -> None:
        def make() -> ParallelBackendEnv:
            return ParallelBackendEnv(SimulatedBackend(hosts_of), cell(), reward=when)

        parallel_api_test(make(), num_cycles=20)
        parallel_seed_test(make, num_cycles=8)

    def test_rewards_are_those_of_the_decisions(self) -> None:
        """All on the devices and all at the edge: what is cheaper on the bare backend is so here."""
        totals = {}
        for when in ("wait", "later"):
            for action in (0, 1):
                env = BackendEnv(SimulatedBackend(hosts_of), cell(), reward=when)  # type: ignore[arg-type]
                env.reset(seed=3)
                total, ended = 0.0, False
                while not ended:
                    _, reward, _, ended, _ = env.step(np.full(3, action))
                    total += reward
                totals[when, action] = total
                env.close()
        assert all(total < 0 for total in totals.values())
        assert totals["later", 0] != totals["later", 1]


class TestReplayed:
    @pytest.fixture
    def trace(self) -> Path:
        return Path("inventory/traces/local-day")

    @pytest.mark.parametrize("when", ["wait", "later"])
    def test_checkers_have_nothing_to_say(self, trace: Path, when: Any, capsys: pytest.CaptureFixture[str]) -> None:
        plan = ReplayedBackend(trace).plan_of()
        env = BackendEnv(ReplayedBackend(trace, any_seed=True), plan, reward=when)
        check_env(env, skip_render_check=True)
        env.close()
        parallel_api_test(ParallelBackendEnv(ReplayedBackend(trace, any_seed=True), plan, reward=when), num_cycles=20)

    def test_spaces_are_those_of_the_same_hosts_simulated(self, trace: Path) -> None:
        plan = ReplayedBackend(trace).plan_of()
        testbeds = simulated_profile.testbeds_of(Plan.from_yaml(trace / "plan.yaml"), None)
        replayed = BackendEnv(ReplayedBackend(trace, any_seed=True), plan)
        simulated = BackendEnv(SimulatedBackend(lambda _: next(iter(testbeds.values()))), plan)
        for env in (replayed, simulated):
            observation, _ = env.reset(seed=2)
            assert env.observation_space.contains(observation)
            env.close()
        assert replayed.observation_space == simulated.observation_space
        assert replayed.action_space == simulated.action_space
        assert replayed.describe() == simulated.describe()

    def test_an_episode_s_return_is_the_recorded_cost(self, trace: Path) -> None:
        """Everything at the edge, as one of the recorded cells had it."""
        env = BackendEnv(ReplayedBackend(trace), ReplayedBackend(trace).plan_of("all_edge", 2), reward="later")
        env.reset(seed=2)
        total, ended = 0.0, False
        while not ended:
            _, reward, _, ended, _ = env.step(np.ones(3, np.int64))
            total += reward
        env.close()
        (cost,) = Run(trace).query("SELECT sum(cost) FROM tasks WHERE cell_id = 'all_edge-s2'").rows[0]
        assert total == pytest.approx(-cost)


class TestCalibrated:
    def test_checkers_have_nothing_to_say(self, calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
        check_env(GymScenario(make_scenario(calibrated)), skip_render_check=True)
        parallel_api_test(ParallelScenario(make_scenario(calibrated)), num_cycles=20)

    def test_spaces_are_those_of_the_hosts_simulated_or_real(self, calibrated: str) -> None:
        scenario = GymScenario(make_scenario(calibrated))
        simulated = BackendEnv(SimulatedBackend(hosts_of), cell())
        # Real hosts, of which nothing is started: their spaces are known all the same.
        real = BackendEnv(HostsBackend(lambda: pytest.fail("nothing may be connected")), cell())
        assert scenario.observation_space == simulated.observation_space == real.observation_space
        assert scenario.action_space == simulated.action_space == real.action_space
        assert scenario.describe() == simulated.describe() == real.describe()
        alone = ParallelScenario(make_scenario(calibrated))
        alone_real = ParallelBackendEnv(HostsBackend(lambda: pytest.fail("nothing may be connected")), cell())
        for name in alone.possible_agents:
            assert alone.observation_space(name) == alone_real.observation_space(name)
            assert alone.action_space(name) == alone_real.action_space(name)
        assert alone.possible_agents == alone_real.possible_agents
        assert VectorScenario(make_scenario(calibrated), 2).single_observation_space == real.observation_space

    def test_shares_of_processors_are_scaled_by_a_tenth_at_least(self, tmp_path: Path) -> None:
        hosts = profile(cell())
        for each in [*hosts.devices.values(), *hosts.servers.values()]:
            each.compute.cpu_share = 0.1  # as boards that are emulated by waiting
            each.compute.seconds_per_frame *= 20.0  # busy at some ticks, and idle at others
        write_profile(hosts, tmp_path / "hosts.yaml")
        scenario = make_scenario(f"calibrated:{tmp_path / 'hosts.yaml'}")
        columns = [*scenario.device_features * scenario.devices, *scenario.shared_features]
        shares = [index for index, each in enumerate(columns) if each.name.endswith("_cpu")]
        free, held = (observation_inputs(scenario, scaling).scale[shares] for scaling in ("mostly_local", "heuristics"))
        assert free.min() < 0.1
        assert held.min() >= 0.1

    def test_a_policy_trained_there_decides_on_hosts_as_it_is(self, calibrated: str, tmp_path: Path) -> None:
        scenario = make_scenario(calibrated)
        width = len(GymScenario(scenario).describe())
        save_policy(tmp_path / "policy", policy_file(scenario, random_network([width, 16, 6], seed=1), learner="test"))
        spec = ObservationSpec(tuple(cell().devices), tuple(cell().servers), 1)
        policy = NetworkPolicy(spec, {"weights": str(tmp_path / "policy")})
        policy.decide(random_observation(spec, np.random.default_rng(0))).check(spec)


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with clean_testbed(tmp_path) as made:
        yield made


@pytest.mark.integration
def test_real_processes_behind_an_environment(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real edge server and real agents: two episodes, each step waits for the tasks that it decided."""
    monkeypatch.setenv("XDG_STATE_HOME", str(testbed.folder / "state"))
    testbed.write_files(epochs=5, timeouts={"decision_s": 10.0, "task_s": 20.0})
    folder = create_run_folder(make_plan(testbed.folder / "tiny.yaml", testbed.folder / "hosts.yaml"), testbed.runs)
    plan = Plan.from_yaml(folder / "plan.yaml")
    env = BackendEnv(HostsBackend(lambda: assemble(folder, plan)), plan.cells[0].spec(1, 1))
    try:
        for seed in (1, 2):
            observation, info = env.reset(seed=seed)
            assert env.observation_space.contains(observation)
            tasks, epochs, ended, present = 0, [info["epoch"]], False, [info["present"].all()]
            while not ended:
                observation, reward, terminated, ended, info = env.step(np.array([0, 1]))
                assert env.observation_space.contains(observation)
                assert not terminated
                assert reward <= 0
                assert (reward < 0) == (info["tasks"].sum() > 0)
                present.append(info["present"].all())
                tasks += info["tasks"].sum()
                epochs.append(info["epoch"])
            assert epochs[-1] == 5
            assert any(present), "a busy machine may miss an epoch now and then"
            assert tasks > 0
    finally:
        env.close()
