"""What the tests of the lab share: the real command, and a lab that is up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.lab.live import LiveLab
from orchestrator.lab.spec import USER

UP_TIMEOUT_S = 900.0  # with an empty cache a Debian root is built first
NAME = "test"
LINK = ("--rate", "20M", "--delay", "5ms", "--jitter", "1ms")


def edgebed(*arguments: str | Path, timeout_s: float = UP_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON that a command has ended with, having succeeded."""
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def eventually(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a condition holds, and fail when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, f"not so within {timeout_s:g} s"
        time.sleep(0.05)


def every(period_s: float, duration_s: float) -> Iterator[float]:
    """Seconds since the start, once a period, as an agent samples."""
    start_s = time.monotonic()
    for turn in range(round(duration_s / period_s) + 1):
        time.sleep(max(0.0, start_s + turn * period_s - time.monotonic()))
        yield time.monotonic() - start_s


@dataclass(frozen=True)
class RunningLab:
    """A lab that is up.

    Attributes:
        hosts_file: written by `lab up`; ``known_hosts`` lies beside it.
        answer: of `lab up --json`.
        live: what can be done to it.
    """

    hosts_file: Path
    answer: dict[str, Any]
    live: LiveLab

    def ssh(self, host: str, command: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run a command on a host with OpenSSH's own client, which checks the pinned key."""
        lab = self.live.lab
        options = {
            "UserKnownHostsFile": self.hosts_file.parent / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "5",
        }
        words = ["ssh", "-F", "none", "-i", str(lab.key_file)]
        words += [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        words += [f"{USER}@{lab.host(host).address}", command]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)

    def said(self, host: str, command: str, timeout_s: float = 30.0) -> str:
        """What a command that succeeds prints on a host."""
        done = self.ssh(host, command, timeout_s)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


def bring_up(name: str, hosts_file: Path, *arguments: str) -> RunningLab:
    """Make a lab by the real command."""
    answer = answer_of(edgebed("lab", "up", "--name", name, "--hosts", hosts_file, "--json", *arguments))
    return RunningLab(hosts_file, answer, LiveLab.named(name))
