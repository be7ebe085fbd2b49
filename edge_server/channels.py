"""Virtual channels: when an upload may send its next chunk. Pure: time goes in, credits come out.

A channel carries the uploads in progress on it as a fluid: each at a rate of its own (see `edge_server.shaping`), which
changes whenever an upload begins or ends there. A chunk is credited at the instant at which the channel would have
finished carrying it. Instants are computed, not counted in ticks, so being asked late delays a grant and not the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K")

RateRule = Callable[[int, Sequence[K]], Sequence[float]]
"""Rates in bit/s of the uploads that are in progress on a channel: (channel, uploads) -> a rate each, in order."""


def equal_shares(rate_bps: float) -> RateRule[object]:
    """The rule of ``share``: every upload on a channel gets the same part of its rate."""

    def rates(channel: int, uploads: Sequence[object]) -> Sequence[float]:
        return [rate_bps / len(uploads)] * len(uploads)

    return rates


@dataclass(slots=True, eq=False)
class _Upload(Generic[K]):
    key: K
    channel: int
    size_bits: float
    chunk_bits: float
    joined_s: float
    carried_bits: float = 0.0
    granted: int = 0
    rate_bps: float = 0.0

    @property
    def chunks(self) -> int:
        return math.ceil(self.size_bits / self.chunk_bits)

    def next_s(self, now_s: float) -> float:
        """When its next chunk will have been carried, if nothing changes."""
        if self.rate_bps <= 0.0:
            return math.inf
        wanted_bits = min(self.size_bits, (self.granted + 1) * self.chunk_bits)
        return now_s + max(0.0, wanted_bits - self.carried_bits) / self.rate_bps


@dataclass(frozen=True, slots=True)
class Grant(Generic[K]):
    """More chunks for an upload.

    Attributes:
        mean_bps: for the last chunk, the mean rate that the whole upload got; else 0.
    """

    key: K
    chunks: int
    mean_bps: float = 0.0


@dataclass(slots=True)
class _Channel(Generic[K]):
    """Exact between two changes: all its uploads are brought up to ``at_s`` together."""

    number: int
    rule: RateRule[K]
    at_s: float = 0.0
    uploads: list[_Upload[K]] = field(default_factory=list)

    def due_s(self) -> float:
        return min((upload.next_s(self.at_s) for upload in self.uploads), default=math.inf)

    def carry_to(self, instant_s: float) -> None:
        for upload in self.uploads:
            upload.carried_bits += upload.rate_bps * (instant_s - self.at_s)
        self.at_s = instant_s

    def change(self) -> None:
        if not self.uploads:
            return
        rates = self.rule(self.number, [upload.key for upload in self.uploads])
        for upload, rate_bps in zip(self.uploads, rates, strict=True):
            upload.rate_bps = rate_bps

    def advance(self, now_s: float) -> list[Grant[K]]:
        """Everything that happens up to ``now_s``, in order."""
        grants: list[Grant[K]] = []
        while (instant_s := self.due_s()) <= now_s:
            due = [upload for upload in self.uploads if upload.next_s(self.at_s) <= instant_s]
            self.carry_to(instant_s)
            grants += [self._grant(upload) for upload in due]
        self.carry_to(max(now_s, self.at_s))
        return grants

    def _grant(self, upload: _Upload[K]) -> Grant[K]:
        upload.granted += 1
        # What the upload has been carried is known exactly here; so rounding does not add up over chunks.
        upload.carried_bits = min(upload.size_bits, upload.granted * upload.chunk_bits)
        if upload.granted < upload.chunks:
            return Grant(upload.key, 1)
        self.uploads.remove(upload)
        self.change()
        duration_s = self.at_s - upload.joined_s
        return Grant(upload.key, 1, upload.size_bits / duration_s if duration_s > 0 else 0.0)


class ChannelArbiter(Generic[K]):
    """All channels of one cell.

    Args:
        count: how many channels.
        rule: the rates of the uploads on a channel.
        chunk_bytes: size of a chunk; the last one of an upload may be smaller.
    """

    def __init__(self, count: int, rule: RateRule[K], chunk_bytes: int) -> None:
        self._chunk_bits = chunk_bytes * 8.0
        self._channels: list[_Channel[K]] = [_Channel(number, rule) for number in range(count)]

    def uploads(self, channel: int) -> int:
        """How many uploads are in progress on a channel."""
        return len(self._channels[channel].uploads)

    def join(self, key: K, channel: int, payload_bytes: int, now_s: float) -> list[Grant[K]]:
        """An upload begins.

        Returns:
            What has become due on the channel until now.
        """
        place = self._channels[channel]
        grants = place.advance(now_s)
        place.uploads.append(_Upload(key, channel, payload_bytes * 8.0, self._chunk_bits, now_s))
        place.change()
        return grants

    def leave(self, key: K, now_s: float) -> list[Grant[K]]:
        """An upload is given up; an upload that is not in progress is ignored.

        Returns:
            What has become due on its channel until now, for others.
        """
        for place in self._channels:
            if any(upload.key is key for upload in place.uploads):
                grants = place.advance(now_s)
                place.uploads = [upload for upload in place.uploads if upload.key is not key]
                place.change()
                return [grant for grant in grants if grant.key is not key]
        return []

    def advance(self, now_s: float) -> list[Grant[K]]:
        """The grants that have become due, in order within each channel."""
        return [grant for place in self._channels if place.uploads for grant in place.advance(now_s)]

    def due_s(self) -> float:
        """When `advance` will have something to give; infinity while no upload is in progress."""
        return min((place.due_s() for place in self._channels), default=math.inf)
