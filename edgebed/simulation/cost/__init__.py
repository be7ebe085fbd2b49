"""Cost models: what a task costs, given how it went.

A model is a `CostModel`, in a module of this folder that names it ``MODEL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.models import model_in, models_in

__all__ = ["CostModel", "Prices", "TaskResults", "cost_model", "cost_names"]


class TaskResults(Protocol):
    """How the tasks of an epoch went, ``[B, N]`` each; a scenario gives what its cost models ask for."""

    @property
    def edge_share(self) -> NDArray[np.float64]:
        """Part of each task that was computed at the edge, 0 to 1."""

    @property
    def cycles(self) -> NDArray[np.float64]:
        """Processor cycles that each took."""

    @property
    def delay_s(self) -> NDArray[np.float64]:
        """From the epoch's beginning to the result."""

    @property
    def energy_j(self) -> NDArray[np.float64]:
        """What its device spent."""

    @property
    def misses(self) -> NDArray[np.bool_]:
        """Over the deadline."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What is charged; a model uses those that it knows.

    Attributes:
        local_per_gcycle, edge_per_gcycle: for computing.
        energy_per_j: for the device's energy.
        delay_per_s: for the delay.
        penalty: for a missed deadline.
    """

    local_per_gcycle: float
    edge_per_gcycle: float
    energy_per_j: float
    delay_per_s: float
    penalty: float


class CostModel(Protocol):
    """Cost of the tasks of an epoch."""

    def __call__(self, results: TaskResults, prices: Prices) -> NDArray[np.float64]:
        """Costs, ``[B, N]``, not negative."""


def cost_names() -> list[str]:
    """The names that `cost_model` knows."""
    return list(models_in(__name__))


def cost_model(name: str) -> CostModel:
    """The cost model of this name.

    Raises:
        BadInput: there is none.
    """
    model: CostModel = model_in(__name__, name)
    return model
