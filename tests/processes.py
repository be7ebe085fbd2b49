"""Waiting for processes that are not the test's own children."""

from __future__ import annotations

import os
import select
from contextlib import suppress

PATIENCE_S = 10.0


def await_end(pid: int) -> None:
    """Wait until a process has ended: it is gone, or a zombie that nobody has reaped yet.

    A killed process ends only when the kernel next runs it, so to look once, right after the kill, is to guess.

    Raises:
        AssertionError: it still ran after ten seconds.
    """
    with suppress(ProcessLookupError):
        watched = os.pidfd_open(pid)
        try:
            assert select.select([watched], [], [], PATIENCE_S)[0], f"{pid} still runs after {PATIENCE_S:g} s"
        finally:
            os.close(watched)
