"""What has happened in a run, of the events that have come so far: the newest, the troubles, and who is up."""

from __future__ import annotations

import json
from bisect import insort

from edgebed.trace.schema import EventRecord
from orchestrator.faults.schedule import FAILED
from orchestrator.report.series import Event
from orchestrator.run_facts import INCIDENTS

EVENTS_SHOWN = 8

TROUBLES = frozenset(
    {
        *INCIDENTS,
        *("failed", "member_given_up", "restarted", "server_lost", "controller_lost", "controller_refused"),
        *("prepare_failed", "outbox_damaged", "external_missing", "weights_refused", FAILED),
        *("learner_failed", "learner_died", "learner_lags"),
    }
)
"""Kinds of events that a person who looks on should know of."""

_BEGINNINGS = frozenset({"run_started", "run_resumed"})
_MEMBERSHIP = frozenset({"started", "stopped", "member_joined", "member_left", "member_given_up"})


class Happenings:
    """Events of a run, in any order.

    Args:
        controller: what the controller is called; it tells who joins and leaves.

    Attributes:
        session_began_s: when the newest session began, on the run clock; 0 while that has not been told.
    """

    def __init__(self, controller: str) -> None:
        self.session_began_s = 0.0
        self._controller = controller
        self._newest: list[Event] = []
        self._troubles: dict[str, tuple[int, Event]] = {}
        self._membership: list[tuple[float, int, str, str]] = []

    def add(self, row: EventRecord) -> None:
        """Something has happened."""
        event = Event(row.t_s, row.host, row.kind, row.detail or "")
        insort(self._newest, event, key=lambda each: each.t_s)
        del self._newest[:-EVENTS_SHOWN]
        if row.kind in TROUBLES:
            count, newest = self._troubles.get(row.kind, (0, event))
            self._troubles[row.kind] = count + 1, max(newest, event, key=lambda each: each.t_s)
        if row.kind in _BEGINNINGS:
            self.session_began_s = max(self.session_began_s, row.t_s)
        if row.kind in _MEMBERSHIP and (row.host == self._controller or row.kind == "member_given_up"):
            self._membership.append((row.t_s, len(self._membership), row.kind, row.detail or ""))

    @property
    def newest(self) -> list[Event]:
        """The newest events, the oldest of them first."""
        return list(self._newest)

    @property
    def problems(self) -> list[str]:
        """A sentence for each kind of trouble, the one that came last at the end."""
        return [
            f"{kind}, {'once' if count == 1 else f'{count} times'}; last: {newest.line().strip()}"
            for kind, (count, newest) in sorted(self._troubles.items(), key=lambda each: each[1][1].t_s)
        ]

    @property
    def up(self) -> set[str]:
        """Members that have joined and not left, the controller among them, as far as has been told."""
        up: set[str] = set()
        for _, _, kind, detail in sorted(self._membership):
            if kind == "started":
                up = {self._controller}
            elif kind == "stopped":
                up = set()
            elif kind == "member_joined":
                up |= {self._controller, _member(detail)}
            else:
                up.discard(_member(detail))
        return up


def _member(detail: str) -> str:
    try:
        told = json.loads(detail)
    except ValueError:
        return ""
    return str(told.get("member", "")) if isinstance(told, dict) else ""
