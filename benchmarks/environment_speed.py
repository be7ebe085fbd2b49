"""How fast one Gymnasium environment steps, alone: a single environment of `dc-drl`, ten devices.

That is what learners that know nothing of batches use. Needs the extra [learning]. The machine's speed is told by the
plain loop of `benchmarks.plain_scenarios`, in turn with it. Limit: 5,000 steps per CPU-second. Exit status 1 below it.

    python -m benchmarks.environment_speed [--seconds 1] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from benchmarks.machine import VERDICTS, machine
from benchmarks.scenario_speed import Step, plain, speed

LIMIT_PER_S = 5000.0


def one_environment() -> Step:
    """Steps of a Gymnasium environment, episode after episode."""
    from edgebed.envs import make_gym

    environment = make_gym("dc-drl")
    environment.reset(seed=0)
    environment.action_space.seed(0)
    actions = [environment.action_space.sample() for _ in range(64)]
    done = 0

    def step() -> int:
        nonlocal done
        _, _, terminated, truncated, _ = environment.step(actions[done % len(actions)])
        done += 1
        if terminated or truncated:
            environment.reset()
        return 1

    return step


def measure(rounds: int, duration_s: float) -> dict[str, Any]:
    """Environment and loop in turn; the answer is what ``--json`` prints."""
    environment, loop = one_environment(), plain("dc-drl")
    for step in (environment, loop):
        speed(step, duration_s / 4)
    found = [(speed(environment, duration_s), speed(loop, duration_s)) for _ in range(rounds)]
    median = statistics.median(each for each, _ in found)
    return {
        "benchmark": "environment_speed",
        "rounds": rounds,
        "steps_per_cpu_s": median,
        "steps_per_cpu_s_min": min(each for each, _ in found),
        "steps_per_cpu_s_max": max(each for each, _ in found),
        "loop_steps_per_cpu_s": statistics.median(each for _, each in found),
        "limit_steps_per_cpu_s": LIMIT_PER_S,
        "within_limit": median >= LIMIT_PER_S,
    } | machine()


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Steps per CPU-second of one Gymnasium environment")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"one Gymnasium environment: {found['steps_per_cpu_s']:,.0f} steps per CPU-second, median of "
            f"{options.rounds} ({found['steps_per_cpu_s_min']:,.0f} to {found['steps_per_cpu_s_max']:,.0f}); limit "
            f"{LIMIT_PER_S:,.0f}: {VERDICTS[found['within_limit']]}; the plain loop: "
            f"{found['loop_steps_per_cpu_s']:,.0f}; load {found['load_1min']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
