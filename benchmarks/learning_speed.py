"""How fast the DC-DRL agent learns, against a plain implementation in the same run.

    python -m benchmarks.learning_speed [--seeds 5] [--rounds 9] [--json]

Both do the published update: actor and critic 400-300, batch 64, N=10, one-step returns. Ours does it for a batch of
training seeds at once and counts one update a seed; the plain one is a loop over separate torch networks as they are
usually written, one seed at a time. Rounds alternate, so that both have the same machine; CPU seconds are counted.
Ours is timed with n-step returns, too, while at least as many steps agree as with trained policies, and with the
pairwise critic that is the default; the published update has none, and no limit is set for it.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import VERDICTS, machine
from edgebed.learning.base import TrainingTask, read_learner_config
from edgebed.learning.dc_drl import Agent, DcDrl
from edgebed.learning.replay import RUNNING, TRUNCATED, Trajectory
from edgebed.simulation.scenarios import make_scenario

PUBLISHED_ONE_STEP = 186.0
PUBLISHED_N_STEP = 92.0
LEAST_RATIO = 1.4
ROWS, LENGTH = 5000, 50
UPDATES = 30
STILL = 1e-12
"""Step size of an actor whose decisions go on agreeing with those of its replay, for more steps than trained ones do.
One that learns from random rewards soon agrees with nothing, and n would always be 1."""


def agent(seeds: int, **settings: Any) -> Agent:
    """An agent of `seeds` training seeds, with a replay full of random transitions of the right shape."""
    config = read_learner_config(DcDrl.spec, {"critic": "joint", "encoding": "one_hot"} | settings)
    task = TrainingTask("dc_drl", config, "dc-drl", {"n": 10}, tuple(range(seeds)), 60_000)
    found = Agent(task, make_scenario("dc-drl", {"n": 10}), "benchmark", 2 * ROWS)
    rng = np.random.default_rng(0)
    for _ in range(ROWS // LENGTH):
        found.replay.append([_episode(found, rng, seed) for seed in range(seeds)])
    return found


def _episode(found: Agent, rng: np.random.Generator, seed: int) -> Trajectory:
    seen = rng.normal(size=(LENGTH + 1, found.ddpg.actor.sizes[0])).astype(np.float32)
    with torch.no_grad():
        outputs = found.ddpg.target_actor(torch.from_numpy(seen[None, :-1]).expand(found.replay.seeds, -1, -1))
    # Mostly what the target policy would do, so that prefixes are about as long as in training.
    actions = outputs[seed].reshape(LENGTH, 10, -1).argmax(-1).numpy().astype(np.int8)
    other = rng.integers(0, 6, actions.shape).astype(np.int8)
    actions = np.where(rng.uniform(size=actions.shape) < 0.1, other, actions)
    kinds = np.full(LENGTH, RUNNING)
    kinds[-1] = TRUNCATED
    heads = 1 if found.config.critic == "joint" else 10
    rewards = rng.normal(size=(LENGTH, heads)).astype(np.float32)
    return Trajectory.of_episode(seen[:-1], actions, rewards, kinds, seen[-1])


class Plain:
    """DDPG as it is usually written: four modules, two optimisers, one seed."""

    def __init__(self, observation: int, action: int) -> None:
        def network(inputs: int, outputs: int, *last: nn.Module) -> nn.Sequential:
            sizes = nn.Linear(inputs, 400), nn.ReLU(), nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, outputs)
            return nn.Sequential(*sizes, *last)

        self.actor, self.critic = network(observation, action, nn.Tanh()), network(observation + action, 1)
        self.slow_actor, self.slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=1e-3)
        rows = ROWS
        self.seen, self.later = torch.randn(rows, observation), torch.randn(rows, observation)
        self.actions, self.rewards = torch.rand(rows, action), torch.randn(rows, 1)

    def updates(self) -> None:
        """Some updates."""
        for _ in range(UPDATES):
            self.update()

    def update(self) -> None:
        """One step of critic, actor and targets."""
        rows = torch.randint(0, ROWS, (64,))
        seen, later, actions, rewards = self.seen[rows], self.later[rows], self.actions[rows], self.rewards[rows]
        with torch.no_grad():
            target = rewards + 0.9 * self.slow_critic(torch.cat([later, self.slow_actor(later)], 1))
        loss = nn.functional.mse_loss(self.critic(torch.cat([seen, actions], 1)), target)
        self._step(self.critic_adam, loss)
        self._step(self.actor_adam, -self.critic(torch.cat([seen, self.actor(seen)], 1)).mean())
        with torch.no_grad():
            for slow, fast in ((self.slow_actor, self.actor), (self.slow_critic, self.critic)):
                for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
                    one.mul_(1 - 0.001).add_(0.001 * other)

    @staticmethod
    def _step(adam: torch.optim.Optimizer, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()


def cpu_s(work: Callable[[], Any]) -> float:
    """CPU seconds that it takes."""
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def matmul_flops(size: int = 1024) -> float:
    """Floating-point operations a second of a large matrix product on one core: what can be had at most."""
    matrix = torch.randn(size, size)
    return 2.0 * size**3 * 5 / cpu_s(lambda: [matrix @ matrix for _ in range(5)])


def update_flops(one: Agent) -> float:
    """Of an update of one seed: a forward pass is one, a backward pass for weights or for inputs is another."""
    actor, critic = (
        sum(a * b for a, b in zip(net.sizes, net.sizes[1:], strict=False)) for net in (one.ddpg.actor, one.ddpg.critic)
    )
    # Targets 1 + 1; critic forward and both backward passes 3; actor's step: actor 3, critic 2.
    return 2.0 * 64 * (actor * (1 + 3) + critic * (1 + 3 + 2))


def measure(seeds: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds in which all took turns."""
    ours, longer = agent(seeds, adaptive_n=False, n_step=1), agent(seeds, actor_rate=STILL)
    default = agent(seeds, critic="pairwise", actor_rate=STILL)
    plain = Plain(ours.ddpg.actor.sizes[0], ours.encoding.inputs)
    found: dict[str, list[float]] = {"ours": [], "n_step": [], "default": [], "plain": [], "peak": []}
    lengths: list[float] = []
    for count in range(rounds + 1):
        took = {
            "ours": UPDATES * seeds / cpu_s(lambda: ours.learn(UPDATES, 0.0)),
            "n_step": UPDATES * seeds / cpu_s(lambda: lengths.extend(_lengths(longer.learn(UPDATES, 0.0)))),
            "default": UPDATES * seeds / cpu_s(lambda: default.learn(UPDATES, 0.0)),
            "plain": UPDATES / cpu_s(plain.updates),
            "peak": matmul_flops(),
        }
        if count:  # the first is a warm-up
            for name, value in took.items():
                found[name].append(value)
    rates = {name: float(np.median(values)) for name, values in found.items()}
    ratio = float(np.median(np.array(found["ours"]) / np.array(found["plain"])))
    share = float(np.median(np.array(found["ours"]) * update_flops(ours) / np.array(found["peak"])))
    fair = rates["plain"] >= PUBLISHED_ONE_STEP
    reached = ratio >= LEAST_RATIO and rates["n_step"] >= 2 * PUBLISHED_N_STEP
    return {
        "benchmark": "learning_speed",
        **machine(),
        "seeds": seeds,
        "updates_per_cpu_s": rates["ours"],
        "n_step_updates_per_cpu_s": rates["n_step"],
        "pairwise_updates_per_cpu_s": rates["default"],
        "n_step_mean_n": float(np.mean(lengths)),
        "plain_updates_per_cpu_s": rates["plain"],
        "ratio_to_plain": ratio,
        "share_of_matmul_peak": share,
        "plain_reaches_published_rate": fair,
        "within_limit": reached if fair else None,
    }


def _lengths(metrics: dict[str, list[float | None]]) -> list[float]:
    return [one for one in metrics["n_mean"] if one is not None]


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description="Updates per CPU second of the DC-DRL agent")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    answer = measure(options.seeds, options.rounds)
    if options.json:
        print(json.dumps(answer))
    else:
        for name, value in answer.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        print(VERDICTS[answer["within_limit"]], file=sys.stderr)
    return 0 if answer["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
