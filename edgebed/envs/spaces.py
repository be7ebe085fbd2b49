"""Spaces from what a scenario, or the hosts, say of themselves; and what each number in them means.

Observations are float32 boxes. A feature without a limit gets the largest float32: Gymnasium's checkers take an
infinite one for a mistake. Actions are ``Discrete`` or ``MultiDiscrete`` where there are only choices, else boxes; in
a box with both, the first column of a device is its choice, ``[0, choices)``, of which the whole part counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from edgebed.errors import BadInput
from edgebed.simulation.base import ActionArray, ActionLayout
from edgebed.types import Feature, Float32Array

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Column:
    """What one number of an observation means.

    Attributes:
        index: its place in the joint observation.
        slot: the device that it is of; empty: shared by all.
    """

    index: int
    slot: str
    name: str
    unit: str
    low: float
    high: float
    meaning: str


def box_of(features: Sequence[Feature]) -> spaces.Box:
    """A box with a number for each feature."""
    low, high = limits_of(features)
    return spaces.Box(low, high, dtype=np.float32)


def limits_of(features: Sequence[Feature]) -> tuple[Float32Array, Float32Array]:
    """Finite limits of features, float32."""
    low = np.array([max(one.low, -LARGEST) for one in features], np.float32)
    high = np.array([min(one.high, LARGEST) for one in features], np.float32)
    return low, high


def joint_features(
    slots: Sequence[str], device_features: Sequence[Feature], shared_features: Sequence[Feature]
) -> tuple[Feature, ...]:
    """The columns of a joint observation: device by device, then what is shared."""
    return (*(feature for _ in slots for feature in device_features), *shared_features)


def describe_columns(
    slots: Sequence[str], device_features: Sequence[Feature], shared_features: Sequence[Feature]
) -> list[Column]:
    """The joint observation, number by number, with units."""
    return list(_columns(slots, device_features, shared_features))


def _columns(slots: Sequence[str], of_device: Sequence[Feature], shared: Sequence[Feature]) -> Iterator[Column]:
    named = [(slot, feature) for slot in slots for feature in of_device] + [("", feature) for feature in shared]
    for index, (slot, one) in enumerate(named):
        yield Column(index, slot, one.name, one.unit, one.low, one.high, one.meaning)


def device_action_space(layout: ActionLayout) -> spaces.Space[Any]:
    """The actions of one device."""
    if not layout.numbers:
        return spaces.Discrete(len(layout.choices))
    low, high = _number_limits(layout)
    return spaces.Box(low, high, dtype=np.float32)


def joint_action_space(layout: ActionLayout, devices: int) -> spaces.Space[Any]:
    """The actions of all devices: ``MultiDiscrete [N]``, or a box ``[N, width]``."""
    if not layout.numbers:
        return spaces.MultiDiscrete(np.full(devices, len(layout.choices), np.int64))
    low, high = _number_limits(layout)
    return spaces.Box(np.tile(low, (devices, 1)), np.tile(high, (devices, 1)), dtype=np.float32)


def _number_limits(layout: ActionLayout) -> tuple[Float32Array, Float32Array]:
    low, high = limits_of(layout.numbers)
    if not layout.choices:
        return low, high
    zero, count = np.zeros(1, np.float32), np.full(1, len(layout.choices), np.float32)
    return np.concatenate([zero, low]), np.concatenate([count, high])


def to_layout(layout: ActionLayout, actions: Any, shape: tuple[int, ...]) -> ActionArray:
    """Actions of the spaces as the scenario's layout has them.

    Args:
        layout: the scenario's.
        actions: of a space above, or a batch of them.
        shape: of the scenario: ``(B, N)``.

    Raises:
        BadInput: their shape is wrong; both are named.
    """
    given = np.asarray(actions)
    expected = (*shape, layout.width) if layout.numbers else shape
    if given.size != math.prod(expected):
        raise BadInput(f"an action of the shape {given.shape}; {expected[1:]} is needed, see action_space")
    given = given.reshape(expected)
    if layout.numbers and layout.choices:
        given = np.array(given, np.float64)
        # The upper end belongs to the last choice.
        given[..., 0] = np.minimum(np.floor(given[..., 0]), len(layout.choices) - 1)
    return given
