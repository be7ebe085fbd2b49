"""Where a training lies; apart from its plan, so that whoever looks for one need not load numpy."""

from __future__ import annotations

from pathlib import Path

from edgebed.trace.runs import LATEST

TRAINING_FILE = "training.yaml"


def find_training(where: Path) -> Path | None:
    """The training's folder that a path means: itself, or the latest of its; None when it is no training's."""
    for folder in (where, where / LATEST):
        try:
            if (folder / TRAINING_FILE).is_file():
                return folder.resolve()
        except OSError:  # a name that is too long for one, say
            continue
    return None
