"""A link's rate, delay, jitter and loss, checked against closed forms; no root, no network."""

from __future__ import annotations

import math
import random

import pytest

from edgebed.errors import BadInput
from orchestrator.lab.netem import netem_words
from orchestrator.lab.shaping import LinkShape, Shaper, shape_from_plain

FRAME = bytes(1250)  # 10 000 bits


def shaper(**shape: float) -> Shaper:
    return Shaper(LinkShape(**shape), random.Random(1))


def arrivals(link: Shaper) -> list[float]:
    """When each frame that is under way arrives."""
    found = []
    while link.due_s < math.inf:
        due_s = link.due_s
        found += [due_s] * len(link.take_due(due_s))
    return found


def test_a_plain_link_delivers_at_once_and_in_order():
    link = shaper()
    link.offer(b"one", 5.0)
    link.offer(b"two", 5.0)
    assert link.take_due(5.0) == [b"one", b"two"]
    assert link.due_s == math.inf


def test_a_frame_takes_its_bits_at_the_rate_and_then_the_delay():
    link = shaper(rate_bps=1e6, delay_s=0.005)
    for _ in range(3):
        link.offer(FRAME, 100.0)
    assert arrivals(link) == pytest.approx([100.015, 100.025, 100.035])


def test_nothing_arrives_before_its_time():
    link = shaper(delay_s=0.005)
    link.offer(FRAME, 1.0)
    assert link.take_due(1.0049) == []
    assert link.take_due(1.005) == [FRAME]


def test_an_idle_link_gathers_no_credit():
    link = shaper(rate_bps=1e6)
    link.offer(FRAME, 0.0)
    link.offer(FRAME, 100.0)
    assert arrivals(link) == pytest.approx([0.01, 100.01])


def test_a_full_queue_drops():
    link = shaper(rate_bps=1e6)  # holds what 64 KiB take, 52.4 frames, and one more that is being sent
    for _ in range(100):
        link.offer(FRAME, 0.0)
    assert len(arrivals(link)) == 53
    assert link.dropped == 47


def test_jitter_is_uniform_around_the_delay_and_frames_keep_their_order():
    link = shaper(delay_s=0.010, jitter_s=0.002)
    delays = []
    for number in range(2000):  # far apart, so that order clips nothing
        link.offer(FRAME, float(number))
        delays += [due_s - number for due_s in arrivals(link)]
    assert sum(delays) / len(delays) == pytest.approx(0.010, abs=0.0001)
    assert min(delays) == pytest.approx(0.008, abs=0.0001)
    assert max(delays) == pytest.approx(0.012, abs=0.0001)
    close = shaper(delay_s=0.010, jitter_s=0.009)
    for number in range(100):
        close.offer(str(number).encode(), 0.0)
    assert close.take_due(1.0) == [str(number).encode() for number in range(100)]


def test_loss_loses_the_share_that_it_says():
    link = shaper(loss=0.2)
    for number in range(5000):
        link.offer(FRAME, float(number))
    assert link.dropped / 5000 == pytest.approx(0.2, abs=0.02)
    assert len(arrivals(link)) + link.dropped == 5000


def test_a_new_shape_counts_from_the_next_frame_on():
    link = shaper(delay_s=1.0)
    link.offer(b"old", 0.0)
    link.shape = LinkShape(delay_s=2.0)
    link.offer(b"new", 0.0)
    assert arrivals(link) == pytest.approx([1.0, 2.0])


def test_a_cut_link_forgets_what_was_under_way():
    link = shaper(delay_s=1.0, rate_bps=1e6)
    link.offer(FRAME, 0.0)
    link.forget()
    assert link.due_s == math.inf
    assert link.dropped == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rate_bps": -1.0}, "rate_bps"),
        ({"rate_bps": math.nan}, "rate_bps"),
        ({"delay_s": 61.0}, "delay_s"),
        ({"jitter_s": 0.1}, "jitter_s"),  # more than the delay: frames would have to arrive before they were sent
        ({"loss": 1.5}, "loss"),
    ],
)
def test_an_impossible_shape_is_refused_by_name(wrong: dict[str, float], named: str):
    with pytest.raises(BadInput, match=named):
        LinkShape(**wrong)


def test_a_shape_survives_json():
    shape = LinkShape(rate_bps=2e7, delay_s=0.005, jitter_s=0.001, loss=0.01)
    assert shape_from_plain(shape.to_plain()) == shape


def test_a_shape_in_netems_words():
    shape = LinkShape(rate_bps=2e7, delay_s=0.005, jitter_s=0.001, loss=0.01)
    # 20 Mbit/s for 0.1 s of queue, 5 ms of delay and 1 ms of jitter are 265 000 bytes, 175 full frames
    assert " ".join(netem_words(shape)) == "netem limit 176 delay 5000us 1000us loss 1.000000% rate 20000000bit"
