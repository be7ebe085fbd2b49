"""Scenario `dc-drl`: binary offloading over shared channels that interfere, one edge server, a task a device and epoch.

Qiu et al. 2021, "Distributed and collective deep reinforcement learning for computation offloading: a practical
perspective". ``docs/scenarios/dc-drl.md`` has its tables; `edgebed.simulation.scenarios.dc_drl_epoch` its equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from edgebed.errors import BadInput
from edgebed.simulation.arrivals import TaskRanges, arrival_model
from edgebed.simulation.base import (
    ActionArray,
    ActionLayout,
    BatchObservation,
    BatchStep,
    Decisions,
    Heuristic,
    Scenario,
    ScenarioSpec,
)
from edgebed.simulation.radio.shannon import power_law_gain
from edgebed.simulation.random_streams import FloatArray, stream_keys
from edgebed.simulation.scenarios.dc_drl_epoch import EpochResults, EpochState, run_epoch
from edgebed.simulation.scenarios.dc_drl_heuristics import HEURISTICS
from edgebed.simulation.scenarios.dc_drl_parameters import DcDrlParameters, check_ranges, features_of, system_of
from edgebed.simulation.scenarios.dc_drl_positions import first_positions_m, walked_m
from edgebed.types import BoolArray, IntArray, Site

FEW_DEVICES, DRAWN_AHEAD = 256, 16
"""So many devices, of all environments, are few; and how many epochs are drawn at once for so few."""

_UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


class DcDrl(Scenario):
    """See the module."""

    spec: ClassVar[ScenarioSpec] = ScenarioSpec(
        name="dc-drl",
        title="Binary offloading over channels that interfere, to one edge server",
        paper="Qiu et al. 2021, Distributed and collective deep reinforcement learning for computation offloading: "
        "a practical perspective",
        parameters=DcDrlParameters,
    )
    heuristics: ClassVar[Mapping[str, type[Heuristic]]] = HEURISTICS
    parameters: DcDrlParameters
    state: EpochState
    position_m: FloatArray

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)
        settings = self.parameters
        check_ranges(settings)
        self.devices, self.channels, self.steps = settings.n, settings.channels, settings.steps
        self.system = system_of(settings)
        self._stride_m = settings.speed_mps * settings.epoch_s
        self._draw_tasks = arrival_model(settings.arrivals)
        self._ranges = TaskRanges(
            settings.cycles_min, settings.cycles_max, settings.input_min_bytes, settings.input_max_bytes
        )
        self.actions = ActionLayout(("local", *(f"channel {index}" for index in range(self.channels))))
        self.device_features, self.shared_features = features_of(settings)

    def reset(self, seeds: ArrayLike, where: BoolArray | None = None) -> None:
        """See `Scenario.reset`."""
        given = np.asarray(seeds, np.int64)
        if where is None:
            self._allocate(len(given))
            where = np.ones(len(given), np.bool_)
        self.seeds[where] = given[where]
        self.step_index[where] = 0
        self._ended[where] = False
        self._task_keys = stream_keys(self.seeds, "dc-drl", "tasks")
        self._walk_keys = stream_keys(self.seeds, "dc-drl", "walk")
        self.state.device_queue_s[where] = 0.0
        self.state.server_queue_s[where] = 0.0
        for total in self._totals:
            total[where] = 0
        self._place(where)
        self._new_tasks(where)

    def _allocate(self, batch: int) -> None:
        shape = (batch, self.devices)
        self.seeds = np.zeros(batch, np.int64)
        self.step_index = np.zeros(batch, np.int64)
        self._ended = np.zeros(batch, np.bool_)
        self.position_m = np.zeros((*shape, 2))
        self.state = EpochState(np.zeros(shape), np.zeros(batch), np.ones(shape), np.ones(shape), np.ones(shape))
        self._seen = np.zeros((*shape, 7), np.float32)
        self._seen[..., 0] = self.parameters.device_hz
        self._seen[..., 5] = self.parameters.deadline_s
        self._ahead: list[tuple[FloatArray, FloatArray]] = []
        self._cost_total = np.zeros(shape)
        self._energy_total_j = np.zeros(shape)
        self._misses = np.zeros(shape, np.int32)
        self._offloaded = np.zeros(shape, np.int32)

    @property
    def _totals(self) -> tuple[np.ndarray[Any, Any], ...]:
        return self._cost_total, self._energy_total_j, self._misses, self._offloaded

    def _place(self, where: BoolArray) -> None:
        settings = self.parameters
        keys = stream_keys(self.seeds[where], "dc-drl", "places") if settings.own_positions else None
        self.position_m[where] = first_positions_m(self.devices, settings.half_side_m, settings.position_seed, keys)
        self._hear(where)

    def _hear(self, where: BoolArray) -> None:
        distance_m = np.hypot(self.position_m[where, :, 0], self.position_m[where, :, 1])
        gain = power_law_gain(distance_m, self.parameters.path_loss_exponent)
        self.state.received_w[where] = self.parameters.transmit_power_w * gain
        self._seen[where, :, 2:4] = self.position_m[where]

    def _new_tasks(self, where: BoolArray | None) -> None:
        """Tasks of the epoch that begins; ``where``: only these environments are at a new epoch."""
        n, state = self.devices, self.state
        if where is None and self._ahead:
            cycles, input_bytes = self._ahead.pop()
        else:
            # A few environments would spend most of their time in drawing; for many, drawing ahead is no faster.
            epochs = DRAWN_AHEAD if len(self.seeds) * n <= FEW_DEVICES else 1
            tasks = self._draw_tasks(self._task_keys, self.step_index, n, self._ranges, epochs)
            parts = [slice(first, first + n) for first in range(0, epochs * n, n)]
            self._ahead = [(tasks.cycles[:, part], tasks.input_bytes[:, part]) for part in reversed(parts)]
            cycles, input_bytes = self._ahead.pop()
        if where is None:
            state.cycles, state.input_bytes = cycles, input_bytes
        else:
            state.cycles, state.input_bytes = (
                _chosen(where, cycles, state.cycles),
                _chosen(where, input_bytes, state.input_bytes),
            )
            self._ahead = []

    def observe(self) -> BatchObservation:
        """See `Scenario.observe`."""
        state = self.state
        devices = self._seen.copy()
        devices[..., 1] = state.device_queue_s
        devices[..., 4] = state.cycles
        devices[..., 6] = state.input_bytes
        shared = np.empty((len(self.seeds), 3), np.float32)
        shared[:, 0] = self.parameters.server_hz
        shared[:, 1] = state.server_queue_s
        shared[:, 2] = self.step_index
        return BatchObservation(devices, shared)

    def step(self, actions: ActionArray) -> BatchStep:
        """See `Scenario.step`."""
        results = run_epoch(self.system, self.state, self._checked(actions))
        costs = results.costs
        if np.count_nonzero(self._ended):
            costs = costs * ~self._ended[:, None]
            self._advance_some(results, ~self._ended)
        else:
            self._advance_all(results)
        self._cost_total += costs
        truncated = self.step_index >= self.steps
        self._ended = truncated
        return BatchStep(
            reward=-np.einsum("ij->i", costs),
            costs=costs,
            terminated=np.zeros(len(self.seeds), np.bool_),
            truncated=truncated.copy(),
        )

    def _advance_all(self, results: EpochResults) -> None:
        self._energy_total_j += results.tasks.energy_j
        self._misses += results.tasks.misses
        self._offloaded += results.tasks.offloads
        self.state.device_queue_s, self.state.server_queue_s = results.device_queue_s, results.server_queue_s
        self.step_index = self.step_index + 1
        if self._stride_m > 0.0:
            self._walk(np.ones(len(self.seeds), np.bool_))
        self._new_tasks(None)

    def _advance_some(self, results: EpochResults, active: BoolArray) -> None:
        self._energy_total_j[active] += results.tasks.energy_j[active]
        self._misses[active] += results.tasks.misses[active]
        self._offloaded[active] += results.tasks.offloads[active]
        self.state.device_queue_s[active] = results.device_queue_s[active]
        self.state.server_queue_s[active] = results.server_queue_s[active]
        self.step_index = self.step_index + active
        if self._stride_m > 0.0:
            self._walk(active)
        self._new_tasks(active)

    def _walk(self, active: BoolArray) -> None:
        half_side_m = self.parameters.half_side_m
        walked = walked_m(self.position_m, self._walk_keys, self.step_index, self._stride_m, half_side_m)
        self.position_m[active] = walked[active]
        self._hear(active)

    def _checked(self, actions: ActionArray) -> IntArray:
        """Raises BadInput when actions are not the scenario's."""
        channel = np.asarray(actions)
        shape = (len(self.seeds), self.devices)
        if channel.shape != shape or channel.dtype.kind not in "iu":
            raise BadInput(
                f"scenario dc-drl: actions are {channel.dtype} of shape {list(channel.shape)}; "
                f"integers of shape {list(shape)} are needed"
            )
        # As unsigned numbers, negative ones are huge.
        if np.count_nonzero(channel.view(_UNSIGNED[channel.itemsize]) > self.channels):
            raise BadInput(
                f"scenario dc-drl: actions are between {channel.min()} and {channel.max()}; allowed: 0 (local) to "
                f"{self.channels} (the last channel)"
            )
        return channel

    def decisions(self, actions: ActionArray) -> Decisions:
        """See `Scenario.decisions`."""
        channel = self._checked(actions)
        offloads = channel > 0
        ones = np.ones(channel.shape)
        return Decisions(
            site=np.where(offloads, Site.EDGE, Site.DEVICE).astype(np.int32),
            server=np.zeros(channel.shape, np.int32),
            channel=np.maximum(channel - 1, 0).astype(np.int32),
            edge_fraction=offloads.astype(np.float64),
            cpu_fraction=ones,
            power_fraction=ones.copy(),
        )

    def metrics(self) -> dict[str, FloatArray]:
        """``cost_per_task``, ``miss_rate``, ``offload_rate`` and ``energy_j_per_task``."""
        tasks = np.maximum(self.step_index, 1) * float(self.devices)
        return {
            "cost_per_task": self._cost_total.sum(axis=1) / tasks,
            "miss_rate": self._misses.sum(axis=1) / tasks,
            "offload_rate": self._offloaded.sum(axis=1) / tasks,
            "energy_j_per_task": self._energy_total_j.sum(axis=1) / tasks,
        }


def _chosen(where: BoolArray, new: FloatArray, old: FloatArray) -> FloatArray:
    return np.where(where[:, None], new, old)


SCENARIOS = (DcDrl,)
