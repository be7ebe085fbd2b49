"""Bookkeeping of episodes: seeds, partial resets, actions in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgebed.errors import BadInput
from edgebed.simulation.base import ActionLayout
from edgebed.simulation.episodes import checked_actions, checked_seeds
from edgebed.simulation.scenarios import make_scenario
from edgebed.types import Feature

LAYOUT = ActionLayout(("left", "right"), (Feature("share", "1", 0.0, 1.0, "x"), Feature("turn", "1", -1.0, 1.0, "x")))


@pytest.mark.parametrize(
    ("seeds", "where", "text"),
    [
        ([], None, "must be a list of whole numbers"),
        ([0.5], None, "must be a list of whole numbers"),
        ([[1]], None, "must be a list of whole numbers"),
        ([3, -1], None, "must not be negative; got -1"),
        ([3, 4], [True], "2 seeds for a `where` of 1 entries"),
    ],
)
def test_bad_seeds_are_refused(seeds: Any, where: Any, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        checked_seeds("x", seeds, where)


def test_seeds_that_are_not_used_may_be_anything_whole() -> None:
    assert checked_seeds("x", [-1, 5], np.array([False, True])).tolist() == [-1, 5]


def test_a_partial_reset_cannot_change_the_number_of_environments() -> None:
    scenario = make_scenario("explaboff-3x2")
    scenario.reset([0, 1])
    with pytest.raises(BadInput, match="`where` has 3 entries for 2 environments"):
        scenario.reset([0, 1, 2], np.array([True, False, False]))


def test_rounding_of_single_precision_is_clipped_and_more_is_refused() -> None:
    given = np.array([[[1.0, 1.0 + 5e-7, -1.0 - 5e-7]]])
    assert checked_actions("x", LAYOUT, given, (1, 1)).tolist() == [[[1.0, 1.0, -1.0]]]
    assert given[0, 0, 1] > 1.0  # the caller's array is left alone
    with pytest.raises(BadInput, match=r"`turn` must lie in \[-1, 1\]"):
        checked_actions("x", LAYOUT, np.array([[[1.0, 0.5, -1.1]]]), (1, 1))


def test_a_number_below_another_s_range_may_be_in_its_own() -> None:
    given = np.array([[[0.0, 0.5, -0.5]]])
    assert checked_actions("x", LAYOUT, given, (1, 1)) is given


def test_the_wrong_shape_names_both() -> None:
    with pytest.raises(BadInput, match=r"shape \(1, 2, 2\); it must be \(1, 2, 3\)"):
        checked_actions("x", LAYOUT, np.zeros((1, 2, 2)), (1, 2))


def test_costs_of_ended_environments_no_longer_count() -> None:
    scenario = make_scenario("explaboff-3x2", {"size_deviation": 0.0})
    scenario.reset([0, 1])
    keep_local = np.zeros((2, 3, 2))
    scenario.step(keep_local)
    before = scenario.metrics()["cost_per_task"]
    step = scenario.step(keep_local)
    assert not step.reward.any()
    assert not step.costs.any()
    assert (scenario.metrics()["cost_per_task"] == before).all()
    assert scenario.step_index.tolist() == [1, 1]
