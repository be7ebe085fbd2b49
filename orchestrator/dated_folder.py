"""Folders named by the time at which they were made: none is ever used twice, and ``latest`` points to the newest."""

from __future__ import annotations

import os
from datetime import datetime
from itertools import count
from pathlib import Path

from edgebed.clock import utc_now
from edgebed.errors import RunConflict
from edgebed.trace.runs import LATEST

TIME_FORMAT = "%Y%m%dT%H%M%SZ"


def new_folder(parent: Path, now: datetime | None = None) -> Path:
    """Make ``<parent>/<UTC time>``; a second one in the same second gets ``-2`` behind its time.

    Args:
        parent: made where it is missing.
        now: what time it is, UTC.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    time = (now or utc_now()).strftime(TIME_FORMAT)
    for number in count(1):
        folder = parent / (time if number == 1 else f"{time}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("unreachable")


def point_latest(folder: Path, what: str) -> None:
    """Let ``latest`` beside a folder point to it.

    Args:
        folder: the newest.
        what: of what, in a word.

    Raises:
        RunConflict: ``latest`` is something else than a link.
    """
    latest = folder.parent / LATEST
    if latest.exists() and not latest.is_symlink():
        raise RunConflict(f"{latest}: is not the link that edgebed makes to the newest {what}; move it away")
    # A link cannot be changed in place; a new one takes its name in one step, so that there is always one.
    fresh = folder.parent / f".{LATEST}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(latest)
