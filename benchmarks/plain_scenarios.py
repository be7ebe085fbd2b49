"""The equations of two scenarios as plain Python loops, one environment, one device after another.

What somebody writes who has the paper in hand, and what the published simulators are like: random numbers are drawn
task by task. Lists and floats, and what does not change computed once, make them as fast as they get that way. They are
the reference of `benchmarks.scenario_speed`, which holds their results against the batched scenarios' before it times
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tasks = Sequence[Sequence[float]]
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
        tasks = []
        for _ in range(self.devices):
            cycles, size = uniform(size=2).tolist()
            tasks.append((0.6e9 + 0.2e9 * cycles, 5_120_000.0 + 3_072_000.0 * size))
        return tasks

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
        for (x, y), queue_s, (cycles, size_bytes) in zip(self.places, self.queues_s, self.tasks, strict=True):
            seen += (0.8e9, queue_s, x, y, cycles, 2.0, size_bytes)
        seen += (5e9, self.server_s, float(self.epoch))
        return seen

    def step(self, actions: Sequence[int]) -> tuple[list[float], list[float], bool]:
        """One epoch: the next state, each device's cost, and whether the episode has ended."""
        queues_s = self.queues_s
        costs, uploads = [], []
        for i, (action, queue_s, (cycles, size_bytes)) in enumerate(zip(actions, queues_s, self.tasks, strict=True)):
            if action == 0:
                queue_s += cycles / 0.8e9
                cost = 0.025e-9 * cycles
                if queue_s > 2.0:
                    cost += 1.0
            else:
                upload_s = self.upload_s(actions, i, size_bytes)
                cost = 0.05e-9 * cycles + 0.1 * 0.1 * upload_s
                if upload_s > 2.0:
                    cost += 1.0
                else:
                    uploads.append((upload_s, i))
            costs.append(cost)
            queues_s[i] = queue_s - 0.6 if queue_s > 0.6 else 0.0
        self.serve(uploads, costs)
        self.epoch += 1
        self.tasks = self.draw_tasks(self.epoch)
        return self.observe(), costs, self.epoch == 50

    def upload_s(self, actions: Sequence[int], i: int, size_bytes: float) -> float:
        """Time on the air of device i."""
        channel, signal_w = actions[i], self.signal_w
        others_w = 0.0
        for j, other in enumerate(actions):
            if other == channel and j != i:
                others_w += signal_w[j]
        rate_bps = 5e6 * math.log2(1.0 + signal_w[i] / (1e-13 + others_w))
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
        self.power_w = [10 ** ((power_dbm - 30) / 10) for power_dbm, _, _, _ in self.constants]
        self.gain = [10 ** (gain_db / 10) for _, _, gain_db, _ in self.constants]
        self.cpu_hz = [cpu_ghz * 1e9 for _, _, _, cpu_ghz in self.constants]
        self.random = np.random.RandomState(0)

    def reset(self, seed: int) -> list[float]:
        """Begin an episode."""
        self.random.seed(seed)
        self.epoch = 0
        self.battery_mj = [battery for _, battery, _, _ in self.constants]
        self.draw_tasks()
        return self.observe()

    def draw_tasks(self) -> None:
        """Size, cycles a bit and deadline of each device's task."""
        uniform = self.random.uniform
        self.tasks = [(uniform(1.0, 50.0), uniform(300.0, 737.5), uniform(0.1, 0.9)) for _ in range(self.devices)]

    def observe(self) -> list[float]:
        """The state, 7 numbers a device."""
        seen: list[float] = []
        for (power_dbm, _, gain_db, cpu_ghz), charge_mj, task in zip(
            self.constants, self.battery_mj, self.tasks, strict=True
        ):
            seen += (power_dbm, gain_db, charge_mj, *task, cpu_ghz)
        return seen

    def step(self, actions: Sequence[Sequence[float]]) -> tuple[list[float], list[float], bool]:
        """One step: the next state, each device's cost, and whether the episode has ended."""
        chosen = set(self.admitted(actions))
        full_power_w, gains, full_hz = self.power_w, self.gain, self.cpu_hz
        upload_s: dict[int, float] = {}
        times_s, energies_j = [], []
        for i, (size_kib, cycles_per_bit, _) in enumerate(self.tasks):
            bits = size_kib * 8192
            if i in chosen:
                power_w = full_power_w[i] * (0.01 + (actions[i][2] + 1) * 0.99 / 2)
                time_s = upload_s[i] = bits / (4e6 * math.log2(1 + power_w * gains[i]))
                energies_j.append(power_w * time_s)
            else:
                speed_hz = full_hz[i] * (0.01 + (actions[i][1] + 1) * 0.99 / 2)
                cycles = bits * cycles_per_bit
                time_s = cycles / speed_hz
                energies_j.append(5e-27 * cycles * speed_hz)
            times_s.append(time_s)
        self.serve(upload_s, times_s)
        costs = self.costs(times_s, energies_j)
        self.random.normal(0.001, 0, size=self.devices)
        self.draw_tasks()
        self.epoch += 1
        return self.observe(), costs, self.epoch == 10

    def admitted(self, actions: Sequence[Sequence[float]]) -> list[int]:
        """Whose offers the master accepts."""
        sizes_kib = [size_kib for size_kib, _, _ in self.tasks]
        offers = [i for i, action in enumerate(actions) if action[0] >= 0]
        if len(offers) <= self.channels and sum(sizes_kib[i] for i in offers) <= 400:
            return offers
        taken: list[int] = []
        used = 0.0
        for i in sorted(offers, key=lambda i: -actions[i][3]):
            if len(taken) < self.channels and used + sizes_kib[i] < 400:
                taken.append(i)
                used += sizes_kib[i]
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

    def costs(self, times_s: list[float], energies_j: list[float]) -> list[float]:
        """What each device pays; its battery is drawn from."""
        costs = []
        batteries_mj = self.battery_mj
        for i, (time_s, energy_j, (_, _, deadline_s)) in enumerate(zip(times_s, energies_j, self.tasks, strict=True)):
            charge_mj = batteries_mj[i] - energy_j * 1e-6 + 0.001e-6
            if charge_mj > 3.2:
                charge_mj = 3.2
            if charge_mj <= 0.0:
                charge_mj, time_s = 0.0, 1.0
            elif time_s > 1.0:
                time_s = 1.0
            batteries_mj[i] = charge_mj
            cost = 0.5 * energy_j + 0.5 * time_s
            if charge_mj < 0.5:
                cost += 0.5 * (0.5 - charge_mj) * 1e6
            if time_s > deadline_s:
                cost += 0.5 * (time_s - deadline_s)
            costs.append(cost)
        return costs


def as_lists(actions: np.ndarray[Any, Any]) -> list[Any]:
    """Actions as plain loops take them."""
    plain: list[Any] = actions.tolist()
    return plain
