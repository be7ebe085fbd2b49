"""From the rows of a running cell to what a learner learns from: joint transitions, in order.

Rows come in any order, some twice, some late. A transition of epoch ``t`` is whole when its decision and the
observation after it are known and every task that arrived until then has an outcome; its reward is then final. A task
whose outcome stays unknown has no cost: the transition that it belongs to is left out, and what follows it is not
joined to what came before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgebed.simulation.hosts_layout import batch_observation, executed_actions
from edgebed.trace.schema import EpochRecord, TaskRecord
from edgebed.types import DecidedBy, Float32Array, IntArray, Observation, ObservationSpec, Outcome, Site

FIELDS_OF_ACTION = 6


@dataclass(frozen=True, slots=True)
class Transition:
    """One epoch of a cell.

    Attributes:
        observation, later: ``[D]``, joint, before the decision and before the next one.
        actions: ``[N]``, the hosts' action index of what was executed.
        costs: ``[N]``, of the tasks decided in this epoch.
        follows: is it the epoch after the transition that came before?
    """

    epoch: int
    observation: Float32Array
    actions: IntArray
    costs: Float32Array
    later: Float32Array
    follows: bool


class Experience:
    """Puts the rows of one cell together.

    Args:
        spec: of its observations.
        tasks: ``[epochs][slots]``, how many tasks arrive in each epoch.
        patience_epochs: a task without an outcome so many epochs later counts as unknown, so that a lost device
            does not hold up what the others teach.
    """

    def __init__(self, spec: ObservationSpec, tasks: Sequence[Sequence[int]], patience_epochs: int) -> None:
        self._spec = spec
        self._patience_epochs = patience_epochs
        self._slots = {name: slot for slot, name in enumerate(spec.slots)}
        self._due = [sum(row) for row in tasks]
        self._ended: dict[int, set[str]] = defaultdict(set)
        self._costs: dict[int, Float32Array] = defaultdict(lambda: np.zeros(len(spec.slots), np.float32))
        self._fallbacks: dict[int, dict[int, TaskRecord]] = defaultdict(dict)
        self._incomplete: set[int] = set()
        self._observations: dict[int, Float32Array] = {}
        self._actions: dict[int, IntArray] = {}
        self._next = 0
        self._last_given = -2

    def add_epoch(self, row: EpochRecord) -> None:
        """A joint decision, or the last observation of the cell."""
        if row.device_id or row.observation is None or row.epoch in self._observations:
            return
        self._observations[row.epoch] = self._joint(np.asarray(row.observation, np.float32), row.epoch)
        if row.action:
            table = np.asarray(row.action, np.float64).reshape(-1, FIELDS_OF_ACTION)
            site, server, channel = (table[:, column].astype(np.int32) for column in range(3))
            self._actions[row.epoch] = executed_actions(site, server, channel, self._spec)

    def _joint(self, flat: Float32Array, epoch: int) -> Float32Array:
        """The columns that policies see. Rows do not say who was present: an absent device has only zeros."""
        width = len(self._spec.device_features)
        values = flat[: len(self._slots) * width].reshape(-1, width)
        empty = Observation.empty(self._spec, epoch)
        seen = Observation(
            values,
            np.asarray(values.any(axis=1), np.bool_),
            empty.age_s,
            flat[len(self._slots) * width :],
            empty.allowed_actions,
            epoch,
        )
        joint: Float32Array = batch_observation(seen).joint()[0]
        return joint

    def add_task(self, row: TaskRecord) -> None:
        """A task has ended; a later report about the same one changes nothing any more."""
        slot = self._slots.get(row.device_id)
        if slot is None or not 0 <= row.epoch < len(self._due) or row.task_id in self._ended[row.epoch]:
            return
        self._ended[row.epoch].add(row.task_id)
        epoch = row.epoch if row.decision_epoch is None else row.decision_epoch
        if row.cost is None or row.outcome == Outcome.UNKNOWN:
            self._incomplete.add(epoch)
            return
        self._costs[epoch][slot] += row.cost
        if row.decided_by == DecidedBy.FALLBACK:
            self._fallbacks[epoch][slot] = row

    def take(self) -> Iterator[Transition]:
        """The transitions that have become whole, in order, each once."""
        while self._is_whole(self._next) or self._is_given_up(self._next):
            epoch, self._next = self._next, self._next + 1
            if (
                len(self._ended[epoch]) < self._due[epoch]
                or epoch in self._incomplete
                or epoch not in self._actions
                or epoch + 1 not in self._observations
            ):
                continue
            follows = self._last_given == epoch - 1
            self._last_given = epoch
            yield Transition(
                epoch,
                self._observations[epoch],
                self._executed(epoch),
                self._costs[epoch],
                self._observations[epoch + 1],
                follows,
            )

    def _is_whole(self, epoch: int) -> bool:
        """Can nothing that is still to come change what is known of an epoch?"""
        if epoch >= len(self._due) or len(self._ended[epoch]) < self._due[epoch]:
            return False
        return epoch in self._actions and epoch + 1 in self._observations

    def _is_given_up(self, epoch: int) -> bool:
        return epoch < len(self._due) and any(known > epoch + self._patience_epochs for known in self._observations)

    def _executed(self, epoch: int) -> IntArray:
        """What was done: where a device fell back, its own decision counts."""
        actions = self._actions[epoch].copy()
        for slot, row in self._fallbacks[epoch].items():
            is_local = row.site is None or Site.from_label(row.site) is Site.DEVICE
            server = self._spec.servers.index(row.server) if row.server in self._spec.servers else 0
            actions[slot] = 0 if is_local else 1 + server * self._spec.channels + (row.channel or 0)
        return actions
