"""A port of this machine that leads to a port of a host, through its SSH connection.

For hosts that this machine cannot reach directly, as behind a jump host: plain TCP then goes where SSH goes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Protocol, runtime_checkable

from edgebed.errors import RemoteError
from orchestrator.remote.base import Remote
from orchestrator.remote.retrying import RetryingRemote

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 1 << 16


class Stream(Protocol):
    """What both ends of a tunnel's connection can do; a socket, or a channel of an SSH connection."""

    def recv(self, nbytes: int, /) -> bytes:
        """Some bytes; none at the end."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""
        ...

    def close(self) -> None:
        """End both directions."""
        ...


@runtime_checkable
class CanTunnel(Protocol):
    """A `Remote` that can open connections on its host's side."""

    @property
    def is_indirect(self) -> bool:
        """Is the host reached by a way that plain connections do not take?"""
        ...

    def open_stream(self, address: str, port: int) -> Stream:
        """Connect to a port that the host can reach.

        Raises:
            RemoteError: it cannot, or the host was lost.
        """
        ...


def tunnelling(remote: Remote) -> CanTunnel | None:
    """The ability of a remote, if it has it and needs it."""
    inner = remote.inner if isinstance(remote, RetryingRemote) else remote
    return inner if isinstance(inner, CanTunnel) and inner.is_indirect else None


class Tunnel:
    """Listens on loopback and hands every connection on; one that cannot be handed on is closed.

    Args:
        remote: connected; when it was lost meanwhile it is its matter to come back.
        address, port: as the host sees it.

    Attributes:
        port_here: where this machine connects to.
    """

    def __init__(self, remote: CanTunnel, address: str, port: int) -> None:
        self._remote = remote
        self._there = (address, port)
        self._server = socket.create_server((LOOPBACK, 0))
        self.port_here: int = self._server.getsockname()[1]
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="tunnel", daemon=True).start()

    def close(self) -> None:
        """End the tunnel and all that goes through it."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for connections
        self._server.close()
        with self._lock:
            streams, self._streams = self._streams, set()
        for stream in streams:
            _close(stream)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return  # closed
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._carry, args=(near,), name="tunnel", daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with closing(near):
            try:
                far = self._remote.open_stream(*self._there)
            except (RemoteError, OSError):
                return  # whoever connected sees the end of it, and tries again
            with self._lock:
                self._streams |= {near, far}
            back = threading.Thread(target=_pump, args=(far.recv, near), name="tunnel", daemon=True)
            back.start()
            _pump(near.recv, far)
            back.join()
            with self._lock:
                self._streams -= {near, far}


def _pump(receive: Callable[[int], bytes], into: Stream) -> None:
    """Carry bytes in one direction until either end is gone; then the other direction has no use, too."""
    with suppress(OSError, EOFError):
        while data := receive(_PIECE_BYTES):
            into.sendall(data)
    _close(into)


def _close(stream: Stream) -> None:
    with suppress(OSError, EOFError):
        if isinstance(stream, socket.socket):
            stream.shutdown(socket.SHUT_RDWR)  # wakes the thread that receives from it
    with suppress(OSError, EOFError):
        stream.close()
