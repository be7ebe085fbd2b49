"""The pieces of the training script that decide what the card says."""

from __future__ import annotations

import numpy as np
import pytest

from workloads.digits import DigitsWorkload
from workloads.digits.manifest import FOLDER
from workloads.digits.recognise import Recogniser, shared_session
from workloads.digits.scans import SCANS_NAME, Part, ScanSet, read_part
from workloads.digits.training.measure import describe_processor, measure_accuracy, measure_cost, wilson_interval

TEST_SCANS = read_part((FOLDER / SCANS_NAME).read_bytes(), Part.TEST)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (the score interval).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: Fast @ 2.50GHz\ncpu MHz\t: 3100.0\n", ("Fast @ 2.50GHz", 2.5e9)),
        ("model name\t: Plain\ncpu MHz\t\t: 1800.5\n", ("Plain", 1.8005e9)),
    ],
)
def test_processor(cpuinfo: str, expected: tuple[str, float]) -> None:
    assert describe_processor(cpuinfo) == expected


def test_a_processor_without_a_clock_is_an_error() -> None:
    with pytest.raises(LookupError, match="states no clock"):
        describe_processor("Hardware\t: BCM2835\n")


class OddSeer(Recogniser):
    """Sees in every frame the digit that `seen` names next."""

    def __init__(self, seen: list[int]) -> None:
        self._seen = iter(seen)

    def recognise(self, frame: object) -> int:
        assert frame
        return next(self._seen)


def test_accuracy_counts_frames_and_scans() -> None:
    scans = ScanSet(np.zeros((10, 8, 8), np.uint8), np.arange(10, dtype=np.uint8))
    # Digit 0 is seen as 9 in two of three renderings, digit 1 in one; the others never.
    seen = [9, 9, 0, 9, 1, 1, *np.repeat(np.arange(2, 10), 3).tolist()]
    found = measure_accuracy(OddSeer(seen), scans, 3, seed=0)
    assert (found.frames, found.correct, found.scans_right) == (30, 27, 9)
    assert (found.low, found.high) == wilson_interval(27, 30)
    assert (found.scans_low, found.scans_high) == wilson_interval(9, 10)
    assert found.by_digit == pytest.approx((1 / 3, 2 / 3, *[1] * 8))


def test_cost_is_measured_on_real_frames() -> None:
    cost = measure_cost(Recogniser(shared_session(FOLDER)), TEST_SCANS, 20, seed=1)
    assert cost.cpu_s_per_frame > 0
    assert cost.bytes_low <= cost.bytes_per_frame <= cost.bytes_high
    assert cost.bytes_per_frame == pytest.approx(DigitsWorkload().demand.bytes_per_frame, rel=0.2)
