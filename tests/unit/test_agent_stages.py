"""Stage arithmetic in closed form: whatever the clocks say, decision and stages add up to the latency."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.stages import NO_STAGES, RoundTrip, Stages, edge_round_trip, local_stages, refused_stages
from edgebed.protocol.messages import TaskResult


def result(received_s: float, started_s: float, finished_s: float) -> TaskResult:
    return TaskResult("t", [], received_s, received_s, started_s, finished_s, finished_s, 0.0)


def test_on_the_device() -> None:
    stages = local_stages(since_s=10.0, started_s=10.25, finished_s=11.0)
    assert stages == Stages(device_queue_s=0.25, device_compute_s=0.75)
    assert stages.latency_s(0.5) == 1.5


def test_at_an_edge_server_whose_clock_is_elsewhere() -> None:
    # own clock: handed over 1.0, offered 1.5, result 4.0; the server's clock is 100 ahead, the last byte came at 2.25
    trip = edge_round_trip(1.0, 1.5, 4.0, result(102.25, 102.5, 103.5), offset_s=100.0, offset_error_s=0.01)
    expected = Stages(uplink_queue_s=0.5, uplink_s=0.75, server_queue_s=0.25, server_compute_s=1.0, downlink_s=0.5)
    assert trip == RoundTrip(expected, 0.01, is_suspect=False)
    assert trip.stages.latency_s(0.25) == 3.25


@pytest.mark.parametrize(
    ("offset_s", "uplink_s", "downlink_s", "is_suspect"),
    [
        (101.1, 0.0, 1.25, True),  # it would have come before it was sent
        (100.76, 0.0, 1.25, False),  # ... by no more than the error
        (99.0, 1.25, 0.0, True),  # the answer would have come before it was given
        (99.49, 1.25, 0.0, False),
        (None, 0.625, 0.625, False),
    ],
)
def test_the_offset_only_shares_what_is_certain(
    offset_s: float | None, uplink_s: float, downlink_s: float, is_suspect: bool
) -> None:
    error_s = None if offset_s is None else 0.02
    trip = edge_round_trip(1.0, 1.5, 4.0, result(102.25, 102.5, 103.5), offset_s, error_s)
    assert (trip.stages.uplink_s, trip.stages.downlink_s) == (uplink_s, downlink_s)
    assert trip.is_suspect == is_suspect
    assert trip.clock_error_s == (0.625 if offset_s is None else 0.02)
    assert trip.stages.latency_s(0.0) == 3.0


def test_a_refused_part_keeps_what_it_went_through() -> None:
    spent = refused_stages(since_s=1.0, upload_start_s=1.25, refused_s=2.0)
    assert spent == Stages(uplink_queue_s=0.25, uplink_s=0.75)
    stages = local_stages(2.0, 2.5, 3.0, spent)
    assert stages.latency_s(0.5) == 0.5 + (3.0 - 1.0)
    assert refused_stages(1.0, None, 1.5) == Stages(uplink_queue_s=0.5)
    assert NO_STAGES.latency_s(0.5) == 0.5


seconds = st.floats(0.0, 1e4)


@given(st.lists(seconds, min_size=6, max_size=6), st.floats(-1e6, 1e6), st.floats(-1e3, 1e3), st.floats(0, 10.0))
def test_stages_add_up_whatever_the_clocks_say(
    steps_s: list[float], clock_s: float, offset_error_s: float, error_s: float
) -> None:
    decision_s, queue_s, up_s, wait_s, work_s, down_s = steps_s
    since_s, upload_s = decision_s, decision_s + queue_s
    received_s = upload_s + up_s + clock_s
    answer = result(received_s, received_s + wait_s, received_s + wait_s + work_s)
    result_s = upload_s + up_s + wait_s + work_s + down_s
    trip = edge_round_trip(since_s, upload_s, result_s, answer, clock_s + offset_error_s, error_s)
    assert trip.stages.latency_s(decision_s) == pytest.approx(result_s, abs=1e-6)
    assert trip.stages.uplink_s >= 0
    assert trip.stages.downlink_s >= 0
    assert trip.is_suspect or abs(trip.stages.uplink_s - up_s) <= abs(offset_error_s) + error_s + 1e-6
