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


_LOCKS = Path("/proc/locks")


def is_taken(folder: Path, locks: Path = _LOCKS) -> bool | None:
    """Does a program of this machine work on a folder? Takes no lock, so that nobody who wants it is in the way.

    Args:
        folder: as given to `exclusive`.
        locks: the kernel's list of locks.

    Returns:
        None where the kernel has no such list (it is Linux's), or there is no such folder.
    """
    try:
        wanted = folder.stat()
        lines = locks.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    place = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:{wanted.st_ino}"
    # `1: FLOCK  ADVISORY  WRITE 1234 08:01:131074 0 EOF`; one that somebody waits for has `->` behind its number.
    return any(words[1:2] == ["FLOCK"] and place in words for words in (line.split() for line in lines))
