"""The ExplabOff scenarios: worked by hand, and the published anchor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput
from edgebed.simulation.random_streams import FloatArray
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.explaboff import Explaboff
from edgebed.types import Site

NO_SPREAD: dict[str, Any] = {"size_deviation": 0.0}
TWO_DEVICES: dict[str, Any] = {**NO_SPREAD, "task_means": [4.0, 2.0], "deadlines_s": [3.0, 3.0]}
"""Uploads take 0.301 and 0.302 s; switches 0.101 and 0.102 s for the first device, 0.103 and 0.104 s for the second."""


def made(name: str = "explaboff-3x2", **parameters: Any) -> Explaboff:
    scenario = make_scenario(name, parameters)
    assert isinstance(scenario, Explaboff)
    return scenario


def with_sizes(scenario: Explaboff, sizes: list[float]) -> None:
    """Reset it to the first seed whose devices have these sizes, in this order."""
    for seed in range(100):
        scenario.reset([seed])
        if np.allclose(scenario.size[0], sizes):
            return
    raise AssertionError(f"no seed gives {sizes}")


def actions(*pairs: tuple[int, float]) -> FloatArray:
    return np.array([pairs], dtype=np.float64)


def episode(scenario: Explaboff, name: str, seeds: FloatArray | range) -> FloatArray:
    scenario.reset(np.asarray(seeds, np.int64))
    policy = scenario.heuristics[name](scenario)
    return np.sum([scenario.step(policy.act()).reward for _ in range(scenario.steps)], axis=0)


class TestAnchor:
    def test_static_split_returns_what_was_published(self) -> None:
        scenario = made()
        returns = episode(scenario, "static_split", range(400))
        metrics = scenario.metrics()
        assert metrics["completed"].all()
        assert returns.mean() == pytest.approx(61.65, abs=0.1)
        assert metrics["cost_per_task"].mean() == pytest.approx(0.990, abs=0.001)

    @pytest.mark.parametrize("first", [0, 18, 1000])
    def test_it_does_so_from_fifty_episodes_on(self, first: int) -> None:
        assert episode(made(), "static_split", range(first, first + 50)).mean() == pytest.approx(61.65, abs=0.2)

    def test_all_local_misses_at_once_and_costs_ten_times_the_time(self) -> None:
        scenario = made(**NO_SPREAD)
        assert episode(scenario, "all_local", range(6)) == pytest.approx(-10.0 * (7.0 + 6.0 + 3.0) / 3.0)
        assert (scenario.step_index == 1).all()


class TestByHand:
    def test_two_devices_at_one_station(self) -> None:
        """Upload, switch, work; the second waits for the first: 0.301 + 0.101 + 0.6 = 1.002, + 0.103 + 0.3 = 1.405."""
        scenario = made(**TWO_DEVICES)
        with_sizes(scenario, [4.0, 2.0])
        step = scenario.step(actions((0, 0.9), (0, 0.9)))
        assert step.costs[0] == pytest.approx([1.002, 1.405])
        assert step.reward == 0.0
        assert scenario.backlog_s[0] == pytest.approx([0.101 + 0.6 + 0.103 + 0.3 - 1.0, 0.0])

    def test_the_second_step_starts_with_the_backlog_and_pays_no_switch(self) -> None:
        scenario = made(**TWO_DEVICES)
        with_sizes(scenario, [4.0, 2.0])
        scenario.step(actions((0, 0.9), (0, 0.9)))
        step = scenario.step(actions((0, 0.9), (0, 0.9)))
        assert step.costs[0] == pytest.approx([0.301 + 0.6, 0.301 + 0.6 + 0.3])
        assert scenario.backlog_s[0, 0] == pytest.approx(0.104 + 0.9 - 1.0)

    def test_a_long_backlog_delays_the_first(self) -> None:
        scenario = made(**TWO_DEVICES, step_s=0.1)
        with_sizes(scenario, [4.0, 2.0])
        scenario.step(actions((0, 0.9), (0, 0.9)))
        step = scenario.step(actions((0, 0.9), (0, 0.9)))
        assert step.costs[0, 0] == pytest.approx((1.104 - 0.1) + 0.6)

    def test_the_local_part_counts_when_it_takes_longer(self) -> None:
        scenario = made(**TWO_DEVICES)
        with_sizes(scenario, [4.0, 2.0])
        assert scenario.step(actions((1, 0.5), (1, 0.25))).costs[0] == pytest.approx([2.0, 1.5])

    def test_a_fraction_of_zero_uses_no_station(self) -> None:
        scenario = made(**TWO_DEVICES)
        with_sizes(scenario, [4.0, 2.0])
        step = scenario.step(actions((0, 0.9), (0, 0.0)))
        assert step.costs[0] == pytest.approx([1.002, 2.0])
        assert scenario.switch_s[0, 1, 0] == pytest.approx(0.103)
        assert scenario.switch_s[0, 0, 0] == 0.0

    def test_a_miss_ends_the_episode_with_the_times_of_those_that_missed(self) -> None:
        scenario = made(**TWO_DEVICES)
        with_sizes(scenario, [4.0, 2.0])
        step = scenario.step(actions((0, 0.0), (0, 0.0)))
        assert step.terminated.all()
        assert not step.truncated.any()
        assert step.reward == pytest.approx(-10.0 * 4.0 / 2.0)
        assert scenario.metrics()["completed"] == 0.0

    def test_the_last_step_of_a_completed_episode_earns_by_the_mean_time(self) -> None:
        scenario = made(**TWO_DEVICES, steps=2)
        with_sizes(scenario, [4.0, 2.0])
        first = scenario.step(actions((1, 0.9), (0, 0.9)))
        last = scenario.step(actions((1, 0.9), (0, 0.9)))
        mean_s = np.concatenate([first.costs, last.costs]).mean()
        assert last.reward == pytest.approx(60.0 / mean_s**2)
        assert last.truncated.all()
        assert not last.terminated.any()

    def test_a_miss_on_the_last_step_is_a_miss(self) -> None:
        scenario = made(**TWO_DEVICES, steps=1)
        with_sizes(scenario, [4.0, 2.0])
        step = scenario.step(actions((0, 0.0), (0, 0.9)))
        assert step.terminated.all()
        assert step.reward == pytest.approx(-10.0 * 4.0 / 2.0)


class TestDrawing:
    def test_profiles_are_permuted_alike_often(self) -> None:
        scenario = made(**NO_SPREAD)
        scenario.reset(np.arange(3000))
        seen, count = np.unique(scenario.size, axis=0, return_counts=True)
        assert len(seen) == 6
        assert count == pytest.approx(500, abs=75)

    def test_a_pair_of_seeds_has_opposite_permutations(self) -> None:
        scenario = made(**NO_SPREAD)
        scenario.reset(np.arange(20))
        assert (scenario.size[::2] == scenario.size[1::2, ::-1]).all()

    def test_sizes_are_normal_around_the_profile_and_redrawn(self) -> None:
        scenario = made()
        scenario.reset(np.arange(2000))
        first = scenario.size.copy()
        scenario.step(np.zeros((2000, 3, 2)))
        ended = scenario.size  # all missed: the sizes drawn with that step stay
        spread = np.sort(np.concatenate([first, ended]), axis=1) - np.array([3.0, 6.0, 7.0])
        assert spread.std() == pytest.approx(0.1, rel=0.03)
        assert spread.mean() == pytest.approx(0.0, abs=0.003)
        assert np.corrcoef((first - ended)[:, 0], first[:, 1] - ended[:, 1])[0, 1] == pytest.approx(0.0, abs=0.1)


class TestViews:
    def test_a_device_sees_the_sixteen_numbers_of_the_paper(self) -> None:
        scenario = made(**NO_SPREAD)
        with_sizes(scenario, [7.0, 6.0, 3.0])
        scenario.step(actions((0, 0.9), (1, 0.9), (1, 0.9)))
        names = [feature.name for feature in scenario.view_features]
        assert names == [
            *("capacity_1", "capacity_2", "capacity", "size", "deadline", "size_1", "size_2", "size_3"),
            *("is_1", "is_2", "is_3", "upload_1", "upload_2", "backlog_1", "backlog_2", "last_station"),
        ]
        left = (0.101 + 0.9 * 7.0 / 6.0 - 1.0) / 2.0, (0.104 + 0.106 + 0.9 * 9.0 / 12.0 - 1.0) / 2.0
        assert scenario.device_views()[0, 1] == pytest.approx(
            [0.5, 1.0, 1 / 12, 0.6, 1.806 / 2.5, 0.7, 0.6, 0.3, 0, 1, 0, 0.604, 0.604, left[0], max(0, left[1]), 1.0],
            rel=1e-6,
        )

    @pytest.mark.parametrize(
        ("name", "devices", "stations", "width"), [("explaboff-5x2", 5, 2, 20), ("explaboff-7x3", 7, 3, 27)]
    )
    def test_larger_ones_follow_the_pattern(self, name: str, devices: int, stations: int, width: int) -> None:
        scenario = made(name)
        scenario.reset([0])
        assert (scenario.devices, scenario.servers, len(scenario.view_features)) == (devices, stations, width)
        assert scenario.switch_s[0, -1, -1] == pytest.approx(0.101 + 0.001 * (devices * stations - 1))
        assert scenario.upload_s[-1] == pytest.approx(0.301 + 0.001 * (devices - 1))


class TestHeuristics:
    def test_greedy_ends_both_parts_together(self) -> None:
        scenario = made(**NO_SPREAD)
        with_sizes(scenario, [7.0, 6.0, 3.0])
        station, fraction = scenario.heuristics["greedy_latency"](scenario).act()[0, 0]
        start_s = 0.301 + 0.102
        assert station == 1
        assert fraction == pytest.approx((7.0 - start_s) / (7.0 + 7.0 / 12.0))
        assert (1 - fraction) * 7.0 == pytest.approx(start_s + fraction * 7.0 / 12.0)

    def test_only_the_published_size_has_the_static_rule(self) -> None:
        assert "static_split" in made().heuristics
        assert "static_split" not in made("explaboff-7x3").heuristics


def test_decisions_tell_device_edge_and_split_apart() -> None:
    scenario = made(**TWO_DEVICES)
    scenario.reset([0])
    decided = scenario.decisions(actions((1, 0.0), (0, 1.0)))
    assert decided.site.tolist() == [[Site.DEVICE, Site.EDGE]]
    assert scenario.decisions(actions((1, 0.5), (0, 1.0))).site[0, 0] == Site.SPLIT
    assert decided.server.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"task_means": [1.0, 2.0]}, "`task_means` has 2 entries and `deadlines_s` 3"),
        ({"station_capacities": [0.0, 1.0]}, "station_capacities"),
        ({"task_means": [1.0, 2.0, float("inf")]}, "task_means"),
        ({"steps": 0}, "steps"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        make_scenario("explaboff-3x2", parameters)


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (((0, 0.5), (2, 0.5), (1, 0.5)), "choices must be whole numbers from 0 to 1"),
        (((0, 0.5), (0.5, 0.5), (1, 0.5)), "choices must be whole numbers"),
        (((0, 0.5), (0, 1.5), (1, 0.5)), r"`edge_fraction` must lie in \[0, 1\]; got numbers from 0.5 to 1.5"),
        (((0, 0.5), (0, np.nan), (1, 0.5)), "`edge_fraction` must lie"),
    ],
)
def test_bad_actions_are_refused(pairs: tuple[tuple[int, float], ...], text: str) -> None:
    scenario = made()
    scenario.reset([0])
    with pytest.raises(BadInput, match=text):
        scenario.step(actions(*pairs))
