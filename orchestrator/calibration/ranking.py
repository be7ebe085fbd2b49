"""Is the order of policies that was measured the order that is simulated?

Two policies have an order in a measure when the paired interval of their difference over common seeds excludes 0
(`orchestrator.statistics`). It is kept when the simulated means differ with the same sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from orchestrator.statistics import Relation, paired_difference

RANKED = ("latency_s", "miss_rate", "energy_j", "cost")
"""Measures in which policies are ordered, by the names of `orchestrator.measures.MEASURES`."""

SeedValues = Mapping[int, float | None]
"""A measure of one policy, by unit: a seed of a run."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two policies that were measured to differ.

    Attributes:
        measured, simulated: mean of ``first - second`` over the common seeds.
    """

    measure: str
    first: str
    second: str
    measured: float
    simulated: float

    @property
    def is_kept(self) -> bool:
        """Is the sign the same?"""
        return self.measured * self.simulated > 0


def ordered_pairs(
    measured: Mapping[str, Mapping[str, SeedValues]], simulated: Mapping[str, Mapping[str, SeedValues]]
) -> list[Pair]:
    """All pairs of policies that have a measured order.

    Args:
        measured: by policy, then by measure of `RANKED`.
        simulated: likewise.
    """
    pairs = []
    for measure in RANKED:
        for first, second in combinations(sorted(measured.keys() & simulated.keys()), 2):
            found = paired_difference(measured[first].get(measure, {}), measured[second].get(measure, {}))
            theirs = paired_difference(simulated[first].get(measure, {}), simulated[second].get(measure, {}))
            if found.relation not in (Relation.BELOW, Relation.ABOVE) or found.interval is None:
                continue
            simulated_mean = 0.0 if theirs.interval is None else theirs.interval.mean
            pairs.append(Pair(measure, first, second, found.interval.mean, simulated_mean))
    return pairs
