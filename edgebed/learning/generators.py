"""Random generators as arrays, for checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = (1 << 64) - 1


def pack_generator(generator: np.random.Generator) -> NDArray[np.uint64]:
    """The state of a generator made by `edgebed.randomness.stream`, ``[6]``."""
    state: dict[str, Any] = dict(generator.bit_generator.state)
    assert state["bit_generator"] == "PCG64"
    inner = state["state"]
    words = [inner["state"] >> 64, inner["state"] & _WORD, inner["inc"] >> 64, inner["inc"] & _WORD]
    return np.array([*words, state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def unpack_generator(words: NDArray[np.uint64]) -> np.random.Generator:
    """A generator that goes on from a state of `pack_generator`."""
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
