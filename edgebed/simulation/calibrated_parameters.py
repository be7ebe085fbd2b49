"""Settings of the scenario ``calibrated:PROFILE``; `edgebed.simulation.calibrated` explains it."""

from __future__ import annotations

from typing import Annotated

from edgebed.simulation.base import Parameters, parameter

CONDITIONS = "the profile's runs"


class CalibratedParameters(Parameters, frozen=True):
    """Settings; what the profile says of the conditions of its runs comes before these defaults."""

    n: Annotated[int, parameter("1", "devices, those of the profile in turn; 0: all of it", ge=0, le=10_000)] = 0
    epochs: Annotated[int, parameter("1", "decision epochs of an episode", CONDITIONS, ge=1, le=100_000)] = 50
    epoch_s: Annotated[float, parameter("s", "time between two ticks", CONDITIONS, gt=0.0, le=3600.0)] = 0.5
    rate_per_s: Annotated[
        float, parameter("1/s", "mean arrivals at each device, Poisson", CONDITIONS, gt=0.0, le=10_000.0)
    ] = 4.0
    frames_low: Annotated[int, parameter("1", "fewest frames of a clip", CONDITIONS, ge=1, le=1024)] = 2
    frames_high: Annotated[int, parameter("1", "most frames of a clip", CONDITIONS, ge=1, le=1024)] = 8
    deadline_s: Annotated[float, parameter("s", "what a task may take from its arrival", CONDITIONS, gt=0.0)] = 0.7
    task_timeout_s: Annotated[float, parameter("s", "when a task is given up", CONDITIONS, gt=0.0)] = 3.5
    channels: Annotated[int, parameter("1", "channels of each server", CONDITIONS, ge=1, le=256)] = 1
    channel_rate_bps: Annotated[
        float, parameter("bit/s", "rate that the uploads of a channel share; 0: not shaped", CONDITIONS, ge=0.0)
    ] = 0.0
    speed_range: Annotated[
        float, parameter("1", "each host computes up to so many times faster or slower in an episode", ge=1.0, le=10.0)
    ] = 1.0
    latency_weight: Annotated[float, parameter("1/s", "cost of a second of latency", CONDITIONS, ge=0.0)] = 1.0
    energy_weight: Annotated[float, parameter("1/J", "cost of a joule", CONDITIONS, ge=0.0)] = 0.0
    miss_penalty: Annotated[float, parameter("1", "cost of a missed deadline", CONDITIONS, ge=0.0)] = 1.0
