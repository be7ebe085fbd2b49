"""What each heuristic decides, against answers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebed.policies import make_policy
from edgebed.types import Decision, Observation, ObservationSpec, Site

DEVICE = {"waiting_tasks": 1, "waiting_cycles": 1e9, "device_speed_hz": 1e9}
SERVER = {"workers": 1, "worker_speed_hz": 1e9}


def spec_of(devices: int, servers: int = 1, channels: int = 1) -> ObservationSpec:
    slots = tuple(f"pi-{number}" for number in range(devices))
    return ObservationSpec(slots, tuple(f"edge-{number}" for number in range(servers)), channels)


def observe(
    spec: ObservationSpec,
    devices: dict[str, float] | list[dict[str, float]],
    servers: dict[str, float] | list[dict[str, float]],
    channels: dict[str, float] | None = None,
) -> Observation:
    """Everyone present, everything allowed; one dictionary for all, or one each."""
    observation = replace(Observation.empty(spec), present=np.ones(len(spec.slots), np.bool_))
    for slot in range(len(spec.slots)):
        for name, value in (devices if isinstance(devices, dict) else devices[slot]).items():
            observation.values[slot, spec.device_index(name)] = value
    for server in range(len(spec.servers)):
        for name, value in (servers if isinstance(servers, dict) else servers[server]).items():
            observation.server[spec.server_index(name, server)] = value
        for channel in range(spec.channels):
            for name, value in (channels or {}).items():
                observation.server[spec.channel_index(name, server, channel)] = value
    return observation


def decide(name: str, spec: ObservationSpec, observation: Observation, **options: Any) -> Decision:
    policy = make_policy(name, spec, options)
    policy.reset(5)
    return policy.decide(observation)


def actions(decision: Decision, spec: ObservationSpec) -> list[int]:
    offload = 1 + decision.server * spec.channels + decision.channel
    return [int(action) for action in np.where(decision.site == Site.EDGE, offload, 0)]


class TestAllLocal:
    def test_runs_everything_on_the_devices_at_full_clock(self) -> None:
        spec = spec_of(3)
        decision = decide("all_local", spec, observe(spec, DEVICE, SERVER))
        assert decision.site.tolist() == [0, 0, 0]
        assert decision.cpu_fraction.tolist() == [1, 1, 1]


class TestAllEdge:
    @pytest.mark.parametrize(
        ("servers", "channels", "expected"),
        [
            (1, 1, [1, 1, 1, 1, 1]),
            (1, 2, [1, 2, 1, 2, 1]),
            (2, 1, [1, 2, 1, 2, 1]),
            (2, 2, [1, 2, 3, 4, 1]),
        ],
    )
    def test_device_i_takes_channel_i_mod_c_and_servers_take_turns(
        self, servers: int, channels: int, expected: list[int]
    ) -> None:
        spec = spec_of(5, servers, channels)
        assert actions(decide("all_edge", spec, observe(spec, DEVICE, SERVER)), spec) == expected

    def test_devices_of_a_lost_server_keep_their_channel_on_another(self) -> None:
        spec = spec_of(4, servers=2, channels=2)
        observation = observe(spec, DEVICE, SERVER)
        observation.allowed_actions[:, 1:3] = False
        assert actions(decide("all_edge", spec, observation), spec) == [3, 4, 3, 4]

    def test_stays_local_where_no_server_is_left(self) -> None:
        spec = spec_of(2)
        observation = observe(spec, DEVICE, SERVER)
        observation.allowed_actions[0, 1:] = False
        assert actions(decide("all_edge", spec, observation), spec) == [0, 1]


class TestUniformRandom:
    @pytest.mark.parametrize(("p", "expected"), [(0.0, 0.0), (0.25, 0.25), (0.5, 0.5), (1.0, 1.0)])
    def test_offloads_with_probability_p(self, p: float, expected: float) -> None:
        spec = spec_of(20, servers=2, channels=2)
        policy = make_policy("uniform_random", spec, {"p": p})
        policy.reset(1)
        observation = observe(spec, DEVICE, SERVER)
        sites = np.array([policy.decide(observation).site for _ in range(500)])
        assert abs(sites.mean() - expected) <= 5 * np.sqrt(p * (1 - p) / sites.size)

    def test_channels_and_servers_are_drawn_uniformly_among_the_allowed(self) -> None:
        spec = spec_of(20, servers=2, channels=2)
        policy = make_policy("uniform_random", spec, {"p": 1.0})
        policy.reset(1)
        observation = observe(spec, DEVICE, SERVER)
        observation.allowed_actions[:, 2] = False
        drawn = np.concatenate([actions(policy.decide(observation), spec) for _ in range(500)])
        counts = np.bincount(drawn, minlength=5)
        assert counts[[0, 2]].tolist() == [0, 0]
        assert np.abs(counts[[1, 3, 4]] / len(drawn) - 1 / 3).max() <= 5 * np.sqrt(2 / 9 / len(drawn))

    def test_what_a_device_is_dealt_does_not_depend_on_who_else_there_is(self) -> None:
        crowd, alone = spec_of(6, channels=3), ObservationSpec(("pi-4",), ("edge-0",), 3)
        policies = [make_policy("uniform_random", spec) for spec in (crowd, crowd, alone)]
        for policy in policies:
            policy.reset(9)
        everyone = observe(crowd, DEVICE, SERVER)
        only_four = replace(everyone, present=np.arange(6) == 4)
        for _ in range(50):
            dealt = policies[0].decide(everyone).slot(4)
            assert dealt == policies[1].decide(only_four).slot(4)
            assert dealt == policies[2].decide(observe(alone, DEVICE, SERVER)).slot(0)

    def test_devices_and_seeds_differ(self) -> None:
        spec = spec_of(2)
        policy = make_policy("uniform_random", spec)
        observation = observe(spec, DEVICE, SERVER)
        episodes = []
        for seed in (0, 1):
            policy.reset(seed)
            episodes.append([policy.decide(observation).site.tolist() for _ in range(64)])
        first, second = np.array(episodes[0]), np.array(episodes[1])
        assert (first[:, 0] != first[:, 1]).any()
        assert (first != second).any()


class TestQueueThreshold:
    @pytest.mark.parametrize(
        ("device_s", "server_s", "threshold_s", "expected"),
        [
            (0.0, 0.0, 0.0, 0),
            (0.2, 0.1, 0.0, 1),
            (0.2, 0.1, 0.25, 0),
            (0.5, 0.125, 0.25, 1),
            (0.5, 0.25, 0.25, 0),
            (0.0, 0.1, -0.5, 1),
        ],
    )
    def test_offloads_when_the_difference_exceeds_the_threshold(
        self, device_s: float, server_s: float, threshold_s: float, expected: int
    ) -> None:
        spec = spec_of(1)
        observation = observe(spec, {"device_queue_delay_s": device_s}, {"queue_delay_s": server_s})
        assert actions(decide("queue_threshold", spec, observation, threshold_s=threshold_s), spec) == [expected]

    def test_takes_the_shortest_queue_and_its_own_channel(self) -> None:
        spec = spec_of(3, servers=2, channels=2)
        observation = observe(spec, {"device_queue_delay_s": 1.0}, [{"queue_delay_s": 0.5}, {"queue_delay_s": 0.25}])
        assert actions(decide("queue_threshold", spec, observation), spec) == [3, 4, 3]

    def test_a_masked_server_or_channel_is_passed_over(self) -> None:
        spec = spec_of(2, servers=2, channels=2)
        observation = observe(spec, {"device_queue_delay_s": 1.0}, [{"queue_delay_s": 0.5}, {"queue_delay_s": 0.25}])
        observation.allowed_actions[0, 3:] = False
        observation.allowed_actions[1, 4] = False
        assert actions(decide("queue_threshold", spec, observation), spec) == [1, 3]


class TestGreedyLatency:
    @pytest.mark.parametrize(
        ("case", "device", "server", "channel", "expected"),
        [
            ("a tie stays local", {}, {}, {}, 0),
            ("a faster worker", {}, {"worker_speed_hz": 1.1e9}, {}, 1),
            ("a faster worker behind a queue", {}, {"worker_speed_hz": 2e9, "queue_delay_s": 0.5}, {}, 0),
            ("a shorter one", {}, {"worker_speed_hz": 2e9, "queue_delay_s": 0.4}, {}, 1),
            ("a busy device", {"device_queue_delay_s": 0.1}, {}, {}, 1),
            ("upload of 0.5 s", {"waiting_bytes": 5e4, "link_rate_bps": 8e5}, {"worker_speed_hz": 2e9}, {}, 0),
            ("upload of 0.4 s", {"waiting_bytes": 4e4, "link_rate_bps": 8e5}, {"worker_speed_hz": 2e9}, {}, 1),
            (
                "behind other uploads",
                {"waiting_bytes": 4e4, "uplink_queue_bytes": 1e4, "link_rate_bps": 8e5},
                {"worker_speed_hz": 2e9},
                {},
                0,
            ),
            ("a far server", {"round_trip_s": 0.5}, {"worker_speed_hz": 2e9}, {}, 0),
            ("link not known: fast", {"waiting_bytes": 1e9}, {"worker_speed_hz": 2e9}, {}, 1),
            ("a slow channel", {"waiting_bytes": 5e4}, {"worker_speed_hz": 2e9}, {"channel_rate_bps": 8e5}, 0),
            ("a free channel", {"waiting_bytes": 4e4}, {"worker_speed_hz": 2e9}, {"channel_rate_bps": 8e5}, 1),
            (
                "a crowded one",
                {"waiting_bytes": 4e4},
                {"worker_speed_hz": 2e9},
                {"channel_rate_bps": 8e5, "channel_uploads": 1},
                0,
            ),
            ("one task on two workers", {}, {"workers": 2, "worker_speed_hz": 0.75e9}, {}, 0),
            ("two tasks on two workers", {"waiting_tasks": 2}, {"workers": 2, "worker_speed_hz": 0.75e9}, {}, 1),
            ("worker speed not known: as fast", {"device_queue_delay_s": 0.1}, {"worker_speed_hz": 0}, {}, 1),
            ("device speed not known: as fast", {"device_speed_hz": 0}, {"worker_speed_hz": 5e9}, {}, 0),
        ],
    )
    def test_one_device(
        self, case: str, device: dict[str, float], server: dict[str, float], channel: dict[str, float], expected: int
    ) -> None:
        spec = spec_of(1)
        observation = observe(spec, DEVICE | device, SERVER | server, channel)
        assert actions(decide("greedy_latency", spec, observation), spec) == [expected], case

    def test_each_choice_lengthens_the_server_s_queue_for_the_next(self) -> None:
        spec = spec_of(4)
        observation = observe(spec, DEVICE, SERVER | {"worker_speed_hz": 2.5e9})
        # Served after 0.4 s, 0.8 s; a third would wait until 1.2 s and has 1.0 s at home.
        assert actions(decide("greedy_latency", spec, observation), spec) == [1, 1, 0, 0]

    def test_more_workers_serve_more(self) -> None:
        spec = spec_of(4)
        observation = observe(spec, DEVICE, SERVER | {"worker_speed_hz": 2.5e9, "workers": 2})
        # Each choice adds 0.2 s: 0.4, 0.6, 0.8, and 1.0 s is no gain.
        assert actions(decide("greedy_latency", spec, observation), spec) == [1, 1, 1, 0]

    def test_each_choice_crowds_its_channel_for_the_next(self) -> None:
        spec = spec_of(3, channels=2)
        device = DEVICE | {"waiting_bytes": 5e4}
        observation = observe(spec, device, SERVER | {"worker_speed_hz": 1e12}, {"channel_rate_bps": 8e5})
        # An upload takes 0.5 s alone and 1.0 s shared, which is no gain over the device.
        assert actions(decide("greedy_latency", spec, observation), spec) == [1, 2, 0]

    def test_who_gains_most_chooses_first(self) -> None:
        spec = spec_of(3)
        devices = [DEVICE | {"device_speed_hz": speed} for speed in (1e9, 0.25e9, 0.9e9)]
        observation = observe(spec, devices, SERVER | {"worker_speed_hz": 1e9 / 0.9})
        assert actions(decide("greedy_latency", spec, observation), spec) == [0, 1, 0]

    def test_a_device_with_nothing_waiting_takes_no_one_s_place(self) -> None:
        spec = spec_of(2)
        devices = [{"device_queue_delay_s": 9.0, "device_speed_hz": 1e9}, DEVICE]
        observation = observe(spec, devices, SERVER | {"worker_speed_hz": 1.1e9}, {"channel_rate_bps": 1e6})
        assert actions(decide("greedy_latency", spec, observation), spec)[1] == 1

    def test_an_absent_device_takes_no_one_s_place(self) -> None:
        spec = spec_of(2)
        observation = observe(spec, DEVICE, SERVER | {"worker_speed_hz": 1.5e9})
        observation.present[0] = False
        assert actions(decide("greedy_latency", spec, observation), spec) == [0, 1]

    def test_a_masked_server_is_passed_over_although_it_is_the_fastest(self) -> None:
        spec = spec_of(1, servers=2)
        observation = observe(spec, DEVICE, [SERVER | {"worker_speed_hz": speed} for speed in (9e9, 3e9)])
        assert actions(decide("greedy_latency", spec, observation), spec) == [1]
        observation.allowed_actions[0, 1] = False
        assert actions(decide("greedy_latency", spec, observation), spec) == [2]

    @given(
        device=st.fixed_dictionaries(
            {
                "waiting_cycles": st.floats(1e6, 1e10, width=32),
                "waiting_bytes": st.floats(0, 1e7, width=32),
                "device_queue_delay_s": st.floats(0, 10, width=32),
                "link_rate_bps": st.floats(2**17, 2**30, width=32),
                "round_trip_s": st.floats(0, 1, width=32),
            }
        ),
        queues_s=st.lists(st.floats(0, 10, width=32), min_size=3, max_size=3),
    )
    def test_a_lone_device_takes_the_least_of_the_formula(
        self, device: dict[str, float], queues_s: list[float]
    ) -> None:
        spec = spec_of(1, servers=3)
        servers = [{"workers": 1, "worker_speed_hz": 2**31, "queue_delay_s": queue_s} for queue_s in queues_s]
        full = {"waiting_tasks": 1, "device_speed_hz": 2**29} | device
        (chosen,) = actions(decide("greedy_latency", spec, observe(spec, full, servers)), spec)
        upload_s = 8 * device["waiting_bytes"] / device["link_rate_bps"] + device["round_trip_s"]
        edge_s = [upload_s + queue_s + device["waiting_cycles"] / 2**31 for queue_s in queues_s]
        predicted_s = [device["device_queue_delay_s"] + device["waiting_cycles"] / 2**29, *edge_s]
        assert predicted_s[chosen] <= min(predicted_s) * (1 + 1e-9)
