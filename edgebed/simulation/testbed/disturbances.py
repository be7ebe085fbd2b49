"""What disturbs hosts for a time: a processor that is kept slower, a link that is slower or later. Exact at the edges.

Nothing here is drawn: the same disturbances meet every policy at the same instants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Throttled:
    """A host computes at a share of its speed.

    Attributes:
        from_s, until_s: instants of the cell.
        fraction: of its speed; 0: its program stands still.
    """

    from_s: float
    until_s: float
    fraction: float


@dataclass(frozen=True, slots=True)
class SlowLink:
    """A device's link is slower, or later.

    Attributes:
        from_s, until_s: instants of the cell.
        rate_bps: that it carries at most; infinite: as before.
        delay_s: more than before, one way.
    """

    from_s: float
    until_s: float
    rate_bps: float = math.inf
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Disturbances:
    """All of a cell, by index of the host; those of one host in the order of time and apart from each other."""

    devices: Mapping[int, Sequence[Throttled]] = field(default_factory=dict)
    servers: Mapping[int, Sequence[Throttled]] = field(default_factory=dict)
    links: Mapping[int, Sequence[SlowLink]] = field(default_factory=dict)

    def link_at(self, device: int, now_s: float) -> SlowLink | None:
        """What a device's link suffers now; None: nothing. A transfer has its link's state at its begin all the way."""
        for each in self.links.get(device, ()):
            if each.from_s <= now_s < each.until_s:
                return each
        return None

    def link_delays_s(self, devices: int, now_s: float) -> list[float]:
        """How much later than before a message to or from each device comes that is sent now."""
        found = (self.link_at(device, now_s) for device in range(devices))
        return [0.0 if link is None else link.delay_s for link in found]


def stretched_s(throttled: Sequence[Throttled], begin_s: float, compute_s: float) -> float:
    """How long a computation lasts that begins now.

    Args:
        throttled: of its host, in the order of time.
        begin_s: when it begins.
        compute_s: what it would take undisturbed.
    """
    now_s, left_s = begin_s, compute_s
    for each in throttled:
        if each.until_s <= now_s:
            continue
        before_s = max(0.0, each.from_s - now_s)
        if left_s <= before_s:
            break
        now_s, left_s = now_s + before_s, left_s - before_s
        inside_s = each.until_s - now_s
        if left_s <= inside_s * each.fraction:
            return now_s + left_s / each.fraction - begin_s
        now_s, left_s = each.until_s, left_s - inside_s * each.fraction
    # Undisturbed it is exactly what it was, without the rounding of instants.
    return compute_s if now_s == begin_s else now_s + left_s - begin_s


def stood_still_s(throttled: Sequence[Throttled], begin_s: float, compute_s: float) -> float:
    """How much of a computation's time its program stood still; arguments as in `stretched_s`, and what it gave."""
    end_s = begin_s + compute_s
    still = (each for each in throttled if each.fraction == 0.0)
    return sum(max(0.0, min(each.until_s, end_s) - max(each.from_s, begin_s)) for each in still)


def combined(throttled: Sequence[Throttled]) -> list[Throttled]:
    """The same in the order of time and apart from each other; where two meet, the slower one holds."""
    edges = sorted({instant for each in throttled for instant in (each.from_s, each.until_s)})
    found = []
    for from_s, until_s in itertools.pairwise(edges):
        inside = [each.fraction for each in throttled if each.from_s <= from_s and until_s <= each.until_s]
        if inside:
            found.append(Throttled(from_s, until_s, min(inside)))
    return found
