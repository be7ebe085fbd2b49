"""Whether a folder that is watched is still there, and whether anybody still works on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgebed.errors import BadInput

LEFT_AFTER_S = 5.0
"""What nobody on this machine works on, and has not ended, may be just being started for so long."""


@contextmanager
def looking(folder: Path, plan_file: str) -> Iterator[None]:
    """Look at a folder that somebody may take away meanwhile.

    Args:
        folder: of a run or a training.
        plan_file: the file in it that tells what it is.

    Raises:
        BadInput: it has gone, or cannot be read.
    """
    try:
        (folder / plan_file).stat()
        yield
    except OSError as error:
        told = f"{error.strerror or error}: {error.filename or folder}"
        raise BadInput(
            f"{folder}: can no longer be watched: {told}; was it moved or deleted? `edgebed runs` lists what there is"
        ) from None


def last_written_s(paths: Iterable[Path]) -> float:
    """When the newest of these was written, in seconds since 1970; 0 when none of them is there."""
    written_s = [0.0]
    for path in paths:
        with suppress(FileNotFoundError):  # asked first, it could vanish before the answer is used
            written_s.append(path.stat().st_mtime)
    return max(written_s)


def is_left(is_going_on: bool | None, written_s: float, utc_s: float) -> bool:
    """Does nobody work on it any more, of what has not ended?

    Args:
        is_going_on: as `edgebed.exclusive.is_taken` says it.
        written_s: when something of it was written last, in seconds since 1970.
        utc_s: now.
    """
    return is_going_on is False and utc_s - written_s > LEFT_AFTER_S
