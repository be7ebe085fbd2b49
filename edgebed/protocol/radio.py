"""``channels.parameters`` of a cell whose channels interfere: names, bounds, and what the paper has.

The rates that follow are in `edgebed.simulation.radio.between_hosts`, which few programs have to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from edgebed.errors import BadInput


class RadioSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``channels.parameters`` of an experiment whose channels interfere.

    Attributes:
        bandwidth_hz: of a channel.
        transmit_power_w: of a device that sends.
        noise_dbm: on a channel.
        path_loss_exponent: the gain is ``distance^-exponent``, from 1 m.
        half_side_m, position_seed: devices without a place of their own are drawn in a square around (0, 0).
    """

    bandwidth_hz: Annotated[float, Meta(gt=0.0, le=1e12)] = 5e6
    transmit_power_w: Annotated[float, Meta(gt=0.0, le=1e3)] = 0.1
    noise_dbm: Annotated[float, Meta(ge=-250.0, le=50.0)] = -100.0
    path_loss_exponent: Annotated[float, Meta(ge=0.0, le=10.0)] = 4.0
    half_side_m: Annotated[float, Meta(ge=1.0, le=1e5)] = 50.0
    position_seed: Annotated[float, Meta(ge=0.0, le=2.0**32 - 1)] = 2020.0


def radio_settings(parameters: Mapping[str, float]) -> RadioSettings:
    """``channels.parameters``, checked; what is left out is as in the paper.

    Raises:
        BadInput: one is unknown or out of bounds.
    """
    try:
        return msgspec.convert(dict(parameters), RadioSettings)
    except msgspec.ValidationError as error:
        raise BadInput(f"channels.parameters: {error}; allowed: {', '.join(RadioSettings.__struct_fields__)}") from None
