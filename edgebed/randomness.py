"""One seed, split by name, so that adding a consumer never shifts another one's numbers."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """An independent random stream for ``seed`` and a path of names.

    The same seed and names give the same numbers on every platform and in every process.

    Args:
        seed: the experiment's seed, not negative.
        names: who draws, for example ``("arrivals", "pi-1")``.
    """
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *(int(word) for word in words)])))
