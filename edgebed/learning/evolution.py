"""Neuroevolution: parameters perturbed, scored and merged, for all training seeds at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgebed.learning.base import State
from edgebed.learning.networks import Ensemble
from edgebed.learning.noise import Counted
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray

__all__ = ["below_average", "merged", "mutate", "rank_weights"]


def rank_weights(fitness: FloatArray) -> FloatArray:
    """Weights of a merge: they rise with fitness, by rank, and sum to 1.

    Of K agents the best gets ``K``, the worst 1, over the sum. Ranks, because fitness is a negative cost here: weights
    proportional to it would favour the worst.

    Args:
        fitness: higher is better, ``[K, S]``.

    Returns:
        ``[K, S]``.
    """
    ranks = fitness.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable") + 1.0
    weights: FloatArray = ranks / ranks.sum(axis=0)
    return weights


def below_average(fitness: FloatArray) -> BoolArray:
    """Which agents are worse than the mean of the population: ``[K, S]``."""
    worse: BoolArray = fitness < fitness.mean(axis=0)
    return worse


def merged(agents: Sequence[State], weights: FloatArray) -> State:
    """The weighted sum of the agents' parameters, or of their changes, seed by seed.

    Args:
        agents: K states of the same networks, ``[S, ...]`` each.
        weights: ``[K, S]``.
    """
    found: State = {}
    for name, first in agents[0].items():
        shape = (-1,) + (1,) * (first.ndim - 1)
        total = np.zeros(first.shape)
        for agent, weight in zip(agents, weights, strict=True):
            total += weight.reshape(shape) * agent[name]
        found[name] = total.astype(first.dtype)
    return found


@torch.no_grad()
def mutate(online: Ensemble, target: Ensemble, strength: float, stream: Counted, draw: int) -> None:
    """Add ``strength`` times standard normal numbers to a network, and the same ones to its target.

    Args:
        online: the network.
        target: its slow copy.
        strength: standard deviation.
        stream: where the numbers come from; one for each network.
        draw: how often this was done before.
    """
    sizes = [one[0].numel() for one in online.tensors]
    numbers = torch.from_numpy((strength * stream.normal(draw, sum(sizes))).astype(np.float32))
    parts = torch.split(numbers, sizes, dim=1)
    for own, slow, part in zip(online.tensors, target.tensors, parts, strict=True):
        shift = part.reshape(own.shape)
        own += shift
        slow += shift
