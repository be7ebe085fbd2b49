"""How far simulated tasks are from measured ones, policy by policy, with intervals. Pure numpy.

Both sides are the tasks that count (`orchestrator.measures`), of the same plan: same arrivals, same seeds, same
policies. A *unit* is what the bootstrap draws: the cells with one seed of one run, on both sides at once; with fewer
than two of them, the epochs of the single one, which share queues, so that the interval is too narrow.

The measures, and what an error of each is::

    median_latency, p95_latency   of done tasks                         simulated / measured - 1
    energy                        mean joules of done tasks             simulated / measured - 1
    miss_rate                     late or failed, of known outcome      simulated - measured

Where the measured energy is 0, or nothing was done, there is no error to speak of: such a policy is left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from orchestrator.calibration.distributions import FloatArray, WeightedSample, kolmogorov_smirnov, wasserstein

METRICS = ("median_latency", "p95_latency", "miss_rate", "energy")
ABSOLUTE = ("miss_rate",)
"""Measures whose error is a difference, not a ratio."""

LEVEL = 0.95
DRAWS = 1000
FEWER_DRAWS = 200
MANY_TASKS = 200_000
"""With more tasks than this fewer draws are taken: each costs time in proportion, and intervals are narrow anyway."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of one policy on one side.

    Attributes:
        unit: ``[n]``, index of the unit of each.
        latency_s: ``[n]``, NaN unless done.
        missed: ``[n]``, 1 late or failed, 0 in time, NaN when nobody knows.
        energy_j: ``[n]``, of device and server together; NaN unless done and known.
    """

    unit: NDArray[np.int64]
    latency_s: FloatArray
    missed: FloatArray
    energy_j: FloatArray

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def done_s(self) -> FloatArray:
        """Latencies of what is done."""
        return self.latency_s[~np.isnan(self.latency_s)]

    def only(self, unit: NDArray[np.int64]) -> Tasks:
        """The tasks of some units."""
        kept = np.isin(self.unit, unit)
        return Tasks(self.unit[kept], self.latency_s[kept], self.missed[kept], self.energy_j[kept])


def joined(parts: Sequence[Tasks]) -> Tasks:
    """All of them, in order."""
    return Tasks(
        np.concatenate([part.unit for part in parts]),
        np.concatenate([part.latency_s for part in parts]),
        np.concatenate([part.missed for part in parts]),
        np.concatenate([part.energy_j for part in parts]),
    )


class Side:
    """One side, ready to be weighed anew many times."""

    def __init__(self, tasks: Tasks) -> None:
        def known(values: FloatArray) -> WeightedSample:
            there = ~np.isnan(values)
            return WeightedSample(values[there], tasks.unit[there])

        self._latency, self._missed, self._energy = map(known, (tasks.latency_s, tasks.missed, tasks.energy_j))

    def measure(self, drawn: FloatArray) -> dict[str, float]:
        """Each of `METRICS` with units drawn so often; NaN where nothing is known."""
        return {
            "median_latency": self._latency.quantile(0.5, drawn),
            "p95_latency": self._latency.quantile(0.95, drawn),
            "miss_rate": self._missed.mean(drawn),
            "energy": self._energy.mean(drawn),
        }


def error_of(metric: str, simulated: float, measured: float) -> float:
    """The error of a measure; NaN where it has none."""
    if metric in ABSOLUTE:
        return simulated - measured
    return simulated / measured - 1.0 if measured > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Error:
    """An error with its interval.

    Attributes:
        value: signed.
        low, high: of the bootstrap over units, 95 %.
        repeat: how far repeats of one plan are apart, in the same terms, not negative.
        repeat_is_measured: by runs that repeat a plan; else by simulating it repeatedly, which knows only of the
            chance that is in the profile.
    """

    value: float
    low: float
    high: float
    repeat: float
    repeat_is_measured: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One policy under one setting.

    Attributes:
        tasks: counted on either side.
        errors: by `METRICS`; one without a value is missing.
        wasserstein_s, ks: distance between the latencies of done tasks; None when either side has none.
    """

    name: str
    measured_tasks: int
    simulated_tasks: int
    measured: dict[str, float]
    simulated: dict[str, float]
    errors: dict[str, Error]
    wasserstein_s: float | None
    ks: float | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What is compared: both sides of a policy under a setting.

    Attributes:
        repeats: measured tasks of the same plan from several runs, a list of runs for each plan; each is one run's.
        replicas: the simulated tasks of each time that the plan was simulated.
    """

    name: str
    measured: Tasks
    replicas: Sequence[Tasks]
    repeats: Sequence[Sequence[Tasks]] = ()


def compare(policies: Sequence[Policy], units: int, seed: int = 0) -> tuple[list[Compared], dict[str, Error]]:
    """The errors of each policy, and of all together: the mean of their absolute values.

    The draws of units are the same for all policies, as a seed is the same day for all of them.

    Args:
        policies: both sides of each.
        units: how many there are; at least 1.
        seed: of the bootstrap.

    Returns:
        One `Compared` a policy, and the mean absolute error by metric. Its interval is that of the mean of the absolute
        errors over the draws, widened to hold the value (chance turns small errors of both signs into larger ones).
    """
    tasks = sum(len(policy.measured) for policy in policies)
    drawn = _draws(units, FEWER_DRAWS if tasks > MANY_TASKS else DRAWS, seed)
    tables = [_errors_by_draw(policy, drawn) for policy in policies]
    compared = [_compared(policy, table) for policy, table in zip(policies, tables, strict=True)]
    return compared, _overall(compared, tables)


def _draws(units: int, count: int, seed: int) -> FloatArray:
    """How often each unit was drawn, ``[1 + count, units]``; the first row is every unit once: the value itself."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(units, np.full(units, 1.0 / units), size=count)
    return np.concatenate([np.ones((1, units)), drawn.astype(np.float64)])


def _errors_by_draw(policy: Policy, drawn: FloatArray) -> dict[str, FloatArray]:
    measured, simulated = Side(policy.measured), Side(joined(policy.replicas))
    rows = [(measured.measure(row), simulated.measure(row)) for row in drawn]
    return {
        metric: np.array([error_of(metric, theirs[metric], ours[metric]) for ours, theirs in rows])
        for metric in METRICS
    }


def _compared(policy: Policy, table: Mapping[str, FloatArray]) -> Compared:
    simulated = joined(policy.replicas)
    everything = np.ones(1 + int(max(policy.measured.unit.max(initial=0), simulated.unit.max(initial=0))))
    ours, theirs = policy.measured.done_s, simulated.done_s
    comparable = bool(len(ours) and len(theirs))
    return Compared(
        name=policy.name,
        measured_tasks=len(policy.measured),
        simulated_tasks=len(simulated),
        measured=_known(Side(policy.measured).measure(everything)),
        simulated=_known(Side(simulated).measure(everything)),
        errors={metric: error for metric in METRICS if (error := _error(metric, policy, table[metric])) is not None},
        wasserstein_s=wasserstein(ours, theirs) if comparable else None,
        ks=kolmogorov_smirnov(ours, theirs) if comparable else None,
    )


def _known(measures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if not np.isnan(value)}


def _error(metric: str, policy: Policy, by_draw: FloatArray) -> Error | None:
    if np.isnan(by_draw[0]):
        return None
    low, high = _interval(by_draw)
    repeat, is_measured = repeat_difference(metric, policy)
    return Error(float(by_draw[0]), low, high, repeat, is_measured)


def _interval(by_draw: FloatArray) -> tuple[float, float]:
    there = by_draw[1:][~np.isnan(by_draw[1:])]
    if not len(there):
        return float(by_draw[0]), float(by_draw[0])
    low, high = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return min(float(low), float(by_draw[0])), max(float(high), float(by_draw[0]))


def repeat_difference(metric: str, policy: Policy) -> tuple[float, bool]:
    """How far two runs of one plan are apart on average, and whether that was measured.

    Without repeated runs it is the difference between repeated simulations.
    """
    groups = [group for group in policy.repeats if len(group) > 1]
    found = _mean_difference(metric, groups)
    if found is not None:
        return found, True
    return _mean_difference(metric, [policy.replicas]) or 0.0, False


def _mean_difference(metric: str, groups: Sequence[Sequence[Tasks]]) -> float | None:
    found = []
    for group in groups:
        values = [_alone(tasks)[metric] for tasks in group]
        for one, other in combinations(values, 2):
            scale = 1.0 if metric in ABSOLUTE else (one + other) / 2
            if scale > 0:
                found.append(abs(one - other) / scale)
    there = [value for value in found if not np.isnan(value)]
    return float(np.mean(there)) if there else None


def _alone(tasks: Tasks) -> dict[str, float]:
    return Side(tasks).measure(np.ones(1 + int(tasks.unit.max(initial=0))))


def _overall(compared: Sequence[Compared], tables: Sequence[Mapping[str, FloatArray]]) -> dict[str, Error]:
    overall = {}
    for metric in METRICS:
        there = [
            (policy.errors[metric], np.abs(table[metric]))
            for policy, table in zip(compared, tables, strict=True)
            if metric in policy.errors
        ]
        if there:
            by_draw = _mean_over_policies([table for _, table in there])
            low, high = _interval(by_draw)
            repeat = float(np.mean([error.repeat for error, _ in there]))
            is_measured = all(error.repeat_is_measured for error, _ in there)
            overall[metric] = Error(float(by_draw[0]), low, high, repeat, is_measured)
    return overall


def _mean_over_policies(tables: Sequence[FloatArray]) -> FloatArray:
    """Mean over policies, draw by draw; a draw that says nothing of a policy counts without it."""
    stacked = np.stack(tables)
    there = ~np.isnan(stacked)
    total: FloatArray = np.where(there, stacked, 0.0).sum(axis=0)
    mean: FloatArray = np.divide(
        total, there.sum(axis=0), out=np.full(stacked.shape[1], np.nan), where=there.any(axis=0)
    )
    return mean
