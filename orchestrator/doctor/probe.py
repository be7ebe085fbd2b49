"""Asking a host: one script in one round trip, and its clock by the halves of some more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.remote.base import Remote

SCRIPT_FILE = Path(__file__).with_name("probe.sh")
PROBE_TIMEOUT_S = 30.0

CLOCK_QUESTIONS = 5
"""How often a host is asked for its time; the answer of the shortest round trip counts."""

_MARK = "@@ "


@dataclass(frozen=True, slots=True)
class Probe:
    """What a host said of itself, by part; a part that said nothing is empty."""

    parts: Mapping[str, str]

    def text(self, part: str) -> str:
        """A part's text, without the white space around it."""
        return self.parts.get(part, "").strip()

    def lines(self, part: str) -> list[str]:
        """A part's lines, without empty ones."""
        return [line.strip() for line in self.parts.get(part, "").splitlines() if line.strip()]

    @property
    def is_whole(self) -> bool:
        """The script came to its end."""
        return "end" in self.parts


def parse_probe(text: str) -> Probe:
    """What ``probe.sh`` has printed; text before the first mark, say of a login script, is left out."""
    parts: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        # A file without a newline at its end leaves the next mark in its last line.
        body, mark, title = line.partition(_MARK)
        if mark and title.strip().isidentifier():
            if name:
                parts[name] = parts.get(name, "") + body
            name = title.strip()
            parts.setdefault(name, "")
        elif name:
            parts[name] += line
    return Probe(parts)


def probe(remote: Remote) -> Probe:
    """Run the script on a host.

    Raises:
        RemoteError: the host was lost, or the script did not end.
    """
    done = remote.execute(SCRIPT_FILE.read_text(), timeout_s=PROBE_TIMEOUT_S, idempotent=True)
    return parse_probe(done.stdout.decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A host's wall clock against ours.

    Attributes:
        offset_s: theirs minus ours.
        error_s: half the round trip, which is how wrong it may be.
    """

    offset_s: float
    error_s: float


def read_clock(remote: Remote, now: Callable[[], float] = time.time) -> ClockReading | None:
    """Measure a host's wall clock; None when its ``date`` knows no fractions of a second.

    Raises:
        RemoteError: the host was lost.
    """
    readings = []
    for _ in range(CLOCK_QUESTIONS):
        asked_s = now()
        text = remote.execute("date +%s.%N", idempotent=True).text
        answered_s = now()
        try:
            told_s = float(text)
        except ValueError:
            return None
        readings.append(ClockReading(told_s - (asked_s + answered_s) / 2, (answered_s - asked_s) / 2))
    return min(readings, key=lambda reading: reading.error_s)
