"""What came of a training: evaluations without exploration, the last few averaged, with an interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgebed.learning.metrics import MetricLine, read_metrics
from edgebed.learning.training_plan import TrainingPlan
from edgebed.simulation.intervals import t_interval

RESULT_FILE = "result.json"


class Measure(msgspec.Struct, kw_only=True):
    """One number of a training.

    Attributes:
        by_seed: mean of the last evaluations, in the plan's order of seeds; None where one of them has no value.
        mean: over seeds; None where one has none.
        ci95: Student's t interval over seeds, ``[low, high]``; None with a single seed, or without a mean.
    """

    by_seed: list[float | None]
    mean: float | None
    ci95: list[float] | None


class TrainingResult(msgspec.Struct, kw_only=True):
    """``result.json``.

    Attributes:
        steps: environment steps a seed.
        evaluations: how many of the last ones are averaged. episodes: of each.
        measures: ``return_mean``, ``cost_per_task`` and the scenario's own.
    """

    learner: str
    scenario: str
    seeds: list[int]
    steps: int
    evaluations: int
    episodes: int
    measures: dict[str, Measure]


def training_result(plan: TrainingPlan, lines: Sequence[MetricLine]) -> TrainingResult | None:
    """The result so far; None before the first evaluation."""
    evaluated = [line for line in lines if line.evaluation]
    if not evaluated:
        return None
    last = evaluated[-plan.training.average_last :]
    measures = {
        name: _measure([_mean([line.evaluation[name][index] for line in last]) for index in range(len(plan.seeds))])
        for name in last[-1].evaluation
    }
    return TrainingResult(
        learner=plan.learner,
        scenario=plan.scenario,
        seeds=plan.seeds,
        steps=last[-1].steps,
        evaluations=len(last),
        episodes=plan.training.evaluation_episodes,
        measures=measures,
    )


def write_result(training: Path, plan: TrainingPlan) -> TrainingResult | None:
    """Write ``result.json``; nothing before the first evaluation."""
    result = training_result(plan, read_metrics(training))
    if result is not None:
        fresh = training / f".{RESULT_FILE}.new"
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
        fresh.replace(training / RESULT_FILE)
    return result


def _measure(by_seed: list[float | None]) -> Measure:
    known = [value for value in by_seed if value is not None]
    interval = t_interval(known) if len(known) == len(by_seed) else None
    return Measure(by_seed=by_seed, mean=_mean(by_seed), ci95=list(interval) if interval else None)


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is: a mean of what happens to be known would be one of something else."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
