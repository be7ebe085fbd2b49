"""The network and its training frames. Needs torch: ``make test-learning``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workloads.digits.manifest import FOLDER, read_manifest
from workloads.digits.scans import SCANS_NAME, Part, read_part
from workloads.digits.training.network import DigitNetwork, count_multiply_adds
from workloads.digits.training.train import bend, render_batch

TEST_SCANS = read_part((FOLDER / SCANS_NAME).read_bytes(), Part.TEST)


def test_bending_keeps_a_scan_a_scan() -> None:
    bent = np.stack([bend(scan, np.random.default_rng(0)) for scan in TEST_SCANS.images[:50]])
    assert bent.shape == (50, 8, 8)
    assert bent.dtype == np.uint8
    assert bent.max() <= 16
    assert bent.sum() == pytest.approx(TEST_SCANS.images[:50].sum(), rel=0.15)
    assert not np.array_equal(bent, TEST_SCANS.images[:50])

    first, again = (render_batch(TEST_SCANS, 2, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert first[0].shape == (2, 1, 120, 160)
    assert count_multiply_adds(DigitNetwork()) == read_manifest().model.multiply_adds
