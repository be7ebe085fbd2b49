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


@dataclass(frozen=True, slots=True)
class TaskResults:
    """How the tasks of an epoch went, ``[B, N]`` each.

    Attributes:
        offloads: computed at the edge.
        cycles: what each took.
        delay_s: from the epoch's beginning to the result.
        energy_j: what its device spent.
        misses: over the deadline.
    """

    offloads: NDArray[np.bool_]
    cycles: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    misses: NDArray[np.bool_]


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
