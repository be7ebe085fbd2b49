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
from edgebed.learning.status import STATUS_FILE, read_status
from edgebed.learning.training_plan import TRAINING_FILE
from orchestrator.progress import Standing
from orchestrator.watching.view import View

LEFT_AFTER_S = 5.0
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
            BadInput: a file of it is damaged.
        """
        is_going_on = is_taken(self.folder)
        status = read_status(self.folder)
        lines = read_metrics(self.folder)
        is_left = status.state in ("planned", "running") and is_going_on is False and self._quiet_s() > LEFT_AFTER_S
        steps = lines[-1].steps if lines else 0
        rate = self._rate(steps) if is_going_on is not False else 0.0
        return View(
            path=self.folder,
            kind="training",
            state=status.state,
            is_going_on=is_going_on,
            is_left=is_left,
            is_over=is_left or (not is_going_on and status.state not in ("planned", "running")),
            standing=Standing(
                doing="nobody works on it" if is_left else status.state,
                cells_done=self._seeds if status.state == "complete" else 0,
                cells=self._seeds,
                tasks_done=steps,
                tasks=self._steps,
                rate=rate,
                remaining_s=(self._steps - steps) / rate if rate > 0 else None,
                up=0,
                members=0,
            ),
            measures=tuple(_measured(lines)),
            problems=(status.problem,) if status.problem else (),
            notes=(f"it goes on by `edgebed resume {self.folder}`",)
            if is_left or status.state == "interrupted"
            else (),
        )

    def _quiet_s(self) -> float:
        paths = [self.folder / name for name in (TRAINING_FILE, STATUS_FILE, METRICS_FILE)]
        return self._utc_s() - max(path.stat().st_mtime for path in paths if path.exists())

    def _rate(self, steps: int) -> float:
        """Steps a second since the first look; 0 while nothing has come since."""
        path = self.folder / METRICS_FILE
        if not path.exists():
            return 0.0
        written_s = path.stat().st_mtime
        if self._first is None or steps < self._first[1]:
            self._first = written_s, steps
        since_s, before = self._first
        return (steps - before) / (written_s - since_s) if written_s > since_s else 0.0


def _planned(path: Path) -> tuple[int, int]:
    """Steps a seed, and how many seeds; nothing else of the plan has to make sense for a look."""
    try:
        plan = yaml.safe_load(path.read_bytes())
        return int(plan["steps"]), len(plan["seeds"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise BadInput(Problem(f"is not the plan of a training: {error!r}", file=str(path))) from None


def _measured(lines: Sequence[MetricLine]) -> list[tuple[str, float]]:
    """The newest value of each return, as mean over the seeds for which it is known."""
    found: dict[str, float] = {}
    for line in lines:
        for name, values in (line.learning | line.evaluation).items():
            known = [value for value in values if value is not None]
            if name in _SHOWN and known:
                found[name] = math.fsum(known) / len(known)
    return [(name, found[name]) for name in _SHOWN if name in found]
