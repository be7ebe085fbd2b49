"""An episode on any backend, with the rewards of its decisions sorted out; what both environments over backends share.

The reward of epoch t is minus the sum of the costs of the tasks decided in t, final when all of them are terminal. On
hosts that is later than the next tick. ``wait`` waits for it: ticks that pass meanwhile are decided by the fallback
policy (where the backend can pause, none pass). ``later`` goes on at once and hands each reward out when it is final.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgebed.backend import Backend, CanPause, EpisodePlan, Receipt, TaskOutcome
from edgebed.errors import BadInput
from edgebed.simulation.hosts_layout import layout_of
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import Decision, IntArray, Observation

RewardWhen = Literal["wait", "later"]


@dataclass(slots=True)
class EpochReward:
    """What the tasks that one decision covered have cost so far.

    Attributes:
        epoch: of the decision.
        tasks: how many there are.
        costs: ``[N]``, of each device, of those that are terminal and whose cost is known.
        unknown: tasks that ended unknown: nothing is known of their cost.
    """

    epoch: int
    tasks: int
    costs: FloatArray
    unknown: int = 0
    _costs: dict[str, float | None] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Have all of its tasks been reported?"""
        return len(self._costs) >= self.tasks

    def hear(self, outcome: TaskOutcome, slot: int) -> None:
        """Count a task's cost; one that is reported again counts as it was reported last."""
        before = self._costs.get(outcome.task_id)
        self.costs[slot] += (outcome.cost or 0.0) - (before or 0.0)
        self._costs[outcome.task_id] = outcome.cost
        self.unknown = sum(cost is None for cost in self._costs.values())


@dataclass(frozen=True, slots=True)
class EpisodeStep:
    """What came of a decision.

    Attributes:
        observation: the next one.
        receipt: what became of the decision.
        final: rewards that have become final, oldest first.
        unfinished: at the end of the episode: rewards whose tasks were not all reported.
        skipped: epochs that the fallback policy decided while this step waited.
        is_over: the time limit is reached.
    """

    observation: Observation
    receipt: Receipt
    final: list[EpochReward]
    unfinished: list[EpochReward]
    skipped: list[int]
    is_over: bool

    def rewards(self, devices: int) -> FloatArray:
        """``[N]``: of each device, the sum of all rewards in this step."""
        total = np.zeros(devices)
        for one in (*self.final, *self.unfinished):
            total -= one.costs
        return total


class BackendEpisode:
    """Plays episodes of a plan on a backend.

    Attributes:
        spec: names, units and sizes of observations; known with nothing connected.
        layout: the same in the terms of scenarios.
        observation: the newest.

    Args:
        backend: not open; it is opened by the first `reset` and closed by `close`.
        plan: what it is opened with.
        when: when rewards are handed out.
    """

    def __init__(self, backend: Backend[Any], plan: EpisodePlan, when: RewardWhen) -> None:
        if when not in ("wait", "later"):
            raise BadInput(f"reward is {when!r}; allowed: wait, later")
        self.spec = backend.observation_spec(plan)
        self.layout = layout_of(self.spec)
        self.observation = Observation.empty(self.spec)
        self._backend, self._plan, self._waits = backend, plan, when == "wait"
        self._slots = {name: slot for slot, name in enumerate(self.spec.slots)}
        self._is_open = False
        self._pending: dict[int, EpochReward] = {}

    def reset(self, seed: int) -> Observation:
        """Start an episode; an unfinished one is abandoned."""
        if not self._is_open:
            self._is_open = True  # also when opening fails: there is something to close then
            self._backend.open(self._plan)
        self._backend.reset(seed)
        self._pending = {}
        self.observation = self._backend.observe()
        return self.observation

    def step(self, actions: IntArray) -> EpisodeStep:
        """Decide, and go on to the next tick.

        Args:
            actions: ``[N]``, action indices; see `ObservationSpec`.
        """
        epoch = self.observation.epoch
        receipt = self._backend.submit(Decision.from_actions(actions, self.spec))
        pending = EpochReward(epoch, int(receipt.tasks.sum()), np.zeros(len(self._slots)))
        self._pending[epoch] = pending
        if self._waits:
            self._wait_for(pending)
        if not self._is_over:
            self._observe()  # a fresh one: an answer to the tick that passed while this waited would be late
        self._hear(self._backend.poll(0.0))
        if self._is_over:
            self._drain()
        final = [self._pending.pop(one.epoch) for one in [*self._pending.values()] if one.is_final]
        unfinished = [*self._pending.values()] if self._is_over else []
        skipped = list(range(epoch + 1, self.observation.epoch))
        return EpisodeStep(self.observation, receipt, final, unfinished, skipped, self._is_over)

    def close(self) -> None:
        """Close the backend."""
        if self._is_open:
            self._is_open = False
            self._backend.close()

    @property
    def _is_over(self) -> bool:
        return self.observation.epoch >= self._plan.epochs

    def _observe(self) -> None:
        self.observation = self._backend.observe()

    def _wait_for(self, pending: EpochReward) -> None:
        """Wait until all tasks of a decision are terminal."""
        backend = self._backend
        if isinstance(backend, CanPause):
            backend.pause()
            try:
                while not pending.is_final and (outcomes := backend.poll(math.inf)):
                    self._hear(outcomes)
            finally:
                backend.resume()
        while not pending.is_final and not self._is_over:
            outcomes = backend.poll(math.inf)
            self._hear(outcomes)
            if not outcomes:
                self._observe()  # the next tick is due; nobody answers it

    def _drain(self) -> None:
        while outcomes := self._backend.poll(math.inf):
            self._hear(outcomes)

    def _hear(self, outcomes: list[TaskOutcome]) -> None:
        for outcome in outcomes:
            # Tasks of epochs that the fallback decided, or nobody (their device was down), are nobody's reward.
            if outcome.decision_epoch in self._pending:
                self._pending[outcome.decision_epoch].hear(outcome, self._slots[outcome.device_id])
