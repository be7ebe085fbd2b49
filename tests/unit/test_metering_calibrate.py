"""The calibration's program: loads, windows, and an end in any case."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from edgebed.clock import ManualClock
from edgebed.metering import calibrate
from edgebed.metering.base import Reading
from edgebed.metering.board import load_board
from edgebed.metering.calibrate import LOADS, Answer, Settings, duties, measure
from edgebed.metering.kernel_files import CpuTimes

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml")


@pytest.mark.parametrize(
    ("share", "cores", "expected"),
    [
        (0.0, 4, []),
        (0.5, 4, [1.0, 1.0]),
        (1.0, 4, [1.0] * 4),
        (0.25, 1, [0.25]),
        (0.75, 2, [1.0, 0.5]),
        (1.0, 1, [1.0]),
    ],
)
def test_how_busy_each_process_has_to_be(share: float, cores: int, expected: list[float]) -> None:
    assert duties(share, cores) == expected


class Bench:
    """A board that draws 2 W and 4 W more under full load; slow to follow: it takes the first second of each load."""

    source = "measured:bench"
    error = 0.01

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.share, self.since_s = 0.0, 0.0
        self.energy_j, self.busy_s, self.last_s = 0.0, 0.0, 100.0
        self.longest_s: list[float] = []

    @contextmanager
    def load(self, share: float, seconds: float) -> Iterator[None]:
        self._advance()
        self.share, self.since_s = share, self.clock.now_s()
        self.longest_s.append(seconds)
        yield
        self._advance()
        self.share, self.since_s = 0.0, self.clock.now_s()

    def _advance(self) -> None:
        now_s = self.clock.now_s()
        settled = self.share if now_s - self.since_s > 1.0 else 0.0
        self.energy_j += (2.0 + 4.0 * settled) * (now_s - self.last_s)
        self.busy_s += 4 * self.share * (now_s - self.last_s)
        self.last_s = now_s

    def read(self) -> Reading:
        self._advance()
        return Reading(self.clock.now_s(), self.energy_j, None, 0.01 * self.energy_j, self.source)

    def times(self) -> CpuTimes:
        self._advance()
        return CpuTimes(self.busy_s, 4 * (self.clock.now_s() - 100.0), 4)

    def word(self) -> int:
        return 0x50004 if self.share == 1.0 else 0x50000


def test_each_window_begins_when_the_load_has_settled() -> None:
    bench = Bench()
    settings = Settings(board={}, meter="", settle_s=2.0, window_s=3.0)
    windows = measure(bench, bench.load, bench.clock, bench.times, bench.word, settings)
    assert [window.asked for window in windows] == list(LOADS)
    for window in windows:
        assert window.utilisation == pytest.approx(window.asked, abs=0.01)
        assert window.power_w == pytest.approx(2.0 + 4.0 * window.asked, abs=0.01)
        assert window.error_w == pytest.approx(0.01 * window.power_w)
        assert window.flags == (["throttled"] if window.asked == 1.0 else [])
    assert bench.clock.now_s() - 100.0 == pytest.approx(len(LOADS) * 5.0, abs=2.0)
    assert max(bench.longest_s) <= 20.0  # a load that nobody ends ends by itself


def run_program(settings: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "edgebed.metering.calibrate"]
    return subprocess.run(command, input=settings, capture_output=True, timeout=60, check=False)


def test_the_program_on_a_scripted_sensor(tmp_path: Path) -> None:
    chip = tmp_path / "class/hwmon/hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina219\n")
    (chip / "power1_input").write_text("3500000\n")
    settings = Settings(
        board=asdict(BOARD), meter="hwmon_ina2xx", sysfs_root=str(tmp_path), settle_s=0.05, window_s=0.15
    )
    done = run_program(msgspec.json.encode(settings))
    assert done.returncode == 0, done.stderr
    answer = msgspec.json.decode(done.stdout, type=Answer)
    assert (answer.source, answer.problem) == ("measured:ina219", "")
    assert [window.asked for window in answer.windows] == list(LOADS)
    assert all(window.power_w == pytest.approx(3.5) for window in answer.windows)


def test_a_sensor_that_is_not_there_is_the_answer(tmp_path: Path) -> None:
    settings = Settings(board=asdict(BOARD), meter="hwmon_ina2xx", sysfs_root=str(tmp_path))
    answer = msgspec.json.decode(run_program(msgspec.json.encode(settings)).stdout, type=Answer)
    assert "no INA2xx sensor" in answer.problem
    assert answer.windows == []


@pytest.mark.parametrize("seconds", [0, -1, 61])
def test_how_long_it_may_take_is_bounded(seconds: float) -> None:
    plain = {"board": {}, "meter": "x", "window_s": seconds}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(plain), type=Settings)


@pytest.mark.parametrize(("seconds", "parent"), [("0.1", "itself"), ("60", "gone")])
def test_a_busy_process_ends_at_its_deadline_and_when_its_parent_is_gone(seconds: str, parent: str) -> None:
    import os

    pid = os.getpid() if parent == "itself" else 2**22 + 1
    script = calibrate._BUSY
    subprocess.run([sys.executable, "-I", "-c", script, "1.0", seconds, str(pid)], timeout=20, check=True)
