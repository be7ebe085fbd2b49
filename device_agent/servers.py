"""An edge server as this device sees it: a link, and whether it is worth waiting for."""

from __future__ import annotations

from collections.abc import Callable

from edgebed.protocol.link import Link
from edgebed.protocol.liveness import ClockOffset
from edgebed.protocol.messages import CHUNK_BYTES, WINDOW_CHUNKS, AnyMessage, TaskMessage


class ServerLink:
    """The link to one edge server.

    It is reachable from its first welcome until it is lost. In between the link may be down for a moment, because the
    server was restarted or has forgotten us: then uploads wait, for at most as long as a silence may last.

    Args:
        open_link: makes the link with these callbacks for up and lost.
        back, gone: told when it has welcomed us (the flag: as another process than before) and when it is lost.
        patience_s: how long it may take to reconnect.
    """

    def __init__(
        self,
        open_link: Callable[[Callable[[bool], None], Callable[[str], None]], Link[TaskMessage]],
        back: Callable[[bool], None],
        gone: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._back = back
        self._gone = gone
        self._patience_s = patience_s
        self._down_since_s: float | None = None
        self.is_reachable = False
        self.link = open_link(self._up, self._lost)

    @property
    def name(self) -> str:
        """The inventory's name of the server."""
        return self.link.address.name

    @property
    def is_up(self) -> bool:
        """Can messages be sent now?"""
        return self.link.is_up

    @property
    def load(self) -> list[float]:
        """Its features as it last told them; empty when it has not."""
        return self.link.load

    @property
    def offset(self) -> ClockOffset:
        """Its clock - own clock."""
        return self.link.offset

    def limits(self) -> tuple[int, int]:
        """Bytes of a chunk, and chunks of the initial window."""
        welcome = self.link.welcome
        if welcome is None or not welcome.chunk_bytes or not welcome.window_chunks:
            return CHUNK_BYTES, WINDOW_CHUNKS
        return welcome.chunk_bytes, welcome.window_chunks

    def send(self, message: AnyMessage, payload: bytes | memoryview | None = None) -> bool:
        """Send; False when the link is down or its buffer is full."""
        return self.link.is_up and self.link.send(message, payload)

    def check(self, now_s: float) -> None:
        """Give it up when it has not come back for too long."""
        if self.link.is_up or not self.is_reachable:
            self._down_since_s = None
        elif self._down_since_s is None:
            self._down_since_s = now_s
        elif now_s - self._down_since_s > self._patience_s:
            self._lost(f"{self.name} did not come back within {self._patience_s:g} s")

    def _up(self, restarted: bool) -> None:
        self.is_reachable = True
        self._back(restarted)

    def _lost(self, reason: str) -> None:
        if self.is_reachable:
            self.is_reachable = False
            self._gone(reason)
