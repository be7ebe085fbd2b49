"""Features of an observation by name, whatever the order of its columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgebed.types import BoolArray, Observation, ObservationSpec

Float64Array = NDArray[np.float64]


def device_feature(spec: ObservationSpec, observation: Observation, name: str) -> Float64Array:
    """One feature of every device, ``[slots]``.

    Raises:
        SchemaMismatch: the observations have no such feature.
    """
    return observation.values[:, spec.device_index(name)].astype(np.float64)


def server_feature(spec: ObservationSpec, observation: Observation, name: str) -> Float64Array:
    """One feature of every edge server, ``[servers]``.

    Raises:
        SchemaMismatch: the observations have no such feature.
    """
    return _by_server(spec, observation)[:, spec.server_index(name)].astype(np.float64)


def channel_feature(spec: ObservationSpec, observation: Observation, name: str) -> Float64Array:
    """One feature of every channel of every edge server, ``[servers, channels]``.

    Raises:
        SchemaMismatch: the observations have no such feature.
    """
    columns = [spec.channel_index(name, 0, channel) for channel in range(spec.channels)]
    return _by_server(spec, observation)[:, columns].astype(np.float64)


def allowed_offloads(spec: ObservationSpec, observation: Observation) -> BoolArray:
    """Where each device may offload to, ``[slots, servers, channels]``; True = allowed."""
    return observation.allowed_actions[:, 1:].reshape(len(spec.slots), len(spec.servers), spec.channels)


def offload_action(spec: ObservationSpec, server: int, channel: int) -> int:
    """The action index of one channel of one server (see `ObservationSpec`)."""
    return 1 + server * spec.channels + channel


def _by_server(spec: ObservationSpec, observation: Observation) -> NDArray[np.float32]:
    return observation.server.reshape(len(spec.servers), spec.server_width)
