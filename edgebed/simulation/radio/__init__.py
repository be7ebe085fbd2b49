"""Radio models: how fast the uploads on shared channels are. numpy only: edge servers use them as well.

A model is a `RadioModel`, in a module of this folder that names it ``MODEL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.models import model_in, models_in

__all__ = ["Channels", "RadioModel", "radio_model", "radio_names"]


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of one server, all alike.

    Attributes:
        count: how many.
        bandwidth_hz: of each.
        noise_w: power of the noise in that bandwidth.
    """

    count: int
    bandwidth_hz: float
    noise_w: float


class RadioModel(Protocol):
    """Rates of uploads that are on the air together."""

    def __call__(
        self, channel: NDArray[np.integer], received_w: NDArray[np.float64], channels: Channels
    ) -> NDArray[np.float64]:
        """Rates in bit/s.

        Args:
            channel: ``[B, N]``, 1 to ``channels.count``; 0: the device does not send.
            received_w: ``[B, N]``, power of each device's signal at the server, above 0.
            channels: of every environment.

        Returns:
            ``[B, N]``, above 0; it means nothing where a device does not send.
        """


def radio_names() -> list[str]:
    """The names that `radio_model` knows."""
    return list(models_in(__name__))


def radio_model(name: str) -> RadioModel:
    """The radio model of this name.

    Raises:
        BadInput: there is none.
    """
    model: RadioModel = model_in(__name__, name)
    return model
