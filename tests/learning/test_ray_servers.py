"""Trainings over several servers by Ray; the servers are network namespaces of this test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.learning.ray_cluster import ray_cluster
from tests.learning.training import CROSS_ENTROPY, only_training, result_of, train, wait_for

pytestmark = pytest.mark.root

SERVERS = 3
TASK = (*CROSS_ENTROPY, "--set", "cells=4", "--steps", "24000")


def test_the_same_result_over_servers_of_which_one_is_lost(tmp_path: Path) -> None:
    """Four cells on three servers; one of the servers dies in the middle."""
    inline = train(*TASK, "--runs", tmp_path / "inline")
    runs = tmp_path / "ray"
    with ray_cluster(SERVERS) as cluster:
        words = ("train", *TASK, "--runs", runs, "--executor", "ray", "--ray-address", cluster.address)
        process = subprocess.Popen(
            cluster.inside(0, sys.executable, "-m", "orchestrator", *words),
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        log = wait_for(lambda: log_of(runs), process)
        places = log.partition("RayExecutor on ")[2].partition('"')[0].split(", ")
        assert len(places) == 4
        assert set(places) == set(cluster.addresses)
        lost = next(number for number, address in enumerate(cluster.addresses) if number and address in places)
        wait_for(lambda: lines_of(runs) > 6, process)
        cluster.kill_node(lost)
        output, errors = process.communicate(timeout=400)
        assert process.returncode == 0, f"{output}\n{errors}"
    folder = only_training(runs)
    assert folder is not None
    assert result_of(folder) == result_of(Path(inline["training"]))
    assert json.loads((folder / "status.json").read_text())["restarts"] >= places.count(cluster.addresses[lost])


def log_of(runs: Path) -> str:
    folder = only_training(runs)
    path = None if folder is None else folder / "log.jsonl"
    text = path.read_text() if path is not None and path.exists() else ""
    return text if '"began"' in text and text.endswith("\n") else ""


def lines_of(runs: Path) -> int:
    folder = only_training(runs)
    path = None if folder is None else folder / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path is not None and path.exists() else 0
