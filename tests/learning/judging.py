"""Trains a learner of `dc-drl` to its end, and holds its policy against a plain one."""

from __future__ import annotations

from pathlib import Path

from edgebed.learning.base import Learner
from edgebed.simulation.evaluation import evaluate
from edgebed.simulation.learned import LearnedPolicy
from edgebed.simulation.scenarios import make_scenario


def cost_against_all_local(learner: Learner, folder: Path) -> float:
    """Train to the end for three devices, export the first seed into a folder: its cost per task, all-local being 1."""
    while learner.steps < learner.task.steps:
        learner.advance()
    learner.export(0, folder)
    learned, local = (
        evaluate(make_scenario("dc-drl", {"n": 3}), policy, episodes=20, seed=7000).cost_per_task_mean
        for policy in (
            lambda scenario: LearnedPolicy.load(scenario, folder),
            lambda scenario: scenario.heuristics["all_local"](scenario),
        )
    )
    return learned / local
