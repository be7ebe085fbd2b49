"""Service times, shared processors and drift, found again in computations that were made up from known ones."""

from __future__ import annotations

import numpy as np
import pytest

from edgebed.simulation.testbed.profile import Processor
from orchestrator.calibration.rows import Rows, others_at_start
from orchestrator.calibration.service import Computations, fit_service, stretch


def computations(
    rng: np.random.Generator, frame_s: float, drift: np.ndarray, per_other: float, n: int = 600
) -> Computations:
    """What a host computed in cells of known drift, among a known number of others."""
    frames = rng.integers(2, 9, n).astype(float)
    others = rng.integers(0, 4, n).astype(float)
    cell = np.arange(n) % len(drift)
    noise = rng.lognormal(0.0, 0.05, n)
    duration_s = (0.01 + frame_s * frames) * (1 + per_other * others) * drift[cell] * noise
    return Computations(frames, duration_s, others, duration_s / 8, np.arange(n), cell)


@pytest.mark.parametrize("per_other", [0.0, 0.2])
def test_lines_stretch_and_drift_are_told_apart(per_other: float) -> None:
    rng = np.random.default_rng(0)
    drift = np.array([0.9, 0.95, 1.0, 1.05, 1.4])
    hosts = {"pi-1": 0.03, "edge": 0.01}
    made = {host: computations(rng, frame_s, drift, per_other) for host, frame_s in hosts.items()}
    found = fit_service(made, dict.fromkeys(hosts, "machine"), {"machine": 4.0})
    for host, frame_s in hosts.items():
        assert found.lines[host].slope == pytest.approx(frame_s, rel=0.03)
        assert found.lines[host].overhead_s == pytest.approx(0.01, abs=0.003)
        assert found.lines[host].relative_rms == pytest.approx(0.05, abs=0.01)
    assert found.processors["machine"].per_other == pytest.approx(per_other, abs=0.02)
    assert found.drift.tolist() == pytest.approx(drift.tolist(), rel=0.02)


def test_speeds_of_hosts_are_not_traded_for_speeds_of_cells() -> None:
    """Under one policy only devices compute, under the other only the server; a third links the two, loosely."""
    rng = np.random.default_rng(4)
    drift = np.array([1.1, 1.0, 0.9, 1.2, 1.0, 1.0])
    made = {"pi-1": computations(rng, 0.05, drift, 0.1), "edge": computations(rng, 0.01, drift, 0.1)}
    for host, cells in (("pi-1", (0, 1, 4)), ("edge", (2, 3, 5))):
        kept = np.isin(made[host].cell, cells)
        each = made[host]
        made[host] = Computations(
            *(getattr(each, name)[kept] for name in ("frames", "duration_s", "others", "cpu_s", "position", "cell"))
        )
    found = fit_service(made, dict.fromkeys(made, "machine"), {"machine": 4.0})
    assert found.lines["pi-1"].slope == pytest.approx(0.05, rel=0.1)
    assert found.lines["edge"].slope == pytest.approx(0.01, rel=0.1)
    assert found.processors["machine"].per_other == pytest.approx(0.1, abs=0.02)
    assert found.drift.tolist() == pytest.approx(drift.tolist(), rel=0.1)


def test_one_slow_cell_does_not_make_a_host_slow() -> None:
    drift = np.array([1.0, 1.0, 1.0, 1.0, 3.0])
    made = {"pi-1": computations(np.random.default_rng(1), 0.05, drift, 0.0)}
    found = fit_service(made, {}, {})
    assert found.lines["pi-1"].slope == pytest.approx(0.05, rel=0.03)
    assert found.drift[4] == pytest.approx(3.0, rel=0.03)


def test_few_tasks_tell_nothing_of_a_cell() -> None:
    drift = np.ones(60)
    drift[7] = 5.0
    made = {"pi-1": computations(np.random.default_rng(2), 0.05, drift, 0.0)}  # ten tasks a cell
    assert set(fit_service(made, {}, {}).drift) == {1.0}


def test_a_host_with_too_few_tasks_is_left_out() -> None:
    made = {"pi-1": computations(np.random.default_rng(3), 0.05, np.ones(1), 0.0, n=4)}
    assert fit_service(made, {}, {}).lines == {}


def test_the_stretch_is_that_of_the_simulation() -> None:
    rule = Processor(cores=2.0, per_other=0.1, per_excess=0.5)
    assert stretch(rule, np.arange(4.0)).tolist() == pytest.approx([1.0, 1.1, 1.7, 2.3])
    assert stretch(None, np.arange(4.0)).tolist() == [1.0] * 4


def test_others_are_those_on_the_same_processors_at_the_start() -> None:
    """Two devices and a server share a machine; a third device is on its own."""
    names = np.array(["a", "b", "c", "b"], object)
    n = len(names)
    rows = Rows(
        {
            "run": np.zeros(n),
            "cell_id": np.full(n, "cell", object),
            "device_id": names,
            "server": np.array(["", "", "", "edge"], object),
            "outcome": np.full(n, "done", object),
            "arrived_s": np.array([0.0, 0.5, 0.6, 0.0]),
            "decision_s": np.zeros(n),
            "device_queue_s": np.zeros(n),
            "device_compute_s": np.array([1.0, 1.0, 1.0, 0.0]),
            "uplink_queue_s": np.zeros(n),
            "uplink_s": np.array([0.0, 0.0, 0.0, 0.8]),
            "server_queue_s": np.zeros(n),
            "server_compute_s": np.array([0.0, 0.0, 0.0, 0.5]),
        },
        ("run",),
        n,
    )
    on_device, at_server = others_at_start(rows, {"a": "m", "b": "m", "edge": "m"})
    assert on_device[:3].tolist() == [0.0, 1.0, 0.0]
    assert at_server[3] == 2.0
    assert np.isnan(on_device[3])
    assert np.isnan(at_server[:3]).all()
