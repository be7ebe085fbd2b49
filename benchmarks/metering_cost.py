"""What metering costs: the share of a core that sampling this host ten times a second takes.

A sampler with the meter that `auto` chooses runs in real time, in several segments; the CPU time of the whole process
counts, waking up included. Limit: 1 % of a core, by the median over the segments. Exit status 1 above it.

    python benchmarks/metering_cost.py [--seconds 4] [--segments 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from edgebed.clock import MonotonicClock
from edgebed.metering.base import MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.health import HostSampler
from edgebed.metering.registry import open_meter

RATE_HZ = 10.0
LIMIT_SHARE = 0.01
BOARD = Path(__file__).parents[1] / "inventory" / "boards" / "generic-x86.yaml"


def sample_for(sampler: HostSampler, clock: MonotonicClock, duration_s: float) -> tuple[float, list[float]]:
    """Sample at `RATE_HZ` for a while.

    Returns:
        The share of a core that the process used, and the CPU seconds of each sample on its own.
    """
    costs_s = []
    start_s, start_cpu_s = clock.now_s(), time.process_time()
    for tick in range(1, round(duration_s * RATE_HZ) + 1):
        clock.sleep(start_s + tick / RATE_HZ - clock.now_s())
        before_s = time.thread_time()
        sampler.sample()
        costs_s.append(time.thread_time() - before_s)
    cpu_s = time.process_time() - start_cpu_s
    return cpu_s / (clock.now_s() - start_s), costs_s


def measure(segments: int, duration_s: float) -> dict[str, Any]:
    """Measure the segments; the answer is what ``--json`` prints."""
    clock = MonotonicClock()
    meter = open_meter("auto", MeterSetup(clock, load_board(BOARD)))
    sampler = HostSampler(clock, meter=meter)
    sampler.sample()
    shares, costs_s = [], []
    for _ in range(segments):
        share, some_s = sample_for(sampler, clock, duration_s)
        shares.append(share)
        costs_s += some_s
    return {
        "benchmark": "metering_cost",
        "rate_hz": RATE_HZ,
        "cpu_share_median": statistics.median(shares),
        "cpu_share_min": min(shares),
        "cpu_share_max": max(shares),
        "sample_cpu_s_p50": statistics.median(costs_s),
        "sample_cpu_s_max": max(costs_s),
        "samples": len(costs_s),
        "limit_share": LIMIT_SHARE,
        "within_limit": statistics.median(shares) <= LIMIT_SHARE,
        "meter": meter.source,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_1min": os.getloadavg()[0],
    }


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="CPU share of sampling a host at 10 Hz")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a segment")
    parser.add_argument("--segments", type=int, default=5, help="how many segments")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.segments, options.seconds)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"metering at {RATE_HZ:g} Hz: {found['cpu_share_median']:.2%} of a core, median of {options.segments} "
            f"segments of {options.seconds:g} s ({found['cpu_share_min']:.2%} to {found['cpu_share_max']:.2%}); "
            f"limit {LIMIT_SHARE:.0%}: {'within' if found['within_limit'] else 'ABOVE'}\n"
            f"one sample: {found['sample_cpu_s_p50'] * 1e6:.0f} us of CPU at the median, "
            f"{found['sample_cpu_s_max'] * 1e6:.0f} us at most; meter {found['meter']}; {found['machine']}; "
            f"load {found['load_1min']:.1f}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
