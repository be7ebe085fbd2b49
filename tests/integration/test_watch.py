"""`edgebed watch` in a process of its own, beside the real run that it looks at."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgebed.trace.runs import Run
from tests.integration.testbed import PATIENCE_S, Testbed, clean_testbed


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[Testbed]:
    with clean_testbed(tmp_path) as made:
        yield made


def watch(testbed: Testbed, *options: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", "watch", "tiny", "--runs", str(testbed.runs), *options]


def look(testbed: Testbed) -> dict[str, Any]:
    found = subprocess.run(watch(testbed, "--json"), capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    (line,) = found.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


def state_of_folder(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_is_watched_to_its_end(testbed: Testbed) -> None:
    testbed.run(epochs=20, policies=["all_edge", "all_local"])
    testbed.wait_until_running()
    watching = subprocess.Popen(watch(testbed, "--interval", "0.2"), stdout=subprocess.PIPE, text=True)
    answer = testbed.finish()
    output, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 0
    lines = output.splitlines()
    going_on = [line for line in lines if "running" in line and "4/4 up" in line]
    counts = [int(line.split("/120 tasks")[0].split()[-1]) for line in lines if "/120 tasks" in line]
    assert going_on, "it was seen while cells ran, with every member up"
    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    assert counts[-1] == 120
    assert any("2/2 | complete" in line for line in lines)
    assert f"verdict {answer['verdict']}" in output


def test_what_is_seen_on_the_way_becomes_what_the_report_says(testbed: Testbed) -> None:
    testbed.run(epochs=30, policies=["all_edge", "all_local"])
    testbed.wait_until_running(serial=2)
    early = look(testbed)
    assert (early["state"], early["going_on"], early["left"]) == ("running", True, False)
    assert (early["cells_done"], early["cells"], early["planned"]) == (1, 2, 180)
    complete = next(policy for policy in early["policies"] if policy["cells_done"])
    assert complete["done"] == 87, "90 tasks of two devices, without those of the first epoch"
    testbed.finish()
    late = look(testbed)
    assert (late["state"], late["going_on"], late["cell"]) == ("complete", False, None)
    assert complete in late["policies"], "what was told of a complete cell stays"
    rows = Run(testbed.run_folder).query(
        "SELECT policy, quantile_cont(latency_s, 0.5), quantile_cont(latency_s, 0.95) FROM tasks "
        "WHERE epoch > 0 AND outcome = 'done' GROUP BY policy ORDER BY policy"
    )
    told = sorted((policy["name"], policy["p50_s"], policy["p95_s"]) for policy in late["policies"])
    for (name, *quantiles), (policy, *expected) in zip(told, rows.rows, strict=True):
        assert name == policy
        assert quantiles == pytest.approx(expected)
    assert [event["kind"] for event in late["events"]], "its last events are told"


def drain(terminal: int) -> None:
    """Read until a program has left its terminal; if nobody reads, it is stopped in the middle of its last picture."""
    deadline_s = time.monotonic() + PATIENCE_S
    while select.select([terminal], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
        try:
            os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return
    raise AssertionError("it is still at its terminal")


def test_looking_changes_nothing_and_ctrl_c_leaves_the_run_alone(testbed: Testbed) -> None:
    testbed.run(epochs=40)
    testbed.wait_until_running()
    master, slave = pty.openpty()
    watching = subprocess.Popen(
        watch(testbed, "--interval", "0.2"),
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        env=testbed.environment | {"TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(slave)
    shown = b""
    deadline_s = time.monotonic() + PATIENCE_S
    while shown.count(b"all_edge-s1: running") < 3:  # drawn again, in place
        assert time.monotonic() < deadline_s
        shown += os.read(master, 4096)
    assert b"\x1b[1A" in shown or b"\x1b[2K" in shown, "it moves up and draws over what it has drawn"
    watching.send_signal(signal.SIGINT)
    drain(master)
    _, errors = watching.communicate(timeout=PATIENCE_S)
    os.close(master)
    assert watching.returncode == 130
    assert errors.strip() == "interrupted"
    assert testbed.finish()["state"] == "complete"
    before = state_of_folder(testbed.run_folder)
    look(testbed)
    assert state_of_folder(testbed.run_folder) == before


def test_a_run_that_a_lost_orchestrator_left(testbed: Testbed) -> None:
    testbed.run(epochs=60)
    testbed.wait_until_running()
    testbed.wait_for(lambda: testbed.reported(), "a row")
    testbed.signal(signal.SIGKILL)
    assert testbed.process is not None
    testbed.process.communicate()
    found = subprocess.run(watch(testbed), capture_output=True, text=True, timeout=PATIENCE_S)
    assert found.returncode == 1
    assert "nobody works on it" in found.stdout
    assert f"`edgebed resume {testbed.run_folder}` goes on" in found.stdout
    assert look(testbed)["left"] is True
    testbed.resume()
    testbed.wait_for(lambda: look(testbed)["going_on"], "somebody who works on it")
    assert testbed.finish()["state"] == "complete"
    assert look(testbed)["left"] is False
