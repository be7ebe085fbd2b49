"""Trainings for tests: small ones, through the command line, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = ("--scenario", "dc-drl", "--set", "n=3", "--set", "scenario.steps=10", "--set", "evaluation_episodes=3")
"""Three devices, ten steps an episode."""

CROSS_ENTROPY = ("cross_entropy", *SMALL, "--set", "population=8", "--seeds", "0,1")
PATIENCE_S = 240.0


def edgebed(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end, and check how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == status, f"{words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def train(*words: str | Path, status: int = 0) -> dict[str, Any]:
    """Train, and give back the answer."""
    return answer_of(edgebed("train", *words, "--json", status=status))


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object in the last line of standard output."""
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def start(*words: str | Path) -> subprocess.Popen[str]:
    """Start a command line, in a process group of its own, and leave it running."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """As a terminal does it: the whole group gets the signal, workers included."""
    os.killpg(process.pid, signal.SIGINT)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """What a condition gives once it is true; fails after a while, and when the process has ended before."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.01)  # polls a condition, with a deadline
    raise AssertionError("nothing happened in time")


def result_of(folder: Path) -> dict[str, bytes]:
    """What must not depend on where and how a training ran: metrics, result, and the policies' numbers."""
    names = ["metrics.jsonl", "result.json", *(str(path.relative_to(folder)) for path in folder.glob("policies/*/*"))]
    return {name: (folder / name).read_bytes() for name in sorted(names)}


def only_training(runs: Path) -> Path | None:
    """The folder of the only training below a folder, once its plan is there."""
    found = [path.parent for path in runs.glob("*/2*/training.yaml")]
    assert len(found) < 2
    return found[0] if found else None
