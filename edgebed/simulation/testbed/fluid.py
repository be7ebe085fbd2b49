"""A shaped channel as a fluid, as edge servers arbitrate it: its uploads share it equally, or disturb each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


class Channel:
    """One channel of one server, exact between two changes.

    Attributes:
        version: rises with every change; what was foretold under an older one does not come.
    """

    __slots__ = ("_at_s", "_left_bits", "_rate_bps", "version")

    def __init__(self, rate_bps: float) -> None:
        self._rate_bps = rate_bps
        self._at_s = 0.0
        self._left_bits: dict[Any, float] = {}
        self.version = 0

    def fork(self, of: Callable[[Any], Any]) -> Channel:
        """The same channel, to go on apart from this one, with each upload as ``of`` it."""
        other = Channel(self._rate_bps)
        other._at_s, other.version = self._at_s, self.version
        other._left_bits = {of(key): left for key, left in self._left_bits.items()}
        return other

    def __len__(self) -> int:
        return len(self._left_bits)

    def __contains__(self, key: Any) -> bool:
        return key in self._left_bits

    def _carry_to(self, now_s: float) -> None:
        if now_s <= self._at_s:
            return  # nothing passes while its server stands still
        if self._left_bits:
            carried = self._rate_bps / len(self._left_bits) * (now_s - self._at_s)
            for key in self._left_bits:
                self._left_bits[key] -= carried
        self._at_s = now_s

    def join(self, key: Any, size_bits: float, now_s: float) -> None:
        """An upload begins."""
        self._carry_to(now_s)
        self._left_bits[key] = size_bits
        self.version += 1

    def leave(self, key: Any, now_s: float) -> None:
        """An upload is given up, or carried."""
        self._carry_to(now_s)
        self._left_bits.pop(key, None)
        self.version += 1

    def left_bits(self, key: Any, now_s: float) -> float:
        """What an upload still has to send."""
        self._carry_to(now_s)
        return max(0.0, self._left_bits[key])

    def stand_still(self, now_s: float, until_s: float) -> None:
        """Nothing passes until then."""
        self._carry_to(now_s)
        self._at_s = until_s
        self.version += 1

    @property
    def first(self) -> Any:
        """One of its uploads; None when it has none."""
        return next(iter(self._left_bits), None)

    def next_carried(self) -> tuple[float, Any] | None:
        """When the next upload will be carried if nothing changes, and which; the first to join wins a tie."""
        if not self._left_bits:
            return None
        key = min(self._left_bits, key=self._left_bits.__getitem__)
        share_bps = self._rate_bps / len(self._left_bits)
        return self._at_s + max(0.0, self._left_bits[key]) / share_bps, key


class InterferingChannel(Channel):
    """One whose uploads disturb each other: each is carried at a rate of its own.

    Args:
        rates_bps: of uploads that are in progress together, from the power of each at the server.
        power_w: of an upload's signal at the server.
    """

    __slots__ = ("_power_w", "_rates", "_rates_bps")

    def __init__(self, rates_bps: Callable[[Sequence[float]], list[float]], power_w: Callable[[Any], float]) -> None:
        super().__init__(0.0)
        self._rates_bps, self._power_w = rates_bps, power_w
        self._rates: list[float] = []

    def fork(self, of: Callable[[Any], Any]) -> InterferingChannel:
        """See `Channel.fork`."""
        other = InterferingChannel(self._rates_bps, self._power_w)
        other._at_s, other.version = self._at_s, self.version
        other._left_bits = {of(key): left for key, left in self._left_bits.items()}
        other._rates = list(self._rates)
        return other

    def _carry_to(self, now_s: float) -> None:
        if now_s <= self._at_s:
            return
        for key, rate_bps in zip(self._left_bits, self._rates, strict=True):
            self._left_bits[key] -= rate_bps * (now_s - self._at_s)
        self._at_s = now_s

    def join(self, key: Any, size_bits: float, now_s: float) -> None:
        """See `Channel.join`."""
        super().join(key, size_bits, now_s)
        self._change()

    def leave(self, key: Any, now_s: float) -> None:
        """See `Channel.leave`."""
        super().leave(key, now_s)
        self._change()

    def _change(self) -> None:
        powers_w = [self._power_w(key) for key in self._left_bits]
        self._rates = self._rates_bps(powers_w) if powers_w else []

    def next_carried(self) -> tuple[float, Any] | None:
        """See `Channel.next_carried`."""
        found: tuple[float, Any] | None = None
        for (key, left_bits), rate_bps in zip(self._left_bits.items(), self._rates, strict=True):
            carried_s = self._at_s + max(0.0, left_bits) / rate_bps if rate_bps > 0.0 else math.inf
            if carried_s < (math.inf if found is None else found[0]):
                found = carried_s, key
        return found
