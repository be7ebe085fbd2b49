"""What is remembered of a run's cells, and what is said of tasks that nobody reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.errors import BadInput
from edgebed.types import Outcome
from orchestrator.attempts import ATTEMPT_FILE, Attempt, Attempts
from orchestrator.unreported import verdict_on
from workloads.arrivals import PlannedTask

CELLS = ["a-s1", "b-s1"]


def test_attempts_are_numbered_by_cell_and_by_run(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, CELLS)
    begun = [attempts.begin(cell) for cell in ("a-s1", "b-s1", "a-s1")]
    assert [(each.cell_id, each.attempt, each.serial) for each in begun] == [
        ("a-s1", 1, 1),
        ("b-s1", 1, 2),
        ("a-s1", 2, 3),
    ]
    assert attempts.latest("a-s1") is begun[2]
    assert attempts.with_serial(1) is begun[0]
    assert attempts.newest() is begun[2]


def test_attempts_are_found_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, CELLS)
    first = attempts.begin("a-s1")
    first.state, first.run_clock_s, first.down = "complete", 12.5, {"pi-1": 3.0}
    attempts.save(first)
    attempts.begin("b-s1")
    again = Attempts(tmp_path, CELLS)
    assert again.latest("a-s1") == first
    assert again.missing == ["b-s1"]
    assert again.begin("b-s1").serial == 3


def test_an_attempt_whose_file_was_never_written_is_not_used_again(tmp_path: Path) -> None:
    (tmp_path / "cells" / "a-s1" / "attempt-1").mkdir(parents=True)
    assert Attempts(tmp_path, CELLS).begin("a-s1").attempt == 2


def test_a_later_attempt_makes_a_complete_cell_missing_again(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, CELLS)
    first = attempts.begin("a-s1")
    first.state = "complete"
    attempts.save(first)
    assert attempts.missing == ["b-s1"]
    attempts.begin("a-s1")
    assert attempts.missing == CELLS, "the tables are made from the newest attempt"


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    Attempts(tmp_path, CELLS).begin("a-s1")
    (tmp_path / "cells" / "a-s1" / "attempt-1" / ATTEMPT_FILE).write_text("{")
    with pytest.raises(BadInput, match=r"attempt-1/attempt\.json: cannot be understood"):
        Attempts(tmp_path, CELLS)


RAN = {"cell_id": "a-s1", "attempt": 1, "serial": 1, "run_clock_s": 10.0}


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (None, (Outcome.FAILED, "not_run")),
        (Attempt(cell_id="a-s1", attempt=1, serial=1), (Outcome.FAILED, "not_run")),
        (Attempt(**RAN), (Outcome.UNKNOWN, "lost")),
        (Attempt(**RAN, stopped_s=1.9), (Outcome.FAILED, "not_run")),
        (Attempt(**RAN, stopped_s=2.0), (Outcome.UNKNOWN, "lost")),
        (Attempt(**RAN, stopped_s=1.9, lost={"pi-1": "silent"}), (Outcome.UNKNOWN, "lost")),
        (Attempt(**RAN, down={"pi-1": 1.9}, lost={"pi-1": "dead"}), (Outcome.FAILED, "device_down")),
        (Attempt(**RAN, down={"pi-1": 2.0}, lost={"pi-1": "dead"}), (Outcome.UNKNOWN, "lost")),
        (Attempt(**RAN, down={"pi-2": 0.0}), (Outcome.UNKNOWN, "lost")),
    ],
    ids=[
        "no attempt",
        "never started",
        "silence",
        "came after the stop",
        "came with the stop",
        "nobody knows whether it heard the stop",
        "came when the program was certainly dead",
        "came when it may have lived",
        "another one was dead",
    ],
)
def test_what_is_said_of_a_task_that_nobody_reported(attempt: Attempt | None, expected: tuple[Outcome, str]) -> None:
    task = PlannedTask(index=0, content_id="x", offset_s=2.0, frames=1, deadline_s=1.0, epoch=1)
    assert verdict_on("pi-1", task, attempt) == expected
