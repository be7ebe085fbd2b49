"""Energy per task: closed forms of the rule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebed.errors import BadInput
from edgebed.metering.base import Reading, window_energy
from edgebed.metering.board import board_from_dict
from edgebed.metering.energy import (
    TaskEnergy,
    idle_energy,
    idle_energy_j,
    share_window_energy,
    task_energy_estimate,
)

BOARD = board_from_dict(
    {
        "name": "bench",
        "title": "A board on a bench",
        "cores": 4,
        "nominal_hz": 1_500_000_000,
        "idle_w": 2.0,
        "max_w": 6.0,
        "error_fraction": 0.125,
        "marginal_error_fraction": 0.25,
        "error_source": "a test",
        "power_kind": "measured",
        "power_source": "a test",
        "transmit_w": 1.0,
        "transmit_error_fraction": 0.5,
        "transmit_source": "a test",
        "relative_speed_ratio": None,
        "relative_speed_source": "unknown",
    }
)
SOURCE = "estimated:cpu-model/bench"


def reading(t_s: float, energy_j: float, error_j: float = 0.0) -> Reading:
    return Reading(t_s, energy_j, None, error_j, "measured:ina219")


@pytest.mark.parametrize(
    ("busy_s", "air_s", "energy_j", "error_j"),
    [
        (0.0, 0.0, 0.0, 0.0),
        # One core-second of four cores is a quarter of the 4 W between idle and max.
        (1.0, 0.0, 1.0, 0.25),
        # All four cores for one second.
        (4.0, 0.0, 4.0, 1.0),
        # A second on air is the radio's 1 W, with the radio's own error.
        (0.0, 1.0, 1.0, 0.5),
        (2.0, 3.0, 5.0, 2.0),
    ],
)
def test_task_energy_is_marginal(busy_s: float, air_s: float, energy_j: float, error_j: float) -> None:
    assert task_energy_estimate(BOARD, busy_s, air_s) == TaskEnergy(energy_j, error_j, SOURCE)


def test_idle_and_marginal_energy_add_up_to_the_board_s_model() -> None:
    # 10 s, in which all cores were busy for 3 s: idle 20 J + marginal 12 J = 7 s at 2 W + 3 s at 6 W.
    whole_j = idle_energy_j(BOARD, 10.0) + task_energy_estimate(BOARD, 12.0, 0.0).device_energy_j
    assert whole_j == pytest.approx(7 * BOARD.power_w(0) + 3 * BOARD.power_w(1))


def test_idle_energy_carries_its_source_and_error() -> None:
    idle = idle_energy(BOARD, 10.0)
    assert (idle.energy_j, idle.error_j, idle.source) == (20.0, 2.5, SOURCE)


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_impossible_durations_are_refused(bad: float) -> None:
    with pytest.raises(BadInput, match="busy_s"):
        task_energy_estimate(BOARD, bad, 0.0)
    with pytest.raises(BadInput, match="air_s"):
        task_energy_estimate(BOARD, 0.0, bad)
    with pytest.raises(BadInput, match="duration_s"):
        idle_energy_j(BOARD, bad)
    with pytest.raises(BadInput, match=r"busy_s\[1\]"):
        share_window_energy(reading(0, 0), reading(1, 9), idle_w=1.0, idle_error_w=0.0, busy_s=[1.0, bad])


def test_window_energy_is_shared_by_busy_time_without_idle() -> None:
    # 10 s, 50 J +- 1 J, of which 20 J +- 2 J idle: 30 J +- 3 J, shared 1 : 2.
    shares = share_window_energy(
        reading(100, 1000, 5), reading(110, 1050, 6), idle_w=2.0, idle_error_w=0.2, busy_s=[2.0, 4.0]
    )
    assert [share.device_energy_j for share in shares] == pytest.approx([10.0, 20.0])
    assert [share.error_j for share in shares] == pytest.approx([1.0, 2.0])
    assert {share.source for share in shares} == {"measured:ina219"}


def test_other_work_of_the_host_keeps_its_share() -> None:
    (share,) = share_window_energy(
        reading(0, 0), reading(10, 50), idle_w=2.0, idle_error_w=0.0, busy_s=[2.0], host_busy_s=6.0
    )
    assert share.device_energy_j == pytest.approx(10.0)


def test_host_busy_time_below_the_tasks_own_does_not_invent_energy() -> None:
    shares = share_window_energy(
        reading(0, 0), reading(10, 50), idle_w=2.0, idle_error_w=0.0, busy_s=[3.0, 3.0], host_busy_s=1.0
    )
    assert math.fsum(share.device_energy_j for share in shares) == pytest.approx(30.0)


def test_window_below_idle_is_nothing_with_the_missing_joules_as_error() -> None:
    (share,) = share_window_energy(reading(0, 0), reading(10, 15, 0.1), idle_w=2.0, idle_error_w=0.0, busy_s=[1.0])
    assert share == TaskEnergy(0.0, 5.0, "measured:ina219")


def test_tasks_that_nobody_saw_working_may_have_used_all_of_it() -> None:
    shares = share_window_energy(reading(0, 0), reading(10, 30, 1), idle_w=2.0, idle_error_w=0.0, busy_s=[0.0, 0.0])
    assert shares == [TaskEnergy(0.0, 11.0, "measured:ina219")] * 2


def test_no_tasks_no_shares() -> None:
    assert share_window_energy(reading(0, 0), reading(10, 30), idle_w=2.0, idle_error_w=0.0, busy_s=[]) == []


def test_window_of_two_meters_or_backwards_is_refused() -> None:
    start, end = reading(0, 0), reading(10, 30)
    with pytest.raises(BadInput, match="same meter"):
        window_energy(start, replace(end, source="measured:ina226"))
    with pytest.raises(BadInput, match="swap"):
        window_energy(end, start)


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
    st.floats(0, 1e4),
    st.floats(0, 10),
    st.floats(0, 1000),
)
def test_shares_never_exceed_what_the_meter_saw(
    busy_s: list[float], energy_j: float, idle_w: float, host_busy_s: float
) -> None:
    shares = share_window_energy(
        reading(0, 0), reading(10, energy_j, 1), idle_w=idle_w, idle_error_w=0.1, busy_s=busy_s, host_busy_s=host_busy_s
    )
    above_j = max(0.0, energy_j - idle_w * 10)
    total_j = math.fsum(share.device_energy_j for share in shares)
    assert all(share.device_energy_j >= 0 for share in shares)
    assert all(share.error_j >= 0 for share in shares)
    assert total_j <= above_j * (1 + 1e-9)
    if math.fsum(busy_s) >= host_busy_s and math.fsum(busy_s) > 0:
        assert total_j == pytest.approx(above_j)
