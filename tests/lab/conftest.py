"""A lab for all tests of this folder: made by the real command, once, and taken down at the end.

Nothing here is ever skipped: without root these tests fail, and say how to run them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.spec import lab_names
from tests.lab.running_lab import LINK, NAME, RunningLab, answer_of, bring_up, edgebed


def pytest_sessionstart(session: pytest.Session) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise pytest.UsageError("tests/lab makes virtual hosts, for which it needs Linux and root: sudo make test-lab")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """An edge server and two devices behind links of 20 Mbit/s and 5 +- 1 ms; tests leave it as they found it."""
    if NAME in lab_names():  # a run of these tests was killed
        answer_of(edgebed("lab", "down", "--name", NAME, "--json"))
    hosts_file = tmp_path_factory.mktemp("hosts") / "lab.yaml"
    boards = ("--board", "raspberry-pi-4b", "--board", "raspberry-pi-5")
    running = bring_up(NAME, hosts_file, "--devices", "2", *boards, "--meter", "hwmon_ina2xx", *LINK)
    yield running
    answer_of(edgebed("lab", "down", "--name", NAME, "--json"))


@pytest.fixture(scope="session")
def lab_hosts_file(lab: RunningLab) -> Path:
    """The lab's hosts file, as an orchestrator is given it."""
    return lab.hosts_file
