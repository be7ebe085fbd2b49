"""Planning of thousands of devices: the same numbers to the last bit as the plain way has."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from edgebed.randomness import stream
from orchestrator.plan_file import checksum, checksum_of_columns
from orchestrator.planned_once import PlannedOnce
from workloads.arrivals import (
    ArrivalSettings,
    PlannedColumns,
    TraceRow,
    planned_columns,
    planned_of_devices,
    planned_tasks,
)


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


_TRACE = tuple(TraceRow(offset_s, device_id=name) for offset_s, name in ((3.0, "pi-2"), (1.0, None), (0.5, "pi-2")))


@pytest.mark.parametrize(
    "settings",
    [
        ArrivalSettings(deadline_s=0.1, kind="poisson", rate_per_s=0.2, frames_low=1, frames_high=9),
        ArrivalSettings(deadline_s=0.1, period_s=0.7, jitter_s=0.3, frames_low=1, frames_high=9),
        ArrivalSettings(deadline_s=0.1, kind="trace", trace=_TRACE, frames_low=1, frames_high=9),
    ],
    ids=lambda settings: settings.kind,
)
def test_many_devices_plan_what_each_plans_for_itself(settings: ArrivalSettings) -> None:
    devices = [f"pi-{number}" for number in range(20)]
    for device, found in zip(devices, planned_of_devices(settings, 3, devices, epochs=20, epoch_s=0.5), strict=True):
        alone = planned_columns(settings, 3, device, epochs=20, epoch_s=0.5)
        for name in ("offset_s", "frames", "deadline_s", "epoch"):
            assert getattr(found, name).tolist() == getattr(alone, name).tolist()
        assert (np.diff(found.offset_s) >= 0).all()


def test_no_device_plans_nothing() -> None:
    settings = ArrivalSettings(deadline_s=0.1, period_s=1.0)
    assert planned_of_devices(settings, 3, [], epochs=20, epoch_s=0.5) == []


def test_what_was_planned_is_kept_and_the_oldest_goes() -> None:
    settings = ArrivalSettings(deadline_s=0.1, period_s=1.0, phase_s=1.0)
    planned = PlannedOnce(most_tasks=25)

    def of(seed: int) -> list[PlannedColumns]:
        return planned.of_devices(settings, seed, ["pi-1"], epochs=10, epoch_s=1.0)

    first, second = of(1), of(2)
    assert [of(1) is first, of(2) is second] == [True, True]
    third = of(3)  # 30 tasks
    assert [of(3) is third, of(2) is second, of(1) is first] == [True, True, False]
    assert of(1)[0].offset_s.tolist() == first[0].offset_s.tolist() == [float(tick) for tick in range(1, 11)]
