"""The results of DC-DRL, its baselines and ablations: trained, tested, tabled and plotted by one command.

    python -m benchmarks.dc_drl_results [--only TEXT] [--list] [--table] [--runs runs/dc-drl-results]
                                        [-o docs/results/dc-drl]

It does what is missing, the most important first, and can be stopped (Ctrl-C, kill -9) and started again at any time:
trainings go on from their last checkpoint to the same digits. Two of it may run side by side; they take different
trainings. ``-o`` gets a JSON file of raw numbers for each training, the table and the plots, remade after each.

Every training has the same `SEEDS`; all policies are tested, without exploration, on the same `TEST_EPISODES` episodes.
A learner's number is the mean over the last five of 20 evaluations, because a single checkpoint swings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401 - before numpy  # isort: skip
import msgspec

from benchmarks.dc_drl_jobs import REFERENCES, SEEDS, TEST_EPISODES, TEST_SEED, Job, jobs
from benchmarks.machine import machine
from edgebed.errors import RunConflict
from edgebed.learning.executor import make_executor
from edgebed.learning.metrics import read_metrics
from edgebed.learning.trainer import Progress, Trainer
from edgebed.learning.training_place import TRAINING_FILE
from edgebed.learning.training_plan import TrainingPlan, TrainingSettings, resolve
from edgebed.simulation.evaluation import evaluate
from edgebed.simulation.scenarios import make_scenario

EVALUATIONS, AVERAGED = 20, 5
CHECKPOINT_EVERY_S = 120.0


def plan_of(job: Job) -> TrainingPlan:
    """The job as a training."""
    watching = TrainingSettings(
        evaluate_every_steps=job.steps // EVALUATIONS,
        evaluation_episodes=TEST_EPISODES,
        evaluation_seed=TEST_SEED,
        average_last=AVERAGED,
    )
    return resolve(job.learner, "dc-drl", SEEDS, job.steps, job.settings, job.parameters, watching)


def train(job: Job, runs: Path) -> dict[str, Any]:
    """Train what is missing of a job, and return its raw numbers.

    Raises:
        RunConflict: another process trains it, or its folder is of other settings.
    """
    folder, start = runs / job.name, time.monotonic()
    cpu_s = learn(folder, plan_of(job), telling(job.name, job.steps))
    print(f"{job.name}: {cpu_s:.0f} CPU s, {time.monotonic() - start:.0f} s", flush=True)
    return raw_numbers(job, folder)


def learn(folder: Path, plan: TrainingPlan, on_progress: Callable[[Progress], None]) -> float:
    """Train what is missing of a plan in its folder; the CPU seconds that it took now.

    Raises:
        RunConflict: another process trains there, or the folder is of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / TRAINING_FILE).exists():
        (folder / TRAINING_FILE).write_text(plan.to_yaml(), encoding="utf-8")
    start_s = time.process_time()
    with make_executor("inline") as executor:
        trainer = Trainer(folder, executor, on_progress=on_progress, checkpoint_every_s=CHECKPOINT_EVERY_S)
        if _as_of_now(trainer.plan).plan_hash != plan.plan_hash:
            raise RunConflict(f"{folder}: was trained with other settings than now; remove it to train it anew")
        trainer.run()
    return time.process_time() - start_s


def costs_at_the_end(folder: Path, seeds: int) -> list[list[float]]:
    """Cost a task of each seed in the last evaluations, which are averaged."""
    last = [line for line in read_metrics(folder) if line.evaluation][-AVERAGED:]
    return [[line.evaluation["cost_per_task"][index] or 0.0 for line in last] for index in range(seeds)]


def _as_of_now(plan: TrainingPlan) -> TrainingPlan:
    """A plan with the settings that came later, which are off by default: it was trained as if it had had them."""
    settings, scenario = plan.learner_settings, plan.scenario_settings
    return resolve(plan.learner, plan.scenario, plan.seeds, plan.steps, settings, scenario, plan.training)


def telling(name: str, steps: int) -> Callable[[Progress], None]:
    """What tells once a minute how far a training is."""
    last = [0.0]

    def tell(progress: Progress) -> None:
        if time.monotonic() - last[0] > 60.0:
            last[0] = time.monotonic()
            left = "?" if progress.remaining_s is None else f"{progress.remaining_s / 60:.0f} min"
            print(f"{name}: {progress.steps} of {steps} steps, {left} left", flush=True)

    return tell


def raw_numbers(job: Job, folder: Path) -> dict[str, Any]:
    """What is kept of a training."""
    lines = read_metrics(folder)
    evaluated = [line for line in lines if line.evaluation]
    cost = costs_at_the_end(folder, len(SEEDS))
    metrics = ("miss_rate", "offload_rate")
    learned = [line for line in lines if line.learning]
    return {
        "job": job.name,
        "variant": job.variant,
        "learner": job.learner,
        "parameters": job.parameters,
        "steps": job.steps,
        "settings": job.settings,
        "seeds": list(SEEDS),
        "test_seed": TEST_SEED,
        "test_episodes": TEST_EPISODES,
        "cost_by_seed": [sum(values) / len(values) for values in cost],
        "cost_of_last_evaluations": cost,
        "curve": [[line.steps, line.evaluation["cost_per_task"]] for line in evaluated],
        "exploration": _thinned(learned, "return_exploring", -1.0 / _tasks(job)),
        "learning": {
            name: _thinned(learned, name, 1.0)
            for name in ("n_mean", "agreement", "fitness_variance", "first_layer_variance", "updates", "uploaded_bytes")
            if name in learned[-1].learning
        },
        **{name: [evaluated[-1].evaluation[name][index] for index in range(len(SEEDS))] for name in metrics},
        **machine(),
    }


def _tasks(job: Job) -> float:
    scenario = make_scenario("dc-drl", job.parameters)
    return float(scenario.devices * scenario.steps)


def _thinned(lines: list[Any], name: str, factor: float) -> list[list[Any]]:
    """A metric at some twenty places, as means over what lies between them: ``[steps, mean over seeds]``."""
    known = [(line.steps, [v for v in line.learning.get(name, []) if v is not None]) for line in lines]
    points = [(steps, factor * sum(values) / len(values)) for steps, values in known if values]
    size = max(1, len(points) // 20)
    chunks = [points[first : first + size] for first in range(0, len(points), size)]
    return [[chunk[-1][0], sum(value for _, value in chunk) / len(chunk)] for chunk in chunks]


def references(parameters: dict[str, Any]) -> dict[str, float]:
    """Cost a task of every hand-written policy, on the test episodes."""
    return {name: _reference(parameters, policy, given) for name, (policy, given) in REFERENCES.items()}


def _reference(parameters: dict[str, Any], policy: str, given: dict[str, Any]) -> float:
    scenario = make_scenario("dc-drl", parameters)
    kind = scenario.heuristics[policy]
    return evaluate(scenario, lambda made: kind(made, given), episodes=TEST_EPISODES, seed=TEST_SEED).cost_per_task_mean


def write_json(path: Path, content: Any) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def evaluate_references(job: Job, output: Path) -> None:
    """Evaluate the hand-written policies in the job's scenario, if that is still to be done."""
    path = output / "raw" / f"references-{job.system}.json"
    if not path.exists():
        write_json(path, {"parameters": job.parameters, "cost": references(job.parameters)})


def run(options: argparse.Namespace) -> int:
    """Do what is missing."""
    from benchmarks.dc_drl_table import write_tables

    status = 0
    for job in jobs():
        path = options.output / "raw" / f"{job.name}.json"
        if options.only not in job.name or path.exists():
            continue
        try:
            evaluate_references(job, options.output)
            write_json(path, train(job, options.runs))
        except RunConflict as error:
            print(f"{job.name}: left out: {error}", file=sys.stderr, flush=True)
            status = 1
        write_tables(options.output)
    write_tables(options.output)
    return status


def main() -> int:
    """Train, test, table."""
    parser = argparse.ArgumentParser(description="Results of DC-DRL")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/dc-drl"))
    parser.add_argument("--runs", type=Path, default=Path("runs/dc-drl-results"), help="where trainings are stored")
    parser.add_argument("--only", default="", metavar="TEXT", help="only trainings whose name has this in it")
    parser.add_argument("--list", action="store_true", help="say what there is and what is missing")
    parser.add_argument("--table", action="store_true", help="only remake table and plots")
    options = parser.parse_args()
    if options.list:
        for job in jobs():
            done = (options.output / "raw" / f"{job.name}.json").exists()
            print(f"{'done   ' if done else 'missing'} {job.name} {msgspec.json.encode(job.settings).decode()}")
        return 0
    if options.table:
        from benchmarks.dc_drl_table import write_tables

        write_tables(options.output)
        return 0
    import torch

    torch.set_num_threads(1)
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
