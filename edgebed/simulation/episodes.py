"""Bookkeeping of episodes that every scenario needs alike: partial resets, ended environments, checked actions.

`EpisodicScenario` leaves to a scenario only what its paper says: how an episode begins, and what a step does. Both are
told the *rows* of the batch that they are about: all of them as a slice, so that indexing copies nothing, or an array
of row numbers while some environments have ended. Environments that have ended are thus neither computed nor changed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import ActionArray, ActionLayout, BatchStep, Scenario
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

Rows = slice | NDArray[np.intp]

_ROUNDING = 1e-6
"""How far beyond their range numbers may lie, for those that were computed in single precision; they are clipped."""


@dataclass(frozen=True, slots=True)
class RowsStep:
    """What came of a step of the rows that took it; ``R`` of them.

    Attributes:
        reward: ``[R]``.
        costs: ``[R, N]``.
        terminated: ``[R]``.
        total_costs: ``[R]``, ``costs`` summed up, where that is known already.
    """

    reward: FloatArray
    costs: FloatArray
    terminated: BoolArray
    total_costs: FloatArray | None = None


class EpisodicScenario(Scenario):
    """A scenario that says how an episode begins and what a step does; see the module."""

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        self._over: BoolArray = np.zeros(0, np.bool_)
        self._cost_sum: FloatArray = np.zeros(0)

    @property
    def batch(self) -> int:
        """How many environments there are; 0 before the first reset."""
        return len(self._over)

    def reset(self, seeds: ArrayLike, where: BoolArray | None = None) -> None:
        """See `edgebed.simulation.base.Scenario.reset`.

        Raises:
            BadInput: seeds are not a list of whole numbers from 0 on, or ``where`` is not as long.
        """
        given = checked_seeds(self.spec.name, seeds, where)
        rows: Rows = slice(None)
        if where is None:
            self.seeds = given.copy()
            self.step_index = np.zeros(len(given), np.int64)
            self._over = np.zeros(len(given), np.bool_)
            self._cost_sum = np.zeros(len(given))
            self._allocate(len(given))
        else:
            self._demand_batch("where", len(where))
            rows = np.flatnonzero(where)
            self.seeds[rows] = given[rows]
            self.step_index[rows] = 0
            self._over[rows] = False
            self._cost_sum[rows] = 0.0
        self._begin(rows)

    def step(self, actions: ActionArray) -> BatchStep:
        """See `edgebed.simulation.base.Scenario.step`."""
        numbers = self.checked(actions)
        if not self._over.any():
            return self._full_step(self._advance(slice(None), numbers))
        rows = np.flatnonzero(~self._over)
        step = BatchStep(
            reward=np.zeros(self.batch),
            costs=np.zeros((self.batch, self.devices)),
            terminated=np.zeros(self.batch, np.bool_),
            truncated=np.zeros(self.batch, np.bool_),
        )
        if len(rows):
            done = self._settle(rows, self._advance(rows, numbers[rows]))
            step.reward[rows], step.costs[rows] = done.reward, done.costs
            step.terminated[rows], step.truncated[rows] = done.terminated, done.truncated
        return step

    def metrics(self) -> dict[str, FloatArray]:
        """``cost_per_task``: mean cost of a device's task; and the scenario's own."""
        tasks = np.maximum(self.step_index, 1) * self.devices
        return {"cost_per_task": self._cost_sum / tasks, **self._own_metrics()}

    def checked(self, actions: ActionArray) -> NDArray[Any]:
        """Actions of the batch in progress, of the right shape, type and range.

        Raises:
            BadInput: they are not; got and wanted are named.
        """
        return checked_actions(self.spec.name, self.actions, actions, (self.batch, self.devices))

    @abstractmethod
    def _allocate(self, batch: int) -> None:
        """Make the state's arrays for so many environments."""

    @abstractmethod
    def _begin(self, rows: Rows) -> None:
        """Start these rows' episodes: ``seeds`` and ``step_index`` are set."""

    @abstractmethod
    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        """One step of these rows; ``actions`` are theirs, checked. ``step_index`` is counted up afterwards."""

    def _own_metrics(self) -> dict[str, FloatArray]:
        return {}

    def _full_step(self, done: RowsStep) -> BatchStep:
        return self._settle(slice(None), done)

    def _settle(self, rows: Rows, done: RowsStep) -> BatchStep:
        self.step_index[rows] += 1
        truncated = (self.step_index[rows] >= self.steps) & ~done.terminated
        self._over[rows] = done.terminated | truncated
        self._cost_sum[rows] += done.costs.sum(axis=1) if done.total_costs is None else done.total_costs
        return BatchStep(done.reward, done.costs, done.terminated, truncated)

    def _demand_batch(self, name: str, length: int) -> None:
        if length != self.batch:
            raise BadInput(
                f"scenario {self.spec.name}: `{name}` has {length} entries for {self.batch} environments; "
                "reset all of them (without `where`) to change their number"
            )


def checked_seeds(scenario: str, seeds: ArrayLike, where: BoolArray | None) -> NDArray[np.int64]:
    """Seeds as an array.

    Raises:
        BadInput: they are not a list of whole numbers, or one that is used is negative.
    """
    given = np.asarray(seeds)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iu":
        raise BadInput(f"scenario {scenario}: seeds must be a list of whole numbers, one an environment; got {seeds!r}")
    if where is not None and len(where) != len(given):
        raise BadInput(f"scenario {scenario}: {len(given)} seeds for a `where` of {len(where)} entries")
    used = given if where is None else given[np.asarray(where, np.bool_)]
    if len(used) and used.min() < 0:
        raise BadInput(f"scenario {scenario}: seeds must not be negative; got {used.min()}")
    return given.astype(np.int64)


def checked_actions(scenario: str, layout: ActionLayout, actions: ActionArray, shape: tuple[int, int]) -> NDArray[Any]:
    """Actions of ``shape = (B, N)`` environments and devices, of the right shape, type and range.

    Returns:
        integers ``[B, N]`` where there are only choices, else floats ``[B, N, layout.width]``.

    Raises:
        BadInput: they are not; got and wanted are named.
    """
    given = np.asarray(actions)
    wanted = (*shape, layout.width) if layout.numbers else shape
    if given.shape != wanted:
        raise BadInput(f"scenario {scenario}: actions have the shape {given.shape}; it must be {wanted}")
    if not layout.numbers:
        return _checked_choices(scenario, layout, given)
    numbers = given.astype(np.float64, copy=False)
    first = 0
    if layout.choices:
        _checked_choices(scenario, layout, numbers[..., 0])
        first = 1
    return _clipped(scenario, layout, numbers, first)


def _checked_choices(scenario: str, layout: ActionLayout, given: NDArray[Any]) -> NDArray[Any]:
    count = len(layout.choices)
    whole = given.dtype.kind in "iu" or (given.dtype.kind == "f" and bool((given == np.rint(given)).all()))
    if not whole or given.min() < 0 or given.max() >= count:
        raise BadInput(
            f"scenario {scenario}: choices must be whole numbers from 0 to {count - 1} "
            f"({', '.join(layout.choices)}); got numbers from {given.min()} to {given.max()}"
        )
    return given.astype(np.int64, copy=False)


def _clipped(scenario: str, layout: ActionLayout, numbers: NDArray[Any], first: int) -> NDArray[Any]:
    low = np.array([feature.low for feature in layout.numbers])
    high = np.array([feature.high for feature in layout.numbers])
    given = numbers[..., first:]
    if given.min() >= low.max() and given.max() <= high.min():  # as nearly always; quicker than column by column
        return numbers
    least, most = given.min(axis=(0, 1)), given.max(axis=(0, 1))
    wrong = ~((least >= low - _ROUNDING) & (most <= high + _ROUNDING))  # written so that NaN is wrong, too
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise BadInput(
            f"scenario {scenario}: `{layout.numbers[at].name}` must lie in [{low[at]:g}, {high[at]:g}]; "
            f"got numbers from {least[at]} to {most[at]}"
        )
    if (least >= low).all() and (most <= high).all():
        return numbers
    clipped = numbers.copy()
    np.clip(given, low, high, out=clipped[..., first:])
    return clipped
