"""From a host's outbox to the run folder: rows go out in batches, and again until they are acknowledged."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgebed.protocol.messages import Records
from edgebed.trace.outbox import Outbox

BATCH_ROWS = 200
WINDOW_ROWS = 1000
"""Rows that may be on their way without an acknowledgement."""

RESEND_S = 3.0

_encode = msgspec.msgpack.Encoder().encode


class Reporter:
    """Sends committed rows of an outbox, in order, at most a window ahead of what was acknowledged.

    Args:
        member: whose rows they are, as the receiver knows it.
        send: hands a batch to the link; False when it is down.
    """

    def __init__(self, outbox: Outbox, member: str, send: Callable[[Records, bytes], bool]) -> None:
        self._outbox = outbox
        self._member = member
        self._send = send
        self._sent = 0
        self._acknowledged = 0
        self._in_flight = 0
        self._resend_s = 0.0

    def report(self, now_s: float) -> None:
        """Send what has been committed since; all that was not acknowledged again when it has taken too long."""
        if self._in_flight and now_s >= self._resend_s:
            self.restart()
        while self._in_flight < WINDOW_ROWS:
            batch = self._outbox.committed(self._sent, BATCH_ROWS)
            if not batch or not self._send(Records(self._member, batch[-1].sequence, len(batch)), _encode(batch)):
                return
            self._sent = batch[-1].sequence
            self._in_flight += len(batch)
            self._resend_s = now_s + RESEND_S

    def acknowledge(self, last: int, now_s: float) -> None:
        """The receiver has written all rows up to ``last``."""
        if last <= self._acknowledged:
            return
        self._acknowledged = last
        self._outbox.acknowledge(last)
        # Sequence numbers have no gaps within a program's life, so the window is a difference.
        self._in_flight = max(0, self._sent - last)
        self._resend_s = now_s + RESEND_S

    def restart(self) -> None:
        """Send again from the first row that was not acknowledged, for example after a reconnect."""
        self._sent = self._acknowledged
        self._in_flight = 0
