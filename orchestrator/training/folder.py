"""A training's folder: ``<runs>/<learner>-<scenario>/<UTC time>/``, and ``latest`` beside it."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from edgebed.errors import BadInput, Problem, RunConflict
from edgebed.learning.training_plan import TRAINING_FILE, TrainingPlan

LATEST = "latest"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"


def create_training_folder(plan: TrainingPlan, runs: Path, now: datetime | None = None) -> Path:
    """Make the folder with the plan in it, and point ``latest`` to it; one that exists is never used again.

    Raises:
        BadInput: the folder cannot be made.
        RunConflict: ``latest`` is something else than a link.
    """
    parent = runs / f"{_plain(plan.learner)}-{_plain(plan.scenario)}"
    time = (now or datetime.now(UTC)).strftime(TIME_FORMAT)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(parent, time)
    except OSError as error:
        raise BadInput(Problem(f"no folder can be made here: {error.strerror}", file=str(parent))) from None
    (folder / TRAINING_FILE).write_text(plan.to_yaml(), encoding="utf-8")
    _point_latest(parent, folder.name)
    return folder


def find_training(where: Path) -> Path | None:
    """The training's folder that a path means: itself, or the latest of its; None when it is no training's."""
    for folder in (where, where / LATEST):
        if (folder / TRAINING_FILE).is_file():
            return folder.resolve()
    return None


def _plain(name: str) -> str:
    """A name for a folder; of a scenario that is read from a file, the file's own name."""
    kind, _, path = name.partition(":")
    if path:
        name = f"{kind}-{Path(path).stem}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def _new_folder(parent: Path, time: str) -> Path:
    for number in count(1):
        folder = parent / (time if number == 1 else f"{time}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def _point_latest(parent: Path, name: str) -> None:
    latest = parent / LATEST
    if latest.exists() and not latest.is_symlink():
        raise RunConflict(f"{latest}: is not the link that edgebed makes to the newest training; move it away")
    # A link cannot be changed in place; a new one takes its name in one step, so that there is always one.
    fresh = parent / f".{LATEST}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(latest)
