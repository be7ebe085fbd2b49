"""How fast scenarios step: environment steps per CPU-second, against plain loops over devices in the same run.

`dc-drl` with ten devices and `ccm-s10` with fifty, observations included, at the best batch size, against
`benchmarks.plain_scenarios`, one environment at a time. The loops are on the same equations: their costs are held
against the batched ones first. The speeds that published code reached on one thread are in `PUBLISHED`; a loop slower
than three quarters of that makes the ratio void. Limit: 50 times the loop. Exit status 1 below it.

    python -m benchmarks.scenario_speed [--seconds 1] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.machine import VERDICTS, machine
from benchmarks.plain_scenarios import PlainCcm, PlainDcDrl, as_lists
from edgebed.simulation.base import Scenario
from edgebed.simulation.scenarios import make_scenario
from edgebed.simulation.scenarios.dc_drl import DcDrl
from edgebed.simulation.testing import random_actions

LIMIT = 50.0
VOID_BELOW = 0.75
PUBLISHED = {"dc-drl": 24_600.0, "ccm-s10": 2_990.0}
"""Environment steps per CPU-second of the published code, the higher figure where there are two."""

BATCHES = {"dc-drl": (512, 1024, 2048, 4096), "ccm-s10": (128, 512, 1024, 2048)}
EPISODES_CHECKED = 20
Step = Callable[[], int]
"""Does some environment steps, and says how many."""


def batched(name: str, batch: int) -> Step:
    """Steps of a batch, with observations, episode after episode."""
    scenario = make_scenario(name)
    actions = _some_actions(scenario, batch)
    seeds = np.arange(batch)
    scenario.reset(seeds)
    done = 0

    def step() -> int:
        nonlocal done
        ended = scenario.step(actions[done % len(actions)])
        scenario.observe()
        done += 1
        if (ended.terminated | ended.truncated).all():
            scenario.reset(seeds + done * batch)
        return batch

    return step


def _some_actions(scenario: Scenario, batch: int) -> list[Any]:
    rng = np.random.default_rng(0)
    if isinstance(scenario, DcDrl):  # as its `uniform_random`: half of the devices offload
        shape = (batch, scenario.devices)
        return [rng.integers(1, 6, shape) * rng.integers(0, 2, shape) for _ in range(8)]
    return [random_actions(scenario.actions, batch, scenario.devices, rng) for _ in range(8)]


def plain(name: str) -> Step:
    """Steps of a plain loop, one environment."""
    loop = PlainDcDrl(10) if name == "dc-drl" else PlainCcm()
    actions = [as_lists(each[0]) for each in _some_actions(make_scenario(name), 1)]
    done, ended = 0, True

    def step() -> int:
        nonlocal done, ended
        if ended:
            loop.reset() if isinstance(loop, PlainDcDrl) else loop.reset(done)
        *_, ended = loop.step(actions[done % len(actions)])
        done += 1
        return 1

    return step


def check_equal(name: str) -> float:
    """Hold the plain loop's costs against the batched ones, episode by episode.

    Returns:
        The greatest relative difference.

    Raises:
        AssertionError: they are not the same.
    """
    scenario = make_scenario(name)
    actions = _some_actions(scenario, EPISODES_CHECKED)
    scenario.reset(np.arange(EPISODES_CHECKED))
    costs, drawn = [], []
    for step in range(scenario.steps):
        if isinstance(scenario, DcDrl):
            drawn.append(np.stack([scenario.state.cycles, scenario.state.input_bytes], axis=2))
        costs.append(scenario.step(actions[step % len(actions)]).costs)
    worst = 0.0
    for episode in range(EPISODES_CHECKED):
        loop = _seeded(name, drawn, episode)
        for step, expected in enumerate(costs):
            _, got, _ = loop.step(as_lists(actions[step % len(actions)][episode]))
            worst = max(worst, float(np.max(np.abs(expected[episode] / got - 1.0))))
    assert worst < 1e-6, f"{name}: the plain loop's costs differ by {worst:.2g}"
    return worst


def _seeded(name: str, drawn: list[Any], episode: int) -> PlainDcDrl | PlainCcm:
    if name == "dc-drl":
        tasks = [as_lists(each[episode]) for each in drawn]
        loop = PlainDcDrl(10, lambda epoch: tasks[min(epoch, len(tasks) - 1)])
        loop.reset()
        return loop
    other = PlainCcm()
    other.reset(episode)
    return other


def speed(step: Step, duration_s: float) -> float:
    """Environment steps per CPU-second."""
    done, start_s = 0, time.process_time()
    while (spent_s := time.process_time() - start_s) < duration_s:
        done += step()
    return done / spent_s


def measure(name: str, rounds: int, duration_s: float) -> dict[str, Any]:
    """One scenario: the loop and every batch size in turn, round by round; ratios within a round."""
    difference = check_equal(name)
    steps = {batch: batched(name, batch) for batch in BATCHES[name]}
    reference = plain(name)
    for step in (reference, *steps.values()):
        speed(step, duration_s / 4)
    found = [
        (speed(reference, duration_s), {batch: speed(step, duration_s) for batch, step in steps.items()})
        for _ in range(rounds)
    ]
    medians = {batch: statistics.median(each[batch] for _, each in found) for batch in steps}
    best = max(medians, key=lambda batch: medians[batch])
    ratios = [each[best] / loop for loop, each in found]
    loop = statistics.median(loop for loop, _ in found)
    return {
        "batch": best,
        "steps_per_cpu_s": medians[best],
        "loop_steps_per_cpu_s": loop,
        "loop_to_published": loop / PUBLISHED[name],
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_to_published": medians[best] / PUBLISHED[name],
        "greatest_difference": difference,
    }


def run(rounds: int, duration_s: float) -> dict[str, Any]:
    """Both scenarios; what ``--json`` prints."""
    found = {name: measure(name, rounds, duration_s) for name in PUBLISHED}
    void = [name for name, each in found.items() if each["loop_to_published"] < VOID_BELOW]
    fast = all(each["ratio"] >= LIMIT for each in found.values())
    return {
        "benchmark": "scenario_speed",
        "rounds": rounds,
        **{f"{name.replace('-', '_')}_{key}": value for name, each in found.items() for key, value in each.items()},
        "limit_ratio": LIMIT,
        "within_limit": None if void else fast,
    } | machine()


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Environment steps per CPU-second")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = run(options.rounds, options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        for name in ("dc_drl", "ccm_s10"):
            print(
                f"{name}: {found[f'{name}_steps_per_cpu_s']:,.0f} environment steps per CPU-second at batch "
                f"{found[f'{name}_batch']}, {found[f'{name}_ratio']:.0f} x the plain loop's "
                f"{found[f'{name}_loop_steps_per_cpu_s']:,.0f} ({found[f'{name}_loop_to_published']:.2f} of the "
                f"published speed); limit {LIMIT:g} x"
            )
        print(f"{VERDICTS[found['within_limit']]}; {found['machine']}; load {found['load_1min']}")
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
