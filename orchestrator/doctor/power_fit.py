"""The power model of one board, P = idle + (max - idle) u, fitted to what a meter beside it said. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgebed.errors import WorkFailed
from edgebed.metering.board import Board
from edgebed.metering.calibrate import Window

BUSIEST_IDLE = 0.15
"""A host that is busier than this with nothing asked of it is not idle: the fit would be of something else."""

LEAST_SPREAD = 0.3
"""Utilisations have to differ by this much, or the line between them says nothing."""

LEAST_ERROR = 0.01
"""No fit of a few seconds is better than this, whatever its residuals."""

_SMALL_LOAD = 0.2
"""Below this utilisation a small difference of powers is divided by another one."""


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Coefficients, what is left over, and the errors that follow.

    Attributes:
        residuals_w: measured minus fitted, a window each.
        error_fraction: of the whole power: the largest residual's share and the meter's own error.
        marginal_error_fraction: of what busy cores add to idle, likewise.
        meter_source: who measured.
    """

    idle_w: float
    max_w: float
    windows: tuple[Window, ...]
    residuals_w: tuple[float, ...]
    error_fraction: float
    marginal_error_fraction: float
    meter_source: str

    @property
    def worst_residual_w(self) -> float:
        """The largest, without its sign."""
        return max(map(abs, self.residuals_w))

    def power_w(self, utilisation: float) -> float:
        """What the fit says."""
        return self.idle_w + (self.max_w - self.idle_w) * utilisation


def fit_power(windows: Sequence[Window], meter_source: str) -> PowerFit:
    """Least squares through the windows.

    Raises:
        WorkFailed: the board was throttled, not idle, hardly loaded, or its power does not rise with its load.
    """
    _check(windows)
    utilisation = np.array([window.utilisation for window in windows])
    power_w = np.array([window.power_w for window in windows])
    design = np.column_stack((np.ones_like(utilisation), utilisation))
    (idle_w, span_w), *_ = np.linalg.lstsq(design, power_w, rcond=None)
    if span_w <= 0 or idle_w <= 0:
        raise WorkFailed(
            f"the power does not rise with the load ({idle_w:.2f} W idle, {span_w:+.2f} W busy); "
            "does the meter see this board, and nothing else?"
        )
    residuals_w = power_w - design @ np.array([idle_w, span_w])
    gain = max(window.error_w / window.power_w for window in windows)
    rests = np.abs(residuals_w)
    busy = utilisation >= _SMALL_LOAD
    marginal = (rests[busy] + rests[~busy].max(initial=0.0)) / (span_w * utilisation[busy])
    return PowerFit(
        idle_w=float(idle_w),
        max_w=float(idle_w + span_w),
        windows=tuple(windows),
        residuals_w=tuple(float(each) for each in residuals_w),
        error_fraction=_error(float((rests / power_w).max()) + gain),
        marginal_error_fraction=_error(float(marginal.max()) + gain),
        meter_source=meter_source,
    )


def _error(fraction: float) -> float:
    return min(1.0, max(LEAST_ERROR, round(fraction + 0.0005, 3)))


def _check(windows: Sequence[Window]) -> None:
    troubled = sorted({flag for window in windows for flag in window.flags})
    if troubled:
        raise WorkFailed(
            f"the board was not itself meanwhile ({', '.join(troubled).replace('_', ' ')}); cool it or give it "
            "a better power supply, then calibrate again"
        )
    idle = [window.utilisation for window in windows if window.asked == 0.0]
    if not idle or max(idle) > BUSIEST_IDLE:
        busy = f"{100 * max(idle, default=1.0):.0f} %"
        raise WorkFailed(f"the host was not idle: other programs kept {busy} of it busy; end them and calibrate again")
    spread = max(window.utilisation for window in windows) - min(idle)
    if spread < LEAST_SPREAD:
        raise WorkFailed(
            f"the load reached only {100 * spread:.0f} % of the processors; is a limit on CPU time set for the user?"
        )


def calibrated_board(board: Board, name: str, host: str, fit: PowerFit, when: str) -> Board:
    """The board with the fitted model in the place of its own."""
    shares = " ".join(f"{100 * window.utilisation:.0f}" for window in fit.windows)
    return replace(
        board,
        name=name,
        title=f"{board.title}, calibrated on {host}",
        idle_w=round(fit.idle_w, 4),
        max_w=round(fit.max_w, 4),
        error_fraction=fit.error_fraction,
        marginal_error_fraction=fit.marginal_error_fraction,
        error_source=(
            f"measured: the largest residual of {len(fit.windows)} windows, {fit.worst_residual_w:.3f} W, and the "
            f"meter's own error; minutes of one board, so heat and age are not in it"
        ),
        power_kind="measured",
        power_source=f"least squares over {fit.meter_source} on {host}, {when}, at {shares} % of the processors",
    )
