"""The Pi 5's rails as a meter: what is measured, what is fitted, and what is in the error."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgebed.clock import ManualClock
from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterSetup, window_energy
from edgebed.metering.board import load_board
from edgebed.metering.registry import open_meter

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-5.yaml")


class Pi5:
    """A ``vcgencmd`` on PATH that shows one rail of so many watts at 1 V, and counts how often it is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock(50.0)
        self.folder = folder
        self.show_w(2.0)
        program = folder / "vcgencmd"
        program.write_text(f'#!/bin/sh\necho x >> {folder}/asked\n[ "$1" = pmic_read_adc ] && cat {folder}/adc\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def show_w(self, power_w: float) -> None:
        text = f" VDD_CORE_A current(7)={power_w:.6f}A\n VDD_CORE_V volt(15)=1.0V\n EXT5V_V volt(24)=5.1V\n"
        (self.folder / "adc").write_text(text)

    @property
    def asked(self) -> int:
        return len((self.folder / "asked").read_text().split())

    def open(self, **settings: str) -> Meter:
        return open_meter("pi5_pmic", replace(MeterSetup(self.clock, BOARD), settings=settings))


@pytest.fixture
def pi5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pi5:
    return Pi5(tmp_path, monkeypatch)


def test_the_rails_are_measured_and_say_that_they_are_not_the_board(pi5: Pi5) -> None:
    meter = pi5.open()
    assert meter.source == "measured:pmic-rails"
    start = meter.read()
    for _ in range(100):
        pi5.clock.advance(0.1)
        end = meter.read()
    window = window_energy(start, end)
    assert window.energy_j == pytest.approx(2.0 * 10)
    # The community's fit of the whole board has to lie within the error.
    whole_j = (1.145 * 2.0 + 0.588) * 10
    assert window.energy_j + window.error_j >= whole_j


def test_the_fitted_total_is_an_estimate(pi5: Pi5) -> None:
    meter = pi5.open(total="fitted")
    assert meter.source == "estimated:pmic-fit/raspberry-pi-5"
    start = meter.read()
    for _ in range(10):
        pi5.clock.advance(1.0)
        end = meter.read()
    assert window_energy(start, end).energy_j == pytest.approx((1.145 * 2.0 + 0.588) * 10)


def test_the_firmware_is_asked_at_most_once_a_second(pi5: Pi5) -> None:
    meter = pi5.open()
    for _ in range(50):
        pi5.clock.advance(0.1)
        meter.read()
    assert pi5.asked <= 1 + 5


def test_what_was_misjudged_between_two_answers_is_in_the_error(pi5: Pi5) -> None:
    meter = pi5.open()
    start = meter.read()
    pi5.show_w(6.0)
    said = []
    for _ in range(20):
        pi5.clock.advance(0.1)
        said.append(meter.read())
    assert all(later.energy_j >= earlier.energy_j for earlier, later in pairwise(said))
    window = window_energy(start, said[-1])
    assert abs(window.energy_j - 6.0 * 2) <= window.error_j


def test_a_firmware_that_falls_silent_is_said_and_the_gap_is_error(pi5: Pi5) -> None:
    meter = pi5.open()
    before = meter.read()
    (pi5.folder / "adc").unlink()
    pi5.clock.advance(1.0)
    for _ in range(2):
        with pytest.raises(WorkFailed, match="shows no rails any more"):
            meter.read()
    pi5.show_w(2.0)
    pi5.clock.advance(1.0)
    after = meter.read()
    assert after.error_j - before.error_j >= 2.0  # at least the joule-second that nobody saw


@pytest.mark.parametrize("total", ["all", 1, ""])
def test_a_wrong_total_is_bad_input(pi5: Pi5, total: object) -> None:
    with pytest.raises(BadInput, match="allowed: rails, fitted"):
        pi5.open(total=total)  # type: ignore[arg-type]


def test_other_boards_have_no_rails(pi5: Pi5) -> None:
    (pi5.folder / "adc").write_text('error=2 error_msg="Invalid arguments"\n')
    with pytest.raises(BadInput, match="only a Raspberry Pi 5"):
        pi5.open()
