"""How long a learned policy takes for a decision, in numpy: in a controller for ten devices, on a device for itself.

    python -m benchmarks.decision_speed [--json]

The time is the CPU time of the whole `decide`: from the observation as hosts show it to the decision that is sent. The
figure is the median over blocks of decisions; the least block is given, too, as others may use the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.machine import VERDICTS, machine
from edgebed.policies import make_policy
from edgebed.policies.base import Policy
from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.policies.testing import random_observation
from edgebed.types import Observation, ObservationSpec

JOINT_LIMIT_S = 0.2e-3
"""Ten devices, layers of 400 and 300."""

DEVICE_LIMIT_S = 50e-6
"""One device, layers of 64 and 64."""

BLOCK = 200
DEVICES = tuple(f"pi-{index}" for index in range(1, 11))


def policy_of(spec: ObservationSpec, scope: str, hidden: tuple[int, int]) -> Policy:
    """An untrained policy, read from its file."""
    with tempfile.TemporaryDirectory() as folder:
        save_policy(folder, random_hosts_policy(spec, scope=scope, hidden=hidden))
        return make_policy("network", spec, {"weights": folder})


def time_blocks_s(policy: Policy, observations: list[Observation], blocks: int) -> list[float]:
    """CPU seconds of a decision, the mean of each block."""
    for observation in observations:
        policy.decide(observation)  # warm
    times_s = []
    for _ in range(blocks):
        started_s = time.process_time()
        for index in range(BLOCK):
            policy.decide(observations[index % len(observations)])
        times_s.append((time.process_time() - started_s) / BLOCK)
    return times_s


def measure(blocks: int) -> dict[str, Any]:
    """Measure both; the answer is what ``--json`` prints."""
    rng = np.random.default_rng(0)
    joint_spec = ObservationSpec(DEVICES, ("edge-1",), channels=5)
    joint = [random_observation(joint_spec, rng) for _ in range(16)]
    # On a device all other slots are absent.
    alone = [replace(one, present=np.arange(len(DEVICES)) == 3) for one in joint]
    joint_s = time_blocks_s(policy_of(joint_spec, "joint", (400, 300)), joint, blocks)
    device_s = time_blocks_s(policy_of(joint_spec, "device", (64, 64)), alone, blocks)
    joint_median_s, device_median_s = statistics.median(joint_s), statistics.median(device_s)
    return {
        "benchmark": "decision_speed",
        "joint_devices": len(DEVICES),
        "joint_decision_s_p50": joint_median_s,
        "joint_decision_s_min": min(joint_s),
        "joint_limit_s": JOINT_LIMIT_S,
        "device_decision_s_p50": device_median_s,
        "device_decision_s_min": min(device_s),
        "device_limit_s": DEVICE_LIMIT_S,
        "within_limit": joint_median_s <= JOINT_LIMIT_S and device_median_s <= DEVICE_LIMIT_S,
        **machine(),
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="CPU time of a learned policy's decision")
    parser.add_argument("--blocks", type=int, default=20, help=f"blocks of {BLOCK} decisions")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.blocks)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"controller, {found['joint_devices']} devices, 400-300: {found['joint_decision_s_p50'] * 1e6:.0f} us "
            f"(limit {JOINT_LIMIT_S * 1e6:.0f})\n"
            f"device, 64-64: {found['device_decision_s_p50'] * 1e6:.0f} us (limit {DEVICE_LIMIT_S * 1e6:.0f})\n"
            f"{VERDICTS[found['within_limit']]}; {found['machine']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
