"""The hosts' observation and actions in the terms of scenarios, so that spaces are the same on both.

A scenario calibrated from measurements takes its layout from here, and so do environments over hosts: for the same
`ObservationSpec` they have the same spaces, number for number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgebed.policies.hosts_features import action_names, device_block, device_columns, shared_columns
from edgebed.simulation.base import ActionLayout, BatchObservation
from edgebed.types import Feature, IntArray, Observation, ObservationSpec


@dataclass(frozen=True, slots=True)
class HostsLayout:
    """What a scenario says of itself, for hosts.

    Attributes:
        slots: names of the devices.
        device_features: the hosts' features of a device, then ``present`` and ``age_s``.
        shared_features: the servers', each named ``server0.queue_tasks``, ``server0.channel0.channel_uploads``, ...
        actions: one choice a device: ``device``, ``server0.channel0``, ...: the index is the hosts' action index.
    """

    slots: tuple[str, ...]
    device_features: tuple[Feature, ...]
    shared_features: tuple[Feature, ...]
    actions: ActionLayout


def layout_of(spec: ObservationSpec) -> HostsLayout:
    """The layout of hosts' observations; readable with nothing connected."""
    return HostsLayout(
        slots=spec.slots,
        device_features=device_columns(spec),
        shared_features=shared_columns(spec),
        actions=ActionLayout(choices=action_names(spec)),
    )


def batch_observation(observation: Observation) -> BatchObservation:
    """One observation of hosts as a batch of one: ``devices [1, N, F + 2]``, ``shared [1, S]``."""
    return BatchObservation(device_block(observation)[None], observation.server[None].astype(np.float32))


def executed_actions(site: IntArray, server: IntArray, channel: IntArray, spec: ObservationSpec) -> IntArray:
    """The action index of each slot from what was executed, ``[N]``; a split counts as the offload that it has."""
    offload = 1 + server * spec.channels + channel
    return np.where(site == 0, 0, offload).astype(np.int32)
