"""Means with intervals over seeds, and differences between policies on common seeds.

A seed is the unit: tasks within a cell share queues and are not independent, so that an interval over tasks would be
far too narrow. Intervals are Student's t at 95 %; one seed gives a mean and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy.special import stdtrit  # not scipy.stats, which takes a second to import

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds.

    Attributes:
        low, high: of the t-interval; None with fewer than two seeds.
        n: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        return None if self.high is None else self.high - self.mean


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Mean and ``mean +- t(n - 1) * s / sqrt(n)``; None without values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + level / 2)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


class Relation(StrEnum):
    """What a paired interval says about two policies."""

    BELOW = "below"
    ABOVE = "above"
    NOT_SEPARATED = "not separated"
    TOO_FEW_SEEDS = "too few seeds"


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A measure of one policy minus that of another, seed by seed.

    Attributes:
        interval: over the differences on common seeds; None when there are none.
    """

    interval: Interval | None

    @property
    def relation(self) -> Relation:
        """``below`` (or ``above``) when the whole interval is; it cannot be known from one seed."""
        if self.interval is None or self.interval.low is None or self.interval.high is None:
            return Relation.TOO_FEW_SEEDS
        if self.interval.high < 0:
            return Relation.BELOW
        return Relation.ABOVE if self.interval.low > 0 else Relation.NOT_SEPARATED


def paired_difference(
    first: Mapping[int, float | None], second: Mapping[int, float | None], level: float = LEVEL
) -> PairedDifference:
    """``first - second`` by seed, over the seeds for which both are known."""
    differences = []
    for seed in sorted(first.keys() & second.keys()):
        one, other = first[seed], second[seed]
        if one is not None and other is not None:
            differences.append(one - other)
    return PairedDifference(t_interval(differences, level))
