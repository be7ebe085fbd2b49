"""The `Meter` contract: where joules come from, and what a driver has to say about itself.

Every joule carries its source and its error. A source is ``measured:<chip>`` when a sensor saw the current, and
``estimated:<model>/<board>`` when a model computed it; nothing else is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgebed.clock import Clock
from edgebed.errors import BadInput
from edgebed.metering.board import Board
from edgebed.metering.kernel_files import CpuTimes

SYSFS_ROOT = Path("/sys")
PROC_ROOT = Path("/proc")

Setting = str | int | float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter knows at one moment.

    Attributes:
        t_s: when, on the clock that the meter was given.
        energy_j: joules since the meter was opened; never decreases.
        power_w: power at ``t_s`` (a sensor) or the mean since the reading before (a model); None when unknown.
        error_j: bound on the error of ``energy_j``. It only grows, term by term, so that the error of a window is
            the difference of its two readings.
        source: ``measured:<chip>`` or ``estimated:<model>/<board>``.
    """

    t_s: float
    energy_j: float
    power_w: float | None
    error_j: float
    source: str


@dataclass(frozen=True, slots=True)
class Energy:
    """An amount of energy that says where it comes from and how wrong it may be."""

    energy_j: float
    error_j: float
    source: str


class Meter(Protocol):
    """A source of cumulative energy. An instance belongs to one thread at a time and keeps no file open."""

    @property
    def source(self) -> str:
        """``measured:<chip>`` or ``estimated:<model>/<board>``."""
        ...

    @property
    def error(self) -> float:
        """The stated error as a fraction of the energy; no reading's ``error_j`` is below this share of it."""
        ...

    def read(self) -> Reading:
        """Read the sensor and bring the cumulative energy up to now.

        Raises:
            WorkFailed: the sensor cannot be read. The meter stays usable: once the sensor is back, the time that
                nobody saw is filled in and counted as error.
        """
        ...


@runtime_checkable
class UsesCpuTimes(Meter, Protocol):
    """A meter that is computed from CPU time, and takes it from who has just read it.

    Reading it is the dearest part of a host sample; this way it is read once, and a sample's utilisation and power are
    of the same moment.
    """

    def read_at(self, times: CpuTimes) -> Reading:
        """As `Meter.read`, with the host's CPU times of just now."""
        ...


@dataclass(frozen=True, slots=True)
class MeterSetup:
    """What a driver may need to open a meter.

    Attributes:
        clock: stamps readings and, for sensors that give power, is what power is integrated over.
        board: the board that the meter sits on.
        sysfs_root: where sysfs is mounted; tests script a tree of their own.
        proc_root: where procfs is mounted.
        settings: the driver's own settings, by name.
    """

    clock: Clock
    board: Board
    sysfs_root: Path = SYSFS_ROOT
    proc_root: Path = PROC_ROOT
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeterDriver:
    """A driver as the registry knows it; each driver's module names its own ``DRIVER``.

    Attributes:
        name: what an inventory's ``edgebed_meter`` says.
        summary: one line for ``edgebed list meters``.
        measures: True for a sensor, False for a model.
        settings: what ``MeterSetup.settings`` may contain, name to meaning.
        is_present: tells, cheaply and without raising, whether ``open_meter`` could work on this host.
        open_meter: opens the meter; raises BadInput when a setting is wrong or the sensor is not there.
        rank: ``auto`` takes the present sensor of the lowest rank: what sees the whole board comes first.
    """

    name: str
    summary: str
    measures: bool
    settings: Mapping[str, str]
    is_present: Callable[[MeterSetup], bool]
    open_meter: Callable[[MeterSetup], Meter]
    rank: int = 0


def window_energy(start: Reading, end: Reading) -> Energy:
    """The energy between two readings of one meter, with its error.

    Raises:
        BadInput: the readings are of different meters, or in the wrong order.
    """
    if start.source != end.source:
        raise BadInput(
            f"a window of energy begins with a reading of {start.source} and ends with one of {end.source}; "
            "take both from the same meter"
        )
    if end.t_s < start.t_s or end.energy_j < start.energy_j:
        raise BadInput(
            f"a window of energy ends ({end.t_s} s, {end.energy_j} J) before it begins "
            f"({start.t_s} s, {start.energy_j} J); swap its two readings"
        )
    return Energy(end.energy_j - start.energy_j, end.error_j - start.error_j, end.source)
