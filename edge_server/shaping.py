"""How fast the uploads on a cell's channels are: what `edge_server.channels` grants follows these rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_server.admission import HeldTask
from edge_server.channels import RateRule, equal_shares
from edgebed.errors import BadInput
from edgebed.protocol.cells import CellSpec

if TYPE_CHECKING:
    from edgebed.simulation.radio.between_hosts import Interference


@dataclass(frozen=True, slots=True)
class Shaping:
    """Channels that grant credits.

    Attributes:
        rule: the rates of the uploads on a channel.
        alone_bps: what an upload gets that is alone on one; the mean over devices where that depends on the device.
    """

    rule: RateRule[HeldTask]
    alone_bps: float


def shaping_of(cell: CellSpec, server: str) -> Shaping | None:
    """The rule that the channels of a cell's server follow; None where they are not shaped.

    Raises:
        BadInput: the cell does not say what its model needs.
    """
    settings = cell.channels
    if settings.model == "none":
        return None
    if settings.model == "share":
        if settings.rate_bps <= 0.0:
            raise BadInput("channels: model 'share' needs rate_bps above 0")
        return Shaping(equal_shares(settings.rate_bps), settings.rate_bps)
    from edgebed.simulation.radio.between_hosts import interference_of  # here: few cells need a radio

    interference, index = interference_of(cell), cell.servers.index(server)
    received_w = dict(zip(cell.devices, interference.received_w[index], strict=True))
    return Shaping(interfering(interference, received_w), interference.alone_bps(index))


def interfering(interference: Interference, received_w: dict[str, float]) -> RateRule[HeldTask]:
    """The rule of ``sinr``: an upload is disturbed by all others that are in progress on its channel.

    Args:
        interference: of the cell.
        received_w: power at this server of each device's signal, by its name.
    """
    # A device whose key is known may send though it is none of the cell's: it is as the weakest.
    weakest_w = min(received_w.values())

    def rates(channel: int, uploads: Sequence[HeldTask]) -> Sequence[float]:
        return interference.rates_bps([received_w.get(each.session.name, weakest_w) for each in uploads])

    return rates
