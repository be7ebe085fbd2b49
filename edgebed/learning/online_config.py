"""Settings of learning online; readable without torch, so that an experiment is checked where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from edgebed.errors import BadInput
from edgebed.learning.base import LearnerConfig, parameter


class OnlineConfig(LearnerConfig, frozen=True):
    """Settings of learning online; ``learn: {kind: online, ...}`` in an experiment."""

    updates: Annotated[int, parameter("1", "gradient steps for each joint transition", ge=1, le=1000)] = 4
    batch: Annotated[int, parameter("1", "samples an update; before so many transitions nothing is learned", ge=1)] = 16
    actor_after: Annotated[int, parameter("1", "updates of a new critic before the actor moves", ge=0)] = 200
    actor_rate: Annotated[float, parameter("1", "step size of the actor", gt=0)] = 1e-5
    choice_temperature: Annotated[
        float, parameter("cost", "a choice better by it is taught e times as much (pairwise critics alone)", gt=0)
    ] = 0.5
    critic_rate: Annotated[float, parameter("1", "step size of the critic", gt=0)] = 3e-4
    tau: Annotated[float, parameter("1", "share by which targets follow at an update", gt=0, le=1)] = 0.01
    gamma: Annotated[float, parameter("1", "discount of an epoch", ge=0, lt=1)] = 0.9
    n_step: Annotated[int, parameter("1", "epochs of measured cost before the critic's estimate", ge=1, le=50)] = 3
    publish_s: Annotated[float, parameter("s", "least time between two versions", ge=0)] = 2.0


def read_online_config(given: Mapping[str, Any]) -> OnlineConfig:
    """The settings, checked.

    Raises:
        BadInput: one is unknown, of the wrong type or out of range.
    """
    try:
        return msgspec.convert(dict(given), OnlineConfig)
    except msgspec.ValidationError as error:
        allowed = ", ".join(OnlineConfig.__struct_fields__)
        raise BadInput(f"learn: {error}; allowed: {allowed}") from None
