"""The equations of two scenarios as plain Python loops, one environment, one device after another.

What somebody writes who has the paper in hand, and what the published simulators are like. They are the reference of
`benchmarks.scenario_speed`, which holds their results against the batched scenarios' before it times them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tasks = list[tuple[float, float]]
"""Cycles and bytes of each device's task."""


class PlainDcDrl:
    """`dc-drl` with its default parameters.

    Args:
        devices: N.
        draw_tasks: the tasks of an epoch, by its number; from NumPy's legacy generator, as published, unless given.
    """

    def __init__(self, devices: int, draw_tasks: Callable[[int], Tasks] | None = None) -> None:
        places = np.random.RandomState(2020).randint(-50, 50, (devices, 2)).tolist()
        self.devices = devices
        self.places = places
        self.signal_w = [0.1 * max(math.hypot(x, y), 1.0) ** -4.0 for x, y in places]
        self.draw_tasks = draw_tasks or self.uniform_tasks
        self.random = np.random.RandomState(0)

    def uniform_tasks(self, epoch: int) -> Tasks:
        """Tasks that depend on nothing."""
        uniform = self.random.uniform
        return [(uniform(0.6e9, 0.8e9), uniform(5_120_000.0, 8_192_000.0)) for _ in range(self.devices)]

    def reset(self) -> list[float]:
        """Begin an episode."""
        self.epoch = 0
        self.queues_s = [0.0] * self.devices
        self.server_s = 0.0
        self.tasks = self.draw_tasks(0)
        return self.observe()

    def observe(self) -> list[float]:
        """The state, 7 numbers a device and 3."""
        seen: list[float] = []
        for i in range(self.devices):
            x, y = self.places[i]
            cycles, size_bytes = self.tasks[i]
            seen += [0.8e9, self.queues_s[i], x, y, cycles, 2.0, size_bytes]
        return [*seen, 5e9, self.server_s, float(self.epoch)]

    def step(self, actions: Sequence[int]) -> tuple[list[float], list[float], bool]:
        """One epoch: the next state, each device's cost, and whether the episode has ended."""
        costs = [0.0] * self.devices
        uploads = []
        for i in range(self.devices):
            cycles, size_bytes = self.tasks[i]
            if actions[i] == 0:
                time_s = cycles / 0.8e9
                costs[i] = 0.025e-9 * cycles
                if self.queues_s[i] + time_s > 2.0:
                    costs[i] += 1.0
                self.queues_s[i] = max(0.0, self.queues_s[i] + time_s - 0.6)
                continue
            upload_s = self.upload_s(actions, i, size_bytes)
            costs[i] = 0.05e-9 * cycles + 0.1 * 0.1 * upload_s
            self.queues_s[i] = max(0.0, self.queues_s[i] - 0.6)
            if upload_s > 2.0:
                costs[i] += 1.0
            else:
                uploads.append((upload_s, i))
        self.serve(uploads, costs)
        self.epoch += 1
        self.tasks = self.draw_tasks(self.epoch)
        return self.observe(), costs, self.epoch == 50

    def upload_s(self, actions: Sequence[int], i: int, size_bytes: float) -> float:
        """Time on the air of device i."""
        others_w = 0.0
        for j in range(self.devices):
            if j != i and actions[j] == actions[i]:
                others_w += self.signal_w[j]
        rate_bps = 5e6 * math.log2(1.0 + self.signal_w[i] / (1e-13 + others_w))
        return 8.0 * size_bytes / rate_bps

    def serve(self, uploads: list[tuple[float, int]], costs: list[float]) -> None:
        """First come, first served."""
        free_s = self.server_s
        added_s = 0.0
        for upload_s, i in sorted(uploads):
            work_s = self.tasks[i][0] / 5e9
            free_s = max(upload_s, free_s) + work_s
            added_s += work_s
            if free_s > 2.0:
                costs[i] += 1.0
        self.server_s = max(0.0, self.server_s + added_s - 0.6)


class PlainCcm:
    """`ccm-s10` with its default parameters, random numbers as published."""

    devices, channels, units = 50, 10, 8

    def __init__(self) -> None:
        draw = np.random.RandomState(37).uniform
        ranges = ((1.0, 24.0), (0.5, 3.2), (5.0, 14.0), (0.4, 1.5))
        self.constants = [[draw(low, high) for low, high in ranges] for _ in range(self.devices)]

    def reset(self, seed: int) -> list[float]:
        """Begin an episode."""
        self.random = np.random.RandomState(seed)
        self.epoch = 0
        self.battery_mj = [battery for _, battery, _, _ in self.constants]
        self.draw_tasks()
        return self.observe()

    def draw_tasks(self) -> None:
        """Size, cycles a bit and deadline of each device's task."""
        uniform = self.random.uniform
        self.tasks = [(uniform(1, 50), uniform(300, 737.5), uniform(0.1, 0.9)) for _ in range(self.devices)]

    def observe(self) -> list[float]:
        """The state, 7 numbers a device."""
        seen: list[float] = []
        for i in range(self.devices):
            power_dbm, _, gain_db, cpu_ghz = self.constants[i]
            seen += [power_dbm, gain_db, self.battery_mj[i], *self.tasks[i], cpu_ghz]
        return seen

    def step(self, actions: Sequence[Sequence[float]]) -> tuple[list[float], list[float], bool]:
        """One step: the next state, each device's cost, and whether the episode has ended."""
        chosen = set(self.admitted(actions))
        upload_s: dict[int, float] = {}
        energies_j, times_s = [0.0] * self.devices, [0.0] * self.devices
        for i in range(self.devices):
            power_dbm, _, gain_db, cpu_ghz = self.constants[i]
            bits, per_bit = self.tasks[i][0] * 8 * 1024, self.tasks[i][1]
            if i in chosen:
                power_w = 10 ** ((power_dbm - 30) / 10) * (0.01 + (actions[i][2] + 1) * 0.99 / 2)
                upload_s[i] = bits / (4e6 * math.log2(1 + power_w * 10 ** (gain_db / 10)))
                energies_j[i] = power_w * upload_s[i]
            else:
                speed_hz = cpu_ghz * 1e9 * (0.01 + (actions[i][1] + 1) * 0.99 / 2)
                times_s[i] = bits * per_bit / speed_hz
                energies_j[i] = 5e-27 * bits * per_bit * speed_hz
        self.serve(upload_s, times_s)
        costs = [self.cost(i, times_s[i], energies_j[i]) for i in range(self.devices)]
        self.random.normal(0.001, 0, size=self.devices)
        self.draw_tasks()
        self.epoch += 1
        return self.observe(), costs, self.epoch == 10

    def admitted(self, actions: Sequence[Sequence[float]]) -> list[int]:
        """Whose offers the master accepts."""
        offers = [i for i in range(self.devices) if actions[i][0] >= 0]
        if len(offers) <= self.channels and sum(self.tasks[i][0] for i in offers) <= 400:
            return offers
        taken: list[int] = []
        used = 0.0
        for i in sorted(offers, key=lambda i: -actions[i][3]):
            if len(taken) < self.channels and used + self.tasks[i][0] < 400:
                taken.append(i)
                used += self.tasks[i][0]
        return taken

    def serve(self, upload_s: dict[int, float], times_s: list[float]) -> None:
        """Eight units, counted as the published code does."""
        order = sorted(upload_s, key=lambda i: upload_s[i])
        work_s = [self.tasks[i][0] * 8192 * self.tasks[i][1] / 4e9 for i in order]
        free_s = [0.0] * self.units
        for rank, i in enumerate(order):
            if rank >= self.units:
                for earlier in range(rank):
                    free_s[free_s.index(min(free_s))] += work_s[earlier]
            unit = free_s.index(min(free_s))
            times_s[i] = free_s[unit] = max(upload_s[i], free_s[unit]) + work_s[rank]

    def cost(self, i: int, time_s: float, energy_j: float) -> float:
        """What a device pays; its battery is drawn from."""
        time_s = min(time_s, 1.0)
        charge_mj = min(max(self.battery_mj[i] - energy_j * 1e-6 + 0.001e-6, 0.0), 3.2)
        self.battery_mj[i] = charge_mj
        if charge_mj <= 0.0:
            time_s = 1.0
        late_s, lacking_j = max(time_s - self.tasks[i][2], 0.0), max(0.5 - charge_mj, 0.0) * 1e6
        return 0.5 * (energy_j + lacking_j) + 0.5 * (time_s + late_s)


def as_lists(actions: np.ndarray[Any, Any]) -> list[Any]:
    """Actions as plain loops take them."""
    plain: list[Any] = actions.tolist()
    return plain
