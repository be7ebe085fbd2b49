"""The hosts' observation as two blocks of named columns: what networks read, and what spaces are made of.

Servers are named by their index (``server0.queue_delay_s``, ``server0.channel1.channel_uploads``): two clusters of the
same size have the same columns, whatever their hosts are called.
"""

from __future__ import annotations

import numpy as np

from edgebed.types import Feature, Float32Array, Observation, ObservationSpec

PRESENT = Feature("present", "1", 0, 1, "1 where the device was heard of for this epoch, else 0")
AGE_S = Feature("age_s", "s", 0, np.inf, "time since the values were measured; 0 where fresh")


def device_columns(spec: ObservationSpec) -> tuple[Feature, ...]:
    """The columns of a device: its features, then `PRESENT` and `AGE_S`."""
    return (*spec.device_features, PRESENT, AGE_S)


def shared_columns(spec: ObservationSpec) -> tuple[Feature, ...]:
    """The columns of all edge servers, server by server, in the order of ``Observation.server``."""
    columns: list[Feature] = []
    for server in range(len(spec.servers)):
        columns += [_renamed(one, f"server{server}.{one.name}") for one in spec.server_features]
        for channel in range(spec.channels):
            prefix = f"server{server}.channel{channel}."
            columns += [_renamed(one, prefix + one.name) for one in spec.channel_features]
    return tuple(columns)


def action_names(spec: ObservationSpec) -> tuple[str, ...]:
    """What each action index of a slot means: ``device``, then ``server0.channel0`` and so on."""
    return (
        "device",
        *(
            f"server{server}.channel{channel}"
            for server in range(len(spec.servers))
            for channel in range(spec.channels)
        ),
    )


def device_block(observation: Observation) -> Float32Array:
    """The values of `device_columns`, ``[slots, columns]``; an absent slot is all zeros but for its age."""
    present, features = observation.present, observation.values.shape[1]
    block = np.empty((len(present), features + 2), np.float32)
    block[:, :features] = observation.values
    block[:, features] = present
    block[:, features + 1] = observation.age_s
    if not present.all():
        block[~present, :features] = 0.0
    return block


def _renamed(feature: Feature, name: str) -> Feature:
    return Feature(name, feature.unit, feature.low, feature.high, feature.meaning)
