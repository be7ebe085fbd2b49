"""Settings of the baseline PPO: a random search with as many trials as DC-DRL has had, made by one command.

    python -m benchmarks.ppo_trials [-o docs/results/dc-drl/ppo-trials.json] [--runs runs/ppo-trials]

`TRIALS` settings, the first of which is `EARLIER` and the others drawn from `SPACE`, learn for `SHORT` interactions;
the best `FINALISTS` of them and `EARLIER` learn for `LONG`. A trial's number is the mean over its last five of 20
evaluations and over its seeds. Neither its training seeds nor its episodes are those of the results. It does what is
missing, and can be stopped and started again at any time.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401 - before numpy  # isort: skip
import numpy as np

from benchmarks.dc_drl_results import AVERAGED, EVALUATIONS, costs_at_the_end, learn, telling, write_json
from benchmarks.machine import machine
from edgebed.learning.training_plan import TrainingSettings, resolve

TRIALS, FINALISTS = 44, 8
SHORT, LONG = 20_000, 60_000
SHORT_SEEDS, LONG_SEEDS = (100,), (100, 101)
EPISODES, EPISODES_SEED = 20, 900_000
PARAMETERS = {"n": 10}
DRAWN_BY = 2021

EARLIER: dict[str, Any] = {
    "environments": 4,
    "episodes": 2,
    "epochs": 10,
    "batch": 100,
    "rate": 1e-3,
    "last_rate": 0.1,
    "gamma": 0.9,
    "gae_lambda": 0.9,
    "clip": 0.2,
    "entropy": 0.0,
    "hidden": [256, 256],
    "activation": "tanh",
    "scaling": "mostly_local",
}
"""What was taken before this search, after three trials."""

SPACE: dict[str, list[Any]] = {
    "environments": [2, 4, 8],
    "episodes": [1, 2, 4],
    "epochs": [5, 10, 20],
    "batch": [50, 100, 200],
    "rate": [2e-4, 5e-4, 1e-3, 2e-3],
    "last_rate": [0.1, 1.0],
    "gamma": [0.8, 0.9, 0.95],
    "gae_lambda": [0.5, 0.8, 0.9, 0.95],
    "clip": [0.1, 0.2, 0.3],
    "entropy": [0.0, 0.001, 0.003, 0.01],
    "hidden": [[128, 128], [256, 256], [400, 300]],
    "activation": ["tanh", "relu"],
    "scaling": ["mostly_local", "heuristics"],
}


def candidates() -> list[dict[str, Any]]:
    """The settings of the short trials; every choice of `SPACE` is as likely, but a batch is at most a roll-out."""
    draws = np.random.default_rng(DRAWN_BY)
    found = [EARLIER]
    while len(found) < TRIALS:
        drawn = {key: values[int(draws.integers(len(values)))] for key, values in SPACE.items()}
        found.append(drawn | {"batch": min(drawn["batch"], 50 * drawn["environments"] * drawn["episodes"])})
    return found


def trial(name: str, settings: dict[str, Any], steps: int, seeds: tuple[int, ...], runs: Path) -> dict[str, Any]:
    """Train with these settings; what came out."""
    folder = runs / name
    watching = TrainingSettings(
        evaluate_every_steps=steps // EVALUATIONS,
        evaluation_episodes=EPISODES,
        evaluation_seed=EPISODES_SEED,
        average_last=AVERAGED,
    )
    plan = resolve("ppo", "dc-drl", seeds, steps, settings, PARAMETERS, watching)
    cpu_s = learn(folder, plan, telling(name, steps))
    by_seed = [sum(values) / len(values) for values in costs_at_the_end(folder, len(seeds))]
    return {
        "trial": name,
        "steps": steps,
        "seeds": list(seeds),
        "cost_by_seed": by_seed,
        "cost": sum(by_seed) / len(by_seed),
        "cpu_s": round(cpu_s, 1),
        "settings": settings,
    }


def search(output: Path, runs: Path) -> list[dict[str, Any]]:
    """Do what is missing; all trials, the long ones last."""
    done: list[dict[str, Any]] = json.loads(output.read_text())["trials"] if output.exists() else []
    known = {one["trial"] for one in done}

    def add(name: str, settings: dict[str, Any], steps: int, seeds: tuple[int, ...]) -> None:
        if name not in known:
            done.append(trial(name, settings, steps, seeds, runs))
            write_json(output, {"space": SPACE, "drawn_by": DRAWN_BY, "trials": done} | machine())
            print(f"{name}: {done[-1]['cost']:.3f}, {done[-1]['cpu_s']:.0f} CPU s", flush=True)

    for index, settings in enumerate(candidates()):
        add(f"short-{index:02d}", settings, SHORT, SHORT_SEEDS)
    ranked = sorted((one for one in done if one["steps"] == SHORT), key=lambda one: one["cost"])
    finalists = [one["trial"] for one in ranked[:FINALISTS]]
    for name in dict.fromkeys(["short-00", *finalists]):
        settings = next(one["settings"] for one in done if one["trial"] == name)
        add(name.replace("short", "long"), settings, LONG, LONG_SEEDS)
    return done


def table(trials: list[dict[str, Any]]) -> str:
    """For people, in Markdown, the best first; the long trials above the short ones."""
    lines = ["| trial | interactions | cost a task, by seed | settings other than before |", "|---|---|---|---|"]
    for one in sorted(trials, key=lambda one: (-one["steps"], one["cost"])):
        changed = {key: value for key, value in one["settings"].items() if value != EARLIER[key]}
        what = ", ".join(f"{key} {value}" for key, value in changed.items()) or "none"
        costs = ", ".join(f"{cost:.3f}" for cost in one["cost_by_seed"])
        lines.append(f"| {one['trial']} | {one['steps'] // 1000} k | {costs} | {what} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description="Random search for PPO's settings")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/dc-drl/ppo-trials.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ppo-trials"), help="where trainings are stored")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    trials = search(options.output, options.runs)
    options.output.with_suffix(".md").write_text(table(trials), encoding="utf-8")
    print(table(trials))
    return 0


if __name__ == "__main__":
    sys.exit(main())
