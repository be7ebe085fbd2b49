"""The real scans: 1797 handwritten digits of 8 x 8 cells, and the fixed split by scan."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

SCANS_NAME = "scans.npz"
CELLS = 8
DARKEST = 16


class Part(IntEnum):
    """Part of the split that a scan belongs to; the three share no scan."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True, slots=True)
class ScanSet:
    """Scans and what they show.

    Attributes:
        images: [N, 8, 8] uint8, ink in each cell, 0 (none) to 16.
        labels: [N] uint8, the digit.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def read_part(content: bytes, part: Part) -> ScanSet:
    """One part of the split from the bytes of the scans' file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        chosen = arrays["split"] == part
        return ScanSet(arrays["images"][chosen], arrays["labels"][chosen])
