"""The checker of the `Backend` contract finds each way of breaking it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgebed.backend import OutOfOrder, Receipt, TaskOutcome, Turn
from edgebed.backend_testing import check_backend
from edgebed.backend_toy import ToyBackend, ToyPlan
from edgebed.types import DecidedBy, Decision, Observation, ObservationSpec, Outcome

PLAN = ToyPlan(absent=frozenset({(1, "pi-1")}), lose_every=4)


class SubmitsBeforeObserving(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        if self._order.turn is Turn.CLOSED:
            return Receipt(0, decision, np.zeros(1, np.bool_), np.zeros(1, np.int32))
        return super().submit(decision)


class AnswersTwice(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        receipt = super().submit(decision)
        self._order.turn = Turn.ASKED
        return receipt


class NeverEnds(ToyBackend):
    def observe(self) -> Observation:
        observation = super().observe()
        self._order.turn = Turn.ASKED
        return observation


class OpensTwice(ToyBackend):
    def open(self, plan: ToyPlan) -> None:
        try:
            super().open(plan)
        except OutOfOrder:
            return


class StaysOpen(ToyBackend):
    def close(self) -> None:
        pass


class SwapsSlots(ToyBackend):
    def observation_spec(self, plan: ToyPlan) -> ObservationSpec:
        return replace(super().observation_spec(plan), slots=tuple(reversed(plan.devices)))


class CountsFromOne(ToyBackend):
    def observe(self) -> Observation:
        observation = super().observe()
        return replace(observation, epoch=observation.epoch + 1)


class KeepsGoingAfterReset(ToyBackend):
    epoch_kept = -1

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._epoch = self.epoch_kept

    def observe(self) -> Observation:
        observation = super().observe()
        self.epoch_kept = min(self._epoch, 1)
        return observation


class RemembersAbsentDevices(ToyBackend):
    def observe(self) -> Observation:
        observation = super().observe()
        observation.values[:, 0] += 1
        return observation


class TakesAnything(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        self._order.check("submit")
        slots = len(self._spec.slots)
        fitting = Decision.local(slots) if len(decision.site) != slots else decision
        return super().submit(replace(fitting, server=np.zeros(slots, np.int32)))


class ChokesOnABadDecision(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        self._order.check("submit")
        self._order.turn = Turn.RUNNING
        decision.check(self._spec)
        self._order.turn = Turn.ASKED
        return super().submit(decision)


class TracesTheIntent(ToyBackend):
    """What was asked for where what was executed was meant: the classic mistake."""

    def submit(self, decision: Decision) -> Receipt:
        return replace(super().submit(decision), executed=decision)


class AcceptsEverything(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        receipt = super().submit(decision)
        return replace(receipt, accepted=np.ones_like(receipt.accepted))


class CountsNothing(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        receipt = super().submit(decision)
        return replace(receipt, tasks=np.zeros_like(receipt.tasks))


class MisnumbersReceipts(ToyBackend):
    def submit(self, decision: Decision) -> Receipt:
        return replace(super().submit(decision), epoch=7)


class SpoilsOutcomes(ToyBackend):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [outcome]

    def poll(self, timeout_s: float) -> list[TaskOutcome]:
        return [spoiled for outcome in super().poll(timeout_s) for spoiled in self.spoil(outcome)]


class ReportsTwice(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [outcome, outcome]


class LosesOutcomes(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [] if outcome.outcome is Outcome.UNKNOWN else [outcome]


class GuessesLatencies(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [outcome if outcome.outcome is Outcome.DONE else replace(outcome, latency_s=10.0)]


class NamesStrangers(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [replace(outcome, device_id="pi-99")]


class DecidesAfterTheEnd(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [outcome if outcome.decision_epoch is None else replace(outcome, decision_epoch=99)]


class DoesWhatNobodyDecided(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [replace(outcome, decision_epoch=None, decided_by=None, site=None)]


class HidesTheFallback(SpoilsOutcomes):
    def spoil(self, outcome: TaskOutcome) -> list[TaskOutcome]:
        return [outcome if outcome.decided_by is None else replace(outcome, decided_by=DecidedBy.CONTROLLER)]


class HasNoSeed(ToyBackend):
    count = 0

    def reset(self, seed: int) -> None:
        type(self).count += 1
        super().reset(seed + self.count)


BREAKS: dict[type[ToyBackend], str] = {
    SubmitsBeforeObserving: r"submit\(\) on a backend that is not open raises OutOfOrder",
    AnswersTwice: r"submit\(\) on an observation that is answered",
    NeverEnds: r"submit\(\) on an episode that is over",
    OpensTwice: r"open\(\) on a backend that is open",
    StaysOpen: r"reset\(\) on a backend that is not open",
    SwapsSlots: "the slots are the plan's devices, in their order",
    CountsFromOne: "the first observation is of epoch 0",
    KeepsGoingAfterReset: "a reset in the middle of an episode starts over",
    RemembersAbsentDevices: "an absent slot's values are 0",
    TakesAnything: "a decision with one slot too many is refused",
    TracesTheIntent: "accepted is False; asked .*, executed",
    AcceptsEverything: "accepted is True; asked .*, executed",
    CountsNothing: "0 decided, . ended",
    MisnumbersReceipts: "the receipt of epoch 0 says 7",
    ReportsTwice: "reported as done, then as done",
    LosesOutcomes: r"\d decided, \d ended",
    GuessesLatencies: "latency_s 10.0; it is known exactly when done",
    NamesStrangers: "its device 'pi-99' is in the plan",
    DecidesAfterTheEnd: "decision_epoch 99 is one of the episode",
    DoesWhatNobodyDecided: "what nobody decided cannot be done",
    HidesTheFallback: "was not answered, so the fallback policy decided",
    HasNoSeed: "the same seed and decisions give the same episode",
}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda kind: kind.__name__)
def test_each_broken_rule_is_found(broken: type[ToyBackend]) -> None:
    with pytest.raises(AssertionError, match=BREAKS[broken]):
        check_backend(broken, PLAN)


def test_a_backend_that_a_bad_decision_puts_out_of_order_is_found() -> None:
    with pytest.raises(OutOfOrder, match=r"submit\(\) while the backend is between two observations"):
        check_backend(ChokesOnABadDecision, PLAN)


def test_what_they_are_made_from_is_right() -> None:
    check_backend(ToyBackend, PLAN)


def test_chance_is_forgiven_where_it_is_announced() -> None:
    check_backend(HasNoSeed, PLAN, deterministic=False)


def test_a_plan_without_tasks_proves_nothing() -> None:
    class Idle(ToyBackend):
        def reset(self, seed: int) -> None:
            super().reset(seed)
            self._tasks.clear()

    with pytest.raises(AssertionError, match="the plan has tasks in it"):
        check_backend(Idle, PLAN)


DONE = TaskOutcome("t", "pi-1", Outcome.DONE, deadline_s=2.0, latency_s=1.0, deadline_met=True, cost=1.0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"latency_s": None}, "a task that is done has latency_s None"),
        ({"latency_s": 3.0}, "deadline_met is True; latency 3.0 s and done say False"),
        ({"cost": -1.0}, "costs -1.0"),
        ({"cost": None}, "costs None"),
        ({"reason": "late"}, "gives the reason 'late'"),
        ({"decision_epoch": 3}, "either all known or all None"),
        ({"outcome": Outcome.FAILED, "latency_s": None, "deadline_met": False, "reason": "queue_full"}, None),
        ({"outcome": Outcome.FAILED, "latency_s": None, "deadline_met": False}, "gives the reason ''"),
        ({"outcome": Outcome.FAILED, "latency_s": None, "deadline_met": None, "reason": "x"}, "failed say False"),
        ({"outcome": Outcome.UNKNOWN, "latency_s": None, "deadline_met": None, "reason": "x"}, "unknown costs 1.0"),
        ({"outcome": Outcome.UNKNOWN, "latency_s": None, "deadline_met": False, "reason": "x"}, "unknown say None"),
    ],
)
def test_an_outcome_that_contradicts_itself_says_how(changes: dict[str, Any], problem: str | None) -> None:
    found = replace(DONE, **changes).problem()
    assert found is None if problem is None else problem in (found or "")
