"""The command of docs/environments.md, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_s_program(tmp_path: Path) -> None:
    found = re.search(r"```sh\n(.*?)```", (ROOT / "docs" / "environments.md").read_text(), re.S)
    assert found
    # An installation that is older than the entry point for Gymnasium is told of the scenarios by hand.
    program = found[1].replace(
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
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0 device-0 cpu_hz cycle/s 0.0 ")
    assert lines[-1] == "(38,) MultiDiscrete([6 6 6 6 6]) True False"
