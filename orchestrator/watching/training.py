"""A training, seen from its folder: status, settings and what was measured; no lock is taken and nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from edgebed.errors import BadInput, Problem
from edgebed.exclusive import is_taken
from edgebed.learning.metrics import METRICS_FILE, MetricLine, read_metrics
from edgebed.learning.status import STATUS_FILE, TrainingStatus, read_status
from edgebed.learning.training_place import TRAINING_FILE
from orchestrator.progress import Standing
from orchestrator.watching.presence import is_left, last_written_s, looking
from orchestrator.watching.view import View

_SHOWN = ("return_mean", "return_exploring")


class TrainingWatch:
    """Looks at a training again and again.

    Args:
        folder: the training's.
        utc_s: the wall clock, seconds since 1970.

    Raises:
        BadInput: it is not a training's, or its settings cannot be read.
    """

    def __init__(self, folder: Path, utc_s: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._utc_s = utc_s
        self._steps, self._seeds = _planned(folder / TRAINING_FILE)
        self._first: tuple[float, int] | None = None

    def look(self) -> View:
        """How the training stands now.

        Raises:
            BadInput: a file of it is damaged, or the folder has gone.
        """
        with looking(self.folder, TRAINING_FILE):
            # The lock first: whoever lets go of it has written everything before.
            is_going_on = is_taken(self.folder)
            status, lines = read_status(self.folder), read_metrics(self.folder)
            steps = lines[-1].steps if lines else 0
            rate = self._rate(steps) if is_going_on is not False else 0.0
            return self._view(status, is_going_on, steps, rate, tuple(_measured(lines)))

    def _view(
        self,
        status: TrainingStatus,
        is_going_on: bool | None,
        steps: int,
        rate: float,
        measures: tuple[tuple[str, float], ...],
    ) -> View:
        is_begun = status.state in ("planned", "running")
        left = is_begun and is_left(is_going_on, self._written_s(), self._utc_s())
        is_to_go_on = left or status.state in ("interrupted", "failed")
        return View(
            path=self.folder,
            kind="training",
            state=status.state,
            is_going_on=is_going_on,
            is_left=left,
            is_over=left or (not is_going_on and not is_begun),
            standing=Standing(
                doing="nobody works on it" if left else status.state,
                cells_done=self._seeds if status.state == "complete" else 0,
                cells=self._seeds,
                tasks_done=steps,
                tasks=self._steps,
                rate=rate,
                remaining_s=(self._steps - steps) / rate if rate > 0 else None,
                up=0,
                members=0,
            ),
            measures=measures,
            problems=(status.problem,) if status.problem else (),
            notes=(f"`edgebed resume {self.folder}` goes on",) if is_to_go_on else (),
        )

    def _written_s(self) -> float:
        return last_written_s(self.folder / name for name in (TRAINING_FILE, STATUS_FILE, METRICS_FILE))

    def _rate(self, steps: int) -> float:
        """Steps a second since the first look; 0 while nothing has come since."""
        written_s = last_written_s([self.folder / METRICS_FILE])
        if self._first is None or steps < self._first[1]:
            self._first = written_s, steps
        since_s, before = self._first
        return (steps - before) / (written_s - since_s) if written_s > since_s else 0.0


def _planned(path: Path) -> tuple[int, int]:
    """Steps a seed, and how many seeds; nothing else of the plan has to make sense for a look."""
    try:
        plan = yaml.safe_load(path.read_bytes())
        return int(plan["steps"]), len(plan["seeds"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError, OverflowError) as error:
        text = f"is not the plan of a training: {error!r}; take another copy of the training"
        raise BadInput(Problem(text, file=str(path))) from None


def _measured(lines: Sequence[MetricLine]) -> list[tuple[str, float]]:
    """The newest value of each return, as mean over the seeds for which it is known."""
    found: dict[str, float] = {}
    for line in lines:
        for name, values in (line.learning | line.evaluation).items():
            known = [value for value in values if value is not None]
            if name in _SHOWN and known:
                found[name] = math.fsum(known) / len(known)
    return [(name, found[name]) for name in _SHOWN if name in found]
