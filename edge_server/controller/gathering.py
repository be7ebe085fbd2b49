"""Putting a joint observation together from what devices and edge servers report. Pure; time is an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgebed.protocol.cells import CellSpec
from edgebed.protocol.messages import Observe
from edgebed.types import Observation, ObservationSpec

NEVER_S = 1e6
"""Age of what was never heard; an observation holds no infinities."""


def spec_of(cell: CellSpec) -> ObservationSpec:
    """What observations of a cell look like on hosts."""
    return ObservationSpec(tuple(cell.devices), tuple(cell.servers), cell.channels.count)


@dataclass(slots=True)
class _Heard:
    epoch: int
    at_s: float
    values: list[float]
    servers_up: list[bool]


@dataclass(slots=True)
class Gathering:
    """The latest word of every device and server of a cell.

    Attributes:
        epochs: of the cell; what devices say of the epoch with this number is how things stand after the last decision.
        decided: the last epoch that was decided; reports for it or earlier ones come too late.
    """

    spec: ObservationSpec
    epochs: int
    decided: int = -1
    _devices: dict[str, _Heard] = field(default_factory=dict)
    # Apart: a device that is done with everything may say so while others are waited for to decide the last epoch.
    _at_end: dict[str, _Heard] = field(default_factory=dict)
    _loads: dict[str, list[float]] = field(default_factory=dict)

    def hear(self, report: Observe, now_s: float) -> str | None:
        """Take a device's report for an epoch.

        Returns:
            What is wrong with it, None when it was taken.
        """
        if report.member not in self.spec.slots:
            return f"{report.member} has no slot in this cell"
        if len(report.values) != len(self.spec.device_features):
            return f"{len(report.values)} values came from {report.member}; {len(self.spec.device_features)} are due"
        if not all(map(math.isfinite, report.values)):
            return f"{report.member} reports a value that is not finite"
        if report.servers_up and len(report.servers_up) != len(self.spec.servers):
            return f"{report.member} reports on {len(report.servers_up)} servers of {len(self.spec.servers)}"
        heard = self._at_end if report.epoch >= self.epochs else self._devices
        heard[report.member] = _Heard(report.epoch, now_s, report.values, report.servers_up)
        return None

    def load(self, server: str, values: Sequence[float]) -> str | None:
        """Take an edge server's features; returns what is wrong with them, None when they were taken."""
        if server not in self.spec.servers:
            return f"{server} is no server of this cell"
        if len(values) != self.spec.server_width or not all(map(math.isfinite, values)):
            return f"{server} reports {len(values)} values; {self.spec.server_width} finite ones are due"
        self._loads[server] = list(values)
        return None

    def complete(self, epoch: int, expected: set[str]) -> bool:
        """Has every expected device reported for the epoch?"""
        heard = {name for name, report in self._known(epoch).items() if report.epoch >= epoch}
        return bool(heard) and expected <= heard

    def any_for(self, epoch: int) -> bool:
        """Has any device reported for the epoch?"""
        return any(report.epoch >= epoch for report in self._known(epoch).values())

    def _known(self, epoch: int) -> dict[str, _Heard]:
        return self._devices if epoch < self.epochs else self._devices | self._at_end

    def observation(self, epoch: int, now_s: float) -> Observation:
        """The joint observation: present is who reported for this epoch; the age of all others is said."""
        observation = Observation.empty(self.spec, epoch)
        known = self._known(epoch)
        for slot, name in enumerate(self.spec.slots):
            report = known.get(name)
            if report is None:
                observation.age_s[slot] = NEVER_S
                continue
            observation.age_s[slot] = now_s - report.at_s
            if report.epoch < epoch:
                continue
            observation.present[slot] = True
            observation.values[slot] = report.values
            for server, is_up in enumerate(report.servers_up):
                first = 1 + server * self.spec.channels
                observation.allowed_actions[slot, first : first + self.spec.channels] = is_up
        for server, name in enumerate(self.spec.servers):
            values = self._loads.get(name)
            if values is not None:
                start = server * self.spec.server_width
                observation.server[start : start + self.spec.server_width] = values
        return observation


def flat(observation: Observation) -> list[float]:
    """How ``epochs.parquet`` holds a joint observation: values row by row, then the servers."""
    return [float(number) for number in np.concatenate([observation.values.ravel(), observation.server])]
