"""Planned arrivals: which tasks a device gets, and when, as a pure function of (seed, device).

The list is the same for every policy and is known before the run, so it is written into the plan.

================ ==================================================================================
kind             arrival times, in seconds since the cell's start
================ ==================================================================================
``periodic``     ``phase_s + k period_s``, each moved by a uniform draw from +-``jitter_s``
``poisson``      exponential gaps with mean ``1 / rate_per_s``
``trace``        as recorded, in a CSV file or a list
================ ==================================================================================

Arrivals lie in ``(0, epochs * epoch_s]``. Those in ``(t - 1, t]`` epochs wait for tick ``t`` and belong to epoch
``t - 1``, counted from 0. Times are rounded to microseconds. `workloads.arrival_files` reads settings from files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput, Problem
from edgebed.randomness import stream
from workloads.base import MAX_FRAMES

KINDS = ("periodic", "poisson", "trace")
MAX_TASKS = 1_000_000

# An arrival that rounding puts this little behind a tick still counts as on it.
_TICK_TOLERANCE_S = 1e-6
_POISSON_BLOCK = 256

# Up to so many microseconds a product is off by less than a thousandth, and so far from a tie nothing can be unclear.
_LARGEST_CLEAR, _CLEARLY = 2.0**40, 0.499


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One recorded arrival; what is None comes from the settings and the experiment.

    Attributes:
        offset_s: seconds since the cell's start; rows at 0 or before, or after its end, are left out.
        frames: frames of the clip.
        deadline_s: seconds that the task may take.
        device_id: whose arrival it is; None for every device.
        seed: of the cells that have it; None: all.
    """

    offset_s: float
    frames: int | None = None
    deadline_s: float | None = None
    device_id: str | None = None
    seed: int | None = None


def is_positive(number: float | None) -> bool:
    """Whether a setting is there, finite and above 0."""
    return number is not None and math.isfinite(number) and number > 0


@dataclass(frozen=True, slots=True)
class ArrivalSettings:
    """How tasks arrive at a device.

    Attributes:
        kind: one of `KINDS`.
        period_s: periodic only.
        jitter_s: periodic only; less than half a period, so that order is kept.
        phase_s: periodic only; the first arrival, 0 to ``period_s`` (at 0 nothing arrives: the first is then a period
            later). None draws one for each device, so that devices do not arrive in step.
        rate_per_s: poisson only; mean arrivals a second.
        trace: trace only; the recorded arrivals, in any order.
        deadline_s: seconds that a task may take; a trace's row may state its own.
        frames_low: fewest frames of a clip.
        frames_high: most frames of a clip; sizes are uniform integers between the two.
    """

    deadline_s: float
    kind: str = "periodic"
    period_s: float | None = None
    jitter_s: float = 0.0
    phase_s: float | None = None
    rate_per_s: float | None = None
    trace: tuple[TraceRow, ...] = ()
    frames_low: int = 1
    frames_high: int = 1

    def validate(self) -> None:
        """Check every setting.

        Raises:
            BadInput: with all that is wrong.
        """
        problems = [*self._kind_problems(), *self._task_problems()]
        if problems:
            raise BadInput(problems)

    def _kind_problems(self) -> Iterable[Problem]:
        if self.kind not in KINDS:
            yield Problem(f"{self.kind!r} is not a kind of arrivals; allowed: {', '.join(KINDS)}", "arrivals.kind")
        if self.kind == "periodic":
            yield from self._periodic_problems()
        elif self.period_s is not None or self.phase_s is not None or self.jitter_s:
            yield Problem(f"period_s, phase_s and jitter_s mean nothing for {self.kind} arrivals", "arrivals.kind")
        if self.kind == "poisson":
            if not is_positive(self.rate_per_s):
                yield Problem(f"{self.rate_per_s} must be a positive number", "arrivals.rate_per_s")
        elif self.rate_per_s is not None:
            yield Problem(f"means nothing for {self.kind} arrivals", "arrivals.rate_per_s")
        if self.kind == "trace":
            yield from self._trace_problems()
        elif self.trace:
            yield Problem(f"means nothing for {self.kind} arrivals", "arrivals.trace")

    def _periodic_problems(self) -> Iterable[Problem]:
        if self.period_s is None or not is_positive(self.period_s):
            yield Problem(f"{self.period_s} must be a positive number", "arrivals.period_s")
            return
        if not 0 <= self.jitter_s < self.period_s / 2:
            yield Problem(f"{self.jitter_s} must be at least 0 and less than half of period_s", "arrivals.jitter_s")
        if self.phase_s is not None and not 0 <= self.phase_s <= self.period_s:
            yield Problem(f"{self.phase_s} must lie between 0 and period_s", "arrivals.phase_s")

    def _trace_problems(self) -> Iterable[Problem]:
        if not self.trace:
            yield Problem("a trace needs at least one row", "arrivals.trace")
        for number, row in enumerate(self.trace):
            key = f"arrivals.trace[{number}]"
            if not math.isfinite(row.offset_s):
                yield Problem(f"offset_s {row.offset_s} must be a finite number", key)
            if row.frames is not None and not 1 <= row.frames <= MAX_FRAMES:
                yield Problem(f"frames {row.frames}; 1 to {MAX_FRAMES} are allowed", key)
            if row.deadline_s is not None and not is_positive(row.deadline_s):
                yield Problem(f"deadline_s {row.deadline_s} must be a positive number", key)

    def _task_problems(self) -> Iterable[Problem]:
        if not is_positive(self.deadline_s):
            yield Problem(f"{self.deadline_s} must be a positive number", "arrivals.deadline_s")
        if not 1 <= self.frames_low <= self.frames_high <= MAX_FRAMES:
            yield Problem(
                f"{self.frames_low} to {self.frames_high}; 1 <= low <= high <= {MAX_FRAMES} is needed",
                "arrivals.frames",
            )


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task before it has arrived.

    Attributes:
        index: 0 for the device's first, in order of arrival.
        content_id: names the images: workload, seed, device, index.
        offset_s: when it arrives, in seconds since the cell's start.
        frames: frames of its clip.
        deadline_s: seconds that it may take.
        epoch: of its arrival, from 0.
    """

    index: int
    content_id: str
    offset_s: float
    frames: int
    deadline_s: float
    epoch: int


@dataclass(frozen=True, slots=True)
class PlannedColumns:
    """All tasks of one device in one cell as columns, in order of arrival; see `PlannedTask`."""

    offset_s: NDArray[np.float64]
    frames: NDArray[np.int64]
    deadline_s: NDArray[np.float64]
    epoch: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset_s)


def planned_tasks(
    settings: ArrivalSettings,
    seed: int,
    device_id: str,
    *,
    workload: str,
    epochs: int,
    epoch_s: float,
) -> list[PlannedTask]:
    """All tasks of one device in one cell, in order of arrival.

    Args:
        settings: how they arrive.
        seed: the cell's seed.
        device_id: the inventory's name of the device.
        workload: its name, the first part of each content_id.
        epochs: how many there are.
        epoch_s: length of one.

    Raises:
        BadInput: a setting is wrong, or more than `MAX_TASKS` would be planned.
    """
    planned = planned_columns(settings, seed, device_id, epochs=epochs, epoch_s=epoch_s)
    rows = zip(
        planned.offset_s.tolist(),
        planned.frames.tolist(),
        planned.deadline_s.tolist(),
        planned.epoch.tolist(),
        strict=True,
    )
    return [PlannedTask(index, content_name(workload, seed, device_id, index), *row) for index, row in enumerate(rows)]


def content_name(workload: str, seed: int, device_id: str, index: int) -> str:
    """The name of the images of a device's ``index``-th task."""
    return f"{workload}/{seed}/{device_id}/{index}"


def planned_columns(
    settings: ArrivalSettings, seed: int, device_id: str, *, epochs: int, epoch_s: float
) -> PlannedColumns:
    """The same tasks as `planned_tasks` has, as columns.

    Raises:
        BadInput: a setting is wrong, or more than `MAX_TASKS` would be planned.
    """
    return planned_of_devices(settings, seed, [device_id], epochs=epochs, epoch_s=epoch_s)[0]


def planned_of_devices(
    settings: ArrivalSettings, seed: int, device_ids: Sequence[str], *, epochs: int, epoch_s: float
) -> list[PlannedColumns]:
    """`planned_columns` of each device: for thousands of them, as only what is random is drawn one by one.

    Raises:
        BadInput: a setting is wrong, or more than `MAX_TASKS` would be planned for one of them.
    """
    settings.validate()
    _check_span(epochs, epoch_s)
    offset_s, frames, deadline_s, counts = _arrivals(settings, seed, device_ids, epochs * epoch_s)
    low, high = settings.frames_low, settings.frames_high + 1
    drawn = [
        stream(seed, "frames", device_id).integers(low, high, size=count)
        for device_id, count in zip(device_ids, counts.tolist(), strict=True)
    ]
    frames = np.where(frames > 0, frames, np.concatenate(drawn)) if len(drawn) else frames
    deadline_s = np.where(np.isnan(deadline_s), settings.deadline_s, deadline_s)
    epoch = epochs_of(offset_s, epoch_s, epochs)
    ends = np.cumsum(counts).tolist()
    return [
        PlannedColumns(offset_s[first:end], frames[first:end], deadline_s[first:end], epoch[first:end])
        for first, end in zip([0, *ends], ends, strict=False)
    ]


def content_rng(seed: int, device_id: str, index: int) -> np.random.Generator:
    """What `Workload.generate` is given for the device's ``index``-th task of a cell with this seed."""
    return stream(seed, "content", device_id, index)


def epoch_of(offset_s: float, epoch_s: float, epochs: int) -> int:
    """The epoch (from 0) whose closing tick an arrival waits for: a task on the tick still makes it."""
    return min(max(math.ceil((offset_s - _TICK_TOLERANCE_S) / epoch_s) - 1, 0), epochs - 1)


def epochs_of(offset_s: NDArray[np.float64], epoch_s: float, epochs: int) -> NDArray[np.int64]:
    """`epoch_of` of each."""
    ticks = np.ceil((offset_s - _TICK_TOLERANCE_S) / epoch_s) - 1
    epoch: NDArray[np.int64] = np.clip(ticks, 0, epochs - 1).astype(np.int64)
    return epoch


def _check_span(epochs: int, epoch_s: float) -> None:
    if epochs < 1:
        raise BadInput(Problem(f"{epochs} must be at least 1", "epochs"))
    if not is_positive(epoch_s):
        raise BadInput(Problem(f"{epoch_s} must be a positive number", "epoch_s"))


_Drawn = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]
"""When tasks arrive, their frames (0: not said), and their deadlines (NaN: not said)."""


def _arrivals(
    settings: ArrivalSettings, seed: int, device_ids: Sequence[str], horizon_s: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Arrivals within the cell, device by device and in order; equal times keep the order they were drawn in.

    Returns:
        As `_Drawn` has it, and how many each device has.
    """
    each = [_drawn(settings, seed, device_id, horizon_s) for device_id in device_ids]
    owner = np.repeat(np.arange(len(each)), [len(drawn[0]) for drawn in each])
    nothing: list[_Drawn] = [(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))]
    drawn_s, frames, deadline_s = (np.concatenate(column) for column in zip(*(each or nothing), strict=True))
    offset_s = _to_microseconds(drawn_s)
    kept = np.flatnonzero((offset_s > 0) & (offset_s <= horizon_s + _TICK_TOLERANCE_S))
    counts = np.bincount(owner[kept], minlength=len(each))
    if counts.max(initial=0) > MAX_TASKS:
        raise _too_many(int(counts.max()))
    order = kept[np.lexsort((offset_s[kept], owner[kept]))]
    return offset_s[order], frames[order], deadline_s[order], counts


def _drawn(settings: ArrivalSettings, seed: int, device_id: str, horizon_s: float) -> _Drawn:
    """A device's arrivals as they are drawn or written, not rounded and maybe some too many."""
    if settings.kind == "trace":
        rows = [row for row in settings.trace if row.device_id in (None, device_id) and row.seed in (None, seed)]
        return (
            np.array([row.offset_s for row in rows], np.float64),
            np.array([row.frames or 0 for row in rows], np.int64),
            np.array([math.nan if row.deadline_s is None else row.deadline_s for row in rows], np.float64),
        )
    draw = _periodic if settings.kind == "periodic" else _poisson
    all_s = draw(settings, stream(seed, "arrivals", device_id), horizon_s)
    drawn_s = all_s[all_s <= horizon_s + 2 * _TICK_TOLERANCE_S]
    return drawn_s, np.zeros(len(drawn_s), np.int64), np.full(len(drawn_s), np.nan)


def _to_microseconds(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each rounded to six places as Python does, to the nearest decimal number, which numpy only nearly does.

    A whole number divided by a million is the double next to that decimal number. Which whole number is next is clear
    to everybody unless a time lies close to the middle of two: those are left to Python.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of what is huge; left to Python too
        scaled = times_s * 1e6
        whole = np.rint(scaled)
        rounded: NDArray[np.float64] = whole / 1e6
        unclear = np.flatnonzero((np.abs(scaled - whole) > _CLEARLY) | ~(np.abs(scaled) <= _LARGEST_CLEAR))
    rounded[unclear] = [round(each, 6) for each in times_s[unclear].tolist()]
    return rounded


def _periodic(settings: ArrivalSettings, rng: np.random.Generator, horizon_s: float) -> NDArray[np.float64]:
    assert settings.period_s is not None
    count = math.floor(horizon_s / settings.period_s) + 2
    if count > MAX_TASKS:
        raise _too_many(count)
    # Drawn even when it is given, so that fixing the phase does not change the jitter.
    drawn_s = settings.period_s * (1 - rng.random())
    phase_s = drawn_s if settings.phase_s is None else settings.phase_s
    jitter_s = rng.uniform(-settings.jitter_s, settings.jitter_s, size=count)
    offsets_s: NDArray[np.float64] = phase_s + settings.period_s * np.arange(count) + jitter_s
    return offsets_s


def _poisson(settings: ArrivalSettings, rng: np.random.Generator, horizon_s: float) -> NDArray[np.float64]:
    assert settings.rate_per_s is not None
    expected = settings.rate_per_s * horizon_s
    if expected > MAX_TASKS:
        raise _too_many(round(expected))
    blocks = [np.zeros(1)]
    # Block by block until the end is passed: a fixed number of draws would be too few now and then.
    while blocks[-1][-1] <= horizon_s:
        gaps_s = rng.exponential(1 / settings.rate_per_s, size=_POISSON_BLOCK)
        blocks.append(blocks[-1][-1] + np.cumsum(gaps_s))
    return np.concatenate(blocks[1:])


def _too_many(count: int) -> BadInput:
    return BadInput(
        Problem(f"about {count} tasks for one device; at most {MAX_TASKS} are allowed: fewer epochs?", "arrivals")
    )
