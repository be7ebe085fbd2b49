"""How a link treats frames: rate, delay, jitter, loss. Pure: time and randomness are arguments.

One `Shaper` is one direction. A frame first waits for those before it, is then sent at the link's rate, and arrives a
delay later. What ``tc-netem(8)`` does with ``rate``, ``delay``, ``loss`` and a queue, except that frames never overtake
each other: Wi-Fi delivers in order too.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from edgebed.errors import BadInput, Problem

QUEUE_S = 0.1
"""A queue holds what the link sends in so long; a frame more is dropped, as by an access point."""

SMALLEST_QUEUE_BYTES = 64 * 1024
MOST_DELAY_S = 60.0
MOST_RATE_BPS = 1e11


@dataclass(frozen=True, slots=True)
class LinkShape:
    """What a link is asked to be, the same in both directions.

    Attributes:
        rate_bps: bits a second, Ethernet header included, as netem counts; 0 = as fast as the machine.
        delay_s: one way.
        jitter_s: the delay of a frame is uniform in delay_s -+ jitter_s.
        loss: fraction of frames lost, 0 to 1.
    """

    rate_bps: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise BadInput(problems)

    def _problems(self) -> list[Problem]:
        ranges = {
            "rate_bps": (self.rate_bps, 0.0, MOST_RATE_BPS, "bits a second, 0 meaning unlimited"),
            "delay_s": (self.delay_s, 0.0, MOST_DELAY_S, "seconds"),
            "jitter_s": (self.jitter_s, 0.0, self.delay_s, "seconds, at most the delay"),
            "loss": (self.loss, 0.0, 1.0, "as a fraction"),
        }
        return [
            Problem(f"{value!r} is out of range; allowed is {low:g} to {high:g} {unit}", key=f"link: {name}")
            for name, (value, low, high, unit) in ranges.items()
            if not (math.isfinite(value) and low <= value <= high)
        ]

    @property
    def is_shaped(self) -> bool:
        """Whether it differs at all from a plain cable."""
        return self != LinkShape()

    def to_plain(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def shape_from_plain(plain: dict[str, Any]) -> LinkShape:
    """The shape of `LinkShape.to_plain`."""
    return LinkShape(**{key: float(value) for key, value in plain.items()})


class Shaper:
    """One direction of a link.

    Args:
        shape: what to be; may be replaced at any time, frames under way keep their arrival.
        rng: for jitter and loss.

    Attributes:
        dropped: frames lost so far, by ``loss`` or by a full queue.
    """

    def __init__(self, shape: LinkShape, rng: random.Random) -> None:
        self.shape = shape
        self.dropped = 0
        self._rng = rng
        self._sent_s = 0.0  # when the last frame has left the sender
        self._arrived_s = 0.0  # when it arrives
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def due_s(self) -> float:
        """When the next frame arrives; infinite when none is under way."""
        return self._under_way[0][0] if self._under_way else math.inf

    def offer(self, frame: bytes, now_s: float) -> None:
        """Take a frame that comes in now."""
        shape = self.shape
        if shape.loss and self._rng.random() < shape.loss:
            self.dropped += 1
            return
        sent_s = now_s
        if shape.rate_bps:
            start_s = max(now_s, self._sent_s)
            longest_s = max(QUEUE_S, SMALLEST_QUEUE_BYTES * 8 / shape.rate_bps)
            if start_s - now_s > longest_s:
                self.dropped += 1
                return
            sent_s = self._sent_s = start_s + len(frame) * 8 / shape.rate_bps
        delay_s = shape.delay_s
        if shape.jitter_s:
            delay_s += self._rng.uniform(-shape.jitter_s, shape.jitter_s)
        self._arrived_s = max(self._arrived_s, sent_s + delay_s)
        self._under_way.append((self._arrived_s, frame))

    def take_due(self, now_s: float) -> list[bytes]:
        """The frames that have arrived by now, in order."""
        due = []
        while self._under_way and self._under_way[0][0] <= now_s:
            due.append(self._under_way.popleft()[1])
        return due

    def forget(self) -> None:
        """Lose all that is under way, as when a link is cut."""
        self.dropped += len(self._under_way)
        self._under_way.clear()
        self._sent_s = self._arrived_s = 0.0
