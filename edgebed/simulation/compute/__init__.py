"""Compute models: when an edge server has finished what it was sent.

A model is a `ServerModel`, in a module of this folder that names it ``MODEL``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.models import model_in, models_in

__all__ = ["Served", "ServerModel", "server_model", "server_names"]


class Served(NamedTuple):
    """What a server did with the tasks of an epoch.

    Attributes:
        finish_s: ``[B, N]``, since the epoch began; it means nothing for tasks that did not come.
        backlog_s: ``[B]``, seconds of work left at the end of the epoch.
    """

    finish_s: NDArray[np.float64]
    backlog_s: NDArray[np.float64]


class ServerModel(Protocol):
    """A server over one epoch."""

    def __call__(
        self,
        ready_s: NDArray[np.float64],
        work_s: NDArray[np.float64],
        backlog_s: NDArray[np.float64],
        epoch_s: float,
    ) -> Served:
        """Serve.

        Args:
            ready_s: ``[B, N]``, when each task has arrived, since the epoch began; positive and finite.
            work_s: ``[B, N]``, processing time of each task, alone; 0 for tasks that do not come.
            backlog_s: ``[B]``, seconds of work left from earlier epochs.
            epoch_s: length of the epoch.
        """


def server_names() -> list[str]:
    """The names that `server_model` knows."""
    return list(models_in(__name__))


def server_model(name: str) -> ServerModel:
    """The compute model of this name.

    Raises:
        BadInput: there is none.
    """
    model: ServerModel = model_in(__name__, name)
    return model
