"""Replay of contiguous trajectories: what an agent saw, did and paid, row after row, for all training seeds at once.

A row is an observation and what was done on it. An episode's rows lie one after another, and after them, where it
ended or was cut, one *final* row with the last observation alone. So the observation after row ``r`` is always that of
row ``r + 1``, n-step returns of any length are read off without copies, a time limit is bootstrapped over, and no
return crosses from one episode into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.learning.base import State
from edgebed.learning.priorities import Priorities
from edgebed.types import Float32Array, IntArray

__all__ = ["FINAL", "RUNNING", "TERMINATED", "TRUNCATED", "Replay", "Trajectory"]

RUNNING, TERMINATED, TRUNCATED, FINAL = 0, 1, 2, 3
"""What follows a row: the episode's next row; a final row after its end; a final row after a cut; it is final."""

_PARTS = ("observations", "actions", "rewards", "kinds")


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Rows of one training seed, one after another; the last is final.

    Attributes:
        observations: ``[T, D]``.
        actions: ``[T, ...]``; a final row's means nothing.
        rewards: ``[T, H]``; H is 1, or a reward each for several heads of a critic.
        kinds: ``[T]`` of `RUNNING`, `TERMINATED`, `TRUNCATED`, `FINAL`.
    """

    observations: Float32Array
    actions: NDArray[Any]
    rewards: Float32Array
    kinds: NDArray[np.int8]

    @classmethod
    def of_episode(
        cls,
        observations: Float32Array,
        actions: NDArray[Any],
        rewards: Float32Array,
        kinds: NDArray[Any],
        last: Float32Array,
    ) -> Trajectory:
        """An episode's rows and, after them, its final one.

        Args:
            observations: ``[T, D]``.
            actions: ``[T, ...]``.
            rewards: ``[T, H]``.
            kinds: ``[T]``; rows after the first that did not go on are left out.
            last: observation after the last row, ``[D]``.
        """
        over = np.flatnonzero(kinds != RUNNING)
        count = int(over[0]) + 1 if over.size else len(kinds)
        after = observations[count] if count < len(kinds) else last
        ends = kinds[:count].astype(np.int8)
        ends[-1] = ends[-1] if over.size else TRUNCATED
        return cls(
            np.concatenate([observations[:count], after[None]]),
            np.concatenate([actions[:count], np.zeros_like(actions[:1])]),
            np.concatenate([rewards[:count], np.zeros_like(rewards[:1])]),
            np.append(ends, np.int8(FINAL)),
        )

    @classmethod
    def joined(cls, episodes: Sequence[Trajectory]) -> Trajectory:
        """Episodes one after another."""
        return cls(*(np.concatenate([getattr(one, part) for one in episodes]) for part in _PARTS))

    @property
    def size_bytes(self) -> int:
        """What it takes to upload it."""
        return sum(getattr(self, part).nbytes for part in _PARTS)


class Replay:
    """A ring of rows for each of ``S`` training seeds.

    Args:
        seeds: S.
        capacity: rows a seed, final ones included.
        priority_power: None: every row is as likely as any other; otherwise see `edgebed.learning.priorities`.
    """

    def __init__(self, seeds: int, capacity: int, priority_power: float | None = None) -> None:
        if capacity < 2:
            raise BadInput(f"replay: a capacity of {capacity} rows cannot hold a step and what follows it; at least 2")
        self.seeds, self.capacity = seeds, capacity
        self.heads = np.zeros(seeds, np.int64)
        self.kinds = np.full((seeds, capacity), FINAL, np.int8)
        self.observations = np.zeros((seeds, 0, 0), np.float32)
        self.actions: NDArray[Any] = np.zeros((seeds, 0))
        self.rewards = np.zeros((seeds, 0, 0), np.float32)
        self._playable: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * seeds
        self._priorities = None if priority_power is None else Priorities(seeds, capacity, priority_power)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """``[S]``: rows that can be sampled."""
        return np.array([len(rows) for rows in self._playable])

    def append(self, trajectories: list[Trajectory]) -> None:
        """Add rows, one trajectory a seed; the oldest rows make room.

        Raises:
            BadInput: one is longer than the ring, or its last row is not final.
        """
        for seed, rows in enumerate(trajectories):
            if len(rows.kinds) > self.capacity or rows.kinds[-1] != FINAL:
                raise BadInput(
                    f"replay: {len(rows.kinds)} rows that end with kind {rows.kinds[-1]} cannot be added to a ring of "
                    f"{self.capacity}; at most that many, the last one final ({FINAL})"
                )
            self._make(rows)
            at = (self.heads[seed] + np.arange(len(rows.kinds))) % self.capacity
            for part in _PARTS:
                getattr(self, part)[seed, at] = getattr(rows, part)
            self.heads[seed] += len(at)
            self._find_playable(seed)
            if self._priorities is not None:
                self._priorities.renew(seed, at, rows.kinds != FINAL)

    def _make(self, like: Trajectory) -> None:
        if self.observations.shape[1]:
            return
        for part in ("observations", "actions", "rewards"):
            rows = getattr(like, part)
            setattr(self, part, np.zeros((self.seeds, self.capacity, *rows.shape[1:]), rows.dtype))

    def _find_playable(self, seed: int) -> None:
        self._playable[seed] = np.flatnonzero(self.kinds[seed] != FINAL)

    def sample(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows, each as likely as any other, or in proportion to their priorities.

        Args:
            uniform: ``[S, B]``, in [0, 1).

        Returns:
            ``[S, B]``, indices of rows that something was done in.
        """
        if self._priorities is not None:
            return self._priorities.draw(uniform)
        picks = [rows[(u * len(rows)).astype(np.int64)] for rows, u in zip(self._playable, uniform, strict=True)]
        return np.stack(picks)

    def weights(self, rows: NDArray[np.int64], correction: float) -> Float32Array | None:
        """What the errors of sampled rows count, ``[S, B]``; None: all alike, because they were equally likely.

        Args:
            rows: ``[S, B]``.
            correction: of the sampling's bias; 0 none, 1 all.
        """
        if self._priorities is None:
            return None
        return self._priorities.weights(rows, self.sizes, correction).astype(np.float32)

    def learned(self, rows: NDArray[np.int64], errors: Float32Array) -> None:
        """Sampled rows have been learned from: their errors are their priorities, where rows have any.

        Args:
            rows: ``[S, B]``.
            errors: ``[S, B]``, at least 0.
        """
        if self._priorities is not None:
            self._priorities.learned(rows, errors)

    def take(self, part: str, rows: NDArray[np.int64], ahead: int | IntArray = 0) -> NDArray[Any]:
        """A part of the rows ``ahead`` after ``rows``.

        Args:
            part: ``observations``, ``actions``, ``rewards`` or ``kinds``.
            rows: ``[S, B]``.
            ahead: how many rows later; ``[S, B]`` where it differs.

        Returns:
            ``[S, B, ...]``.
        """
        at = (rows + ahead) % self.capacity
        found: NDArray[Any] = getattr(self, part)[np.arange(self.seeds)[:, None], at]
        return found

    def state(self, prefix: str) -> State:
        """Copies of what is in it, by name."""
        parts = {part: getattr(self, part) for part in (*_PARTS, "heads")}
        found: State = {f"{prefix}.{part}": value.copy() for part, value in parts.items()}
        if self._priorities is not None:
            found[f"{prefix}.priorities"] = self._priorities.state()
        return found

    def load_state(self, prefix: str, state: State) -> None:
        """Take the rows over."""
        for part in (*_PARTS, "heads"):
            setattr(self, part, state[f"{prefix}.{part}"].copy())
        for seed in range(self.seeds):
            self._find_playable(seed)
        if self._priorities is not None:
            self._priorities.load_state(state[f"{prefix}.priorities"])
