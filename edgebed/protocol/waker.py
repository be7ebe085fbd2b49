"""How other threads wake the one that waits for sockets: a pipe, written to only when that thread may be asleep."""

from __future__ import annotations

import os
from contextlib import suppress


class Waker:
    """A pipe in a poller.

    The waiting thread says when it is about to wait and then looks once more at what the others hand over; whoever
    hands something over does so first and calls `wake` after. That order, under the interpreter's lock, loses no
    wake-up, and a thread that is busy anyway costs the others no system call.

    Attributes:
        read_fd: what the poller watches.
        write_fd: for `signal.set_wakeup_fd`.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)
        self._waiting = False

    def fileno(self) -> int:
        """What pollers ask for."""
        return self.read_fd

    def will_wait(self) -> None:
        """The thread is about to wait; look at what was handed over after this and before waiting."""
        self._waiting = True

    def has_waited(self, is_readable: bool) -> None:
        """The thread is back; ``is_readable`` is what the poller said of the pipe."""
        self._waiting = False
        if is_readable:
            with suppress(BlockingIOError):
                os.read(self.read_fd, 4096)

    def wake(self) -> None:
        """From any thread: make the waiting thread come back, if it waits."""
        if self._waiting:
            self._waiting = False
            # A full pipe means that earlier calls have not been read yet: one is enough.
            with suppress(BlockingIOError):
                os.write(self.write_fd, b"x")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.read_fd)
        os.close(self.write_fd)
