"""What `benchmarks.dc_drl_results` trains and evaluates, in order of importance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2, 3, 4)
TEST_SEED = 50_000
"""Environment seed of the first test episode. Settings were chosen on others, from 900 000 on."""
TEST_EPISODES = 100
BUDGETS = (60_000, 200_000)
SIZES = (10, 20, 5, 15)

SETTINGS: dict[str, Any] = {}
"""DC-DRL as it is compared: its defaults, which were chosen on other seeds."""

PPO: dict[str, Any] = {}
"""PPO as it is compared: its defaults, from `benchmarks.ppo_trials`, which has other seeds."""

PERCEPTRON: dict[str, Any] = {"critic": "per_device", "actor_rate": 3e-4, "huber": 10.0}
"""As it was before: any function of state and decisions as the critic, whose gradient the actor follows."""

# Where the collective agent learns alone it gets the cells' updates, so that all have equally many.
ALONE: dict[str, Any] = {"neuroevolution": "off", "cell_updates": 0.0, "collective_updates": 0.2}

ABLATION_STEPS = 20_000
"""Budget of ablations and shapes: sixty thousand for each would take a day, and the order is clear by then."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "perceptron": PERCEPTRON,
    "collective_alone": ALONE,
    "no_neuroevolution": {"neuroevolution": "off"},
    "single_cell": ALONE | {"cells": 1, "merge_share": 0.0},
    "fixed_n1": {"adaptive_n": False, "n_step": 1},
    "fixed_n5": {"adaptive_n": False, "n_step": 5},
    "vanilla_neuroevolution": {"neuroevolution": "vanilla", "mutation": 0.02},
    "published_encoding": PERCEPTRON | {"encoding": "published_tanh", "score_penalty": 0.0},
    "joint_critic": PERCEPTRON | {"critic": "joint"},
    "fixed_n3": {"adaptive_n": False, "n_step": 3},
    "fixed_n10": {"adaptive_n": False, "n_step": 10},
    "agreement_0.5": {"agreement": 0.5},
    "no_actor_noise": {"actor_noise": 0.0},
    "prioritised": {"prioritised": True},
    "slow_targets": {"tau": 0.005},
    "twice_the_updates": {"collective_updates": 0.3, "cell_updates": 0.1},
}

AT_LENGTH = {"perceptron": (10, 20), "twice_the_updates": (20,)}
"""Ablations that also learn for the first budget, with their N: what changed most, and where there is most to gain."""

VARIANTS = {"dc_drl": BUDGETS, **dict.fromkeys(AT_LENGTH, BUDGETS[:1]), "ppo": BUDGETS}
"""What is compared against the number of devices, with its budgets."""

COMPARED = ("dc_drl", "ppo", "aga", "d4pg", *ABLATIONS)
"""What is compared at N = 10 with the budget of ablations."""

SHAPES: dict[str, list[dict[str, Any]]] = {
    "data size": [{"input_min_bytes": low * 1024.0, "input_max_bytes": (low + 3000) * 1024.0} for low in (3000, 7000)],
    "cycles": [{"cycles_min": low * 1e9, "cycles_max": (low + 0.2) * 1e9} for low in (0.4, 0.8)],
    "server": [{"server_hz": speed * 1e9} for speed in (3.0, 7.0)],
}
"""Scenarios on either side of the default one: the paper's figures of cost against data size, cycles and capacity."""

REFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "all_local": ("all_local", {}),
    "all_edge": ("all_edge", {}),
    "uniform_random": ("uniform_random", {}),
    "greedy_latency": ("greedy_latency", {}),
    "offload_late": ("offload_late", {}),
    "greedy_sampled_100": ("greedy_sampled", {"m": 100}),
    "greedy_sampled_1000": ("greedy_sampled", {"m": 1000}),
    "coordinate_descent": ("coordinate_descent", {}),
    "greedy_priced": ("greedy_priced", {}),
}
INFORMED = ("greedy_sampled_100", "greedy_sampled_1000", "coordinate_descent", "greedy_priced")


@dataclass(frozen=True, slots=True)
class Job:
    """A training of all seeds.

    Attributes:
        variant: how it is called in the table.
        learner: registered name.
        steps: interactions a seed, summed over cells.
        parameters: of the scenario.
        settings: of the learner; the rest are defaults.
    """

    variant: str
    learner: str
    steps: int
    parameters: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of its folder and its file."""
        return f"{self.variant}-{self.steps // 1000}k-{self.system}"

    @property
    def system(self) -> str:
        """Of the scenario's parameters."""
        rest = [f"{key}={value:g}" for key, value in self.parameters.items() if key != "n"]
        return "-".join([f"n{self.parameters['n']}", *rest])


def jobs() -> Iterator[Job]:
    """All of them, the most important first."""
    short, long = BUDGETS
    for size in SIZES:
        yield Job("dc_drl", "dc_drl", short, {"n": size}, SETTINGS)
        yield Job("ppo", "ppo", short, {"n": size}, PPO)
    for learner in ("dc_drl", "ppo"):
        yield Job(learner, learner, ABLATION_STEPS, {"n": 10})
    yield _ablation("perceptron")
    for learner in ("aga", "d4pg"):
        yield Job(learner, learner, ABLATION_STEPS, {"n": 10})
    for name in ABLATIONS:
        if name != "perceptron":
            yield _ablation(name)
    for name, sizes in AT_LENGTH.items():
        for size in sizes:
            yield Job(name, "dc_drl", short, {"n": size}, SETTINGS | ABLATIONS[name])
    for variants in SHAPES.values():
        for changes in variants:
            yield Job("dc_drl", "dc_drl", ABLATION_STEPS, {"n": 10} | changes, SETTINGS)
            yield Job("ppo", "ppo", ABLATION_STEPS, {"n": 10} | changes, PPO)
    for size in SIZES:
        yield Job("dc_drl", "dc_drl", long, {"n": size}, SETTINGS)
        yield Job("ppo", "ppo", long, {"n": size}, PPO)


def _ablation(name: str) -> Job:
    return Job(name, "dc_drl", ABLATION_STEPS, {"n": 10}, SETTINGS | ABLATIONS[name])
