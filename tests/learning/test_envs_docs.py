"""The commands of docs/environments.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from edgebed.trace.runs import Run

ROOT = Path(__file__).parents[2]


def output_of(block: int) -> list[str]:
    """Lines that a program of the page prints."""
    program = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "environments.md").read_text(), re.S)[block]
    # An installation that is older than the entry point for Gymnasium is told of the scenarios by hand.
    program = program.replace(
        "import gymnasium\n", "import gymnasium\nfrom edgebed.envs import register_envs\nregister_envs()\n"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_program_on_a_scenario() -> None:
    lines = output_of(0)
    assert lines[0].startswith("0 device-0 cpu_hz cycle/s 0.0 ")
    assert lines[-1] == "(38,) MultiDiscrete([6 6 6 6 6]) True False"


def test_the_program_on_a_recorded_day() -> None:
    ((cost, tasks),) = (
        Run(ROOT / "inventory" / "traces" / "local-day")
        .query("SELECT sum(cost), count(*) FROM tasks WHERE cell_id = 'all_edge-s2'")
        .rows
    )
    assert output_of(1) == [f"{round(-cost, 6)} {{'recorded': {tasks}, 'recomputed': 0, 'modelled': 0}}"]
