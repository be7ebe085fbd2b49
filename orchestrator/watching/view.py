"""What can be seen of a run or a training, as plain values: what `edgebed watch` shows and prints as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.progress import Standing
from orchestrator.report.series import Event
from orchestrator.watching.tally import Tally


@dataclass(frozen=True, slots=True)
class PolicyStanding:
    """One policy under one setting, so far.

    Attributes:
        name: policy, with the setting where a run has several.
        cells_done: of ``cells``, complete.
        done, failed, unknown: tasks that count, see `orchestrator.watching.tally`.
        p50_s, p95_s: latency of the done ones; None while there is none.
        miss_rate: share of the tasks of known outcome that missed their deadline; None while there is none.
    """

    name: str
    cells_done: int
    cells: int
    done: int
    failed: int
    unknown: int
    p50_s: float | None
    p95_s: float | None
    miss_rate: float | None


def policy_standing(name: str, cells_done: int, cells: int, tallies: Sequence[Tally]) -> PolicyStanding:
    """A policy's standing of what its cells have come to."""
    done, failed = sum(each.done for each in tallies), sum(each.failed for each in tallies)
    latencies_s = np.concatenate([np.zeros(0), *(each.latencies_s for each in tallies)])
    p50_s, p95_s = (float(at) for at in np.quantile(latencies_s, (0.5, 0.95))) if len(latencies_s) else (None, None)
    return PolicyStanding(
        name=name,
        cells_done=cells_done,
        cells=cells,
        done=done,
        failed=failed,
        unknown=sum(each.unknown for each in tallies),
        p50_s=p50_s,
        p95_s=p95_s,
        miss_rate=sum(each.missed for each in tallies) / (done + failed) if done + failed else None,
    )


@dataclass(frozen=True, slots=True)
class View:
    """How a run or a training stands.

    Attributes:
        path: its folder. kind: ``run`` or ``training``.
        state: of its manifest or status; ``starting`` while it has none.
        is_going_on: somebody works on it; None when that cannot be told.
        is_left: something of it is still to be done, and nobody works on it.
        is_over: nothing more will come by itself.
        cell: the one that is worked on, as its name; empty when none is.
        measures: of a training: what was measured last, means over its seeds, by name.
        events: the newest ones, the oldest of them first. problems: a sentence each.
        notes: what cannot be seen here, a sentence each.
    """

    path: Path
    kind: str
    state: str
    is_going_on: bool | None
    is_left: bool
    is_over: bool
    standing: Standing
    cell: str = ""
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    policies: tuple[PolicyStanding, ...] = ()
    measures: tuple[tuple[str, float], ...] = ()
    events: tuple[Event, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As plain data for ``--json``."""
        standing = self.standing
        return {
            self.kind: str(self.path),
            "state": self.state,
            "going_on": self.is_going_on,
            "left": self.is_left,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "cell": self.cell or None,
            "doing": standing.doing,
            "cells_done": standing.cells_done,
            "cells": standing.cells,
            "terminal": standing.tasks_done,
            "planned": standing.tasks,
            "rate_per_s": standing.rate,
            "remaining_s": standing.remaining_s,
            "up": standing.up,
            "members": standing.members,
            "policies": [{name: getattr(each, name) for name in each.__slots__} for each in self.policies],
            "measures": dict(self.measures),
            "events": [{name: getattr(each, name) for name in each.__slots__} for each in self.events],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }
