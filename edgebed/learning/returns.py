"""n-step returns from contiguous trajectories: of a fixed length, or as long as the target policy would agree.

Adaptive n-step (Qiu et al. 2021): ``y_t = sum_{i<n} gamma^i r_{t+i} + gamma^n Q'(s_{t+n}, mu'(s_{t+n}))``, where n is,
for each sample, the longest prefix whose stored decisions the current target policy would still take. The first action
is always kept. Decisions are compared, not the numbers behind them, and device by device: a step agrees when at least
a given share of the devices does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebed.learning.replay import RUNNING, TERMINATED, Replay
from edgebed.types import BoolArray, Float32Array, IntArray

__all__ = ["Agreement", "Returns", "adaptive_returns", "fixed_returns"]

Actor = Callable[[Tensor], Tensor]
"""The target actor: ``[S, B, D]`` to ``[S, B, outputs]``."""

Agreement = Callable[[Tensor, NDArray[Any]], BoolArray]
"""Which devices' stored decisions are those that the outputs mean, ``[..., N]``."""


@dataclass(frozen=True, slots=True)
class Returns:
    """Returns of sampled rows.

    Attributes:
        sums: discounted rewards of the steps kept, ``[S, B, H]``.
        lengths: n, ``[S, B]``.
        discounts: ``gamma^n``, 0 where the episode ended, ``[S, B, 1]``.
        later: observations after the steps kept, ``[S, B, D]``.
        later_outputs: the target actor's outputs there, where they had to be computed.
        agreement: share of the devices that agreed in the steps compared, ``[S]``; NaN where none was.
    """

    sums: Float32Array
    lengths: IntArray
    discounts: Float32Array
    later: Float32Array
    later_outputs: Tensor | None
    agreement: NDArray[np.float64]


def fixed_returns(replay: Replay, rows: NDArray[np.int64], gamma: float, most: int) -> Returns:
    """Returns over ``most`` steps, or fewer where the episode is over sooner.

    Args:
        replay: what was seen.
        rows: first steps, ``[S, B]``.
        gamma: discount of a step.
        most: n.
    """
    sums = replay.take("rewards", rows).copy()
    lengths = np.ones(rows.shape, np.int32)
    alive = replay.take("kinds", rows) == RUNNING
    for ahead in range(1, most):
        if not alive.any():
            break
        sums[alive] += np.float32(gamma**ahead) * replay.take("rewards", rows, ahead)[alive]
        lengths += alive
        alive &= replay.take("kinds", rows, ahead) == RUNNING
    nothing = np.full(replay.seeds, np.nan)
    later = replay.take("observations", rows, lengths)
    return Returns(sums, lengths, _discounts(replay, rows, lengths, gamma), later, None, nothing)


@torch.no_grad()
def adaptive_returns(
    replay: Replay,
    rows: NDArray[np.int64],
    gamma: float,
    most: int,
    actor: Actor,
    agreeing: Agreement,
    share: float,
) -> Returns:
    """Returns over as many steps as the target policy agrees with, at most ``most``.

    The target actor runs on the next observation of all rows, as any bootstrap needs it to, and again only for the rows
    whose prefix goes on. So a batch whose prefixes are short costs little more than one-step returns.

    Args:
        replay: what was seen.
        rows: first steps, ``[S, B]``.
        gamma: discount of a step.
        most: largest n.
        actor: the target actor.
        agreeing: compares its outputs with stored actions.
        share: of the devices that has to agree, in (0, 1].
    """
    sums = replay.take("rewards", rows).copy()
    lengths = np.ones(rows.shape, np.int32)
    later = replay.take("observations", rows, 1)
    outputs = actor(torch.from_numpy(later))
    alive = replay.take("kinds", rows) == RUNNING
    agreed, compared = np.zeros(replay.seeds), np.zeros(replay.seeds)
    for ahead in range(1, most):
        agree = agreeing(outputs, replay.take("actions", rows, ahead)).mean(axis=2)
        agreed += np.where(alive, agree, 0.0).sum(axis=1)
        compared += alive.sum(axis=1)
        alive &= agree >= share - 1e-6
        if not alive.any():
            break
        sums[alive] += np.float32(gamma**ahead) * replay.take("rewards", rows, ahead)[alive]
        lengths += alive
        _look_further(replay, rows, ahead + 1, alive, actor, later, outputs)
        alive &= replay.take("kinds", rows, ahead) == RUNNING
    with np.errstate(invalid="ignore"):
        agreement = agreed / compared
    return Returns(sums, lengths, _discounts(replay, rows, lengths, gamma), later, outputs, agreement)


def _look_further(
    replay: Replay,
    rows: NDArray[np.int64],
    ahead: int,
    alive: BoolArray,
    actor: Actor,
    later: Float32Array,
    outputs: Tensor,
) -> None:
    """Overwrite the later observation and the outputs of the rows that go on; every seed's part is equally wide."""
    width = int(alive.sum(axis=1).max())
    first = np.argsort(~alive, axis=1, kind="stable")[:, :width]
    member = np.arange(len(rows))[:, None]
    seen = replay.take("observations", np.take_along_axis(rows, first, axis=1), ahead)
    computed = actor(torch.from_numpy(seen))
    which = alive[member, first]
    at = (np.broadcast_to(member, first.shape)[which], first[which])
    later[at] = seen[which]
    outputs[torch.from_numpy(at[0].copy()), torch.from_numpy(at[1])] = computed[torch.from_numpy(which)]


def _discounts(replay: Replay, rows: NDArray[np.int64], lengths: IntArray, gamma: float) -> Float32Array:
    ended = replay.take("kinds", rows, lengths - 1) == TERMINATED
    discounts: Float32Array = np.where(ended, 0.0, gamma**lengths).astype(np.float32)[:, :, None]
    return discounts
