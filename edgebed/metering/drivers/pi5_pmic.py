"""The Raspberry Pi 5's power controller (PMIC), through ``vcgencmd pmic_read_adc``.

It measures voltage and current of the twelve rails that it makes. Their sum is **less than what the board draws**:
the loss of making them, USB, HATs and NVMe are not in it. A fit of the community's against a wall meter says
total = 1.145 x sum + 0.588 W; nobody has published its residuals.

By default a joule from here is a joule of the rails, as measured, and its error reaches up to that fit. With the
setting ``total: fitted`` it is the fit's, and then it is an estimate and says so.
"""

from __future__ import annotations

from edgebed.errors import BadInput, WorkFailed
from edgebed.metering.base import Meter, MeterDriver, MeterSetup, Reading
from edgebed.metering.integral import PowerIntegral
from edgebed.metering.vcgencmd import POLL_PERIOD_S, READ_RAILS, ask, find_program, parse_rails

FIT_SLOPE = 1.145
FIT_OFFSET_W = 0.588
"""Total power of a Pi 5 from the sum of its rails: a community fit, without published residuals."""

CONVERTER_ERROR_FRACTION = 0.05
"""Assumed error of the PMIC's converters; its data sheet is not public."""

FITTED_ERROR_FRACTION = 0.15
"""Assumed error of the fitted total: nobody published residuals, boards differ, and USB loads are not seen at all."""

LONGEST_INTERVAL_S = 2.5
"""The firmware is asked once a second; readings further apart than this say little about the time between them."""

RAILS, FITTED = "rails", "fitted"


class Pi5PmicMeter:
    """Cumulative energy of a Raspberry Pi 5 from its PMIC.

    The firmware is asked once a second at most. In between a reading goes on with the power shown last; what the next
    answer shows that to have missed is taken back from what follows, never from what was said, and is counted as error.

    Args:
        setup: setting ``total``, see ``DRIVER``.

    Raises:
        BadInput: a setting is wrong, or this is no Raspberry Pi 5 with ``vcgencmd``.
    """

    def __init__(self, setup: MeterSetup) -> None:
        self._clock = setup.clock
        self._is_fitted = _is_fitted(setup)
        program = find_program()
        self._program = program or ""
        rails_w = None if program is None else _read_rails_w(program)
        if rails_w is None:
            raise BadInput(
                "meter pi5_pmic: `vcgencmd pmic_read_adc` shows no rails; only a Raspberry Pi 5 has them (install "
                "raspi-utils, and put the user into the group video), or use the meter cpu_model"
            )
        self.source = f"estimated:pmic-fit/{setup.board.name}" if self._is_fitted else "measured:pmic-rails"
        # The rails' shortfall is part of their error: what they leave out was drawn all the same.
        self.error = FITTED_ERROR_FRACTION if self._is_fitted else CONVERTER_ERROR_FRACTION + FIT_SLOPE - 1.0
        self._unseen_w = 0.0 if self._is_fitted else FIT_OFFSET_W
        self._opened_s = self._asked_s = self._clock.now_s()
        self._sum = PowerIntegral(self.error, LONGEST_INTERVAL_S, self._opened_s, self._power_w(rails_w))
        self._problem = ""
        self._said_j = 0.0
        self._misjudged_j = 0.0

    def read(self) -> Reading:
        """Bring the energy up to now.

        Raises:
            WorkFailed: the firmware did not answer.
        """
        now_s = self._clock.now_s()
        if now_s - self._asked_s >= POLL_PERIOD_S:
            self._ask(now_s)
        if self._problem:
            raise WorkFailed(self._problem)
        ahead_s = now_s - self._asked_s
        self._said_j = max(self._said_j, self._sum.energy_j + self._sum.power_w * ahead_s)
        error_j = self._sum.error_j + self.error * self._sum.power_w * ahead_s + self._misjudged_j
        error_j = max(error_j + self._unseen_w * (now_s - self._opened_s), self.error * self._said_j)
        return Reading(now_s, self._said_j, self._sum.power_w, error_j, self.source)

    def _ask(self, now_s: float) -> None:
        rails_w = _read_rails_w(self._program)
        if rails_w is None:
            self._sum.lose()
            self._asked_s = now_s
            self._problem = (
                f"meter {self.source}: `vcgencmd pmic_read_adc` shows no rails any more; "
                "try it by hand, and look at `dmesg | grep -i vchiq`"
            )
            return
        before_w, self._problem = self._sum.power_w, ""
        self._sum.add(now_s, self._power_w(rails_w))
        self._misjudged_j += abs(self._sum.power_w - before_w) / 2 * (now_s - self._asked_s)
        self._asked_s = now_s

    def _power_w(self, rails_w: float) -> float:
        return FIT_SLOPE * rails_w + FIT_OFFSET_W if self._is_fitted else rails_w


def _read_rails_w(program: str) -> float | None:
    """The sum of the rails in watts; None when the firmware shows none."""
    rails = parse_rails(ask(program, READ_RAILS) or "")
    return sum(rails.values()) if rails else None


def _is_fitted(setup: MeterSetup) -> bool:
    total = setup.settings.get("total", RAILS)
    if total not in (RAILS, FITTED):
        raise BadInput(f"meter pi5_pmic: total is {total!r}; allowed: {RAILS}, {FITTED}")
    return total == FITTED


def _is_present(setup: MeterSetup) -> bool:
    program = find_program()
    return program is not None and _read_rails_w(program) is not None


def _open_meter(setup: MeterSetup) -> Meter:
    return Pi5PmicMeter(setup)


DRIVER = MeterDriver(
    name="pi5_pmic",
    summary="a Raspberry Pi 5's power controller through vcgencmd: its rails, not the whole board (measured)",
    measures=True,
    settings={
        "total": f"{RAILS}: the sum of the rails as measured, known to be low (the default); "
        f"{FITTED}: {FIT_SLOPE} x sum + {FIT_OFFSET_W} W for the whole board, an estimate",
    },
    is_present=_is_present,
    open_meter=_open_meter,
    rank=10,
)
