"""The queues in virtual time: closed forms of queueing theory, the real arbiter, a naive reference, event by event."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edge_server.channels import ChannelArbiter, equal_shares
from edgebed.errors import BadInput
from edgebed.simulation.radio.between_hosts import Interference
from edgebed.simulation.testbed.ingredients import (
    DONE,
    FAILED,
    NOWHERE,
    REASONS,
    UNKNOWN,
    Ended,
    Ingredients,
    Layout,
    ProcessorGroup,
)
from edgebed.simulation.testbed.pipeline import Pipeline

FOREVER_S = 1e12


def ingredients(tasks: int, **given: Any) -> Ingredients:
    """Tasks of one frame that take no time anywhere, but for what is given."""
    columns: dict[str, Any] = {
        "task": np.arange(tasks),
        "limit_s": np.full(tasks, FOREVER_S),
        "frames": np.ones(tasks, np.int64),
        **{name: np.zeros(tasks, np.int64) for name in ("device", "server", "channel", "edge_frames")},
        **{
            name: np.zeros(tasks)
            for name in (
                *("arrived_s", "ready_s", "upload_bytes", "device_compute_s", "uplink_s", "uplink_hold_s"),
                *("server_compute_s", "downlink_s", "refusal_s", "fallback_compute_s"),
            )
        },
    }
    columns |= {name: np.broadcast_to(np.asarray(value), tasks).copy() for name, value in given.items()}
    if "ready_s" not in given:
        columns["ready_s"] = columns["arrived_s"].copy()
    return Ingredients(**columns)


def layout(devices: int = 1, workers: tuple[int, ...] = (1,), queue_tasks: int = 10**9, **more: Any) -> Layout:
    servers = len(workers)
    frame_s = ((0.1,) * devices, (0.1,) * servers)
    return Layout(devices, workers, (queue_tasks,) * servers, *frame_s, **more)


def run(pipeline: Pipeline, tasks: Ingredients) -> Ended:
    pipeline.submit(tasks)
    ended = pipeline.advance(math.inf)
    assert pipeline.open == 0
    return ended


# --- closed forms -----------------------------------------------------------------------------------------------------


def mean_wait_s(service_s: np.ndarray[Any, Any], arrived_s: np.ndarray[Any, Any], site: str) -> float:
    tasks = len(arrived_s)
    if site == "device":
        ended = run(Pipeline(layout()), ingredients(tasks, arrived_s=arrived_s, device_compute_s=service_s))
        return float(ended.stages[:, 0].mean())
    ended = run(Pipeline(layout()), ingredients(tasks, arrived_s=arrived_s, server_compute_s=service_s, edge_frames=1))
    return float(ended.stages[:, 4].mean())


@pytest.mark.parametrize("site", ["device", "edge"])
@pytest.mark.parametrize("load", [0.5, 0.7])
def test_waiting_times_of_m_m_1_and_m_d_1(site: str, load: float) -> None:
    rng, tasks = np.random.default_rng(3), 20_000
    arrived_s = np.cumsum(rng.exponential(1.0, tasks))
    exponential = mean_wait_s(rng.exponential(load, tasks), arrived_s, site)
    fixed = mean_wait_s(np.full(tasks, load), arrived_s, site)
    # Pollaczek and Khinchine: W = rho s (1 + c^2) / (2 (1 - rho)), c = 1 for M/M/1 and 0 for M/D/1.
    assert exponential == pytest.approx(load * load / (1 - load), rel=0.1)
    assert fixed == pytest.approx(load * load / (2 * (1 - load)), rel=0.1)


def test_several_workers_wait_as_erlang_says() -> None:
    rng, tasks, workers, load = np.random.default_rng(5), 20_000, 3, 2.1
    arrived_s = np.cumsum(rng.exponential(1.0, tasks))
    given = ingredients(tasks, arrived_s=arrived_s, server_compute_s=rng.exponential(load, tasks), edge_frames=1)
    ended = run(Pipeline(layout(workers=(workers,))), given)
    terms = [load**k / math.factorial(k) for k in range(workers)]
    last = load**workers / math.factorial(workers) * workers / (workers - load)
    waits = last / (sum(terms) + last)  # Erlang's C: the share that waits
    assert ended.stages[:, 4].mean() == pytest.approx(waits * load / (workers - load), rel=0.1)


def test_a_tandem_of_uplink_and_server_is_the_max_plus_recursion() -> None:
    rng, tasks = np.random.default_rng(7), 500
    arrived_s = np.sort(rng.uniform(0, 100, tasks))
    hold_s, served_s = rng.exponential(0.15, tasks), rng.exponential(0.15, tasks)
    given = ingredients(
        tasks, arrived_s=arrived_s, uplink_hold_s=hold_s, uplink_s=hold_s + 0.01, server_compute_s=served_s,
        downlink_s=0.02, edge_frames=1,
    )  # fmt: skip
    ended = run(Pipeline(layout()), given)
    sent_s = finished_s = 0.0
    for task, row in enumerate(np.argsort(ended.task)):
        start_s = max(arrived_s[task], sent_s)
        sent_s = start_s + hold_s[task]
        finished_s = max(sent_s + 0.01, finished_s) + served_s[task]
        assert ended.latency_s[row] == pytest.approx(finished_s + 0.02 - arrived_s[task], abs=1e-9)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_the_latency_is_the_sum_of_the_stages_to_the_bit_and_durations_come_out_as_they_went_in() -> None:
    rng, tasks = np.random.default_rng(1), 300
    arrived_s = np.sort(rng.uniform(0, 30, tasks))
    given = ingredients(
        tasks, device=rng.integers(0, 3, tasks), arrived_s=arrived_s, ready_s=arrived_s + rng.uniform(0, 0.5, tasks),
        frames=4, edge_frames=rng.integers(0, 5, tasks), device_compute_s=rng.exponential(0.2, tasks),
        uplink_hold_s=0.05, uplink_s=0.061, server_compute_s=rng.exponential(0.1, tasks), downlink_s=0.013,
    )  # fmt: skip
    ended = run(Pipeline(layout(3)), given)
    total_s = ended.decision_s.copy()
    for stage in range(7):
        total_s = total_s + ended.stages[:, stage]
    assert np.array_equal(total_s, ended.latency_s)
    at_edge = ended.site == 1
    assert at_edge.any()
    assert np.array_equal(ended.stages[at_edge, 5], given.server_compute_s[ended.task[at_edge]])
    assert set(ended.stages[at_edge, 3]) == {0.061}
    assert set(ended.stages[at_edge, 6]) == {0.013}


def test_of_a_split_task_the_slower_part_counts_and_both_have_worked() -> None:
    given = ingredients(
        2, arrived_s=[0.0, 10.0], frames=4, edge_frames=2, device_compute_s=[1.0, 0.1], uplink_s=0.2,
        uplink_hold_s=0.2, server_compute_s=0.3, downlink_s=0.1,
    )  # fmt: skip
    ended = run(Pipeline(layout()), given)
    assert ended.latency_s == pytest.approx([1.0, 0.6])
    assert list(ended.site) == [2, 2]
    assert ended.device_busy_s == pytest.approx([1.0, 0.1])
    assert ended.server_busy_s == pytest.approx([0.3, 0.3])
    assert ended.stages[0, 1] == 1.0
    assert ended.stages[1, 1] == 0.0, "the device was not the slower one"


def test_lanes_do_not_know_of_each_other() -> None:
    rng, tasks = np.random.default_rng(2), 200
    arrived_s = np.sort(rng.uniform(0, 20, tasks))
    own = {"arrived_s": arrived_s, "device": rng.integers(0, 2, tasks), "device_compute_s": rng.exponential(0.3, tasks)}
    own |= {"edge_frames": rng.integers(0, 2, tasks), "server_compute_s": rng.exponential(0.2, tasks)}
    alone = run(Pipeline(layout(2)), ingredients(tasks, **own))
    together = Pipeline(layout(2), lanes=3)
    for lane in (0, 1, 2):
        theirs = own | {"arrived_s": arrived_s * (1 + lane), "device": own["device"] + 2 * lane, "server": lane}
        together.submit(ingredients(tasks, **theirs, task=np.arange(tasks) + lane * tasks))
    ended = together.advance(math.inf)
    first = ended.take(ended.task < tasks)
    assert np.array_equal(first.latency_s, alone.latency_s)
    assert np.array_equal(first.task, alone.task)


def test_advancing_in_steps_gives_the_same_as_all_at_once() -> None:
    def given() -> Ingredients:
        rng = np.random.default_rng(4)
        return ingredients(
            100, arrived_s=np.sort(rng.uniform(0, 10, 100)), edge_frames=rng.integers(0, 2, 100), uplink_s=0.1,
            uplink_hold_s=0.1, device_compute_s=rng.exponential(0.1, 100), server_compute_s=0.05,
        )  # fmt: skip

    whole = run(Pipeline(layout()), given())
    pipeline = Pipeline(layout())
    pipeline.submit(given())
    parts = [pipeline.advance(step * 0.25) for step in range(1, 60)]
    stepped = Ended.joined([*parts, pipeline.advance(math.inf)])
    for name in ("task", "latency_s", "known_s"):
        assert np.array_equal(getattr(stepped, name), getattr(whole, name))
    assert all((part.known_s <= step * 0.25).all() for step, part in enumerate(parts, 1))


# --- refusals, time-outs, load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_local", [False, True])
def test_a_full_server_refuses_when_the_upload_begins(is_local: bool) -> None:
    given = ingredients(
        3, device=[0, 1, 2], arrived_s=[0.0, 0.1, 0.2], edge_frames=1, upload_bytes=100, uplink_hold_s=0.5,
        uplink_s=0.5, server_compute_s=1.0, refusal_s=0.03, fallback_compute_s=2.0,
    )  # fmt: skip
    ended = run(Pipeline(layout(3, queue_tasks=2, refused_run_locally=is_local)), given)
    refused = ended.take(ended.task == 2)
    if is_local:
        assert refused.latency_s == pytest.approx([2.03])
        assert (refused.site[0], refused.edge_frames[0], refused.server[0]) == (0, 0, NOWHERE)
        assert refused.stages[0, 3] == pytest.approx(0.03), "what the refusal took is part of the latency"
    else:
        assert REASONS[refused.reason[0]] == "queue_full"
        assert refused.known_s == pytest.approx([0.23])
        assert (refused.site[0], refused.server[0]) == (1, 0), "where it was to run"
    assert (ended.outcome[ended.task < 2] == DONE).all()


def test_a_time_out_withdraws_what_was_not_started_and_leaves_what_was_sent_unknown() -> None:
    # One executor and one worker are busy for 10 s; two more tasks of each kind time out after 2 s.
    given = ingredients(
        4, arrived_s=[0.0, 0.1, 0.2, 0.3], edge_frames=[0, 0, 1, 1], device_compute_s=[10.0, 1.0, 0.0, 0.0],
        server_compute_s=[0.0, 0.0, 10.0, 1.0], limit_s=[2.0, 2.1, 2.2, 2.3],
    )  # fmt: skip
    ended = run(Pipeline(layout()), given)
    found = {
        int(task): (int(o), REASONS[r]) for task, o, r in zip(ended.task, ended.outcome, ended.reason, strict=True)
    }
    assert found[0] == (DONE, ""), "what runs here is let finish"
    assert found[1] == (FAILED, "timeout_not_started")
    assert found[2] == (UNKNOWN, "timeout"), "a worker had it"
    assert found[3] == (UNKNOWN, "timeout"), "the server had it"
    assert sorted(ended.known_s) == pytest.approx([2.1, 2.2, 2.3, 10.0])
    assert np.isnan(ended.latency_s[ended.outcome != DONE]).all()


def test_a_late_answer_makes_an_unknown_task_done() -> None:
    given = ingredients(1, edge_frames=1, server_compute_s=1.0, downlink_s=5.0, limit_s=2.0)
    ended = run(Pipeline(layout()), given)
    assert list(ended.outcome) == [UNKNOWN, DONE]
    assert ended.latency_s[1] == pytest.approx(6.0)


def test_an_upload_that_times_out_frees_the_uplink() -> None:
    given = ingredients(
        2, arrived_s=[0.0, 0.5], edge_frames=1, uplink_hold_s=[10.0, 0.2], uplink_s=[10.0, 0.2], limit_s=[2.0, 50.0]
    )
    ended = run(Pipeline(layout()), given)
    assert ended.latency_s[ended.task == 1] == pytest.approx([1.7])


def test_processors_that_are_shared_slow_what_begins_beside_others() -> None:
    group = ProcessorGroup(cores=2, per_other=0.1, per_excess=0.5)
    places: dict[str, Any] = {"device_processors": (0, 0, 0), "server_processors": (NOWHERE,), "processors": (group,)}
    given = ingredients(3, device=[0, 1, 2], arrived_s=[0.0, 0.1, 0.2], device_compute_s=1.0)
    ended = run(Pipeline(layout(3, **places)), given)
    taken_s = {int(task): float(stages[1]) for task, stages in zip(ended.task, ended.stages, strict=True)}
    assert taken_s == pytest.approx({0: 1.0, 1: 1.1, 2: 1.0 + 0.2 + 0.5})


# --- channels: the real arbiter ---------------------------------------------------------------------------------------


def test_shaped_channels_carry_as_the_edge_servers_arbiter_does() -> None:
    rng, tasks, rate_bps = np.random.default_rng(9), 60, 1e6
    arrived_s, sizes = np.sort(rng.uniform(0, 8, tasks)), rng.integers(1_000, 80_000, tasks)
    channel = rng.integers(0, 2, tasks)
    given = ingredients(
        tasks, device=np.arange(tasks), channel=channel, arrived_s=arrived_s, edge_frames=1, upload_bytes=sizes
    )
    ended = run(Pipeline(layout(tasks, channels=2, channel_rate_bps=rate_bps)), given)
    _check_carried(
        ended, ChannelArbiter[int](2, equal_shares(rate_bps), chunk_bytes=100_000), channel, arrived_s, sizes
    )


def test_channels_that_interfere_carry_as_the_edge_servers_arbiter_does() -> None:
    rng, tasks = np.random.default_rng(10), 60
    arrived_s, sizes = np.sort(rng.uniform(0, 8, tasks)), rng.integers(1_000, 80_000, tasks)
    channel = rng.integers(0, 2, tasks)
    received_w = tuple((0.1 * rng.uniform(5.0, 50.0, tasks) ** -4.0).tolist())
    interference = Interference(bandwidth_hz=3e5, noise_w=1e-13, received_w=(received_w,))
    given = ingredients(
        tasks, device=np.arange(tasks), channel=channel, arrived_s=arrived_s, edge_frames=1, upload_bytes=sizes
    )
    pipeline = Pipeline(layout(tasks, channels=2, interference=interference))
    pipeline.submit(given)
    early = pipeline.advance(4.0)
    assert pipeline.load().channel_uploads.sum() > 2, "uploads are under way"
    # From a fork comes the same.
    ended = Ended.joined([early, pipeline.fork().advance(math.inf)])
    assert pipeline.advance(math.inf).granted_bps.tolist() == ended.granted_bps[len(early) :].tolist()
    arbiter = ChannelArbiter[int](
        2, lambda channel, uploads: interference.rates_bps([received_w[each] for each in uploads]), chunk_bytes=100_000
    )
    _check_carried(ended, arbiter, channel, arrived_s, sizes)


def _check_carried(ended: Ended, arbiter: ChannelArbiter[int], channel: Any, arrived_s: Any, sizes: Any) -> None:
    """The same uploads through an edge server's arbiter are carried at the same instants."""
    tasks = len(sizes)
    carried_s: dict[int, float] = {}
    mean_bps: dict[int, float] = {}

    def hear(grants: Any, now_s: float) -> None:
        for grant in grants:
            carried_s[grant.key], mean_bps[grant.key] = now_s, grant.mean_bps

    for task in range(tasks):
        while arbiter.due_s() <= arrived_s[task]:
            due_s = arbiter.due_s()
            hear(arbiter.advance(due_s), due_s)
        hear(arbiter.join(task, int(channel[task]), int(sizes[task]), arrived_s[task]), arrived_s[task])
    while (due_s := arbiter.due_s()) < math.inf:
        hear(arbiter.advance(due_s), due_s)
    for row, task in enumerate(ended.task.tolist()):
        assert ended.stages[row, 3] == pytest.approx(carried_s[task] - arrived_s[task], abs=1e-6)
        assert ended.granted_bps[row] == pytest.approx(mean_bps[task], rel=1e-6)


# --- a naive reference, event by event --------------------------------------------------------------------------------


@dataclass
class Naive:
    """The same rules, written down as a list of things that may happen next, of which the earliest does.

    It looks at every task again after each event and keeps no queue: who is next is asked anew each time.
    """

    tasks: Ingredients
    workers: int
    queue_tasks: int
    state: dict[int, str] = field(default_factory=dict)
    at_s: dict[tuple[int, str], float] = field(default_factory=dict)
    outcome: dict[int, tuple[int, str]] = field(default_factory=dict)

    def run(self) -> None:
        tasks = self.tasks
        self.state = dict.fromkeys(range(len(tasks)), "new")
        while (coming := self._coming()) is not None:
            now_s, _, task, to = coming
            self._do(task, to, now_s)
            self._start_what_can(now_s)

    def _coming(self) -> tuple[float, int, int, str] | None:
        """The earliest thing; ends come before beginnings, time-outs last."""
        tasks, coming = self.tasks, []
        for task, state in self.state.items():
            if state == "new":
                coming.append((tasks.ready_s[task], 7, task, "ready"))
            due = {"computing": ("computed", 0), "serving": ("served", 1), "returning": ("done", 2)}
            due |= {"refusing": ("refused", 3), "flying": ("received", 4), "uploading": ("sent", 5)}
            due |= {"abandoned": ("dropped", 1)}
            if state in due:
                to, rank = due[state]
                coming.append((self.at_s[task, to], rank, task, to))
            if state not in ("new", "over", "abandoned", "computing") and task not in self.outcome:
                coming.append((tasks.limit_s[task], 8, task, "timeout"))
        return min(coming, default=None)

    def _do(self, task: int, to: str, now_s: float) -> None:
        self.at_s[task, to] = now_s
        after = {"ready": "queued", "computed": "over", "received": "at server", "done": "over", "dropped": "over"}
        if to == "ready" and now_s >= self.tasks.limit_s[task]:
            self.state[task], self.outcome[task] = "over", (FAILED, "timeout_not_started")
        elif to == "timeout":
            self._time_out(task)
        elif to == "sent":
            self.state[task] = "flying"
            self.at_s[task, "received"] = now_s + (self.tasks.uplink_s[task] - self.tasks.uplink_hold_s[task])
        elif to == "served":
            self.state[task] = "returning"
            self.at_s[task, "done"] = now_s + self.tasks.downlink_s[task]
        elif to == "refused":
            self.state[task], self.outcome[task] = "over", (FAILED, "queue_full")
        else:
            self.state[task] = after[to]
            if to in ("computed", "done"):
                self.outcome[task] = (DONE, "")

    def _time_out(self, task: int) -> None:
        state = self.state[task]
        if state in ("queued", "uploading", "refusing"):
            self.state[task], self.outcome[task] = "over", (FAILED, "timeout_not_started")
        else:
            self.outcome[task] = (UNKNOWN, "timeout")
            self.state[task] = {"serving": "abandoned", "returning": "returning"}.get(state, "over")

    def _start_what_can(self, now_s: float) -> None:
        tasks, states = self.tasks, self.state
        order = sorted(states, key=lambda task: (self.at_s.get((task, "ready"), math.inf), task))
        for task in order:
            if states[task] != "queued":
                continue
            device, is_edge = tasks.device[task], bool(tasks.edge_frames[task])
            mine = [other for other in states if tasks.device[other] == device and other != task]
            if not is_edge and all(states[other] != "computing" for other in mine):
                states[task] = "computing"
                self.at_s[task, "computed"] = now_s + tasks.device_compute_s[task]
            elif is_edge and not any(states[other] in ("uploading", "refusing") for other in mine):
                self._offer(task, now_s)
        waiting = sorted(
            (task for task in states if states[task] == "at server"), key=lambda task: self.at_s[task, "received"]
        )
        busy = sum(state in ("serving", "abandoned") for state in states.values())
        for task in waiting[: max(0, self.workers - busy)]:
            states[task] = "serving"
            end_s = now_s + tasks.server_compute_s[task]
            self.at_s[task, "served"] = self.at_s[task, "dropped"] = end_s

    def _offer(self, task: int, now_s: float) -> None:
        held = ("uploading", "flying", "at server", "serving", "abandoned")
        if sum(state in held for state in self.state.values()) >= self.queue_tasks:
            self.state[task] = "refusing"
            self.at_s[task, "refused"] = now_s + self.tasks.refusal_s[task]
        else:
            self.state[task] = "uploading"
            self.at_s[task, "sent"] = now_s + self.tasks.uplink_hold_s[task]


@pytest.mark.parametrize("seed", range(12))
def test_everything_at_once_as_a_naive_reference_has_it(seed: int) -> None:
    rng, tasks = np.random.default_rng(seed), 80
    arrived_s = np.sort(rng.uniform(0, 8, tasks))
    hold_s = rng.exponential(0.1, tasks) + 0.05
    given = ingredients(
        tasks, device=rng.integers(0, 4, tasks), arrived_s=arrived_s, ready_s=arrived_s + rng.uniform(0, 0.3, tasks),
        limit_s=arrived_s + rng.uniform(0.2, 3.0, tasks), edge_frames=rng.integers(0, 2, tasks),
        device_compute_s=rng.exponential(0.5, tasks), uplink_hold_s=hold_s,
        uplink_s=hold_s + rng.uniform(0, 0.1, tasks),
        server_compute_s=rng.exponential(0.25, tasks), downlink_s=rng.exponential(0.3, tasks), refusal_s=0.02,
    )  # fmt: skip
    naive = Naive(given, workers=2, queue_tasks=4)
    naive.run()
    ended = run(Pipeline(layout(4, workers=(2,), queue_tasks=4)), given)
    last = {task: row for row, task in enumerate(ended.task.tolist())}
    assert {task: (int(ended.outcome[row]), REASONS[ended.reason[row]]) for task, row in last.items()} == naive.outcome
    assert len({outcome for outcome, _ in naive.outcome.values()}) > 1, "something went wrong in it, as it should"
    for task, row in last.items():
        if ended.outcome[row] == DONE:
            end_s = naive.at_s[task, "done" if given.edge_frames[task] else "computed"]
            assert ended.latency_s[row] == pytest.approx(end_s - arrived_s[task], abs=1e-9)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"device": 3}, "device 3 to 3; this pipeline has 0 to 0"),
        ({"server": 1, "edge_frames": 1}, "server 1 to 1; this pipeline has -1 to 0"),
        ({"frames": 0}, "a task has 1 frame or more"),
        ({"uplink_hold_s": 1.0}, "uplink_hold_s is part of uplink_s"),
        ({"ready_s": -1.0}, "a task was ready at -1.0 s; the pipeline is at 0.0 s already"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        Pipeline(layout()).submit(ingredients(1, **given))


def test_what_is_known_of_the_queues_at_an_instant() -> None:
    pipeline = Pipeline(layout(2))
    pipeline.submit(
        ingredients(
            4, device=[0, 0, 1, 1], edge_frames=[0, 0, 2, 1], frames=[2, 3, 2, 1], device_compute_s=1.0,
            upload_bytes=1000.0, uplink_hold_s=0.5, uplink_s=0.5, server_compute_s=1.0,
        )
    )  # fmt: skip
    pipeline.advance(0.25)
    load = pipeline.load()
    assert load.device_queue_delay_s[0] == pytest.approx([0.1 * 3 + 0.0, 0.0]), "0.1 s a frame is believed; 0.25 s ran"
    assert load.uplink_queue_bytes[0] == pytest.approx([0.0, 500.0 + 1000.0])
    assert load.server_tasks[0] == pytest.approx([1.0])
    assert load.uploading_bytes[0] == pytest.approx([1000.0])
    pipeline.advance(0.75)
    load = pipeline.load()
    assert load.server_busy_workers[0] == pytest.approx([1.0])
    assert load.server_queue_delay_s[0] == pytest.approx([0.0]), "believed to be done by now"
    pipeline.advance(1.75)
    load = pipeline.load()
    assert load.device_frame_s[0, 0] == pytest.approx(0.1 + 0.2 * (0.5 - 0.1)), "what the first task took was learnt"
    assert load.measured_bps[0] == pytest.approx([0.0, 16_000.0])


# --- in steps of what comes next --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_s", [10.0, math.nextafter(10.0, 11.0), 1e9])
def test_steps_to_what_comes_next_come_to_an_end(limit_s: float) -> None:
    pipeline = Pipeline(layout())
    # One that has been told of leaves its time-out behind; the other one waits for its own.
    pipeline.submit(ingredients(2, edge_frames=1, server_compute_s=[1.0, 2e9], limit_s=[9.0, limit_s]))
    steps, unknown = 0, []
    while (next_s := pipeline.next_s) < math.inf and steps < 10_000:
        ended = pipeline.advance(next_s)
        unknown += [(next_s, task) for task in ended.task[ended.outcome == UNKNOWN].tolist()]
        steps += 1
    assert steps < 10_000
    assert unknown == [(limit_s, 1)]


def test_a_device_that_forgets_is_as_new_and_leaves_the_others_alone() -> None:
    """Wherever its tasks are: on the way to be ready, computing, queued, uploading, at the server, coming back."""
    shaped = layout(2, (2,), channel_rate_bps=8e6)
    tasks = ingredients(
        10,
        device=[0] * 8 + [1] * 2,
        edge_frames=[0, 0, 0, 1, 1, 1, 1, 1, 1, 0],
        ready_s=[0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        device_compute_s=4.0,
        upload_bytes=5e5,
        server_compute_s=[0.0, 0.0, 0.0, 0.6, 1.5, 9.0, 9.0, 9.0, 3.0, 0.0],
        downlink_s=[0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    )
    pipeline = Pipeline(shaped)
    pipeline.submit(tasks)
    before = pipeline.advance(2.6)
    pipeline.forget(0, REASONS.index("agent_restarted"))
    lost = pipeline.advance(2.6)
    assert sorted([*before.task.tolist(), *lost.task.tolist()]) == list(range(8))
    assert (set(lost.outcome), set(lost.reason)) == ({UNKNOWN}, {REASONS.index("agent_restarted")})
    load = pipeline.load()
    assert (load.device_queue_delay_s[0, 0], load.uplink_queue_bytes[0, 0], load.device_is_busy[0, 0]) == (0, 0, 0)
    pipeline.submit(ingredients(1, task=[10], device=0, arrived_s=3.0, device_compute_s=1.0))
    after = pipeline.advance(math.inf)
    assert sorted(zip(after.task.tolist(), after.outcome.tolist(), strict=True)) == [(8, DONE), (9, DONE), (10, DONE)]
    assert after.stages[after.task == 10].sum() == 1.0, "nothing is in its way"
    assert (pipeline.open, pipeline.load().server_tasks.tolist()) == (0, [[0.0]])
    assert pipeline.load().uploading_bytes.tolist() == [[0.0]]
