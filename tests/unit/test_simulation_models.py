"""The small models against closed forms: Shannon, power times time, waiting times of queues, prices."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq

from edgebed.errors import BadInput
from edgebed.simulation import radio
from edgebed.simulation.arrivals import TaskRanges, arrival_model, arrival_names
from edgebed.simulation.compute import server_model, server_names
from edgebed.simulation.compute.backlog import left_over_s
from edgebed.simulation.cost import Prices, cost_model, cost_names
from edgebed.simulation.energy import DevicePower, energy_model, energy_names
from edgebed.simulation.models import models_in
from edgebed.simulation.radio import Channels, radio_model, radio_names
from edgebed.simulation.radio.shannon import power_law_gain, shannon_bps, watts_of_dbm
from edgebed.simulation.random_streams import stream_keys
from edgebed.simulation.scenarios import make_scenario

FloatArray = NDArray[np.float64]
CHANNELS = Channels(count=3, bandwidth_hz=5e6, noise_w=1e-13)


def rows(*values: float) -> FloatArray:
    return np.array([values], np.float64)


# --- how models are found ---------------------------------------------------------------------------------------------


def test_every_kind_finds_its_models() -> None:
    assert {"sinr", "orthogonal", "time_shared"} <= set(radio_names())
    assert {"uniform", "constant"} <= set(arrival_names())
    assert {"fifo", "concurrent"} <= set(server_names())
    assert {"transmission", "sending_and_computing"} <= set(energy_names())
    assert {"prices", "weighted_sum"} <= set(cost_names())


def test_modules_that_models_share_are_no_models() -> None:
    assert "shannon" not in radio_names()
    assert "backlog" not in server_names()


@pytest.mark.parametrize("find", [radio_model, arrival_model, server_model, energy_model, cost_model])
def test_an_unknown_model_is_refused_with_those_that_exist(find: object) -> None:
    with pytest.raises(BadInput, match=r"there is no model 'nothing'; those that exist: \w+"):
        find("nothing")  # type: ignore[operator]


LOUD = '''"""A radio without limits."""


def loud(channel, received_w, channels):
    return received_w * 0.0 + 1e12


MODEL = loud
'''


def test_a_new_model_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    monkeypatch.setattr(radio, "__path__", [*radio.__path__, str(tmp_path)])
    models_in.cache_clear()
    try:
        scenario = make_scenario("dc-drl", {"radio": "loud"})
        scenario.reset([0])
        policy = scenario.heuristics["all_edge"](scenario)
        assert scenario.step(policy.act()).costs.max() < 0.05
        assert "loud" in radio_names()
    finally:
        models_in.cache_clear()
        sys.modules.pop(f"{radio.__name__}.loud", None)


# --- radio ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [1e-12, 1e-3, 1.0, 3.0, 1023.0, 1e12])
def test_shannon(snr: float) -> None:
    expected = 5e6 * math.log1p(snr) / math.log(2.0)
    assert shannon_bps(5e6, rows(snr))[0, 0] == pytest.approx(expected, rel=1e-14)


def test_levels_and_gains() -> None:
    assert watts_of_dbm(30.0) == 1.0
    assert watts_of_dbm(-100.0) == pytest.approx(1e-13, rel=1e-12)
    assert power_law_gain(rows(0.0, 1.0, 10.0), 4.0).tolist() == [[1.0, 1.0, pytest.approx(1e-4)]]


def pairwise_sinr_bps(channel: NDArray[np.int64], received_w: FloatArray) -> FloatArray:
    """The equation, term by term."""
    rates = np.zeros(channel.shape)
    for b, i in np.ndindex(channel.shape):
        others = [
            received_w[b, j]
            for j in range(channel.shape[1])
            if j != i and channel[b, j] == channel[b, i] and channel[b, i]
        ]
        rates[b, i] = CHANNELS.bandwidth_hz * math.log2(1 + received_w[b, i] / (CHANNELS.noise_w + math.fsum(others)))
    return rates


def test_interference_is_the_equation() -> None:
    rng = np.random.default_rng(0)
    channel = rng.integers(0, 4, (200, 8))
    received_w = 0.1 * np.maximum(rng.uniform(0, 70, (200, 8)), 1.0) ** -4.0
    found = radio_model("sinr")(channel, received_w, CHANNELS)
    sends = channel > 0
    np.testing.assert_allclose(found[sends], pairwise_sinr_bps(channel, received_w)[sends], rtol=1e-6)
    assert (found > 0.0).all()


def test_a_device_alone_hears_nobody_and_its_own_signal_is_no_interference() -> None:
    received_w = rows(1e-3, 0.1, 5e-9)
    found = radio_model("sinr")(np.array([[1, 0, 2]]), received_w, CHANNELS)
    expected = shannon_bps(5e6, received_w / 1e-13)
    assert found[0, 0] == expected[0, 0]
    assert found[0, 2] == expected[0, 2]


def test_two_on_a_channel_hear_each_other() -> None:
    found = radio_model("sinr")(np.array([[2, 2]]), rows(4e-9, 1e-9), CHANNELS)
    assert found[0] == pytest.approx(
        [5e6 * math.log2(1 + 4e-9 / (1e-9 + 1e-13)), 5e6 * math.log2(1 + 1e-9 / (4e-9 + 1e-13))]
    )


def test_orthogonal_parts_of_a_channel() -> None:
    channel, received_w = np.array([[1, 1, 1, 2, 0]]), rows(1e-9, 1e-9, 2e-9, 1e-9, 1e-9)
    split = radio_model("orthogonal")(channel, received_w, CHANNELS)[0]
    assert split[0] == pytest.approx(5e6 / 3 * math.log2(1 + 3 * 1e-9 / 1e-13))
    assert split[3] == pytest.approx(5e6 * math.log2(1 + 1e-9 / 1e-13))
    turns = radio_model("time_shared")(channel, received_w, CHANNELS)[0]
    assert turns[2] == pytest.approx(5e6 / 3 * math.log2(1 + 2e-9 / 1e-13))
    assert turns[3] == split[3]


# --- arrivals ---------------------------------------------------------------------------------------------------------

RANGES = TaskRanges(cycles_min=6e8, cycles_max=8e8, input_min_bytes=5_120_000.0, input_max_bytes=8_192_000.0)


def test_uniform_tasks_are_uniform_and_independent() -> None:
    tasks = arrival_model("uniform")(stream_keys(np.arange(4000), "tasks"), np.zeros(4000, np.int64), 25, RANGES)
    for values, low, high in ((tasks.cycles, 6e8, 8e8), (tasks.input_bytes, 5_120_000.0, 8_192_000.0)):
        unit = (values - low) / (high - low)
        assert 0.0 <= unit.min() < 1e-3
        assert 1.0 - 1e-3 < unit.max() < 1.0
        assert unit.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * unit.size))
        assert np.histogram(unit, 10, (0, 1))[0] == pytest.approx(np.full(10, unit.size / 10), rel=0.05)
    correlation = np.corrcoef(tasks.cycles.ravel(), tasks.input_bytes.ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(tasks.cycles.size)


def test_another_epoch_has_other_tasks_and_the_same_epoch_the_same() -> None:
    keys, draw = stream_keys([7], "tasks"), arrival_model("uniform")
    first, again, later = (draw(keys, np.array([epoch]), 5, RANGES).cycles for epoch in (3, 3, 4))
    assert (first == again).all()
    assert not np.isin(later, first).any()


def test_constant_tasks_are_the_middle() -> None:
    tasks = arrival_model("constant")(stream_keys([1, 2], "tasks"), np.zeros(2, np.int64), 3, RANGES)
    assert (tasks.cycles == 7e8).all()
    assert (tasks.input_bytes == 6_656_000.0).all()
    assert tasks.cycles.shape == (2, 3)


# --- compute and queues -----------------------------------------------------------------------------------------------


def by_hand(ready_s: FloatArray, work_s: FloatArray, backlog_s: FloatArray) -> FloatArray:
    """First come, first served, as the recursion is written."""
    finish_s = np.full(ready_s.shape, np.nan)
    for b in range(len(ready_s)):
        free_s = backlog_s[b]
        for i in sorted(range(ready_s.shape[1]), key=lambda i: (ready_s[b, i], i)):
            if work_s[b, i] > 0:
                free_s = finish_s[b, i] = max(ready_s[b, i], free_s) + work_s[b, i]
    return finish_s


@pytest.mark.parametrize("devices", [1, 2, 3, 7, 8, 9, 16, 17, 40])
def test_fifo_is_the_recursion(devices: int) -> None:
    rng = np.random.default_rng(devices)
    ready_s = rng.uniform(1e-3, 2.0, (50, devices))
    ready_s[25:] = np.round(ready_s[25:], 1) + 0.1  # many arrive at the same time
    work_s = rng.uniform(0.05, 0.3, (50, devices)) * (rng.random((50, devices)) < 0.7)
    backlog_s = rng.uniform(0, 1, 50) * (rng.random(50) < 0.5)
    served = server_model("fifo")(ready_s, work_s, backlog_s, 0.6)
    comes = work_s > 0
    np.testing.assert_allclose(served.finish_s[comes], by_hand(ready_s, work_s, backlog_s)[comes], rtol=1e-12)
    np.testing.assert_allclose(served.backlog_s, np.maximum(0.0, backlog_s + work_s.sum(axis=1) - 0.6), atol=1e-12)


def mean_wait_s(arrivals_s: FloatArray, work_s: FloatArray) -> float:
    served = server_model("fifo")(arrivals_s[None], work_s[None], np.zeros(1), 1.0)
    return float((served.finish_s[0] - arrivals_s - work_s).mean())


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["M/M/1", "M/D/1"])
def test_waiting_times_of_queues(kind: str, load: float) -> None:
    """Mean wait is ``rho / (1 - rho)`` services for M/M/1, half of that for M/D/1 (Pollaczek-Khinchine)."""
    rng = np.random.default_rng(1)
    tasks = 400_000
    arrivals_s = np.cumsum(rng.exponential(1.0 / load, tasks))
    work_s = rng.exponential(1.0, tasks) if kind == "M/M/1" else np.ones(tasks)
    expected = load / (1.0 - load) / (1.0 if kind == "M/M/1" else 2.0)
    assert mean_wait_s(arrivals_s, work_s) == pytest.approx(expected, rel=0.03)


def test_the_backlog_of_epochs_is_a_queue_of_regular_arrivals() -> None:
    """D/M/1: the wait is ``s / (1 - s)`` services, ``s = exp(-T (1 - s))`` with T services between arrivals."""
    rng = np.random.default_rng(2)
    epoch_s = 1.5
    backlog_s = np.zeros(4000)
    total_s, counted = 0.0, 0
    for epoch in range(400):
        if epoch >= 100:
            total_s, counted = total_s + float(backlog_s.sum()), counted + len(backlog_s)
        backlog_s = left_over_s(backlog_s, rng.exponential(1.0, 4000), epoch_s)
    root = float(brentq(lambda s: s - math.exp(-epoch_s * (1.0 - s)), 0.0, 0.9))
    assert total_s / counted == pytest.approx(root / (1.0 - root), rel=0.01)


def test_nobody_waits_for_a_processor_of_its_own() -> None:
    served = server_model("concurrent")(rows(0.1, 0.1), rows(0.5, 0.7), np.array([3.0]), 0.6)
    assert served.finish_s.tolist() == [[0.6, pytest.approx(0.8)]]
    assert served.backlog_s.tolist() == [0.0]


# --- energy and cost --------------------------------------------------------------------------------------------------

POWER = DevicePower(transmit_w=0.1, cpu_hz=0.8e9, switched_capacitance=1e-27)


def test_energy_is_power_times_time() -> None:
    share, upload_s, cycles = rows(0.0, 1.0, 0.5), rows(9.0, 3.0, 4.0), rows(7e8, 7e8, 7e8)
    assert energy_model("transmission")(share, upload_s, cycles, POWER).tolist() == [[0.0, pytest.approx(0.3), 0.2]]
    local_w, local_s = 1e-27 * 0.8e9**3, 7e8 / 0.8e9
    both = energy_model("sending_and_computing")(share, upload_s, cycles, POWER)
    assert both[0] == pytest.approx([local_w * local_s, 0.3, 0.2 + local_w * local_s / 2])


@dataclass
class Results:
    edge_share: FloatArray
    cycles: FloatArray
    delay_s: FloatArray
    energy_j: FloatArray
    misses: NDArray[np.bool_]


def test_costs() -> None:
    results = Results(rows(0, 1, 1), rows(7e8, 7e8, 7e8), rows(0.9, 1.0, 3.0), rows(0, 0.05, 2.0), rows(0, 0, 1) > 0)
    prices = Prices(local_per_gcycle=0.025, edge_per_gcycle=0.05, energy_per_j=0.1, delay_per_s=0.2, penalty=1.0)
    assert cost_model("prices")(results, prices)[0] == pytest.approx([0.0175, 0.035 + 0.005, 0.035 + 0.2 + 1.0])
    assert cost_model("weighted_sum")(results, prices)[0] == pytest.approx([0.18, 0.2 + 0.005, 0.6 + 0.2 + 1.0])
