"""The cell-selection scenarios, on mobile-env itself."""

from __future__ import annotations

import numpy as np
import pytest

from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.cell_selection import CellSelection
from edgebed.simulation.scenarios.cell_selection_heuristics import clusters
from edgebed.simulation.testing import check_scenario

NAMES = ("cell-selection-lte", "cell-selection-5g")


def made(name: str = "cell-selection-lte", **parameters: object) -> CellSelection:
    scenario = make_scenario(name, parameters)
    assert isinstance(scenario, CellSelection)
    return scenario


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_contract(name: str) -> None:
    check_scenario(lambda parameters: make_scenario(name, parameters), {"steps": 12})


@pytest.mark.parametrize(("name", "speed"), [("cell-selection-lte", 1.5), ("cell-selection-5g", 9.0)])
def test_the_user_walks_at_most_its_speed(name: str, speed: float) -> None:
    scenario = made(name)
    scenario.reset([0, 1])
    strides = []
    for _ in range(20):
        before = scenario.position_m
        scenario.step(np.zeros((2, 1), np.int64))
        strides.append(np.hypot(*(scenario.position_m - before).T))
    assert np.max(strides) == pytest.approx(speed)


def test_utility_is_the_logarithm_of_the_rates_of_all_connections() -> None:
    """A connection adds ``w log2(1 + snr)``; ``10 log10(rate)``, within 20, scaled to [-1, 1]."""
    scenario = made()
    scenario.reset(np.arange(8))
    strongest = scenario.signal_to_noise.argmax(axis=1)
    rate_bps = 20e6 * np.log2(1 + scenario.signal_to_noise[np.arange(8), strongest])
    in_reach = scenario.reachable[np.arange(8), strongest]
    step = scenario.step((strongest + 1)[:, None])
    utility = np.where(in_reach, np.minimum(10 * np.log10(rate_bps), 20.0) / 20.0, -1.0)
    assert step.reward == pytest.approx(utility)
    assert in_reach.any()
    assert step.costs[:, 0] == pytest.approx((1 - utility) / 2)


def test_toggling_twice_disconnects() -> None:
    scenario = made()
    scenario.reset(np.arange(8))
    row = int(np.flatnonzero(scenario.reachable.any(axis=1))[0])
    station = int(scenario.signal_to_noise[row].argmax())
    toggle = np.zeros((8, 1), np.int64)
    toggle[row] = station + 1
    scenario.step(toggle)
    assert scenario.connected[row].tolist() == [other == station for other in range(7)]
    assert scenario.step(toggle).reward[row] == -1.0
    assert not scenario.connected[row].any()


def test_the_rules_in_the_order_that_one_expects() -> None:
    reward = {}
    for name in ("full", "strongest_snr", "fixed", "uniform_random"):
        scenario = made()
        scenario.reset(np.arange(6))
        rule = scenario.heuristics[name](scenario)
        reward[name] = sum(scenario.step(rule.act()).reward.mean() for _ in range(scenario.steps))
    assert reward["full"] >= reward["strongest_snr"] > reward["uniform_random"]
    assert reward["strongest_snr"] > reward["fixed"]


def test_clusters_are_near_and_cover_every_station_once() -> None:
    members = clusters(np.array([[0.0, 0.0], [9.0, 0.0], [1.0, 0.0], [10.0, 0.0], [50.0, 0.0]]), 2)
    assert members.tolist() == [
        [True, False, True, False, False],
        [False, True, False, True, False],
        [False, False, False, False, True],
    ]
