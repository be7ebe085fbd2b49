"""Queues many tasks at a time against the queues event by event, which are the specification."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgebed.simulation.testbed.ingredients import DONE, FAILED, UNKNOWN, Ended, Ingredients, Layout
from edgebed.simulation.testbed.pipeline import Load, Pipeline
from orchestrator.replay.open_tasks import turns_of
from orchestrator.replay.queues import SteadyQueues, TooCrowded, is_simple
from orchestrator.replay.workers import Workers

LAYOUT = Layout(
    devices=4,
    workers=(1, 2),
    queue_tasks=(100, 100),
    device_frame_s=(0.02, 0.03, 0.04, 0.05),
    server_frame_s=(0.01, 0.02),
)


def tasks_of(rng: np.random.Generator, now_s: float, first: int, count: int, lanes: int, limit_s: float) -> Ingredients:
    """Decided tasks, half of them for the edge, some ready only after the next tick."""
    device = rng.integers(lanes * LAYOUT.devices, size=count)
    server = device // LAYOUT.devices * LAYOUT.servers + rng.integers(LAYOUT.servers, size=count)
    frames, is_edge = rng.integers(1, 5, size=count), rng.random(count) < 0.5
    hold_s = rng.uniform(0.001, 0.08, count)
    arrived_s = now_s - rng.uniform(0.0, 0.5, count)
    return Ingredients(
        task=np.arange(first, first + count),
        device=device,
        server=np.where(is_edge, server, -1),
        channel=np.zeros(count, np.int64),
        arrived_s=arrived_s,
        ready_s=now_s + rng.uniform(0.0, 0.7, count),
        limit_s=arrived_s + limit_s,
        frames=frames,
        edge_frames=np.where(is_edge, frames, 0),
        upload_bytes=np.where(is_edge, 1000.0 * frames, 0.0),
        device_compute_s=0.03 * frames * rng.uniform(0.5, 2.0, count),
        uplink_s=hold_s + rng.uniform(0.0, 0.05, count),
        uplink_hold_s=hold_s,
        server_compute_s=0.02 * frames * rng.uniform(0.5, 2.0, count),
        downlink_s=rng.uniform(0.001, 0.3, count),
        refusal_s=np.full(count, 0.002),
        fallback_compute_s=np.full(count, 0.1),
    )


def last_words(rows: dict[int, tuple[Any, ...]], ended: Ended) -> None:
    for index, task in enumerate(ended.task.tolist()):
        rows[task] = tuple(
            np.asarray(getattr(ended, name))[index].tolist()
            for name in (
                *("device", "outcome", "reason", "site", "server", "edge_frames", "decision_s", "stages"),
                *("latency_s", "device_busy_s", "server_busy_s", "has_resources"),
            )
        )


def check_equal_loads(one: Load, other: Load) -> None:
    for name in Load.__dataclass_fields__:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("limit_s", "wanted"), [(100.0, {DONE}), (1.1, {DONE, FAILED, UNKNOWN})])
@pytest.mark.parametrize("seed", range(2))
def test_the_same_tasks_take_the_same_way_as_event_by_event(limit_s: float, wanted: set[int], seed: int) -> None:
    rng, lanes, most = np.random.default_rng(seed), 3, 40
    steady, exact = SteadyQueues(LAYOUT, lanes), Pipeline(LAYOUT, lanes)
    found: dict[int, tuple[Any, ...]] = {}
    expected: dict[int, tuple[Any, ...]] = {}
    for tick in range(16):
        now_s = 0.5 * (tick + 1)
        last_words(found, steady.advance(now_s))
        last_words(expected, exact.advance(now_s))
        check_equal_loads(steady.load(), exact.load())
        tasks = tasks_of(rng, now_s, tick * most, most, lanes, limit_s)
        steady.submit(tasks)
        exact.submit(tasks)
    last_words(found, steady.advance(math.inf))
    last_words(expected, exact.advance(math.inf))
    assert steady.open == exact.open == 0
    assert {row[1] for row in expected.values()} == wanted
    assert found.keys() == expected.keys()
    for task, row in expected.items():
        for one, other in zip(found[task], row, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, err_msg=f"task {task}")


def test_what_only_events_can_tell_is_refused() -> None:
    rng = np.random.default_rng(0)
    tasks = tasks_of(rng, 0.5, 0, 50, 1, 100.0)
    tight = Layout(4, (1, 2), (1, 1), (0.1,) * 4, (0.1,) * 2)
    queues = SteadyQueues(tight)
    queues.submit(tasks)
    with pytest.raises(TooCrowded, match="would hold"):
        queues.advance(10.0)
    tasks.edge_frames[:] = 1
    tasks.frames[:] = 2
    with pytest.raises(TooCrowded, match="split"):
        SteadyQueues(LAYOUT).submit(tasks)
    assert is_simple(LAYOUT)
    assert not is_simple(Layout(1, (1,), (1,), (0.1,), (0.1,), channel_rate_bps=1e6))


def test_turns_take_each_queue_in_its_order() -> None:
    for far in (0, 1 << 20):  # of few queues and of many
        order, turns = turns_of(np.array([5, 2, 5, 5]) + far, np.array([3.0, 1.0, 1.0, 2.0]))
        assert [order[turn].tolist() for turn in turns] == [[1, 2], [3], [0]]


@pytest.mark.parametrize(("rate_per_s", "waits"), [(2.0, False), (200.0, True)])
def test_workers_take_tasks_as_one_after_another(rate_per_s: float, waits: bool) -> None:
    rng = np.random.default_rng(0)
    workers, free_s = Workers([3, 2]), [[0.0] * 3, [0.0] * 2]
    now_s, has_waited = 0.0, False
    for _ in range(20):
        received_s = now_s + np.sort(rng.uniform(0.0, 50.0 / rate_per_s, 50))
        server, base_s = rng.integers(2, size=50), rng.uniform(0.0, 0.04, 50)
        begin_s = workers.take(server, received_s, received_s + 0.2, base_s)
        for one, come_s, takes_s, found_s in zip(server, received_s, base_s, begin_s, strict=True):
            expected_s = max(come_s, min(free_s[one]))
            assert found_s == expected_s
            has_waited |= expected_s > come_s
            if expected_s <= come_s + 0.2:
                free_s[one][free_s[one].index(min(free_s[one]))] = expected_s + takes_s
        now_s = received_s[-1]
    assert bool(has_waited) == waits
