"""Write the scans' file from scikit-learn's `load_digits`, with a split that is fixed once and for all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from edgebed.randomness import stream
from workloads.digits.manifest import FOLDER, Scans
from workloads.digits.scans import SCANS_NAME, Part

SOURCE = (
    "scikit-learn `load_digits`: the test part of the UCI data set 'Optical Recognition of Handwritten Digits' "
    "(E. Alpaydin, C. Kaynak, 1998; doi 10.24432/C50P49; CC BY 4.0)"
)
SPLIT_SEED = 0
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2


def draw_split(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Assign each scan to a `Part`, in the same proportions for every digit.

    Args:
        labels: [N] the digits.

    Returns:
        [N] uint8, a `Part` for each.
    """
    split = np.full(len(labels), Part.TRAIN, np.uint8)
    for digit in np.unique(labels):
        members = stream(SPLIT_SEED, "digits", "split", int(digit)).permutation(np.flatnonzero(labels == digit))
        test = round(TEST_FRACTION * len(members))
        validation = round(VALIDATION_FRACTION * len(members))
        split[members[:test]] = Part.TEST
        split[members[test : test + validation]] = Part.VALIDATION
    return split


def write_scans(folder: Path) -> None:
    """Write the scans, their labels and their split to ``folder``."""
    digits = load_digits()
    labels = digits.target.astype(np.uint8)
    np.savez_compressed(
        folder / SCANS_NAME, images=digits.images.astype(np.uint8), labels=labels, split=draw_split(labels)
    )


def describe_scans(folder: Path) -> Scans:
    """The manifest's entry for the scans' file in ``folder``."""
    content = (folder / SCANS_NAME).read_bytes()
    with np.load(folder / SCANS_NAME, allow_pickle=False) as arrays:
        sizes = np.bincount(arrays["split"], minlength=len(Part))
    return Scans(
        file=SCANS_NAME,
        sha256=hashlib.sha256(content).hexdigest(),
        source=SOURCE,
        split_seed=SPLIT_SEED,
        train=int(sizes[Part.TRAIN]),
        validation=int(sizes[Part.VALIDATION]),
        test=int(sizes[Part.TEST]),
    )


if __name__ == "__main__":
    write_scans(FOLDER)
