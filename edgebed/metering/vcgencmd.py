"""A Raspberry Pi's firmware, asked through the program ``vcgencmd``: throttle word, true clock, the Pi 5's rails.

A process costs milliseconds on a small Pi, so whoever samples asks at most once a second, see `FirmwarePoll`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from edgebed.clock import Clock
from edgebed.metering.polled_program import PolledProgram

PROGRAM = "vcgencmd"
TIMEOUT_S = 1.0
"""The firmware answers in milliseconds; after this long it does not answer."""

POLL_PERIOD_S = 1.0
"""How often `FirmwarePoll` starts a process."""

GET_THROTTLED = ("get_throttled",)
MEASURE_CLOCK = ("measure_clock", "arm")
READ_RAILS = ("pmic_read_adc",)

_THROTTLED = re.compile(r"^throttled=0x([0-9a-fA-F]{1,8})$")
_CLOCK = re.compile(r"^frequency\(\d+\)=(\d{1,12})$")
_RAIL = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+\.?\d*)([AV])\s*$")


def find_program() -> str | None:
    """Where ``vcgencmd`` is, or None; it is no error that a host is no Raspberry Pi."""
    return shutil.which(PROGRAM)


def ask(program: str, question: Sequence[str]) -> str | None:
    """The firmware's answer, waiting for it; None when there is none in time, or it is an error."""
    try:
        done = subprocess.run(
            [program, *question], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def parse_throttled(text: str) -> int | None:
    """The throttle word of an answer like ``throttled=0x50005``."""
    match = _THROTTLED.match(text.strip())
    return int(match[1], 16) if match else None


def parse_clock_hz(text: str) -> float | None:
    """The clock of an answer like ``frequency(48)=1500345728``; the firmware counted it, nobody wished it."""
    match = _CLOCK.match(text.strip())
    # 0 is what a firmware says that cannot count.
    return float(match[1]) if match and int(match[1]) > 0 else None


def parse_rails(text: str) -> dict[str, float]:
    """The power of each rail of a Pi 5 in watts, by name, from an answer to ``pmic_read_adc``.

    Rails of which only current or only voltage is told (``EXT5V``, ``BATT``) are left out: their power is not known.
    """
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if (match := _RAIL.match(line)) and match[2] == match[4]:
            found.setdefault(match[1], {})[match[2]] = float(match[3])
    return {name: values["A"] * values["V"] for name, values in found.items() if len(values) == 2}


class FirmwarePoll:
    """Asks several questions in turn, one process a second at most, and never waits for an answer.

    Args:
        program: ``vcgencmd``.
        questions: their arguments.
    """

    def __init__(self, clock: Clock, program: str, questions: Sequence[Sequence[str]]) -> None:
        period_s = POLL_PERIOD_S * len(questions)
        self._programs = {
            tuple(question): PolledProgram(clock, (program, *question), period_s, index * POLL_PERIOD_S)
            for index, question in enumerate(questions)
        }

    def answer(self, question: Sequence[str]) -> str | None:
        """The newest answer to a question; None while there is none, or when the last try got none."""
        program = self._programs.get(tuple(question))
        return None if program is None else program.answer

    def poll(self) -> None:
        """Collect what has been answered, and ask what is due."""
        for program in self._programs.values():
            program.poll()

    def close(self) -> None:
        """End what is still being asked."""
        for program in self._programs.values():
            program.close()
