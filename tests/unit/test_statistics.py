"""Intervals and paired differences, against numbers worked out by hand and by another implementation."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.statistics import Interval, Relation, paired_difference, t_interval

# Student's t, two-sided 95 %, from the printed tables.
T_95 = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 30: 2.042}


@pytest.mark.parametrize(("freedom", "quantile"), T_95.items())
def test_the_interval_has_the_width_that_the_tables_give(freedom: int, quantile: float) -> None:
    values = [float(number % 3) for number in range(freedom + 1)]
    interval = t_interval(values)
    assert interval is not None
    expected = quantile * statistics.stdev(values) / math.sqrt(len(values))
    assert interval.mean == pytest.approx(statistics.mean(values))
    assert interval.half_width == pytest.approx(expected, rel=1e-3)
    assert interval.n == freedom + 1


def test_the_sleep_data_of_student() -> None:
    """Student 1908: hours of additional sleep under two drugs, ten patients; 95 % interval of the difference."""
    first = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
    second = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))
    difference = paired_difference(first, second)
    assert difference.interval is not None
    assert difference.interval.mean == pytest.approx(-1.58)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((-2.4598858, -0.7001142))
    assert difference.relation is Relation.BELOW
    assert paired_difference(second, first).relation is Relation.ABOVE


def test_without_values_there_is_nothing_and_with_one_no_interval() -> None:
    assert t_interval([]) is None
    assert t_interval([3.0]) == Interval(3.0, None, None, 1)
    assert Interval(3.0, None, None, 1).half_width is None


@pytest.mark.parametrize(
    ("first", "second", "relation", "n"),
    [
        ({1: 1.0, 2: 1.1, 3: 0.9}, {1: 2.0, 2: 2.1, 3: 1.9}, Relation.BELOW, 3),
        ({1: 1.0, 2: 9.0}, {1: 1.1, 2: 1.1}, Relation.NOT_SEPARATED, 2),
        ({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}, Relation.NOT_SEPARATED, 2),
        ({1: 1.0}, {1: 2.0}, Relation.TOO_FEW_SEEDS, 1),
        ({1: 1.0, 2: None, 3: 1.0}, {1: 2.0, 2: 2.0, 4: 2.0}, Relation.TOO_FEW_SEEDS, 1),
        ({}, {}, Relation.TOO_FEW_SEEDS, 0),
        ({1: 1.0, 2: 2.0, 7: 0.0}, {1: 0.0, 2: 1.0, 8: 9.0}, Relation.ABOVE, 2),
    ],
)
def test_only_common_seeds_are_compared(
    first: dict[int, float | None], second: dict[int, float | None], relation: Relation, n: int
) -> None:
    difference = paired_difference(first, second)
    assert difference.relation is relation
    assert (difference.interval.n if difference.interval else 0) == n


@given(st.dictionaries(st.integers(0, 9), st.floats(-1e6, 1e6), min_size=2))
def test_a_common_shift_is_found_however_much_the_seeds_differ(values: dict[int, float]) -> None:
    """Pairing takes out what a seed does to both, which two separate intervals would drown in."""
    slower = {seed: value + 1.0 for seed, value in values.items()}
    difference = paired_difference(values, slower)
    assert difference.interval is not None
    assert difference.interval.mean == pytest.approx(-1.0, abs=1e-6)
    assert difference.relation is Relation.BELOW
