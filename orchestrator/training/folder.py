"""A training's folder: ``<runs>/<learner>-<scenario>/<UTC time>/``, and ``latest`` beside it."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from edgebed.errors import BadInput, Problem
from edgebed.learning.training_place import TRAINING_FILE
from edgebed.learning.training_plan import TrainingPlan
from orchestrator.dated_folder import new_folder, point_latest


def create_training_folder(plan: TrainingPlan, runs: Path, now: datetime | None = None) -> Path:
    """Make the folder with the plan in it, and point ``latest`` to it; one that exists is never used again.

    Raises:
        BadInput: the folder cannot be made.
        RunConflict: ``latest`` is something else than a link.
    """
    parent = runs / f"{_plain(plan.learner)}-{_plain(plan.scenario)}"
    try:
        folder = new_folder(parent, now)
    except OSError as error:
        raise BadInput(Problem(f"no folder can be made here: {error.strerror}", file=str(parent))) from None
    (folder / TRAINING_FILE).write_text(plan.to_yaml(), encoding="utf-8")
    point_latest(folder, "training")
    return folder


def _plain(name: str) -> str:
    """A name for a folder; of a scenario that is read from a file, the file's own name."""
    kind, _, path = name.partition(":")
    if path:
        name = f"{kind}-{Path(path).stem}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
