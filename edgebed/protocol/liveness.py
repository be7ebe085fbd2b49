"""Who is still alive, as pure state machines: time goes in, what to do comes out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edgebed.configuration import Liveness


@dataclass(slots=True)
class PeerLiveness:
    """Whether one peer is alive, from when it was last heard, and when to ask.

    Any message counts as a sign of life, so a busy link sends no extra traffic than one ping an interval.
    """

    limits: Liveness
    heard_s: float
    next_ping_s: float = 0.0

    def heard(self, now_s: float) -> None:
        """Something came from the peer."""
        self.heard_s = now_s

    def ping_due(self, now_s: float) -> bool:
        """Is it time to ask? Answering True starts the next interval."""
        if now_s < self.next_ping_s:
            return False
        self.next_ping_s = now_s + self.limits.heartbeat_s
        return True

    def dead(self, now_s: float) -> bool:
        """Has it been silent for too long?"""
        return now_s - self.heard_s > self.limits.dead_after_s


@dataclass(slots=True)
class Backoff:
    """Waiting times between tries: they double up to a limit, and are spread so that peers do not come in step.

    Attributes:
        spread: a number in [0, 1) that is this peer's own; the wait is between half and all of the nominal one.
    """

    first_s: float = 0.1
    limit_s: float = 2.0
    spread: float = 0.0
    tries: int = 0

    def next_wait_s(self) -> float:
        """How long to wait before the next try."""
        nominal = min(self.limit_s, self.first_s * 2.0 ** min(self.tries, 30))
        self.tries += 1
        return nominal * (1.0 - 0.5 * self.spread)

    def reset(self) -> None:
        """A try succeeded."""
        self.tries = 0


@dataclass(slots=True)
class ClockOffset:
    """Estimate of ``peer clock - own clock`` from pings, with a bound on its error.

    Of the recent exchanges the one with the least round trip is used: the offset lies within half of it (Mills,
    RFC 5905). Exchanges older than ``keep`` pings are forgotten, so that drift cannot grow unseen.
    """

    keep: int = 32
    _exchanges: deque[tuple[float, float]] = field(default_factory=deque)
    round_trip_s: float | None = None
    offset_s: float | None = None

    @property
    def error_s(self) -> float | None:
        """Half of the least round trip; None before the first exchange."""
        return None if self.round_trip_s is None else self.round_trip_s / 2

    def add(self, sent_s: float, received_s: float, replied_s: float, back_s: float) -> None:
        """Learn from one exchange; ``sent`` and ``back`` are own stamps, the others the peer's.

        Stamps that cannot be (not finite, a negative round trip) are ignored: they come from outside.
        """
        round_trip = (back_s - sent_s) - (replied_s - received_s)
        if not 0.0 <= round_trip < 1e6:
            return
        offset = ((received_s - sent_s) + (replied_s - back_s)) / 2
        self._exchanges.append((round_trip, offset))
        if len(self._exchanges) > self.keep:
            self._exchanges.popleft()
        self.round_trip_s, self.offset_s = min(self._exchanges)

    def reset(self) -> None:
        """Forget everything: the peer is another process now."""
        self._exchanges.clear()
        self.round_trip_s = self.offset_s = None

    def to_own(self, peer_s: float) -> float:
        """An instant of the peer's clock on the own clock; unchanged while the offset is unknown."""
        return peer_s - (self.offset_s or 0.0)
