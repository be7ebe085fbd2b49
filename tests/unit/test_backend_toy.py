"""The fake backend is exact: what it reports can be worked out by hand from what it showed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgebed.backend import CanPause, CanRunCells, CanShapeLink, EpisodePlan, OutOfOrder, TaskOutcome, opened
from edgebed.backend_testing import play
from edgebed.backend_toy import ToyBackend, ToyPlan
from edgebed.errors import BadInput
from edgebed.policies import make_policy, policy_names
from edgebed.policies.network_testing import random_hosts_policy
from edgebed.policies.policy_file import save_policy
from edgebed.protocol.cells import CellSpec
from edgebed.types import DecidedBy, Decision, Observation, Outcome, Site

PLAN = ToyPlan(devices=("pi-1",), epochs=1)


def busy_seed(plan: ToyPlan, tasks: int) -> int:
    """A seed whose first tick finds so many tasks waiting on the first device."""
    for seed in range(100):
        with opened(ToyBackend(), plan) as backend:
            backend.reset(seed)
            if backend.observe().values[0, 0] == tasks:
                return seed
    raise AssertionError("no such seed")


def feature(backend: ToyBackend, plan: ToyPlan, observation: Observation, name: str) -> float:
    return float(observation.values[0, backend.observation_spec(plan).device_index(name)])


def test_a_local_task_takes_its_wait_and_its_cycles() -> None:
    with opened(ToyBackend(), PLAN) as backend:
        backend.reset(busy_seed(PLAN, 1))
        seen = backend.observe()
        backend.submit(Decision.local(1))
        (outcome,) = backend.poll(math.inf) or backend.poll(math.inf)
        waited_s, cycles = (feature(backend, PLAN, seen, name) for name in ("waited_s", "waiting_cycles"))
    assert outcome.site is Site.DEVICE
    assert outcome.decided_by is DecidedBy.CONTROLLER
    assert outcome.latency_s == pytest.approx(waited_s + cycles / 1e9, rel=1e-6)
    assert outcome.device_energy_j == pytest.approx(2.0 * cycles / 1e9, rel=1e-6)


def test_an_offloaded_task_takes_its_wait_its_upload_and_the_worker() -> None:
    with opened(ToyBackend(), PLAN) as backend:
        backend.reset(busy_seed(PLAN, 1))
        seen = backend.observe()
        backend.submit(Decision.from_actions(np.array([1], np.int32), backend.observation_spec(PLAN)))
        (outcome,) = backend.poll(math.inf) or backend.poll(math.inf)
        names = ("waited_s", "waiting_bytes", "waiting_cycles")
        waited_s, payload_bytes, cycles = (feature(backend, PLAN, seen, name) for name in names)
    assert outcome.site is Site.EDGE
    assert outcome.latency_s == pytest.approx(waited_s + 8 * payload_bytes / 2e6 + cycles / 4e9, rel=1e-6)


def test_the_second_of_two_waits_for_the_first() -> None:
    with opened(ToyBackend(), PLAN) as backend:
        backend.reset(busy_seed(PLAN, 2))
        seen = backend.observe()
        backend.submit(Decision.local(1))
        last = play_rest(backend)[-1]
        waited_s, cycles = (feature(backend, PLAN, seen, name) for name in ("waited_s", "waiting_cycles"))
        assert last.latency_s is not None
        assert last.latency_s < waited_s + cycles / 1e9
        assert backend.clock.now_s() == pytest.approx(1.0 + cycles / 1e9, rel=1e-6)


def play_rest(backend: ToyBackend) -> list[TaskOutcome]:
    backend.observe()
    found: list[TaskOutcome] = []
    while late := backend.poll(math.inf):
        found += late
    return found


def test_polling_never_moves_the_clock_past_the_next_tick() -> None:
    plan = ToyPlan(devices=("pi-1",), epochs=2, epoch_s=0.01)
    with opened(ToyBackend(), plan) as backend:
        backend.reset(busy_seed(plan, 2))
        backend.observe()
        backend.submit(Decision.local(1))
        assert backend.poll(math.inf) == []
        assert backend.clock.now_s() == pytest.approx(0.02)
        assert backend.observe().epoch == 1


def test_what_it_cannot_do_is_in_the_receipt() -> None:
    spec = ToyBackend().observation_spec(PLAN)
    with opened(ToyBackend(), PLAN) as backend:
        backend.reset(0)
        backend.observe()
        asked = Decision.from_actions(np.array([1], np.int32), spec)
        asked.site[:] = Site.SPLIT
        asked.edge_fraction[:] = 0.5
        receipt = backend.submit(asked)
    assert receipt.executed.slot(0).site is Site.EDGE
    assert receipt.executed.edge_fraction.tolist() == [1.0]
    assert receipt.accepted.tolist() == [False]


def test_every_kind_of_end_occurs() -> None:
    plan = ToyPlan(epochs=20, absent=frozenset({(1, "pi-1"), (2, "pi-1")}), queue_tasks=1, lose_every=5)
    spec = ToyBackend().observation_spec(plan)
    policy = make_policy("all_edge", spec)
    with opened(ToyBackend(), plan) as backend:
        episode = play(backend, plan, 0, policy.decide)
    ends = {(outcome.outcome, outcome.reason) for outcome in episode.outcomes}
    assert ends == {
        (Outcome.DONE, ""),
        (Outcome.FAILED, "device_down"),
        (Outcome.FAILED, "queue_full"),
        (Outcome.UNKNOWN, "timeout"),
    }


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_can_drive_it(name: str, tmp_path: Path) -> None:
    plan = ToyPlan()
    spec = ToyBackend().observation_spec(plan)
    options = {}
    if name == "network":
        save_policy(tmp_path, random_hosts_policy(spec))
        options["weights"] = str(tmp_path)
    policy = make_policy(name, spec, options)
    policy.reset(0)
    with opened(ToyBackend(), plan) as backend:
        episode = play(backend, plan, 0, policy.decide)
    assert all(receipt.accepted.all() for receipt in episode.receipts.values())
    assert {outcome.outcome for outcome in episode.outcomes} == {Outcome.DONE}


def test_predicting_latency_beats_a_coin() -> None:
    plan = ToyPlan(epochs=50, link_rate_bps=4e6)
    means_s = {}
    for name in ("greedy_latency", "uniform_random", "all_local", "all_edge"):
        policy = make_policy(name, ToyBackend().observation_spec(plan))
        policy.reset(0)
        with opened(ToyBackend(), plan) as backend:
            outcomes = play(backend, plan, 0, policy.decide).outcomes
        means_s[name] = sum(outcome.latency_s or 0.0 for outcome in outcomes) / len(outcomes)
    assert means_s["greedy_latency"] < min(means_s[name] for name in means_s if name != "greedy_latency")


def test_a_shaped_link_is_slower_until_it_is_restored() -> None:
    backend = ToyBackend()
    assert isinstance(backend, CanShapeLink)
    assert not isinstance(backend, CanPause | CanRunCells)
    with opened(backend, PLAN):
        backend.shape_link("pi-1", 1e5)
        backend.reset(0)
        assert feature(backend, PLAN, backend.observe(), "link_rate_bps") == 1e5
        backend.restore_link("pi-1")
        backend.reset(0)
        assert feature(backend, PLAN, backend.observe(), "link_rate_bps") == 2e6
        with pytest.raises(BadInput, match="link of 'pi-9'"):
            backend.shape_link("pi-9", 1e5)


def test_a_call_out_of_turn_says_where_it_is_and_what_is_possible() -> None:
    with pytest.raises(OutOfOrder, match=r"submit\(\) while the backend is closed; possible now: open, close"):
        ToyBackend().submit(Decision.local(1))


def test_opened_closes_whatever_happens() -> None:
    backend = ToyBackend()
    with pytest.raises(ZeroDivisionError), opened(backend, PLAN):
        _ = 1 / 0
    with pytest.raises(OutOfOrder, match="while the backend is closed"):
        backend.reset(0)


def test_a_cell_is_a_plan_of_an_episode() -> None:
    asked = {name for name, member in vars(EpisodePlan).items() if isinstance(member, property)}
    assert asked == {"devices", "servers", "epochs", "epoch_s"}
    assert asked <= set(CellSpec.__struct_fields__)
