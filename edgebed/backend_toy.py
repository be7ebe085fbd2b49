"""The fake of the `Backend` contract: a small queueing toy in virtual time.

Exact and deterministic, and a model of nothing: for the tests of whatever drives a backend, never for results. Each
device has one FIFO executor and one FIFO uplink of its own; each edge server has W workers behind one FIFO queue.
Tasks of one decision reach a server's queue in order of arrival, those of later decisions after them. Channels exist
and do nothing. It cannot split a task or lower its transmit power, and says so in its receipts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from edgebed.backend import CallOrder, Receipt, TaskOutcome, Turn
from edgebed.clock import ManualClock
from edgebed.errors import BadInput
from edgebed.randomness import stream
from edgebed.types import DecidedBy, Decision, Observation, ObservationSpec, Outcome, Site, SlotDecision

_DEVICE_HZ = 1e9
_WORKER_HZ = 4e9
_DEVICE_W = 2.0
_WORKER_W = 10.0
_MISS_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class ToyPlan:
    """An episode of the toy.

    Attributes:
        absent: (epoch, device) pairs: the device is down during that epoch, and the tasks that arrive in it fail.
        queue_tasks: a server with so many tasks refuses more: ``failed``.
        lose_every: the result of every n-th offloaded task is lost: ``unknown``; 0 loses none.
        timeout_s: when a lost task becomes unknown, from its arrival; also the latency that a failed one is charged.
    """

    devices: tuple[str, ...] = ("pi-1", "pi-2", "pi-3")
    servers: tuple[str, ...] = ("edge-1",)
    epochs: int = 6
    epoch_s: float = 1.0
    channels: int = 1
    workers: int = 1
    link_rate_bps: float = 2e6
    deadline_s: float = 2.0
    timeout_s: float = 10.0
    absent: frozenset[tuple[int, str]] = frozenset()
    queue_tasks: int = 64
    lose_every: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    task_id: str
    slot: int
    epoch: int
    arrived_s: float
    payload_bytes: float
    cycles: float


@dataclass(slots=True)
class _Queues:
    """When everything that has been accepted so far will be done: instants of the run clock."""

    device_free_s: list[float]
    link_free_s: list[float]
    worker_free_s: list[list[float]]
    server_done_s: list[list[float]]
    offloaded: int = 0
    finished: list[tuple[float, TaskOutcome]] = field(default_factory=list)


class ToyBackend:
    """A `Backend` of `ToyPlan` that can also shape links.

    Tick t, at ``(t + 1) * epoch_s``, decides the tasks that arrived since the tick before; undecided ones run locally,
    ``decided_by`` the fallback.

    Attributes:
        clock: the run clock; moved by ``observe`` and ``poll``.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._order = CallOrder()
        self._shaped_bps: dict[str, float] = {}

    def observation_spec(self, plan: ToyPlan) -> ObservationSpec:
        """The features that hosts give."""
        return ObservationSpec(tuple(plan.devices), tuple(plan.servers), plan.channels)

    def open(self, plan: ToyPlan) -> None:
        """Remember the plan."""
        self._order.check("open")
        self._plan = plan
        self._spec = self.observation_spec(plan)
        self._order.turn = Turn.OPEN

    def reset(self, seed: int) -> None:
        """Draw the arrivals; empty every queue."""
        self._order.check("reset")
        plan = self._plan
        self.clock = ManualClock()
        self._tasks: dict[tuple[int, int], list[_Task]] = defaultdict(list)
        for slot in range(len(plan.devices)):
            for task in _arrivals(plan, seed, slot):
                self._tasks[task.epoch, slot].append(task)
        self._queues = _Queues(
            [0.0] * len(plan.devices),
            [0.0] * len(plan.devices),
            [[0.0] * plan.workers for _ in plan.servers],
            [[] for _ in plan.servers],
        )
        self._epoch = -1
        self._order.turn = Turn.RUNNING

    def observe(self) -> Observation:
        """Move the clock to the next tick."""
        self._order.check("observe")
        if self._order.turn is Turn.ASKED:
            self._commit(Decision.local(len(self._spec.slots)), DecidedBy.FALLBACK)
        self._epoch += 1
        self.clock.time_s = (self._epoch + 1) * self._plan.epoch_s
        self._order.turn = Turn.ASKED if self._epoch < self._plan.epochs else Turn.OVER
        for slot, name in enumerate(self._plan.devices):
            if (self._epoch, name) in self._plan.absent:
                self._queues.finished += [(self.clock.now_s(), self._dead(task)) for task in self._waiting(slot)]
        return self._observation()

    def submit(self, decision: Decision) -> Receipt:
        """Let every present device act on its waiting tasks."""
        self._order.check("submit")
        decision.check(self._spec)
        executed = self._possible(decision)
        present = self._present()
        asked = [decision.slot(slot) == executed.slot(slot) for slot in range(len(present))]
        tasks = self._commit(executed, DecidedBy.CONTROLLER)
        self._order.turn = Turn.RUNNING
        return Receipt(self._epoch, executed, present & asked, tasks)

    def poll(self, timeout_s: float) -> list[TaskOutcome]:
        """Move the clock on to the first new outcome, within the limits of the contract."""
        self._order.check("poll")
        over = self._order.turn is Turn.OVER
        next_tick_s = math.inf if over else (self._epoch + 2) * self._plan.epoch_s
        limit_s = min(self.clock.now_s() + timeout_s, next_tick_s)
        finished = sorted(self._queues.finished, key=lambda pair: (pair[0], pair[1].task_id))
        if finished:
            self.clock.advance(min(finished[0][0], limit_s) - self.clock.now_s())
        now_s = self.clock.now_s()
        self._queues.finished = [pair for pair in finished if pair[0] > now_s]
        return [outcome for end_s, outcome in finished if end_s <= now_s]

    def close(self) -> None:
        """Forget the episode."""
        self._order.turn = Turn.CLOSED

    def shape_link(self, device: str, rate_bps: float, delay_s: float = 0.0, loss: float = 0.0) -> None:
        """Change the rate of a device's uplink for tasks decided from now on. The toy's links have no more to shape."""
        if device not in self._plan.devices or not rate_bps > 0 or delay_s or loss:
            raise BadInput(
                f"link of {device!r}: rate {rate_bps} bit/s, delay {delay_s} s, loss {loss}; the toy has links of "
                f"{', '.join(self._plan.devices)}, of a positive rate, without delay and loss"
            )
        self._shaped_bps[device] = rate_bps

    def restore_link(self, device: str) -> None:
        """Give a device's uplink the plan's rate again."""
        self._shaped_bps.pop(device, None)

    def _present(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.array([(self._epoch, name) not in self._plan.absent for name in self._plan.devices])

    def _waiting(self, slot: int) -> list[_Task]:
        return self._tasks.get((self._epoch, slot), [])

    def _rate_bps(self, slot: int) -> float:
        return self._shaped_bps.get(self._plan.devices[slot], self._plan.link_rate_bps)

    def _possible(self, decision: Decision) -> Decision:
        """What the toy makes of a decision: it offloads whole tasks at full power, and absent devices do nothing."""
        present = self._present()
        site = np.where(present, np.minimum(decision.site, Site.EDGE), Site.DEVICE).astype(np.int32)
        return replace(
            decision,
            site=site,
            edge_fraction=(site == Site.EDGE).astype(np.float32),
            power_fraction=np.ones_like(decision.power_fraction),
        )

    def _observation(self) -> Observation:
        observation = replace(Observation.empty(self._spec, self._epoch), present=self._present())
        for slot in np.flatnonzero(observation.present).tolist():
            for name, value in self._device_features(slot):
                observation.values[slot, self._spec.device_index(name)] = value
        for server in range(len(self._plan.servers)):
            for name, value in self._server_features(server):
                observation.server[self._spec.server_index(name, server)] = value
        return observation

    def _device_features(self, slot: int) -> Iterator[tuple[str, float]]:
        now_s, waiting = self.clock.now_s(), self._waiting(slot)
        yield "waiting_tasks", len(waiting)
        yield "waiting_frames", len(waiting)
        yield "waiting_bytes", sum(task.payload_bytes for task in waiting)
        yield "waiting_cycles", sum(task.cycles for task in waiting)
        yield "deadline_s", self._plan.deadline_s if waiting else 0.0
        yield "waited_s", max((now_s - task.arrived_s for task in waiting), default=0.0)
        yield "device_queue_delay_s", max(0.0, self._queues.device_free_s[slot] - now_s)
        yield "device_speed_hz", _DEVICE_HZ
        yield "uplink_queue_bytes", max(0.0, self._queues.link_free_s[slot] - now_s) * self._rate_bps(slot) / 8
        yield "link_rate_bps", self._rate_bps(slot)
        yield "battery", 1.0

    def _server_features(self, server: int) -> Iterator[tuple[str, float]]:
        now_s, queues = self.clock.now_s(), self._queues
        yield "queue_tasks", sum(done_s > now_s for done_s in queues.server_done_s[server])
        yield "queue_delay_s", max(0.0, min(queues.worker_free_s[server]) - now_s)
        yield "workers", self._plan.workers
        yield "worker_speed_hz", _WORKER_HZ

    def _commit(self, decision: Decision, decided_by: DecidedBy) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Queue all waiting tasks as decided; returns how many there were a slot."""
        counts = np.zeros(len(self._spec.slots), np.int32)
        uploads: list[tuple[float, _Task, SlotDecision]] = []
        for slot in np.flatnonzero(self._present()).tolist():
            chosen, waiting = decision.slot(slot), self._waiting(slot)
            counts[slot] = len(waiting)
            for task in waiting:
                if chosen.site is Site.DEVICE:
                    self._run_locally(task, chosen, decided_by)
                else:
                    uploads.append((self._upload(task), task, chosen))
        for received_s, task, chosen in sorted(uploads, key=lambda upload: (upload[0], upload[1].task_id)):
            self._serve(task, received_s, chosen.server, decided_by)
        return counts

    def _run_locally(self, task: _Task, chosen: SlotDecision, decided_by: DecidedBy) -> None:
        busy_s = task.cycles / (_DEVICE_HZ * chosen.cpu_fraction)
        end_s = max(self.clock.now_s(), self._queues.device_free_s[task.slot]) + busy_s
        self._queues.device_free_s[task.slot] = end_s
        self._done(task, end_s, Site.DEVICE, decided_by, device_j=_DEVICE_W * busy_s)

    def _upload(self, task: _Task) -> float:
        """When its last byte is on the server."""
        start_s = max(self.clock.now_s(), self._queues.link_free_s[task.slot])
        self._queues.link_free_s[task.slot] = start_s + 8 * task.payload_bytes / self._rate_bps(task.slot)
        return self._queues.link_free_s[task.slot]

    def _serve(self, task: _Task, received_s: float, server: int, decided_by: DecidedBy) -> None:
        queues = self._queues
        queues.offloaded += 1
        if sum(done_s > received_s for done_s in queues.server_done_s[server]) >= self._plan.queue_tasks:
            decided = self._decided(task, Site.EDGE, decided_by)
            queues.finished.append((received_s, self._failed(decided, "queue_full")))
            return
        workers = queues.worker_free_s[server]
        worker = workers.index(min(workers))
        busy_s = task.cycles / _WORKER_HZ
        workers[worker] = max(received_s, workers[worker]) + busy_s
        queues.server_done_s[server].append(workers[worker])
        if self._plan.lose_every and queues.offloaded % self._plan.lose_every == 0:
            lost = replace(self._decided(task, Site.EDGE, decided_by), outcome=Outcome.UNKNOWN, reason="timeout")
            queues.finished.append((task.arrived_s + self._plan.timeout_s, lost))
        else:
            self._done(task, workers[worker], Site.EDGE, decided_by, server_j=_WORKER_W * busy_s)

    def _done(
        self,
        task: _Task,
        end_s: float,
        site: Site,
        decided_by: DecidedBy,
        *,
        device_j: float = 0.0,
        server_j: float = 0.0,
    ) -> None:
        latency_s = end_s - task.arrived_s
        met = latency_s <= self._plan.deadline_s
        outcome = replace(
            self._decided(task, site, decided_by),
            outcome=Outcome.DONE,
            latency_s=latency_s,
            deadline_met=met,
            device_energy_j=device_j,
            server_energy_j=server_j,
            cost=latency_s + (0.0 if met else _MISS_PENALTY),
        )
        self._queues.finished.append((end_s, outcome))

    def _decided(self, task: _Task, site: Site, decided_by: DecidedBy) -> TaskOutcome:
        """What is known of a decided task before its end."""
        return replace(self._named(task), decision_epoch=task.epoch, decided_by=decided_by, site=site)

    def _named(self, task: _Task) -> TaskOutcome:
        return TaskOutcome(task.task_id, self._plan.devices[task.slot], Outcome.UNKNOWN, self._plan.deadline_s)

    def _dead(self, task: _Task) -> TaskOutcome:
        return self._failed(self._named(task), "device_down")

    def _failed(self, known: TaskOutcome, reason: str) -> TaskOutcome:
        cost = self._plan.timeout_s + _MISS_PENALTY
        return replace(known, outcome=Outcome.FAILED, reason=reason, deadline_met=False, cost=cost)


def _arrivals(plan: ToyPlan, seed: int, slot: int) -> Iterator[_Task]:
    """0 to 2 tasks an epoch: a pure function of the seed and the device."""
    rng = stream(seed, "toy", plan.devices[slot])
    for epoch in range(plan.epochs):
        instants = np.sort(rng.random(rng.integers(0, 3)))
        for number, instant in enumerate(instants):
            yield _Task(
                task_id=f"{plan.devices[slot]}/{epoch}/{number}",
                slot=slot,
                epoch=epoch,
                arrived_s=float((epoch + instant) * plan.epoch_s),
                payload_bytes=float(rng.integers(20_000, 200_000)),
                cycles=float(rng.integers(10**8, 10**9)),
            )
