"""What the backends in virtual time share: whose turn it is, while time waits for the caller's decision."""

from __future__ import annotations

import math
from typing import Generic, Protocol, TypeVar

from edge_server.controller.gathering import spec_of
from edgebed.backend import CallOrder, Receipt, TaskOutcome, Turn
from edgebed.protocol.cells import CellSpec
from edgebed.types import Decision, Observation, ObservationSpec


class Episode(Protocol):
    """A cell that someone decides, epoch by epoch, in virtual time."""

    @property
    def cell(self) -> CellSpec:
        """What is decided."""

    @property
    def now_s(self) -> float:
        """Virtual time."""

    @property
    def next_tick_s(self) -> float:
        """When the next observation is due."""

    def observe(self) -> Observation:
        """Go on to the next tick."""

    def answer(self, decision: Decision | None) -> Receipt:
        """Carry a decision out, or the fallback policy's when there is none."""

    def wait(self, until_s: float) -> list[TaskOutcome]:
        """Let time pass until something has ended, or until then."""

    def take_outcomes(self) -> list[TaskOutcome]:
        """Outcomes that were not taken yet."""


E = TypeVar("E", bound=Episode)


class VirtualBackend(Generic[E]):
    """The part of a backend that comes after ``reset``; a subclass opens, and sets ``_episode`` and the turn."""

    def __init__(self) -> None:
        self._order = CallOrder()
        self._episode: E | None = None

    def observation_spec(self, plan: CellSpec) -> ObservationSpec:
        """What hosts show: device features, server and channel features."""
        return spec_of(plan)

    @property
    def _running(self) -> E:
        assert self._episode is not None
        return self._episode

    def observe(self) -> Observation:
        """Go on to the next tick; what nobody has answered is decided by the fallback policy."""
        self._order.check("observe")
        episode = self._running
        if self._order.turn is Turn.ASKED:
            episode.answer(None)
        seen = episode.observe()
        self._order.turn = Turn.OVER if seen.epoch == episode.cell.epochs else Turn.ASKED
        return seen

    def submit(self, decision: Decision) -> Receipt:
        """Answer the last observation; fractions of clock and power come out as 1, as on hosts."""
        self._order.check("submit")
        episode = self._running
        decision.check(self.observation_spec(episode.cell))
        receipt = episode.answer(decision)
        self._order.turn = Turn.RUNNING
        return receipt

    def poll(self, timeout_s: float) -> list[TaskOutcome]:
        """Outcomes that are known by now; waiting lets virtual time pass, up to the next tick."""
        self._order.check("poll")
        episode = self._running
        if self._order.turn is Turn.ASKED:
            return episode.take_outcomes()  # time waits for the caller's decision
        until_s = math.inf if self._order.turn is Turn.OVER else episode.next_tick_s
        return episode.wait(min(episode.now_s + timeout_s, until_s))
