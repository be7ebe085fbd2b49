"""Interference between the uploads of real hosts: rates from where hosts are. Not a model by itself.

The equations and the defaults are those of scenario `dc-drl` (Qiu et al. 2021): of its power ``p`` a server receives
``p max(d, 1)^-a`` over the distance ``d``, and the uploads in progress on a channel get what
`edgebed.simulation.radio.sinr` says. Edge servers grant these rates, and simulated ones too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import UNSET

from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec
from edgebed.protocol.radio import radio_settings
from edgebed.simulation.radio import Channels
from edgebed.simulation.radio.shannon import power_law_gain, watts_of_dbm
from edgebed.simulation.radio.sinr import interference_rates_bps


@dataclass(frozen=True, slots=True)
class Interference:
    """What the servers of a cell receive, and the rates that follow.

    Attributes:
        bandwidth_hz, noise_w: of each channel.
        received_w: of each server, the power of each device's signal there.
    """

    bandwidth_hz: float
    noise_w: float
    received_w: tuple[tuple[float, ...], ...]

    def rates_bps(self, received_w: Sequence[float]) -> list[float]:
        """Rates of the uploads that are on one channel together, in bit/s, from the power of each at the server."""
        channels = Channels(1, self.bandwidth_hz, self.noise_w)
        rates = interference_rates_bps(np.ones((1, len(received_w)), np.int64), np.array([received_w]), channels)
        found: list[float] = rates[0].tolist()
        return found

    def alone_bps(self, server: int) -> float:
        """What a device gets on a channel that it has for itself, the mean over the devices, in bit/s."""
        alone = [self.rates_bps([power_w])[0] for power_w in self.received_w[server]]
        return math.fsum(alone) / len(alone)


def interference_of(cell: CellSpec) -> Interference:
    """The interference between the devices of a cell.

    Raises:
        BadInput: a parameter is wrong, or it is not known where a host is.
    """
    settings = radio_settings(cell.channels.parameters)
    if not cell.devices:
        raise BadInput("channels: model 'sinr' needs a device; the cell has none")
    places = {} if cell.positions_m is UNSET else cell.positions_m
    missing = [name for name in (*cell.devices, *cell.servers) if not _is_place(places.get(name))]
    if missing:
        raise BadInput(
            f"channels: model 'sinr' needs to know where hosts are; the cell does not say it of {', '.join(missing)}; "
            "plan the run again"
        )
    devices_m = np.array([places[name] for name in cell.devices], np.float64).reshape(-1, 2)
    received_w = []
    for server in cell.servers:
        distance_m = np.hypot(*(devices_m - np.array(places[server], np.float64)).T)
        gain = power_law_gain(distance_m, settings.path_loss_exponent)
        received_w.append(tuple((settings.transmit_power_w * gain).tolist()))
    return Interference(settings.bandwidth_hz, watts_of_dbm(settings.noise_dbm), tuple(received_w))


def _is_place(place: tuple[float, float] | None) -> bool:
    return place is not None and all(map(math.isfinite, place))
