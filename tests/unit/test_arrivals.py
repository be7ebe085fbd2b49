"""Planned arrivals: a pure function of (seed, device)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgebed.errors import BadInput
from workloads.arrival_files import read_trace, settings_from_plain, settings_to_plain
from workloads.arrivals import (
    ArrivalSettings,
    PlannedTask,
    TraceRow,
    content_rng,
    epoch_of,
    planned_tasks,
)

PERIODIC = ArrivalSettings(deadline_s=1.0, kind="periodic", period_s=0.5, phase_s=0.2)
POISSON = ArrivalSettings(deadline_s=1.0, kind="poisson", rate_per_s=4.0)


def plan(
    settings: ArrivalSettings, seed: int = 1, device_id: str = "pi-1", epochs: int = 4, epoch_s: float = 0.5
) -> list[PlannedTask]:
    return planned_tasks(settings, seed, device_id, workload="digits", epochs=epochs, epoch_s=epoch_s)


def offsets(tasks: list[PlannedTask]) -> list[float]:
    return [task.offset_s for task in tasks]


def test_periodic_arrivals() -> None:
    assert plan(PERIODIC) == [
        PlannedTask(index, f"digits/1/pi-1/{index}", offset_s, frames=1, deadline_s=1.0, epoch=index)
        for index, offset_s in enumerate([0.2, 0.7, 1.2, 1.7])
    ]


def test_an_arrival_on_a_tick_still_makes_it_and_the_start_has_none() -> None:
    on_ticks = dataclasses.replace(PERIODIC, phase_s=0.0)
    assert [(task.offset_s, task.epoch) for task in plan(on_ticks)] == [(0.5, 0), (1.0, 1), (1.5, 2), (2.0, 3)]


@pytest.mark.parametrize("epoch_s", [0.1, 0.3, 0.7, 1 / 3, 1.1])
def test_ticks_are_found_whatever_the_rounding(epoch_s: float) -> None:
    on_ticks = dataclasses.replace(PERIODIC, period_s=epoch_s, phase_s=0.0)
    assert [task.epoch for task in plan(on_ticks, epochs=500, epoch_s=epoch_s)] == list(range(500))


@pytest.mark.parametrize(
    ("offset_s", "epoch"), [(1e-9, 0), (0.999, 0), (1.0, 0), (1.001, 1), (2.0, 1), (9.5, 9), (10.0, 9)]
)
def test_epoch_of_an_arrival(offset_s: float, epoch: int) -> None:
    assert epoch_of(offset_s, 1.0, 10) == epoch


def test_devices_do_not_arrive_in_step_unless_told_to() -> None:
    free = dataclasses.replace(PERIODIC, phase_s=None)
    first = [offsets(plan(free, device_id=f"pi-{number}"))[0] for number in range(20)]
    assert len(set(first)) == 20
    assert all(0 < offset_s <= 0.5 for offset_s in first)
    assert all(len(plan(free, device_id=f"pi-{number}")) == 4 for number in range(20))


def test_jitter_stays_within_its_bound_and_keeps_order() -> None:
    exact = np.array(offsets(plan(PERIODIC, epochs=100)))
    moved = np.array(offsets(plan(dataclasses.replace(PERIODIC, jitter_s=0.1), epochs=100)))
    assert 0.05 < np.abs(moved - exact).max() <= 0.1 + 1e-6
    assert np.all(np.diff(moved) > 0)


def test_poisson_arrivals_have_their_rate_and_exponential_gaps() -> None:
    gaps_s = np.diff([0.0, *offsets(plan(POISSON, epochs=10_000))])
    # 5,000 s at 4 a second: the count has a standard deviation of 141; an exponential's equals its mean.
    assert abs(len(gaps_s) - 20_000) < 4 * 141
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)
    assert (gaps_s < 0.25 * math.log(2)).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("settings", [PERIODIC, dataclasses.replace(PERIODIC, phase_s=None, jitter_s=0.1), POISSON])
def test_plans_depend_on_seed_and_device_alone(settings: ArrivalSettings) -> None:
    settings = dataclasses.replace(settings, frames_low=1, frames_high=9)
    assert plan(settings, epochs=40) == plan(settings, epochs=40)
    assert plan(settings, epochs=40, seed=2) != plan(settings, epochs=40)
    others = plan(settings, epochs=40, device_id="pi-2")
    assert [task.frames for task in others] != [task.frames for task in plan(settings, epochs=40)]


@pytest.mark.parametrize("settings", [PERIODIC, dataclasses.replace(PERIODIC, phase_s=None, jitter_s=0.1), POISSON])
def test_a_longer_cell_only_adds_tasks(settings: ArrivalSettings) -> None:
    settings = dataclasses.replace(settings, frames_low=1, frames_high=9, jitter_s=0.0)
    short, long = plan(settings, epochs=10), plan(settings, epochs=50)
    assert long[: len(short)] == short


def test_more_frames_do_not_move_arrivals() -> None:
    assert offsets(plan(dataclasses.replace(POISSON, frames_high=9))) == offsets(plan(POISSON))


def test_frames_are_uniform_between_their_bounds() -> None:
    tasks = plan(dataclasses.replace(PERIODIC, frames_low=2, frames_high=5), epochs=8000)
    counts = np.bincount([task.frames for task in tasks], minlength=7)
    assert counts[[0, 1, 6]].tolist() == [0, 0, 0]
    assert counts[2:6] == pytest.approx([2000] * 4, abs=4 * math.sqrt(8000 * 3 / 16))


def test_a_trace_is_sorted_cut_and_completed() -> None:
    rows = (
        TraceRow(1.5, frames=4),
        TraceRow(0.25, deadline_s=0.125),
        TraceRow(0.0),
        TraceRow(-1.0),
        TraceRow(2.0),
        TraceRow(2.1),
        TraceRow(0.75, device_id="pi-2"),
        TraceRow(1.0, device_id="pi-1"),
    )
    settings = ArrivalSettings(deadline_s=1.0, kind="trace", trace=rows, frames_low=2, frames_high=2)
    assert [(task.index, task.offset_s, task.frames, task.deadline_s, task.epoch) for task in plan(settings)] == [
        (0, 0.25, 2, 0.125, 0),
        (1, 1.0, 2, 1.0, 1),
        (2, 1.5, 4, 1.0, 2),
        (3, 2.0, 2, 1.0, 3),
    ]


def test_content_is_drawn_apart_for_each_task() -> None:
    draws = {content_rng(*key).random() for key in [(1, "pi-1", 0), (1, "pi-1", 1), (1, "pi-2", 0), (2, "pi-1", 0)]}
    assert len(draws) == 4
    assert content_rng(1, "pi-1", 0).random() in draws


@given(
    kind=st.sampled_from(["periodic", "poisson"]),
    pace=st.floats(0.01, 5),
    epoch_s=st.floats(0.01, 10),
    epochs=st.integers(1, 30),
    seed=st.integers(0, 2**53),
)
def test_every_plan_is_ordered_and_within_the_cell(
    kind: str, pace: float, epoch_s: float, epochs: int, seed: int
) -> None:
    rate = {"period_s": pace} if kind == "periodic" else {"rate_per_s": pace}
    tasks = plan(ArrivalSettings(deadline_s=1.0, kind=kind, **rate), seed, epochs=epochs, epoch_s=epoch_s)
    assert [task.index for task in tasks] == list(range(len(tasks)))
    assert offsets(tasks) == sorted(offsets(tasks))
    for task in tasks:
        assert 0 < task.offset_s <= epochs * epoch_s + 1e-6
        assert task.epoch * epoch_s - 1e-5 <= task.offset_s <= (task.epoch + 1) * epoch_s + 1e-5
        assert task.epoch < epochs


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"kind": "bursty"}, ["arrivals.kind", "arrivals.kind"]),
        ({"period_s": None}, ["arrivals.period_s"]),
        ({"period_s": 0.0}, ["arrivals.period_s"]),
        ({"period_s": math.nan}, ["arrivals.period_s"]),
        ({"jitter_s": 0.25}, ["arrivals.jitter_s"]),
        ({"jitter_s": -0.1}, ["arrivals.jitter_s"]),
        ({"phase_s": 0.6}, ["arrivals.phase_s"]),
        ({"rate_per_s": 1.0}, ["arrivals.rate_per_s"]),
        ({"trace": (TraceRow(1.0),)}, ["arrivals.trace"]),
        ({"deadline_s": 0.0}, ["arrivals.deadline_s"]),
        ({"frames_low": 0}, ["arrivals.frames"]),
        ({"frames_low": 3, "frames_high": 2}, ["arrivals.frames"]),
        ({"frames_high": 1025}, ["arrivals.frames"]),
        ({"jitter_s": 9.0, "phase_s": 9.0}, ["arrivals.jitter_s", "arrivals.phase_s"]),
        ({"kind": "poisson", "period_s": None, "phase_s": None}, ["arrivals.rate_per_s"]),
        ({"kind": "poisson", "rate_per_s": 2.0}, ["arrivals.kind"]),
        ({"kind": "trace", "period_s": None, "phase_s": None}, ["arrivals.trace"]),
    ],
)
def test_wrong_settings_are_all_named(changes: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        dataclasses.replace(PERIODIC, **changes).validate()
    assert [problem.key for problem in caught.value.problems] == keys


@pytest.mark.parametrize("row", [TraceRow(math.inf), TraceRow(1.0, frames=0), TraceRow(1.0, deadline_s=-1.0)])
def test_a_wrong_row_of_a_trace_is_named_by_its_number(row: TraceRow) -> None:
    with pytest.raises(BadInput, match=r"arrivals\.trace\[1\]"):
        ArrivalSettings(deadline_s=1.0, kind="trace", trace=(TraceRow(0.5), row)).validate()


@pytest.mark.parametrize(
    ("settings", "epochs", "epoch_s"),
    [
        (PERIODIC, 0, 1.0),
        (PERIODIC, 1, 0.0),
        (PERIODIC, 1, math.inf),
        (PERIODIC, 1_000_000, 1.0),
        (POISSON, 1_000_000, 1.0),
    ],
)
def test_a_cell_without_end_or_length_is_refused(settings: ArrivalSettings, epochs: int, epoch_s: float) -> None:
    with pytest.raises(BadInput):
        plan(settings, epochs=epochs, epoch_s=epoch_s)


def test_settings_from_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "peak.csv").write_text("offset_s,frames\n0.5,3\n1.5,\n", encoding="utf-8")
    data = {"kind": "trace", "deadline_s": 2, "frames": {"low": 1, "high": 4}, "trace": "peak.csv"}
    assert settings_from_plain(data, tmp_path) == ArrivalSettings(
        deadline_s=2.0, kind="trace", frames_low=1, frames_high=4, trace=(TraceRow(0.5, 3), TraceRow(1.5))
    )


def test_a_trace_may_be_written_out() -> None:
    rows = [0.5, [1.0, 3], [1.5, 3, 0.2], {"offset_s": 2, "device_id": "pi-1"}]
    settings = settings_from_plain({"kind": "trace", "deadline_s": 1, "trace": rows})
    expected = (TraceRow(0.5), TraceRow(1.0, 3), TraceRow(1.5, 3, 0.2), TraceRow(2.0, device_id="pi-1"))
    assert settings.trace == expected


@pytest.mark.parametrize(
    "settings",
    [
        PERIODIC,
        POISSON,
        dataclasses.replace(PERIODIC, jitter_s=0.1, phase_s=None, frames_high=3),
        ArrivalSettings(deadline_s=1.0, kind="trace", trace=(TraceRow(0.5), TraceRow(1.5, 3, 0.2, "pi-1", 7))),
    ],
)
def test_settings_survive_the_wire(settings: ArrivalSettings) -> None:
    assert settings_from_plain(settings_to_plain(settings)) == settings


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        ({"period_s": 1}, ["arrivals.deadline_s"]),
        ({"period_s": "1", "deadline_s": True}, ["arrivals.deadline_s", "arrivals.period_s"]),
        ({"rate": 1, "deadline_s": 1}, ["arrivals.rate"]),
        ({"frames": "4", "deadline_s": 1}, ["arrivals.frames"]),
        ({"frames": {"low": 1}, "deadline_s": 1}, ["arrivals.frames"]),
        ({"frames": {"low": 1.5, "high": 2}, "deadline_s": 1}, ["arrivals.frames.low"]),
        ({"kind": "trace", "deadline_s": 1, "trace": "file.csv"}, ["arrivals.trace"]),
        ({"kind": "trace", "deadline_s": 1, "trace": [1, "x"]}, ["arrivals.trace[1]"]),
        ({"kind": "trace", "deadline_s": 1, "trace": [{"frames": 1}]}, ["arrivals.trace[0]"]),
        ({"kind": "trace", "deadline_s": 1, "trace": [[1, 2, 3, "pi-1", 5, 6]]}, ["arrivals.trace[0]"]),
        ({"kind": "trace", "deadline_s": 1, "trace": [[1, 2, 3, 4]]}, ["arrivals.trace[0]"]),
        ({"kind": ["x"], "deadline_s": 1}, ["arrivals.kind"]),
    ],
)
def test_wrong_plain_data_is_named(data: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        settings_from_plain(data)
    assert sorted(problem.key for problem in caught.value.problems)[: len(keys)] == keys


def test_a_trace_file_with_every_column(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("device_id, offset_s ,deadline_s,frames\npi-1,0.5,,\n\n,1,0.25,7\n", encoding="utf-8-sig")
    assert read_trace(path) == (TraceRow(0.5, device_id="pi-1"), TraceRow(1.0, 7, 0.25))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", ":1: columns"),
        ("time\n1\n", ":1: columns time: offset_s is needed"),
        ("offset_s,size\n1,2\n", ":1: columns"),
        ("offset_s,offset_s\n1,2\n", "each once"),
        ("offset_s\n1\nsoon\n", ":3: could not convert"),
        ("offset_s,frames\n1,2.5\n", ":2: invalid literal"),
        ("offset_s,frames\n1\n", ":2: 1 cells; 2 columns"),
        ("offset_s,frames\n,3\n", ":2: offset_s is empty"),
        ('offset_s\n"1\n', "cannot be read as a trace"),
    ],
)
def test_a_broken_trace_file_is_named_by_line(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=where):
        read_trace(path)


def test_all_problems_of_a_trace_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("offset_s\nx\n1\ny\n", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_trace(path)
    assert [problem.line for problem in caught.value.problems] == [2, 4]


def test_a_missing_trace_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.csv: cannot be read"):
        settings_from_plain({"kind": "trace", "deadline_s": 1, "trace": "none.csv"}, tmp_path)
