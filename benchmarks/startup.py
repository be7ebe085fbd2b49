"""How long one waits: `edgebed --help`, and `edgebed run` until the first cell runs, on local hosts.

Whole processes, as a user starts them who has started them before: Python keeps the compiled modules, and a first
round, which is not counted, makes them. Medians over repetitions. Limits: 0.3 s and 3 s. The reference for the first
is the interpreter doing nothing, timed in turn with it.

    python -m benchmarks.startup [--repeat 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

LIMIT_HELP_S = 0.3
LIMIT_FIRST_TASK_S = 3.0
ROOT = Path(__file__).parents[1]
EDGEBED = str(Path(sys.executable).with_name("edgebed"))
RUNNING = ": running"
"""What `edgebed run` shows when a cell has been started."""


def as_users_have_it(**changes: str) -> dict[str, str]:
    """The environment without what keeps Python from keeping compiled modules."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | changes


def seconds_of(command: list[str]) -> float:
    """How long a command takes, as a whole process."""
    begin_s = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=as_users_have_it())
    return time.monotonic() - begin_s


def until_first_cell(folder: Path) -> float:
    """Seconds from starting `edgebed run` on the demo until its first cell runs; the run is let finish."""
    command = [
        *(EDGEBED, "run", str(ROOT / "inventory/experiments/demo.yaml")),
        *("--hosts", str(ROOT / "inventory/hosts/local.yaml"), "--runs", str(folder)),
        *("--set", "policies=[all_local]", "--set", "seeds=[1]", "--set", "epochs=4"),
    ]
    environment = as_users_have_it(XDG_STATE_HOME=str(folder / "state"))
    begin_s, first_s = time.monotonic(), None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if first_s is None and RUNNING in line:
                first_s = time.monotonic() - begin_s
    assert process.returncode == 0, "".join(lines)
    assert first_s is not None, "".join(lines)
    return first_s


def measure(repeat: int) -> dict[str, Any]:
    """Run the benchmark; the answer is what ``--json`` prints."""
    nothing_s, help_s, first_s = [], [], []
    seconds_of([EDGEBED, "--help"])
    for _ in range(max(5, repeat)):
        nothing_s.append(seconds_of([sys.executable, "-c", "pass"]))
        help_s.append(seconds_of([EDGEBED, "--help"]))
    for _ in range(repeat + 1):
        with tempfile.TemporaryDirectory() as name:
            first_s.append(until_first_cell(Path(name)))
    del first_s[0]
    found: dict[str, Any] = {
        "benchmark": "startup",
        "repeat": repeat,
        "interpreter_s": statistics.median(nothing_s),
        "help_s": statistics.median(help_s),
        "help_range_s": [min(help_s), max(help_s)],
        "first_cell_s": statistics.median(first_s),
        "first_cell_range_s": [min(first_s), max(first_s)],
        "limit_help_s": LIMIT_HELP_S,
        "limit_first_cell_s": LIMIT_FIRST_TASK_S,
    }
    found["within_limit"] = found["help_s"] <= LIMIT_HELP_S and found["first_cell_s"] <= LIMIT_FIRST_TASK_S
    return found | machine()


def main() -> int:
    """Run the benchmark and print its answer."""
    parser = argparse.ArgumentParser(description="Waiting for edgebed")
    parser.add_argument("--repeat", type=int, default=5, help="how often")
    parser.add_argument("--json", action="store_true", help="one object on one line")
    options = parser.parse_args()
    found = measure(options.repeat)
    if options.json:
        print(json.dumps(found))
    else:
        help_low, help_high = found["help_range_s"]
        low, high = found["first_cell_range_s"]
        print(
            f"edgebed --help: {found['help_s']:.3f} s ({help_low:.3f} to {help_high:.3f}; limit {LIMIT_HELP_S}; "
            f"the bare interpreter {found['interpreter_s']:.3f})\n"
            f"edgebed run until the first cell runs: {found['first_cell_s']:.2f} s ({low:.2f} to {high:.2f}; "
            f"limit {LIMIT_FIRST_TASK_S:g})\n"
            f"  {'within' if found['within_limit'] else 'ABOVE THE'} limit; {found['machine']}; "
            f"load {found['load_1min']}"
        )
    return 0 if found["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
