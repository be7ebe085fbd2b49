"""A shaped channel as a fluid: its rate is shared equally by the uploads in progress, as edge servers arbitrate it."""

from __future__ import annotations

from collections.abc import Callable
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

    def _carry_to(self, now_s: float) -> None:
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

    def next_carried(self) -> tuple[float, Any] | None:
        """When the next upload will be carried if nothing changes, and which; the first to join wins a tie."""
        if not self._left_bits:
            return None
        key = min(self._left_bits, key=self._left_bits.__getitem__)
        share_bps = self._rate_bps / len(self._left_bits)
        return self._at_s + max(0.0, self._left_bits[key]) / share_bps, key
