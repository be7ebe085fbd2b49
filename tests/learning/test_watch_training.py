"""`edgebed watch` on a training: while it goes on, when it is left, and when it has ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.learning.training import CROSS_ENTROPY, PATIENCE_S, answer_of, edgebed, press_ctrl_c, start


def look(runs: Path) -> dict[str, Any]:
    return answer_of(edgebed("watch", "cross_entropy-dc-drl", "--runs", runs, "--json"))


def test_a_training_is_watched(tmp_path: Path) -> None:
    training = start("train", *CROSS_ENTROPY, "--steps", "200000", "--runs", tmp_path)
    metrics = tmp_path / "cross_entropy-dc-drl" / "latest" / "metrics.jsonl"
    deadline_s = time.monotonic() + PATIENCE_S
    while not (metrics.is_file() and metrics.stat().st_size):
        assert time.monotonic() < deadline_s
        assert training.poll() is None
        time.sleep(0.05)
    found = look(tmp_path)
    assert (found["state"], found["going_on"], found["left"]) == ("running", True, False)
    assert 0 < found["terminal"] < found["planned"] == 200_000
    assert found["measures"]
    press_ctrl_c(training)
    training.communicate(timeout=PATIENCE_S)
    shown = edgebed("watch", "cross_entropy-dc-drl", "--runs", tmp_path, status=1).stdout
    assert "interrupted | " in shown
    assert "edgebed resume" in shown
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert look(tmp_path)["terminal"] == lines[-1]["steps"]
