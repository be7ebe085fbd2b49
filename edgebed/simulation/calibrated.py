"""The testbed as a scenario: what a profile says of its hosts, in virtual time, as ``calibrated:PROFILE``.

Observations and actions are exactly those of hosts (`edgebed.simulation.hosts_layout`), so a policy that was trained
here decides on hosts as it is. A step is a decision epoch: tasks that arrived since the last tick wait for it, the
action of a device is for all its waiting tasks, and the queues of `edgebed.simulation.testbed` do the rest.

**Reward.** On hosts the cost of a decision is known only when its tasks have ended, some epochs later. Here a copy of
the queues is let run on, with nothing decided after, until the tasks of this decision have ended: their costs are the
step's, at once. What later decisions do to earlier tasks (a shared channel that fills up, say) is therefore not in the
reward; it is in ``metrics()``, which count what really became of each task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import mul
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgebed.errors import BadInput
from edgebed.simulation.base import ActionArray, BatchObservation, Decisions, ScenarioSpec
from edgebed.simulation.calibrated_heuristics import HEURISTICS
from edgebed.simulation.calibrated_parameters import CalibratedParameters
from edgebed.simulation.calibrated_tasks import Arrivals, Tasks, decision_keys, draw_tasks, host_chances
from edgebed.simulation.episodes import EpisodicScenario, Rows, RowsStep
from edgebed.simulation.hosts_layout import layout_of
from edgebed.simulation.random_streams import FloatArray, Uint64Array, uniforms
from edgebed.simulation.testbed.chance import decision_chances
from edgebed.simulation.testbed.features import device_features, server_features, waiting_of
from edgebed.simulation.testbed.hosts import Chosen, Testbed, Work, compute_energy_j
from edgebed.simulation.testbed.ingredients import DONE, NOWHERE, Ended, Ingredients, Layout
from edgebed.simulation.testbed.pipeline import Load, Pipeline
from edgebed.simulation.testbed.profile import ANY, Profile, draw, read_profile
from edgebed.types import Observation, ObservationSpec


@dataclass(slots=True)
class _Host:
    """A host as `Testbed` asks of it; a profile that was fitted knows the rest."""

    name: str
    link_rate_bps: float = 0.0
    workers: int = 1
    queue_tasks: int = 64
    position_m: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class _Episode:
    """One environment: its queues, what arrives, and the sums of what became of it.

    Attributes:
        slowness: of each device, then of each server: how long it computes, relative to the profile; ``speed_range``
            times the drift between cells that was measured.
        cpu_keys: see `Testbed.cpu_keys`.
    """

    pipeline: Pipeline
    tasks: Tasks
    delays: Uint64Array
    slowness: FloatArray
    cpu_keys: Uint64Array
    ended: list[Ended] = field(default_factory=list)


class CalibratedScenario(EpisodicScenario):
    """A testbed in virtual time, as a profile has it; see the module.

    Args:
        profile: of its hosts.
        parameters: settings.
        name: of the profile.

    Attributes:
        profile: as given.
        slots: names of the devices. full_name: ``calibrated:`` and the profile's name; policies that were trained here
            are known by both.
        observation_spec: of the hosts' observations.
    """

    spec: ClassVar[ScenarioSpec] = ScenarioSpec(
        name="calibrated",
        title="A testbed as its runs were measured: calibrated:PROFILE",
        paper="no paper: a profile that `edgebed calibrate` fitted to runs",
        parameters=CalibratedParameters,
    )
    heuristics = HEURISTICS

    def __init__(self, profile: Profile, parameters: Mapping[str, Any] | None = None, name: str = "profile") -> None:
        self.full_name = f"calibrated:{name}"
        super().__init__({**profile.source.conditions, **(parameters or {})})
        settings: CalibratedParameters = self.parameters
        if settings.frames_high < settings.frames_low:
            raise BadInput(
                f"scenario {self.spec.name}: `frames_high` is {settings.frames_high} and `frames_low` is "
                f"{settings.frames_low}; it must not be less"
            )
        self.profile, slots = _with_devices(profile, settings.n)
        self.slots = slots
        servers = tuple(profile.servers)
        self.testbed = Testbed(
            self.profile,
            [_Host(name, self.profile.devices[name].link.paced_bps) for name in slots],
            [_Host(name) for name in servers],
        )
        self.observation_spec = ObservationSpec(slots, servers, settings.channels)
        layout = layout_of(self.observation_spec)
        self.devices, self.servers, self.channels = len(slots), len(servers), settings.channels
        self.steps = settings.epochs
        self.device_features, self.shared_features = layout.device_features, layout.shared_features
        self.actions = layout.actions
        self._arrivals = Arrivals(
            settings.rate_per_s, settings.frames_low, settings.frames_high, settings.epochs, settings.epoch_s
        )
        self._queues = self.testbed.layout(settings.channels, settings.channel_rate_bps)
        self._episodes: list[_Episode] = []

    # -- episodes -----------------------------------------------------------------------------------------------------

    def _allocate(self, batch: int) -> None:
        self._episodes = [None] * batch  # type: ignore[list-item]  # `_begin` fills it

    def _begin(self, rows: Rows) -> None:
        for row in np.arange(self.batch)[rows].tolist():
            tasks = draw_tasks(int(self.seeds[row]), self.observation_spec.slots, self._arrivals, self.testbed)
            slowness = self._slowness(int(self.seeds[row]))
            pipeline = Pipeline(self._believing(slowness))
            pipeline.advance(self._arrivals.epoch_s)
            delays = decision_keys(int(self.seeds[row]), self.observation_spec.slots)
            slowness *= self.testbed.drift_of(int(self.seeds[row]), "calibrated")
            cpu_keys = self.testbed.cpu_keys(int(self.seeds[row]))
            self._episodes[row] = _Episode(pipeline, tasks, delays, slowness, cpu_keys)

    def _slowness(self, seed: int) -> FloatArray:
        """``[devices + servers]``, how long each host computes in an episode, between 1 / ``speed_range`` and it."""
        settings: CalibratedParameters = self.parameters
        slowness: FloatArray = settings.speed_range ** (2.0 * host_chances(seed, self.observation_spec) - 1.0)
        return slowness

    def _believing(self, slowness: FloatArray) -> Layout:
        """The queues whose hosts know at the start how fast they are: they have measured it."""
        own, there = slowness[: self.devices].tolist(), slowness[self.devices :].tolist()
        return replace(
            self._queues,
            device_frame_s=tuple(map(mul, self._queues.device_frame_s, own)),
            server_frame_s=tuple(map(mul, self._queues.server_frame_s, there)),
        )

    def observe(self) -> BatchObservation:
        """See `edgebed.simulation.base.Scenario.observe`."""
        values, server = self.hosts_values()
        present = np.zeros((*values.shape[:2], 2), np.float32)
        present[..., 0] = 1.0  # every device is heard of, and now: age 0
        return BatchObservation(np.concatenate([values, present], axis=2), server)

    def hosts_values(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The hosts' features: of devices ``[B, N, F]``, of servers ``[B, S]``."""
        settings: CalibratedParameters = self.parameters
        work = self._waiting(slice(None), is_numbered=True)
        deadline_s = np.full(len(work), settings.deadline_s)
        waiting = waiting_of(work, deadline_s, 0.0, self.batch, self.devices)
        load = _joined([episode.pipeline.load() for episode in self._episodes])
        keys = np.concatenate([episode.cpu_keys for episode in self._episodes])
        hosts = self.devices + self.servers
        chance = uniforms(keys, np.repeat(self.step_index, hosts), 1).reshape(self.batch, hosts)
        here, there = np.split(chance, [self.devices], axis=1)
        return (
            device_features(self.testbed, waiting, load, here),
            server_features(self.testbed, load, settings.channels, settings.channel_rate_bps, there),
        )

    def observation(self, row: int, values: NDArray[np.float32], server: NDArray[np.float32]) -> Observation:
        """What a policy of hosts would be shown of one environment; from `hosts_values`."""
        seen = Observation.empty(self.observation_spec, int(self.step_index[row]))
        seen.values[:], seen.server[:], seen.present[:] = values[row], server[row], True
        return seen

    def _waiting(self, rows: Rows, *, is_numbered: bool = False) -> Work:
        """The tasks that wait in these rows, one row after the other; times are from the tick on if they are numbered.

        Args:
            rows: of the batch.
            is_numbered: devices are numbered through the whole batch.
        """
        settings: CalibratedParameters = self.parameters
        parts = []
        for row in np.arange(self.batch)[rows].tolist():
            epoch = int(self.step_index[row])
            work = self._episodes[row].tasks.of_epoch(epoch, settings.task_timeout_s)
            if is_numbered:
                work.device = work.device + row * self.devices
                work.arrived_s = work.arrived_s - (epoch + 1) * settings.epoch_s
            parts.append(work)
        return Work.joined(parts)

    # -- steps --------------------------------------------------------------------------------------------------------

    def _advance(self, rows: Rows, actions: NDArray[Any]) -> RowsStep:
        """Submit what was decided in all rows at once; look ahead, and go on to the next tick, row by row."""
        numbers = np.arange(self.batch)[rows]
        works = [self._of_epoch(row) for row in numbers.tolist()]
        work = Work.joined(works)
        place = np.repeat(np.arange(len(numbers)), [len(each) for each in works])
        ingredients = self._ingredients(numbers, work, place, actions) if len(work) else None
        ahead = []
        first = 0
        for row, each in zip(numbers.tolist(), works, strict=True):
            pipeline = self._episodes[row].pipeline
            if ingredients is not None and len(each):
                pipeline.submit(ingredients.take(slice(first, first + len(each))))
            first += len(each)
            ahead.append(self._look_ahead(row, each))
        costs = self._decided_costs(works, ahead)
        return RowsStep(-costs.sum(axis=1), costs, np.zeros(len(numbers), np.bool_))

    def _look_ahead(self, row: int, work: Work) -> Ended:
        """What will become of a row's tasks if nothing more is decided; and then on to the next tick.

        Returns:
            The tasks that were decided now; more than once where their outcome changes.
        """
        settings: CalibratedParameters = self.parameters
        episode, epoch = self._episodes[row], int(self.step_index[row])
        is_last = epoch + 1 >= self.steps
        ended = episode.pipeline.fork().advance(math.inf) if len(work) or is_last else Ended.nobody()
        now = episode.pipeline.advance((epoch + 2) * settings.epoch_s)
        self._account(episode, ended if is_last else now)
        if not len(work):
            return Ended.nobody()
        return ended.take((ended.task >= work.task[0]) & (ended.task <= work.task[-1]))

    def _decided_costs(self, works: list[Work], ahead: list[Ended]) -> FloatArray:
        """Costs of the tasks that were decided now, ``[R, N]``."""
        costs = np.zeros((len(works), self.devices))
        cost = self._costs(Ended.joined(ahead)) if ahead else np.zeros(0)
        first = 0
        for number, (work, ended) in enumerate(zip(works, ahead, strict=True)):
            if len(work):
                decided = np.zeros(len(work))
                # A task that is told twice counts as it was told last.
                decided[ended.task - work.task[0]] = cost[first : first + len(ended)]
                costs[number] = np.bincount(work.device, decided, self.devices)
            first += len(ended)
        return costs

    def _of_epoch(self, row: int) -> Work:
        settings: CalibratedParameters = self.parameters
        return self._episodes[row].tasks.of_epoch(int(self.step_index[row]), settings.task_timeout_s)

    def _ingredients(
        self, numbers: NDArray[np.int64], work: Work, place: NDArray[np.int64], actions: NDArray[Any]
    ) -> Ingredients:
        """Of the tasks decided in these rows.

        Args:
            numbers: ``[R]``, the rows.
            work: the tasks of all of them.
            place: ``[n]``, index into ``numbers`` of each task.
            actions: ``[R, N]``.
        """
        settings: CalibratedParameters = self.parameters
        decided, device = self.decisions(actions), work.device
        epochs = self.step_index[numbers]
        delays = np.concatenate([self._episodes[row].delays for row in numbers.tolist()])
        chance = decision_chances(delays, np.repeat(epochs, self.devices))
        delay_s = draw(self.profile.decider("controller").delay_s, chance[:, 0]).reshape(len(numbers), self.devices)
        chosen = Chosen(
            ready_s=((epochs + 1) * settings.epoch_s)[place] + delay_s[place, device],
            site=decided.site[place, device].astype(np.int64),
            server=decided.server[place, device].astype(np.int64),
            channel=decided.channel[place, device].astype(np.int64),
            edge_fraction=decided.edge_fraction[place, device],
        )
        found = self.testbed.ingredients(work, chosen)
        slowness = np.stack([self._episodes[row].slowness for row in numbers.tolist()])
        found.device_compute_s *= slowness[place, device]
        found.server_compute_s *= slowness[place, self.devices + chosen.server]
        found.fallback_compute_s *= slowness[place, device]
        return found

    def decisions(self, actions: ActionArray) -> Decisions:
        """See `edgebed.simulation.base.Scenario.decisions`."""
        given = np.asarray(actions).astype(np.int64)
        offloaded = given > 0
        place = np.where(offloaded, given - 1, 0)
        full = np.ones(given.shape)
        return Decisions(
            site=offloaded.astype(np.int32),
            server=(place // self.channels).astype(np.int32),
            channel=(place % self.channels).astype(np.int32),
            edge_fraction=offloaded.astype(np.float64),
            cpu_fraction=full,
            power_fraction=full.copy(),
        )

    # -- what became of it --------------------------------------------------------------------------------------------

    def energy_j(self, ended: Ended) -> FloatArray:
        """Joules that each task added, on its device and at its server; 0 where the profile has no power model."""
        joules = np.zeros(len(ended))
        for device, host in enumerate(self.testbed.device_profiles):
            mine = ended.device == device
            if host.power is not None and mine.any():
                joules[mine] += compute_energy_j(host.power, ended.device_busy_s[mine] * host.compute.busy_share)
                joules[mine] += host.power.transmit_w * ended.air_s[mine]
        for server, server_host in enumerate(self.testbed.server_profiles):
            mine = ended.server == server
            if server_host.power is not None and mine.any():
                busy_s = ended.server_busy_s[mine] * server_host.compute.busy_share
                joules[mine] += compute_energy_j(server_host.power, busy_s)
        return joules

    def _costs(self, ended: Ended) -> FloatArray:
        """As `edgebed.trace.cost` has it; an unknown outcome is charged as a failed one."""
        settings: CalibratedParameters = self.parameters
        done = ended.outcome == DONE
        latency_s = np.where(done, ended.latency_s, settings.task_timeout_s)
        missed = ~done | (latency_s > settings.deadline_s)
        cost: FloatArray = settings.latency_weight * latency_s + settings.miss_penalty * missed
        if settings.energy_weight:
            cost = cost + settings.energy_weight * self.energy_j(ended)
        return cost

    def _account(self, episode: _Episode, ended: Ended) -> None:
        if len(ended):
            episode.ended.append(ended)

    def metrics(self) -> dict[str, FloatArray]:
        """Of the tasks that have ended, after the last step of all: what became of them.

        ``cost_per_task``, ``latency_s`` (of done tasks), ``miss_rate``, ``offload_share``, ``energy_j`` a task, and
        ``tasks``, how many there are.
        """
        names = ("cost_per_task", "latency_s", "miss_rate", "offload_share", "energy_j", "tasks")
        found = {name: np.zeros(self.batch) for name in names}
        for row, episode in enumerate(self._episodes):
            for name, value in self._metrics_of(episode).items():
                found[name][row] = value
        return found

    def _metrics_of(self, episode: _Episode) -> dict[str, float]:
        if not episode.ended:
            return {}
        told = Ended.joined(episode.ended)
        # The last word on each task: one that was unknown may have been done after all.
        _, last = np.unique(told.task[::-1], return_index=True)
        ended = told.take(len(told) - 1 - last)
        settings: CalibratedParameters = self.parameters
        done = ended.outcome == DONE
        in_time = done & (np.where(done, ended.latency_s, math.inf) <= settings.deadline_s)
        return {
            "cost_per_task": float(self._costs(ended).mean()),
            "latency_s": float(ended.latency_s[done].mean()) if done.any() else 0.0,
            "miss_rate": 1.0 - float(in_time.mean()),
            "offload_share": float((ended.server != NOWHERE).mean()),
            "energy_j": float(self.energy_j(ended).mean()),
            "tasks": float(len(ended)),
        }


def make(path: str | Path, parameters: Mapping[str, Any] | None = None) -> CalibratedScenario:
    """The scenario of a profile's file.

    Args:
        path: of the profile.
        parameters: see `CalibratedParameters`; conditions of the profile's runs are their defaults.

    Raises:
        BadInput: the file is no profile, or a parameter is unknown or out of range.
        SchemaMismatch: the profile is of another version of the format.
    """
    if not str(path):
        raise BadInput("scenario calibrated: a profile's file is needed, as in calibrated:profile.yaml")
    return CalibratedScenario(read_profile(path), parameters, Path(path).name)


def _with_devices(profile: Profile, count: int) -> tuple[Profile, tuple[str, ...]]:
    """The profile with ``count`` devices, its own in turn, and their names."""
    own = [name for name in profile.devices if name != ANY] or [ANY]
    names = []
    for index in range(count or len(own)):
        base, turn = own[index % len(own)], index // len(own)
        base = "device" if base == ANY else base
        names.append(base if turn == 0 else f"{base}.{turn + 1}")
    devices = {name: profile.devices[own[index % len(own)]] for index, name in enumerate(names)}
    return msgspec.structs.replace(profile, devices=devices), tuple(names)


def _joined(loads: list[Load]) -> Load:
    names = [each.name for each in fields(Load)]
    return Load(**{name: np.concatenate([getattr(load, name) for load in loads]) for name in names})
