"""The CPU model as a meter, against a scripted /proc/stat."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering import kernel_files
from edgebed.metering.base import Meter, MeterSetup
from edgebed.metering.board import load_board
from edgebed.metering.kernel_files import read_cpu_times
from edgebed.metering.registry import open_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory" / "boards" / "raspberry-pi-4b.yaml")


def write_stat(root: Path, ticks: str, cores: int = 4) -> None:
    lines = [f"cpu  {ticks}", *(f"cpu{number} 0 0 0 0" for number in range(cores)), "intr 12345 0 0", "ctxt 9"]
    (root / "stat").write_text("\n".join(lines) + "\n")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(50.0)


@pytest.fixture
def meter(tmp_path: Path, clock: ManualClock) -> Meter:
    write_stat(tmp_path, "1000 0 0 9000 0 0 0 0 0 0")
    return open_meter("cpu_model", MeterSetup(clock, BOARD, proc_root=tmp_path))


def test_energy_is_the_model_s_integral(meter: Meter, tmp_path: Path, clock: ManualClock) -> None:
    clock.advance(10.0)
    # 10 core-seconds of 40 busy: u = 0.25 for 10 s.
    write_stat(tmp_path, "2000 0 0 12000 0 0 0 0 0 0")
    reading = meter.read()
    assert reading.energy_j == pytest.approx(10 * (2.29 + 0.25 * 4.53))
    assert reading.power_w == pytest.approx(2.29 + 0.25 * 4.53)
    assert reading.error_j == pytest.approx(BOARD.error_fraction * reading.energy_j)
    assert reading.source == "estimated:cpu-model/raspberry-pi-4b"
    clock.advance(10.0)
    write_stat(tmp_path, "2000 0 0 16000 0 0 0 0 0 0")
    assert meter.read().power_w == pytest.approx(2.29)


def test_ticks_ahead_of_the_clock_are_not_lost_and_never_more_than_all_cores(
    meter: Meter, tmp_path: Path, clock: ManualClock
) -> None:
    clock.advance(0.1)
    write_stat(tmp_path, "1044 0 0 9000 0 0 0 0 0 0")
    assert meter.read().energy_j == pytest.approx(0.1 * 6.82)
    clock.advance(0.1)
    write_stat(tmp_path, "1080 0 0 9000 0 0 0 0 0 0")
    assert meter.read().energy_j == pytest.approx(0.2 * 6.82)


def test_counters_that_went_back_count_as_no_work(meter: Meter, tmp_path: Path, clock: ManualClock) -> None:
    clock.advance(1.0)
    write_stat(tmp_path, "0 0 0 0 0 0 0 0 0 0")
    assert meter.read().energy_j == pytest.approx(2.29)
    clock.advance(1.0)
    write_stat(tmp_path, "400 0 0 0 0 0 0 0 0 0")
    assert meter.read().energy_j == pytest.approx(2.29 + 6.82)


def test_core_going_off_line_never_takes_energy_back(meter: Meter, tmp_path: Path, clock: ManualClock) -> None:
    clock.advance(1.0)
    write_stat(tmp_path, "1200 0 0 9200 0 0 0 0 0 0", cores=2)
    before = meter.read()
    write_stat(tmp_path, "1200 0 0 9200 0 0 0 0 0 0", cores=4)
    assert meter.read().energy_j == before.energy_j


def test_lost_proc_is_an_error(meter: Meter, tmp_path: Path) -> None:
    (tmp_path / "stat").unlink()
    with pytest.raises(WorkFailed, match="stat cannot be read any more"):
        meter.read()


def test_host_without_proc_has_no_model(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(BadInput, match="mount procfs"):
        open_meter("cpu_model", MeterSetup(clock, BOARD, proc_root=tmp_path))


@pytest.mark.parametrize(
    ("ticks", "busy_s", "total_s"),
    [
        # Idle, iowait and stolen time are not busy; guest time is in user already.
        ("100 200 300 400 500 600 700 800 900 1000", 19.0, 36.0),
        ("100 200 300 400", 6.0, 10.0),
    ],
)
def test_what_counts_as_busy(tmp_path: Path, ticks: str, busy_s: float, total_s: float) -> None:
    write_stat(tmp_path, ticks, cores=3)
    times = read_cpu_times(tmp_path)
    assert times is not None
    assert (times.busy_s, times.total_s, times.cores) == (busy_s, total_s, 3)


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c d", "intr 1 2 3 4 5\n"])
def test_stat_that_says_nothing_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert read_cpu_times(tmp_path) is None


def test_system_without_procfs_is_asked_through_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    real = read_cpu_times("/proc")
    monkeypatch.setattr(kernel_files, "read_bytes", lambda *_: None)
    times = read_cpu_times("/proc")
    assert times is not None
    assert 0 < times.busy_s < times.total_s
    assert times.cores >= 1
    if real is not None:
        assert times.cores == real.cores
    assert read_cpu_times("/elsewhere") is None
