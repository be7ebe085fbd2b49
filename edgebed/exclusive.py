"""A folder that one program works on at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebed.errors import BadInput, RunConflict


@contextmanager
def exclusive(folder: Path, what: str, doing: str) -> Iterator[None]:
    """Work on a folder for the length of a ``with`` block; nobody else can meanwhile, and nothing is left behind.

    Args:
        folder: whose lock is taken; it goes with the process, however that ends.
        what: what it should be the folder of, in a word.
        doing: what another edgebed does there, for the error.

    Raises:
        RunConflict: somebody works on it already.
        BadInput: there is no such folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput(f"{folder}: is not the folder of a {what}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunConflict(f"{folder}: another edgebed is {doing}; wait for it, or stop it") from None
        yield
    finally:
        os.close(descriptor)
