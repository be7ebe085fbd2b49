"""Sleeping until something comes: how other threads wake the one that waits for sockets, and what it sleeps on."""

from __future__ import annotations

import os
import select
from contextlib import suppress

import zmq


class Waker:
    """A pipe in a poller.

    The waiting thread says when it is about to wait and then looks once more at what the others hand over; whoever
    hands something over does so first and calls `wake` after. That order, under the interpreter's lock, loses no
    wake-up, and a thread that is busy anyway costs the others no system call.

    Attributes:
        read_fd: what the poller watches.
        write_fd: what `wake` writes to.
        is_waiting: the thread waits, or is about to.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)
        self.is_waiting = False

    def fileno(self) -> int:
        """What pollers ask for."""
        return self.read_fd

    def will_wait(self) -> None:
        """The thread is about to wait; look at what was handed over after this and before waiting."""
        self.is_waiting = True

    def has_waited(self, is_readable: bool) -> None:
        """The thread is back; ``is_readable`` is what the poller said of the pipe."""
        self.is_waiting = False
        if is_readable:
            with suppress(BlockingIOError):
                os.read(self.read_fd, 4096)

    def wake(self) -> None:
        """From any thread: make the waiting thread come back, if it waits."""
        if self.is_waiting:
            self.is_waiting = False
            # A full pipe means that earlier calls have not been read yet: one is enough.
            with suppress(BlockingIOError):
                os.write(self.write_fd, b"x")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class Descriptors:
    """File descriptors to sleep on, those of ZeroMQ sockets among them; registers like `zmq.Poller`.

    Unlike there, the sockets themselves are not touched, so that other threads may use them meanwhile, under a lock.
    A socket's descriptor signals once: before sleeping its owner must have found nothing to receive, and must have sent
    nothing since (see ZMQ_FD in the manual of zmq_getsockopt).
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._of_socket: dict[zmq.Socket[bytes], int] = {}

    def watch(self, descriptor: int) -> None:
        """Sleep on a plain file descriptor too."""
        self._poll.register(descriptor, select.POLLIN)

    def register(self, socket: zmq.Socket[bytes], flags: int = zmq.POLLIN) -> None:
        """Sleep on a socket too; ``flags`` must be POLLIN."""
        descriptor = socket.getsockopt(zmq.FD)
        assert isinstance(descriptor, int)
        self._of_socket[socket] = descriptor
        self.watch(descriptor)

    def unregister(self, socket: zmq.Socket[bytes]) -> None:
        """Forget a socket; call before it is closed."""
        self._poll.unregister(self._of_socket.pop(socket))

    def sleep(self, timeout_ms: int) -> list[int]:
        """Sleep; returns the descriptors that have signalled, none when the time is over."""
        return [descriptor for descriptor, _ in self._poll.poll(timeout_ms)]

    def descriptor_of(self, socket: zmq.Socket[bytes]) -> int:
        """What a registered socket signals on."""
        return self._of_socket[socket]
