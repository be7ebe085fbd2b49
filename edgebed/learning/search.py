"""A genetic search for joint decisions around an actor's, scored by a critic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edgebed.learning.encodings import OneHot, PublishedTanh
from edgebed.learning.networks import Ensemble
from edgebed.learning.noise import Counted

__all__ = ["GeneticSearch", "searched"]


@dataclass(frozen=True, slots=True)
class GeneticSearch:
    """Settings of a search.

    Attributes:
        population: joint decisions that are kept, the actor's own among the first.
        generations: rounds of crossing, mutating and selecting.
        most_mutation, least_mutation: share of the devices whose choice is drawn anew: the most for a parent that is
            the worst of its population, the least for the best ("adaptive", after Srinivas and Patnaik 1994).
    """

    population: int = 16
    generations: int = 3
    most_mutation: float = 0.3
    least_mutation: float = 0.05


@torch.no_grad()
def searched(
    critic: Ensemble,
    encoding: OneHot | PublishedTanh,
    seen: NDArray[np.float32],
    start: NDArray[np.integer],
    settings: GeneticSearch,
    stream: Counted,
    draw: int,
) -> NDArray[np.int64]:
    """The best joint decision found for each observation, never one that scores less than the actor's.

    Args:
        critic: the sum of its heads is the score.
        encoding: how it sees decisions.
        seen: observations, ``[S, B, D]``.
        start: the actor's choices, ``[S, B, N]``.
        settings: see `GeneticSearch`.
        stream: random numbers.
        draw: how often this was done before.

    Returns:
        Choices, ``[S, B, N]``.
    """
    rows, devices, size = seen.shape[1], start.shape[2], settings.population
    shape = (rows, size, devices)

    def scores(choices: NDArray[np.int64]) -> NDArray[np.float32]:
        inputs = encoding.encoded(encoding.stored(choices))
        observations = torch.from_numpy(np.repeat(seen[:, :, None], choices.shape[2], axis=2))
        flat = torch.cat([observations, inputs], dim=3).flatten(1, 2)
        values: NDArray[np.float32] = critic(flat).sum(dim=2).reshape(choices.shape[:3]).numpy()
        return values

    def mutated(choices: NDArray[np.int64], share: NDArray[np.float64], count: int) -> NDArray[np.int64]:
        uniform = stream.uniform(draw * (settings.generations + 1) + count, *shape, 4)
        other = np.where(uniform[..., 1] < 0.5, 0, 1 + (uniform[..., 2] * (encoding.choices - 1)).astype(np.int64))
        mate = np.roll(choices, 1, axis=2)
        crossed = np.where(uniform[..., 3] < 0.5, choices, mate) if count else choices
        return np.where(uniform[..., 0] < share[..., None], other, crossed)

    first = np.repeat(start.astype(np.int64)[:, :, None], size, axis=2)
    spread = np.linspace(settings.least_mutation, settings.most_mutation, size) * np.ones((*seen.shape[:2], 1))
    best = np.concatenate([first[:, :, :1], mutated(first, spread, 0)[:, :, 1:]], axis=2)
    values = scores(best)
    for generation in range(1, settings.generations + 1):
        low, high = values.min(axis=2, keepdims=True), values.max(axis=2, keepdims=True)
        badness = (high - values) / np.maximum(high - low, 1e-9)
        share = settings.least_mutation + (settings.most_mutation - settings.least_mutation) * badness
        children = mutated(best, share, generation)
        every = np.concatenate([best, children], axis=2)
        all_values = np.concatenate([values, scores(children)], axis=2)
        order = np.argsort(-all_values, axis=2, kind="stable")[:, :, :size]
        best = np.take_along_axis(every, order[..., None], axis=2)
        values = np.take_along_axis(all_values, order, axis=2)
    return best[:, :, 0]
