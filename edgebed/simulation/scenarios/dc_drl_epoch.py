"""One epoch of `dc-drl` as a pure function: state and decisions in, results out. Heuristics look ahead with it.

Equations and prices: Qiu et al. 2021, "Distributed and collective deep reinforcement learning for computation
offloading: a practical perspective"; see ``docs/scenarios/dc-drl.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebed.simulation.compute import ServerModel
from edgebed.simulation.compute.backlog import left_over_s
from edgebed.simulation.cost import CostModel, Prices
from edgebed.simulation.energy import DevicePower, EnergyModel
from edgebed.simulation.radio import Channels, RadioModel
from edgebed.simulation.random_streams import FloatArray
from edgebed.types import BoolArray


@dataclass(frozen=True, slots=True)
class System:
    """What does not change within an episode: the models, and what they are told."""

    radio: RadioModel
    server: ServerModel
    energy: EnergyModel
    cost: CostModel
    channels: Channels
    power: DevicePower
    prices: Prices
    server_hz: float
    deadline_s: float
    epoch_s: float


@dataclass(slots=True)
class EpochState:
    """Queues, tasks and signals at the beginning of an epoch.

    Attributes:
        device_queue_s: ``[B, N]``, time until each device's processor is free.
        server_queue_s: ``[B]``, time until the server is free.
        cycles: ``[B, N]``, of each device's task.
        input_bytes: ``[B, N]``, of each device's task.
        received_w: ``[B, N]``, power of each device's signal at the server, if it sends.
    """

    device_queue_s: FloatArray
    server_queue_s: FloatArray
    cycles: FloatArray
    input_bytes: FloatArray
    received_w: FloatArray

    def repeated(self, times: int) -> EpochState:
        """Each environment ``times`` times, one after another: ``[B * times, N]``."""
        return EpochState(
            *(np.repeat(getattr(self, name), times, axis=0) for name in self.__dataclass_fields__),
        )


@dataclass(slots=True)
class EpochTasks:
    """How the tasks of an epoch went, ``[B, N]`` each; see `edgebed.simulation.cost.TaskResults`.

    Attributes:
        offloads: computed at the edge. edge_share: the same as a number.
        arrives: offloaded, and at the server before the deadline.
        local_s: delay of computing locally. upload_s: time on the air. finish_s: when the server is done.
    """

    offloads: BoolArray
    edge_share: FloatArray
    cycles: FloatArray
    arrives: BoolArray
    local_s: FloatArray
    upload_s: FloatArray
    finish_s: FloatArray
    energy_j: FloatArray
    misses: BoolArray

    @property
    def delay_s(self) -> FloatArray:
        """From the epoch's beginning to the result; the upload's time where the task never reached the server."""
        return np.where(self.offloads, np.where(self.arrives, self.finish_s, self.upload_s), self.local_s)


@dataclass(frozen=True, slots=True)
class EpochResults:
    """What came of an epoch.

    Attributes:
        costs: ``[B, N]``.
        tasks: how each task went.
        device_queue_s: ``[B, N]``, at the end.
        server_queue_s: ``[B]``, at the end.
    """

    costs: FloatArray
    tasks: EpochTasks
    device_queue_s: FloatArray
    server_queue_s: FloatArray


def run_epoch(system: System, state: EpochState, channel: NDArray[np.integer]) -> EpochResults:
    """What the decisions lead to.

    Numbers are selected by multiplying with 0 or 1: ``np.where`` on decisions, which no processor can predict, takes
    ten times as long.

    Args:
        system: models and settings.
        state: of ``B`` environments; not changed.
        channel: ``[B, N]``, 0: compute locally; 1 and up: offload over this channel.
    """
    offloads = channel > 0
    edge_share = offloads.astype(np.float64)
    upload_s = state.input_bytes * 8.0
    upload_s /= system.radio(channel, state.received_w, system.channels)
    arrives = upload_s <= system.deadline_s
    arrives &= offloads
    edge_work_s = state.cycles * (1.0 / system.server_hz)
    edge_work_s *= arrives.astype(np.float64)
    served = system.server(upload_s, edge_work_s, state.server_queue_s, system.epoch_s)
    work_s = state.cycles * (1.0 / system.power.cpu_hz)
    local_s = work_s + state.device_queue_s
    in_time = served.finish_s <= system.deadline_s
    in_time &= arrives
    misses = local_s > system.deadline_s
    misses &= ~offloads
    misses |= offloads & ~in_time
    energy_j = system.energy(edge_share, upload_s, state.cycles, system.power)
    tasks = EpochTasks(
        offloads, edge_share, state.cycles, arrives, local_s, upload_s, served.finish_s, energy_j, misses
    )
    work_s *= -edge_share  # taken back from what waits: what is offloaded is not added
    return EpochResults(
        costs=system.cost(tasks, system.prices),
        tasks=tasks,
        device_queue_s=left_over_s(local_s, work_s, system.epoch_s),
        server_queue_s=served.backlog_s,
    )
