"""ONNX Runtime must not call home: not from a device, not from a server, not from a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECOGNISE = """
import numpy as np
from workloads import load_workload
from workloads.base import pack_clip
workload = load_workload("digits")
workload.load()
task = workload.generate(np.random.default_rng(0), "digits/0/pi-1/0", 1)
assert len(workload.execute(pack_clip(task.frames)).predicted) == 1
"""


def leavings(home: Path, **extra: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **extra}
    home.mkdir()
    subprocess.run([sys.executable, "-c", RECOGNISE], env=environment, cwd=ROOT, check=True, timeout=120)
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def test_recognising_leaves_nothing_to_be_sent(tmp_path: Path) -> None:
    # What the library would send, it first stores under the home folder; so a clean home shows that it is off.
    assert leavings(tmp_path / "off") == []


def test_nobody_imports_it_past_the_switch() -> None:
    direct = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.M)
    folders = ("edgebed", "edge_server", "device_agent", "orchestrator", "workloads", "benchmarks", "examples", "tests")
    modules = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in modules if direct.search(path.read_text())] == [
        "workloads/_onnxruntime.py"
    ]
