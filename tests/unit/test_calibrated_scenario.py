"""The scenario ``calibrated:PROFILE``: the contract, the hosts' spaces, and what can be computed by hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgebed.errors import BadInput, SchemaMismatch
from edgebed.policies import make_policy
from edgebed.simulation.calibrated import CalibratedScenario, make
from edgebed.simulation.calibrated_tasks import Arrivals, draw_tasks
from edgebed.simulation.hosts_layout import layout_of
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.testbed.profile import (
    Decider,
    DeviceProfile,
    Link,
    Power,
    Processor,
    Profile,
    ServerProfile,
    ServiceTime,
    Source,
    write_profile,
)
from edgebed.simulation.testing import check_scenario

POWER = Power(cores=4, idle_w=2.0, max_w=6.0, transmit_w=1.0, source="cpu-model/made-up")


def profile(**changes: Any) -> Profile:
    """A testbed of two devices and a server, everything constant unless changed."""
    devices = {
        name: DeviceProfile(
            board="raspberry-pi-4b",
            compute=ServiceTime(overhead_s=0.01, seconds_per_frame=frame_s),
            power=POWER,
            link=Link(paced_bps=8e6, uplink_delay_s=[0.002], downlink_s=[0.003]),
        )
        for name, frame_s in (("pi-1", 0.05), ("pi-2", 0.1))
    }
    server = ServerProfile(compute=ServiceTime(seconds_per_frame=0.02), power=POWER, workers=1, queue_tasks=64)
    made = Profile(
        workload="digits",
        cycles_per_frame=1e7,
        frame_bytes=[10_000.0],
        devices=devices,
        servers={"edge": server},
        deciders={"controller": Decider(delay_s=[0.004]), "device": Decider()},
        source=Source(kind="calibrated", conditions={"epochs": 20, "deadline_s": 0.6, "rate_per_s": 1.0}),
    )
    return msgspec.structs.replace(made, **changes)


def noisy() -> Profile:
    """The same testbed with everything that draws: ratios, delays, drift, shared processors."""
    made = profile(drift=[0.9, 1.0, 1.3], processors={"machine": Processor(cores=2, per_other=0.1)})
    for host in (*made.devices.values(), *made.servers.values()):
        host.compute.ratio, host.processor = [0.7, 1.0, 1.6], "machine"
    for device in made.devices.values():
        device.link.uplink_delay_s, device.link.time_ratio = [0.001, 0.01], [1.0, 1.2]
    return made


@pytest.mark.parametrize(
    "parameters",
    [{"epochs": 10}, {"n": 5, "epochs": 6, "channels": 2, "channel_rate_bps": 1e7, "energy_weight": 0.1}],
    ids=str,
)
def test_the_contract_is_kept(parameters: dict[str, Any]) -> None:
    check_scenario(partial(CalibratedScenario, noisy()), parameters)


def test_observations_and_actions_are_those_of_hosts() -> None:
    scenario = CalibratedScenario(profile(), {"channels": 2})
    layout = layout_of(scenario.observation_spec)
    assert scenario.observation_spec.slots == ("pi-1", "pi-2")
    assert scenario.device_features == layout.device_features
    assert scenario.shared_features == layout.shared_features
    assert scenario.actions == layout.actions
    assert scenario.actions.choices == ("device", "server0.channel0", "server0.channel1")


def test_conditions_of_the_runs_are_the_defaults() -> None:
    assert CalibratedScenario(profile()).steps == 20
    assert CalibratedScenario(profile(), {"epochs": 3}).steps == 3


def test_devices_come_in_turn_when_more_are_wanted_than_were_measured() -> None:
    scenario = CalibratedScenario(profile(), {"n": 5})
    assert scenario.observation_spec.slots == ("pi-1", "pi-2", "pi-1.2", "pi-2.2", "pi-1.3")
    scenario.reset(np.array([1]))
    speed = scenario.observe().devices[0, :, [each.name for each in scenario.device_features].index("device_speed_hz")]
    assert speed.tolist() == pytest.approx([2e8, 1e8, 2e8, 1e8, 2e8])


def test_latency_of_lone_tasks_is_the_sum_of_their_stages() -> None:
    """Tasks are so rare that none waits for another: tick, decision, then either site's own time."""
    parameters = {"rate_per_s": 0.01, "frames_low": 3, "frames_high": 3, "epochs": 2000, "epoch_s": 0.5}
    for action, own_s in ((0, (0.16, 0.31)), (1, (_edge_s(3), _edge_s(3)))):
        scenario = CalibratedScenario(profile(), parameters)
        scenario.reset(np.array([7]))
        while not scenario.step(np.full((1, 2), action)).truncated.all():
            pass
        arrivals = Arrivals(0.01, 3, 3, 2000, 0.5)
        tasks = draw_tasks(7, scenario.observation_spec.slots, arrivals, scenario.testbed)
        waited_s = np.ceil(tasks.arrived_s / 0.5) * 0.5 - tasks.arrived_s
        expected_s = waited_s + 0.004 + np.array(own_s)[tasks.device]
        metrics = scenario.metrics()
        assert metrics["tasks"][0] == len(expected_s) > 10
        assert metrics["latency_s"][0] == pytest.approx(expected_s.mean(), rel=1e-9)
        assert metrics["miss_rate"][0] == pytest.approx((expected_s > 0.6).mean())
        assert metrics["offload_share"][0] == action


def _edge_s(frames: int) -> float:
    sent_bytes = 4 + frames * (4 + 10_000)
    return 8 * sent_bytes / 8e6 + 0.002 + 0.02 * frames + 0.003


def test_energy_is_power_times_busy_time_and_time_on_air() -> None:
    parameters = {"rate_per_s": 0.5, "frames_low": 2, "frames_high": 2, "energy_weight": 1.0, "latency_weight": 0.0}
    scenario = CalibratedScenario(profile(), {**parameters, "miss_penalty": 0.0})
    scenario.reset(np.arange(3))
    while not scenario.step(np.full((3, 2), 1)).truncated.all():
        pass
    metrics = scenario.metrics()
    expected_j = (6.0 - 2.0) / 4 * 0.04 + 1.0 * (8 * (4 + 2 * 10_004) / 8e6 + 0.002)
    assert metrics["energy_j"].tolist() == pytest.approx([expected_j] * 3)
    assert metrics["cost_per_task"].tolist() == pytest.approx([expected_j] * 3)


def test_rewards_add_up_to_the_costs_where_nothing_comes_in_between() -> None:
    """On devices a later decision cannot change an earlier task, so the reward at once is the whole truth."""
    scenario = CalibratedScenario(profile(), {"rate_per_s": 3.0, "epochs": 30})
    scenario.reset(np.arange(4))
    total, per_device = np.zeros(4), np.zeros((4, 2))
    for _ in range(30):
        step = scenario.step(np.zeros((4, 2), int))
        total += step.reward
        per_device += step.costs
    metrics = scenario.metrics()
    assert (-total).tolist() == pytest.approx((metrics["cost_per_task"] * metrics["tasks"]).tolist())
    assert per_device.sum(axis=1).tolist() == pytest.approx((-total).tolist())


def test_hosts_are_faster_and_slower_in_some_episodes_and_observations_show_it() -> None:
    """Tasks are so rare that hardly one waits for another; each host's computing alone changes, by up to a half."""
    parameters = {"rate_per_s": 0.01, "frames_low": 3, "frames_high": 3, "epochs": 800, "speed_range": 1.5}
    seeds = np.arange(40)
    scenario = CalibratedScenario(profile(), parameters)
    own = CalibratedScenario(profile(), parameters | {"speed_range": 1.0})
    slowness = np.stack([scenario._slowness(int(seed)) for seed in seeds])
    assert slowness.shape == (40, 3)
    assert 1 / 1.5 <= slowness.min() < 0.75
    assert 1.35 < slowness.max() <= 1.5
    assert abs(np.log(slowness).mean()) < 0.1
    for site, compute_s in ((0, np.array([0.16, 0.31])), (1, np.array([0.06, 0.06]))):
        latency_s = []
        for each in (scenario, own):
            each.reset(seeds)
            while not each.step(np.full((40, 2), site)).truncated.all():
                pass
            latency_s.append(each.metrics()["latency_s"])
        added_s = (slowness[:, :2] if site == 0 else slowness[:, 2:] * np.ones(2)) * compute_s - compute_s
        longer_s = latency_s[0] - latency_s[1]
        between = (added_s.min(axis=1) - 1e-9 <= longer_s) & (longer_s <= added_s.max(axis=1) + 1e-9)
        assert np.mean(between) >= 0.9  # of two tasks that come at once one does wait
    name = [each.name for each in scenario.shared_features].index("server0.worker_speed_hz")
    seen = scenario.observe().shared[:, name]
    assert seen.tolist() == pytest.approx((1e7 / (0.02 * slowness[:, 2])).tolist(), rel=1e-5)


def test_hosts_show_of_their_processors_what_they_showed_in_the_runs() -> None:
    made = profile(processors={"machine": Processor(cores=2)})
    for host in (*made.devices.values(), *made.servers.values()):
        host.cpu_resting, host.cpu_working, host.processor = [0.1, 0.3], [0.5, 1.2], "machine"
    alone = profile()
    alone.devices["pi-1"].cpu_working = [0.5, 0.7]
    for each, is_shared in ((made, True), (alone, False)):
        scenario = CalibratedScenario(each, {"rate_per_s": 3.0})
        names = [feature.name for feature in scenario.device_features]
        cpu, delay = names.index("device_cpu"), names.index("device_queue_delay_s")
        seen = shown_under_all_local(scenario)
        assert seen.tolist() == shown_under_all_local(scenario).tolist()
        is_working = seen[..., delay] > 0
        assert 0 < is_working.mean() < 1
        first = seen[..., 0, cpu][is_working[..., 0]]
        assert first.min() >= 0.5
        assert len(np.unique(first)) > 10
        if is_shared:
            assert seen[..., cpu][~is_working].max() <= 0.3
            assert first.max() == 1.0
            both = is_working.all(axis=2)
            assert seen[..., 0, cpu][both].tolist() == seen[..., 1, cpu][both].tolist()
        else:
            assert first.max() <= 0.7
            assert set(np.unique(seen[..., 0, cpu][~is_working[..., 0]])) == {0.0}


def shown_under_all_local(scenario: CalibratedScenario) -> NDArray[np.float32]:
    """Devices' features at 20 ticks of three episodes, ``[20, 3, devices, features]``."""
    scenario.reset(np.arange(3))
    shown = []
    for _ in range(20):
        shown.append(scenario.observe().devices)
        scenario.step(np.zeros((3, scenario.devices), int))
    return np.stack(shown)


def test_heuristics_are_the_hosts_own_policies() -> None:
    scenario = CalibratedScenario(noisy(), {"rate_per_s": 4.0})
    heuristic = scenario.heuristics["greedy_latency"](scenario)
    policy = make_policy("greedy_latency", scenario.observation_spec)
    scenario.reset(np.array([3, 4]))
    seen = set()
    for _ in range(20):
        actions = heuristic.act()
        values, server = scenario.hosts_values()
        for row in range(2):
            decision = policy.decide(scenario.observation(row, values, server))
            assert (decision.site > 0).tolist() == (actions[row] > 0).tolist()
        seen |= set(actions.ravel().tolist())
        scenario.step(actions)
    assert seen == {0, 1}


def test_a_fork_of_the_queues_goes_on_apart_and_alike() -> None:
    scenario = CalibratedScenario(noisy(), {"rate_per_s": 6.0, "epochs": 20, "channels": 2, "channel_rate_bps": 1e6})
    scenario.reset(np.array([5]))
    rng, ended = np.random.default_rng(0), 0
    for _ in range(19):
        scenario.step(rng.integers(0, 3, (1, 2)))
        pipeline = scenario._episodes[0].pipeline
        fork = pipeline.fork()
        first = fork.advance(math.inf)
        second = pipeline.fork().advance(math.inf)
        ended += len(first)
        assert first.task.tolist() == second.task.tolist()
        assert first.stages.tolist() == second.stages.tolist()
        assert pipeline.now_s < fork.now_s or not len(first)
    assert ended > 20


def test_a_profile_s_file_makes_the_scenario(tmp_path: Path) -> None:
    write_profile(noisy(), tmp_path / "profile.yaml")
    scenario = make_scenario(f"calibrated:{tmp_path / 'profile.yaml'}", {"n": 3})
    assert scenario.devices == 3
    direct = CalibratedScenario(noisy(), {"n": 3})
    for one in (scenario, direct):
        one.reset(np.array([9]))
    assert scenario.step(np.ones((1, 3), int)).reward == direct.step(np.ones((1, 3), int)).reward


def test_wrong_files_and_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a profile's file is needed"):
        make_scenario("calibrated:")
    with pytest.raises(BadInput, match=r"nowhere\.yaml"):
        make_scenario("calibrated:nowhere.yaml")
    (tmp_path / "old.yaml").write_text("profile_schema: 99\n")
    with pytest.raises(SchemaMismatch, match="99"):
        make(tmp_path / "old.yaml")
    with pytest.raises(BadInput, match="frames_high"):
        CalibratedScenario(profile(), {"frames_low": 5, "frames_high": 4})
    with pytest.raises(BadInput, match="rate_per_s"):
        CalibratedScenario(profile(), {"rate_per_s": -1.0})
    with pytest.raises(BadInput, match="speed_range"):
        CalibratedScenario(profile(), {"speed_range": 0.5})
