"""What became of each cell of a run: its attempts, each with a small file beside its raw segments.

    cells/<cell>/attempt-<n>/attempt.json

The file is replaced in one step at every change, so that whoever resumes after a crash knows how far it had come.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from edgebed.errors import BadInput, Problem
from edgebed.replacing import replace_file
from edgebed.trace.segments import attempt_folder, latest_attempt

ATTEMPT_FILE = "attempt.json"

AttemptState = Literal["preparing", "running", "stopping", "complete", "abandoned"]


class Attempt(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One try at a cell.

    Attributes:
        serial: its number in the run; rises with every attempt of any cell.
        state: ``complete`` when the cell came to its end, also when devices were lost on the way; ``abandoned`` when it
            did not.
        run_clock_s: the run clock at its start; None while it has not been started.
        started_utc_s: the same instant of the wall clock, in seconds since 1970; for resuming only.
        stopped_s: how far into the cell it was stopped, in seconds since its start; None when not.
        reason: why it was stopped before its end.
        down: devices whose program was certainly dead at the end: since when, in seconds since the cell's start.
        lost: members that could not be heard to the end, and why.
    """

    cell_id: str
    attempt: int
    serial: int
    state: AttemptState = "preparing"
    run_clock_s: float | None = None
    started_utc_s: float | None = None
    stopped_s: float | None = None
    reason: str = ""
    down: dict[str, float] = {}
    lost: dict[str, str] = {}

    @property
    def is_over(self) -> bool:
        """Nothing of it is going on any more."""
        return self.state in ("complete", "abandoned")


class Attempts:
    """The attempts of a run.

    Args:
        run_folder: the run's.
        cell_ids: of the plan, in its order.

    Raises:
        BadInput: a file is there and cannot be understood.
    """

    def __init__(self, run_folder: Path, cell_ids: Iterable[str]) -> None:
        self._run_folder = run_folder
        self._latest: dict[str, Attempt] = {}
        self._by_serial: dict[int, Attempt] = {}
        self.cell_ids = tuple(cell_ids)
        for cell_id in self.cell_ids:
            for number in range(1, latest_attempt(run_folder, cell_id) + 1):
                attempt = read_attempt(run_folder, cell_id, number)
                if attempt is not None:
                    self._note(attempt)

    def latest(self, cell_id: str) -> Attempt | None:
        """A cell's newest attempt."""
        return self._latest.get(cell_id)

    def with_serial(self, serial: int) -> Attempt | None:
        """The attempt of this number."""
        return self._by_serial.get(serial)

    def newest(self) -> Attempt | None:
        """The newest attempt of the run."""
        return self._by_serial[max(self._by_serial)] if self._by_serial else None

    def is_complete(self, cell_id: str) -> bool:
        """Has the cell come to its end?"""
        latest = self._latest.get(cell_id)
        return latest is not None and latest.state == "complete"

    @property
    def missing(self) -> list[str]:
        """Cells that are still to be run, in the plan's order."""
        return [cell_id for cell_id in self.cell_ids if not self.is_complete(cell_id)]

    def begin(self, cell_id: str) -> Attempt:
        """Open the next attempt of a cell."""
        # A folder counts even when its file was never written: nothing in it is ever added to.
        number = latest_attempt(self._run_folder, cell_id) + 1
        attempt = Attempt(cell_id=cell_id, attempt=number, serial=max(self._by_serial, default=0) + 1)
        self.save(attempt)
        return attempt

    def save(self, attempt: Attempt) -> None:
        """Write an attempt as it is now."""
        path = _path(self._run_folder, attempt.cell_id, attempt.attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, msgspec.json.encode(attempt) + b"\n")
        self._note(attempt)

    def _note(self, attempt: Attempt) -> None:
        latest = self._latest.get(attempt.cell_id)
        if latest is None or attempt.attempt >= latest.attempt:
            self._latest[attempt.cell_id] = attempt
        self._by_serial[attempt.serial] = attempt


def read_attempt(run_folder: Path, cell_id: str, number: int) -> Attempt | None:
    """An attempt of a cell; None while it has not been written down.

    Raises:
        BadInput: the file is there and cannot be understood.
    """
    path = _path(run_folder, cell_id, number)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Attempt)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        text = f"cannot be understood ({error}); take another copy of the run, or remove it: then the cell is run again"
        raise BadInput(Problem(text, file=str(path))) from None


def _path(run_folder: Path, cell_id: str, number: int) -> Path:
    return attempt_folder(run_folder, cell_id, number) / ATTEMPT_FILE
