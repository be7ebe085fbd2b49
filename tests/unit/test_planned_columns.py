"""Planning of thousands of devices: the same numbers to the last bit as the plain way has."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from edgebed.randomness import stream
from orchestrator.plan_file import checksum, checksum_of_columns
from workloads.arrivals import ArrivalSettings, TraceRow, planned_columns, planned_tasks


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**64 + 5, 12345678901234567890123])
def test_a_stream_is_that_of_the_list_of_its_words(seed: int) -> None:
    digest = hashlib.sha256(b"arrivals\x1fpi-1").digest()
    words = [int(word) for word in np.frombuffer(digest, "<u4")]
    plain = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))
    assert stream(seed, "arrivals", "pi-1").integers(2**62, size=9).tolist() == plain.integers(2**62, size=9).tolist()


def test_a_stream_of_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        stream(-1, "arrivals")


def _offsets_of(times_s: list[float]) -> list[float]:
    rows = tuple(TraceRow(offset_s=time_s) for time_s in times_s)
    settings = ArrivalSettings(deadline_s=1.0, kind="trace", trace=rows)
    found: list[float] = planned_columns(settings, 1, "pi-1", epochs=10**7, epoch_s=1.0).offset_s.tolist()
    return found


def test_offsets_are_rounded_as_python_rounds() -> None:
    rng = np.random.default_rng(1)
    ties = (rng.integers(1, 10**10, 3000) + 0.5) / 1e6
    near = np.nextafter(ties, rng.choice([-math.inf, math.inf], len(ties)))
    times_s = [*ties.tolist(), *near.tolist(), *rng.uniform(0.001, 1e4, 3000).tolist(), 1.1e6 + 1e-7, 2.5e6 + 0.0000015]
    expected = sorted(round(time_s, 6) for time_s in times_s)
    assert _offsets_of(times_s) == expected


@pytest.mark.parametrize("device", ["pi-1", 'Gerät "7"\\'])
@pytest.mark.parametrize("rate_per_s", [0.001, 3.0])
def test_the_checksum_of_columns_is_that_of_the_tasks(device: str, rate_per_s: float) -> None:
    settings = ArrivalSettings(deadline_s=0.1, kind="poisson", rate_per_s=rate_per_s, frames_low=1, frames_high=9)
    tasks = planned_tasks(settings, 3, device, workload="digits", epochs=20, epoch_s=0.5)
    columns = planned_columns(settings, 3, device, epochs=20, epoch_s=0.5)
    assert checksum_of_columns(columns, "digits", 3, device) == checksum(tasks)
