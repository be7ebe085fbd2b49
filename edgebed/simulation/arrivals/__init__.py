"""Arrival models: what every device's task of an epoch is.

A model is an `ArrivalModel`, in a module of this folder that names it ``MODEL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.models import model_in, models_in

__all__ = ["ArrivalModel", "TaskRanges", "Tasks", "arrival_model", "arrival_names"]


@dataclass(frozen=True, slots=True)
class TaskRanges:
    """Least and most of what a task takes."""

    cycles_min: float
    cycles_max: float
    input_min_bytes: float
    input_max_bytes: float


@dataclass(frozen=True, slots=True)
class Tasks:
    """A task a device.

    Attributes:
        cycles: ``[B, N]``, processor cycles that it takes.
        input_bytes: ``[B, N]``, what is sent to offload it.
    """

    cycles: NDArray[np.float64]
    input_bytes: NDArray[np.float64]


class ArrivalModel(Protocol):
    """The tasks of an epoch."""

    def __call__(
        self, keys: NDArray[np.uint64], epoch: NDArray[np.int64], devices: int, ranges: TaskRanges, epochs: int = 1
    ) -> Tasks:
        """Draw them.

        Args:
            keys: ``[B]``, streams, see `edgebed.simulation.random_streams`.
            epoch: ``[B]``, from 0: the same epoch gives the same tasks.
            devices: N.
            ranges: of every environment.
            epochs: this one, and those after it; their tasks follow one another, ``[B, epochs * N]``.
        """


def arrival_names() -> list[str]:
    """The names that `arrival_model` knows."""
    return list(models_in(__name__))


def arrival_model(name: str) -> ArrivalModel:
    """The arrival model of this name.

    Raises:
        BadInput: there is none.
    """
    model: ArrivalModel = model_in(__name__, name)
    return model
