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
from edgebed.simulation.cost import CostModel, Prices, TaskResults
from edgebed.simulation.energy import DevicePower, EnergyModel
from edgebed.simulation.radio import Channels, RadioModel
from edgebed.simulation.random_streams import FloatArray


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
    tasks: TaskResults
    device_queue_s: FloatArray
    server_queue_s: FloatArray


def run_epoch(system: System, state: EpochState, channel: NDArray[np.integer]) -> EpochResults:
    """What the decisions lead to.

    Args:
        system: models and settings.
        state: of ``B`` environments; not changed.
        channel: ``[B, N]``, 0: compute locally; 1 and up: offload over this channel.
    """
    offloads = channel > 0
    upload_s = state.input_bytes * 8.0
    upload_s /= system.radio(channel, state.received_w, system.channels)
    arrives = upload_s <= system.deadline_s
    arrives &= offloads
    edge_work_s = state.cycles * (1.0 / system.server_hz)
    edge_work_s *= arrives
    served = system.server(np.where(arrives, upload_s, np.inf), edge_work_s, state.server_queue_s, system.epoch_s)
    local_work_s = state.cycles * (1.0 / system.power.cpu_hz)
    # An upload that takes longer than the deadline never reaches the server: its delay is its upload.
    delay_s = np.where(offloads, np.where(arrives, served.finish_s, upload_s), local_work_s + state.device_queue_s)
    tasks = TaskResults(
        offloads=offloads,
        cycles=state.cycles,
        delay_s=delay_s,
        energy_j=system.energy(offloads, upload_s, state.cycles, system.power),
        misses=delay_s > system.deadline_s,
    )
    added_s = np.where(offloads, 0.0, local_work_s)
    return EpochResults(
        costs=system.cost(tasks, system.prices),
        tasks=tasks,
        device_queue_s=left_over_s(state.device_queue_s, added_s, system.epoch_s),
        server_queue_s=served.backlog_s,
    )
