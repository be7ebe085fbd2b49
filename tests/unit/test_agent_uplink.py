"""The uplink's state machine: order, chunks, credits and pace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from device_agent.uplink import RETRY_S, Uplink, Upload
from edgebed.protocol.messages import AnyMessage, Offer

CHUNK, WINDOW = 1000, 4


@dataclass
class Wire:
    """What was sent, and when."""

    sent: list[tuple[AnyMessage, bytes | None]] = field(default_factory=list)
    accepts: bool = True

    def send(self, message: AnyMessage, payload: bytes | memoryview | None) -> bool:
        if self.accepts:
            self.sent.append((message, None if payload is None else bytes(payload)))
        return self.accepts

    @property
    def kinds(self) -> list[str]:
        return [f"{type(message).__name__} {getattr(message, 'index', message.task_id)}" for message, _ in self.sent]

    def payload_of(self, task_id: str) -> bytes:
        return b"".join(payload or b"" for message, payload in self.sent if message.task_id == task_id)


def uplink(wire: Wire, **changes: object) -> Uplink:
    return Uplink(7, wire.send, limits=lambda: (CHUNK, WINDOW), **changes)  # type: ignore[arg-type]


def upload(name: str, size: int) -> Upload:
    content = bytes(index % 251 for index in range(size))
    return Upload(name, size, 3, 0, lambda: content)


def test_a_short_payload_goes_with_its_offer() -> None:
    wire = Wire()
    up, first = uplink(wire), upload("a", CHUNK * WINDOW)
    up.add(first)
    assert up.queued_bytes == 4000
    assert up.advance(5.0) == math.inf
    assert wire.sent == [(Offer("a", 7, 4000, 3, 0), first.read())]
    assert (first.started_s, first.sent_s, up.queued_bytes, up.current) == (5.0, 5.0, 0, None)


def test_a_long_payload_goes_in_chunks_within_its_window() -> None:
    wire = Wire()
    up, long = uplink(wire), upload("a", 6500)
    up.add(long)
    up.add(upload("b", 10))
    assert up.advance(0.0) == math.inf, "it waits for credits"
    assert wire.kinds == ["Offer a", "Chunk 0", "Chunk 1", "Chunk 2", "Chunk 3"]
    assert up.queued_bytes == 2510
    assert long.sent_s is None
    up.credit("b", 5)
    assert up.advance(1.0) == math.inf
    up.credit("a", 2)
    up.advance(2.0)
    assert wire.kinds[5:] == ["Chunk 4", "Chunk 5"]
    up.credit("a", 1)
    up.advance(3.0)
    assert wire.kinds[7:] == ["Chunk 6", "Offer b"], "one upload at a time, in order"
    assert wire.payload_of("a") == long.read()
    assert (long.started_s, long.sent_s) == (0.0, 3.0)


def test_a_paced_uplink_sends_when_the_link_would_have_carried_it() -> None:
    wire = Wire()
    up = uplink(wire, link_rate_bps=8000.0)  # a chunk takes a second
    up.add(upload("a", 2500))
    up.add(upload("b", 1000))
    assert up.advance(10.0) == 11.0
    assert wire.kinds == ["Offer a"]
    assert up.advance(10.9) == 11.0
    assert up.advance(11.0) == 12.0
    assert wire.kinds == ["Offer a", "Chunk 0"]
    assert up.advance(12.3) == 12.5, "a late wake-up does not shift what follows"
    assert up.advance(12.5) == 13.5
    assert wire.kinds == ["Offer a", "Chunk 0", "Chunk 1", "Chunk 2", "Offer b"]
    assert up.advance(13.5) == math.inf
    assert wire.kinds[-1] == "Chunk 0"


def test_a_shaped_channel_grants_every_chunk() -> None:
    wire = Wire()
    up = uplink(wire, is_shaped=True)
    up.add(upload("a", 1500))
    assert up.advance(0.0) == math.inf
    assert wire.kinds == ["Offer a"], "even a short payload"
    up.credit("a", 1)
    up.advance(1.0)
    up.credit("a", 1)
    assert up.advance(2.0) == math.inf
    assert wire.kinds == ["Offer a", "Chunk 0", "Chunk 1"]
    assert up.current is None


def test_pace_and_credit_both_count() -> None:
    wire = Wire()
    up = uplink(wire, is_shaped=True, link_rate_bps=8000.0)
    up.add(upload("a", 2000))
    up.advance(0.0)
    up.credit("a", 2)
    assert up.advance(0.1) == 1.0
    up.advance(5.0)
    assert wire.kinds == ["Offer a", "Chunk 0", "Chunk 1"]


@pytest.mark.parametrize("after", [0, 1])
def test_a_full_buffer_is_tried_again(after: int) -> None:
    wire = Wire(accepts=after > 0)
    up = uplink(wire)
    up.add(upload("a", 6000))
    if after:
        up.advance(0.0)
        wire.accepts = False
        up.credit("a", 2)
    assert up.advance(1.0) == 1.0 + RETRY_S
    wire.accepts = True
    up.credit("a", 2)
    up.advance(1.1)
    assert wire.payload_of("a") == upload("a", 6000).read()[: len(wire.payload_of("a"))]
    assert len(wire.payload_of("a")) == (6000 if after else 4000)


def test_uploads_can_be_forgotten_until_they_are_sent() -> None:
    wire = Wire()
    up = uplink(wire)
    first, second, third = upload("a", 6000), upload("b", 10), upload("c", 10)
    for each in (first, second, third):
        up.add(each)
    up.advance(0.0)
    assert up.current is first
    assert up.remove(second)
    assert not up.remove(second)
    assert up.remove(first)
    up.advance(1.0)
    assert wire.kinds[-1] == "Offer c"
    assert not up.remove(third), "it is with the server now"
    up.add(first)
    up.add(second)
    up.advance(2.0)
    assert up.take_all() == [first, second]
    assert (up.queued_bytes, up.current) == (0, None)
