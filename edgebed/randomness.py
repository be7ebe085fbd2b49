"""One seed, split by name, so that adding a consumer never shifts another one's numbers."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent random stream for ``seed`` and a path of names.

    The same seed and names give the same numbers on every platform and in every process.

    Args:
        seed: the experiment's seed, not negative.
        names: who draws, for example ``("arrivals", "pi-1")``.
    """
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    # A sequence takes a list of integers apart into the same words of 32 bits, but a good deal slower.
    words = np.concatenate([_words_of(int(seed)), np.frombuffer(digest, dtype="<u4")], dtype=np.uint32)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def _words_of(seed: int) -> NDArray[np.uint32]:
    if seed < 0:
        raise ValueError(f"a seed is not negative, and {seed} is")
    return np.array([seed >> shift & 0xFFFFFFFF for shift in range(0, max(1, seed.bit_length()), 32)], np.uint32)
