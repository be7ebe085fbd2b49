"""Ctrl-C and SIGTERM as something to look at, instead of an exception in the middle of something."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Someone has asked to stop; nothing is wrong."""


class Interrupts:
    """How often someone has asked to stop; once means in order, twice means at once.

    Attributes:
        count: rises with every signal.
        read_fd: becomes readable with a signal, so that a poller wakes up.
    """

    def __init__(self) -> None:
        self.count = 0
        self.read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def interrupt(self) -> None:
        """Someone asks to stop."""
        self.count += 1
        with suppress(BlockingIOError):
            os.write(self._write_fd, b"x")

    def drain(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        with suppress(BlockingIOError):
            while os.read(self.read_fd, 4096):
                pass

    @contextmanager
    def listening(self) -> Iterator[Interrupts]:
        """Take the signals over for the length of a ``with`` block; only in the main thread."""

        def note(number: int, frame: FrameType | None) -> None:
            self.interrupt()

        before = {number: signal.signal(number, note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.read_fd)
        os.close(self._write_fd)
