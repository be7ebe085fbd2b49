"""Which seed an episode has, so that batched and single environments go through the same episodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.random_streams import stream_keys


def episode_seeds(first: NDArray[np.int64], episode: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seeds of environments' episodes: the first has the seed that was given, later ones are drawn from it.

    Args:
        first: ``[B]``, the seeds that were given.
        episode: ``[B]``, numbers of the episodes, from 0.
    """
    seeds = first.copy()
    for number in np.unique(episode[episode > 0]).tolist():
        where = episode == number
        # Below 2**31: some scenarios seed generators that take no more than 32 bits.
        seeds[where] = (stream_keys(first[where], "episode", number) >> np.uint64(33)).astype(np.int64)
    return seeds


def episode_seed(first: int, episode: int) -> int:
    """The same for one environment."""
    return int(episode_seeds(np.array([first], np.int64), np.array([episode], np.int64))[0])
