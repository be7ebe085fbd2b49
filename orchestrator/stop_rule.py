"""``stop``: when a run ends before all of its cells have run, and ``stop.json``, where it is written down that it did.

By ``run_s`` no further cell begins once the run has worked that long, all its sessions together; by ``half_width`` no
further seed begins once every pair of policies is known well enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from edgebed.errors import BadInput, Problem
from edgebed.replacing import replace_file

STOP_FILE = "stop.json"
MIN_SEEDS = 3

Rule = Literal["", "run_s", "half_width"]


class HalfWidth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Enough is known once no paired 95 % interval is wider.

    Attributes:
        measure: one of `orchestrator.measures.MEASURES`.
        at_most: half the width of the interval over the seeds' differences, for every pair of policies and setting.
        min_seeds: so many seeds are run in any case: two may agree by chance.
    """

    measure: str
    at_most: float
    min_seeds: int = MIN_SEEDS


class StopRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a run ends before its last cell; whichever of the two comes first."""

    run_s: float | None = None
    half_width: HalfWidth | None = None

    def text(self) -> str:
        """In words."""
        parts = []
        if self.run_s is not None:
            parts.append(f"no further cell begins after {self.run_s:g} s of work")
        if (wanted := self.half_width) is not None:
            parts.append(
                f"no further seed begins once the paired half width of {wanted.measure} is at most {wanted.at_most:g} "
                f"for every pair of policies, after {wanted.min_seeds} seeds at least"
            )
        return "; ".join(parts)


class StopState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``stop.json``.

    Attributes:
        worked_s: how long the run has worked, all its sessions together; of a simulated run, on its run clock.
        rule: what has ended it; empty while nothing has.
        text: in a sentence.
        not_begun: cells that were not run because of it.
        half_widths: by pair of policies, when ``half_width`` has ended it.
    """

    worked_s: float = 0.0
    rule: Rule = ""
    text: str = ""
    not_begun: list[str] = []
    half_widths: dict[str, float] = {}

    @property
    def not_needed(self) -> frozenset[str]:
        """Cells that the run is complete without."""
        return frozenset(self.not_begun if self.rule == "half_width" else ())


def read_stop_state(run_folder: Path) -> StopState:
    """What a run's folder says of its stopping; of a run without a rule there is nothing to say.

    Raises:
        BadInput: the file is damaged.
    """
    path = run_folder / STOP_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=StopState)
    except FileNotFoundError:
        return StopState()
    except (OSError, msgspec.MsgspecError) as error:
        text = f"cannot be understood ({error}); take another copy of the run"
        raise BadInput(Problem(text, file=str(path))) from None


def write_stop_state(run_folder: Path, state: StopState) -> None:
    """Replace it; after a crash there is the old one or the new one."""
    replace_file(run_folder / STOP_FILE, msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
