"""The commands of docs/learning.md that need nothing but the extras, as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "learning.md"


def test_train_look_evaluate(tmp_path: Path) -> None:
    section = PAGE.read_text().partition("## Train, look, evaluate")[2]
    found = re.search(r"```sh\n(.*?)```", section, re.S)
    assert found
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", found[1]]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cross_entropy" in done.stdout
    evaluated = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [one["scenario"] for one in evaluated] == ["dc-drl"]
    trainings = sorted(path.parent for path in tmp_path.glob("runs/*/2*/training.yaml"))
    assert len(trainings) == 2
    seeds = [sorted(path.name for path in (folder / "policies").iterdir()) for folder in trainings]
    assert seeds == [["seed-0", "seed-1"], ["seed-2", "seed-3"]]
