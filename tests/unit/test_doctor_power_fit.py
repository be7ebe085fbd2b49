"""Fitting a board's power model to what a meter said, and the board file that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgebed.errors import WorkFailed
from edgebed.metering.board import load_board
from edgebed.metering.calibrate import LOADS, Window
from orchestrator.doctor.calibration import MADE_BY, write_board
from orchestrator.doctor.power_fit import calibrated_board, fit_power

BOARD = load_board(Path(__file__).parents[2] / "inventory/boards/raspberry-pi-4b.yaml")


def windows(idle_w: float = 2.5, span_w: float = 4.0, off_w: dict[int, float] | None = None) -> list[Window]:
    """A linear board with an idle utilisation of 2 %, and some windows off the line; the meter errs by 1.5 %."""
    found = []
    for index, asked in enumerate(LOADS):
        utilisation = 0.02 + 0.97 * asked
        power_w = idle_w + span_w * utilisation + (off_w or {}).get(index, 0.0)
        found.append(Window(asked=asked, utilisation=utilisation, power_w=power_w, error_w=0.015 * power_w))
    return found


def test_a_linear_board_is_found_again() -> None:
    fit = fit_power(windows(), "measured:ina219")
    assert fit.idle_w == pytest.approx(2.5)
    assert fit.max_w == pytest.approx(6.5)
    assert fit.worst_residual_w == pytest.approx(0.0, abs=1e-9)
    # What is left is the meter's own error.
    assert fit.error_fraction == pytest.approx(0.0155, abs=0.001)
    assert fit.marginal_error_fraction == pytest.approx(0.0155, abs=0.001)


def test_least_squares_as_by_hand() -> None:
    rows = [(0.0, 2.0), (0.5, 4.5), (1.0, 6.0)]  # mean 0.5, 25/6; slope = 2.0 / 0.5
    fit = fit_power([Window(asked=u, utilisation=u, power_w=p, error_w=0.0) for u, p in rows], "measured:x")
    assert fit.max_w - fit.idle_w == pytest.approx(4.0)
    assert fit.idle_w == pytest.approx(25 / 6 - 2.0)
    assert fit.residuals_w == pytest.approx((-1 / 6, 1 / 3, -1 / 6))
    assert fit.error_fraction == pytest.approx(1 / 6 / 2.0, abs=0.001)
    # (1/3 + 1/6) of what half the processors add, 2 W
    assert fit.marginal_error_fraction == pytest.approx(0.25, abs=0.001)


def test_every_measured_power_lies_within_the_stated_error() -> None:
    fit = fit_power(windows(off_w={1: 0.3, 2: -0.2, 5: 0.25}), "measured:ina219")
    for window in fit.windows:
        assert abs(fit.power_w(window.utilisation) - window.power_w) <= fit.error_fraction * window.power_w


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (windows(span_w=-1.0), "does not rise with the load"),
        ([Window(asked=each.asked, utilisation=0.3, power_w=3, error_w=0) for each in windows()], "was not idle"),
        ([Window(asked=each.asked, utilisation=0.1, power_w=3, error_w=0) for each in windows()], "reached only 0 %"),
        (
            [*windows(), Window(asked=1.0, utilisation=1.0, power_w=6.5, error_w=0.1, flags=["under_voltage"])],
            "not itself meanwhile .under voltage.",
        ),
    ],
)
def test_what_would_be_a_fit_of_something_else_is_refused(broken: list[Window], said: str) -> None:
    with pytest.raises(WorkFailed, match=said):
        fit_power(broken, "measured:ina219")


def test_the_board_file_is_a_board_and_shows_what_was_left_over(tmp_path: Path) -> None:
    fit = fit_power(windows(off_w={2: 0.1}), "measured:ina219")
    board = calibrated_board(BOARD, "raspberry-pi-4b-pi-3", "pi-3", fit, "2026-01-02")
    file = tmp_path / "boards" / "raspberry-pi-4b-pi-3.yaml"
    write_board(file, board, fit)
    assert load_board(file) == board
    text = file.read_text()
    assert text.startswith(MADE_BY)
    rows = [line for line in text.splitlines() if line.startswith("#   ")]
    assert len(rows) == len(LOADS)
    assert f"{fit.residuals_w[2]:+.3f} W" in rows[2]
    assert board.power_kind == "measured"
    assert "measured:ina219 on pi-3, 2026-01-02" in board.power_source
    # What was not measured stays what it was, with its source.
    kept = replace(BOARD, **{name: getattr(board, name) for name in ("name", "title", "idle_w", "max_w")})
    assert (board.transmit_w, board.transmit_source, board.cores) == (kept.transmit_w, kept.transmit_source, kept.cores)
    assert list(tmp_path.rglob("*.new")) == []
