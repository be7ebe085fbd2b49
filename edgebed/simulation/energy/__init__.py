"""Energy models: the joules that a device spends on its task.

A model is an `EnergyModel`, in a module of this folder that names it ``MODEL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.models import model_in, models_in

__all__ = ["DevicePower", "EnergyModel", "energy_model", "energy_names"]


@dataclass(frozen=True, slots=True)
class DevicePower:
    """What a device draws.

    Attributes:
        transmit_w: while it sends.
        cpu_hz: its processor's clock.
        switched_capacitance: ``k`` in ``k f^2`` joules a cycle.
    """

    transmit_w: float
    cpu_hz: float
    switched_capacitance: float


class EnergyModel(Protocol):
    """Energy of the tasks of an epoch."""

    def __call__(
        self,
        edge_share: NDArray[np.float64],
        upload_s: NDArray[np.float64],
        cycles: NDArray[np.float64],
        power: DevicePower,
    ) -> NDArray[np.float64]:
        """Energy in joules.

        Args:
            edge_share: ``[B, N]``, part of each task that is computed at the edge, 0 to 1.
            upload_s: ``[B, N]``, time on the air if all of it is sent; finite, also where nothing is.
            cycles: ``[B, N]``, of each task.
            power: of every device.

        Returns:
            ``[B, N]``.
        """


def energy_names() -> list[str]:
    """The names that `energy_model` knows."""
    return list(models_in(__name__))


def energy_model(name: str) -> EnergyModel:
    """The energy model of this name.

    Raises:
        BadInput: there is none.
    """
    model: EnergyModel = model_in(__name__, name)
    return model
